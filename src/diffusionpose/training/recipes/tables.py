"""Tables 2, 3 and 4 of the paper, row by row, as it prints them, and the recipe of each row.

Accuracies are percent: on COCO val2017 with the person boxes of the 56.4 AP detector (Table 2), on CrowdPose
with true boxes (Table 3), on AI Challenger's validation set with true boxes (Table 4).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

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
