"""Annotation files: COCO's format with any joints (CrowdPose, OCHuman, your own) and AI Challenger's own.

Files come from many tools. What can be used of one is used; every entry that cannot, and everything that
looks wrong, becomes a :class:`Finding`, which ``diffusionpose data check`` lists and the other commands sum
up.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from diffusionpose.errors import InputError
from diffusionpose.json_files import (
    LARGEST,
    Id,
    as_flag,
    as_id,
    as_list,
    as_number,
    as_numbers,
    id_key,
    read_json,
    shortened,
)
from diffusionpose.poses import BOX_SHARE, box_around
from diffusionpose.runtime.boxes import PeopleFile, may_be_one, slashed, usable_boxes
from diffusionpose.skeletons import AIC, COCO, CROWDPOSE, MOST_JOINTS, SKELETONS, Skeleton, pair_by_name

USUAL_SIGMA = 0.05  # of a joint that no known skeleton has
FLAGS = {0: 0, 1: 1, 2: 2}  # of COCO: not labelled, hidden, visible
NATIVE_FLAGS = {1: 2, 2: 1, 3: 0}  # of AI Challenger, as COCO's
Severity = Literal["error", "warning"]


@dataclass(frozen=True)
class ImageRecord:
    """A picture of an annotation file."""

    id: Id  # as the file has it
    file_name: str  # below the image folder
    width: int  # pixels; 0 where the file does not say
    height: int
    crowd_index: float | None = None  # CrowdPose's crowdIndex in [0, 1]


@dataclass(frozen=True, eq=False)
class Person:
    """A person in a picture."""

    image_id: Id
    id: Id  # of the annotation
    box: np.ndarray  # (4,) float32 xyxy in image pixels, inside the picture; see has_box
    keypoints: np.ndarray  # (J, 2) float32 image pixels
    visible: np.ndarray  # (J,) int64: 0 not labelled, 1 labelled but hidden, 2 labelled and seen
    area: float  # square pixels, as OKS wants it; BOX_SHARE of the box's where the file gives none
    score: float = 1.0  # of the box; 1 for an annotated one
    is_crowd: bool = False  # the box is round a group
    # (4,) float64 x, y, width, height as the file has them, which the official metrics go by; None: see box
    file_box: np.ndarray | None = None
    num_keypoints: int | None = None  # as the file has it; None where it tells nothing of these joints

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

    An "error": the entry is left out, or training or evaluation would fail, learn or measure something wrong,
    or know the answers. A "warning": suspicious, for somebody to look at.
    """

    check: str
    severity: Severity
    file: str  # of annotations
    message: str  # what, naming the entry
    cure: str  # what to do, in one phrase
    image: str = ""  # file name
    annotation: Id | None = None
    joints: tuple[str, ...] = ()  # names


