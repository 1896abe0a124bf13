"""``diffusionpose import-weights``: from a file of another project to a pose."""

import json

import pytest
import timm
import torch
from safetensors import safe_open
from torchvision.models import resnet50

from diffusionpose.models.checkpoints import load_model
from diffusionpose.models.zoo import create_model


@pytest.fixture
def simplebaseline(tmp_path):
    """The checkpoint of an official SimpleBaseline of 14 joints, with random weights."""
    torch.manual_seed(0)
    weights = {n: v for n, v in resnet50().state_dict().items() if not n.startswith("fc.")}
    for i, channels in ((0, 2048), (3, 256), (6, 256)):
        weights[f"deconv_layers.{i}.weight"] = 0.02 * torch.randn(channels, 256, 4, 4)
        norm = torch.nn.BatchNorm2d(256).state_dict()
        weights |= {f"deconv_layers.{i + 1}.{name}": value for name, value in norm.items()}
    weights |= {"final_layer.weight": 0.02 * torch.randn(14, 256, 1, 1), "final_layer.bias": torch.zeros(14)}
    torch.save({f"module.{name}": value for name, value in weights.items()}, tmp_path / "pose.pth")
    return tmp_path / "pose.pth"


def test_a_model_imported_predicts(run, simplebaseline, photo, tmp_path):
    out = tmp_path / "models" / "pose.safetensors"
    words = ("import-weights", simplebaseline, "--as", "simplebaseline_r50", "--output", out)
    status, said, err = run(*words, "--skeleton", "crowdpose", "--input-size", 64, 96, "--unbiased")
    assert (status, err) == (0, "")
    lines = said.splitlines()
    assert lines[0].startswith(f"{simplebaseline}: SimpleBaseline of human-pose-estimation.pytorch")
    assert "  joints: crowdpose (as given)" in lines
    assert "  trained on BGR pictures: first layer and normalisation turned to take RGB" in lines
    assert lines[-1] == f"{out}: simplebaseline_r50; use it by --weights {out}"

    model = load_model(out)
    assert (model.unbiased, model.input_size, model.skeleton.name) == (True, (64, 96), "crowdpose")
    with safe_open(str(out), "pt") as file:
        facts = json.loads(file.metadata()["diffusionpose"])["facts"]
    assert facts["imported_from"] == "pose.pth"
    words = ("--output", tmp_path / "out", "--weights", out, "--device", "cpu", "--detector", "whole")
    status, *_ = run("predict", photo, *words)
    assert status == 0
    (pose,) = json.loads((tmp_path / "out" / "keypoints.json").read_text())
    assert len(pose["keypoints"]) == 3 * 14


def test_the_colours_can_be_told(run, simplebaseline, tmp_path):
    words = ("import-weights", simplebaseline, "--as", "simplebaseline_r50", "--skeleton", "aic")
    assert run(*words, "--output", tmp_path / "rgb.safetensors", "--colours", "rgb").status == 0
    status, said, _ = run(*words, "--output", tmp_path / "bgr.safetensors", "--no-unbiased")
    assert status == 0
    assert "geometry" not in said
    rgb, bgr = (load_model(tmp_path / f"{name}.safetensors") for name in ("rgb", "bgr"))
    assert torch.equal(rgb.encoder.backbone.conv1.weight.flip(1), bgr.encoder.backbone.conv1.weight)
    assert torch.equal(rgb.mean.flip(0), bgr.mean)
    assert not bgr.unbiased


def test_encoder_weights_go_into_a_model(run, tmp_path):
    torch.manual_seed(0)
    network = timm.create_model("hrnet_w32")
    torch.save(network.state_dict(), tmp_path / "hrnet.pth")
    out = tmp_path / "encoder.safetensors"
    status, said, _ = run("import-weights", tmp_path / "hrnet.pth", "--as", "hrnet_w32", "--output", out)
    assert status == 0
    assert "encoder weights of hrnet_w32, no pose model; train with them by --encoder-weights" in said
    model = create_model("diffusionpose_hrnet_w32", input_size=(64, 96), width=32, encoder_weights=out)
    assert torch.equal(model.encoder.backbone.conv2.weight, network.conv2.weight)
    with pytest.raises(ValueError, match="weights of an encoder alone; give them to --encoder-weights"):
        load_model(out)


def test_encoder_weights_that_need_importing_say_so(run, tmp_path):
    torch.save(timm.create_model("mobilenetv2_100").state_dict(), tmp_path / "a.pth")
    with pytest.raises(ValueError, match=r"not a readable safetensors file.*`diffusionpose import-weights`"):
        create_model("mobilenetv2", encoder_weights=tmp_path / "a.pth")
    with pytest.raises(ValueError, match=r"a pickle, .*`diffusionpose import-weights`"):
        load_model(tmp_path / "a.pth")


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--output", "out.pth"], "--output out.pth: name a .safetensors file"),
        (["--output", "."], "--output .: name a .safetensors file"),
        (["--output", "in.safetensors"], "in.safetensors: would be overwritten by the result"),
        (["--output", "out.safetensors", "--unbiased", "--no-unbiased"], "give one of them"),
        (["--output", "in.safetensors/x.safetensors"], "no folder that can be written to"),
        (["--output", "out.safetensors"], "in.safetensors: not a readable safetensors file"),
    ],
)
def test_faults_leave_no_file(run, tmp_path, monkeypatch, words, complaint):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{}")
    status, out, err = run("import-weights", "in.safetensors", "--as", "hrnet_w32", *words)
    assert (status, out) == (1, "")
    assert complaint in err
    assert [path.name for path in tmp_path.iterdir()] == ["in.safetensors"]
