"""MoveNet's network (Google, Apache-2.0): MobileNetV2 with a top-down pyramid at stride 4, without BatchNorm.

Architecture as its published release has it: every convolution pads as TensorFlow's "SAME" does (one of
stride 2 on an even side pads on the right and at the bottom only), ReLU6 inside MobileNetV2 (Sandler et
al., CVPR 2018) and ReLU after the pyramid's convolutions. BatchNorm is folded into the convolutions, so
that training goes on from the published weights without statistics of its own.

=========== ================================================================ ======
part        output                                                           stride
=========== ================================================================ ======
stem        3x3 convolution to c(32)                                         2
blocks      17 inverted residuals, stages (16, 24, 32, 64, 96, 160, 320)     2 .. 32
top         1x1 convolution to 1280                                          32
lateral     1x1 of blocks 2, 5, 9 and of top to 24, 32, 64, 64               4 .. 32
smooth      three times: bilinear x2, + next finer lateral, separable 3x3    4
=========== ================================================================ ======

c(n) is n times the width multiplier, to the nearest multiple of 8.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# (channels, blocks, stride) of each stage (MobileNetV2, Table 2)
STAGES = ((16, 1, 1), (24, 2, 2), (32, 3, 2), (64, 4, 2), (96, 3, 1), (160, 3, 2), (320, 1, 1))
EXPANSION = 6
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
        if not 0 <= frozen <= sum(count for _, count, _ in STAGES):
            raise ValueError(f"frozen {frozen}: MobileNetV2 has 17 blocks")
        self.frozen = frozen
        channels = _rounded(32 * width)
        self.stem = Convolution(3, channels, 3, stride=2)
        self.blocks = nn.ModuleList()
        outputs = []
        for stage, (base, count, stride) in enumerate(STAGES):
            for block in range(count):
                expansion = 1 if stage == 0 else EXPANSION
                self.blocks.append(
                    InvertedResidual(channels, _rounded(base * width), stride if block == 0 else 1, expansion)
                )
                channels = _rounded(base * width)
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
            x = F.relu6(self.stem(x))
        pyramid = []
        for number, block in enumerate(self.blocks):
            with torch.set_grad_enabled(torch.is_grad_enabled() and number >= self.frozen):
                x = block(x)
            if number in LATERAL_BLOCKS:
                pyramid.append(x)
        pyramid.append(F.relu6(self.top(x)))
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
        y = x if self.expand is None else F.relu6(self.expand(x))
        y = self.project(F.relu6(self.depthwise(y)))
        return x + y if self.residual else y


class Separable(nn.Module):
    """Depthwise 3x3 without bias or activation, pointwise 1x1, ReLU."""

    def __init__(self, channels: int, output: int) -> None:
        super().__init__()
        self.depthwise = Convolution(channels, channels, 3, groups=channels, bias=False)
        self.pointwise = Convolution(channels, output)

    def forward(self, x: Tensor) -> Tensor:
        """(b, channels, h, w) -> (b, output, h, w)."""
        return F.relu(self.pointwise(self.depthwise(x)))


class Convolution(nn.Module):
    """A convolution with TensorFlow's "SAME" padding, for even sides where the stride is 2."""

    def __init__(
        self, channels: int, output: int, kernel: int = 1, stride: int = 1, groups: int = 1, bias: bool = True
    ) -> None:
        super().__init__()
        same = (kernel - 1) // 2 if stride == 1 else 0
        self.conv = nn.Conv2d(channels, output, kernel, stride, padding=same, groups=groups, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """(b, channels, h, w) -> (b, output, h / stride, w / stride)."""
        return self.conv(F.pad(x, (0, 1, 0, 1)) if self.conv.stride[0] == 2 else x)


def _rounded(channels: float) -> int:
    return max(8, int(channels + 4) // 8 * 8)
