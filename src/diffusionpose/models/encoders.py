"""Encoders: from a picture to one feature map, the paper's x_fea = E(x). HRFormer's is in ``hrformer.py``."""

from __future__ import annotations

import math
from collections import OrderedDict
from pathlib import Path
from typing import Any

import timm
import torch
from timm.layers.pos_embed import resample_abs_pos_embed
from torch import Tensor, nn
from torch.nn import functional as F

from diffusionpose.errors import InputError
from diffusionpose.models.weight_files import read_safetensors, three_numbers

IMPORT = "files of other projects become such files by `diffusionpose import-weights`"


class Encoder(nn.Module):
    """What encoders share: the backbone and the loading of its weights.

    Attributes:
        channels: of the feature map.
        stride: input pixels per feature pixel.
        mean, std: by which an RGB picture in [0, 1] is normalised.
    """

    backbone: Any  # of timm's feature extractors, which share no base class

    def __init__(self, backbone: nn.Module, channels: int, stride: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.channels = channels
        self.stride = stride
        settings = getattr(backbone, "pretrained_cfg", None) or {}
        self.mean: tuple[float, float, float] = tuple(settings.get("mean", (0.485, 0.456, 0.406)))
        self.std: tuple[float, float, float] = tuple(settings.get("std", (0.229, 0.224, 0.225)))

    def forward(self, x: Tensor) -> Tensor:
        """(b, 3, H, W) normalised -> (b, channels, H / stride, W / stride)."""
        feature = self.backbone(x)
        return feature[0] if isinstance(feature, list) else feature

    def load_backbone(self, path: str | Path) -> None:
        """Load ImageNet weights of the backbone from a safetensors file in timm's names.

        Layers of the file that the backbone does without (its classifier) are left out. Its metadata may
        say by which ``mean`` and ``std`` pictures were normalised: one number, or three with commas between.

        Raises:
            InputError: the file cannot be read, or lacks weights that the backbone has.
        """
        weights, facts = read_safetensors(path, IMPORT)
        weights, own = self.fit(weights), self.backbone.state_dict()
        shapes = {name: value.shape for name, value in weights.items()}
        wrong = [name for name, value in own.items() if shapes.get(name) != value.shape]
        if missing := [name for name in wrong if not name.endswith("num_batches_tracked")]:
            raise InputError(
                f"{path}: does not fit the backbone: {len(missing)} weights missing or of another shape, "
                f"first {', '.join(missing[:3])}; {IMPORT}"
            )
        self.backbone.load_state_dict({n: v for n, v in weights.items() if n in own}, strict=False)
        if "mean" in facts and "std" in facts:
            try:
                self.mean, self.std = three_numbers(facts["mean"]), three_numbers(facts["std"])
            except ValueError as error:
                raise InputError(f"{path}: mean and std of its metadata: {error}; {IMPORT}") from error

    @property
    def innermost(self) -> Encoder:
        """The encoder that holds the backbone: this one, unless it is built round another."""
        return self

    def fit(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """Weights of a classification network as this backbone takes them: here as they are."""
        return weights


class HRNetEncoder(Encoder):
    """HRNet's high-resolution branch: stride 4, 32 or 48 channels (Sun et al., CVPR 2019).

    Branches, and fusions into them, that nothing after reads do not exist, so that every parameter gets a
    gradient: 0.77 M fewer in W32. TransPose-H and TokenPose-L have 3 of its 4 ``stages``; I2R-Net's vanilla
    version reads of these the coarsest ``branch``, 2.
    """

    def __init__(
        self, name: str = "hrnet_w32", pretrained: bool = False, stages: int = 4, branch: int = 0
    ) -> None:
        # feature_location "" is the raw branch, without the classification layers behind it
        backbone: Any = timm.create_model(
            name, pretrained=pretrained, features_only=True, feature_location="", out_indices=(1,)
        )
        last = (backbone.stage4 if stages == 4 else backbone.stage3)[-1]
        last.fuse_layers = last.fuse_layers[branch : branch + 1]
        if stages == 3:
            # an identity as the only transition hands on branch 0, one as stage 4 gives it back
            backbone.transition3 = nn.ModuleList([nn.Identity()])
            backbone.stage4 = nn.Identity()
        super().__init__(backbone, last.num_in_chs[branch], stride=4 * 2**branch)


class LastStageEncoder(Encoder):
    """The deepest feature of a classification network: stride 32 for ResNets (SimpleBaseline)."""

    def __init__(self, name: str, pretrained: bool = False, **options: Any) -> None:
        backbone: Any = timm.create_model(
            name, pretrained=pretrained, features_only=True, out_indices=(-1,), **options
        )
        info = backbone.feature_info
        super().__init__(backbone, info.channels()[0], info.reduction()[0])


class PyramidEncoder(Encoder):
    """A classification network's stages joined top-down at stride 4 (Lin et al. 2017, FPN).

    For backbones with stages of strides 4, 8, 16 and 32, which have no high-resolution branch of their own.
    """

    def __init__(self, name: str, channels: int = 64, pretrained: bool = False, **options: Any) -> None:
        backbone: Any = timm.create_model(name, pretrained=pretrained, features_only=True, **options)
        info = backbone.feature_info
        picked = [i for i, stride in enumerate(info.reduction()) if stride >= 4]
        super().__init__(backbone, channels, stride=4)
        self.picked = picked
        self.laterals = nn.ModuleList(nn.Conv2d(info.channels()[i], channels, 1) for i in picked)
        self.smooths = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.GroupNorm(8, channels), nn.ReLU()
            )
            for _ in picked[:-1]
        )

    def forward(self, x: Tensor) -> Tensor:
        """(b, 3, H, W) normalised -> (b, channels, H / 4, W / 4)."""
        features = self.backbone(x)
        *finer, coarsest = [conv(features[i]) for conv, i in zip(self.laterals, self.picked, strict=True)]
        y = coarsest
        for lateral, smooth in zip(reversed(finer), self.smooths, strict=True):
            y = smooth(lateral + F.interpolate(y, size=lateral.shape[2:], mode="nearest"))
        return y


# ViTPose (Xu et al., "Simple Vision Transformer Baselines for Human Pose Estimation", NeurIPS 2022)

PATCH = 16


class ViTEncoder(Encoder):
    """A plain vision transformer without class token: one feature of stride 16.

    Args:
        name: of a timm vision transformer.
        input_size: (width, height) of the pictures, pixels.
        pretrained: let timm fetch its weights; InputError where they are of another number of heads.
        options: further arguments of ``timm.create_model``, such as ``depth`` and ``drop_path_rate``.
    """

    def __init__(
        self, name: str, input_size: tuple[int, int], pretrained: bool = False, **options: Any
    ) -> None:
        width, height = input_size
        if width % PATCH or height % PATCH:
            raise InputError(
                f"input size {width}x{height} is no multiple of the transformer's patch, {PATCH}"
            )
        plain: dict[str, Any] = {"num_classes": 0, "global_pool": "", "class_token": False, "reg_tokens": 0}
        backbone: Any = timm.create_model(
            name, img_size=(height, width), patch_size=PATCH, **plain, **options
        )
        backbone.patch_embed.proj.padding = (2, 2)  # as published; the number of patches stays the same
        super().__init__(backbone, backbone.num_features, stride=PATCH)
        self.grid = (height // PATCH, width // PATCH)
        if pretrained:
            with torch.device("meta"):
                source: Any = timm.create_model(name)
            theirs, heads = source.blocks[0].attn.num_heads, backbone.blocks[0].attn.num_heads
            if theirs != heads:  # the weights do not show it
                raise InputError(
                    f"timm's {name} has {theirs} heads, this model {heads}, as published; give a file of its "
                    "weights by --encoder-weights, or --no-pretrained"
                )
            source = timm.create_model(name, pretrained=True, num_classes=0)
            backbone.load_state_dict(self.fit(source.state_dict()))

    def fit(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """Weights of a classifier on square pictures as this backbone takes them.

        The class token's position is added to every patch's, as ViTPose does; the positions are resampled to
        the grid of this input size; a patch kernel smaller than 16x16 (ViT-H/14) gets a border of zeros.
        """
        fitted = {key: value for key, value in weights.items() if key != "cls_token"}
        if (positions := fitted.get("pos_embed")) is not None:
            if "cls_token" in weights:
                positions = positions[:, 1:] + positions[:, :1]
            side = math.isqrt(positions.shape[1])
            square = side**2 == positions.shape[1]  # else the shape decides whether it fits
            fitted["pos_embed"] = self.positions(positions, (side, side)) if square else positions
        if (kernel := fitted.get("patch_embed.proj.weight")) is not None and kernel.shape[-1] < PATCH:
            before = (PATCH - kernel.shape[-1]) // 2
            after = PATCH - kernel.shape[-1] - before
            fitted["patch_embed.proj.weight"] = F.pad(kernel, (before, after, before, after))
        return fitted

    def positions(self, table: Tensor, grid: tuple[int, int]) -> Tensor:
        """Positions (1, h w, c) of patches on a grid of (h, w), resampled to this input size's grid."""
        if grid == self.grid:
            return table
        return resample_abs_pos_embed(table, list(self.grid), old_size=list(grid), num_prefix_tokens=0)

    def forward(self, x: Tensor) -> Tensor:
        """(b, 3, H, W) normalised -> (b, c, H / 16, W / 16)."""
        tokens: Tensor = self.backbone.forward_features(x)
        return tokens.mT.unflatten(2, self.grid).contiguous()


class RaisedEncoder(Encoder):
    """An encoder's feature brought to stride 4 by deconvolutions, as ViTPose's and SimpleBaseline's heads do.

    For DiffusionPose on backbones that end at stride 16 or 32: its conv (Eq. 10) on this feature is then
    the whole of that method, and the decoder improves on it.
    """

    def __init__(self, inner: Encoder, channels: int = 256) -> None:
        super().__init__(inner.backbone, channels, stride=4)
        del self.backbone  # it is the inner encoder's, and a checkpoint names it once
        self.inner = inner
        self.mean, self.std = inner.mean, inner.std
        layers = int(math.log2(inner.stride // 4))
        self.neck = nn.Sequential(*deconvolutions(inner.channels, channels, layers))

    @property
    def innermost(self) -> Encoder:
        """The encoder inside."""
        return self.inner

    def load_backbone(self, path: str | Path) -> None:
        """As the inner encoder does it."""
        self.inner.load_backbone(path)
        self.mean, self.std = self.inner.mean, self.inner.std

    def forward(self, x: Tensor) -> Tensor:
        """(b, 3, H, W) normalised -> (b, channels, H / 4, W / 4)."""
        return self.neck(self.inner(x))


def deconvolutions(channels: int, width: int, layers: int) -> list[nn.Module]:
    """``layers`` doublings by 4x4 deconvolution, BatchNorm and ReLU (SimpleBaseline, ViTPose)."""
    parts: list[nn.Module] = []
    for i in range(layers):
        deconvolution = nn.ConvTranspose2d(channels if i == 0 else width, width, 4, 2, padding=1, bias=False)
        nn.init.normal_(deconvolution.weight, std=1e-3)
        parts += [deconvolution, nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
    return parts


# MoveNet: MobileNetV2 (Sandler et al., CVPR 2018) with a feature pyramid (Google's model of 2021, Apache-2.0)

# channels, blocks, stride of MobileNetV2's stages (its Table 2); all but the first expand channels 6 times
MOBILENET_STAGES = ((16, 1, 1), (24, 2, 2), (32, 3, 2), (64, 4, 2), (96, 3, 1), (160, 3, 2), (320, 1, 1))
LATERAL_BLOCKS = (2, 5, 9)  # the last blocks of strides 4, 8 and 16 that the pyramid reads
LATERAL_CHANNELS = (24, 32, 64, 64)
SMOOTH_CHANNELS = (32, 24, 24)
PYRAMID_CHANNELS = 24
HEAD_CHANNELS = 96


class MobileNetPyramid(nn.Module):
    """MobileNetV2 and its pyramid: (b, 3, H, W) -> (b, 24, H / 4, W / 4).

    Args:
        width: multiplier of MobileNetV2's channels; MoveNet Thunder has 1.75, MultiPose 1.5.
        frozen: the stem and so many of the 17 blocks are not trained: their weights stay, and no gradient
            is computed through them.
    """

    def __init__(self, width: float, frozen: int = 0) -> None:
        super().__init__()
        if not 0 <= frozen <= sum(count for _, count, _ in MOBILENET_STAGES):
            raise ValueError(f"frozen {frozen}: MobileNetV2 has 17 blocks")
        self.frozen = frozen
        channels = _rounded(32 * width)
        self.stem = Convolution(3, channels, 3, stride=2)
        self.blocks = nn.ModuleList()
        outputs: list[int] = []
        for base, count, stride in MOBILENET_STAGES:
            for block in range(count):
                before, channels = channels, _rounded(base * width)
                expansion = 6 if outputs else 1
                self.blocks.append(InvertedResidual(before, channels, stride if block == 0 else 1, expansion))
                outputs.append(channels)
        self.top = Convolution(channels, 1280)
        sources = [outputs[i] for i in LATERAL_BLOCKS] + [1280]
        self.lateral = nn.ModuleList(
            Convolution(source, target) for source, target in zip(sources, LATERAL_CHANNELS, strict=True)
        )
        inputs = (LATERAL_CHANNELS[3], *SMOOTH_CHANNELS[:-1])
        self.smooth = nn.ModuleList(
            Separable(source, target) for source, target in zip(inputs, SMOOTH_CHANNELS, strict=True)
        )
        for parameter in (p for part in (self.stem, *self.blocks[:frozen]) for p in part.parameters()):
            parameter.requires_grad_(frozen == 0)

    def forward(self, x: Tensor) -> Tensor:
        """Images scaled to [-1, 1], sides in multiples of 32 -> features of stride 4."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.frozen == 0):
            x = F.relu6(self.stem(x), inplace=True)
        pyramid = []
        for number, block in enumerate(self.blocks):
            with torch.set_grad_enabled(torch.is_grad_enabled() and number >= self.frozen):
                x = block(x)
            if number in LATERAL_BLOCKS:
                pyramid.append(x)
        pyramid.append(F.relu6(self.top(x), inplace=True))
        *finer, y = [lateral(feature) for lateral, feature in zip(self.lateral, pyramid, strict=True)]
        for smooth, feature in zip(self.smooth, reversed(finer), strict=True):
            y = F.interpolate(y, size=feature.shape[2:], mode="bilinear", align_corners=False)
            y = smooth(y + feature)
        return y


class InvertedResidual(nn.Module):
    """MobileNetV2's block: expand 1x1, depthwise 3x3, project 1x1, added to its input where sizes allow."""

    def __init__(self, channels: int, output: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = channels * expansion
        self.expand = Convolution(channels, inner) if expansion > 1 else None
        self.depthwise = Convolution(inner, inner, 3, stride, groups=inner)
        self.project = Convolution(inner, output)
        self.residual = stride == 1 and channels == output

    def forward(self, x: Tensor) -> Tensor:
        """(b, channels, h, w) -> (b, output, h / stride, w / stride)."""
        y = x if self.expand is None else F.relu6(self.expand(x), inplace=True)
        y = self.project(F.relu6(self.depthwise(y), inplace=True))
        return x + y if self.residual else y


class Separable(nn.Module):
    """Depthwise 3x3 without bias or activation, pointwise 1x1, ReLU."""

    def __init__(self, channels: int, output: int) -> None:
        super().__init__()
        self.depthwise = Convolution(channels, channels, 3, groups=channels, bias=False)
        self.pointwise = Convolution(channels, output)

    def forward(self, x: Tensor) -> Tensor:
        """(b, channels, h, w) -> (b, output, h, w)."""
        return F.relu(self.pointwise(self.depthwise(x)), inplace=True)


class Convolution(nn.Module):
    """A convolution with TensorFlow's "SAME" padding, for even sides where the stride is 2."""

    def __init__(
        self, channels: int, output: int, kernel: int = 1, stride: int = 1, groups: int = 1, bias: bool = True
    ) -> None:
        super().__init__()
        same = kernel // 2 if stride == 1 else 0
        self.conv = nn.Conv2d(channels, output, kernel, stride, padding=same, groups=groups, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """(b, channels, h, w) -> (b, output, h / stride, w / stride)."""
        return self.conv(F.pad(x, (0, 1, 0, 1)) if self.conv.stride[0] == 2 else x)


def _rounded(channels: float) -> int:
    return max(8, int(channels + 4) // 8 * 8)


class MoveNetEncoder(Encoder):
    """MoveNet's pyramid with the features of its heatmap head, 96 channels at stride 4.

    The paper's conv (Eq. 10) on this feature stands where MoveNet's own last convolution did. ``width`` and
    ``frozen`` as of :class:`MobileNetPyramid`.
    """

    def __init__(self, width: float = 1.75, frozen: int = 0, pretrained: bool = False) -> None:
        backbone = nn.Sequential(
            OrderedDict(pyramid=MobileNetPyramid(width, frozen), features=Separable(24, HEAD_CHANNELS))
        )
        super().__init__(backbone, HEAD_CHANNELS, stride=4)
        self.mean = self.std = (0.5, 0.5, 0.5)

    def fit(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """Weights of a MoveNet file: its pyramid and, of its heads, the features before the heatmaps."""
        head = "heads.kpt_heatmap.0."
        names = {
            name: name.replace(head, "features.") if name.startswith(head) else f"pyramid.{name}"
            for name in weights
            if name.startswith(head) or "heads." not in name
        }
        return {ours: weights[name] for name, ours in names.items()}