@dataclass(frozen=True, eq=False)
class Annotations:
    """The persons of a data set, in the order of its file."""

    path: Path
    skeleton: Skeleton  # names the joints, in the file's order
    images: dict[Id, ImageRecord]
    persons: list[Person]  # also those without a usable box or a labelled joint
    box_source: str = "ground truth"  # for reports
    findings: list[Finding] = field(default_factory=list)  # what the reader left out or doubts

    @property
    def dropped(self) -> list[str]:
        """What of the file could not be used: one message for each kind, with the number of entries."""
        return _summary(finding for finding in self.findings if finding.severity == "error")

    @property
    def doubts(self) -> list[str]:
        """What was used but may be meant otherwise: one message for each kind."""
        return _summary(finding for finding in self.findings if finding.severity == "warning")

    @cached_property
    def boxes(self) -> np.ndarray:
        """(n, 4) float32 xyxy of the persons."""
        return np.reshape([person.box for person in self.persons], (-1, 4)).astype(np.float32)

    @cached_property
    def keypoints(self) -> np.ndarray:
        """(n, J, 2) float32 of the persons."""
        joints = self.skeleton.num_joints
        return np.reshape([person.keypoints for person in self.persons], (-1, joints, 2)).astype(np.float32)

    @cached_property
    def visible(self) -> np.ndarray:
        """(n, J) int64 of the persons."""
        joints = self.skeleton.num_joints
        return np.reshape([person.visible for person in self.persons], (-1, joints)).astype(np.int64)

    @cached_property
    def by_image(self) -> dict[Id, list[Person]]:
        """The persons of each picture, also of those where nobody is."""
        people: dict[Id, list[Person]] = {image_id: [] for image_id in self.images}
        for person in self.persons:
            people.setdefault(person.image_id, []).append(person)
        return people

    @cached_property
    def _ids(self) -> dict[str, Id]:
        names = {record.file_name: image_id for image_id, record in self.images.items()}
        return names | {id_key(image_id): image_id for image_id in self.images}

    def find_image(self, image_id: Any) -> Id | None:
        """The id, as ``images`` has it, of a picture by its id, a number or text, or by its name; or None."""
        own = as_id(image_id)
        return None if own is None else self._ids.get(id_key(own))

    def to_skeleton(self, skeleton: Skeleton) -> Annotations:
        """The same persons with another skeleton's joints, matched by name; others are unlabelled.

        Raises:
            InputError: the two skeletons share no joint.
        """
        if skeleton == self.skeleton:
            return self
        shared = [joint for joint in skeleton.joints if joint in self.skeleton.joints]
        if not shared:
            raise InputError(
                f"{self.path}: its joints ({self.skeleton.name}) and those of the skeleton {skeleton.name!r} "
                "have no name in common; choose the skeleton that fits the file"
            )
        new, old = ([each.index(joint) for joint in shared] for each in (skeleton, self.skeleton))
        persons = []
        for person in self.persons:
            keypoints = np.zeros((skeleton.num_joints, 2), np.float32)
            visible = np.zeros(skeleton.num_joints, np.int64)
            keypoints[new], visible[new] = person.keypoints[old], person.visible[old]
            same = len(shared) == self.skeleton.num_joints or person.num_keypoints == 0
            count = person.num_keypoints if same else None
            persons.append(replace(person, keypoints=keypoints, visible=visible, num_keypoints=count))
        return replace(self, skeleton=skeleton, persons=persons)

    def labelled(self) -> Annotations:
        """Only persons with a labelled joint and a box, no crowds: for training, and for true boxes."""
        persons = [p for p in self.persons if not p.is_crowd and p.visible.any() and p.has_box]
        return replace(self, persons=persons)


def _summary(findings: Iterable[Finding]) -> list[str]:
    """One message for each kind of finding: the first few entries, their number, the cure."""
    kinds: dict[tuple[str, str, str], list[str]] = {}
    for finding in findings:
        kinds.setdefault((finding.file, finding.check, finding.cure), []).append(finding.message)
    return [f"{file}: {shortened(messages)}; {cure}" for (file, _, cure), messages in kinds.items()]


def coco_category(skeleton: Skeleton) -> dict[str, Any]:
    """The category of persons of a COCO file that names their joints and, counted from 1, limbs."""
    limbs = [[a + 1, b + 1] for a, b in skeleton.limbs]
    return {"id": 1, "name": "person", "keypoints": list(skeleton.joints), "skeleton": limbs}


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
    if not isinstance(content, (dict, list)):
        raise InputError(f"{path}: neither a COCO dict nor an AI Challenger list of annotations")
    if isinstance(content, list) and content and isinstance(content[0], dict) and "score" in content[0]:
        raise InputError(f"{path}: a file of boxes or results, not of annotations; boxes go to --boxes")
    annotations = _Reader(path).read(content, skeleton)
    if annotations.dropped and not annotations.persons and not allow_empty:
        raise InputError(annotations.dropped[0])
    return annotations


