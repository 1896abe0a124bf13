"""Heads of the compared methods, against torch's own layers with the same weights."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from diffusionpose.errors import InputError
from diffusionpose.geometry import HeatmapCodec
from diffusionpose.models.encoders import HRNetEncoder
from diffusionpose.models.heads import (
    SimpleDecoder,
    TokenPoseHead,
    TransPoseHead,
    TransPoseLayer,
    sine_positions,
)
from diffusionpose.models.hrformer import HRFormerEncoder
from diffusionpose.models.pose_model import HeatmapModel, coarse_head
from diffusionpose.skeletons import COCO

SMALL_HRNET = "hrnet_w18_small"  # 16 channels: quick
METHODS = ("tokenpose", "transpose", "hrformer")


def test_the_simple_decoder():
    torch.manual_seed(0)
    decoder = SimpleDecoder(6, 3)
    torch.nn.init.normal_(decoder.conv.weight)
    feature = torch.randn(2, 6, 4, 3)
    doubled = torch.nn.Upsample(scale_factor=4, mode="bilinear")(feature.clamp_min(0))
    expected = F.conv2d(F.pad(doubled, (1, 1, 1, 1)), decoder.conv.weight)
    assert torch.allclose(decoder(feature), expected, atol=1e-5)
    assert expected.shape == (2, 3, 16, 12)


# --- sine positions ---


def test_sine_positions_are_their_formula():
    width, height, channels = 3, 5, 12
    table = sine_positions((width, height), channels)
    assert table.shape == (height * width, channels)
    half = channels // 2
    for row in range(height):
        for column in range(width):
            for k in range(channels):
                place, count = (row, height) if k < half else (column, width)
                i = k % half
                angle = 2 * math.pi * (place + 1) / count / 10000 ** (2 * (i // 2) / half)
                expected = math.cos(angle) if i % 2 else math.sin(angle)
                assert table[row * width + column, k].item() == pytest.approx(expected, abs=1e-5)


def test_places_differ_and_stretch_with_the_map():
    table = sine_positions((48, 64), 96)
    apart = torch.cdist(table, table) + 10 * torch.eye(len(table))
    assert apart.min() > 0.05
    coarse, fine = (sine_positions(size, 96).unflatten(0, size[::-1]) for size in ((6, 8), (12, 16)))
    assert torch.allclose(coarse, fine[1::2, 1::2], atol=1e-5)


def test_channels_that_cannot_be_split_are_an_error():
    with pytest.raises(ValueError, match="multiple of 4"):
        sine_positions((4, 4), 6)


# --- TokenPose ---


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
    return TokenPoseHead(8, 5, (6, 8), patch=(3, 4), width=16, depth=6, heads=2).eval()


def test_tokenposes_layer_is_torchs_with_norms_first(head):
    layer = head.layers[0]
    other = nn.TransformerEncoderLayer(
        16, 2, 48, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
    )
    other.self_attn.in_proj_weight = layer.attn.qkv.weight
    nn.init.zeros_(other.self_attn.in_proj_bias)
    other.self_attn.out_proj = layer.attn.proj
    other.norm1, other.norm2, other.linear1, other.linear2 = (
        layer.norm1,
        layer.norm2,
        layer.mlp.fc1,
        layer.mlp.fc2,
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
    assert heatmaps.shape == (2, 5, 8, 6)
    assert torch.allclose(heatmaps.flatten(2), head.heatmaps(head.norm(fused)), atol=1e-6)


def test_tokenposes_heatmaps_begin_nearly_empty():
    torch.manual_seed(0)
    head = TokenPoseHead(48, 17, (12, 16))
    assert head(torch.randn(2, 48, 16, 12)).abs().max() < 0.2


def test_maps_that_are_no_whole_number_of_patches_are_an_error():
    with pytest.raises(
        InputError, match="16 wide and 24 high cannot be split into patches 3 wide and 4 high"
    ):
        TokenPoseHead(8, 5, (16, 24))
    with pytest.raises(ValueError, match="depth 4 must be a multiple of 3"):
        TokenPoseHead(8, 5, (12, 16), depth=4)


# --- TransPose ---


def reference(layer: TransPoseLayer, width: int, heads: int, feedforward: int) -> nn.TransformerEncoderLayer:
    other = nn.TransformerEncoderLayer(width, heads, feedforward, dropout=0.0, batch_first=True)
    own = {
        "self_attn.in_proj_weight": torch.cat([layer.query_key.weight, layer.value.weight]),
        "self_attn.in_proj_bias": torch.cat([layer.query_key.bias, layer.value.bias]),
        "self_attn.out_proj.weight": layer.out.weight,
        "self_attn.out_proj.bias": layer.out.bias,
    }
    for name in ("norm1", "norm2", "linear1", "linear2"):
        own |= {f"{name}.{key}": value for key, value in getattr(layer, name).state_dict().items()}
    other.load_state_dict(own)
    return other


@pytest.fixture
def layer() -> TransPoseLayer:
    torch.manual_seed(0)
    return TransPoseLayer(16, 2, 24, dropout=0.0)


def test_without_positions_it_is_a_transformer_encoder_layer(layer):
    x = torch.randn(3, 7, 16)
    assert torch.allclose(layer(x, torch.zeros(7, 16)), reference(layer, 16, 2, 24)(x), atol=1e-5)


def test_positions_go_into_query_and_key_but_not_into_value(layer):
    x, positions = torch.randn(3, 7, 16), torch.randn(7, 16)
    other = reference(layer, 16, 2, 24)
    placed = x + positions
    y = other.norm1(x + other.self_attn(placed, placed, x, need_weights=False)[0])
    expected = other.norm2(y + other.linear2(other.linear1(y).relu()))
    assert torch.allclose(layer(x, positions), expected, atol=1e-5)


def test_dropout_acts_in_training_only():
    torch.manual_seed(0)
    layer = TransPoseLayer(16, 1, 24, dropout=0.5)
    x, positions = torch.randn(1, 7, 16), torch.randn(7, 16)
    assert not torch.equal(layer(x, positions), layer(x, positions))
    layer.eval()
    assert torch.equal(layer(x, positions), layer(x, positions))


def test_every_place_sees_every_other():
    torch.manual_seed(0)
    head = TransPoseHead(8, 5, (6, 4), width=16, depth=1).eval()
    feature = torch.randn(1, 8, 4, 6, requires_grad=True)
    head(feature)[0, 0, 0, 0].backward()
    assert (feature.grad[0].abs().sum(0) > 0).all()


def test_transposes_heatmaps_begin_nearly_empty():
    torch.manual_seed(0)
    assert TransPoseHead(48, 17, (12, 16))(torch.randn(2, 48, 16, 12)).abs().max() < 0.1


def test_a_width_that_heads_cannot_share_is_an_error():
    with pytest.raises(ValueError, match="3 heads"):
        TransPoseHead(8, 5, (4, 4), width=16, heads=3)


# --- whole models ---


def make(method: str, size: tuple[int, int], **options) -> HeatmapModel:
    codec = HeatmapCodec(size)
    if method == "hrformer":
        encoder = HRFormerEncoder(**options)
        return HeatmapModel(encoder, coarse_head(encoder.channels, 17), COCO, codec)
    encoder = HRNetEncoder(SMALL_HRNET, stages=3)
    if method == "tokenpose":
        head = TokenPoseHead(encoder.channels, 17, codec.size, **options)
    else:
        head = TransPoseHead(encoder.channels, 17, codec.size, **options)
    return HeatmapModel(encoder, head, COCO, codec)


def make_small(method: str, size: tuple[int, int] = (64, 96)) -> HeatmapModel:
    torch.manual_seed(0)
    options = {"tokenpose": {"patch": (4, 4), "depth": 6}, "transpose": {}, "hrformer": {"variant": "small"}}
    return make(method, size, **options[method])


def crops(count: int, size: tuple[int, int] = (64, 96)) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (count, 3, size[1], size[0]), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("size", [(64, 96), (96, 128)])
def test_input_sizes(method, size):
    model = make_small(method, size).eval()
    with torch.no_grad():
        assert model(crops(1, size)).shape == (1, 17, size[1] // 4, size[0] // 4)


@pytest.mark.parametrize("method", METHODS)
def test_any_layout_gives_the_same(method):
    model, images = make_small(method).eval(), crops(3)
    with torch.no_grad():
        plain = model(images)
        packed = model.to(memory_format=torch.channels_last)(images.to(memory_format=torch.channels_last))
    tolerance = 1e-5 * plain.abs().max()
    assert (plain - packed).abs().max() < tolerance
    assert not torch.allclose(plain[0], plain[1], atol=tolerance)


@pytest.mark.parametrize("method", METHODS)
def test_bf16_agrees_with_float32(method):
    model, images = make_small(method).eval(), crops(2)
    with torch.no_grad():
        plain = model(images)
        with torch.autocast("cpu", torch.bfloat16):
            rough = model(images)
    assert (rough.float() - plain).abs().max() < 0.1 * plain.abs().max()
