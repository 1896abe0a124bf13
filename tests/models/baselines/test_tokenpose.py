"""TokenPose's tokens, layers and fusion."""

import pytest
import torch
from torch import nn

from diffusionpose.errors import InputError
from diffusionpose.models.heads import Layer, TokenPoseHead, sine_positions


class Recorder(nn.Module):
    """A layer that changes nothing and notes what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = torch.empty(0)

    def forward(self, x):
        self.seen = x
        return x


@pytest.fixture
def head() -> TokenPoseHead:
    torch.manual_seed(0)
    return TokenPoseHead(8, 5, (6, 8), (12, 16), patch=(3, 4), width=16, depth=6, heads=2).eval()


def test_a_layer_is_torchs_with_norms_first():
    torch.manual_seed(0)
    layer = Layer(16, 4)
    other = nn.TransformerEncoderLayer(
        16, 4, 48, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
    )
    other.self_attn.in_proj_weight = layer.qkv.weight
    nn.init.zeros_(other.self_attn.in_proj_bias)
    other.self_attn.out_proj = layer.out
    other.norm1, other.norm2, other.linear1, other.linear2 = (
        layer.norm1,
        layer.norm2,
        layer.mlp[0],
        layer.mlp[2],
    )
    x = torch.randn(3, 7, 16)
    assert torch.allclose(layer(x), other(x), atol=1e-5)


def test_patches_become_tokens_as_by_a_strided_convolution(head):
    feature = torch.randn(2, 8, 8, 6)
    weight = head.embed.weight.unflatten(1, (4, 3, 8)).permute(0, 3, 1, 2)
    expected = nn.functional.conv2d(feature, weight, head.embed.bias, stride=(4, 3)).flatten(2).mT
    assert torch.allclose(head.embed(head._patches(feature)), expected, atol=1e-5)


def test_patches_are_told_their_places_and_joints_are_not(head):
    recorders = [Recorder() for _ in head.layers]
    head.layers = nn.ModuleList(recorders)
    feature = torch.randn(2, 8, 8, 6)
    head(feature)
    patches, places = head.embed(head._patches(feature)), sine_positions((2, 2), 16)
    told = (1, 2, 2, 3, 3, 4)  # with layers that change nothing; not again at the later thirds' first
    for recorder, times in zip(recorders, told, strict=True):
        assert torch.equal(recorder.seen[:, :5], head.joint_tokens.expand(2, -1, -1))
        assert torch.allclose(recorder.seen[:, 5:], patches + times * places, atol=1e-5)


def test_a_heatmap_follows_its_token(head):
    feature, order = torch.randn(2, 8, 8, 6), torch.tensor([3, 0, 4, 1, 2])
    before = head(feature)
    head.joint_tokens.data = head.joint_tokens.data[order]
    assert torch.allclose(head(feature), before[:, order], atol=1e-6)
    assert not torch.allclose(before, before[:, order], atol=1e-6)


def test_heatmaps_come_from_the_joint_tokens_after_each_third(head):
    outputs = []
    for layer in head.layers:
        layer.register_forward_hook(lambda module, inputs, output: outputs.append(output[:, :5]))
    heatmaps = head(torch.randn(2, 8, 8, 6))
    fused = torch.cat([outputs[1], outputs[3], outputs[5]], dim=2)
    assert heatmaps.shape == (2, 5, 16, 12)
    assert torch.allclose(heatmaps.flatten(2), head.heatmaps(head.norm(fused)), atol=1e-6)


def test_heatmaps_begin_nearly_empty():
    torch.manual_seed(0)
    head = TokenPoseHead(48, 17, (12, 16), (12, 16))
    assert head(torch.randn(2, 48, 16, 12)).abs().max() < 0.2


def test_maps_that_are_no_whole_number_of_patches_are_an_error():
    with pytest.raises(
        InputError, match="16 wide and 24 high cannot be split into patches 3 wide and 4 high"
    ):
        TokenPoseHead(8, 5, (16, 24), (16, 24))
    with pytest.raises(ValueError, match="depth 4 must be a multiple of 3"):
        TokenPoseHead(8, 5, (12, 16), (12, 16), depth=4)
