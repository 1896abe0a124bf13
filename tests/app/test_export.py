"""``diffusionpose export``: a file that others can use, or none."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from diffusionpose import PoseEstimator, create_model, load_model, save_model
from diffusionpose.models import export

onnxruntime = pytest.importorskip("onnxruntime")

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "onnx_pose.py"


def test_the_command_says_what_it_made(run, lively, tmp_path):
    encoder = {"depth": 1, "embed_dim": 48, "num_heads": 3}
    model = lively("diffusionpose_vit_s", input_size=(48, 64), width=16, encoder=encoder)
    save_model(model, tmp_path / "model.safetensors")
    path = tmp_path / "new" / "model.onnx"
    words = ("--weights", tmp_path / "model.safetensors", "--output", path)
    status, out, err = run("export", *words, "--steps", 0, "--flip")
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].startswith(f"{path}: diffusionpose_vit_s, 0 diffusion steps, flip test inside, ")
    assert "images (batch, 3, 64, 48) uint8 RGB -> heatmaps (batch, 14, 16, 12) float32" in lines[1]
    assert "compared with PyTorch on " in lines[2]
    assert [file.name for file in path.parent.iterdir()] == ["model.onnx"]


def test_predict_and_evaluate_take_it(run, tiny_onnx, tiny_weights, photo, synthetic_set, tmp_path):
    images, annotations = synthetic_set
    answers = []
    for weights in (tiny_weights, tiny_onnx):
        out = tmp_path / weights.suffix[1:]
        words = ("--output", out, "--weights", weights, "--device", "cpu", "--detector", "whole")
        status, *_ = run("predict", photo, *words)
        assert status == 0
        words = ("evaluate", "--images", images, "--annotations", annotations)
        words += ("--workers", 0, "--device", "cpu", "--weights", weights, "--output", out / "val")
        assert run(*words).status == 0
        poses = json.loads((out / "keypoints.json").read_text())
        poses += json.loads((out / "val" / "keypoints.json").read_text())
        answers.append(np.concatenate([pose["keypoints"] for pose in poses]))
    assert np.abs(answers[0] - answers[1]).max() < 1e-2
    assert np.ptp(answers[0]) > 10, "the poses are no constant"


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--steps", "2"], "was exported with --steps 1, and 2 cannot be had of it"),
        (["--steps", "-1"], "was exported with --steps 1"),
    ],
)
def test_other_steps_are_refused(run, tiny_onnx, photo, synthetic_set, tmp_path, words, complaint):
    images, annotations = synthetic_set
    for command in (
        ["predict", photo],
        ["evaluate", "--images", images, "--annotations", annotations],
    ):
        status, out, err = run(*command, "--weights", tiny_onnx, "--output", tmp_path / "out", *words)
        assert (status, out) == (1, "")
        assert complaint in err


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--output", "out.pt"], "--output out.pt: name an .onnx or .xml file, or a folder"),
        (["--output", "out.onnx", "--steps", "-1"], "steps: -1 must be 0"),
        (["--output", "out.onnx", "--opset", "5"], "opset: 5 is not one of 18 to 23"),
        (["--output", "out.onnx", "--weights", "runs/none.onnx"], "runs/none.onnx: no such file"),
    ],
)
def test_faults_leave_no_file(run, tmp_path, monkeypatch, words, complaint):
    monkeypatch.chdir(tmp_path)
    status, out, err = run("export", *words)
    assert (status, out) == (1, "")
    assert complaint in err
    assert list(tmp_path.iterdir()) == []


def test_the_extra_that_suffices_is_named(run, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "diffusionpose.models.export", None)
    status, _, err = run("export", "--output", tmp_path / "out.onnx")
    assert (status, err.strip().endswith("install it: pip install 'diffusionpose[export]'")) == (1, True)


@pytest.fixture
def heatmap_model(tmp_path):
    """Weights of a heatmap model in the unbiased geometry."""
    torch.manual_seed(0)
    model = create_model("tiny", "crowdpose", input_size=(48, 64), unbiased=True)
    model.head.weight.data.mul_(100)
    save_model(model, tmp_path / "in" / "unbiased.safetensors")
    return tmp_path / "in" / "unbiased.safetensors"


def test_a_graph_that_differs_is_not_written(run, photo, heatmap_model, tmp_path, monkeypatch):
    path = tmp_path / "out" / "model.onnx"
    path.parent.mkdir()
    path.write_bytes(b"what was there before")
    monkeypatch.setattr(export, "to_onnx", lambda *_: b"another graph")
    monkeypatch.setattr(export, "run_onnx", lambda _: lambda images: [np.zeros((len(*images), 14, 16, 12))])
    status, out, err = run("export", "--weights", heatmap_model, "--output", path)
    assert (status, out) == (1, "")
    assert f"{path}: not written: the graph differs from PyTorch by 1" in err
    assert path.read_bytes() == b"what was there before"
    assert [file.name for file in path.parent.iterdir()] == ["model.onnx"]


def test_the_example_needs_no_torch_and_agrees(
    tiny_weights, tiny_onnx, photo, picture, heatmap_model, tmp_path
):
    unbiased = export.export_model(load_model(heatmap_model), tmp_path / "unbiased.onnx").path
    box = [-7.5, 10.25, 60, 80]
    for weights, path in ((tiny_weights, tiny_onnx), (heatmap_model, unbiased)):
        arguments = [str(EXAMPLE), str(path), str(photo), *map(str, box)]
        code = (
            f"import runpy, sys; sys.argv = {arguments}; runpy.run_path(sys.argv[0], run_name='__main__');"
            "assert {'torch', 'diffusionpose'}.isdisjoint(sys.modules)"
        )
        ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert ended.returncode == 0, ended.stderr
        rows = [line.split() for line in ended.stdout.splitlines()]
        (pose,) = PoseEstimator.from_pretrained(weights, device="cpu", flip=False)(picture, [box])
        assert [row[0] for row in rows] == list(pose.skeleton.joints)
        found = np.array([row[1:] for row in rows], float)
        assert np.abs(found[:, :2] - pose.keypoints).max() < 0.01
        assert np.abs(found[:, 2] - pose.scores).max() < 1e-3