def annotations_in(annotations: Annotations | str | Path, skeleton: Skeleton | None) -> Annotations:
    """Annotations, or those of a file, with the joints of a skeleton, matched by name; None for their own.

    A file that names no joints, or none of this skeleton's, counts as of this one.

    Raises:
        InputError: as :func:`read_annotations`, or the two skeletons share no joint.
    """
    own = read_truth(annotations, skeleton)
    if skeleton is None:
        return own
    if not isinstance(annotations, Annotations) and not set(skeleton.joints) & set(own.skeleton.joints):
        own = read_annotations(annotations, skeleton)
    return own.to_skeleton(skeleton)


def read_truth(annotations: Annotations | str | Path, skeleton: Skeleton | None) -> Annotations:
    """Annotations, or those of a file, with its own joints; of ``skeleton`` only where it names none."""
    if isinstance(annotations, Annotations):
        return annotations
    try:
        return read_annotations(annotations)
    except InputError:
        if skeleton is None:
            raise
        return read_annotations(annotations, skeleton)


class EntryError(Exception):
    """An entry that cannot be used: kind of fault, what is wrong, the cure."""


class _Reader:
    """Reads one file; what it leaves out or doubts is in ``findings``."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.findings: list[Finding] = []
        self.images: dict[str, ImageRecord] = {}  # by id_key
        self.flags = FLAGS

    def find(self, severity: Severity, check: str, message: str, cure: str, **more: Any) -> None:
        self.findings.append(Finding(check, severity, str(self.path), message, cure, **more))

    def read(self, content: dict[str, Any] | list[Any], skeleton: Skeleton | None) -> Annotations:
        if isinstance(content, list):
            if skeleton is not None and set(skeleton.joints) != set(AIC.joints):
                raise InputError(
                    f"{self.path}: AI Challenger's native format, whose skeleton is 'aic'; "
                    "leave out --skeleton"
                )
            content, skeleton, self.flags = self._from_native(content), AIC, NATIVE_FLAGS
        for key in ("images", "annotations"):
            if not isinstance(content.get(key), list):
                missing = "must be a list" if key in content else "is missing"
                raise InputError(
                    f"{self.path}: the key {key!r} {missing}; give a COCO keypoint annotation file"
                )
        self._read_images(content["images"])
        entries = list(self._objects("annotations", content["annotations"]))
        categories = list(self._objects("categories", as_list(content.get("categories"))))
        category, listed, used = self._category(categories, entries, skeleton)
        skeleton = self._skeleton(category, skeleton)
        persons, text_ids = [], 0
        for index, entry in entries:
            own = as_id(entry.get("category_id"))
            kind = None if own is None else id_key(own)
            if kind in listed and kind not in used:
                continue  # a thing, or a category of other joints, which is said once
            text_ids += isinstance(entry.get("image_id"), str) or isinstance(entry.get("category_id"), str)
            name = f"annotation {entry.get('id', f'number {index}')!s:.60}"
            given = as_id(entry.get("id"))
            record = self.images.get(id_key(as_id(entry.get("image_id")) or 0))
            about = {
                "image": record.file_name if record else "",
                "annotation": index if given is None else given,
            }
            try:
                if listed and "category_id" in entry and kind not in listed:
                    what = f"{name} is of category {entry['category_id']!r:.60}"
                    raise EntryError("category id", what, "list that category or mend the number")
                person = self._person(name, entry, about, skeleton.num_joints)
                persons.append(person)
                if not person.has_box:
                    size = f" ({record.width}x{record.height})" if record and record.width else ""
                    numbers = ", ".join(f"{value:g}" for value in person.xywh)
                    what = f"{name}: its box [{numbers}] has no area inside {about['image']}{size}"
                    cure = "x, y, width, height in pixels; no pose can be sought or learnt in it"
                    # without a labelled joint nothing is lost
                    severity: Severity = "error" if person.visible.any() else "warning"
                    self.find(severity, "box without area", what, cure, **about)
            except EntryError as error:
                check, what, cure = error.args
                self.find("error", check, what, cure, **about)
        images = {record.id: record for record in self.images.values()}
        if text_ids and not any(isinstance(image_id, str) for image_id in images):
            message = f"{text_ids} annotations have an image_id or category_id written as text"
            self.find("warning", "ids as text", message, "write numbers; other tools take 1 and '1' for two")
        return Annotations(self.path, skeleton, images, persons, findings=self.findings)

    def _objects(self, what: str, entries: list[Any]) -> Iterator[tuple[int, dict[str, Any]]]:
        for index, entry in enumerate(entries):
            if isinstance(entry, dict):
                yield index, entry
            else:
                message = f"entry {index} of {what!r} is not an object"
                self.find("error", "not an entry", message, "every entry is an object in braces")

    def _number(
        self, entry: dict[str, Any], key: str, name: str, check: str, cure: str, **more: Any
    ) -> float | None:
        """The number of an entry under a key; None, with a finding, where there is something else."""
        number = as_number(entry.get(key), 1e300 if key == "area" else LARGEST)
        if number is not None and number < 0 and key != "area":
            number = None
        if entry.get(key) is not None and number is None:
            self.find("warning", check, f"{name} has {entry[key]!r:.60} as {key!r}", cure, **more)
        return number

    def _read_images(self, entries: list[Any]) -> None:
        repeated: Counter[str] = Counter()
        for index, entry in self._objects("images", entries):
            number, name = as_id(entry.get("id")), entry.get("file_name")
            if number is None or not isinstance(name, str) or not name:
                key = "id" if number is None else "file_name"
                check = "missing key" if key not in entry else "unusable id" if key == "id" else "file name"
                what = f"number {index}" if number is None else f"with id {number}"
                lacks = f"has no key {key!r}" if key not in entry else f"has {entry[key]!r:.60} as {key!r}"
                self.find("error", check, f"the entry {what} of 'images' {lacks}", "give it one of its own")
                continue
            known, cure = f"image {number}", "write pixels; taken as unknown"
            width, height = (
                int(self._number(entry, key, known, "image size", cure, image=name) or 0)
                for key in ("width", "height")
            )
            cure = "a number from 0 to 1; taken as none"
            crowd = self._number(entry, "crowdIndex", known, "crowd index", cure, image=name)
            size = (width, height) if width and height else (0, 0)
            record = ImageRecord(number, name, *size, crowd)
            first = self.images.setdefault(id_key(number), record)
            if first != record:
                message = f"two images have the id {number}"
                self.find("error", "image id twice", message, "give every image its own id", image=name)
            elif first is not record:
                repeated[id_key(number)] += 1
        for key, count in repeated.items():
            what = f"image {self.images[key].id} is listed {count + 1} times, word for word"
            self.find("warning", "image listed again", what, "list it once", image=self.images[key].file_name)

    def _category(
        self, categories: list[Any], entries: list[Any], skeleton: Skeleton | None
    ) -> tuple[dict[str, Any], set[str], set[str]]:
        """The category whose joints are read ({} if none names any); ids of all, and of those to read."""
        listed: dict[str, dict[str, Any]] = {}
        for index, category in categories:
            number = as_id(category.get("id"))
            if number is None:
                what = f"the entry number {index} of 'categories' has no usable id"
                self.find("error", "unusable id", what, "give it a number of its own")
            else:
                if category != listed.setdefault(id_key(number), category):
                    what = f"two categories have the id {number}; the first is taken"
                    self.find("error", "category id twice", what, "give every category its own id")
        people = {key for key, one in listed.items() if str(one.get("name")).lower() == "person"}
        named = {key: _joint_names(category) for key, category in listed.items() if _joint_names(category)}
        if not named:
            return {}, set(listed if people else ()), people
        wanted = set() if skeleton is None else set(skeleton.joints)
        chosen = max(named, key=lambda key: (set(named[key]) == wanted, key in people))
        used = {key for key in named if named[key] == named[chosen]}
        others = set(named) - used
        if others:
            ids = (as_id(entry.get("category_id")) for _, entry in entries)
            count = sum(number is not None and id_key(number) in others for number in ids)
            what = (
                f"{count} annotations of {len(others)} categories with other joints than "
                f"{str(listed[chosen].get('name'))!r:.60} are left out"
            )
            self.find("error" if count else "warning", "categories", what, "one file for each kind of joints")
        return listed[chosen], set(listed), used

    def _skeleton(self, category: dict[str, Any], skeleton: Skeleton | None) -> Skeleton:
        """The skeleton of the persons, its joints in the file's order."""
        names = _joint_names(category)
        if len(set(names)) != len(names) or len(names) > MOST_JOINTS:
            twice = next((name for name in names if names.count(name) > 1), "more than can be used")
            raise InputError(
                f"{self.path}: its category names a joint twice ({twice!r:.60}) or too many; mend 'keypoints'"
            )
        if not names:
            if skeleton is None:
                raise InputError(
                    f"{self.path}: its category names no joints: say which they are with --skeleton "
                    f"({', '.join(SKELETONS)} or a YAML file)"
                )
            return skeleton
        known = next((known for known in SKELETONS.values() if set(known.joints) == set(names)), None)
        if skeleton is None:
            skeleton = known or self._own_skeleton(category, names)
        if set(names) == set(skeleton.joints):
            return skeleton.select(names)
        if known is not None or len(names) != skeleton.num_joints:
            raise InputError(
                f"{self.path}: its joints are {', '.join(names):.400}, not those of the skeleton "
                f"{skeleton.name!r}; leave out --skeleton or give the one that fits"
            )
        message = f"its joints are {', '.join(names)}; read by place as {', '.join(skeleton.joints)}"
        self.find("warning", "joints by place", message, "name them alike in the file and in --skeleton")
        return skeleton

    def _own_skeleton(self, category: dict[str, Any], names: tuple[str, ...]) -> Skeleton:
        """A skeleton of the file's own joints: its limbs, pairs by left and right, the usual sigmas."""
        known = [pair for one in (AIC, CROWDPOSE, COCO) for pair in zip(one.joints, one.sigmas, strict=True)]
        usual = dict(known)
        ends = [as_numbers(limb, 2) for limb in as_list(category.get("skeleton"))]
        limbs = [(int(e[0]), int(e[1])) for e in ends if e is not None and (abs(e) < LARGEST).all()]
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
        name = str(category.get("name") or self.path.stem)[:60]
        # as written: of hipL and hipR the capital says the side
        return Skeleton(name, names, good, pair_by_name(_joint_names(category, lower=False)), sigmas)

    def _person(self, name: str, entry: dict[str, Any], about: dict[str, Any], joints: int) -> Person:
        for key in ("id", "image_id"):
            if key in entry and as_id(entry[key]) is None:
                what = f"{name} has {entry[key]!r:.60} as {key!r}"
                raise EntryError("unusable id", what, "write a whole number or text")
        image_id = as_id(entry.get("image_id"))
        if image_id is None:
            raise EntryError("missing key", f"{name} has no key 'image_id'", "add it")
        record = self.images.get(id_key(image_id))
        if record is None:
            cure = "list that image under 'images' or remove the annotation"
            raise EntryError("unlisted image", f"{name} is of image {image_id!s:.60}", cure)
        keypoints, visible = self._keypoints(name, entry.get("keypoints"), joints)
        given, is_crowd = as_numbers(entry.get("bbox"), 4), as_flag(entry.get("iscrowd"))
        if is_crowd is None:
            what = f"{name} has {entry['iscrowd']!r:.60} as 'iscrowd'"
            self.find("warning", "crowd flag", what, "0 or 1; taken as 0", **about)
        if entry.get("bbox") in (None, []):
            if not visible.any():
                what = f"{name} has neither a 'bbox' nor a labelled joint"
                raise EntryError("missing box", what, "add one")
            corners = box_around(keypoints[visible > 0]).astype(np.float64)
            box = np.concatenate([corners[:2], corners[2:] - corners[:2]])
            self.find(
                "warning", "missing box", f"{name} has no 'bbox'", "its joints' extent is taken", **about
            )
        elif given is None or not (np.isnan(given) | (abs(given) < LARGEST)).all():
            what = f"{name} has a bbox that is not four numbers"
            raise EntryError("box numbers", what, "a bbox is x, y, width, height")
        else:
            box = given
        cure = f"{BOX_SHARE} of the box's is taken"
        area = self._number(entry, "area", name, "area number", cure, **about)
        count = as_number(entry.get("num_keypoints"))
        return Person(
            record.id,
            about["annotation"],
            _clipped(box, record.width, record.height),
            keypoints,
            visible,
            BOX_SHARE * max(0.0, float(box[2])) * max(0.0, float(box[3])) if area is None else area,
            is_crowd=bool(is_crowd),
            file_box=given,
            num_keypoints=None if count is None else int(count),
        )

    def _keypoints(self, name: str, values: Any, joints: int) -> tuple[np.ndarray, np.ndarray]:
        """(J, 2) float32 x, y and (J,) int64 visible; all 0 for a person without keypoints."""
        if values is None or values == []:
            return np.zeros((joints, 2), np.float32), np.zeros(joints, np.int64)
        if not isinstance(values, list) or len(values) != 3 * joints:
            what = f"{name} has {len(values) if isinstance(values, list) else 0} keypoint numbers"
            raise EntryError("keypoint count", what, f"its {joints} joints need {3 * joints}")
        numbers = as_numbers(values)
        if numbers is not None:
            numbers = numbers.reshape(-1, 3)
            numbers[numbers[:, 2] == 0, :2] = 0  # whatever stands there: the joint is not labelled
        if numbers is None or not (abs(numbers) < LARGEST).all():
            what = f"keypoints of {name} are not finite (NaN), no number or huge"
            raise EntryError("keypoint numbers", what, "write 0, 0 for a joint that is not labelled")
        if not np.isin(numbers[:, 2], list(self.flags)).all():
            what = f"{name} has a visibility other than {', '.join(map(str, self.flags))}"
            meaning = ("not labelled", "hidden", "visible")
            cure = ", ".join(f"{flag} is {meaning[visible]}" for flag, visible in self.flags.items())
            raise EntryError("visibility", what, cure)
        return numbers[:, :2].astype(np.float32), np.array([self.flags[int(flag)] for flag in numbers[:, 2]])

    def _from_native(self, content: list[Any]) -> dict[str, Any]:
        """AI Challenger's own format as COCO's, with its flags; persons are named after their pictures."""
        images: dict[str, dict[str, Any]] = {}
        people: list[dict[str, Any]] = []
        for index, entry in self._objects("the list", content):
            image_id = as_id(entry.get("image_id"))
            if image_id is None:
                check = "missing key" if "image_id" not in entry else "unusable id"
                self.find("error", check, f"the entry number {index} has no usable 'image_id'", "add it")
                continue
            image, keypoints = f"{image_id}.jpg", entry.get("keypoint_annotations")
            boxes = entry.get("human_annotations")
            if id_key(image_id) in images:
                what = f"the image {image_id} is listed twice"
                self.find("error", "image id twice", what, "keep one of the two", image=image)
                continue
            if not (isinstance(keypoints, dict) and isinstance(boxes, dict)):
                what = f"image {image_id}: its keypoint_annotations or human_annotations are no objects"
                self.find("error", "not an entry", what, "give each person's numbers", image=image)
                continue
            images[id_key(image_id)] = {"id": str(image_id), "file_name": image}
            for human, numbers in keypoints.items():
                name, box = f"{image_id}, {human:.60}", boxes.get(human)
                if box is None:
                    what = f"image {name} has keypoints but no box in 'human_annotations'"
                    self.find("error", "missing key", what, "add it", image=image, annotation=name)
                    continue
                if (corners := as_numbers(box, 4)) is not None:
                    box = [*corners[:2], *(corners[2:] - corners[:2])]
                people.append({"id": name, "image_id": str(image_id), "bbox": box, "keypoints": numbers})
        return {"images": list(images.values()), "annotations": people}


