"""Networks of every runtime: the same interface, the same answers; and files that are none."""

import json
import os
import shutil
import sys

import numpy as np
import pytest

from diffusionpose import InputError, PoseEstimator, load_model
from diffusionpose.bundled import DEFAULT_MODEL, PORTRAIT
from diffusionpose.geometry import to_numpy
from diffusionpose.runtime import estimator, networks
from diffusionpose.runtime.networks import TorchNetwork, TwoGraphNetwork, load_network, open_session
from diffusionpose.skeletons import COCO, CROWDPOSE

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

BOXES = np.array([[5, 5, 60, 80], [30, 10, 110, 85], [-20, -20, 40, 60]], np.float32)
KINDS = ("tiny_onnx", "tiny_folder", "tiny_openvino")


@pytest.fixture(params=KINDS)
def exported(request):
    return request.getfixturevalue(request.param)


def apart(ours, theirs):
    assert len(ours) == len(theirs)
    return max(np.abs(a.keypoints - b.keypoints).max() for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize(
    "options", [{}, {"flip": False, "decode": "quarter"}, {"decode": "argmax", "batch_size": 2}, {"steps": 1}]
)
def test_the_estimator_answers_alike(tiny_weights, exported, picture, options):
    ours, theirs = (
        PoseEstimator.from_pretrained(weights, device="cpu", **options)(picture, BOXES)
        for weights in (tiny_weights, exported)
    )
    assert apart(ours, theirs) < 1e-2
    assert max(np.abs(a.scores - b.scores).max() for a, b in zip(ours, theirs, strict=True)) < 1e-5
    assert theirs[0].skeleton == CROWDPOSE


@pytest.mark.parametrize("steps", [0, 2, 3])
def test_two_graphs_take_any_number_of_steps_and_any_start(tiny_weights, tiny_folder, picture, steps):
    ours, theirs = (
        PoseEstimator.from_pretrained(weights, device="cpu", steps=steps)
        for weights in (tiny_weights, tiny_folder)
    )
    assert apart(ours(picture, BOXES), theirs(picture, BOXES)) < 1e-2
    start = np.random.default_rng(0).uniform(0, 80, (3, 14, 3)).astype(np.float32)
    start[:, ::3, 2] = 0
    assert apart(ours(picture, BOXES, start), theirs(picture, BOXES, start)) < 1e-2


@pytest.mark.parametrize("steps", [0, 1, 3])
def test_the_bundled_model_gives_the_same_poses_by_both_engines(steps):
    eager = TorchNetwork(load_model(DEFAULT_MODEL), "cpu")
    network = load_network(None, "cpu")
    assert isinstance(network, TwoGraphNetwork)
    box = [[-150, -150, 680, 1600]]
    ours, theirs = (PoseEstimator(each, steps=steps)(PORTRAIT, box) for each in (eager, network))
    assert apart(ours, theirs) < 1e-2
    assert theirs[0].scores.max() > 0.5


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("engine", ["two graphs", "PyTorch"])
def test_auto_steps_leave_sure_persons_their_coarse_heatmaps(
    tiny_weights, tiny_folder, monkeypatch, engine, flip
):
    network = load_network(tiny_folder if engine == "two graphs" else tiny_weights, "cpu")
    crops = np.random.default_rng(0).integers(0, 256, (5, 3, 64, 48), np.uint8)
    process = estimator.ReverseProcess(network, crops, flip)
    coarse, refined = (to_numpy(process(steps)[-1]) for steps in (0, 1))
    # three quarters of the joints are at least so sure
    highest = np.sort(coarse.max((2, 3)), axis=1)[:, 14 // 4]
    limit = float(np.sort(highest)[2])
    monkeypatch.setattr(estimator, "SURE", limit)
    first, answer = map(to_numpy, process("auto"))
    sure = highest >= limit
    assert 0 < sure.sum() < 5
    np.testing.assert_allclose(first, coarse, atol=1e-6)
    np.testing.assert_allclose(answer[sure], estimator.RAISED * coarse[sure], atol=1e-6)
    np.testing.assert_allclose(answer[~sure], refined[~sure], atol=1e-5)
    for limit in (-1e9, 1e9):  # all of them, none of them
        monkeypatch.setattr(estimator, "SURE", limit)
        expected = estimator.RAISED * coarse if limit < 0 else refined
        np.testing.assert_allclose(to_numpy(process("auto")[-1]), expected, atol=1e-5)


def test_auto_steps_need_a_choice(tiny_folder, tiny_onnx, picture):
    with pytest.raises(InputError, match="give a number with a start"):
        PoseEstimator.from_pretrained(tiny_folder, steps="auto")(picture, BOXES[:1], np.ones((1, 14, 3)))
    with pytest.raises(InputError, match="exported with --steps 1, and auto cannot be had"):
        PoseEstimator.from_pretrained(tiny_onnx, device="cpu", steps="auto")


def test_it_is_made_as_its_model_was(tiny_weights, exported):
    ours, theirs = load_model(tiny_weights), load_network(exported, "cpu")
    assert (theirs.codec, theirs.skeleton, theirs.steps) == (ours.codec, ours.skeleton, 1)


def test_what_a_single_file_does_not_hold_is_refused(tiny_onnx, tiny_openvino):
    for path in (tiny_onnx, tiny_openvino):
        with pytest.raises(InputError, match="exported with --steps 1, and 0 cannot be had"):
            PoseEstimator.from_pretrained(path, device="cpu", steps=0)
        with pytest.raises(InputError, match="was exported to start from its own coarse heatmaps"):
            load_network(path, "cpu").check(start=True)
        with pytest.raises(InputError, match="has no weights to train on"):
            load_model(path)


def damages(content):
    return {"cut": content[: len(content) // 2], "empty": b"", "noise": b"\1" * 1000}


def test_damaged_files(tiny_onnx, tiny_folder, tiny_openvino, tmp_path):
    for name, damaged in damages(tiny_onnx.read_bytes()).items():
        (tmp_path / f"{name}.onnx").write_bytes(damaged)
        with pytest.raises(InputError, match=rf"{name}\.onnx: onnxruntime cannot read it"):
            load_network(tmp_path / f"{name}.onnx", "cpu")
    for name, damaged in damages(tiny_openvino.read_bytes()).items():
        (tmp_path / f"{name}.xml").write_bytes(damaged)
        with pytest.raises(InputError, match=rf"{name}\.bin, are not beside it"):
            load_network(tmp_path / f"{name}.xml", "cpu")
        shutil.copy(tiny_openvino.with_suffix(".bin"), tmp_path / f"{name}.bin")
        with pytest.raises(InputError, match=rf"{name}\.xml: OpenVINO cannot read it"):
            load_network(tmp_path / f"{name}.xml", "cpu")
    shutil.copytree(tiny_folder, tmp_path / "half")
    (tmp_path / "half" / "step.onnx").unlink()
    with pytest.raises(InputError, match=r"step\.onnx: no such file"):
        load_network(tmp_path / "half", "cpu")
    with pytest.raises(InputError, match=r"runs/none\.onnx: no such file"):
        load_network("runs/none.onnx", "cpu")


def with_metadata(path, other, text):
    graph = onnx.load(path)
    graph.ClearField("metadata_props")
    if text is not None:
        graph.metadata_props.add(key="diffusionpose", value=text)
    onnx.save(graph, other)
    return other


@pytest.mark.parametrize("text", ["", "no JSON", "[]", "[" * 100_000, '{"input_size": [64, 96]}'])
def test_files_of_others(tiny_onnx, tmp_path, text):
    other = with_metadata(tiny_onnx, tmp_path / "other.onnx", text)
    with pytest.raises(InputError, match=r"other\.onnx: its metadata are damaged, or not this package's"):
        load_network(other, "cpu")
    with_metadata(tiny_onnx, other, None)
    with pytest.raises(InputError, match=r"other\.onnx: ONNX without this package's metadata"):
        load_network(other, "cpu")


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"stride": 2}, "its heatmaps are .*, its metadata say bx14x32x24"),
        ({"stride": 1e400}, "damaged"),
        ({"stride": 0}, "damaged"),
        ({"input_size": [96, 128]}, "onnxruntime cannot run it .*dimensions"),
        ({"input_size": [10**9, 64]}, "damaged"),
        ({"input_size": 5}, "damaged"),
        ({"steps": -3}, "damaged"),
        ({"steps": True}, "damaged"),
        ({"unbiased": "yes"}, "damaged"),
        ({"skeleton": {"joints": 3}}, "damaged"),
        ({"skeleton": COCO.to_dict()}, "its heatmaps are .*, its metadata say bx17x16x12"),
        ({"skeleton": {**CROWDPOSE.to_dict(), "sigmas": [float("inf")] * 14}}, "damaged"),
    ],
)
def test_metadata_that_contradict_the_graph(tiny_onnx, tmp_path, changes, complaint):
    session = onnxruntime.InferenceSession(tiny_onnx)
    facts = json.loads(session.get_modelmeta().custom_metadata_map["diffusionpose"])
    other = with_metadata(tiny_onnx, tmp_path / "other.onnx", json.dumps({**facts, **changes}))
    with pytest.raises(InputError, match=rf"other\.onnx: .*{complaint}"):
        PoseEstimator(load_network(other, "cpu"))(np.zeros((90, 120, 3), np.uint8), BOXES)


