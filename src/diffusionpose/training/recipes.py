"""Every training by name, as data: a recipe is its parent with entries replaced.

Below them Tables 2, 3 and 4 of the paper, row by row, and the recipe of each row. Needs no torch.
"""

from __future__ import annotations

import difflib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from diffusionpose.errors import InputError
from diffusionpose.training.settings import TrainingSettings

SMALL, LARGE = (192, 256), (288, 384)  # (width, height)
WIDER = {"scale": 0.5, "rotation": 40.0}  # augmentation of the mmpose generation of methods


def _new(**entries: Any) -> tuple[str, dict[str, Any]]:
    return "", entries


def _like(parent: str, **entries: Any) -> tuple[str, dict[str, Any]]:
    return parent, entries


def _drop_path(rate: float, **options: Any) -> dict[str, Any]:
    return {"options": {**options, "encoder": {"drop_path_rate": rate}}}


# The paper's numbers stand in the tables below; where it leaves the training of a method open, it is trained
# as its own publication does.
_RECIPES: dict[str, tuple[str, dict[str, Any]]] = {
    # COCO, 17 joints. DiffusionPose: Table 2's cost column is s = 4; its accuracies are Table 6's row s = 2
    # (W32: 75.9 AP; s = 4 has 75.4 there), which costs as much with C = 64.
    "diffusionpose_w32_256x192_coco": _new(
        model="diffusionpose_hrnet_w32", options={"stride": 4}, skeleton="coco", input_size=SMALL
    ),
    "diffusionpose_w32_384x288_coco": _like("diffusionpose_w32_256x192_coco", input_size=LARGE),
    "diffusionpose_w48_256x192_coco": _like(
        "diffusionpose_w32_256x192_coco", model="diffusionpose_hrnet_w48"
    ),
    "diffusionpose_w48_384x288_coco": _like("diffusionpose_w48_256x192_coco", input_size=LARGE),
    "diffusionpose_w32_256x192_s2_coco": _like(
        "diffusionpose_w32_256x192_coco", options={"stride": 2, "width": 64}
    ),
    "diffusionpose_w32_384x288_s2_coco": _like("diffusionpose_w32_256x192_s2_coco", input_size=LARGE),
    "diffusionpose_w48_256x192_s2_coco": _like(
        "diffusionpose_w32_256x192_s2_coco", model="diffusionpose_hrnet_w48"
    ),
    "diffusionpose_w48_384x288_s2_coco": _like("diffusionpose_w48_256x192_s2_coco", input_size=LARGE),
    # HRNet at the paper's schedule for DiffusionPose, so that the two are compared fairly (HRNet's own starts
    # at 1e-3); its targets stand at whole pixels, DARK's at fractions. UDP: the paper prints 16 G for W32.
    "hrnet_w32_256x192_coco": _like(
        "diffusionpose_w32_256x192_coco", model="hrnet_w32", options={"quantise": True}
    ),
    "hrnet_w32_384x288_coco": _like("hrnet_w32_256x192_coco", input_size=LARGE),
    "hrnet_w48_256x192_coco": _like("hrnet_w32_256x192_coco", model="hrnet_w48"),
    "hrnet_w48_384x288_coco": _like("hrnet_w48_256x192_coco", input_size=LARGE),
    "hrnet_w32_dark_384x288_coco": _like("hrnet_w32_384x288_coco", decode="dark", options={}),
    "hrnet_w48_dark_384x288_coco": _like("hrnet_w48_384x288_coco", decode="dark", options={}),
    "hrnet_w32_udp_dark_384x288_coco": _like("hrnet_w32_dark_384x288_coco", unbiased=True),
    "hrnet_w48_udp_dark_384x288_coco": _like("hrnet_w48_dark_384x288_coco", unbiased=True),
    # the paper prints 68 M and 29 G, which is the cost at 384x288; SimpleBaseline's own has 68.6 M and 15.7 G
    "simplebaseline_r152_256x192_coco": _like("hrnet_w32_256x192_coco", model="simplebaseline_r152"),
    # as published with 16 persons on each of 4 GPUs
    "tokenpose_l_256x192_coco": _like(
        "hrnet_w32_256x192_coco", model="tokenpose_l", options={}, decode="dark", epochs=300,
        learning_rate=1e-3, drops=(200, 260)
    ),
    # as published with 14 persons on each of 4 GPUs; its cosine ends at a tenth of the rate, ours at 1 %
    "transpose_h_256x192_coco": _like(
        "hrnet_w32_256x192_coco", model="transpose_h", options={"dropout": 0.1}, decode="dark", epochs=240,
        learning_rate=1e-4, schedule="cosine"
    ),
    "hrformer_b_256x192_coco": _like(
        "hrnet_w32_256x192_coco", model="hrformer_b", optimiser="adamw", weight_decay=0.01, warmup_steps=500,
        augmentation=WIDER, **_drop_path(0.2, quantise=True)
    ),
    "hrformer_b_384x288_coco": _like(
        "hrformer_b_256x192_coco", input_size=LARGE, **_drop_path(0.3, quantise=True)
    ),
    # refines poses of another model; as published, whose W48 poses the paper's row is of
    "posefix_r152_384x288_coco": _like(
        "diffusionpose_w32_384x288_coco", model="posefix_r152", options={}, epochs=140, drops=(90, 120),
        weight_decay=1e-5, augmentation={"scale": 0.3, "rotation": 40.0, "half_body": 0.0}, decode="dark"
    ),
    # ViTPose with the classic decoder from MAE weights, 64 persons on each of 8 GPUs. Its own repository has
    # 73.8 (S), 75.8 (B), 78.3 (L) and 79.1 AP (H). S: its MAE weights are its authors' (12 heads) and none of
    # timm's fit, so give --encoder-weights; drop path and layer decay are mmpose's and those of the authors'
    # simple decoder (their file for the classic one has 0.3 and 0.9).
    "vitpose_b_256x192_coco": _like(
        "diffusionpose_w32_256x192_coco", model="vitpose_b", unbiased=True, decode="dark", batch_size=64,
        optimiser="adamw", weight_decay=0.1, layer_decay=0.75, warmup_steps=500, clip_norm=1.0,
        augmentation=WIDER, **_drop_path(0.3)
    ),
    "vitpose_s_256x192_coco": _like(
        "vitpose_b_256x192_coco", model="vitpose_s", layer_decay=0.8, **_drop_path(0.1)
    ),
    "vitpose_l_256x192_coco": _like(
        "vitpose_b_256x192_coco", model="vitpose_l", layer_decay=0.8, **_drop_path(0.5)
    ),
    "vitpose_h_256x192_coco": _like(
        "vitpose_b_256x192_coco", model="vitpose_h", layer_decay=0.85, **_drop_path(0.55)
    ),
    # DiffusionPose on encoders that the paper does not have. Its coarse heatmaps on a vision transformer are
    # ViTPose with the classic decoder, so an imported ViTPose is the best --weights.
    "diffusionpose_vit_s_256x192_coco": _like("vitpose_s_256x192_coco", model="diffusionpose_vit_s"),
    "diffusionpose_vit_b_256x192_coco": _like("vitpose_b_256x192_coco", model="diffusionpose_vit_b"),
    "diffusionpose_vit_l_256x192_coco": _like("vitpose_l_256x192_coco", model="diffusionpose_vit_l"),
    "diffusionpose_vit_h_256x192_coco": _like("vitpose_h_256x192_coco", model="diffusionpose_vit_h"),
    "diffusionpose_hrformer_b_256x192_coco": _like(
        "hrformer_b_256x192_coco", model="diffusionpose_hrformer_b", **_drop_path(0.2)
    ),
    "diffusionpose_resnet50_256x192_coco": _like(
        "diffusionpose_w32_256x192_coco", model="diffusionpose_resnet50", options={}
    ),
    "diffusionpose_convnext_tiny_256x192_coco": _like(
        "diffusionpose_w32_256x192_coco", model="diffusionpose_convnext_tiny", optimiser="adamw",
        weight_decay=0.05, warmup_steps=500, **_drop_path(0.1)
    ),
    # CrowdPose and AI Challenger, 14 joints each: the same trainings
    **{
        f"{name}_{skeleton}": _like(f"{name}_coco", skeleton=skeleton)
        for skeleton in ("crowdpose", "aic")
        for name in (
            "diffusionpose_w32_256x192", "diffusionpose_w48_256x192", "diffusionpose_w32_256x192_s2",
            "diffusionpose_w48_256x192_s2", "hrnet_w32_256x192", "hrformer_b_256x192",
        )
    },
    "transpose_h_256x192_crowdpose": _like("transpose_h_256x192_coco", skeleton="crowdpose"),
    # As published: the vanilla version with 32 pictures on each GPU; the other with 4 of at most 6 persons,
    # from a trained TransPose-H of 4 layers (--weights; of one with 6 the first 4 are taken).
    "i2rnet_w48_256x192_crowdpose": _like("transpose_h_256x192_crowdpose", model="i2rnet_hrnet_w48"),
    "i2rnet_transpose_h_256x192_crowdpose": _like(
        "transpose_h_256x192_crowdpose", model="i2rnet_transpose_h"
    ),
    # Refines poses of another model, as published beside a heatmap model that is trained before and kept
    # as it is: give it by --weights. The rates are its authors', the warm-up is an epoch of theirs.
    "simplebaseline_r101_320x256_crowdpose": _like(
        "hrnet_w32_256x192_crowdpose", model="simplebaseline_r101", input_size=(256, 320)
    ),
    "opecnet_r101_320x256_crowdpose": _like(
        "simplebaseline_r101_320x256_crowdpose", model="opecnet_r101", options={}, decode="dark", epochs=25,
        learning_rate=1e-3, schedule="cosine", warmup_steps=1000, clip_norm=1.0
    ),
    "hrnet_w48_256x192_aic": _like("hrnet_w48_256x192_coco", skeleton="aic"),
    "simplebaseline_r50_256x192_aic": _like("hrnet_w32_256x192_aic", model="simplebaseline_r50"),
    "simplebaseline_r101_256x192_aic": _like("hrnet_w32_256x192_aic", model="simplebaseline_r101"),
    "simplebaseline_r152_256x192_aic": _like("hrnet_w32_256x192_aic", model="simplebaseline_r152"),
    "hrformer_s_256x192_aic": _like(
        "hrformer_b_256x192_aic", model="hrformer_s", **_drop_path(0.1, quantise=True)
    ),
    # Trainings that a laptop finishes without a GPU; no row of the paper. zeta keeps the noise's share of the
    # map: 20 px of a 64x48 map at zeta = 0.05 are 10 of 32x24. The heatmap models are the yardsticks.
    "diffusionpose_mobilenetv2_128x96_crowdpose": _new(
        model="diffusionpose_mobilenetv2", skeleton="crowdpose", options={"zeta": 0.1}, input_size=(96, 128),
        unbiased=True, epochs=18, optimiser="adamw", learning_rate=1e-3, weight_decay=0.01, warmup_steps=250,
        schedule="cosine", clip_norm=1.0, ema_decay=0.998, decode="dark"
    ),
    "diffusionpose_mobilenetv2_192x144_crowdpose": _like(
        "diffusionpose_mobilenetv2_128x96_crowdpose", input_size=(144, 192), options={"zeta": 0.067}
    ),
    "mobilenetv2_128x96_crowdpose": _like(
        "diffusionpose_mobilenetv2_128x96_crowdpose", model="mobilenetv2", options={}
    ),
    "posefix_mobilenetv2_128x96_crowdpose": _like(
        "mobilenetv2_128x96_crowdpose", model="posefix_mobilenetv2"
    ),
    "opecnet_mobilenetv2_128x96_crowdpose": _like(
        "mobilenetv2_128x96_crowdpose", model="opecnet_mobilenetv2"
    ),
    "i2rnet_mobilenetv2_128x96_crowdpose": _like(
        "mobilenetv2_128x96_crowdpose", model="i2rnet_mobilenetv2"
    ),
    "mobilenetv2_192x144_crowdpose": _like("mobilenetv2_128x96_crowdpose", input_size=(144, 192)),
    # From MoveNet's weights (--encoder-weights, then --weights RUN), 19 joints: COCO's and CrowdPose's,
    # several data sets at once. MobileNetV2's first blocks stay as they are; under DiffusionPose all 17.
    "movenet_192x144_body": _new(
        model="movenet", skeleton="coco+crowdpose", options={"encoder": {"frozen": 3}},
        input_size=(144, 192), unbiased=True, epochs=3, optimiser="adamw", learning_rate=5e-4,
        weight_decay=0.01, warmup_steps=100, schedule="cosine", clip_norm=1.0, ema_decay=0.998, decode="dark",
        augmentation={"rotation": 30.0}
    ),
    "movenet_256x192_body": _like(
        "movenet_192x144_body", input_size=SMALL, options={"encoder": {"frozen": 6}}
    ),
    "diffusionpose_movenet_256x192_body": _like(
        "movenet_256x192_body", model="diffusionpose_movenet", options={"encoder": {"frozen": 17}}
    ),
    "i2rnet_movenet_256x192_body": _like("diffusionpose_movenet_256x192_body", model="i2rnet_movenet"),
    # from scratch on synthetic people (diffusionpose.data.synthetic): a first try without any download
    "diffusionpose_tiny_synthetic": _like(
        "diffusionpose_mobilenetv2_128x96_crowdpose", model="diffusionpose_tiny", pretrained=False,
        input_size=(64, 96), epochs=20, batch_size=16, learning_rate=2e-3, warmup_steps=50, ema_decay=0.99,
        flip=False, augmentation={"scale": 0.2, "rotation": 20.0, "half_body": 0.0}
    ),
    "posefix_tiny_synthetic": _like("diffusionpose_tiny_synthetic", model="posefix_tiny", options={}),
    "opecnet_tiny_synthetic": _like("diffusionpose_tiny_synthetic", model="opecnet_tiny", options={}),
    "i2rnet_tiny_synthetic": _like("diffusionpose_tiny_synthetic", model="i2rnet_tiny", options={}),
}  # fmt: skip


