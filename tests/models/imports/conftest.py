"""Names and shapes of published checkpoints, written down from the structure of the published code.

Sources: lib/models/pose_hrnet.py and pose_resnet.py of leoxiaobin/deep-high-resolution-net.pytorch,
cls_hrnet.py of HRNet/HRNet-Image-Classification, mmpose/models/backbones/vit.py of
ViTAE-Transformer/ViTPose, vision_transformer.py of open-mmlab/mmpretrain (with mmcv's PatchEmbed and FFN),
and the heads of open-mmlab/mmpose.
"""

from collections.abc import Callable
from functools import cache

import pytest
import torch

Shapes = dict[str, tuple[int, ...]]
Weights = dict[str, torch.Tensor]


def conv(name: str, out: int, channels: int, side: int, bias: bool = False) -> Shapes:
    shapes = {f"{name}.weight": (out, channels, side, side)}
    return {**shapes, f"{name}.bias": (out,)} if bias else shapes


def norm(name: str, channels: int) -> Shapes:
    parts = ("weight", "bias", "running_mean", "running_var")
    return {**{f"{name}.{part}": (channels,) for part in parts}, f"{name}.num_batches_tracked": ()}


def basic(name: str, channels: int) -> Shapes:
    shapes: Shapes = {}
    for i in (1, 2):
        shapes |= conv(f"{name}.conv{i}", channels, channels, 3) | norm(f"{name}.bn{i}", channels)
    return shapes


def bottleneck(name: str, into: int, planes: int, downsample: bool) -> Shapes:
    shapes = conv(f"{name}.conv1", planes, into, 1) | norm(f"{name}.bn1", planes)
    shapes |= conv(f"{name}.conv2", planes, planes, 3) | norm(f"{name}.bn2", planes)
    shapes |= conv(f"{name}.conv3", 4 * planes, planes, 1) | norm(f"{name}.bn3", 4 * planes)
    if downsample:
        shapes |= conv(f"{name}.downsample.0", 4 * planes, into, 1) | norm(f"{name}.downsample.1", 4 * planes)
    return shapes


def fusion(name: str, widths: list[int], outputs: int) -> Shapes:
    shapes: Shapes = {}
    for i in range(outputs):
        for j in range(len(widths)):
            place = f"{name}.fuse_layers.{i}.{j}"
            if j > i:
                shapes |= conv(f"{place}.0", widths[i], widths[j], 1) | norm(f"{place}.1", widths[i])
            for k in range(i - j):
                out = widths[i] if k == i - j - 1 else widths[j]
                shapes |= conv(f"{place}.{k}.0", out, widths[j], 3) | norm(f"{place}.{k}.1", out)
    return shapes


