"""Exported = eager: for every kind of model and graph, any batch, any number of steps."""

import json
import sys

import numpy as np
import pytest
import torch

from diffusionpose import InputError, PoseEstimator
from diffusionpose.models.checkpoints import load_model
from diffusionpose.models.export import (
    BATCHES,
    TOLERANCE,
    ParityError,
    SingleGraph,
    compare,
    export_model,
    random_crops,
)
from diffusionpose.skeletons import Skeleton

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")


SHALLOW = {"encoder": {"depth": 1, "embed_dim": 48, "num_heads": 3}}  # of a ViT: few nodes, half the time


def opset(path):
    return [entry.version for entry in onnx.load(path).opset_import if not entry.domain]


def agree(model, path, steps, flip):
    """The file gives PyTorch's heatmaps for batches of any size."""
    session = onnxruntime.InferenceSession(path)
    (entry,) = session.get_inputs()
    width, height = model.input_size
    assert (entry.name, entry.type, entry.shape) == ("images", "tensor(uint8)", ["batch", 3, height, width])
    assert [output.name for output in session.get_outputs()] == ["heatmaps"]
    graph = SingleGraph(model, steps, flip)
    for count in (1, 2, 5, 8):
        images = random_crops(count, model.input_size, seed=7)
        with torch.no_grad():
            expected = graph(torch.from_numpy(images)).numpy()
        (heatmaps,) = session.run(None, {"images": images})
        assert heatmaps.shape == expected.shape
        assert np.abs(heatmaps - expected).max() < 1e-4 * max(1, np.abs(expected).max())
    return expected.std() > 0.05  # else the heatmaps are nearly empty, and everything agrees


@pytest.mark.parametrize(
    ("name", "options", "steps"),
    [
        # one step with the full condition, which takes the exporter twice as long, is ``tiny_onnx``
        ("diffusionpose_vit_s", {"width": 16, "time_input": True, "conditions": "keypoints", **SHALLOW}, 2),
        ("vitpose_s", SHALLOW, None),
    ],
)
def test_the_file_gives_pytorchs_heatmaps_for_any_batch(lively, name, options, steps, tmp_path):
    model = lively(name, **options)
    exported = export_model(model, tmp_path / "model.onnx", steps, opset=20)
    assert exported.parity.difference <= TOLERANCE
    assert exported.parity.crops + exported.parity.ties == sum(BATCHES)
    assert opset(exported.path) == [20]
    assert agree(model, exported.path, steps, False)


def test_two_graphs_of_a_decoder_that_sees_t_stored_as_float16(lively, tmp_path, picture):
    model = lively("diffusionpose_vit_s", width=16, time_input=True, conditions="keypoints", **SHALLOW)
    for parameter in model.parameters():
        if parameter.ndim >= 2:
            parameter.data = parameter.data.half().float()
    exported = export_model(model, tmp_path / "model", half=True)
    assert sorted(file.name for file in (tmp_path / "model").iterdir()) == ["encoder.onnx", "step.onnx"]
    inputs = [entry.name for entry in onnxruntime.InferenceSession(exported.files[1]).get_inputs()]
    assert inputs == ["x_fea", "hm_t", "y_t", "t"]
    assert "FLOAT16" in {
        onnx.TensorProto.DataType.Name(tensor.data_type)
        for tensor in onnx.load(exported.files[1]).graph.initializer
    }
    box = [[10, 10, 90, 80]]
    ours, theirs = (
        PoseEstimator(each, device="cpu", steps=2)(picture, box)[0]
        for each in (model, PoseEstimator.from_pretrained(tmp_path / "model", "cpu").network)
    )
    assert np.abs(ours.keypoints - theirs.keypoints).max() < 1e-2
    with pytest.raises(InputError, match="the flip test goes into a single file"):
        export_model(model, tmp_path / "model", flip=True)


def test_a_heatmap_model_has_the_encoder_alone(lively, tmp_path, picture):
    model = lively("vitpose_s", **SHALLOW)
    export_model(model, tmp_path / "model")
    assert [file.name for file in (tmp_path / "model").iterdir()] == ["encoder.onnx"]
    box = [[10, 10, 90, 80]]
    (ours,) = PoseEstimator(model, device="cpu")(picture, box)
    (theirs,) = PoseEstimator.from_pretrained(tmp_path / "model", "cpu")(picture, box)
    assert np.abs(ours.keypoints - theirs.keypoints).max() < 1e-2


def test_a_flip_test_inside_is_made_once(lively, tmp_path, picture):
    model = lively("vitpose_s", unbiased=True, **SHALLOW)
    path = export_model(model, tmp_path / "model.onnx", flip=True).path
    assert agree(model, path, None, True)
    box = [[10, 10, 90, 80]]
    (ours,) = PoseEstimator(model, device="cpu")(picture, box)
    (theirs,) = PoseEstimator.from_pretrained(path, device="cpu")(picture, box)
    assert np.abs(ours.keypoints - theirs.keypoints).max() < 1e-2
    with pytest.raises(InputError, match=r"model\.onnx was exported with --flip"):
        PoseEstimator.from_pretrained(path, device="cpu", flip=False)
    with pytest.raises(InputError, match="is no diffusion model and takes none"):
        PoseEstimator.from_pretrained(path, device="cpu", steps=1)