def _settings(name: str) -> TrainingSettings:
    parent, entries = _RECIPES[name]
    if not parent:
        return TrainingSettings(recipe=name, **entries)
    return replace(_settings(parent), recipe=name, **entries)


RECIPES: dict[str, TrainingSettings] = {name: _settings(name) for name in _RECIPES}


def get_recipe(name: str) -> TrainingSettings:
    """The settings of a recipe.

    Args:
        name: of a recipe, or a JSON file of settings, such as the ``settings.json`` of a run.

    Raises:
        InputError: an unknown name (the nearest ones are told), or a file that holds no settings.
    """
    if name.endswith(".json"):
        try:
            entries = json.loads(Path(name).read_text())
            return TrainingSettings.from_dict(entries.get("settings", entries))
        except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
            raise InputError(f"{name}: no settings of a training ({error}); check the path") from error
    if name not in RECIPES:
        near = difflib.get_close_matches(name, RECIPES, n=3, cutoff=0.3)
        raise InputError(
            f"no recipe {name!r}; nearest: {', '.join(near) or 'none'} ('diffusionpose models' lists all)"
        )
    return RECIPES[name]


# Tables 2, 3 and 4 as the paper prints them

_METRICS = {
    2: ("AP", "AR"),
    3: ("AP", "AP50", "AP75", "AR", "AR50", "AR75", "AP_E", "AP_M", "AP_H"),
    4: ("AP", "AP50", "AR", "AR50"),
}


