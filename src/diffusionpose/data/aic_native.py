"""AI Challenger's own annotation format.

A list of pictures, each with ``image_id``, ``keypoint_annotations`` {name: 14 x (x, y, flag)} and
``human_annotations`` {name: [x0, y0, x1, y1]}. Flag 1 is visible, 2 hidden, 3 not labelled: COCO's 2,
1 and 0. The picture's size is not given.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from diffusionpose.data.json_files import entries_with
from diffusionpose.data.persons import Annotations, ImageRecord, Person
from diffusionpose.errors import InputError
from diffusionpose.skeletons import AIC, Skeleton

VISIBLE_OF_FLAG = np.asarray([0, 2, 1, 0])


def annotations_from_aic(path: Path, content: list[Any], skeleton: Skeleton | None) -> Annotations:
    """Annotations from the native list; see :func:`diffusionpose.data.annotations.read_annotations`."""
    if skeleton not in (None, AIC):
        raise InputError(
            f"{path}: AI Challenger's native format, whose skeleton is always 'aic'; leave out --skeleton"
        )
    entries = entries_with(
        path, "the list", content, ("image_id", "keypoint_annotations", "human_annotations")
    )
    images: dict[int | str, ImageRecord] = {}
    persons: list[Person] = []
    dropped: list[str] = []
    for entry in entries:
        image_id = str(entry["image_id"])
        if image_id in images:
            raise InputError(f"{path}: the image {image_id} is listed twice; keep one of the two")
        images[image_id] = ImageRecord(image_id, f"{image_id}.jpg", 0, 0)
        for name, numbers in entry["keypoint_annotations"].items():
            where = f"{path}: image {image_id}, {name}"
            box = _box(where, entry["human_annotations"].get(name))
            if not (box[2:] > box[:2]).all():
                dropped.append(f"{where}: its box {box.tolist()} has no area")
                continue
            keypoints, visible = _keypoints(where, numbers)
            area = float(np.prod(box[2:] - box[:2]))
            persons.append(Person(image_id, len(persons) + 1, box, keypoints, visible, area))
    return Annotations(path, AIC, images, persons, dropped=dropped)


def _box(where: str, corners: Any) -> np.ndarray:
    if corners is None:
        raise InputError(f"{where}: has keypoints but no box in 'human_annotations'; add it")
    box = _numbers(where, corners)
    if box.shape != (4,):
        raise InputError(f"{where}: a box is x0, y0, x1, y1, not {corners}")
    return box


def _keypoints(where: str, numbers: Any) -> tuple[np.ndarray, np.ndarray]:
    triplets = _numbers(where, numbers)
    if triplets.shape != (3 * AIC.num_joints,):
        raise InputError(f"{where}: {triplets.size} keypoint numbers; the 14 joints need 42")
    triplets = triplets.reshape(-1, 3)
    flags = triplets[:, 2]
    if not np.isin(flags, (0, 1, 2, 3)).all():
        raise InputError(f"{where}: a flag other than 1 (visible), 2 (hidden), 3 (not labelled)")
    return triplets[:, :2].copy(), VISIBLE_OF_FLAG[flags.astype(np.int64)]


def _numbers(where: str, values: Any) -> np.ndarray:
    try:
        array = np.asarray(values, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise InputError(f"{where}: holds something that is no number ({error})") from error
    if not np.isfinite(array).all():
        raise InputError(
            f"{where}: a number is not finite (NaN); write 0, 0, 3 for a joint that is not labelled"
        )
    return array
