"""AI Challenger's own annotation format.

A list of pictures, each with ``image_id``, ``keypoint_annotations`` {name: 14 x (x, y, flag)} and
``human_annotations`` {name: [x0, y0, x1, y1]}. Flag 1 is visible, 2 hidden, 3 not labelled: COCO's 2,
1 and 0. The picture's size is not given.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from diffusionpose.data.faults import Fault, Faults
from diffusionpose.data.json_files import complete_entries
from diffusionpose.data.listing import LARGEST, Listing
from diffusionpose.data.persons import ImageRecord
from diffusionpose.errors import InputError
from diffusionpose.skeletons import AIC, Skeleton

VISIBLE_OF_FLAG = np.asarray([0, 2, 1, 0])
KEYS = ("image_id", "keypoint_annotations", "human_annotations")


class _FaultyPersonError(Exception):
    """A person that cannot be used: the kind of fault, what is wrong, the cure."""


def listing_from_aic(path: Path, content: list[Any], skeleton: Skeleton | None, faults: Faults) -> Listing:
    """What the native list lists; see :func:`diffusionpose.data.annotations.read_listing`."""
    if skeleton not in (None, AIC):
        raise InputError(
            f"{path}: AI Challenger's native format, whose skeleton is always 'aic'; leave out --skeleton"
        )
    records: dict[int | str, ImageRecord] = {}
    names: list[str] = []
    image_ids: list[int | str] = []
    boxes, triplets = [], []
    for entry in complete_entries(path, "the list", content, KEYS, faults):
        image_id = str(entry["image_id"])
        if image_id in records:
            twice = Fault(f"the image {image_id} is listed twice", image_id)
            faults.add("image id twice", [twice], "keep one of the two")
            continue
        records[image_id] = ImageRecord(image_id, f"{image_id}.jpg", 0, 0)
        for name, box, keypoints in _persons(image_id, entry, faults):
            names.append(f"image {image_id}, {name}")
            image_ids.append(image_id)
            boxes.append(box)
            triplets.append(keypoints)
    count = len(names)
    return Listing(
        path,
        AIC,
        list(records.values()),
        names,
        list(range(1, count + 1)),
        image_ids,
        np.asarray(boxes, dtype=np.float64).reshape(count, 4),
        np.asarray(triplets, dtype=np.float64).reshape(count, AIC.num_joints, 3),
        areas=np.full(count, np.nan),
        crowd=np.zeros(count, dtype=bool),
    )


def _persons(
    image_id: str, entry: dict[str, Any], faults: Faults
) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """Name, (4,) x, y, width, height and (14, 3) x, y, visible of an entry's persons."""
    people, boxes = entry["keypoint_annotations"], entry["human_annotations"]
    if not (isinstance(people, dict) and isinstance(boxes, dict)):
        message = f"image {image_id}: its keypoint_annotations or human_annotations are no objects"
        faults.add("not an entry", [Fault(message, image_id)], "every entry is an object in braces")
        return []
    found = []
    for name, numbers in people.items():
        try:
            found.append((name, _box(boxes.get(name)), _keypoints(numbers)))
        except _FaultyPersonError as error:
            kind, what, cure = error.args
            faults.add(kind, [Fault(f"image {image_id}, {name}: {what}", image_id, name)], cure)
    return found


def _box(corners: Any) -> np.ndarray:
    if corners is None:
        raise _FaultyPersonError("missing key", "has keypoints but no box in 'human_annotations'", "add it")
    box = _numbers(corners, "box numbers", "a box is x0, y0, x1, y1")
    if box.shape != (4,):
        raise _FaultyPersonError("box numbers", f"its box is {corners}", "a box is x0, y0, x1, y1")
    return np.concatenate([box[:2], box[2:] - box[:2]])


def _keypoints(numbers: Any) -> np.ndarray:
    triplets = _numbers(numbers, "keypoint numbers", "write 0, 0, 3 for a joint that is not labelled")
    if triplets.shape != (3 * AIC.num_joints,):
        what = f"has {triplets.size} keypoint numbers"
        raise _FaultyPersonError("keypoint count", what, "the 14 joints need 42")
    triplets = triplets.reshape(-1, 3)
    if not np.isin(triplets[:, 2], (0, 1, 2, 3)).all():
        what = "a flag other than 1 (visible), 2 (hidden), 3 (not labelled)"
        raise _FaultyPersonError("visibility", what, "give every joint one of the three")
    triplets[:, 2] = VISIBLE_OF_FLAG[triplets[:, 2].astype(np.int64)]
    return triplets


def _numbers(values: Any, kind: str, cure: str) -> np.ndarray:
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise _FaultyPersonError(kind, f"holds something that is no number ({error})", cure) from error
    if not np.all(np.abs(array) < LARGEST):  # NaN is not
        raise _FaultyPersonError(kind, "a number is not finite (NaN) or huge", cure)
    return array
