"""COCO's keypoint annotation format, which CrowdPose, OCHuman and most others use too."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from diffusionpose.data.faults import Fault, Faults
from diffusionpose.data.json_files import complete_entries
from diffusionpose.data.listing import LARGEST, Listing
from diffusionpose.data.persons import ImageRecord
from diffusionpose.errors import InputError
from diffusionpose.skeletons import SKELETONS, Skeleton

IMAGE_KEYS = ("id", "file_name", "width", "height")
ANNOTATION_KEYS = ("id", "image_id", "bbox", "keypoints")
Entry = dict[str, Any]


def listing_from_coco(
    path: Path, content: dict[str, Any], skeleton: Skeleton | None, faults: Faults
) -> Listing:
    """What a COCO-style dict lists; see :func:`diffusionpose.data.annotations.read_listing`."""
    for key in ("images", "annotations"):
        if key not in content:
            raise InputError(f"{path}: the key {key!r} is missing; give a COCO keypoint annotation file")
    records, repeated = _image_records(path, content["images"], faults)
    categories = complete_entries(path, "categories", content.get("categories", []), ("id",), faults)
    names, persons = _person_category(categories, faults)
    skeleton, order = _skeleton_and_order(path, names, skeleton, faults)

    entries = complete_entries(path, "annotations", content["annotations"], ("id",), faults)
    if persons:  # a file may hold other things than persons, without keypoints
        entries = [e for e in entries if e.get("category_id", persons[0]) in persons]
    entries = complete_entries(path, "annotations", entries, ANNOTATION_KEYS, faults)
    entries = _of_listed_images(entries, records, faults)
    entries = _with_keypoints(entries, skeleton, faults)
    entries, triplets = _triplets(entries, skeleton.num_joints, faults)
    entries, triplets = _with_known_flags(entries, triplets, faults)
    keep = _with_boxes(entries, faults)
    entries, triplets = [e for e, k in zip(entries, keep, strict=True) if k], triplets[keep]
    return Listing(
        path,
        skeleton,
        records,
        names=[f"annotation {e['id']}" for e in entries],
        ids=[e["id"] for e in entries],
        image_ids=[e["image_id"] for e in entries],
        boxes=np.asarray([e["bbox"] for e in entries], dtype=np.float64).reshape(-1, 4),
        triplets=triplets[:, order],
        areas=_areas(entries, faults),
        crowd=np.asarray([bool(e.get("iscrowd", 0)) for e in entries], dtype=bool),
        joint_names=names,
        repeated=repeated,
    )


def _about(entry: Entry, what: str) -> Fault:
    return Fault(f"annotation {entry['id']} {what}", entry.get("image_id"), entry["id"])


def _image_records(path: Path, content: Any, faults: Faults) -> tuple[list[ImageRecord], list[ImageRecord]]:
    """The pictures, and those that are listed again word for word."""
    records: dict[int | str, ImageRecord] = {}
    sizes, twice, repeated = [], [], []
    for entry in complete_entries(path, "images", content, IMAGE_KEYS, faults):
        crowd_index = entry.get("crowdIndex")
        try:
            record = ImageRecord(
                id=entry["id"],
                file_name=str(entry["file_name"]),
                width=int(entry["width"]),
                height=int(entry["height"]),
                crowd_index=None if crowd_index is None else float(crowd_index),
            )
            if not (0 <= record.width < LARGEST and 0 <= record.height < LARGEST):
                raise ValueError
        except (TypeError, ValueError, OverflowError):
            what = f"image {entry['id']} has a width, height or crowdIndex that is no such number"
            sizes.append(Fault(what, entry["id"]))
            continue
        first = records.setdefault(record.id, record)
        if first != record:
            twice.append(Fault(f"two images have the id {record.id}", record.id))
        elif first is not record:
            repeated.append(record)
    faults.add("image size", sizes, "write the picture's size in pixels")
    faults.add("image id twice", twice, "give every image its own id")
    return list(records.values()), repeated


def _person_category(categories: list[Entry], faults: Faults) -> tuple[tuple[str, ...], list[Any]]:
    """Joint names of the file's person category, normalised, () where it has none; and its ids."""
    named = [
        (tuple(str(name).strip().lower().replace(" ", "_") for name in category["keypoints"]), category["id"])
        for category in categories
        if isinstance(category.get("keypoints"), list) and category["keypoints"]
    ]
    if not named:
        return (), []
    names = named[0][0]
    others = [Fault("its categories have different joints") for other, _ in named if other != names]
    faults.add("categories", others[:1], "keep one category in the file")
    return names, [number for other, number in named if other == names]


