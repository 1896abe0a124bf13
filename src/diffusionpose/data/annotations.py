"""Annotation files: COCO's format with any joints (CrowdPose, OCHuman, your own) and AI Challenger's own.

Files come from many tools. What can be used of one is used; every entry that cannot, and everything that
looks wrong, becomes a :class:`Finding`, which ``diffusionpose data check`` lists and the other commands sum
up.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path, PureWindowsPath
from typing import Any, Literal

import numpy as np

from diffusionpose.errors import InputError
from diffusionpose.json_files import LARGEST, Id, as_id, as_number, as_numbers, id_key, read_json, shortened
from diffusionpose.poses import box_around
from diffusionpose.skeletons import AIC, COCO, CROWDPOSE, MOST_JOINTS, SKELETONS, Skeleton, pair_by_name

BOX_SHARE = (
    0.53  # a person's area over that of the box: COCO's mean, and what CrowdPose and AI Challenger go by
)
USUAL_SIGMA = 0.05  # of a joint that no known skeleton has
Severity = Literal["error", "warning"]


@dataclass(frozen=True)
class ImageRecord:
    """A picture of an annotation file.

    Attributes:
        id: as the file has it.
        file_name: below the image folder.
        width, height: pixels; 0 where the file does not say.
        crowd_index: CrowdPose's crowdIndex in [0, 1], else None.
    """

    id: Id
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
        box: (4,) float32, x0, y0, x1, y1 in image pixels, inside the picture; see :attr:`has_box`.
        keypoints: (J, 2) float32 image pixels.
        visible: (J,) int64: 0 not labelled, 1 labelled but hidden, 2 labelled and seen.
        area: of the person, square pixels, as OKS wants it; ``BOX_SHARE`` of the box's where the file gives
            none.
        score: of the box; 1 for an annotated one.
        is_crowd: the box is round a group.
        file_box: (4,) float64 x, y, width, height as the file has them, which the official metrics go by;
            None for those of ``box``.
        num_keypoints: as the file has it; None where it has none, or where they were matched to other joints.
    """

    image_id: Id
    id: Id
    box: np.ndarray
    keypoints: np.ndarray
    visible: np.ndarray
    area: float
    score: float = 1.0
    is_crowd: bool = False
    file_box: np.ndarray | None = None
    num_keypoints: int | None = None

    @property
    def has_box(self) -> bool:
        """Whether the box has an area inside the picture, so that a crop can be cut around it."""
        return bool(np.isfinite(self.box).all() and (self.box[2:] > self.box[:2]).all())

    @property
    def xywh(self) -> np.ndarray:
        """(4,) float64 x, y, width, height of the box, as the file has it."""
        if self.file_box is not None:
            return self.file_box
        return np.concatenate([self.box[:2], self.box[2:] - self.box[:2]]).astype(np.float64)


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong with a data set, or looks wrong.

    Attributes:
        check: which check found it.
        severity: "error": the entry is left out, or training or evaluation would fail, learn or measure
            something wrong, or know the answers. "warning": suspicious, for somebody to look at.
        file: the annotation file.
        message: what, naming the entry.
        cure: what to do, in one phrase.
        image: file name of the picture, or "".
        annotation: id of the annotation, where one is concerned.
        joints: names of the joints concerned.
    """

    check: str
    severity: Severity
    file: str
    message: str
    cure: str
    image: str = ""
    annotation: Id | None = None
    joints: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Annotations:
    """The persons of a data set.

    Attributes:
        path: of the file they come from.
        skeleton: names the joints, in the file's order.
        images: by id, in the file's order.
        persons: in the file's order, also those without a usable box or a labelled joint.
        box_source: where the boxes come from, for reports.
        findings: what the reader of the file left out or doubts.
    """

    path: Path
    skeleton: Skeleton
    images: dict[Id, ImageRecord]
    persons: list[Person]
    box_source: str = "ground truth"
    findings: list[Finding] = field(default_factory=list)

    @property
    def dropped(self) -> list[str]:
        """What of the file could not be used: one message for each kind, with the number of entries."""
        return summary(finding for finding in self.findings if finding.severity == "error")

    @property
    def doubts(self) -> list[str]:
        """What was used but may be meant otherwise: one message for each kind."""
        return summary(finding for finding in self.findings if finding.severity == "warning")

    def find_image(self, image_id: Any) -> Id | None:
        """The id, as ``images`` has it, of a picture whose id is written as a number or as text; or None."""
        if (own := as_id(image_id)) is None:
            return None
        if own in self.images:
            return own
        if "_by_key" not in self.__dict__:
            self.__dict__["_by_key"] = {id_key(key): key for key in self.images}
        found: Id | None = self.__dict__["_by_key"].get(id_key(own))
        return found

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
        same = len(pairs) == self.skeleton.num_joints
        persons = []
        for person in self.persons:
            keypoints = np.zeros((skeleton.num_joints, 2), np.float32)
            visible = np.zeros(skeleton.num_joints, np.int64)
            keypoints[new], visible[new] = person.keypoints[old], person.visible[old]
            count = person.num_keypoints if same or person.num_keypoints == 0 else None
            persons.append(replace(person, keypoints=keypoints, visible=visible, num_keypoints=count))
        return replace(self, skeleton=skeleton, persons=persons)

    def labelled(self) -> Annotations:
        """Only persons with a labelled joint and a box, no crowds: for training, and for true boxes."""
        persons = [p for p in self.persons if not p.is_crowd and p.visible.any() and p.has_box]
        return replace(self, persons=persons)


def summary(findings: Iterable[Finding]) -> list[str]:
    """One message for each kind of finding: the first few entries, their number, the cure."""
    kinds: dict[tuple[str, str, str], list[str]] = {}
    for finding in findings:
        kinds.setdefault((finding.file, finding.check, finding.cure), []).append(finding.message)
    return [f"{file}: {shortened(messages)}; {cure}" for (file, _, cure), messages in kinds.items()]


def clip_box(xywh: np.ndarray, width: int, height: int) -> np.ndarray:
    """(4,) float32 xyxy of a box x, y, width, height, clipped to its picture; not to an unknown size (0)."""
    corners = np.concatenate([xywh[:2], xywh[:2] + xywh[2:]])
    low = [0 if width else -np.inf, 0 if height else -np.inf] * 2
    high = [width or np.inf, height or np.inf] * 2
    return np.clip(corners, low, high).astype(np.float32)


# Reading a file


def read_annotations(
    path: str | Path, skeleton: Skeleton | None = None, allow_empty: bool = False
) -> Annotations:
    """The persons of an annotation file.

    Boxes are clipped to their pictures. Joints keep the file's order. Entries that cannot be used are left
    out, and are in ``findings``.

    Args:
        path: a COCO-style dict with any joints, or AI Challenger's native list.
        skeleton: of the file. By default the known one whose joint names the file's category lists, in the
            file's order, else one made of the category's own joints and limbs.
        allow_empty: return also where no entry at all can be used.

    Raises:
        InputError: the file is not JSON, no annotation file, does not say its joints and no skeleton is
            given, has other joints than the one given, or nothing of it can be used.
    """
    path = Path(path)
    content = read_json(path)
    reader = _Reader(path)
    if isinstance(content, dict):
        annotations = reader.coco(content, skeleton)
    elif not isinstance(content, list):
        raise InputError(f"{path}: neither a COCO dict nor an AI Challenger list of annotations")
    elif content and isinstance(content[0], dict) and "score" in content[0]:
        raise InputError(f"{path}: a file of boxes or results, not of annotations; boxes go to --boxes")
    else:
        annotations = reader.aic(content, skeleton)
    if annotations.dropped and not annotations.persons and not allow_empty:
        raise InputError(annotations.dropped[0])
    return annotations


def annotations_in(annotations: Annotations | str | Path, skeleton: Skeleton | None) -> Annotations:
    """Annotations, or those of a file, with the joints of a skeleton, matched by name.

    Args:
        annotations: the persons, or their file.
        skeleton: None for their own. A file that names no joints, or none of this skeleton's, counts as of
            this one.

    Raises:
        InputError: as :func:`read_annotations`, or the two skeletons share no joint.
    """
    if not isinstance(annotations, Annotations):
        try:
            found = read_annotations(annotations)
        except InputError:
            if skeleton is None:
                raise
            found = read_annotations(annotations, skeleton)
        else:
            if skeleton is not None and not set(skeleton.joints) & set(found.skeleton.joints):
                found = read_annotations(annotations, skeleton)
        annotations = found
    return annotations if skeleton is None else annotations.to_skeleton(skeleton)


class _EntryError(Exception):
    """An entry that cannot be used: kind of fault, what is wrong, the cure."""


class _Reader:
    """Reads one file; what it leaves out or doubts is in ``findings``."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.findings: list[Finding] = []
        self.images: dict[str, ImageRecord] = {}  # by id_key
        self.repeated: Counter[Id] = Counter()

    def find(self, severity: Severity, check: str, message: str, cure: str, **more: Any) -> None:
        self.findings.append(Finding(check, severity, str(self.path), message, cure, **more))

    def result(self, skeleton: Skeleton, persons: list[Person]) -> Annotations:
        images = {record.id: record for record in self.images.values()}
        return Annotations(self.path, skeleton, images, persons, findings=self.findings)

    # COCO's format

    def coco(self, content: dict[str, Any], skeleton: Skeleton | None) -> Annotations:
        for key in ("images", "annotations"):
            if not isinstance(content.get(key), list):
                missing = "must be a list" if key in content else "is missing"
                raise InputError(
                    f"{self.path}: the key {key!r} {missing}; give a COCO keypoint annotation file"
                )
        for index, entry in self._objects("images", content["images"]):
            self._image(index, entry)
        for number, count in self.repeated.items():
            what = f"image {number} is listed {count + 1} times, word for word"
            name = self.images[id_key(number)].file_name
            self.find("warning", "image listed again", what, "list it once", image=name)
        entries = list(self._objects("annotations", content["annotations"]))
        category, listed, used = self._category(content.get("categories"), entries, skeleton)
        skeleton, joints = self._skeleton(category, skeleton)
        persons, text_ids = [], 0
        for index, entry in entries:
            name = f"annotation {entry.get('id', f'number {index}')!s:.60}"
            own = as_id(entry.get("category_id")) if "category_id" in entry else None
            if listed and own is not None and id_key(own) in listed and id_key(own) not in used:
                continue  # a thing, or a category of other joints, which is said once
            text_ids += isinstance(entry.get("image_id"), str) or isinstance(entry.get("category_id"), str)
            given = as_id(entry.get("id"))
            number = index if given is None else given
            record = self.images.get(id_key(as_id(entry.get("image_id")) or 0))
            try:
                if listed and "category_id" in entry and (own is None or id_key(own) not in listed):
                    what = f"{name} is of category {entry['category_id']!r:.60}"
                    raise _EntryError("category id", what, "list that category or mend the number")
                persons.append(self._person(name, number, entry, joints))
                self._check_box(persons[-1], name)
            except _EntryError as error:
                check, what, cure = error.args
                image = record.file_name if record else ""
                self.find("error", check, what, cure, image=image, annotation=number)
        if text_ids and not any(isinstance(record.id, str) for record in self.images.values()):
            message = f"{text_ids} annotations have an image_id or category_id written as text"
            self.find("warning", "ids as text", message, "write numbers; other tools take 1 and '1' for two")
        return self.result(skeleton, persons)

    def _objects(self, what: str, entries: Any) -> Iterator[tuple[int, dict[str, Any]]]:
        for index, entry in enumerate(entries):
            if isinstance(entry, dict):
                yield index, entry
            else:
                self.find(
                    "error",
                    "not an entry",
                    f"entry {index} of {what!r} is not an object",
                    "every entry is an object in braces",
                )

    def _image(self, index: int, entry: dict[str, Any]) -> None:
        number = as_id(entry.get("id"))
        name = entry.get("file_name")
        if number is None or not isinstance(name, str) or not name:
            key = "id" if number is None else "file_name"
            kind = "missing key" if key not in entry else "unusable id" if key == "id" else "file name"
            what = f"number {index}" if number is None else f"with id {number}"
            lacks = f"has no key {key!r}" if key not in entry else f"has {entry[key]!r:.60} as {key!r}"
            self.find("error", kind, f"the entry {what} of 'images' {lacks}", "give it one of its own")
            return
        sizes = []
        for key in ("width", "height"):
            size = as_number(entry.get(key))
            if entry.get(key) is not None and (size is None or size < 0):
                what = f"image {number} has {entry[key]!r:.60} as {key!r}"
                self.find("warning", "image size", what, "write pixels; taken as unknown", image=name)
            sizes.append(int(size) if size is not None and size > 0 else 0)
        width, height = sizes if all(sizes) else (0, 0)
        crowd_index = as_number(entry.get("crowdIndex"))
        if entry.get("crowdIndex") is not None and crowd_index is None:
            what = f"image {number} has {entry['crowdIndex']!r:.60} as 'crowdIndex'"
            self.find("warning", "crowd index", what, "a number from 0 to 1; taken as none", image=name)
        record = ImageRecord(number, name, width, height, crowd_index)
        first = self.images.setdefault(id_key(number), record)
        if first != record:
            cure = "give every image its own id"
            self.find("error", "image id twice", f"two images have the id {number}", cure, image=name)
        elif first is not record:
            self.repeated[number] += 1

    def _category(
        self, content: Any, entries: list[tuple[int, dict[str, Any]]], skeleton: Skeleton | None
    ) -> tuple[dict[str, Any], set[str], set[str]]:
        """The category whose joints are read ({} if none names any); ids of all, and of those to read."""
        listed: set[str] = set()
        named: list[tuple[str, dict[str, Any]]] = []
        for index, category in self._objects("categories", content if isinstance(content, list) else []):
            number = as_id(category.get("id"))
            if number is None:
                what = f"the entry number {index} of 'categories' has no usable id"
                self.find("error", "unusable id", what, "give it a number of its own")
                continue
            listed.add(id_key(number))
            if isinstance(category.get("keypoints"), list) and category["keypoints"]:
                named.append((id_key(number), category))
        if not named:
            persons = {
                id_key(number)
                for category in (content if isinstance(content, list) else [])
                if isinstance(category, dict) and str(category.get("name")).lower() == "person"
                if (number := as_id(category.get("id"))) is not None
            }
            return {}, listed if persons else set(), persons
        chosen = max(
            (category for _, category in named),
            key=lambda category: (
                skeleton is not None and set(_joint_names(category)) == set(skeleton.joints),
                str(category.get("name")).lower() == "person",
            ),
        )
        used = {number for number, category in named if _joint_names(category) == _joint_names(chosen)}
        others = {number for number, _ in named} - used
        if others:
            ids = (as_id(entry.get("category_id")) for _, entry in entries)
            count = sum(number is not None and id_key(number) in others for number in ids)
            what = (
                f"{count} annotations of {len(others)} categories with other joints than "
                f"{str(chosen.get('name'))!r:.60} are left out"
            )
            self.find("error" if count else "warning", "categories", what, "one file for each kind of joints")
        return chosen, listed, used

    def _skeleton(self, category: dict[str, Any], skeleton: Skeleton | None) -> tuple[Skeleton, int]:
        """The skeleton of the persons, its joints in the file's order, and their number."""
        names = _joint_names(category)
        if len(set(names)) != len(names) or len(names) > MOST_JOINTS:
            twice = next((name for name in names if names.count(name) > 1), "more than can be used")
            raise InputError(
                f"{self.path}: its category names a joint twice ({twice!r:.60}) or too many; mend 'keypoints'"
            )
        if not names and skeleton is None:
            raise InputError(
                f"{self.path}: its category names no joints: say which they are with --skeleton "
                f"({', '.join(SKELETONS)} or a YAML file)"
            )
        known = next((known for known in SKELETONS.values() if set(known.joints) == set(names)), None)
        if skeleton is None:
            skeleton = known or self._own_skeleton(category, names)
        if not names:
            return skeleton, skeleton.num_joints
        if set(names) == set(skeleton.joints):
            return skeleton.select(names), len(names)
        if known is not None or len(names) != skeleton.num_joints:
            raise InputError(
                f"{self.path}: its joints are {', '.join(names):.400}, not those of the skeleton "
                f"{skeleton.name!r}; leave out --skeleton or give the one that fits"
            )
        message = f"its joints are {', '.join(names)}; read by place as {', '.join(skeleton.joints)}"
        self.find("warning", "joints by place", message, "name them alike in the file and in --skeleton")
        return skeleton, len(names)

    def _own_skeleton(self, category: dict[str, Any], names: tuple[str, ...]) -> Skeleton:
        """A skeleton of the file's own joints: its limbs, pairs by left and right, the usual sigmas."""
        known = [pair for one in (AIC, CROWDPOSE, COCO) for pair in zip(one.joints, one.sigmas, strict=True)]
        usual, given = dict(known), category.get("skeleton")
        limbs = [
            (int(ends[0]), int(ends[1]))
            for limb in (given if isinstance(given, list) else [])
            if (ends := as_numbers(limb, 2)) is not None
            and np.isfinite(ends).all()
            and (abs(ends) < LARGEST).all()
        ]
        first = 0 if any(0 in limb for limb in limbs) else 1  # COCO counts joints from 1, some tools from 0
        joined = dict.fromkeys(tuple(sorted((a - first, b - first))) for a, b in limbs)
        good = tuple((a, b) for a, b in joined if 0 <= a < b < len(names))
        if len(good) < len(joined):
            what = f"{len(joined) - len(good)} limbs of its category join joints that it has not"
            self.find("warning", "limbs", what, "mend 'skeleton' of the category")
        new = [name for name in names if name not in usual]
        if new:
            what = f"{len(new)} joints of its own ({', '.join(new[:3])}, ..) get sigma {USUAL_SIGMA}"
            self.find("warning", "sigma taken", what, "give --skeleton FILE.yaml for other sigmas in OKS")
        sigmas = tuple(usual.get(name, USUAL_SIGMA) for name in names)
        return Skeleton(
            str(category.get("name") or self.path.stem)[:60], names, good, pair_by_name(names), sigmas
        )

    def _person(self, name: str, number: Id, entry: dict[str, Any], joints: int) -> Person:
        if "id" in entry and as_id(entry["id"]) is None:
            raise _EntryError("unusable id", f"{name} has an 'id' that is no whole number or text", "mend it")
        if "image_id" not in entry:
            raise _EntryError("missing key", f"{name} has no key 'image_id'", "add it")
        image_id = as_id(entry["image_id"])
        if image_id is None:
            raise _EntryError(
                "unusable id", f"{name} has an 'image_id' that is no whole number or text", "mend it"
            )
        record = self.images.get(id_key(image_id))
        if record is None:
            cure = "list that image under 'images' or remove the annotation"
            raise _EntryError("unlisted image", f"{name} is of image {image_id!s:.60}", cure)
        triplets = _triplets(name, entry.get("keypoints"), joints)
        keypoints, visible = triplets[:, :2].astype(np.float32), triplets[:, 2].astype(np.int64)
        about = {"image": record.file_name, "annotation": number}
        if entry.get("bbox") is None:
            if not visible.any():
                raise _EntryError(
                    "missing box", f"{name} has neither a 'bbox' nor a labelled joint", "add one"
                )
            x0, y0, x1, y1 = box_around(keypoints[visible > 0]).tolist()
            box = np.array([x0, y0, x1 - x0, y1 - y0])
            self.find(
                "warning", "missing box", f"{name} has no 'bbox'", "its joints' extent is taken", **about
            )
        else:
            given = as_numbers(entry["bbox"], 4)
            if given is None or not (np.isnan(given) | (abs(given) < LARGEST)).all():
                what = f"{name} has a bbox that is not four numbers"
                raise _EntryError("box numbers", what, "a bbox is x, y, width, height")
            box = given
        area = None
        if entry.get("area") is not None:
            area = as_number(entry["area"], 1e300)
            if area is None:
                what = f"{name} has the area {entry['area']!r:.60}"
                self.find("warning", "area number", what, f"{BOX_SHARE} of the box's is taken", **about)
        count = as_number(entry.get("num_keypoints"))
        return Person(
            record.id,
            number,
            clip_box(box, record.width, record.height),
            keypoints,
            visible,
            _area_of(box) if area is None else area,
            is_crowd=bool(entry.get("iscrowd", 0)),
            file_box=None if entry.get("bbox") is None else box,
            num_keypoints=None if count is None else int(count),
        )

    def _check_box(self, person: Person, name: str) -> None:
        if person.has_box:
            return
        record = self.images[id_key(person.image_id)]
        numbers = ", ".join(f"{value:g}" for value in person.xywh)
        size = f" ({record.width}x{record.height})" if record.width else ""
        what = f"{name}: its box [{numbers}] has no area inside {record.file_name}{size}"
        cure = "x, y, width, height in pixels; no pose can be sought or learnt in it"
        about = {"image": record.file_name, "annotation": person.id}
        self.find("error", "box without area", what, cure, **about)

    # AI Challenger's own format

    def aic(self, content: list[Any], skeleton: Skeleton | None) -> Annotations:
        if skeleton is not None and set(skeleton.joints) != set(AIC.joints):
            raise InputError(
                f"{self.path}: AI Challenger's native format, whose skeleton is 'aic'; leave out --skeleton"
            )
        persons: list[Person] = []
        for index, entry in self._objects("the list", content):
            image_id = as_id(entry.get("image_id"))
            if image_id is None:
                kind = "missing key" if "image_id" not in entry else "unusable id"
                self.find("error", kind, f"the entry number {index} has no usable 'image_id'", "add it")
                continue
            record = ImageRecord(str(image_id), f"{image_id}.jpg", 0, 0)
            if id_key(image_id) in self.images:
                what = f"the image {image_id} is listed twice"
                self.find("error", "image id twice", what, "keep one of the two", image=record.file_name)
                continue
            people, boxes = entry.get("keypoint_annotations"), entry.get("human_annotations")
            if not (isinstance(people, dict) and isinstance(boxes, dict)):
                what = f"image {image_id}: its keypoint_annotations or human_annotations are no objects"
                self.find("error", "not an entry", what, "give each person's numbers", image=record.file_name)
                continue
            self.images[id_key(image_id)] = record
            for human, numbers in people.items():
                try:
                    persons.append(_aic_person(record, len(persons) + 1, human, numbers, boxes.get(human)))
                    self._check_box(persons[-1], f"image {image_id}, {human:.60}")
                except _EntryError as error:
                    check, what, cure = error.args
                    self.find("error", check, what, cure, image=record.file_name, annotation=human[:60])
        return self.result(AIC, persons)


