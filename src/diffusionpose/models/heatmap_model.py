"""Heatmap models: an encoder and a head. HRNet and SimpleBaseline, the yardsticks, are such."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from diffusionpose.geometry.codec import HeatmapCodec
from diffusionpose.models.encoders import Encoder
from diffusionpose.models.pose_model import PoseModel, heatmap_loss
from diffusionpose.skeletons import Skeleton


class HeatmapModel(PoseModel):
    """head(E(x)) trained on Gaussian heatmaps (Xiao et al., ECCV 2018).

    Args:
        encoder: E.
        head: from the encoder's feature to (b, j, h, w) heatmaps of the codec's size.
        skeleton: J joints.
        codec: sizes and geometry of the heatmaps.
    """

    def __init__(self, encoder: Encoder, head: nn.Module, skeleton: Skeleton, codec: HeatmapCodec) -> None:
        super().__init__(encoder, skeleton, codec)
        self.head = head

    def forward(self, images: Tensor, **options: Any) -> Tensor:
        """(b, 3, H, W) RGB uint8 crops -> (b, j, h, w) heatmaps. ``steps`` and the like mean nothing here."""
        return self.head(self.encoder(self.normalise(images)))

    def loss(
        self, images: Tensor, keypoints: Tensor, visible: Tensor, noise: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        """As :meth:`PoseModel.loss`: one squared error."""
        hm_0 = self.codec.draw(self.codec.to_heatmap(keypoints))
        return {"loss": heatmap_loss(self(images), hm_0, visible)}


def nearly_zero(conv: nn.Conv2d) -> nn.Conv2d:
    """The same convolution, begun so that the first heatmaps are nearly empty, as the truth is."""
    nn.init.normal_(conv.weight, std=1e-3)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    return conv


def coarse_head(channels: int, joints: int) -> nn.Conv2d:
    """HRNet's head and the paper's conv (Eq. 10): a 1x1 convolution that begins near zero."""
    return nearly_zero(nn.Conv2d(channels, joints, 1))
