"""COCO's keypoint annotation format, which CrowdPose, OCHuman and most others use too."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from diffusionpose.data.json_files import entries_with, refuse
from diffusionpose.data.persons import Annotations, ImageRecord, Person, boxes_inside
from diffusionpose.errors import InputError
from diffusionpose.skeletons import SKELETONS, Skeleton

IMAGE_KEYS = ("id", "file_name", "width", "height")
ANNOTATION_KEYS = ("id", "image_id", "bbox", "keypoints")


def annotations_from_coco(path: Path, content: dict[str, Any], skeleton: Skeleton | None) -> Annotations:
    """Annotations from a COCO-style dict; see :func:`diffusionpose.data.annotations.read_annotations`."""
    for key in ("images", "annotations"):
        if key not in content:
            raise InputError(f"{path}: the key {key!r} is missing; give a COCO keypoint annotation file")
    images = _image_records(path, content["images"])
    names = _joint_names(path, content.get("categories", []))
    skeleton = skeleton or _skeleton_named(path, names)
    order = _column_order(path, names, skeleton)

    categories = {c["id"] for c in content.get("categories", []) if c.get("keypoints")}
    entries = entries_with(path, "annotations", content["annotations"], ("id",))
    if categories:  # a file may hold other things than persons, without keypoints
        entries = [e for e in entries if e.get("category_id", min(categories)) in categories]
    entries = entries_with(path, "annotations", entries, ANNOTATION_KEYS)
    unknown = [
        f"annotation {e['id']} is of image {e['image_id']}" for e in entries if e["image_id"] not in images
    ]
    refuse(path, unknown, "list that image under 'images' or remove the annotation")

    triplets = _keypoint_array(path, entries, skeleton)[:, order]
    boxes = _box_array(path, entries)
    return _assembled(path, skeleton, images, entries, triplets, boxes)


def _image_records(path: Path, entries: Any) -> dict[int | str, ImageRecord]:
    records: dict[int | str, ImageRecord] = {}
    for entry in entries_with(path, "images", entries, IMAGE_KEYS):
        crowd_index = entry.get("crowdIndex")
        record = ImageRecord(
            id=entry["id"],
            file_name=str(entry["file_name"]),
            width=int(entry["width"]),
            height=int(entry["height"]),
            crowd_index=None if crowd_index is None else float(crowd_index),
        )
        if records.setdefault(record.id, record) != record:
            raise InputError(f"{path}: two images have the id {record.id}; give every image its own id")
    return records


def _joint_names(path: Path, categories: Any) -> tuple[str, ...]:
    """Joint names of the file's person category, normalised; () where it has none."""
    lists = [
        tuple(str(name).strip().lower().replace(" ", "_") for name in category["keypoints"])
        for category in entries_with(path, "categories", categories, ("id",))
        if category.get("keypoints")
    ]
    if len(set(lists)) > 1:
        raise InputError(f"{path}: its categories have different joints; keep one category in the file")
    return lists[0] if lists else ()


def _skeleton_named(path: Path, names: Sequence[str]) -> Skeleton:
    for skeleton in SKELETONS.values():
        if set(skeleton.joints) == set(names):
            return skeleton
    found = f"joints {', '.join(names)} are" if names else "category names no joints: they are"
    raise InputError(
        f"{path}: its {found} those of no known skeleton; say which with --skeleton "
        f"({', '.join(SKELETONS)} or a YAML file)"
    )


def _column_order(path: Path, names: Sequence[str], skeleton: Skeleton) -> list[int]:
    """For every joint of the skeleton its place in the file."""
    if set(names) == set(skeleton.joints):
        return [names.index(joint) for joint in skeleton.joints]
    if any(set(names) == set(known.joints) for known in SKELETONS.values()):
        raise InputError(
            f"{path}: its joints are {', '.join(names)}, not those of the skeleton {skeleton.name!r}; "
            "leave out --skeleton or give the one that fits"
        )
    return list(range(skeleton.num_joints))  # unnamed joints, or other names for them: by position


def _keypoint_array(path: Path, entries: list[dict[str, Any]], skeleton: Skeleton) -> np.ndarray:
    """(n, J, 3) x, y, visible of all annotations."""
    joints = skeleton.num_joints
    wrong = [
        f"annotation {e['id']} has {len(e['keypoints'] or [])} keypoint numbers"
        for e in entries
        if len(e["keypoints"] or []) != 3 * joints
    ]
    refuse(path, wrong, f"the {joints} joints of the skeleton {skeleton.name!r} need {3 * joints}")
    try:
        triplets = np.asarray([e["keypoints"] for e in entries], dtype=np.float64).reshape(-1, joints, 3)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{path}: a list of keypoints holds something that is no number ({error})"
        ) from error
    finite = np.all(np.isfinite(triplets), axis=(1, 2))
    broken = [
        f"keypoints of annotation {e['id']} are not finite (NaN)"
        for e, f in zip(entries, finite, strict=True)
        if not f
    ]
    refuse(path, broken, "write 0, 0, 0 for a joint that is not labelled")
    known = np.all(np.isin(triplets[:, :, 2], (0, 1, 2)), axis=1)
    strange = [
        f"annotation {e['id']} has a visibility other than 0, 1, 2"
        for e, k in zip(entries, known, strict=True)
        if not k
    ]
    refuse(path, strange, "0 is not labelled, 1 hidden, 2 visible")
    return triplets


def _box_array(path: Path, entries: list[dict[str, Any]]) -> np.ndarray:
    """(n, 4) x, y, width, height of all annotations."""
    wrong = [
        f"annotation {e['id']} has a bbox that is not four numbers"
        for e in entries
        if not (
            isinstance(e["bbox"], list)
            and len(e["bbox"]) == 4
            and all(isinstance(v, (int, float)) for v in e["bbox"])
        )
    ]
    refuse(path, wrong, "a bbox is x, y, width, height")
    return np.asarray([e["bbox"] for e in entries], dtype=np.float64).reshape(-1, 4)


def _assembled(
    path: Path,
    skeleton: Skeleton,
    images: dict[int | str, ImageRecord],
    entries: list[dict[str, Any]],
    triplets: np.ndarray,
    boxes: np.ndarray,
) -> Annotations:
    records = [images[e["image_id"]] for e in entries]
    sizes = np.asarray([(r.width, r.height) for r in records], dtype=np.float64).reshape(-1, 2)
    corners, usable = boxes_inside(boxes, sizes)
    keypoints, visible = triplets[:, :, :2].astype(np.float32), triplets[:, :, 2].astype(np.int64)
    persons, dropped = [], []
    for i, (entry, record) in enumerate(zip(entries, records, strict=True)):
        if not usable[i]:
            dropped.append(
                f"{path}: annotation {entry['id']}: its box {entry['bbox']} has no area inside "
                f"{record.file_name} ({record.width}x{record.height})"
            )
            continue
        # CrowdPose and the COCO form of AI Challenger give no area: theirs is the box's
        area = float(entry.get("area") or boxes[i, 2] * boxes[i, 3])
        crowd = bool(entry.get("iscrowd", 0))
        persons.append(
            Person(record.id, entry["id"], corners[i], keypoints[i], visible[i], area, is_crowd=crowd)
        )
    return Annotations(path, skeleton, images, persons, dropped=dropped)