@dataclass(frozen=True)
class TableRow:
    """A row of the paper, as printed."""

    table: int
    method: str
    backbone: str
    scores: tuple[float | None, ...]  # percent
    recipe: str  # that trains it
    parameters: int | None = None  # millions; only Table 2 has them
    multiply_adds: int | None = None  # billions, which the paper calls FLOPs
    input_size: tuple[int, int] = SMALL
    refined: str | None = None  # recipe of the model whose poses are refined; the row's costs are of both

    @property
    def accuracy(self) -> dict[str, float]:
        """AP, AR and so on by name, what the row has of it."""
        named = zip(_METRICS[self.table], self.scores, strict=True)
        return {name: score for name, score in named if score is not None}


TABLE_2 = (  # Table 2: COCO val2017, person boxes of the 56.4 AP detector
    # method, backbone, (AP, AR), recipe, M parameters, G multiply-adds
    TableRow(2, "SimpleBaseline", "ResNet-152", (73.5, 79.0), "simplebaseline_r152_256x192_coco", 68, 29),
    TableRow(2, "HRNet", "HRNet-W32", (74.4, 78.9), "hrnet_w32_256x192_coco", 29, 8),
    TableRow(2, "HRNet", "HRNet-W32", (75.8, 81.0), "hrnet_w32_384x288_coco", 29, 18, LARGE),
    TableRow(2, "HRNet", "HRNet-W48", (75.1, 80.4), "hrnet_w48_256x192_coco", 64, 16),
    TableRow(2, "HRNet", "HRNet-W48", (76.3, 81.2), "hrnet_w48_384x288_coco", 64, 36, LARGE),
    TableRow(2, "DARK", "HRNet-W32", (76.6, 81.5), "hrnet_w32_dark_384x288_coco", 29, 18, LARGE),
    TableRow(2, "DARK", "HRNet-W48", (76.8, 81.7), "hrnet_w48_dark_384x288_coco", 64, 36, LARGE),
    TableRow(2, "UDP + DARK", "HRNet-W32", (76.8, 81.5), "hrnet_w32_udp_dark_384x288_coco", 29, 16, LARGE),
    TableRow(2, "UDP + DARK", "HRNet-W48", (77.2, 82.0), "hrnet_w48_udp_dark_384x288_coco", 64, 36, LARGE),
    TableRow(2, "PoseFix", "W48 + Res-152", (77.2, 82.0), "posefix_r152_384x288_coco", 132, 65, LARGE,
             refined="hrnet_w48_384x288_coco"),
    TableRow(2, "TokenPose-L/D24", "HRNet-W48", (75.8, 80.9), "tokenpose_l_256x192_coco", 28, 11),
    TableRow(2, "TransPose-H/A6", "HRNet-W48", (75.8, 80.8), "transpose_h_256x192_coco", 18, 22),
    TableRow(2, "HRFormer-B", "HRFormer-B", (75.6, 80.8), "hrformer_b_256x192_coco", 43, 14),
    TableRow(2, "HRFormer-B", "HRFormer-B", (77.2, 82.0), "hrformer_b_384x288_coco", 43, 29, LARGE),
    TableRow(2, "ViTPose-B (+UDP)", "ViT-B", (75.8, 81.1), "vitpose_b_256x192_coco", 86, 22),
    TableRow(2, "DiffusionPose", "HRNet-W32", (75.9, 81.1), "diffusionpose_w32_256x192_coco", 38, 14),
    TableRow(2, "DiffusionPose", "HRNet-W32", (77.1, 81.8), "diffusionpose_w32_384x288_coco", 38, 31, LARGE),
    TableRow(2, "DiffusionPose", "HRNet-W48", (76.7, 81.7), "diffusionpose_w48_256x192_coco", 74, 22),
    TableRow(2, "DiffusionPose", "HRNet-W48", (77.6, 82.4), "diffusionpose_w48_384x288_coco", 74, 49, LARGE),
)  # fmt: skip

