"""A study that the paper does not have: how much of the lead over the baseline is diffusion's."""

from __future__ import annotations

from diffusionpose.training.studies.paper import BASELINE, FULL
from diffusionpose.training.studies.study import Study, Variant

HEADS = Study(
    name="heads",
    kind="table",
    title="Heads: how much is diffusion",
    column="from features to heatmaps",
    variants=(
        BASELINE,
        Variant("U-Net", "unet", head="unet"),
        Variant("decoder, no noise", "diffusionpose-own1", own_start=1.0),
        Variant("DiffusionPose", FULL.run, FULL.paper_ap, FULL.paper_ar),
    ),
    notes=(
        "Not a table of the paper. *U-Net*: DiffusionPose's decoder on the features alone, with one loss and "
        "no heatmaps to start from. *Decoder, no noise*: DiffusionPose trained as it is used, every person "
        "from the coarse heatmaps (own_start = 1) and none from noised truth; a cascade of two stages.",
    ),
)
