"""The mean pose: the same keypoints in every box, what a model must at least beat."""

from __future__ import annotations

from typing import Any

import numpy as np

from diffusionpose.data.annotations import Annotations
from diffusionpose.errors import InputError
from diffusionpose.evaluation.results import result_row


def learn_mean_pose(annotations: Annotations) -> np.ndarray:
    """Mean position of every joint relative to the box, over the labelled joints of ``annotations``.

    Args:
        annotations: a training set.

    Returns:
        (J, 2): x / box width and y / box height from the box's upper left corner. A joint that is
        never labelled stands in the middle of the box.

    Raises:
        InputError: no person has a labelled joint.
    """
    persons = annotations.labelled().persons
    if not persons:
        raise InputError(f"{annotations.path}: no person with a labelled joint to learn a mean pose from")
    boxes = np.stack([person.box for person in persons]).astype(np.float64)[:, None]
    keypoints = np.stack([person.keypoints for person in persons])
    labelled = (np.stack([person.visible for person in persons]) > 0)[..., None]
    relative = (keypoints - boxes[..., :2]) / (boxes[..., 2:] - boxes[..., :2])
    count = labelled.sum(0)
    total: np.ndarray = np.where(labelled, relative, 0).sum(0)
    return np.where(count > 0, total / np.maximum(count, 1), 0.5)


def predict_mean_pose(mean_pose: np.ndarray, annotations: Annotations) -> list[dict[str, Any]]:
    """The mean pose in the box of every person.

    Args:
        mean_pose: (J, 2) of :func:`learn_mean_pose`.
        annotations: persons with boxes; J joints.

    Returns:
        COCO keypoint results in the order of the persons; keypoint scores 1, ``score`` the box's.

    Raises:
        InputError: another number of joints.
    """
    if mean_pose.shape != (annotations.skeleton.num_joints, 2):
        raise InputError(
            f"a mean pose of shape {mean_pose.shape} does not fit {annotations.path}, "
            f"whose skeleton has {annotations.skeleton.num_joints} joints"
        )
    rows = []
    for person in annotations.persons:
        corner, size = person.box[:2], person.box[2:] - person.box[:2]
        keypoints = corner + mean_pose * size
        rows.append(result_row(annotations, person, keypoints, np.ones(len(keypoints))))
    return rows