_N = None
TABLE_3 = (  # Table 3: CrowdPose, true boxes
    # method, backbone, (AP, AP50, AP75, AR, AR50, AR75, easy, medium, hard), recipe
    TableRow(
        3, "OPEC-Net", "ResNet-101", (70.6, 86.8, 75.6, _N, _N, _N, _N, _N, _N),
        "opecnet_r101_320x256_crowdpose", input_size=(256, 320),
    ),
    TableRow(
        3, "HRNet", "HRNet-W32", (71.3, 91.1, 77.5, _N, _N, _N, 80.5, 71.4, 62.5),
        "hrnet_w32_256x192_crowdpose",
    ),
    TableRow(
        3, "TransPose-H", "HRNet-W48", (71.8, 91.5, 77.8, 75.2, 92.7, 80.4, 79.5, 72.9, 62.2),
        "transpose_h_256x192_crowdpose",
    ),
    TableRow(
        3, "HRFormer-B", "HRFormer-B", (72.4, 91.5, 77.9, 75.6, 92.7, 81.0, 80.0, 73.5, 62.4),
        "hrformer_b_256x192_crowdpose",
    ),
    TableRow(
        3, "I2R-Net", "HRNet-W48", (72.3, 92.4, 77.9, 76.5, 93.2, 81.9, 79.9, 73.2, 62.8),
        "i2rnet_w48_256x192_crowdpose",
    ),
    TableRow(
        3, "I2R-Net", "TransPose-H", (76.3, 93.5, 82.2, 79.1, 94.0, 84.4, 83.2, 77.0, 67.4),
        "i2rnet_transpose_h_256x192_crowdpose",
    ),
    TableRow(
        3, "DiffusionPose", "HRNet-W32", (76.7, 93.5, 82.4, 79.5, 94.2, 84.9, 83.7, 77.6, 67.7),
        "diffusionpose_w32_256x192_crowdpose",
    ),
    TableRow(
        3, "DiffusionPose", "HRNet-W48", (77.5, 93.6, 83.5, 80.3, 94.5, 85.6, 84.4, 78.5, 68.7),
        "diffusionpose_w48_256x192_crowdpose",
    ),
)  # fmt: skip

