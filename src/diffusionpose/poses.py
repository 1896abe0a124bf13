"""Pose: the keypoints of one person, in image pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from diffusionpose.errors import InputError
from diffusionpose.skeletons import Skeleton

if TYPE_CHECKING:
    import supervision

VISIBLE_SCORE = 0.2  # HRNet's in_vis_thre: a joint that scores less counts as not seen
MARGIN = 0.1  # joints lie inside the body; annotated boxes reach about so far beyond their extent


@dataclass(frozen=True, eq=False)
class Pose:
    """One person.

    Attributes:
        skeleton: names the joints.
        keypoints: (J, 2) float32, x and y in image pixels.
        scores: (J,) float32 in [0, 1], how sure the model is of each joint (the heatmap's maximum).
        box: (4,) float32, x0, y0, x1, y1 in image pixels: the person box the pose was found in.
        score: confidence of the whole pose.

    Raises:
        InputError: an array of another shape, or a number that is not finite.
    """

    skeleton: Skeleton
    keypoints: np.ndarray
    scores: np.ndarray
    box: np.ndarray
    score: float

    def __post_init__(self) -> None:
        joints = self.skeleton.num_joints
        for name, shape in (("keypoints", (joints, 2)), ("scores", (joints,)), ("box", (4,))):
            values = np.asarray(getattr(self, name), dtype=np.float32)
            if values.shape != shape:
                raise InputError(f"Pose.{name} has shape {values.shape}, the skeleton needs {shape}")
            if not np.isfinite(values).all():
                raise InputError(f"Pose.{name} holds a number that is not finite")
            object.__setattr__(self, name, values)

    @property
    def rounded_box(self) -> list[float]:
        """``box`` as files have it, to a hundredth of a pixel."""
        return [round(number, 2) for number in self.box.tolist()]

    def to_coco_result(self, image_id: int | str, category_id: int = 1) -> dict[str, Any]:
        """The pose as an entry of a COCO keypoint results file: flat x, y, score triplets."""
        triplets = np.column_stack([self.keypoints, self.scores]).astype(float)
        return {
            "image_id": image_id,
            "category_id": category_id,
            "keypoints": [round(number, 3) for number in triplets.ravel().tolist()],
            "score": float(self.score),
        }


def box_around(keypoints: np.ndarray, margin: float = MARGIN) -> np.ndarray:
    """The person box that (n, 2) keypoints suggest: their extent and ``margin`` times that on every side.

    Returns:
        (4,) float32, x0, y0, x1, y1; without area where the keypoints are on one spot.

    Raises:
        ValueError: no keypoint.
    """
    low, high = keypoints.min(axis=0), keypoints.max(axis=0)
    grown = margin * (high - low)
    return np.concatenate([low - grown, high + grown]).astype(np.float32)


def to_supervision(poses: Sequence[Pose]) -> supervision.KeyPoints:
    """Poses of one picture as ``supervision.KeyPoints``, for supervision's annotators and trackers.

    ``xy`` (n, J, 2) and ``keypoint_confidence`` (n, J) are keypoints and scores, ``detection_confidence``
    (n,) the scores of the poses, ``class_id`` 0 for a person. ``data`` has an entry for each person of
    ``class_name`` ("person"), ``box`` (n, 4), the xyxy boxes, for which KeyPoints has no place of its own,
    and ``joint_names`` (n, J).
    """
    import supervision

    if not poses:
        return supervision.KeyPoints.empty()
    return supervision.KeyPoints(
        xy=np.stack([pose.keypoints for pose in poses]),
        class_id=np.zeros(len(poses), int),
        keypoint_confidence=np.stack([pose.scores for pose in poses]),
        detection_confidence=np.array([pose.score for pose in poses], np.float32),
        data={
            "class_name": np.array(["person"] * len(poses)),
            "box": np.stack([pose.box for pose in poses]),
            "joint_names": np.array([pose.skeleton.joints for pose in poses]),
        },
    )


def pose_score(box_score: float, scores: np.ndarray, threshold: float = VISIBLE_SCORE) -> float:
    """The box's score times the mean of the (J,) keypoint scores above ``threshold``; 0 without any."""
    sure = scores[scores > threshold]
    return float(box_score) * float(sure.mean()) if sure.size else 0.0
