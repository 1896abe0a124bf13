"""The transformers of Table 2 as whole models: costs, sizes, layouts (gradients and batches: test_zoo.py)."""

import pytest
import torch

from diffusionpose.geometry import HeatmapCodec
from diffusionpose.models.costs import count_as_published, count_multiply_adds, count_parameters
from diffusionpose.models.encoders import HRNetStage3Encoder
from diffusionpose.models.heads import TokenPoseHead, TransPoseHead
from diffusionpose.models.hrformer import HRFormerEncoder
from diffusionpose.models.pose_model import HeatmapModel, coarse_head
from diffusionpose.skeletons import COCO

SMALL_HRNET = "hrnet_w18_small"  # 16 channels: quick
METHODS = ("tokenpose", "transpose", "hrformer")


def make(method: str, size: tuple[int, int], hrnet: str = "hrnet_w48", **options) -> HeatmapModel:
    codec = HeatmapCodec(size)
    if method == "hrformer":
        encoder = HRFormerEncoder(**options)
        return HeatmapModel(encoder, coarse_head(encoder.channels, 17), COCO, codec)
    encoder = HRNetStage3Encoder(hrnet)
    if method == "tokenpose":
        head = TokenPoseHead(encoder.channels, 17, codec.size, codec.size, **options)
    else:
        head = TransPoseHead(encoder.channels, 17, codec.size, **options)
    return HeatmapModel(encoder, head, COCO, codec)


def make_small(method: str, size: tuple[int, int] = (64, 96)) -> HeatmapModel:
    torch.manual_seed(0)
    options = {"tokenpose": {"patch": (4, 4), "depth": 6}, "transpose": {}, "hrformer": {"variant": "small"}}
    return make(method, size, SMALL_HRNET, **options[method])


def crops(count: int, size: tuple[int, int] = (64, 96)) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (count, 3, size[1], size[0]), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize(
    ("method", "options", "size", "giga"),
    [
        ("tokenpose", {}, (192, 256), 12.2),
        ("transpose", {}, (192, 256), 21.3),
        ("hrformer", {"variant": "small"}, (192, 256), 3.2),
        ("hrformer", {"variant": "small"}, (288, 384), 7.1),
        ("hrformer", {"variant": "base"}, (192, 256), 13.9),
        ("hrformer", {"variant": "base"}, (288, 384), 30.5),
    ],
)
def test_true_multiply_adds(method, options, size, giga):
    """Larger than published (tests/models/test_publications.py) where the authors' tools miss attention."""
    with torch.device("meta"):
        assert count_multiply_adds(make(method, size, **options)) / 1e9 == pytest.approx(giga, abs=0.05)


@pytest.mark.parametrize(("depth", "parameters", "gflops"), [(4, 17.3, 17.5), (6, 17.5, 21.8)])
def test_both_published_depths_of_transpose(depth, parameters, gflops):
    """README of yangsenius/TransPose; its parameters include the fixed table of positions."""
    with torch.device("meta"):
        model = make("transpose", (192, 256), depth=depth)
        counted = count_as_published(model, "detr")
    with_table = count_parameters(model) + model.head.positions.numel()
    assert with_table / 1e6 == pytest.approx(parameters, abs=0.05)
    assert counted == pytest.approx(gflops, rel=0.02)


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