def test_the_metadata_tell_all_and_nothing_of_this_machine(tiny_weights, tiny_onnx):
    model = load_model(tiny_weights)
    agree(model, tiny_onnx, 1, False)
    facts = json.loads(
        onnxruntime.InferenceSession(tiny_onnx).get_modelmeta().custom_metadata_map["diffusionpose"]
    )
    assert Skeleton.from_dict(facts["skeleton"]) == model.skeleton
    assert (facts["input_size"], facts["heatmap_size"]) == ([48, 64], [12, 16])
    assert (facts["stride"], facts["unbiased"], facts["box_padding"]) == (4, False, 1.25)
    assert (facts["steps"], facts["flip"], facts["decode"], facts["heatmap_sigma"]) == (1, False, "dark", 0.5)
    assert tuple(facts["flip_order"]) == model.skeleton.flip_order
    content = tiny_onnx.read_bytes()
    assert b"site-packages" not in content
    assert b".py" not in content
    assert opset(tiny_onnx) == [18]


def test_both_files_of_openvino_and_nothing_else_are_written(tiny_openvino):
    assert sorted(file.name for file in tiny_openvino.parent.iterdir()) == ["tiny.bin", "tiny.xml"]


def test_what_cannot_be_exported(lively, tmp_path):
    with pytest.raises(InputError, match="tiny is no diffusion model and takes none"):
        export_model(lively("tiny"), tmp_path / "model.onnx", steps=1)
    with pytest.raises(InputError, match="steps: -1 must be 0"):
        export_model(lively(), tmp_path / "model.onnx", steps=-1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("package", ["onnxscript", "onnx"])
def test_a_missing_extra_is_named(package, lively, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InputError, match=r"pip install 'diffusionpose\[export\]'"):
        export_model(lively("tiny"), tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


def runner(graph, change=lambda heatmaps: heatmaps):
    """PyTorch itself, changed, in the place of a runtime."""

    def run(inputs):
        with torch.no_grad():
            return [change(graph(*map(torch.from_numpy, inputs)).numpy().copy())]

    return run


@pytest.mark.parametrize("flip", [False, True])
def test_a_graph_that_differs_is_found(lively, flip):
    graph = SingleGraph(lively(), 2, flip)
    examples = [(torch.from_numpy(random_crops(count, (64, 96), count)),) for count in BATCHES]
    parity = compare(runner(graph), graph, examples, graph.ties)
    assert parity.difference < 1e-6
    assert parity.crops + parity.ties == sum(BATCHES)
    assert parity.crops > parity.ties

    def off(by):
        def change(heatmaps):
            heatmaps[:, -1, -1, -1] += by
            return heatmaps

        return change

    for by in (2e-3, np.nan):
        with pytest.raises(ParityError, match="the graph differs from PyTorch by"):
            compare(runner(graph, off(by)), graph, examples, graph.ties)
    with pytest.raises(ParityError, match="the graph differs from PyTorch: shape"):
        compare(runner(graph, lambda heatmaps: heatmaps[:, 1:]), graph, examples)


def test_crops_with_a_tie_may_differ_but_not_all(lively):
    """All pixels are equal: which one is the maximum is rounding's choice."""
    model = lively()
    with torch.no_grad():
        model.conv.weight.zero_()
        model.conv.bias.zero_()
    graph = SingleGraph(model, 1, False)
    example = (torch.from_numpy(random_crops(2, (64, 96))),)
    assert graph.ties(*example).all()
    assert compare(runner(graph), graph, [example], graph.ties) == (0, 2, 0)
    first = torch.tensor([0.1, 0]).view(2, 1, 1, 1).numpy()
    assert compare(runner(graph, lambda maps: maps + first), graph, [example], graph.ties) == (
        0,
        1,
        1,
    )
    with pytest.raises(ParityError, match="cannot be compared"):
        compare(runner(graph, lambda maps: maps + 0.1), graph, [example], graph.ties)


def test_several_steps_of_the_bundled_model_can_be_compared():
    """Low heatmaps of crops without a person are tied all over, and agree all the same."""
    graph = SingleGraph(load_model(), 2, False)
    example = (torch.from_numpy(random_crops(1, graph.model.input_size, 1)),)
    assert graph.ties(*example).all()
    assert compare(runner(graph), graph, [example], graph.ties).crops == 1


def test_random_crops_look_like_pictures():
    made = random_crops(8, (64, 96))
    assert made.shape == (8, 3, 96, 64)
    assert made.dtype == np.uint8
    assert np.array_equal(made, random_crops(8, (64, 96)))
    neighbours = np.abs(np.diff(made.astype(float), axis=3)).mean()
    assert 1 < neighbours < 0.5 * made.std(), "neighbours are alike but not the same"