def _joint_names(category: dict[str, Any]) -> tuple[str, ...]:
    """The category's joint names, in lower case and without spaces; () where it has none."""
    names = category.get("keypoints") or ()
    return tuple(str(name)[:200].strip().lower().replace(" ", "_") for name in names)


def _triplets(name: str, values: Any, joints: int) -> np.ndarray:
    """(J, 3) float64 x, y, visible; all 0 for a person without keypoints: one without labelled joints."""
    if values is None or values == []:
        return np.zeros((joints, 3))
    if not isinstance(values, list) or len(values) != 3 * joints:
        what = f"{name} has {len(values) if isinstance(values, list) else 0} keypoint numbers"
        raise _EntryError("keypoint count", what, f"its {joints} joints need {3 * joints}")
    numbers = as_numbers(values)
    if numbers is not None:
        numbers = numbers.reshape(-1, 3)
        numbers[numbers[:, 2] == 0, :2] = 0  # whatever stands there: the joint is not labelled
    if numbers is None or not (abs(numbers) < LARGEST).all():
        what = f"keypoints of {name} are not finite (NaN), no number or huge"
        raise _EntryError("keypoint numbers", what, "write 0, 0, 0 for a joint that is not labelled")
    if not np.isin(numbers[:, 2], (0, 1, 2)).all():
        what = f"{name} has a visibility other than 0, 1, 2"
        raise _EntryError("visibility", what, "0 is not labelled, 1 hidden, 2 visible")
    return numbers