def _skeleton_and_order(
    path: Path, names: Sequence[str], skeleton: Skeleton | None, faults: Faults
) -> tuple[Skeleton, list[int]]:
    """The skeleton, and for every joint of it its place in the file."""
    fitting = next((known for known in SKELETONS.values() if set(known.joints) == set(names)), None)
    if skeleton is None:
        skeleton = fitting
    if skeleton is None:
        found = f"joints {', '.join(names)} are" if names else "category names no joints: they are"
        raise InputError(
            f"{path}: its {found} those of no known skeleton; say which with --skeleton "
            f"({', '.join(SKELETONS)} or a YAML file)"
        )
    if fitting is not None and set(names) != set(skeleton.joints):
        message = f"its joints are {', '.join(names)}, not those of the skeleton {skeleton.name!r}"
        faults.add("categories", [Fault(message)], "leave out --skeleton or give the one that fits")
        skeleton = fitting
    if set(names) == set(skeleton.joints):
        return skeleton, [names.index(joint) for joint in skeleton.joints]
    return skeleton, list(range(skeleton.num_joints))  # unnamed joints, or other names for them: by position


def _of_listed_images(entries: list[Entry], records: list[ImageRecord], faults: Faults) -> list[Entry]:
    listed = {record.id for record in records}
    unknown = [_about(e, f"is of image {e['image_id']}") for e in entries if e["image_id"] not in listed]
    faults.add("unlisted image", unknown, "list that image under 'images' or remove the annotation")
    return [e for e in entries if e["image_id"] in listed] if unknown else entries


def _with_keypoints(entries: list[Entry], skeleton: Skeleton, faults: Faults) -> list[Entry]:
    needed = 3 * skeleton.num_joints

    def count(entry: Entry) -> int:
        return len(entry["keypoints"]) if isinstance(entry["keypoints"], list) else 0

    wrong = [_about(e, f"has {count(e)} keypoint numbers") for e in entries if count(e) != needed]
    cure = f"the {skeleton.num_joints} joints of the skeleton {skeleton.name!r} need {needed}"
    faults.add("keypoint count", wrong, cure)
    return [e for e in entries if count(e) == needed] if wrong else entries


def _triplets(entries: list[Entry], joints: int, faults: Faults) -> tuple[list[Entry], np.ndarray]:
    """Entries whose keypoints are finite numbers, and these: (n, J, 3) x, y, visible."""
    try:
        numbers = np.asarray([e["keypoints"] for e in entries], dtype=np.float64).reshape(-1, 3 * joints)
    except (TypeError, ValueError, OverflowError):
        numbers = np.full((len(entries), 3 * joints), np.nan)
        for row, entry in zip(numbers, entries, strict=True):
            try:
                row[:] = np.asarray(entry["keypoints"], dtype=np.float64)
            except (TypeError, ValueError, OverflowError):  # stays NaN
                continue
    finite = np.all(np.abs(numbers) < LARGEST, axis=1)  # NaN is not
    broken = [
        Fault(
            f"keypoints of annotation {e['id']} are not finite (NaN), no number or huge",
            e["image_id"],
            e["id"],
        )
        for e, good in zip(entries, finite, strict=True)
        if not good
    ]
    faults.add("keypoint numbers", broken, "write 0, 0, 0 for a joint that is not labelled")
    entries = [e for e, good in zip(entries, finite, strict=True) if good]
    return entries, numbers[finite].reshape(-1, joints, 3)


def _with_known_flags(
    entries: list[Entry], triplets: np.ndarray, faults: Faults
) -> tuple[list[Entry], np.ndarray]:
    known = np.all(np.isin(triplets[:, :, 2], (0, 1, 2)), axis=1)
    pairs = list(zip(entries, known, strict=True))
    strange = [_about(e, "has a visibility other than 0, 1, 2") for e, good in pairs if not good]
    faults.add("visibility", strange, "0 is not labelled, 1 hidden, 2 visible")
    return [e for e, good in pairs if good], triplets[known]


def _with_boxes(entries: list[Entry], faults: Faults) -> np.ndarray:
    """(n,) bool: whether an entry's box is four numbers."""

    def is_box(box: Any) -> bool:
        # NaN passes: a box without area loses a person, not the file
        return (
            isinstance(box, list)
            and len(box) == 4
            and all(isinstance(v, (int, float)) and not abs(v) > LARGEST for v in box)
        )

    good = np.asarray([is_box(e["bbox"]) for e in entries], dtype=bool)
    wrong = [
        _about(e, "has a bbox that is not four numbers") for e, k in zip(entries, good, strict=True) if not k
    ]
    faults.add("box numbers", wrong, "a bbox is x, y, width, height")
    return good


def _areas(entries: list[Entry], faults: Faults) -> np.ndarray:
    """(n,) float64, NaN where an entry gives none."""
    areas, wrong = np.full(len(entries), np.nan), []
    for i, entry in enumerate(entries):
        if entry.get("area") is not None:
            try:
                areas[i] = float(entry["area"])
            except (TypeError, ValueError, OverflowError):
                wrong.append(_about(entry, f"has the area {entry['area']!r}, which is no number"))
    faults.add("area number", wrong, "write square pixels, or leave the key out for the box's")
    return areas
