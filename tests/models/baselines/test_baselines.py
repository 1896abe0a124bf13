"""The transformers of Table 2 as whole models: costs as their authors print them, sizes, gradients."""

import pytest
import torch

from diffusionpose.geometry.codec import HeatmapCodec
from diffusionpose.models.baselines.hrformer import HRFormerEncoder
from diffusionpose.models.baselines.tokenpose import TokenPoseHead
from diffusionpose.models.baselines.transpose import TransPoseHead
from diffusionpose.models.costs import count_as_published, count_multiply_adds, count_parameters
from diffusionpose.models.heatmap_model import HeatmapModel, coarse_head
from diffusionpose.models.hrnet_stage3 import HRNetStage3Encoder
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


SMALL, LARGE = (192, 256), (288, 384)
PUBLISHED = [
    # method, options, input size, rule; millions of parameters and GFLOPs printed; true multiply-adds, 10^9
    # TokenPose's abstract: 56.8 % fewer parameters and 24.7 % fewer GFLOPs than HRNet-W48's 63.6 and 14.6
    ("tokenpose", {}, SMALL, "hrnet", 27.5, 11.0, 12.2),
    # README of yangsenius/TransPose; its parameters include the fixed table of positions
    ("transpose", {"depth": 4}, SMALL, "detr", 17.3, 17.5, 17.2),
    ("transpose", {}, SMALL, "detr", 17.5, 21.8, 21.3),
    # HRFormer's paper, comparison on COCO val; its code calls the output projections of the attention as
    # functions, so that the tool misses them
    ("hrformer", {"variant": "small"}, SMALL, "mmcv", 7.8, 2.8, 3.2),
    ("hrformer", {"variant": "small"}, LARGE, "mmcv", 7.8, 6.2, 7.1),
    ("hrformer", {"variant": "base"}, SMALL, "mmcv", 43.2, 12.2, 13.9),
    ("hrformer", {"variant": "base"}, LARGE, "mmcv", 43.2, 26.8, 30.5),
]


@pytest.mark.parametrize(("method", "options", "size", "rule", "parameters", "gflops", "true"), PUBLISHED)
def test_costs_are_as_published(method, options, size, rule, parameters, gflops, true):
    with torch.device("meta"):
        model = make(method, size, **options)
        counted = count_as_published(model, rule, unseen=("out",) if method == "hrformer" else ())
        multiply_adds = count_multiply_adds(model)
    own = count_parameters(model)
    assert own / 1e6 == pytest.approx(parameters, rel=0.02)
    if method == "transpose":
        assert (own + model.head.positions.numel()) / 1e6 == pytest.approx(parameters, abs=0.05)
    assert counted == pytest.approx(gflops, rel=0.02)
    assert multiply_adds / 1e9 == pytest.approx(true, abs=0.05)


@pytest.mark.parametrize("method", METHODS)
def test_every_parameter_gets_a_gradient(method):
    model = make_small(method)
    model(crops(2)).square().sum().backward()
    assert [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None] == []


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("size", [(64, 96), (96, 128)])
def test_input_sizes(method, size):
    model = make_small(method, size).eval()
    with torch.no_grad():
        assert model(crops(1, size)).shape == (1, 17, size[1] // 4, size[0] // 4)


@pytest.mark.parametrize("method", METHODS)
def test_a_batch_equals_its_items_in_any_layout(method):
    model, images = make_small(method).eval(), crops(3)
    with torch.no_grad():
        together = model(images)
        single = torch.cat([model(image[None]) for image in images])
        packed = model.to(memory_format=torch.channels_last)(images.to(memory_format=torch.channels_last))
    tolerance = 1e-5 * together.abs().max()
    assert (together - single).abs().max() < tolerance
    assert (together - packed).abs().max() < tolerance
    assert not torch.allclose(together[0], together[1], atol=tolerance)


@pytest.mark.parametrize("method", METHODS)
def test_bf16_agrees_with_float32(method):
    model, images = make_small(method).eval(), crops(2)
    with torch.no_grad():
        plain = model(images)
        with torch.autocast("cpu", torch.bfloat16):
            rough = model(images)
    assert (rough.float() - plain).abs().max() < 0.1 * plain.abs().max()