def _area_of(box: np.ndarray) -> float:
    """Of a person of whom only the box, x, y, width, height, is known."""
    return BOX_SHARE * max(0.0, float(box[2])) * max(0.0, float(box[3]))


def _aic_person(record: ImageRecord, number: int, human: str, values: Any, corners: Any) -> Person:
    name = f"image {record.id}, {human:.60}"
    if corners is None:
        raise _EntryError("missing key", f"{name} has keypoints but no box in 'human_annotations'", "add it")
    box = as_numbers(corners, 4)
    if box is None or not (abs(box) < LARGEST).all():
        raise _EntryError("box numbers", f"{name}: its box is {corners!r:.60}", "a box is x0, y0, x1, y1")
    if not isinstance(values, list) or len(values) != 3 * AIC.num_joints:
        count = len(values) if isinstance(values, list) else 0
        raise _EntryError("keypoint count", f"{name} has {count} keypoint numbers", "the 14 joints need 42")
    triplets = as_numbers(values)
    if triplets is None or not (abs(triplets) < LARGEST).all():
        what = f"{name}: a number is not finite (NaN), none or huge"
        raise _EntryError("keypoint numbers", what, "write 0, 0, 3 for a joint that is not labelled")
    triplets = triplets.reshape(-1, 3)
    if not np.isin(triplets[:, 2], (0, 1, 2, 3)).all():
        what = f"{name}: a flag other than 1 (visible), 2 (hidden), 3 (not labelled)"
        raise _EntryError("visibility", what, "give every joint one of the three")
    box = np.concatenate([box[:2], box[2:] - box[:2]])
    return Person(
        record.id,
        number,
        clip_box(box, 0, 0),
        triplets[:, :2].astype(np.float32),
        np.asarray([0, 2, 1, 0])[triplets[:, 2].astype(np.int64)],
        _area_of(box),
        file_box=box,
    )


