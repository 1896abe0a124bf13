"""Annotation files: COCO, CrowdPose, AI Challenger (both forms), and your own in COCO's format."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from diffusionpose.errors import InputError
from diffusionpose.runtime.json_files import Fault, Faults, RefuseFaults, complete_entries, read_json
from diffusionpose.skeletons import AIC, SKELETONS, Skeleton


@dataclass(frozen=True)
class ImageRecord:
    """A picture of an annotation file.

    Attributes:
        id: as the file has it; a string in AI Challenger's native files.
        file_name: below the image folder.
        width, height: pixels; 0 where the file does not say.
        crowd_index: CrowdPose's crowdIndex in [0, 1], else None.
    """

    id: int | str
    file_name: str
    width: int
    height: int
    crowd_index: float | None = None


@dataclass(frozen=True, eq=False)
class Person:
    """A person in a picture.

    Attributes:
        image_id: the picture.
        id: of the annotation.
        box: (4,) float32, x0, y0, x1, y1 in image pixels, inside the picture.
        keypoints: (J, 2) float32 image pixels.
        visible: (J,) int64: 0 not labelled, 1 labelled but hidden, 2 labelled and seen.
        area: of the person, square pixels, as OKS wants it.
        score: of the box; 1 for an annotated one.
        is_crowd: the box is round a group.
    """

    image_id: int | str
    id: int | str
    box: np.ndarray
    keypoints: np.ndarray
    visible: np.ndarray
    area: float
    score: float = 1.0
    is_crowd: bool = False


@dataclass(frozen=True, eq=False)
class Annotations:
    """The persons of a data set.

    Attributes:
        path: of the file they come from.
        skeleton: names the joints.
        images: by id, in the file's order.
        persons: in the file's order.
        box_source: where the boxes come from, for reports.
        dropped: a message for every box that had no area inside its picture and was left out.
    """

    path: Path
    skeleton: Skeleton
    images: dict[int | str, ImageRecord]
    persons: list[Person]
    box_source: str = "ground truth"
    dropped: list[str] = field(default_factory=list)

    def to_skeleton(self, skeleton: Skeleton) -> Annotations:
        """The same persons with another skeleton's joints, matched by name; others are unlabelled.

        Raises:
            InputError: the two skeletons share no joint.
        """
        if skeleton == self.skeleton:
            return self
        pairs = [
            (i, self.skeleton.index(j)) for i, j in enumerate(skeleton.joints) if j in self.skeleton.joints
        ]
        if not pairs:
            raise InputError(
                f"{self.path}: its joints ({self.skeleton.name}) and those of the skeleton {skeleton.name!r} "
                "have no name in common; choose the skeleton that fits the file"
            )
        new, old = (list(indices) for indices in zip(*pairs, strict=True))
        persons = []
        for person in self.persons:
            keypoints = np.zeros((skeleton.num_joints, 2), np.float32)
            visible = np.zeros(skeleton.num_joints, np.int64)
            keypoints[new], visible[new] = person.keypoints[old], person.visible[old]
            persons.append(replace(person, keypoints=keypoints, visible=visible))
        return replace(self, skeleton=skeleton, persons=persons)

    def labelled(self) -> Annotations:
        """Only persons with a labelled joint, no crowds: for training, and to evaluate on true boxes."""
        persons = [person for person in self.persons if not person.is_crowd and person.visible.any()]
        return replace(self, persons=persons)


def boxes_inside(boxes: np.ndarray, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Boxes clipped to their pictures.

    Args:
        boxes: (n, 4) x, y, width, height.
        sizes: (n, 2) width and height of each one's picture; 0 where unknown, then nothing is clipped.

    Returns:
        (n, 4) float32 xyxy, and (n,) bool: whether any area is left.
    """
    corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1).astype(np.float64)
    limits = np.where(sizes > 0, sizes, np.inf)
    known = np.concatenate([np.where(sizes > 0, 0, -np.inf)] * 2, axis=1)
    corners = np.clip(corners, known, np.concatenate([limits, limits], axis=1)).astype(np.float32)
    usable = np.all(np.isfinite(corners), axis=1) & np.all(corners[:, 2:] > corners[:, :2], axis=1)
    return corners, usable


# What an annotation file lists, as it lists it: nothing clipped and nothing left out yet

LARGEST = 1e9  # px; no picture reaches so far, and float32 still holds its square


