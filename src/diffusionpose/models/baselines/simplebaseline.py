"""SimpleBaseline (Xiao et al., "Simple Baselines for Human Pose Estimation and Tracking", ECCV 2018)."""

from __future__ import annotations

from torch import nn

from diffusionpose.models.encoders import deconvolutions
from diffusionpose.models.heatmap_model import coarse_head


def deconvolution_head(channels: int, joints: int, layers: int = 3, width: int = 256) -> nn.Sequential:
    """SimpleBaseline's head: ``layers`` doublings by 4x4 deconvolutions, then a 1x1 convolution.

    Args:
        channels: of the encoder's feature, whose stride is 4 x 2 ** ``layers``.
        joints: J, channels of the heatmaps.
        layers: 3 on a ResNet (stride 32), 2 on a ViT (stride 16).
        width: channels of the deconvolutions.
    """
    return nn.Sequential(*deconvolutions(channels, width, layers), coarse_head(width, joints))