def test_weights_that_are_not_finite_name_the_file(tiny_onnx, tmp_path, picture):
    graph = onnx.load(tiny_onnx)
    for tensor in graph.graph.initializer:
        values = onnx.numpy_helper.to_array(tensor)
        if values.dtype == np.float32 and values.ndim == 4:
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.full_like(values, np.nan), tensor.name))
    onnx.save(graph, tmp_path / "nan.onnx")
    with pytest.raises(InputError, match=r"nan\.onnx: a heatmap holds a number that is not finite"):
        PoseEstimator.from_pretrained(tmp_path / "nan.onnx", device="cpu")(picture, BOXES)


def test_without_a_runtime_the_extra_is_named(tiny_openvino, tiny_weights, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(InputError, match=r"pip install 'diffusionpose\[openvino\]'"):
        load_network(tiny_openvino, "cpu")
    monkeypatch.setitem(sys.modules, "diffusionpose.models.checkpoints", None)
    with pytest.raises(InputError, match=r"need PyTorch .*pip install 'diffusionpose\[train\]'"):
        load_network(tiny_weights, "cpu")


def test_devices(tiny_onnx, tiny_openvino):
    with pytest.warns(UserWarning, match="OpenVINO files run on the CPU here, not on cuda"):
        assert load_network(tiny_openvino, "cuda").device == "cpu"
    with pytest.raises(InputError, match="device 'nonsense'"):
        load_network(tiny_onnx, "nonsense")
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("onnxruntime has the CUDA provider here")
    with pytest.warns(UserWarning, match="no provider for cuda here: ONNX files run on the CPU"):
        assert open_session(tiny_onnx, "cuda").get_providers() == ["CPUExecutionProvider"]


@pytest.mark.parametrize(
    ("contents", "expected"),
    [(["150000 100000"], 1), (["200000 100000"], 2), (["50000 100000"], 1), (["max 100000"], 4)]
    + [(["300000", "100000"], 3), (["-1", "100000"], 4), (["900000", "100000"], 4), ([], 4)],
)
def test_threads_are_no_more_than_the_container_grants(contents, expected, tmp_path, monkeypatch):
    files = [tmp_path / str(number) for number in range(len(contents))]
    for file, content in zip(files, contents, strict=True):
        file.write_text(f"{content}\n")
    monkeypatch.setattr(networks, "QUOTAS", (("/no/such/file",), files))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(4)), raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert networks.cpu_threads() == expected
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert networks.cpu_threads() == 7