@dataclass(frozen=True, eq=False)
class Listing:
    """The n persons of a file, one row each.

    Attributes:
        path: of the file.
        skeleton: names the joints.
        records: the pictures, in the file's order.
        names: (n) how messages call a person, such as "annotation 7".
        ids: (n) of the annotations.
        image_ids: (n) of their pictures, all of them in ``records``.
        boxes: (n, 4) float64 x, y, width, height, pixels.
        triplets: (n, J, 3) float64 x, y, visible (0, 1, 2), in the skeleton's order of joints.
        areas: (n,) float64 square pixels, NaN where the file gives none.
        crowd: (n,) bool, whether the box is round a group.
        joint_names: the file's own names of its joints, normalised, in its order; () where it has none.
        repeated: pictures listed again word for word.
    """

    path: Path
    skeleton: Skeleton
    records: list[ImageRecord]
    names: list[str]
    ids: list[int | str]
    image_ids: list[int | str]
    boxes: np.ndarray
    triplets: np.ndarray
    areas: np.ndarray
    crowd: np.ndarray
    joint_names: tuple[str, ...] = ()
    repeated: list[ImageRecord] = field(default_factory=list)

    @cached_property
    def images(self) -> dict[int | str, ImageRecord]:
        """The pictures by id."""
        return {record.id: record for record in self.records}

    def sizes(self) -> np.ndarray:
        """(n, 2) float64 width and height of each person's picture; 0 where the file gives none."""
        records = [self.images[image_id] for image_id in self.image_ids]
        return np.asarray([(r.width, r.height) for r in records], dtype=np.float64).reshape(-1, 2)

    def labelled(self) -> np.ndarray:
        """(n,) bool: persons to train on, with a labelled joint and no crowd."""
        return np.asarray((self.triplets[:, :, 2] > 0).any(axis=1) & ~self.crowd)

    def annotations(self) -> Annotations:
        """The persons for use: boxes clipped to their pictures, those without area left out."""
        corners, usable = boxes_inside(self.boxes, self.sizes())
        keypoints = self.triplets[:, :, :2].astype(np.float32)
        visible = self.triplets[:, :, 2].astype(np.int64)
        # CrowdPose and the COCO form of AI Challenger give no area: theirs is the box's
        given = np.isfinite(self.areas) & (self.areas != 0)
        areas = np.where(given, self.areas, self.boxes[:, 2] * self.boxes[:, 3])
        persons, dropped = [], []
        for i, image_id in enumerate(self.image_ids):
            if not usable[i]:
                what = without_area(self.boxes[i], self.images[image_id])
                dropped.append(f"{self.path}: {self.names[i]}: {what}")
                continue
            crowd = bool(self.crowd[i])
            area = float(areas[i])
            persons.append(
                Person(image_id, self.ids[i], corners[i], keypoints[i], visible[i], area, is_crowd=crowd)
            )
        return Annotations(self.path, self.skeleton, self.images, persons, dropped=dropped)


def without_area(box: np.ndarray, record: ImageRecord) -> str:
    """What to say of a box, (4,) x, y, width, height, of which nothing lies in its picture."""
    numbers = ", ".join(f"{value:g}" for value in box)
    size = f" ({record.width}x{record.height})" if record.width else ""
    return f"its box [{numbers}] has no area inside {record.file_name}{size}"


# COCO's keypoint annotation format, which CrowdPose, OCHuman and most others use too

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


# AI Challenger's own annotation format

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


# Annotation files: COCO, CrowdPose, AI Challenger (both forms), and your own in COCO's format

__all__ = ["Annotations", "ImageRecord", "Person", "annotations_in", "read_annotations", "read_listing"]


def read_annotations(path: str | Path, skeleton: Skeleton | None = None) -> Annotations:
    """The persons of an annotation file.

    Boxes are clipped to their pictures; persons whose box has no area left are dropped, with a
    message in ``Annotations.dropped``. A person without ``area`` gets the box's (CrowdPose).

    Args:
        path: a COCO-style dict with any joints, or AI Challenger's native list.
        skeleton: of the file. By default the known one whose joint names the file's category lists,
            in any order.

    Raises:
        InputError: the file is not JSON, lacks a key, lists an annotation of an unknown image, has a
            wrong number of keypoints or one that is not finite, or its skeleton is not known.
    """
    return read_listing(path, skeleton, RefuseFaults(Path(path))).annotations()


def annotations_in(annotations: Annotations | str | Path, skeleton: Skeleton | None) -> Annotations:
    """Annotations, or those of a file, with the joints of a skeleton, matched by name.

    Args:
        annotations: the persons, or their file.
        skeleton: None for their own. A file whose joint names are those of no known skeleton counts as of
            this one.

    Raises:
        InputError: as :func:`read_annotations`, or the two skeletons share no joint.
    """
    if isinstance(annotations, Annotations):
        found = annotations
    else:
        try:
            found = read_annotations(annotations)
        except InputError:
            if skeleton is None:
                raise
            found = read_annotations(annotations, skeleton)
    return found if skeleton is None else found.to_skeleton(skeleton)


def read_listing(path: str | Path, skeleton: Skeleton | None, faults: Faults) -> Listing:
    """What an annotation file lists, unchanged; every entry that cannot be used goes to ``faults``.

    Raises:
        InputError: nothing of the file can be used: not JSON, no lists of images and annotations, a
            file of results, or a skeleton that is not known.
    """
    path = Path(path)
    content = read_json(path)
    if isinstance(content, dict):
        return listing_from_coco(path, content, skeleton, faults)
    if isinstance(content, list):
        if content and isinstance(content[0], dict) and "score" in content[0]:
            raise InputError(f"{path}: a file of boxes or results, not of annotations; boxes go to --boxes")
        return listing_from_aic(path, content, skeleton, faults)
    raise InputError(f"{path}: neither a COCO dict nor an AI Challenger list of annotations")
