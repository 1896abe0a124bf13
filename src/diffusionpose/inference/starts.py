"""Poses to start from, as callers of the estimator give them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from diffusionpose.errors import InputError
from diffusionpose.geometry.start import Start
from diffusionpose.poses import Pose, box_around
from diffusionpose.skeletons import Skeleton


def read_start(start: Any, skeleton: Skeleton, name: str) -> np.ndarray:
    """The persons of one picture to start from, (n, J, 3) float32 x, y in image pixels and score.

    Args:
        start: a sequence of :class:`Pose`, or an array (n, J, 3).
        skeleton: the model's.
        name: of the picture, for messages.

    Raises:
        InputError: another number of joints, numbers that are not finite, or negative scores.
    """
    joints = skeleton.num_joints
    try:
        persons = [
            np.column_stack([person.keypoints, person.scores]) if isinstance(person, Pose) else person
            for person in start
        ]
        triplets = np.asarray(persons, np.float32).reshape(len(persons), -1 if persons else joints, 3)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name}: start: no list of poses or of x, y, score triplets ({error})") from error
    if triplets.shape[1] != joints:
        raise InputError(
            f"{name}: start: {triplets.shape[1]} joints a person, but the model has {joints} "
            f"({skeleton.name}); give these"
        )
    try:
        batch_of_starts([(triplets, index) for index in range(len(triplets))])
    except InputError as error:
        raise InputError(f"{name}: {error}") from error
    return triplets


def boxes_of_start(start: Any, triplets: np.ndarray, name: str) -> np.ndarray:
    """The boxes (n, 4) float32 xyxy of persons to start from: a pose's own, else round its given joints.

    Raises:
        InputError: a person of whom no joint is given, and who has no box either.
    """
    boxes = []
    for index, (person, triplet) in enumerate(zip(start, triplets, strict=True)):
        given = triplet[:, 2] > 0
        if not isinstance(person, Pose) and not given.any():
            raise InputError(f"{name}: start: no joint of person {index} is given, and no box; give one")
        boxes.append(person.box if isinstance(person, Pose) else box_around(triplet[given, :2]))
    return np.reshape(boxes, (-1, 4)).astype(np.float32)


def batch_of_starts(persons: Sequence[tuple[np.ndarray | None, int]]) -> Start | None:
    """The start of persons that go through the network together; None where none of them has one.

    Args:
        persons: of each its picture's starts (n, J, 3), or None, and its index among them. One without a
            start has no joint given, and so starts from its coarse heatmaps.
    """
    shape = next((start.shape[1:] for start, _ in persons if start is not None), None)
    if shape is None:
        return None
    rows = [np.zeros(shape, np.float32) if start is None else start[index] for start, index in persons]
    triplets = torch.from_numpy(np.stack(rows))
    return Start(triplets[..., :2], triplets[..., 2])
