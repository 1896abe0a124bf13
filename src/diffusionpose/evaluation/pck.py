"""PCK: the share of labelled joints predicted within a part of the person's torso length."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from diffusionpose.data.persons import Annotations
from diffusionpose.errors import InputError
from diffusionpose.skeletons import Skeleton

TORSO_DIAGONALS = (("left_shoulder", "right_hip"), ("right_shoulder", "left_hip"))
LIMB_PARTS = ("shoulder", "elbow", "wrist", "hip", "knee", "ankle")
LIMB_JOINTS = tuple(f"{side}_{part}" for side in ("left", "right") for part in LIMB_PARTS)


@dataclass(frozen=True, eq=False)
class JointCounts:
    """Which joints of which persons count, and which of them are right.

    Attributes:
        skeleton: names the joints.
        correct: (n, J) bool; right and counted.
        counted: (n, J) bool; labelled, on a person whose torso is known.
    """

    skeleton: Skeleton
    correct: np.ndarray
    counted: np.ndarray

    @property
    def persons(self) -> int:
        """How many persons count: those with a torso length."""
        return int(self.counted.any(1).sum())

    def value(self, joints: Sequence[int] | None = None) -> float | None:
        """Share of right joints among the counted ones of all persons; None where none counts."""
        chosen = slice(None) if joints is None else list(joints)
        total = int(self.counted[:, chosen].sum())
        return float(self.correct[:, chosen].sum() / total) if total else None

    @property
    def limbs(self) -> tuple[int, ...]:
        """Indices of the 12 joints from shoulders to wrists and hips to ankles."""
        return limb_joints(self.skeleton)

    def per_joint(self) -> dict[str, float | None]:
        """PCK of every joint by its name; None for a joint never labelled."""
        return {joint: self.value([index]) for index, joint in enumerate(self.skeleton.joints)}

    def summary(self) -> dict[str, Any]:
        """What :func:`pck` returns."""
        return {
            "PCK": self.value(),
            "PCK_limbs": self.value(self.limbs),
            "per_joint": self.per_joint(),
            "persons": self.persons,
        }


def has_torso(skeleton: Skeleton) -> bool:
    """Whether the skeleton has the shoulders and hips that PCK measures the torso by."""
    return all(joint in skeleton.joints for diagonal in TORSO_DIAGONALS for joint in diagonal)


def limb_joints(skeleton: Skeleton) -> tuple[int, ...]:
    """Indices of those of the 12 limb joints that the skeleton has."""
    return tuple(index for index, joint in enumerate(skeleton.joints) if joint in LIMB_JOINTS)


def torso_lengths(truth: np.ndarray, visible: np.ndarray, skeleton: Skeleton) -> np.ndarray:
    """(n,) the longer labelled diagonal of left shoulder - right hip and right shoulder - left hip.

    Args:
        truth: (n, J, 2) true keypoints.
        visible: (n, J), above 0 where labelled.

    Returns:
        Lengths in the unit of ``truth``; NaN for a person without a labelled diagonal.
    """
    lengths = []
    for shoulder, hip in TORSO_DIAGONALS:
        a, b = skeleton.index(shoulder), skeleton.index(hip)
        length = np.linalg.norm(truth[:, a] - truth[:, b], axis=-1)
        labelled = (visible[:, a] > 0) & (visible[:, b] > 0)
        lengths.append(np.where(labelled, length, np.nan))
    return np.fmax(*lengths)


def count_joints(
    keypoints: np.ndarray,
    truth: np.ndarray,
    visible: np.ndarray,
    skeleton: Skeleton,
    threshold: float = 0.2,
) -> JointCounts:
    """Which joints of n persons PCK counts and finds right; see :func:`pck` for arguments and errors."""
    joints = skeleton.num_joints
    shapes = (np.shape(keypoints), np.shape(truth), (*np.shape(visible), 2))
    if len(set(shapes)) != 1 or shapes[0][1:] != (joints, 2):
        raise InputError(f"PCK needs (n, {joints}, 2), (n, {joints}, 2) and (n, {joints}); got {shapes}")
    truth = np.asarray(truth, dtype=np.float64)
    torso = torso_lengths(truth, np.asarray(visible), skeleton)[:, None]
    counted = (np.asarray(visible) > 0) & (torso > 0)
    distance = np.linalg.norm(np.asarray(keypoints, dtype=np.float64) - truth, axis=-1)
    return JointCounts(skeleton, counted & (distance <= threshold * torso), counted)


def count_pose_joints(
    persons: Annotations, rows: Sequence[Mapping[str, Any] | None], threshold: float = 0.2
) -> JointCounts:
    """The same of COCO results, one for each of ``persons``; without a pose all joints are wrong."""
    joints = persons.skeleton.num_joints
    nowhere = np.full((joints, 2), np.nan)
    keypoints = [nowhere if row is None else np.reshape(row["keypoints"], (joints, 3))[:, :2] for row in rows]
    return count_joints(
        np.reshape(keypoints, (-1, joints, 2)),
        np.reshape([person.keypoints for person in persons.persons], (-1, joints, 2)),
        np.reshape([person.visible for person in persons.persons], (-1, joints)),
        persons.skeleton,
        threshold,
    )


def pck(
    keypoints: np.ndarray,
    truth: np.ndarray,
    visible: np.ndarray,
    skeleton: Skeleton,
    threshold: float = 0.2,
) -> dict[str, Any]:
    """PCK of n persons: the share of joints at a distance of at most ``threshold`` times the torso.

    All joints of all persons are pooled. Persons without a labelled torso diagonal (or one of length
    0) are left out; a NaN prediction (no pose was found) counts as wrong.

    Args:
        keypoints: (n, J, 2) predicted.
        truth: (n, J, 2) true keypoints, same unit.
        visible: (n, J), above 0 where a joint is labelled.
        skeleton: J joints, among them shoulders and hips.
        threshold: share of the torso length.

    Returns:
        ``PCK`` over all labelled joints, ``PCK_limbs`` over the 12 limb joints, ``per_joint`` by name
        (None where nothing counts) and ``persons``, the number of persons counted.

    Raises:
        InputError: shapes that do not agree, or a skeleton without shoulders and hips.
    """
    return count_joints(keypoints, truth, visible, skeleton, threshold).summary()