def hrnet_trunk(width: int = 32, coarser: bool = False) -> Shapes:
    """conv1 to stage4; ``coarser`` keeps the lower outputs of the last fusion, as the classifier does."""
    shapes = conv("conv1", 64, 3, 3) | norm("bn1", 64) | conv("conv2", 64, 64, 3) | norm("bn2", 64)
    for i in range(4):
        shapes |= bottleneck(f"layer1.{i}", 256 if i else 64, 64, downsample=i == 0)
    shapes |= conv("transition1.0.0", width, 256, 3) | norm("transition1.0.1", width)
    shapes |= conv("transition1.1.0.0", 2 * width, 256, 3) | norm("transition1.1.0.1", 2 * width)
    for stage in (3, 4):
        name, out = f"transition{stage - 1}.{stage - 1}.0", width * 2 ** (stage - 1)
        shapes |= conv(f"{name}.0", out, out // 2, 3) | norm(f"{name}.1", out)
    for stage, modules in ((2, 1), (3, 4), (4, 3)):
        widths = [width * 2**i for i in range(stage)]
        for m in range(modules):
            for branch, channels in enumerate(widths):
                for block in range(4):
                    shapes |= basic(f"stage{stage}.{m}.branches.{branch}.{block}", channels)
            last = stage == 4 and m == modules - 1
            shapes |= fusion(f"stage{stage}.{m}", widths, 1 if last and not coarser else stage)
    return shapes


def hrnet_classifier(width: int = 32) -> Shapes:
    shapes: Shapes = {}
    for i, planes in enumerate((32, 64, 128, 256)):
        shapes |= bottleneck(f"incre_modules.{i}.0", width * 2**i, planes, downsample=True)
        if i < 3:
            name = f"downsamp_modules.{i}"
            shapes |= conv(f"{name}.0", 8 * planes, 4 * planes, 3, bias=True) | norm(f"{name}.1", 8 * planes)
    shapes |= conv("final_layer.0", 2048, 1024, 1, bias=True) | norm("final_layer.1", 2048)
    return {**shapes, "classifier.weight": (1000, 2048), "classifier.bias": (1000,)}


def resnet_trunk(blocks: tuple[int, ...] = (3, 4, 6, 3)) -> Shapes:
    shapes, into = conv("conv1", 64, 3, 7) | norm("bn1", 64), 64
    for stage, count in enumerate(blocks):
        planes = 64 * 2**stage
        for i in range(count):
            shapes |= bottleneck(f"layer{stage + 1}.{i}", into, planes, downsample=i == 0)
            into = 4 * planes
    return shapes


def deconvolutions(into: int, layers: int) -> Shapes:
    shapes: Shapes = {}
    for i in range(layers):
        shapes[f"deconv_layers.{3 * i}.weight"] = (256 if i else into, 256, 4, 4)  # (in, out, ..)
        shapes |= norm(f"deconv_layers.{3 * i + 1}", 256)
    return shapes


def linear(name: str, out: int, into: int) -> Shapes:
    return {f"{name}.weight": (out, into), f"{name}.bias": (out,)}


def layer_norm(name: str, channels: int) -> Shapes:
    return {f"{name}.weight": (channels,), f"{name}.bias": (channels,)}


def vit_of_vitpose(c: int = 48, depth: int = 2, patches: int = 24) -> Shapes:
    shapes: Shapes = {"pos_embed": (1, patches + 1, c), **conv("patch_embed.proj", c, 3, 16, bias=True)}
    for i in range(depth):
        block = f"blocks.{i}"
        shapes |= layer_norm(f"{block}.norm1", c) | layer_norm(f"{block}.norm2", c)
        shapes |= linear(f"{block}.attn.qkv", 3 * c, c) | linear(f"{block}.attn.proj", c, c)
        shapes |= linear(f"{block}.mlp.fc1", 4 * c, c) | linear(f"{block}.mlp.fc2", c, 4 * c)
    return shapes | layer_norm("last_norm", c)


def vit_of_mmpretrain(c: int = 48, depth: int = 2, patches: int = 24) -> Shapes:
    shapes: Shapes = {"pos_embed": (1, patches, c), **conv("patch_embed.projection", c, 3, 16, bias=True)}
    for i in range(depth):
        layer = f"layers.{i}"
        shapes |= layer_norm(f"{layer}.ln1", c) | layer_norm(f"{layer}.ln2", c)
        shapes |= linear(f"{layer}.attn.qkv", 3 * c, c) | linear(f"{layer}.attn.proj", c, c)
        shapes |= linear(f"{layer}.ffn.layers.0.0", 4 * c, c) | linear(f"{layer}.ffn.layers.1", c, 4 * c)
    return shapes | layer_norm("ln1", c)


def under(prefix: str, shapes: Shapes) -> Shapes:
    return {f"{prefix}.{name}": shape for name, shape in shapes.items()}


PUBLISHED: dict[str, Callable[..., Shapes]] = {
    "hrnet": lambda joints=17, width=32: {
        **hrnet_trunk(width),
        **conv("final_layer", joints, width, 1, bias=True),
    },
    "hrnet mmpose 0": lambda joints=17, width=32: {
        **under("backbone", hrnet_trunk(width)),
        **conv("keypoint_head.final_layer", joints, width, 1, bias=True),
    },
    "hrnet mmpose 1": lambda joints=17, width=32: {
        **under("backbone", hrnet_trunk(width)),
        **conv("head.final_layer", joints, width, 1, bias=True),
    },
    "hrnet imagenet": lambda: {**hrnet_trunk(coarser=True), **hrnet_classifier()},
    "simplebaseline": lambda joints=17: {
        **resnet_trunk(),
        **deconvolutions(2048, 3),
        **conv("final_layer", joints, 256, 1, bias=True),
    },
    "simplebaseline mmpose 0": lambda joints=17: {
        **under("backbone", resnet_trunk()),
        **under("keypoint_head", deconvolutions(2048, 3)),
        **conv("keypoint_head.final_layer", joints, 256, 1, bias=True),
    },
    "simplebaseline mmpose 1": lambda joints=17: {
        **under("backbone", resnet_trunk()),
        **under("head", deconvolutions(2048, 3)),
        **conv("head.final_layer", joints, 256, 1, bias=True),
    },
    "resnet imagenet": lambda: {**resnet_trunk(), **linear("fc", 1000, 2048)},
    "vitpose mmpose 0": lambda joints=17: {
        **under("backbone", vit_of_vitpose()),
        **under("keypoint_head", deconvolutions(48, 2)),
        **conv("keypoint_head.final_layer", joints, 256, 1, bias=True),
    },
    "vitpose mmpose 0 simple": lambda joints=17: {
        **under("backbone", vit_of_vitpose()),
        **conv("keypoint_head.final_layer", joints, 48, 3, bias=True),
    },
    "vitpose mmpose 1": lambda joints=17: {
        **under("backbone", vit_of_mmpretrain()),
        **under("head", deconvolutions(48, 2)),
        **conv("head.final_layer", joints, 256, 1, bias=True),
    },
    "vitpose mmpose 1 simple": lambda joints=17: {
        **under("backbone", vit_of_mmpretrain()),
        **conv("head.final_layer", joints, 48, 3, bias=True),
    },
}


def fill(shapes: Shapes, seed: int = 0) -> Weights:
    """Other numbers in every tensor, of a size at which a network of them neither dies nor explodes."""
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for name, shape in shapes.items():
        numbers = torch.randn(shape, generator=generator)
        if name.endswith("num_batches_tracked"):
            weights[name] = torch.tensor(7)
        elif name.endswith("running_var"):
            weights[name] = 1 + 0.1 * numbers.abs()
        elif name.endswith("weight") and len(shape) == 1:
            weights[name] = 1 + 0.1 * numbers
        elif len(shape) >= 2 and "pos_embed" not in name:
            weights[name] = numbers * (2 / numbers[0].numel()) ** 0.5
        else:
            weights[name] = 0.1 * numbers
    return weights


@cache
def _filled(name: str, options: tuple[tuple[str, int], ...]) -> Weights:
    return fill(PUBLISHED[name](**dict(options)))


@pytest.fixture(scope="session")
def published() -> Callable[..., Weights]:
    """``published(name, joints=.., width=..)``: weights of a published layout, filled."""
    return lambda name, **options: {
        n: value.clone()  # tests damage them
        for n, value in _filled(name, tuple(options.items())).items()
    }


@pytest.fixture(scope="session")
def shapes() -> Callable[..., Shapes]:
    """``shapes(name, joints=.., width=..)``: names and shapes of a published layout."""
    return lambda name, **options: PUBLISHED[name](**options)


@pytest.fixture(scope="session")
def hollow(shapes) -> Callable[..., Weights]:
    """``hollow(name, ..)``: zeros that take no memory, and a small file, in the place of ``published``."""
    return lambda name, **options: {
        n: torch.zeros((), dtype=torch.long if n.endswith("tracked") else torch.float).expand(shape)
        for n, shape in shapes(name, **options).items()
    }


@pytest.fixture(scope="session")
def layouts() -> list[str]:
    """Names that ``published`` knows."""
    return list(PUBLISHED)


@pytest.fixture
def saved(tmp_path):
    """``saved(content, name="weights.pth")``: what torch.save makes of it."""

    def save(content, name="weights.pth"):
        torch.save(content, tmp_path / name)
        return tmp_path / name

    return save
