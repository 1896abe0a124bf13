"""ViTPose (Xu et al., "ViTPose: Simple Vision Transformer Baselines for Human Pose Estimation", 2022).

A plain vision transformer and one of two decoders. The classic one is SimpleBaseline's head with two
deconvolutions; the simple one is below.
"""

from __future__ import annotations

import math
from typing import Any

import timm
import torch
from timm.layers.pos_embed import resample_abs_pos_embed
from torch import Tensor, nn
from torch.nn import functional as F

from diffusionpose.errors import InputError
from diffusionpose.models.encoders import Encoder
from diffusionpose.models.heatmap_model import nearly_zero

PATCH = 16
PATCH_PADDING = 2  # of the patch embedding, pixels, as published; the number of patches stays the same


class ViTEncoder(Encoder):
    """A plain vision transformer without class token: one feature of stride 16.

    Args:
        name: of a timm vision transformer.
        input_size: (width, height) of the pictures, pixels.
        pretrained: let timm fetch its weights.
        options: further arguments of ``timm.create_model``, such as ``depth`` and ``drop_path_rate``.

    Raises:
        InputError: a size that cannot be cut into patches, or weights of another number of heads.
    """

    def __init__(
        self, name: str, input_size: tuple[int, int], pretrained: bool = False, **options: Any
    ) -> None:
        width, height = input_size
        if width % PATCH or height % PATCH:
            raise InputError(
                f"input size {width}x{height} is no multiple of the transformer's patch, {PATCH}"
            )
        backbone: Any = timm.create_model(
            name,
            num_classes=0,
            global_pool="",
            class_token=False,
            img_size=(height, width),
            patch_size=PATCH,
            reg_tokens=0,
            **options,
        )
        backbone.patch_embed.proj.padding = (PATCH_PADDING, PATCH_PADDING)
        super().__init__(backbone, backbone.num_features, stride=PATCH)
        self.grid = (height // PATCH, width // PATCH)
        if pretrained:
            self._fetch(name)

    def _fetch(self, name: str) -> None:
        """Take timm's weights, once it is known that they are of as many heads: weights do not show that."""
        with torch.device("meta"):
            plan: Any = timm.create_model(name)
        theirs = plan.blocks[0].attn.num_heads
        if theirs != (heads := self.backbone.blocks[0].attn.num_heads):
            raise InputError(
                f"timm's {name} has {theirs} heads, this model {heads}, as published; give a file of its "
                "weights by --encoder-weights, or --no-pretrained"
            )
        source: Any = timm.create_model(name, pretrained=True, num_classes=0)
        self.backbone.load_state_dict(self.fit(source.state_dict()))

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
            if side**2 == positions.shape[1]:  # else of no square picture: the shape decides whether it fits
                positions = self.positions(positions, (side, side))
            fitted["pos_embed"] = positions
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


class SimpleDecoder(nn.Module):
    """ViTPose's simple decoder: ReLU, bilinear upsampling by 4, a 3x3 convolution.

    Args:
        channels: of the encoder's feature, stride 16.
        joints: J, channels of the heatmaps.
    """

    def __init__(self, channels: int, joints: int) -> None:
        super().__init__()
        self.conv = nearly_zero(nn.Conv2d(channels, joints, 3, padding=1))

    def forward(self, feature: Tensor) -> Tensor:
        """(b, c, h, w) -> (b, j, 4 h, 4 w)."""
        raised = F.interpolate(torch.relu(feature), scale_factor=4.0, mode="bilinear", align_corners=False)
        return self.conv(raised)
