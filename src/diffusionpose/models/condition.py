"""Conditions x_c of the decoder: Eq. 6 and 7, and the lesser ones of Table 5.

Each takes the image feature x_fea and keypoints y and gives x_c; ``channels`` tells how many
channels x_c has. Both algorithms of the paper use the same condition.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from diffusionpose.geometry.masks import keypoint_mask, skeleton_mask
from diffusionpose.models.attention import SpatialChannelCrossAttention


class Condition(nn.Module):
    """What the conditions share: ``channels`` of x_c, and the arguments of ``forward``."""

    channels: int

    def forward(self, x_fea: Tensor, y: Tensor, visible: Tensor) -> Tensor:
        """x_fea (b, c, h, w), y (b, j, 2) heatmap pixels, visible (b, j) -> (b, channels, h, w)."""
        raise NotImplementedError


class FeatureCondition(Condition):
    """x_c = x_fea: the features only (Table 5, first row)."""

    def __init__(self, feature_channels: int) -> None:
        super().__init__()
        self.channels = feature_channels

    def forward(self, x_fea: Tensor, y: Tensor, visible: Tensor) -> Tensor:
        """As :meth:`Condition.forward`."""
        return x_fea


class KeypointCondition(Condition):
    """x_c = C(x_fea, x_kps): features and those around the keypoints (Table 5, second row)."""

    def __init__(self, feature_channels: int, delta_kps: float) -> None:
        super().__init__()
        self.channels = 2 * feature_channels
        self.delta_kps = delta_kps

    def forward(self, x_fea: Tensor, y: Tensor, visible: Tensor) -> Tensor:
        """As :meth:`Condition.forward`."""
        x_kps = x_fea * keypoint_mask(y, _size(x_fea), self.delta_kps, visible)
        return torch.cat([x_fea, x_kps], dim=1)


class StructureCondition(Condition):
    """x_c = C(x_kps + A(x_kps, x_ske, x_ske), x_fea) (Eq. 6 and 7; Table 5, third row).

    Args:
        feature_channels: of x_fea.
        limbs: ``Skeleton.limbs``.
        delta_kps: radius of the keypoint mask, heatmap pixels (Eq. 5).
        delta_ske: half width of the skeleton mask, heatmap pixels (Eq. 5).
    """

    def __init__(
        self, feature_channels: int, limbs: Sequence[tuple[int, int]], delta_kps: float, delta_ske: float
    ) -> None:
        super().__init__()
        self.channels = 2 * feature_channels
        self.limbs = tuple(limbs)
        self.delta_kps = delta_kps
        self.delta_ske = delta_ske
        self.attention = SpatialChannelCrossAttention(feature_channels)

    def forward(self, x_fea: Tensor, y: Tensor, visible: Tensor) -> Tensor:
        """As :meth:`Condition.forward`."""
        m_kps = keypoint_mask(y, _size(x_fea), self.delta_kps, visible)
        m_ske = skeleton_mask(y, self.limbs, _size(x_fea), self.delta_ske, visible)
        x_kps, x_ske = x_fea * m_kps, x_fea * m_ske  # Eq. 6
        return torch.cat([x_kps + self.attention(x_kps, x_ske, x_ske), x_fea], dim=1)  # Eq. 7


def _size(feature: Tensor) -> tuple[int, int]:
    return feature.shape[-1], feature.shape[-2]
