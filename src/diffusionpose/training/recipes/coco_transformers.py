"""The transformers of Table 2, ViTPose's other sizes, and DiffusionPose on encoders the paper does not have.

Each transformer is trained as its own publication does it, since the paper takes their numbers from there:
their optimisers and augmentation differ, and a vision transformer under plain Adam is not the yardstick it
can be. Boxes, crops, decoders and evaluation are those of all other recipes.
"""

from __future__ import annotations

from dataclasses import replace

from diffusionpose.training.recipes.coco import diffusionpose_w32_256x192_coco, hrnet_w32_256x192_coco
from diffusionpose.training.settings import TrainingSettings

WIDER = {"scale": 0.5, "rotation": 40.0}  # augmentation of the mmpose generation of methods


def tokenpose_l_256x192_coco() -> TrainingSettings:
    """``diffusionpose train tokenpose_l_256x192_coco --devices 8 ...``: TokenPose-L/D24 on three stages of
    HRNet-W48. Paper: 75.8 AP (28 M, 11 G). As published: Adam 1e-3, divided by 10 after 200 and 260 of
    300 epochs.
    """
    return replace(
        hrnet_w32_256x192_coco(),
        recipe="tokenpose_l_256x192_coco",
        model="tokenpose_l",
        epochs=300,
        learning_rate=1e-3,
        drops=(200, 260),
    )


def transpose_h_256x192_coco() -> TrainingSettings:
    """``diffusionpose train transpose_h_256x192_coco --devices 8 ...``: TransPose-H/A6 on three stages of
    HRNet-W48. Paper: 75.8 AP (18 M, 22 G). As published: Adam 1e-4 along a cosine over 240 epochs (theirs
    ends at a tenth of the rate, ours at a hundredth).
    """
    return replace(
        hrnet_w32_256x192_coco(),
        recipe="transpose_h_256x192_coco",
        model="transpose_h",
        epochs=240,
        learning_rate=1e-4,
        schedule="cosine",
    )


def hrformer_b_256x192_coco() -> TrainingSettings:
    """``diffusionpose train hrformer_b_256x192_coco --devices 8 ...``: HRFormer-B. Paper: 75.6 AP (43 M,
    14 G). As published: AdamW 5e-4, weight decay 0.01, 500 steps of warm-up, drop path 0.2.
    """
    return replace(
        hrnet_w32_256x192_coco(),
        recipe="hrformer_b_256x192_coco",
        model="hrformer_b",
        options={"quantise": True, "encoder": {"drop_path_rate": 0.2}},
        optimiser="adamw",
        weight_decay=0.01,
        warmup_steps=500,
        augmentation=WIDER,
    )


def hrformer_b_384x288_coco() -> TrainingSettings:
    """``diffusionpose train hrformer_b_384x288_coco --devices 8 ...``: HRFormer-B at 384x288. Paper: 77.2 AP
    (43 M, 29 G).
    """
    return replace(hrformer_b_256x192_coco(), recipe="hrformer_b_384x288_coco", input_size=(288, 384))


def vitpose_b_256x192_coco() -> TrainingSettings:
    """``diffusionpose train vitpose_b_256x192_coco --devices 8 ...``: ViTPose-B, classic decoder, UDP. Paper:
    75.8 AP (86 M, 22 G). As published: MAE weights, AdamW 5e-4, weight decay 0.1, each block at 0.75 of the
    rate of the block above, 500 steps of warm-up, drop path 0.3, gradients clipped at 1, 64 persons on each
    of 8 GPUs.
    """
    return replace(
        diffusionpose_w32_256x192_coco(),
        recipe="vitpose_b_256x192_coco",
        model="vitpose_b",
        options={"encoder": {"drop_path_rate": 0.3}},
        unbiased=True,
        decode="dark",
        batch_size=64,
        optimiser="adamw",
        weight_decay=0.1,
        layer_decay=0.75,
        warmup_steps=500,
        clip_norm=1.0,
        augmentation=WIDER,
    )


def vitpose_s_256x192_coco() -> TrainingSettings:
    """``diffusionpose train vitpose_s_256x192_coco --encoder-weights FILE --devices 8 ...``: ViTPose-S. Its
    own repository: 73.8 AP. Its MAE weights are its authors' (12 heads); timm has none that fit, so give
    the file.
    """
    return replace(
        vitpose_b_256x192_coco(),
        recipe="vitpose_s_256x192_coco",
        model="vitpose_s",
        options={"encoder": {"drop_path_rate": 0.1}},
        layer_decay=0.8,
    )


def vitpose_l_256x192_coco() -> TrainingSettings:
    """``diffusionpose train vitpose_l_256x192_coco --devices 8 ...``: ViTPose-L. Its own repository:
    78.3 AP.
    """
    return replace(
        vitpose_b_256x192_coco(),
        recipe="vitpose_l_256x192_coco",
        model="vitpose_l",
        options={"encoder": {"drop_path_rate": 0.5}},
        layer_decay=0.8,
    )


def vitpose_h_256x192_coco() -> TrainingSettings:
    """``diffusionpose train vitpose_h_256x192_coco --devices 8 ...``: ViTPose-H. Its own repository:
    79.1 AP.
    """
    return replace(
        vitpose_b_256x192_coco(),
        recipe="vitpose_h_256x192_coco",
        model="vitpose_h",
        options={"encoder": {"drop_path_rate": 0.55}},
        layer_decay=0.85,
    )


def diffusionpose_vit_s_256x192_coco() -> TrainingSettings:
    """``diffusionpose train diffusionpose_vit_s_256x192_coco --weights VITPOSE_S --devices 8 ...``:
    DiffusionPose on ViT-S: its coarse heatmaps are ViTPose-S with the classic decoder, so an imported
    ViTPose is the best start.
    """
    return replace(
        vitpose_s_256x192_coco(), recipe="diffusionpose_vit_s_256x192_coco", model="diffusionpose_vit_s"
    )


def diffusionpose_vit_b_256x192_coco() -> TrainingSettings:
    """``diffusionpose train diffusionpose_vit_b_256x192_coco --devices 8 ...``: DiffusionPose on ViT-B."""
    return replace(
        vitpose_b_256x192_coco(), recipe="diffusionpose_vit_b_256x192_coco", model="diffusionpose_vit_b"
    )


def diffusionpose_vit_l_256x192_coco() -> TrainingSettings:
    """``diffusionpose train diffusionpose_vit_l_256x192_coco --devices 8 ...``: DiffusionPose on ViT-L."""
    return replace(
        vitpose_l_256x192_coco(), recipe="diffusionpose_vit_l_256x192_coco", model="diffusionpose_vit_l"
    )


def diffusionpose_vit_h_256x192_coco() -> TrainingSettings:
    """``diffusionpose train diffusionpose_vit_h_256x192_coco --devices 8 ...``: DiffusionPose on ViT-H."""
    return replace(
        vitpose_h_256x192_coco(), recipe="diffusionpose_vit_h_256x192_coco", model="diffusionpose_vit_h"
    )


def diffusionpose_hrformer_b_256x192_coco() -> TrainingSettings:
    """``diffusionpose train diffusionpose_hrformer_b_256x192_coco --devices 8 ...``: DiffusionPose on
    HRFormer-B.
    """
    return replace(
        hrformer_b_256x192_coco(),
        recipe="diffusionpose_hrformer_b_256x192_coco",
        model="diffusionpose_hrformer_b",
        options={"encoder": {"drop_path_rate": 0.2}},
    )


def diffusionpose_resnet50_256x192_coco() -> TrainingSettings:
    """``diffusionpose train diffusionpose_resnet50_256x192_coco --devices 8 ...``: DiffusionPose on ResNet-50
    with a feature pyramid.
    """
    return replace(
        diffusionpose_w32_256x192_coco(),
        recipe="diffusionpose_resnet50_256x192_coco",
        model="diffusionpose_resnet50",
        options={},
    )


def diffusionpose_convnext_tiny_256x192_coco() -> TrainingSettings:
    """``diffusionpose train diffusionpose_convnext_tiny_256x192_coco --devices 8 ...``: DiffusionPose on
    ConvNeXt-T with a feature pyramid.
    """
    return replace(
        diffusionpose_w32_256x192_coco(),
        recipe="diffusionpose_convnext_tiny_256x192_coco",
        model="diffusionpose_convnext_tiny",
        options={"encoder": {"drop_path_rate": 0.1}},
        optimiser="adamw",
        weight_decay=0.05,
        warmup_steps=500,
    )


RECIPES = (
    tokenpose_l_256x192_coco,
    transpose_h_256x192_coco,
    hrformer_b_256x192_coco,
    hrformer_b_384x288_coco,
    vitpose_s_256x192_coco,
    vitpose_b_256x192_coco,
    vitpose_l_256x192_coco,
    vitpose_h_256x192_coco,
    diffusionpose_vit_s_256x192_coco,
    diffusionpose_vit_b_256x192_coco,
    diffusionpose_vit_l_256x192_coco,
    diffusionpose_vit_h_256x192_coco,
    diffusionpose_hrformer_b_256x192_coco,
    diffusionpose_resnet50_256x192_coco,
    diffusionpose_convnext_tiny_256x192_coco,
)