# The pictures of a file in a folder


@dataclass(frozen=True)
class PicturePaths:
    """Where the pictures of a file are.

    Attributes:
        paths: by image id; also of those that are not there.
        missing: file names, by image id, of the pictures that are not in the folder.
        notes: what to tell about names that were written on another machine.
    """

    paths: dict[Id, Path]
    missing: dict[Id, str]
    notes: list[str]


def find_pictures(annotations: Annotations, folder: str | Path, persons_only: bool = False) -> PicturePaths:
    """Look for the pictures of a file in a folder; each folder is listed once.

    A name with the folder of another machine before it, or with back-slashes, is found by its last part.

    Args:
        annotations: list the pictures.
        folder: that file names are relative to.
        persons_only: leave out pictures without persons.
    """
    folder = Path(folder)
    listed: dict[Path, set[str]] = {}

    def is_there(path: Path) -> bool:
        if path.parent not in listed:
            try:
                listed[path.parent] = {entry.name for entry in path.parent.iterdir()}
            except (OSError, ValueError):
                listed[path.parent] = set()
        return path.name in listed[path.parent]

    paths, missing, elsewhere = {}, {}, []
    wanted = {person.image_id for person in annotations.persons} if persons_only else set(annotations.images)
    for image_id, record in annotations.images.items():
        if image_id not in wanted:
            continue
        path = folder / record.file_name
        if not is_there(path):
            slashed = record.file_name.replace("\\", "/")
            others = [folder / slashed, folder / PureWindowsPath(slashed).name]
            found = next((other for other in others if other != path and is_there(other)), None)
            if found is None:
                missing[image_id] = record.file_name
            else:
                path = found
                elsewhere.append(record.file_name)
        paths[image_id] = path
    notes = []
    if elsewhere:
        notes.append(
            f"{annotations.path}: {len(elsewhere)} file names are of another machine "
            f"({elsewhere[0]!r:.200}); the pictures of {folder} with the same last part are taken"
        )
    return PicturePaths(paths, missing, notes)
