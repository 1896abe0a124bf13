"""Table 2: COCO val2017, person boxes of the 56.4 AP detector, 17 joints."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from diffusionpose.errors import InputError
from diffusionpose.training.settings import TrainingSettings


def diffusionpose_w32_256x192_coco() -> TrainingSettings:
    """``diffusionpose train diffusionpose_w32_256x192_coco --devices 8 ...``: DiffusionPose on
    HRNet-W32 as Table 2's cost column has it (38 M, 14 G: s = 4). Paper: 75.9 AP in Table 2, which is
    the s = 2 row of Table 6; for s = 4 Table 6 says 75.4.
    """
    return TrainingSettings(
        recipe="diffusionpose_w32_256x192_coco",
        model="diffusionpose_hrnet_w32",
        options={"stride": 4},
        skeleton="coco",
        input_size=(192, 256),
    )


def diffusionpose_w32_384x288_coco() -> TrainingSettings:
    """``diffusionpose train diffusionpose_w32_384x288_coco --devices 8 ...``: DiffusionPose on
    HRNet-W32 at 384x288, Table 2 (38 M, 31 G: s = 4). Paper: 77.1 AP.
    """
    return replace(
        diffusionpose_w32_256x192_coco(), recipe="diffusionpose_w32_384x288_coco", input_size=(288, 384)
    )


def diffusionpose_w48_256x192_coco() -> TrainingSettings:
    """``diffusionpose train diffusionpose_w48_256x192_coco --devices 8 ...``: DiffusionPose on
    HRNet-W48, Table 2 (74 M, 22 G: s = 4). Paper: 76.7 AP.
    """
    return replace(
        diffusionpose_w32_256x192_coco(),
        recipe="diffusionpose_w48_256x192_coco",
        model="diffusionpose_hrnet_w48",
    )


def diffusionpose_w48_384x288_coco() -> TrainingSettings:
    """``diffusionpose train diffusionpose_w48_384x288_coco --devices 8 ...``: DiffusionPose on
    HRNet-W48 at 384x288, Table 2 (74 M, 49 G: s = 4). Paper: 77.6 AP.
    """
    return replace(
        diffusionpose_w48_256x192_coco(), recipe="diffusionpose_w48_384x288_coco", input_size=(288, 384)
    )


def diffusionpose_w32_256x192_s2_coco() -> TrainingSettings:
    """``diffusionpose train diffusionpose_w32_256x192_s2_coco --devices 8 ...``: heatmaps at half the
    input's resolution, as the paper advises in section 4.4; C = 64 keeps the cost of Table 2 (31.1 M,
    14.1 G). Paper: 75.9 AP (Table 6, s = 2).
    """
    return replace(
        diffusionpose_w32_256x192_coco(),
        recipe="diffusionpose_w32_256x192_s2_coco",
        options={"stride": 2, "width": 64},
    )


def diffusionpose_w32_384x288_s2_coco() -> TrainingSettings:
    """``diffusionpose train diffusionpose_w32_384x288_s2_coco --devices 8 ...``: s = 2, C = 64 at
    384x288 (31.1 M, 31.8 G). Paper: 77.1 AP (Table 2).
    """
    return replace(
        diffusionpose_w32_256x192_s2_coco(), recipe="diffusionpose_w32_384x288_s2_coco", input_size=(288, 384)
    )


def diffusionpose_w48_256x192_s2_coco() -> TrainingSettings:
    """``diffusionpose train diffusionpose_w48_256x192_s2_coco --devices 8 ...``: s = 2, C = 64 on
    HRNet-W48 (66.2 M, 22.5 G). Paper: 76.7 AP (Table 2).
    """
    return replace(
        diffusionpose_w32_256x192_s2_coco(),
        recipe="diffusionpose_w48_256x192_s2_coco",
        model="diffusionpose_hrnet_w48",
    )


def diffusionpose_w48_384x288_s2_coco() -> TrainingSettings:
    """``diffusionpose train diffusionpose_w48_384x288_s2_coco --devices 8 ...``: s = 2, C = 64 on
    HRNet-W48 at 384x288 (66.2 M, 50.7 G). Paper: 77.6 AP (Table 2).
    """
    return replace(
        diffusionpose_w48_256x192_s2_coco(), recipe="diffusionpose_w48_384x288_s2_coco", input_size=(288, 384)
    )


def hrnet_w32_256x192_coco() -> TrainingSettings:
    """``diffusionpose train hrnet_w32_256x192_coco --devices 8 ...``: the benchmark, HRNet-W32 (29 M, 8
    G). Paper: 74.4 AP. The schedule is the paper's for DiffusionPose, so that the two are compared
    fairly; HRNet's own starts at 1e-3. Targets are drawn at whole pixels, as HRNet's are.
    """
    return replace(
        diffusionpose_w32_256x192_coco(),
        recipe="hrnet_w32_256x192_coco",
        model="hrnet_w32",
        options={"quantise": True},
    )


def hrnet_w32_384x288_coco() -> TrainingSettings:
    """``diffusionpose train hrnet_w32_384x288_coco --devices 8 ...``: HRNet-W32 at 384x288 (29 M, 18
    G). Paper: 75.8 AP.
    """
    return replace(hrnet_w32_256x192_coco(), recipe="hrnet_w32_384x288_coco", input_size=(288, 384))


def hrnet_w48_256x192_coco() -> TrainingSettings:
    """``diffusionpose train hrnet_w48_256x192_coco --devices 8 ...``: HRNet-W48 (64 M, 16 G). Paper:
    75.1 AP.
    """
    return replace(hrnet_w32_256x192_coco(), recipe="hrnet_w48_256x192_coco", model="hrnet_w48")


def hrnet_w48_384x288_coco() -> TrainingSettings:
    """``diffusionpose train hrnet_w48_384x288_coco --devices 8 ...``: HRNet-W48 at 384x288 (64 M, 36
    G). Paper: 76.3 AP.
    """
    return replace(hrnet_w48_256x192_coco(), recipe="hrnet_w48_384x288_coco", input_size=(288, 384))


def hrnet_w32_dark_384x288_coco() -> TrainingSettings:
    """``diffusionpose train hrnet_w32_dark_384x288_coco --devices 8 ...``: HRNet-W32 with DARK's
    decoder and targets at fractions of pixels (29 M, 18 G). Paper: 76.6 AP.
    """
    return replace(hrnet_w32_384x288_coco(), recipe="hrnet_w32_dark_384x288_coco", decode="dark", options={})


def hrnet_w48_dark_384x288_coco() -> TrainingSettings:
    """``diffusionpose train hrnet_w48_dark_384x288_coco --devices 8 ...``: HRNet-W48 with DARK's
    decoder and targets at fractions of pixels (64 M, 36 G). Paper: 76.8 AP.
    """
    return replace(hrnet_w48_384x288_coco(), recipe="hrnet_w48_dark_384x288_coco", decode="dark", options={})


def hrnet_w32_udp_dark_384x288_coco() -> TrainingSettings:
    """``diffusionpose train hrnet_w32_udp_dark_384x288_coco --devices 8 ...``: HRNet-W32, UDP's
    unbiased crops and DARK's decoder (29 M; the paper prints 16 G). Paper: 76.8 AP.
    """
    return replace(hrnet_w32_dark_384x288_coco(), recipe="hrnet_w32_udp_dark_384x288_coco", unbiased=True)


def hrnet_w48_udp_dark_384x288_coco() -> TrainingSettings:
    """``diffusionpose train hrnet_w48_udp_dark_384x288_coco --devices 8 ...``: HRNet-W48, UDP's
    unbiased crops and DARK's decoder (64 M, 36 G). Paper: 77.2 AP.
    """
    return replace(hrnet_w48_dark_384x288_coco(), recipe="hrnet_w48_udp_dark_384x288_coco", unbiased=True)


def simplebaseline_r152_256x192_coco() -> TrainingSettings:
    """``diffusionpose train simplebaseline_r152_256x192_coco --devices 8 ...``: SimpleBaseline on
    ResNet-152. Paper: 73.5 AP, 68 M and 29 G, which are the cost at 384x288; at 256x192
    SimpleBaseline's own paper has 68.6 M and 15.7 G.
    """
    return replace(
        hrnet_w32_256x192_coco(), recipe="simplebaseline_r152_256x192_coco", model="simplebaseline_r152"
    )


RECIPES_COCO = (
    diffusionpose_w32_256x192_coco,
    diffusionpose_w32_384x288_coco,
    diffusionpose_w48_256x192_coco,
    diffusionpose_w48_384x288_coco,
    diffusionpose_w32_256x192_s2_coco,
    diffusionpose_w32_384x288_s2_coco,
    diffusionpose_w48_256x192_s2_coco,
    diffusionpose_w48_384x288_s2_coco,
    hrnet_w32_256x192_coco,
    hrnet_w32_384x288_coco,
    hrnet_w48_256x192_coco,
    hrnet_w48_384x288_coco,
    hrnet_w32_dark_384x288_coco,
    hrnet_w48_dark_384x288_coco,
    hrnet_w32_udp_dark_384x288_coco,
    hrnet_w48_udp_dark_384x288_coco,
    simplebaseline_r152_256x192_coco,
)


# The transformers of Table 2, ViTPose's other sizes, and DiffusionPose on encoders the paper does not have

WIDER = {"scale": 0.5, "rotation": 40.0}  # augmentation of the mmpose generation of methods


def tokenpose_l_256x192_coco() -> TrainingSettings:
    """``diffusionpose train tokenpose_l_256x192_coco --devices 8 ...``: TokenPose-L/D24 on three stages of
    HRNet-W48. Paper: 75.8 AP (28 M, 11 G). As published: Adam 1e-3, divided by 10 after 200 and 260 of
    300 epochs (with 16 persons on each of 4 GPUs); DARK's decoder, targets at fractions of pixels.
    """
    return replace(
        hrnet_w32_256x192_coco(),
        recipe="tokenpose_l_256x192_coco",
        model="tokenpose_l",
        options={},
        decode="dark",
        epochs=300,
        learning_rate=1e-3,
        drops=(200, 260),
    )


def transpose_h_256x192_coco() -> TrainingSettings:
    """``diffusionpose train transpose_h_256x192_coco --devices 8 ...``: TransPose-H/A6 on three stages of
    HRNet-W48. Paper: 75.8 AP (18 M, 22 G). As published: drop-out 0.1, Adam 1e-4 along a cosine over 240
    epochs (theirs ends at a tenth of the rate, ours at a hundredth; theirs has 14 persons on each of 4
    GPUs); DARK's decoder, targets at fractions of pixels.
    """
    return replace(
        hrnet_w32_256x192_coco(),
        recipe="transpose_h_256x192_coco",
        model="transpose_h",
        options={"dropout": 0.1},
        decode="dark",
        epochs=240,
        learning_rate=1e-4,
        schedule="cosine",
    )


def hrformer_b_256x192_coco() -> TrainingSettings:
    """``diffusionpose train hrformer_b_256x192_coco --devices 8 ...``: HRFormer-B. Paper: 75.6 AP (43 M,
    14 G). As published: AdamW 5e-4, weight decay 0.01, 500 steps of warm-up, drop path 0.2; HRNet's decoder
    and targets.
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
    (43 M, 29 G). As published: drop path 0.3.
    """
    return replace(
        hrformer_b_256x192_coco(),
        recipe="hrformer_b_384x288_coco",
        input_size=(288, 384),
        options={"quantise": True, "encoder": {"drop_path_rate": 0.3}},
    )


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
    the file. Drop path and the rates of the blocks are mmpose's and those of the authors' simple decoder (0.1
    and 0.8); their file for the classic one has 0.3 and 0.9.
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


RECIPES_COCO_TRANSFORMERS = (
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


# Table 3: CrowdPose, ground-truth boxes, 14 joints


def diffusionpose_w32_256x192_crowdpose() -> TrainingSettings:
    """``diffusionpose train diffusionpose_w32_256x192_crowdpose --devices 8 ...``: DiffusionPose on
    HRNet-W32, s = 4. Paper: 76.7 AP; easy 83.7, medium 77.6, hard 67.7.
    """
    return replace(
        diffusionpose_w32_256x192_coco(),
        recipe="diffusionpose_w32_256x192_crowdpose",
        skeleton="crowdpose",
    )


def diffusionpose_w48_256x192_crowdpose() -> TrainingSettings:
    """``diffusionpose train diffusionpose_w48_256x192_crowdpose --devices 8 ...``: DiffusionPose on
    HRNet-W48, s = 4. Paper: 77.5 AP; easy 84.4, medium 78.5, hard 68.7.
    """
    return replace(
        diffusionpose_w48_256x192_coco(),
        recipe="diffusionpose_w48_256x192_crowdpose",
        skeleton="crowdpose",
    )


def diffusionpose_w32_256x192_s2_crowdpose() -> TrainingSettings:
    """``diffusionpose train diffusionpose_w32_256x192_s2_crowdpose --devices 8 ...``: the same at s =
    2, C = 64, which the paper's accuracies may come from. Paper: 76.7 AP.
    """
    return replace(
        diffusionpose_w32_256x192_s2_coco(),
        recipe="diffusionpose_w32_256x192_s2_crowdpose",
        skeleton="crowdpose",
    )


def diffusionpose_w48_256x192_s2_crowdpose() -> TrainingSettings:
    """``diffusionpose train diffusionpose_w48_256x192_s2_crowdpose --devices 8 ...``: HRNet-W48 at s =
    2, C = 64. Paper: 77.5 AP.
    """
    return replace(
        diffusionpose_w48_256x192_s2_coco(),
        recipe="diffusionpose_w48_256x192_s2_crowdpose",
        skeleton="crowdpose",
    )


def hrnet_w32_256x192_crowdpose() -> TrainingSettings:
    """``diffusionpose train hrnet_w32_256x192_crowdpose --devices 8 ...``: the benchmark, HRNet-W32.
    Paper: 71.3 AP; easy 80.5, medium 71.4, hard 62.5.
    """
    return replace(hrnet_w32_256x192_coco(), recipe="hrnet_w32_256x192_crowdpose", skeleton="crowdpose")


def transpose_h_256x192_crowdpose() -> TrainingSettings:
    """``diffusionpose train transpose_h_256x192_crowdpose --devices 8 ...``: TransPose-H on HRNet-W48.
    Paper: 71.8 AP; easy 79.5, medium 72.9, hard 62.2.
    """
    return replace(
        transpose_h_256x192_coco(),
        recipe="transpose_h_256x192_crowdpose",
        skeleton="crowdpose",
    )


def hrformer_b_256x192_crowdpose() -> TrainingSettings:
    """``diffusionpose train hrformer_b_256x192_crowdpose --devices 8 ...``: HRFormer-B. Paper: 72.4 AP;
    easy 80.0, medium 73.5, hard 62.4.
    """
    return replace(
        hrformer_b_256x192_coco(),
        recipe="hrformer_b_256x192_crowdpose",
        skeleton="crowdpose",
    )


RECIPES_CROWDPOSE = (
    diffusionpose_w32_256x192_crowdpose,
    diffusionpose_w48_256x192_crowdpose,
    diffusionpose_w32_256x192_s2_crowdpose,
    diffusionpose_w48_256x192_s2_crowdpose,
    hrnet_w32_256x192_crowdpose,
    transpose_h_256x192_crowdpose,
    hrformer_b_256x192_crowdpose,
)


# Table 4: AI Challenger validation, true boxes, 14 joints, COCO-style AP with AI Challenger's sigmas


def diffusionpose_w32_256x192_aic() -> TrainingSettings:
    """``diffusionpose train diffusionpose_w32_256x192_aic --devices 8 ...``: DiffusionPose on
    HRNet-W32, s = 4. Paper: 34.7 AP.
    """
    return replace(diffusionpose_w32_256x192_coco(), recipe="diffusionpose_w32_256x192_aic", skeleton="aic")


def diffusionpose_w48_256x192_aic() -> TrainingSettings:
    """``diffusionpose train diffusionpose_w48_256x192_aic --devices 8 ...``: DiffusionPose on
    HRNet-W48, s = 4. Paper: 35.6 AP.
    """
    return replace(diffusionpose_w48_256x192_coco(), recipe="diffusionpose_w48_256x192_aic", skeleton="aic")


def diffusionpose_w32_256x192_s2_aic() -> TrainingSettings:
    """``diffusionpose train diffusionpose_w32_256x192_s2_aic --devices 8 ...``: the same at s = 2, C =
    64, which the paper's accuracies may come from. Paper: 34.7 AP.
    """
    return replace(
        diffusionpose_w32_256x192_s2_coco(), recipe="diffusionpose_w32_256x192_s2_aic", skeleton="aic"
    )


def diffusionpose_w48_256x192_s2_aic() -> TrainingSettings:
    """``diffusionpose train diffusionpose_w48_256x192_s2_aic --devices 8 ...``: HRNet-W48 at s = 2, C =
    64. Paper: 35.6 AP.
    """
    return replace(
        diffusionpose_w48_256x192_s2_coco(), recipe="diffusionpose_w48_256x192_s2_aic", skeleton="aic"
    )


def hrnet_w32_256x192_aic() -> TrainingSettings:
    """``diffusionpose train hrnet_w32_256x192_aic --devices 8 ...``: the benchmark, HRNet-W32. Paper:
    32.3 AP.
    """
    return replace(hrnet_w32_256x192_coco(), recipe="hrnet_w32_256x192_aic", skeleton="aic")


def hrnet_w48_256x192_aic() -> TrainingSettings:
    """``diffusionpose train hrnet_w48_256x192_aic --devices 8 ...``: the benchmark, HRNet-W48. Paper:
    33.5 AP.
    """
    return replace(hrnet_w48_256x192_coco(), recipe="hrnet_w48_256x192_aic", skeleton="aic")


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
    return replace(hrformer_b_256x192_coco(), recipe="hrformer_b_256x192_aic", skeleton="aic")


RECIPES_AIC = (
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


# Trainings that a laptop finishes without a GPU; no row of the paper


def diffusionpose_mobilenetv2_128x96_crowdpose() -> TrainingSettings:
    """``diffusionpose train diffusionpose_mobilenetv2_128x96_crowdpose --encoder-weights
    mobilenetv2_100.safetensors ...``: DiffusionPose on MobileNetV2 with a small feature pyramid, 14
    joints: several small sets at once (``--images A B --annotations a.json b.json``), minutes an epoch
    for 8,000 persons on 2 cores.
    """
    return TrainingSettings(
        recipe="diffusionpose_mobilenetv2_128x96_crowdpose",
        model="diffusionpose_mobilenetv2",
        skeleton="crowdpose",
        options={"zeta": 0.1},  # noise of up to 10 px: the same share of a 32x24 map as 20 px of a 64x48 one
        input_size=(96, 128),
        unbiased=True,
        epochs=18,
        optimiser="adamw",
        learning_rate=1e-3,
        weight_decay=0.01,
        warmup_steps=250,
        schedule="cosine",
        clip_norm=1.0,
        ema_decay=0.998,
        decode="dark",
    )


def diffusionpose_mobilenetv2_192x144_crowdpose() -> TrainingSettings:
    """``diffusionpose train diffusionpose_mobilenetv2_192x144_crowdpose --encoder-weights
    mobilenetv2_100.safetensors ...``: the same at 192x144, at a bit over twice the time.
    """
    return replace(
        diffusionpose_mobilenetv2_128x96_crowdpose(),
        recipe="diffusionpose_mobilenetv2_192x144_crowdpose",
        input_size=(144, 192),
        options={"zeta": 0.067},  # the same share of a 48x36 map
    )


def mobilenetv2_128x96_crowdpose() -> TrainingSettings:
    """``diffusionpose train mobilenetv2_128x96_crowdpose --encoder-weights mobilenetv2_100.safetensors
    ...``: the yardstick of ``diffusionpose_mobilenetv2_128x96_crowdpose``: same encoder, pyramid, data,
    budget and seed, heatmaps by one convolution.
    """
    return replace(
        diffusionpose_mobilenetv2_128x96_crowdpose(),
        recipe="mobilenetv2_128x96_crowdpose",
        model="mobilenetv2",
        options={},
    )


def mobilenetv2_192x144_crowdpose() -> TrainingSettings:
    """``diffusionpose train mobilenetv2_192x144_crowdpose --encoder-weights mobilenetv2_100.safetensors
    ...``: the yardstick of ``diffusionpose_mobilenetv2_192x144_crowdpose``.
    """
    return replace(
        mobilenetv2_128x96_crowdpose(), recipe="mobilenetv2_192x144_crowdpose", input_size=(144, 192)
    )


def movenet_192x144_body() -> TrainingSettings:
    """``diffusionpose train movenet_192x144_body --encoder-weights movenet_thunder.fp16.safetensors ...``:
    heatmaps by one convolution on MoveNet's features, 19 joints (COCO's and CrowdPose's), for several data
    sets at once. The stem and the first blocks stay as they are.
    """
    return TrainingSettings(
        recipe="movenet_192x144_body",
        model="movenet",
        skeleton="coco+crowdpose",
        options={"encoder": {"frozen": 3}},
        input_size=(144, 192),
        unbiased=True,
        epochs=3,
        optimiser="adamw",
        learning_rate=5e-4,
        weight_decay=0.01,
        warmup_steps=100,
        schedule="cosine",
        clip_norm=1.0,
        ema_decay=0.998,
        decode="dark",
        augmentation={"rotation": 30.0},
    )


def movenet_256x192_body() -> TrainingSettings:
    """``diffusionpose train movenet_256x192_body --weights RUN ...``: the same at 256x192, from a run at 192x144."""
    return replace(
        movenet_192x144_body(),
        recipe="movenet_256x192_body",
        input_size=(192, 256),
        options={"encoder": {"frozen": 6}},
    )


def diffusionpose_movenet_256x192_body() -> TrainingSettings:
    """``diffusionpose train diffusionpose_movenet_256x192_body --weights RUN ...``: DiffusionPose (C = 32) from a
    run of ``movenet_256x192_body``; MobileNetV2's 17 blocks stay as they are.
    """
    return replace(
        movenet_256x192_body(),
        recipe="diffusionpose_movenet_256x192_body",
        model="diffusionpose_movenet",
        options={"encoder": {"frozen": 17}},
    )


def diffusionpose_tiny_synthetic() -> TrainingSettings:
    """``diffusionpose train diffusionpose_tiny_synthetic ...``: the tiny model, from scratch, on
    synthetic people (``diffusionpose.data.synthetic.write_synthetic``): a first try that needs no
    download and ends within minutes.
    """
    return replace(
        diffusionpose_mobilenetv2_128x96_crowdpose(),
        recipe="diffusionpose_tiny_synthetic",
        model="diffusionpose_tiny",
        pretrained=False,
        input_size=(64, 96),
        epochs=20,
        batch_size=16,
        learning_rate=2e-3,
        warmup_steps=50,
        ema_decay=0.99,
        augmentation={"scale": 0.2, "rotation": 20.0, "half_body": 0.0},
        flip=False,
    )


RECIPES_SMALL = (
    diffusionpose_mobilenetv2_128x96_crowdpose,
    diffusionpose_mobilenetv2_192x144_crowdpose,
    mobilenetv2_128x96_crowdpose,
    mobilenetv2_192x144_crowdpose,
    movenet_192x144_body,
    movenet_256x192_body,
    diffusionpose_movenet_256x192_body,
    diffusionpose_tiny_synthetic,
)


# Tables 2, 3 and 4 of the paper, row by row, as it prints them, and the recipe of each row

NOT_YET = "not yet"  # sees other persons or another model's pose, which no model here does


@dataclass(frozen=True)
class TableRow:
    """A row of the paper.

    Attributes:
        table: 2, 3 or 4.
        method, backbone: as printed.
        input_size: (width, height), pixels.
        accuracy: AP, AR and so on by name, percent, what the row has of it.
        parameters: millions; only Table 2 has them.
        multiply_adds: billions, which the paper calls FLOPs; only Table 2 has them.
        recipe: name of the recipe that trains it; None where there is none yet.
    """

    table: int
    method: str
    backbone: str
    input_size: tuple[int, int]
    accuracy: Mapping[str, float]
    parameters: int | None = None
    multiply_adds: int | None = None
    recipe: str | None = None


SMALL, LARGE = (192, 256), (288, 384)
CROWD = ("AP", "AP50", "AP75", "AR", "AR50", "AR75", "AP_E", "AP_M", "AP_H")


def _coco(
    method: str,
    backbone: str,
    cost: tuple[int, int],
    input_size: tuple[int, int],
    scores: tuple[float, float],
    recipe: str | None,
) -> TableRow:
    return TableRow(
        2,
        method,
        backbone,
        input_size,
        {"AP": scores[0], "AR": scores[1]},
        *cost,
        recipe and f"{recipe}_coco",
    )


def _crowdpose(method: str, backbone: str, scores: tuple[float | None, ...], recipe: str | None) -> TableRow:
    named = {name: score for name, score in zip(CROWD, scores, strict=True) if score is not None}
    return TableRow(3, method, backbone, SMALL, named, recipe=recipe and f"{recipe}_256x192_crowdpose")


def _aic(method: str, backbone: str, scores: tuple[float, ...], recipe: str) -> TableRow:
    named = dict(zip(("AP", "AP50", "AR", "AR50"), scores, strict=True))
    return TableRow(4, method, backbone, SMALL, named, recipe=f"{recipe}_256x192_aic")


TABLE_2 = (
    _coco("SimpleBaseline", "ResNet-152", (68, 29), SMALL, (73.5, 79.0), "simplebaseline_r152_256x192"),
    _coco("HRNet", "HRNet-W32", (29, 8), SMALL, (74.4, 78.9), "hrnet_w32_256x192"),
    _coco("HRNet", "HRNet-W32", (29, 18), LARGE, (75.8, 81.0), "hrnet_w32_384x288"),
    _coco("HRNet", "HRNet-W48", (64, 16), SMALL, (75.1, 80.4), "hrnet_w48_256x192"),
    _coco("HRNet", "HRNet-W48", (64, 36), LARGE, (76.3, 81.2), "hrnet_w48_384x288"),
    _coco("DARK", "HRNet-W32", (29, 18), LARGE, (76.6, 81.5), "hrnet_w32_dark_384x288"),
    _coco("DARK", "HRNet-W48", (64, 36), LARGE, (76.8, 81.7), "hrnet_w48_dark_384x288"),
    _coco("UDP + DARK", "HRNet-W32", (29, 16), LARGE, (76.8, 81.5), "hrnet_w32_udp_dark_384x288"),
    _coco("UDP + DARK", "HRNet-W48", (64, 36), LARGE, (77.2, 82.0), "hrnet_w48_udp_dark_384x288"),
    _coco("PoseFix", "W48 + Res-152", (132, 65), LARGE, (77.2, 82.0), None),
    _coco("TokenPose-L/D24", "HRNet-W48", (28, 11), SMALL, (75.8, 80.9), "tokenpose_l_256x192"),
    _coco("TransPose-H/A6", "HRNet-W48", (18, 22), SMALL, (75.8, 80.8), "transpose_h_256x192"),
    _coco("HRFormer-B", "HRFormer-B", (43, 14), SMALL, (75.6, 80.8), "hrformer_b_256x192"),
    _coco("HRFormer-B", "HRFormer-B", (43, 29), LARGE, (77.2, 82.0), "hrformer_b_384x288"),
    _coco("ViTPose-B (+UDP)", "ViT-B", (86, 22), SMALL, (75.8, 81.1), "vitpose_b_256x192"),
    _coco("DiffusionPose", "HRNet-W32", (38, 14), SMALL, (75.9, 81.1), "diffusionpose_w32_256x192"),
    _coco("DiffusionPose", "HRNet-W32", (38, 31), LARGE, (77.1, 81.8), "diffusionpose_w32_384x288"),
    _coco("DiffusionPose", "HRNet-W48", (74, 22), SMALL, (76.7, 81.7), "diffusionpose_w48_256x192"),
    _coco("DiffusionPose", "HRNet-W48", (74, 49), LARGE, (77.6, 82.4), "diffusionpose_w48_384x288"),
)

_NONE = (None, None, None)
TABLE_3 = (
    _crowdpose("OPEC-Net", "ResNet-101", (70.6, 86.8, 75.6, *_NONE, *_NONE), None),
    _crowdpose("HRNet", "HRNet-W32", (71.3, 91.1, 77.5, *_NONE, 80.5, 71.4, 62.5), "hrnet_w32"),
    _crowdpose(
        "TransPose-H", "HRNet-W48", (71.8, 91.5, 77.8, 75.2, 92.7, 80.4, 79.5, 72.9, 62.2), "transpose_h"
    ),
    _crowdpose(
        "HRFormer-B", "HRFormer-B", (72.4, 91.5, 77.9, 75.6, 92.7, 81.0, 80.0, 73.5, 62.4), "hrformer_b"
    ),
    _crowdpose("I2R-Net", "HRNet-W48", (72.3, 92.4, 77.9, 76.5, 93.2, 81.9, 79.9, 73.2, 62.8), None),
    _crowdpose("I2R-Net", "TransPose-H", (76.3, 93.5, 82.2, 79.1, 94.0, 84.4, 83.2, 77.0, 67.4), None),
    _crowdpose(
        "DiffusionPose",
        "HRNet-W32",
        (76.7, 93.5, 82.4, 79.5, 94.2, 84.9, 83.7, 77.6, 67.7),
        "diffusionpose_w32",
    ),
    _crowdpose(
        "DiffusionPose",
        "HRNet-W48",
        (77.5, 93.6, 83.5, 80.3, 94.5, 85.6, 84.4, 78.5, 68.7),
        "diffusionpose_w48",
    ),
)

TABLE_4 = (
    _aic("SimpleBaseline", "ResNet-50", (28.0, 71.6, 32.1, 74.1), "simplebaseline_r50"),
    _aic("SimpleBaseline", "ResNet-101", (29.4, 73.6, 33.7, 76.3), "simplebaseline_r101"),
    _aic("SimpleBaseline", "ResNet-152", (29.9, 73.8, 34.3, 76.9), "simplebaseline_r152"),
    _aic("HRNet", "HRNet-W32", (32.3, 76.2, 36.6, 78.9), "hrnet_w32"),
    _aic("HRNet", "HRNet-W48", (33.5, 78.0, 37.9, 80.0), "hrnet_w48"),
    _aic("HRFormer", "HRFormer-S", (31.6, 75.9, 35.8, 78.0), "hrformer_s"),
    _aic("HRFormer", "HRFormer-B", (34.4, 78.3, 38.7, 80.9), "hrformer_b"),
    _aic("DiffusionPose", "HRNet-W32", (34.7, 78.0, 39.4, 80.1), "diffusionpose_w32"),
    _aic("DiffusionPose", "HRNet-W48", (35.6, 79.1, 40.1, 81.1), "diffusionpose_w48"),
)

TABLES: dict[int, tuple[TableRow, ...]] = {2: TABLE_2, 3: TABLE_3, 4: TABLE_4}


def row_of(recipe: str) -> TableRow | None:
    """The row that a recipe trains, None for a recipe of no row."""
    return next((row for rows in TABLES.values() for row in rows if row.recipe == recipe), None)


# Recipes: one function per training, each returning frozen settings

Recipe = Callable[[], TrainingSettings]

RECIPES: dict[str, Recipe] = {
    recipe.__name__: recipe
    for group in (RECIPES_COCO, RECIPES_COCO_TRANSFORMERS, RECIPES_CROWDPOSE, RECIPES_AIC, RECIPES_SMALL)
    for recipe in group
}


def get_recipe(name: str) -> TrainingSettings:
    """The settings of a recipe by name; InputError with the nearest names for an unknown one."""
    if name not in RECIPES:
        near = difflib.get_close_matches(name, RECIPES, n=3, cutoff=0.3)
        raise InputError(
            f"no recipe {name!r}; nearest: {', '.join(near) or 'none'} ('diffusionpose models' lists all)"
        )
    return RECIPES[name]()
