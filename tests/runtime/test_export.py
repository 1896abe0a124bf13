"""Exported = eager: for every kind of model, any batch, any number of steps."""

import json
import sys

import numpy as np
import pytest
import torch

from diffusionpose import InputError, PoseEstimator
from diffusionpose.models.checkpoints import load_model
from diffusionpose.models.export import TOLERANCE, ExportedGraph, export_model, random_crops
from diffusionpose.skeletons import Skeleton

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")


def opset(path):
    return [entry.version for entry in onnx.load(path).opset_import if not entry.domain]


def agree(model, path, steps, flip):
    """The file gives PyTorch's heatmaps for batches of any size."""
    session = onnxruntime.InferenceSession(path)
    (entry,) = session.get_inputs()
    width, height = model.input_size
    assert (entry.name, entry.type, entry.shape) == ("images", "tensor(uint8)", ["batch", 3, height, width])
    assert [output.name for output in session.get_outputs()] == ["heatmaps"]
    graph = ExportedGraph(model, steps, flip)
    for count in (1, 2, 5, 8):
        images = random_crops(count, model.input_size, seed=7)
        with torch.no_grad():
            expected = graph(torch.from_numpy(images))[0].numpy()
        (heatmaps,) = session.run(None, {"images": images})
        assert heatmaps.shape == expected.shape
        assert np.abs(heatmaps - expected).max() < 1e-4 * max(1, np.abs(expected).max())
    return expected.std() > 0.05  # else the heatmaps are nearly empty, and everything agrees


@pytest.mark.parametrize(
    ("name", "options", "steps"),
    [
        # one step with the full condition, which takes the exporter twice as long, is ``tiny_onnx``
        ("diffusionpose_tiny", {"time_input": True, "conditions": "keypoints"}, 3),
        ("vitpose_s", {"encoder": {"depth": 2, "embed_dim": 48, "num_heads": 3}}, None),
    ],
)
def test_the_file_gives_pytorchs_heatmaps_for_any_batch(lively, name, options, steps, tmp_path):
    model = lively(name, **options)
    exported = export_model(model, tmp_path / "model.onnx", steps, opset=20)
    assert max(exported.parity.difference, exported.parity.end_to_end) <= TOLERANCE
    assert exported.parity.ties == 0
    assert opset(exported.path) == [20]
    assert agree(model, exported.path, steps, False)


def test_the_coarse_heatmaps_and_one_step(lively, tiny_onnx, tiny_weights, tmp_path):
    model = lively(stride=2)
    assert agree(model, export_model(model, tmp_path / "model.onnx", steps=0).path, 0, False)
    agree(load_model(tiny_weights), tiny_onnx, 1, False)


def test_a_flip_test_inside_is_made_once(lively, tmp_path, picture):
    model = lively("tiny", unbiased=True)
    path = export_model(model, tmp_path / "model.onnx", flip=True).path
    assert agree(model, path, None, True)
    (ours,) = PoseEstimator(model, device="cpu", detector="whole")(picture)
    (theirs,) = PoseEstimator.from_pretrained(path, device="cpu", detector="whole")(picture)
    assert np.abs(ours.keypoints - theirs.keypoints).max() < 1e-2
    with pytest.raises(InputError, match=r"model\.onnx was exported with --flip"):
        PoseEstimator.from_pretrained(path, device="cpu", detector="whole", flip=False)
    with pytest.raises(InputError, match="takes no diffusion steps"):
        PoseEstimator.from_pretrained(path, device="cpu", detector="whole", steps=1)


def test_the_metadata_tell_all_and_nothing_of_this_machine(tiny_weights, tiny_onnx):
    model = load_model(tiny_weights)
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


def test_what_cannot_be_exported(lively, tiny_onnx, tmp_path):
    with pytest.raises(InputError, match="tiny is no diffusion model and takes none"):
        export_model(lively("tiny"), tmp_path / "model.onnx", steps=1)
    with pytest.raises(InputError, match=r"tiny\.onnx: is exported already"):
        export_model(load_model(tiny_onnx), tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("package", ["onnxruntime", "onnxscript", "onnx"])
def test_a_missing_extra_is_named(package, lively, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InputError, match=r"pip install 'diffusionpose\[export\]'"):
        export_model(lively("tiny"), tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []
