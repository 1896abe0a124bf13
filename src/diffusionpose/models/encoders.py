"""Encoders: a timm backbone that gives one feature map (the paper's E, x_fea = E(x)).

Every encoder has ``channels``, ``stride`` (input pixels per feature pixel) and ``mean`` and ``std``,
by which an RGB picture in [0, 1] is normalised.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from itertools import pairwise
from pathlib import Path
from typing import Any

import timm
from torch import Tensor, nn
from torch.nn import functional as F

from diffusionpose.errors import InputError
from diffusionpose.models.movenet import HEAD_CHANNELS, MobileNetPyramid, Separable

IMPORT = "files of other projects become such files by `diffusionpose import-weights`"


class Encoder(nn.Module):
    """What encoders share: the backbone, its normalisation, the loading of its weights."""

    backbone: Any  # of timm's feature extractors, which share no base class

    def __init__(self, backbone: nn.Module, channels: int, stride: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.channels = channels
        self.stride = stride
        settings: dict[str, Any] = getattr(backbone, "pretrained_cfg", None) or {}
        self.mean: tuple[float, float, float] = tuple(settings.get("mean", (0.485, 0.456, 0.406)))
        self.std: tuple[float, float, float] = tuple(settings.get("std", (0.229, 0.224, 0.225)))

    def load_backbone(self, path: str | Path) -> None:
        """Load ImageNet weights of the backbone from a safetensors file in timm's names.

        Layers of the file that the backbone does without (its classifier) are left out. Its metadata may
        say by which ``mean`` and ``std`` pictures were normalised: one number, or three with commas between.

        Raises:
            InputError: the file cannot be read, or lacks weights that the backbone has.
        """
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(str(path), "pt") as file:
                weights = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
                facts = file.metadata() or {}
        except (OSError, SafetensorError) as error:
            raise InputError(f"{path}: not a readable safetensors file ({error}); {IMPORT}") from error
        weights, own = self.fit(weights), self.backbone.state_dict()
        missing = [
            name
            for name, value in own.items()
            if not name.endswith("num_batches_tracked")
            and (name not in weights or weights[name].shape != value.shape)
        ]
        if missing:
            raise InputError(
                f"{path}: does not fit the backbone: {len(missing)} weights missing or of another shape, "
                f"first {', '.join(missing[:3])}; {IMPORT}"
            )
        self.backbone.load_state_dict({n: v for n, v in weights.items() if n in own}, strict=False)
        if "mean" in facts and "std" in facts:
            self.mean, self.std = _three(facts["mean"]), _three(facts["std"])

    @property
    def innermost(self) -> Encoder:
        """The encoder that holds the backbone: this one, unless it is built round another."""
        return self

    def fit(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """Weights of a classification network as this backbone takes them: here as they are."""
        return weights


class HRNetEncoder(Encoder):
    """HRNet's high-resolution branch: stride 4, 32 or 48 channels (Sun et al., CVPR 2019)."""

    def __init__(self, name: str = "hrnet_w32", pretrained: bool = False) -> None:
        # feature_location "" is the raw branch, without the classification layers behind it
        backbone: Any = timm.create_model(
            name, pretrained=pretrained, features_only=True, feature_location="", out_indices=(1,)
        )
        # The last fusion also makes the three coarser branches, which nothing here reads: without
        # them 0.77 M parameters fewer in W32, and none that never gets a gradient.
        last = backbone.stage4[-1]
        last.fuse_layers = last.fuse_layers[:1]
        super().__init__(backbone, last.num_in_chs[0], stride=4)

    def forward(self, x: Tensor) -> Tensor:
        """(b, 3, H, W) normalised -> (b, c, H / 4, W / 4)."""
        return self.backbone(x)[0]


class LastStageEncoder(Encoder):
    """The deepest feature of a classification network: stride 32 for ResNets (SimpleBaseline)."""

    def __init__(self, name: str, pretrained: bool = False, **options: Any) -> None:
        backbone: Any = timm.create_model(
            name, pretrained=pretrained, features_only=True, out_indices=(-1,), **options
        )
        info = backbone.feature_info
        super().__init__(backbone, info.channels()[0], info.reduction()[0])

    def forward(self, x: Tensor) -> Tensor:
        """(b, 3, H, W) normalised -> (b, c, H / stride, W / stride)."""
        return self.backbone(x)[0]


class PyramidEncoder(Encoder):
    """A classification network's stages joined top-down at stride 4 (Lin et al. 2017, FPN).

    For backbones that have no high-resolution branch of their own.

    Args:
        name: of a timm backbone with stages of strides 4, 8, 16 and 32.
        channels: of the feature map.
        options: further arguments of ``timm.create_model``.
    """

    def __init__(self, name: str, channels: int = 64, pretrained: bool = False, **options: Any) -> None:
        backbone: Any = timm.create_model(name, pretrained=pretrained, features_only=True, **options)
        info = backbone.feature_info
        picked = [i for i, stride in enumerate(info.reduction()) if stride >= 4]
        strides = [info.reduction()[i] for i in picked]
        if strides[0] != 4 or any(b != 2 * a for a, b in pairwise(strides)):
            raise InputError(f"backbone {name!r} has strides {strides}; a pyramid needs 4, 8, 16, ..")
        super().__init__(backbone, channels, stride=4)
        self.picked = picked
        self.laterals = nn.ModuleList(nn.Conv2d(info.channels()[i], channels, 1) for i in picked)
        self.smooths = nn.ModuleList(_smooth(channels) for _ in picked[:-1])

    def forward(self, x: Tensor) -> Tensor:
        """(b, 3, H, W) normalised -> (b, channels, H / 4, W / 4)."""
        features = self.backbone(x)
        *finer, coarsest = [conv(features[i]) for conv, i in zip(self.laterals, self.picked, strict=True)]
        y = coarsest
        for lateral, smooth in zip(reversed(finer), self.smooths, strict=True):
            y = smooth(lateral + F.interpolate(y, size=lateral.shape[2:], mode="nearest"))
        return y


class MoveNetEncoder(Encoder):
    """MoveNet's pyramid with the features of its heatmap head, 96 channels at stride 4 (``models/movenet.py``).

    The paper's conv (Eq. 10) on this feature stands where MoveNet's own last convolution did.

    Args:
        width: multiplier of MobileNetV2's channels.
        frozen: blocks of MobileNetV2 that are not trained, the stem before them included.
    """

    def __init__(self, width: float = 1.75, frozen: int = 0, pretrained: bool = False) -> None:
        backbone = nn.Sequential(
            OrderedDict(pyramid=MobileNetPyramid(width, frozen), features=Separable(24, HEAD_CHANNELS))
        )
        super().__init__(backbone, HEAD_CHANNELS, stride=4)
        self.mean = self.std = (0.5, 0.5, 0.5)

    def forward(self, x: Tensor) -> Tensor:
        """(b, 3, H, W) normalised to [-1, 1] -> (b, 96, H / 4, W / 4)."""
        return self.backbone(x)

    def fit(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """Weights of a MoveNet file: its pyramid and, of its heads, the features before the heatmaps."""
        head = "heads.kpt_heatmap.0."
        features = {
            f"features.{name.removeprefix(head)}": value
            for name, value in weights.items()
            if name.startswith(head)
        }
        return features | {
            f"pyramid.{name}": value for name, value in weights.items() if "heads." not in name
        }


class RaisedEncoder(Encoder):
    """An encoder's feature brought to stride 4 by deconvolutions, as ViTPose's and SimpleBaseline's heads do.

    For DiffusionPose on backbones that end at stride 16 or 32: its conv (Eq. 10) on this feature is then
    the whole of that method, and the decoder improves on it.

    Args:
        inner: the encoder, of stride 8, 16 or 32.
        channels: of the feature map.
    """

    def __init__(self, inner: Encoder, channels: int = 256) -> None:
        super().__init__(inner.backbone, channels, stride=4)
        del self.backbone  # it is the inner encoder's, and a checkpoint names it once
        self.inner = inner
        self.mean, self.std = inner.mean, inner.std
        self.neck = nn.Sequential(
            *deconvolutions(inner.channels, channels, int(math.log2(inner.stride // 4)))
        )

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


def _three(text: str) -> tuple[float, float, float]:
    """Numbers for red, green and blue, from one for all or from three."""
    numbers = [float(number) for number in text.split(",")]
    red, green, blue = numbers if len(numbers) > 1 else 3 * numbers
    return red, green, blue


def _smooth(channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.GroupNorm(8, channels), nn.ReLU()
    )