TABLE_4 = (  # Table 4: AI Challenger validation, true boxes
    # method, backbone, (AP, AP50, AR, AR50), recipe
    TableRow(4, "SimpleBaseline", "ResNet-50", (28.0, 71.6, 32.1, 74.1), "simplebaseline_r50_256x192_aic"),
    TableRow(4, "SimpleBaseline", "ResNet-101", (29.4, 73.6, 33.7, 76.3), "simplebaseline_r101_256x192_aic"),
    TableRow(4, "SimpleBaseline", "ResNet-152", (29.9, 73.8, 34.3, 76.9), "simplebaseline_r152_256x192_aic"),
    TableRow(4, "HRNet", "HRNet-W32", (32.3, 76.2, 36.6, 78.9), "hrnet_w32_256x192_aic"),
    TableRow(4, "HRNet", "HRNet-W48", (33.5, 78.0, 37.9, 80.0), "hrnet_w48_256x192_aic"),
    TableRow(4, "HRFormer", "HRFormer-S", (31.6, 75.9, 35.8, 78.0), "hrformer_s_256x192_aic"),
    TableRow(4, "HRFormer", "HRFormer-B", (34.4, 78.3, 38.7, 80.9), "hrformer_b_256x192_aic"),
    TableRow(4, "DiffusionPose", "HRNet-W32", (34.7, 78.0, 39.4, 80.1), "diffusionpose_w32_256x192_aic"),
    TableRow(4, "DiffusionPose", "HRNet-W48", (35.6, 79.1, 40.1, 81.1), "diffusionpose_w48_256x192_aic"),
)

TABLES: dict[int, tuple[TableRow, ...]] = {2: TABLE_2, 3: TABLE_3, 4: TABLE_4}


def row_of(recipe: str) -> TableRow | None:
    """The row that a recipe trains, None for a recipe of no row."""
    return next((row for rows in TABLES.values() for row in rows if row.recipe == recipe), None)
