"""A U-Net head: the decoder of DiffusionPose with nothing to denoise. What a deeper head brings by itself."""

from __future__ import annotations

from torch import Tensor, nn

from diffusionpose.models.sgdd import StructureGuidedDecoder


class UNetHead(nn.Module):
    """The decoder (``models/sgdd.py``) of x_fea alone, its heatmaps left empty.

    Args:
        channels: of x_fea.
        joints: J.
        width: the decoder's C.
    """

    def __init__(self, channels: int, joints: int, width: int = 128) -> None:
        super().__init__()
        self.joints = joints
        self.decoder = StructureGuidedDecoder(joints, channels, width)

    def forward(self, x_fea: Tensor) -> Tensor:
        """(b, channels, h, w) -> (b, joints, h, w) heatmaps."""
        batch, _, height, width = x_fea.shape
        return self.decoder(x_fea.new_zeros(batch, self.joints, height, width), x_fea)
