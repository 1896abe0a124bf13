"""Table 3: CrowdPose, ground-truth boxes, 14 joints.

The paper does not say which split it trains on; the field trains on trainval and reports test, so give
those files to compare with it.
"""

from __future__ import annotations

from dataclasses import replace

from diffusionpose.training.recipes import coco, coco_transformers
from diffusionpose.training.settings import TrainingSettings


def diffusionpose_w32_256x192_crowdpose() -> TrainingSettings:
    """``diffusionpose train diffusionpose_w32_256x192_crowdpose --devices 8 ...``: DiffusionPose on
    HRNet-W32, s = 4. Paper: 76.7 AP; easy 83.7, medium 77.6, hard 67.7.
    """
    return replace(
        coco.diffusionpose_w32_256x192_coco(),
        recipe="diffusionpose_w32_256x192_crowdpose",
        skeleton="crowdpose",
    )


def diffusionpose_w48_256x192_crowdpose() -> TrainingSettings:
    """``diffusionpose train diffusionpose_w48_256x192_crowdpose --devices 8 ...``: DiffusionPose on
    HRNet-W48, s = 4. Paper: 77.5 AP; easy 84.4, medium 78.5, hard 68.7.
    """
    return replace(
        coco.diffusionpose_w48_256x192_coco(),
        recipe="diffusionpose_w48_256x192_crowdpose",
        skeleton="crowdpose",
    )


def diffusionpose_w32_256x192_s2_crowdpose() -> TrainingSettings:
    """``diffusionpose train diffusionpose_w32_256x192_s2_crowdpose --devices 8 ...``: the same at s =
    2, C = 64, which the paper's accuracies may come from. Paper: 76.7 AP.
    """
    return replace(
        coco.diffusionpose_w32_256x192_s2_coco(),
        recipe="diffusionpose_w32_256x192_s2_crowdpose",
        skeleton="crowdpose",
    )


def diffusionpose_w48_256x192_s2_crowdpose() -> TrainingSettings:
    """``diffusionpose train diffusionpose_w48_256x192_s2_crowdpose --devices 8 ...``: HRNet-W48 at s =
    2, C = 64. Paper: 77.5 AP.
    """
    return replace(
        coco.diffusionpose_w48_256x192_s2_coco(),
        recipe="diffusionpose_w48_256x192_s2_crowdpose",
        skeleton="crowdpose",
    )


def hrnet_w32_256x192_crowdpose() -> TrainingSettings:
    """``diffusionpose train hrnet_w32_256x192_crowdpose --devices 8 ...``: the benchmark, HRNet-W32.
    Paper: 71.3 AP; easy 80.5, medium 71.4, hard 62.5.
    """
    return replace(coco.hrnet_w32_256x192_coco(), recipe="hrnet_w32_256x192_crowdpose", skeleton="crowdpose")


def transpose_h_256x192_crowdpose() -> TrainingSettings:
    """``diffusionpose train transpose_h_256x192_crowdpose --devices 8 ...``: TransPose-H on HRNet-W48.
    Paper: 71.8 AP; easy 79.5, medium 72.9, hard 62.2.
    """
    return replace(
        coco_transformers.transpose_h_256x192_coco(),
        recipe="transpose_h_256x192_crowdpose",
        skeleton="crowdpose",
    )


def hrformer_b_256x192_crowdpose() -> TrainingSettings:
    """``diffusionpose train hrformer_b_256x192_crowdpose --devices 8 ...``: HRFormer-B. Paper: 72.4 AP;
    easy 80.0, medium 73.5, hard 62.4.
    """
    return replace(
        coco_transformers.hrformer_b_256x192_coco(),
        recipe="hrformer_b_256x192_crowdpose",
        skeleton="crowdpose",
    )


RECIPES = (
    diffusionpose_w32_256x192_crowdpose,
    diffusionpose_w48_256x192_crowdpose,
    diffusionpose_w32_256x192_s2_crowdpose,
    diffusionpose_w48_256x192_s2_crowdpose,
    hrnet_w32_256x192_crowdpose,
    transpose_h_256x192_crowdpose,
    hrformer_b_256x192_crowdpose,
)
