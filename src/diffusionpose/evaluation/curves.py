"""Accuracy by what counts as right, and joint by joint: where one method is better than another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from diffusionpose.data.annotations import annotations_in
from diffusionpose.data.persons import Annotations
from diffusionpose.evaluation.ap import ap_by_threshold
from diffusionpose.evaluation.comparison import rows_in_boxes
from diffusionpose.evaluation.pck import count_pose_joints
from diffusionpose.skeletons import Skeleton

Key = TypeVar("Key")
PCK_THRESHOLDS = tuple(round(0.05 * step, 2) for step in range(1, 11))  # of the torso


@dataclass(frozen=True)
class Curves:
    """What :func:`accuracy_curves` finds; all values in [0, 1].

    Attributes:
        ap: by OKS threshold, 0.50 to 0.95. Empty where no person counts.
        pck: over all joints, by distance as a share of the torso, 0.05 to 0.50. Empty, as ``joints``,
            where it is not known which pose is whose.
        joints: PCK at 0.2 of the torso by joint; those that are labelled.
    """

    ap: Mapping[float, float]
    pck: Mapping[float, float]
    joints: Mapping[str, float]


def accuracy_curves(
    annotations: Annotations | str | Path,
    results: Sequence[Mapping[str, Any]],
    skeleton: Skeleton | None = None,
) -> Curves:
    """AP by OKS threshold, PCK by distance, PCK of every joint.

    Arguments and errors as :func:`~diffusionpose.evaluation.ap.coco_metrics`; PCK needs a pose in every true
    box and the ``box`` of each, as ``diffusionpose evaluate`` writes them.
    """
    annotations = annotations_in(annotations, skeleton)
    ap = ap_by_threshold(annotations, results)
    labelled = annotations.labelled()
    rows = rows_in_boxes(labelled, results)
    if rows is None:
        return Curves(ap, {}, {})
    counts = {at: count_pose_joints(labelled, rows, at) for at in PCK_THRESHOLDS}
    pck = {at: each.value() for at, each in counts.items()}
    return Curves(ap, _known(pck), _known(counts[0.2].per_joint()))


def _known(values: Mapping[Key, float | None]) -> dict[Key, float]:
    return {key: value for key, value in values.items() if value is not None}
