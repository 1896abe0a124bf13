"""Table 4: AI Challenger validation, true boxes, 14 joints, COCO-style AP with AI Challenger's sigmas."""

from __future__ import annotations

from dataclasses import replace

from diffusionpose.training.recipes import coco, coco_transformers
from diffusionpose.training.settings import TrainingSettings


def diffusionpose_w32_256x192_aic() -> TrainingSettings:
    """``diffusionpose train diffusionpose_w32_256x192_aic --devices 8 ...``: DiffusionPose on
    HRNet-W32, s = 4. Paper: 34.7 AP.
    """
    return replace(
        coco.diffusionpose_w32_256x192_coco(), recipe="diffusionpose_w32_256x192_aic", skeleton="aic"
    )


def diffusionpose_w48_256x192_aic() -> TrainingSettings:
    """``diffusionpose train diffusionpose_w48_256x192_aic --devices 8 ...``: DiffusionPose on
    HRNet-W48, s = 4. Paper: 35.6 AP.
    """
    return replace(
        coco.diffusionpose_w48_256x192_coco(), recipe="diffusionpose_w48_256x192_aic", skeleton="aic"
    )


def diffusionpose_w32_256x192_s2_aic() -> TrainingSettings:
    """``diffusionpose train diffusionpose_w32_256x192_s2_aic --devices 8 ...``: the same at s = 2, C =
    64, which the paper's accuracies may come from. Paper: 34.7 AP.
    """
    return replace(
        coco.diffusionpose_w32_256x192_s2_coco(), recipe="diffusionpose_w32_256x192_s2_aic", skeleton="aic"
    )


def diffusionpose_w48_256x192_s2_aic() -> TrainingSettings:
    """``diffusionpose train diffusionpose_w48_256x192_s2_aic --devices 8 ...``: HRNet-W48 at s = 2, C =
    64. Paper: 35.6 AP.
    """
    return replace(
        coco.diffusionpose_w48_256x192_s2_coco(), recipe="diffusionpose_w48_256x192_s2_aic", skeleton="aic"
    )


def hrnet_w32_256x192_aic() -> TrainingSettings:
    """``diffusionpose train hrnet_w32_256x192_aic --devices 8 ...``: the benchmark, HRNet-W32. Paper:
    32.3 AP.
    """
    return replace(coco.hrnet_w32_256x192_coco(), recipe="hrnet_w32_256x192_aic", skeleton="aic")


def hrnet_w48_256x192_aic() -> TrainingSettings:
    """``diffusionpose train hrnet_w48_256x192_aic --devices 8 ...``: the benchmark, HRNet-W48. Paper:
    33.5 AP.
    """
    return replace(coco.hrnet_w48_256x192_coco(), recipe="hrnet_w48_256x192_aic", skeleton="aic")


def simplebaseline_r50_256x192_aic() -> TrainingSettings:
    """``diffusionpose train simplebaseline_r50_256x192_aic --devices 8 ...``: SimpleBaseline on
    ResNet-50. Paper: 28.0 AP.
    """
    return replace(
        hrnet_w32_256x192_aic(), recipe="simplebaseline_r50_256x192_aic", model="simplebaseline_r50"
    )


def simplebaseline_r101_256x192_aic() -> TrainingSettings:
    """``diffusionpose train simplebaseline_r101_256x192_aic --devices 8 ...``: SimpleBaseline on
    ResNet-101. Paper: 29.4 AP.
    """
    return replace(
        hrnet_w32_256x192_aic(), recipe="simplebaseline_r101_256x192_aic", model="simplebaseline_r101"
    )


def simplebaseline_r152_256x192_aic() -> TrainingSettings:
    """``diffusionpose train simplebaseline_r152_256x192_aic --devices 8 ...``: SimpleBaseline on
    ResNet-152. Paper: 29.9 AP.
    """
    return replace(
        hrnet_w32_256x192_aic(), recipe="simplebaseline_r152_256x192_aic", model="simplebaseline_r152"
    )


def hrformer_s_256x192_aic() -> TrainingSettings:
    """``diffusionpose train hrformer_s_256x192_aic --devices 8 ...``: HRFormer-S. Paper: 31.6 AP."""
    return replace(
        hrformer_b_256x192_aic(),
        recipe="hrformer_s_256x192_aic",
        model="hrformer_s",
        options={"quantise": True, "encoder": {"drop_path_rate": 0.1}},
    )


def hrformer_b_256x192_aic() -> TrainingSettings:
    """``diffusionpose train hrformer_b_256x192_aic --devices 8 ...``: HRFormer-B. Paper: 34.4 AP."""
    return replace(
        coco_transformers.hrformer_b_256x192_coco(), recipe="hrformer_b_256x192_aic", skeleton="aic"
    )


RECIPES = (
    diffusionpose_w32_256x192_aic,
    diffusionpose_w48_256x192_aic,
    diffusionpose_w32_256x192_s2_aic,
    diffusionpose_w48_256x192_s2_aic,
    hrnet_w32_256x192_aic,
    hrnet_w48_256x192_aic,
    simplebaseline_r50_256x192_aic,
    simplebaseline_r101_256x192_aic,
    simplebaseline_r152_256x192_aic,
    hrformer_s_256x192_aic,
    hrformer_b_256x192_aic,
)
