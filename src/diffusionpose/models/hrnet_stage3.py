"""HRNet cut after its third stage: what TransPose-H and TokenPose-L put their transformers on."""

from __future__ import annotations

from typing import Any

import timm
from torch import Tensor, nn

from diffusionpose.models.encoders import Encoder


class HRNetStage3Encoder(Encoder):
    """HRNet's high-resolution branch after stage 3 of 4: stride 4, 32 or 48 channels.

    Stage 4, the transition before it and the fusions that make the coarser branches at the end of
    stage 3 do not exist, so every parameter gets a gradient.

    Args:
        name: of a timm HRNet.
        pretrained: let timm download its ImageNet weights.
    """

    def __init__(self, name: str = "hrnet_w48", pretrained: bool = False) -> None:
        backbone: Any = timm.create_model(
            name, pretrained=pretrained, features_only=True, feature_location="", out_indices=(1,)
        )
        last = backbone.stage3[-1]
        last.fuse_layers = last.fuse_layers[:1]
        # an identity as the only transition hands on branch 0, one as stage 4 gives it back
        backbone.transition3 = nn.ModuleList([nn.Identity()])
        backbone.stage4 = nn.Identity()
        super().__init__(backbone, last.num_in_chs[0], stride=4)

    def forward(self, x: Tensor) -> Tensor:
        """(b, 3, H, W) normalised -> (b, c, H / 4, W / 4)."""
        return self.backbone(x)[0]