def _joint_names(category: dict[str, Any], lower: bool = True) -> tuple[str, ...]:
    """The category's joint names without spaces, and in lower case or as written; () where it has none."""
    given = as_list(category.get("keypoints"))
    names = [each.get("name") if isinstance(each, dict) else each for each in given]  # some write objects
    words = [str(name)[:200].strip().replace(" ", "_") for name in names]
    return tuple(word.lower() if lower else word for word in words)


def _clipped(xywh: np.ndarray, width: int, height: int) -> np.ndarray:
    """(4,) float32 xyxy of a box x, y, width, height, clipped to its picture; not to an unknown size (0)."""
    corners = np.concatenate([xywh[:2], xywh[:2] + xywh[2:]])
    if not width:
        return corners.astype(np.float32)
    return np.clip(corners, 0, [width, height] * 2).astype(np.float32)


# Boxes in the place of the annotated ones

UNKNOWN_SIZE = 10**9  # pixels; of a picture whose annotations do not tell


def read_boxes(path: str | Path, annotations: Annotations) -> Annotations:
    """``annotations`` with the persons of a file, of any form that ``runtime/boxes.py`` reads, for its own.

    A picture is known by its name, else by image_id. Boxes stay as they are, also where they reach over its
    edge, as in HRNet's evaluation; no joint is labelled. What cannot be used is in ``findings``; boxes of
    other pictures are left out, since a detection file is often of more pictures than are looked at.

    Raises:
        InputError: the file cannot be read, none of its boxes is a person's, or all are of other pictures.
    """
    file = PeopleFile(path)
    records = {slashed(record.file_name): record for record in annotations.images.values()}
    times = Counter(name.rpartition("/")[2] for name in records)
    by_last_part = {last: name for name in records if times[last := name.rpartition("/")[2]] == 1}
    numbered = {id_key(image_id): record for image_id, record in annotations.images.items()}
    joints = annotations.skeleton.num_joints
    unlabelled = np.zeros((joints, 2), np.float32), np.zeros(joints, np.int64)
    persons, dropped, listed = [], [problem.removeprefix(f"{path}: ") for problem in file.problems], 0
    for person in file.people:
        image_id = as_id(person.ids.get("image_id", person.picture))
        name = person.picture
        other = name if name in records else by_last_part.get(name.rpartition("/")[2], "")
        record = records[other] if other and may_be_one(name, other) else None
        record = record or (None if image_id is None else numbered.get(id_key(image_id)))
        if record is None:
            continue
        listed += 1
        size = record.width or UNKNOWN_SIZE, record.height or UNKNOWN_SIZE
        _, kept, problems = usable_boxes(person.box[None], *size, numbers=[person.index])
        if kept:
            area = float(np.prod(person.box[2:] - person.box[:2]))
            persons.append(Person(record.id, person.index, person.box, *unlabelled, area, score=person.score))
        else:
            dropped.append(f"{record.file_name}: {problems[0]}")
    if file.people and not listed:
        raise InputError(
            f"{path}: none of its {len(file.people)} boxes is of a picture in {annotations.path}; "
            "give the detections of these pictures"
        )
    findings = [Finding("boxes", "error", str(path), what, "mend them") for what in dropped]
    return replace(
        annotations, persons=persons, box_source=f"detections {Path(path).name}", findings=findings
    )
