"""SGDD: the structure-guided diffusion decoder D(hm_t, x_c) (Eq. 9, Fig. 3, Table 1).

What the paper leaves open is taken so that the parameters and multiply-adds of all four rows of
Table 2 come out: on the way down two residual blocks a stage, on the way up nearest doubling and
a 3x3 convolution, added to the skip, no further blocks.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffusionpose.models.heatmap_model import nearly_zero

STAGE_WIDTHS = (1, 2, 2, 2)  # channels of the stages in units of C (Table 1)
BLOCKS = 2  # residual blocks a stage (Table 1)


def _norm(channels: int) -> nn.GroupNorm:
    # Groups, not batches: the decoder sees noised truth in training and coarse heatmaps at
    # inference, so batch statistics of the one would be wrong for the other.
    return nn.GroupNorm(math.gcd(channels, 32) if channels >= 128 else math.gcd(channels, 8), channels)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut (He et al. 2016); starts as the identity."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, padding=1, bias=False)
        self.norm1 = _norm(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm2 = _norm(channels)
        nn.init.zeros_(self.norm2.weight)
        same = in_channels == channels
        self.shortcut = nn.Identity() if same else nn.Conv2d(in_channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(b, in_channels, h, w) -> (b, channels, h, w)."""
        y = F.relu(self.norm1(self.conv1(x)))
        y = self.norm2(self.conv2(y))
        return F.relu(y + self.shortcut(x))


class StructureGuidedDecoder(nn.Module):
    """A U-Net from noised heatmaps and their condition to heatmaps.

    Args:
        joints: J, channels of the heatmaps.
        condition_channels: of x_c.
        width: the paper's C.
        time_input: let D see t as an embedding added to its first feature. The paper's D does not
            (Eq. 9).
    """

    def __init__(
        self, joints: int, condition_channels: int, width: int = 128, time_input: bool = False
    ) -> None:
        super().__init__()
        channels = [width * factor for factor in STAGE_WIDTHS]
        self.stem = nn.Conv2d(joints + condition_channels, channels[0], 3, padding=1)
        self.time = TimeEmbedding(channels[0]) if time_input else None
        self.stages = nn.ModuleList()
        self.downs = nn.ModuleList()
        self.ups = nn.ModuleList()
        for i, width_i in enumerate(channels):
            before = channels[max(i - 1, 0)]
            blocks = [ResidualBlock(before if k == 0 else width_i, width_i) for k in range(BLOCKS)]
            self.stages.append(nn.Sequential(*blocks))
            if i > 0:
                self.downs.append(nn.Conv2d(before, before, 3, stride=2, padding=1))
                self.ups.append(nn.Conv2d(width_i, before, 3, padding=1))
        self.out = nearly_zero(nn.Conv2d(channels[0], joints, 3, padding=1))

    def forward(self, hm_t: Tensor, x_c: Tensor, t: Tensor | None = None) -> Tensor:
        """Estimated heatmaps (Eq. 9).

        Args:
            hm_t: (b, j, h, w) noised heatmaps.
            x_c: (b, condition_channels, h, w).
            t: (b,) noise level t / T in [0, 1], only with ``time_input``.

        Returns:
            (b, j, h, w).
        """
        x = self.stem(torch.cat([hm_t, x_c], dim=1))
        if self.time is not None:
            if t is None:
                raise ValueError("this decoder was made with time_input: give it t")
            x = x + self.time(t)[:, :, None, None]

        skips = []
        for i, stage in enumerate(self.stages):
            x = stage(x if i == 0 else self.downs[i - 1](x))
            skips.append(x)
        x = skips.pop()
        for up in reversed(self.ups):
            skip = skips.pop()
            x = up(F.interpolate(x, size=skip.shape[2:], mode="nearest")) + skip
        return self.out(x)


class TimeEmbedding(nn.Module):
    """Sinusoids of t / T through a small network (Ho et al. 2020)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.waves = channels // 2
        self.net = nn.Sequential(nn.Linear(channels, channels), nn.SiLU(), nn.Linear(channels, channels))

    def forward(self, t: Tensor) -> Tensor:
        """(b,) in [0, 1] -> (b, channels)."""
        waves = self.waves
        frequencies = torch.exp(torch.arange(waves, device=t.device) * (-math.log(1e4) / waves))
        angles = 1000 * t[:, None] * frequencies
        return self.net(torch.cat([angles.sin(), angles.cos()], dim=1))
