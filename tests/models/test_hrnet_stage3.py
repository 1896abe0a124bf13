"""The cut HRNet against the whole one."""

from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file

from diffusionpose.errors import InputError
from diffusionpose.models.encoders import HRNetStage3Encoder

NAME = "hrnet_w18_small"  # the same code as W48, in a fraction of the time


@pytest.fixture
def whole() -> Any:
    torch.manual_seed(0)
    return timm.create_model(NAME, pretrained=False).eval()


def test_it_is_the_whole_networks_finest_branch_after_stage_3(whole, tmp_path):
    save_file(whole.state_dict(), tmp_path / "hrnet.safetensors")
    encoder = HRNetStage3Encoder(NAME).eval()
    encoder.load_backbone(tmp_path / "hrnet.safetensors")
    branches = []
    whole.stage3.register_forward_hook(lambda module, inputs, output: branches.extend(output))
    x = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        whole(x)
        feature = encoder(x)
    assert feature.shape == (2, encoder.channels, 16, 24)
    assert torch.allclose(feature, branches[0], atol=1e-5 * branches[0].abs().max())


def test_weights_of_another_width_are_an_error(tmp_path):
    save_file(timm.create_model("hrnet_w18_small_v2").state_dict(), tmp_path / "other.safetensors")
    with pytest.raises(InputError, match=r"other\.safetensors: does not fit the backbone"):
        HRNetStage3Encoder("hrnet_w32").load_backbone(tmp_path / "other.safetensors")


def test_every_parameter_gets_a_gradient():
    encoder = HRNetStage3Encoder(NAME)
    encoder(torch.randn(2, 3, 64, 64)).square().sum().backward()
    assert [n for n, p in encoder.named_parameters() if p.grad is None] == []


def test_w48_is_much_smaller_than_the_whole():
    with torch.device("meta"):
        encoder = HRNetStage3Encoder()
    assert encoder.channels == 48
    # of the 63.6 M of HRNet-W48, TransPose-H/A6 (17.5 M) leaves 16.7 M to its encoder
    assert sum(p.numel() for p in encoder.parameters()) / 1e6 == pytest.approx(16.7, abs=0.05)
