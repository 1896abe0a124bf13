"""A model in an ONNX file: the same interface, the same answers; and files that are none."""

import json
import sys

import numpy as np
import pytest
import torch
from diffusionpose.models.exported import open_session

from diffusionpose import InputError, PoseEstimator, load_model
from diffusionpose.geometry import Crop
from diffusionpose.skeletons import COCO, CROWDPOSE
from diffusionpose.training.settings import TrainingSettings
from diffusionpose.training.start import starting_model

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

BOXES = np.array([[5, 5, 60, 80], [30, 10, 110, 85], [-20, -20, 40, 60]], np.float32)


@pytest.mark.parametrize(
    "options",
    [{}, {"flip": False}, {"decode": "quarter"}, {"decode": "argmax", "batch_size": 2}, {"steps": 1}],
)
def test_the_estimator_answers_alike(tiny_weights, tiny_onnx, picture, options):
    ours, theirs = (
        PoseEstimator.from_pretrained(weights, device="cpu", detector="whole", **options)(picture, BOXES)
        for weights in (tiny_weights, tiny_onnx)
    )
    assert len(ours) == len(theirs) == 3
    for a, b in zip(ours, theirs, strict=True):
        assert np.abs(a.keypoints - b.keypoints).max() < 1e-2
        assert np.abs(a.scores - b.scores).max() < 1e-5
        assert b.skeleton == CROWDPOSE


def test_it_is_made_as_its_model_was(tiny_weights, tiny_onnx):
    ours, theirs = load_model(tiny_weights), load_model(tiny_onnx, skeleton=CROWDPOSE)
    assert theirs.codec == ours.codec
    assert theirs.config == ours.config
    assert not theirs.training
    with pytest.raises(InputError, match="made for the 14 joints of 'crowdpose', not for the 17"):
        load_model(tiny_onnx, skeleton=COCO)


def test_what_the_file_does_not_hold_is_refused(tiny_onnx):
    with pytest.raises(InputError, match="exported with --steps 1, and 0 cannot be had"):
        PoseEstimator.from_pretrained(tiny_onnx, device="cpu", detector="whole", steps=0)
    crop = Crop.from_boxes(torch.from_numpy(BOXES[:1]), (48, 64))
    with pytest.raises(InputError, match="exported with --steps 1, and 2 cannot be had"):
        load_model(tiny_onnx).estimate(torch.zeros(1, 3, 64, 48, dtype=torch.uint8), crop, steps=2)


def test_no_training_from_it(tiny_onnx):
    settings = TrainingSettings(
        "none", "diffusionpose_tiny", skeleton="crowdpose", input_size=(48, 64), pretrained=False
    )
    with pytest.raises(InputError, match=r"tiny\.onnx: an exported file has no weights to train on"):
        starting_model(settings, weights=tiny_onnx)


def test_damaged_files(tiny_onnx, tmp_path):
    content = tiny_onnx.read_bytes()
    damages = {
        "cut": content[: len(content) // 2],
        "shorter": content[:-1],
        "empty": b"",
        "noise": b"\1" * 1000,
    }
    for name, damaged in damages.items():
        (tmp_path / f"{name}.onnx").write_bytes(damaged)
        with pytest.raises(InputError, match=rf"{name}\.onnx: (onnxruntime cannot read it|ONNX without)"):
            load_model(tmp_path / f"{name}.onnx")
    with pytest.raises(InputError, match=r"runs/none\.onnx: no such file"):
        load_model("runs/none.onnx")


@pytest.mark.parametrize("text", [None, "", "no JSON", "[]", json.dumps({"input_size": [64, 96]})])
def test_files_of_others(tiny_onnx, tmp_path, text):
    other = onnx.load(tiny_onnx)
    other.ClearField("metadata_props")
    if text is not None:
        other.metadata_props.add(key="diffusionpose", value=text)
    onnx.save(other, tmp_path / "other.onnx")
    with pytest.raises(InputError, match=r"other\.onnx: ONNX without this package's metadata"):
        load_model(tmp_path / "other.onnx")


def test_without_onnxruntime_the_extra_is_named(tiny_onnx, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(InputError, match=r"pip install 'diffusionpose\[export\]'"):
        load_model(tiny_onnx)


def test_no_cuda_provider_is_a_warning(tiny_onnx):
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("onnxruntime has the CUDA provider here")
    with pytest.warns(UserWarning, match="no provider for cuda here: ONNX files run on the CPU"):
        session = open_session(tiny_onnx, "cuda")
    assert session.get_providers() == ["CPUExecutionProvider"]
