"""Person boxes of a detector, in the format of COCO's detection results.

The file that most papers use, "56.4 AP" (``COCO_val2017_detections_AP_H_56_person.json``), is a list
of {image_id, category_id, bbox: [x, y, width, height], score}.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from diffusionpose.data.faults import refuse
from diffusionpose.data.json_files import entries_with, read_json
from diffusionpose.data.persons import Annotations, Person, boxes_inside
from diffusionpose.errors import InputError

BOX_KEYS = ("image_id", "category_id", "bbox", "score")
PERSON_CATEGORY = 1


def read_boxes(path: str | Path, annotations: Annotations, min_score: float = 0.0) -> Annotations:
    """The pictures of ``annotations`` with the persons of a detection file.

    Args:
        path: of the detection file.
        annotations: gives pictures and skeleton; its own persons are left behind.
        min_score: boxes below it are ignored.

    Returns:
        Annotations whose persons have zero, unlabelled keypoints. Boxes without area inside their
        picture are in ``dropped``; boxes of pictures that ``annotations`` does not list are left out,
        since a detection file is often of more pictures than are looked at.

    Raises:
        InputError: not JSON, no list, a missing key, numbers that are none, or boxes of other
            pictures only.
    """
    path = Path(path)
    persons = _person_entries(path)
    numbers = _numbers(path, [[*_four(path, e["bbox"]), e["score"]] for e in persons])
    known = [
        i for i, e in enumerate(persons) if e["image_id"] in annotations.images and numbers[i, 4] >= min_score
    ]
    _require_own_pictures(path, persons, annotations)
    records = [annotations.images[persons[i]["image_id"]] for i in known]
    sizes = np.asarray([(r.width, r.height) for r in records], dtype=np.float64).reshape(-1, 2)
    corners, usable = boxes_inside(numbers[known, :4], sizes)
    joints = annotations.skeleton.num_joints
    found, dropped = [], []
    for i, record, corner, good in zip(known, records, corners, usable, strict=True):
        if not good:
            dropped.append(f"{path}: box {i}, {persons[i]['bbox']}, has no area inside {record.file_name}")
            continue
        unlabelled = np.zeros((joints, 2), np.float32), np.zeros(joints, np.int64)
        area = float(np.prod(corner[2:] - corner[:2]))
        found.append(Person(record.id, i, corner, *unlabelled, area, score=float(numbers[i, 4])))
    return replace(annotations, persons=found, box_source=f"detections {path.name}", dropped=dropped)


def _require_own_pictures(path: Path, persons: list[dict[str, Any]], annotations: Annotations) -> None:
    if persons and all(entry["image_id"] not in annotations.images for entry in persons):
        raise InputError(
            f"{path}: none of its {len(persons)} boxes is of a picture in {annotations.path}; "
            "give the detections of these pictures"
        )


def _person_entries(path: Path) -> list[dict[str, Any]]:
    content = read_json(path)
    if not isinstance(content, list):
        raise InputError(
            f"{path}: not a list of boxes; give a detection file: image_id, category_id, bbox, score"
        )
    entries = entries_with(path, "the list", content, BOX_KEYS)
    return [e for e in entries if e["category_id"] == PERSON_CATEGORY]


def _four(path: Path, box: object) -> list[float]:
    if not isinstance(box, list) or len(box) != 4:
        raise InputError(f"{path}: a bbox is x, y, width, height, not {box}")
    return box


def _numbers(path: Path, rows: list[list[float]]) -> np.ndarray:
    """(n, 5) x, y, width, height, score."""
    try:
        numbers = np.asarray(rows, dtype=np.float64).reshape(-1, 5)
    except (TypeError, ValueError) as error:
        raise InputError(f"{path}: a box or score is not a number ({error})") from error
    finite = np.isfinite(numbers).all(axis=1)
    refuse(path, [f"box {i} is not finite (NaN)" for i in np.flatnonzero(~finite)], "remove it")
    return numbers
