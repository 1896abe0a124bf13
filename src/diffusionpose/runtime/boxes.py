"""Files of person boxes and of poses: one reader of all their forms, for predict, video, refine, evaluate.

================================================================================== ========================
form                                                                               written by
================================================================================== ========================
``[{"image_id" | "file_name", "bbox": [x, y, w, h], "score", "keypoints"}, ...]``  COCO detections and results
``[{"image_id": "1.jpg", "keypoints", "box": [x, y, w, h], "idx"}, ...]``          AlphaPose
``[{"image_id", "file_name", "box": [x0, y0, x1, y1], "keypoints"}, ...]``         keypoints.json of predict
``{"images": [...], "annotations": [...]}``                                        COCO annotations
``{"photo.jpg": [[x0, y0, x1, y1], ...], ...}``                                    a hand
``{"people": [{"pose_keypoints_2d": [x, y, score, ...]}]}``, a file or a folder    OpenPose
``file_name,image_id,person,joint,x,y,score,...``                                  keypoints.csv of predict
================================================================================== ========================
"""

from __future__ import annotations

import math
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from diffusionpose.errors import InputError
from diffusionpose.json_files import read_json
from diffusionpose.poses import BOX_COLUMNS, Pose, box_around, read_csv
from diffusionpose.runtime.images import PICTURE_SUFFIXES
from diffusionpose.skeletons import Skeleton

Boxes = tuple[np.ndarray, np.ndarray]  # (n, 4) float32 xyxy in image pixels, and their (n,) float32 scores

PERSON = 1  # COCO's category of persons
ID_KEYS: tuple[str, ...] = ("image_id", "category_id", "id")
LARGEST = 1e9  # pixels; no picture reaches so far
MOST_TOLD = 3  # faults of one file that are told one by one
JOINTS_INSIDE = 0.5  # share of a person's given joints that a box of theirs must hold
FORMS = (
    "give COCO detections, results or annotations, AlphaPose or OpenPose results, keypoints.json or "
    'keypoints.csv of predict, or {"photo.jpg": [[x0, y0, x1, y1], ...]}'
)
# Joints of OpenPose by their number, in the words of skeletons.py
OPENPOSE = {
    25: "nose neck right_shoulder right_elbow right_wrist left_shoulder left_elbow left_wrist middle_hip "
    "right_hip right_knee right_ankle left_hip left_knee left_ankle right_eye left_eye right_ear left_ear "
    "left_big_toe left_small_toe left_heel right_big_toe right_small_toe right_heel",
    18: "nose neck right_shoulder right_elbow right_wrist left_shoulder left_elbow left_wrist right_hip "
    "right_knee right_ankle left_hip left_knee left_ankle right_eye left_eye right_ear left_ear",
}


@dataclass(frozen=True, eq=False)
class ListedPerson:
    """A person that a file lists.

    Attributes:
        index: of the entry in the file.
        picture: by what the file knows the picture: a name, or "image 785".
        box: (4,) float32 xyxy, image pixels.
        score: of the person; 1 where the file gives none.
        keypoints: (J, 3) float32 x, y in image pixels and how sure; 0, 0, 0 for a joint that is not given.
            None where the file gives no keypoints.
        ids: the entry's own image_id, category_id and id.
    """

    index: int
    picture: str
    box: np.ndarray
    score: float
    keypoints: np.ndarray | None = None
    ids: dict[str, Any] = field(default_factory=dict)


class PeopleFile:
    """The persons that a file lists, by picture.

    An entry that cannot be used is left out and told in ``problems``. Entries of other categories than
    persons, crowd regions, and OpenPose's people without a joint are no problems.

    Args:
        path: of the file, or of a folder of OpenPose's files.
        names: file names of pictures by image_id, in the place of what the entries say themselves.

    Attributes:
        path: the file.
        people: the persons, in the file's order.
        pictures: what the file lists, by the names it has for pictures; some may have nobody.
        joints: names of the keypoints, where the file tells them.
        problems: a message for each entry that is left out.
        notes: what was done with unusual contents.

    Raises:
        InputError: the file cannot be read, none of its entries can be used, or none is of a person.
    """

    def __init__(self, path: str | Path, names: Mapping[int | str, str] | None = None) -> None:
        self.path = Path(path)
        self.people: list[ListedPerson] = []
        self.pictures: dict[str, list[ListedPerson]] = {}
        self.joints: tuple[str, ...] | None = None
        self.problems: list[str] = []
        self.notes: list[str] = []
        self._names = names
        self._image_ids: dict[str, int] = {}  # picture -> the file's number for it
        self._by_number: dict[int, str] = {}  # a number in a name, or an image_id -> picture
        self._by_stem: dict[str, str] = {}  # names without a suffix, text ids -> picture
        self._foreign: dict[str, list[str]] = {}  # last part of another machine's absolute paths -> pictures
        self._sized = False  # whether "box" is x, y, width, height
        self._read()
        self._refuse_shares()
        if self.problems and not self.people:
            more = f" (and {len(self.problems) - 1} more)" if len(self.problems) > 1 else ""
            raise InputError(f"{self.problems[0]}{more}")

    # --- which picture ---

    def key(self, picture: Path) -> str | None:
        r"""The file's name for a picture, or None.

        A file that names ``trip/photo.jpg`` means ``/home/me/trip/photo.jpg``; image 785 is
        ``000000000785.jpg`` as well as ``COCO_val2014_000000000785.jpg``; and of ``D:\data\photo.jpg``
        the last part counts, as far as that tells pictures apart.
        """
        whole = Path(os.path.abspath(picture))  # a link keeps its own name
        paths = [whole.as_posix(), *("/".join(whole.parts[start:]) for start in range(1, len(whole.parts)))]
        number = _number_at_end(picture.stem)
        return next((path for path in paths if path in self.pictures), None) or (
            self._by_stem.get(picture.stem)
            or (None if number is None else self._by_number.get(number))
            or self._foreign_name(whole)
        )

    def people_of(self, picture: Path) -> list[ListedPerson]:
        """The persons of a picture; none where the file knows none."""
        return self.pictures.get(self.key(picture) or "", [])

    def of(self, picture: Path) -> Boxes:
        """The boxes of a picture: (n, 4) xyxy float32 and (n,) scores; none where the file knows none."""
        return _boxes(self.people_of(picture))

    def frame(self, index: int) -> Boxes | None:
        """The boxes of a video's frame, by its number as image_id or at a name's end; None: no entry."""
        key = self._frames.get(index)
        return None if key is None else _boxes(self.pictures[key])

    def frames(self) -> set[int]:
        """The numbers of all frames that the file can mean."""
        return set(self._frames)

    def image_id(self, picture: Path) -> int | None:
        """The number that the file itself gives a picture, or None."""
        return self._image_ids.get(self.key(picture) or "")

    def match(self, pictures: Iterable[Path]) -> tuple[dict[str, list[Path]], list[Path]]:
        """The pictures that fit each of the file's names, and those that fit none."""
        owners: dict[str, list[Path]] = {}
        unknown = []
        for picture in pictures:
            key = self.key(picture)
            if key is None:
                unknown.append(picture)
            else:
                owners.setdefault(key, []).append(picture)
        return owners, unknown

    def keypoints_for(self, skeleton: Skeleton) -> list[ListedPerson]:
        """The persons with the joints of a skeleton: matched by name where the file tells names.

        Raises:
            InputError: a person without keypoints, another number of joints, or no joint in common.
        """
        return [self._with_joints(person, skeleton) for person in self.people]

    # --- the forms ---

    def _read(self) -> None:
        if self.path.is_dir():
            files = sorted(self.path.glob("*_keypoints.json")) or sorted(self.path.glob("*.json"))
            if not files:
                raise InputError(f"{self.path}: holds no *_keypoints.json of OpenPose; {FORMS}")
            for file in files:
                self._read_openpose(file, read_json(file))
        elif self.path.suffix.lower() == ".csv":
            self._read_csv()
        else:
            content = read_json(self.path)
            if isinstance(content, list):
                self._read_entries(content, "entry")
            elif isinstance(content, dict) and "annotations" in content:
                self._read_annotations(content)
            elif isinstance(content, dict) and "people" in content:
                self._read_openpose(self.path, content)
            elif isinstance(content, dict):
                self._read_mapping(content)
            else:
                raise InputError(f"{self.path}: holds no boxes and no poses; {FORMS}")

    def _read_entries(self, entries: list[Any], what: str, persons: set[str] | None = None) -> None:
        """COCO's detections, results or annotations, AlphaPose's results, or keypoints.json."""
        boxes = [entry for entry in entries if isinstance(entry, dict) and "keypoints" not in entry]
        categories = Counter(str(entry["category_id"]) for entry in boxes if "category_id" in entry)
        persons = persons or {str(PERSON)}
        if categories and not categories.keys() & persons and categories.total() == len(entries):
            found = ", ".join(sorted(categories))
            raise InputError(
                f"{self.path}: none of its {len(entries)} boxes is of a person: a person has category_id "
                f"{' or '.join(sorted(persons))}, these have {found}; write that, or leave category_id out"
            )
        self._sized = _boxes_have_sizes(entries)
        if self._sized and any(isinstance(e, dict) and "box" in e and "idx" not in e for e in entries):
            self.notes.append(f"{self.path}: 'box' is read as x, y, width, height: so it holds the joints")
        for index, entry in enumerate(entries):
            try:
                if not isinstance(entry, dict):
                    raise _Unusable(f"is {entry!r:.60}, not an object with keys")
                # poses count whatever their category: that of a skeleton of one's own may have any number
                person = "keypoints" in entry or str(entry.get("category_id", PERSON)) in persons
                if person and not entry.get("iscrowd"):
                    self._add(self._person(index, entry))
            except _Unusable as error:
                self.problems.append(f"{self.path}: {what} {index} {error}")

    def _read_annotations(self, content: dict[str, Any]) -> None:
        if not isinstance(content["annotations"], list):
            raise InputError(f"{self.path}: its 'annotations' are not a list; {FORMS}")
        listed = {image_id: name for image_id, (name, _, _) in _listed(self.path, content).items()}
        self._names = {**listed, **(self._names or {})}
        for image_id in listed:
            self.pictures.setdefault(self._register(_slashes(self._names[image_id]), image_id), [])
        categories = content.get("categories")
        persons = {
            str(category.get("id"))
            for category in (categories if isinstance(categories, list) else [])
            if isinstance(category, dict) and category.get("name") == "person"
        }
        every = {
            str(e["category_id"])
            for e in content["annotations"]
            if isinstance(e, dict) and "category_id" in e
        }
        self._read_entries(content["annotations"], "annotation", persons or every | {str(PERSON)})

    def _read_mapping(self, content: dict[str, Any]) -> None:
        index = 0
        for name, boxes in content.items():
            self.pictures.setdefault(self._register(_slashes(name)), [])
            if not isinstance(boxes, list):
                self.problems.append(f"{self.path}: {name!r} needs a list of boxes [[x0, y0, x1, y1], ...]")
                continue
            for box in boxes:
                try:
                    numbers = _numbers(box, f"a box of {name!r}", (4, 5))
                    score = float(numbers[4]) if len(numbers) == 5 else 1.0
                    self._add(ListedPerson(index, _slashes(name), numbers[:4].astype(np.float32), score))
                except _Unusable as error:
                    self.problems.append(f"{self.path}: {error}")
                index += 1

    def _read_openpose(self, file: Path, content: Any) -> None:
        people = content.get("people") if isinstance(content, dict) else None
        if not isinstance(people, list):
            raise InputError(f"{file}: no file of OpenPose, which lists 'people'; {FORMS}")
        name = file.stem.removesuffix("_keypoints")
        self.pictures.setdefault(self._register(name), [])
        for index, person in enumerate(people):
            try:
                flat = person.get("pose_keypoints_2d") if isinstance(person, dict) else None
                keypoints = _keypoints({"keypoints": flat})
                joints = OPENPOSE.get(len(keypoints), "").split()
                if not joints or (self.joints and len(joints) != len(self.joints)):
                    raise _Unusable(
                        f"has {len(keypoints)} joints; OpenPose's bodies have 25, or all of them 18"
                    )
                self.joints = tuple(joints)
                given = keypoints[:, 2] > 0
                if given.any():
                    box = box_around(keypoints[given, :2])
                    self._add(ListedPerson(index, name, box, 1.0, keypoints, {"image_id": name}))
            except _Unusable as error:
                self.problems.append(f"{file}: person {index} {error}")

    def _read_csv(self) -> None:
        persons: dict[tuple[str, int], list[dict[str, Any]]] = {}
        for row in read_csv(self.path):
            persons.setdefault((row["file_name"], row["person"]), []).append(row)
        self.joints = tuple(dict.fromkeys(row["joint"] for rows in persons.values() for row in rows))
        for index, ((name, number), rows) in enumerate(persons.items()):
            keypoints = np.zeros((len(self.joints), 3), np.float32)
            for row in rows:
                keypoints[self.joints.index(row["joint"])] = row["x"], row["y"], row["score"]
            try:
                numbers = [rows[0][corner] for corner in BOX_COLUMNS]
                box = _numbers(numbers, "its box", (4,)).astype(np.float32)
                keypoints = _keypoints({"keypoints": keypoints.ravel().tolist()})
                ids = {"image_id": rows[0]["image_id"]}
                self._register(_slashes(name), rows[0]["image_id"])
                self._add(ListedPerson(index, _slashes(name), box, rows[0]["person_score"], keypoints, ids))
            except _Unusable as error:
                self.problems.append(f"{self.path}: {name}, person {number}: {error}")

    def _person(self, index: int, entry: dict[str, Any]) -> ListedPerson:
        """The person of an entry in COCO's or AlphaPose's form, or of keypoints.json."""
        picture = self._picture_of(entry)
        keypoints = None if entry.get("keypoints") is None else _keypoints(entry)
        given = np.zeros((0, 2), np.float32) if keypoints is None else keypoints[keypoints[:, 2] > 0, :2]
        key = next((key for key in ("box", "bbox") if entry.get(key) is not None), None)
        if key is not None:
            numbers = _numbers(entry[key], repr(key), (4,))
            if key == "bbox" or self._sized:
                numbers = np.concatenate([numbers[:2], numbers[:2] + numbers[2:]])
            box = numbers.astype(np.float32)
            if len(given) and _share_inside(given, box) < JOINTS_INSIDE:
                self.notes.append(
                    f"{self.path}: entry {index}: most of its joints are outside its {key!r}; is that "
                    f"{'x0, y0, x1, y1' if key == 'box' and not self._sized else 'x, y, width, height'}?"
                )
        elif keypoints is None:
            raise _Unusable("has no 'bbox' and no 'keypoints'; add one of them")
        elif not len(given):
            raise _Unusable("has neither a given joint nor a box; give it one of the two")
        else:
            box = box_around(given)
        score = entry.get("score")
        score = 1.0 if score is None else float(_numbers([score], "'score'", (1,))[0])
        ids = {name: entry[name] for name in ID_KEYS if name in entry}
        return ListedPerson(index, picture, box, score, keypoints, ids)

    def _picture_of(self, entry: dict[str, Any]) -> str:
        """The file's name for the picture of an entry."""
        image_id, name = _usable_id(entry.get("image_id")), entry.get("file_name")
        if self._names is not None:
            name = self._names.get(image_id) if image_id is not None else None
            if name is None:
                raise _Unusable(f"is of image {entry.get('image_id')!r:.60}, which 'images' does not list")
        if name is not None:
            return self._register(_slashes(str(name)), image_id)
        if image_id is None:
            what = f"has {entry['image_id']!r:.60} as" if "image_id" in entry else "has no"
            raise _Unusable(f"{what} 'image_id'; give it the number or the name of its picture")
        if isinstance(image_id, str):
            return self._register(_slashes(image_id))
        return self._register(f"image {image_id}", image_id)

    def _register(self, name: str, image_id: int | str | None = None) -> str:
        """Note by what else a picture can be meant; its name."""
        if name in self._image_ids or name in self.pictures:
            return name
        if isinstance(image_id, int):
            self._image_ids[name] = image_id
            if name == f"image {image_id}":
                self._by_number.setdefault(image_id, name)
        elif Path(name).suffix.lower() not in PICTURE_SUFFIXES:  # a text id, or a name of OpenPose's
            self._by_stem.setdefault(name, name)
            number = _number_at_end(name)
            if number is not None:
                self._by_number.setdefault(number, name)
        if name.startswith("/") or re.match(r"[A-Za-z]:/", name):
            self._foreign.setdefault(name.rpartition("/")[2], []).append(name)
        return name

    def _add(self, person: ListedPerson) -> None:
        self.people.append(person)
        self.pictures.setdefault(person.picture, []).append(person)

    # --- the rest ---

    @property
    def _frames(self) -> dict[int, str]:
        """The file's name for each frame of a video."""
        if self._numbered is None:
            numbered = (
                (self._image_ids.get(key), _number_at_end(Path(key).stem), key) for key in self.pictures
            )
            self._numbered = {}
            for image_id, number, key in numbered:
                frame = image_id if image_id is not None else number
                if frame is not None:
                    self._numbered.setdefault(frame, key)
        return self._numbered

    _numbered: dict[int, str] | None = None

    def _foreign_name(self, picture: Path) -> str | None:
        """The one of another machine's paths that ends as this one does, as far as they tell apart."""
        found = self._foreign.get(picture.name, [])
        for depth in range(2, len(picture.parts)):
            if len(found) < 2:
                break
            end = "/".join(picture.parts[-depth:])
            found = [name for name in found if name.endswith(f"/{end}")]
        return found[0] if len(found) == 1 else None

    def _with_joints(self, person: ListedPerson, skeleton: Skeleton) -> ListedPerson:
        if person.keypoints is None:
            raise InputError(
                f"{self.path}: entry {person.index} has no 'keypoints': a file of boxes, not of poses"
            )
        keypoints = person.keypoints
        if self.joints is not None and self.joints != skeleton.joints:
            shared = [joint for joint in skeleton.joints if joint in self.joints]
            if not shared:
                raise InputError(f"{self.path}: none of its joints is one of the model's ({skeleton.name})")
            keypoints = np.zeros((skeleton.num_joints, 3), np.float32)
            for joint in shared:
                keypoints[skeleton.index(joint)] = person.keypoints[self.joints.index(joint)]
        elif len(keypoints) != skeleton.num_joints:
            raise InputError(
                f"{self.path}: entry {person.index} has {len(keypoints)} joints (x, y, score each), but the "
                f"model has {skeleton.num_joints}; give weights of this skeleton"
            )
        return ListedPerson(person.index, person.picture, person.box, person.score, keypoints, person.ids)

    def _refuse_shares(self) -> None:
        """InputError where coordinates are shares of the picture's size: no person is so small."""
        boxes = np.array([person.box for person in self.people]).reshape(-1, 4)
        if len(boxes) and np.abs(boxes).max() <= 1 and (boxes % 1 != 0).any():
            raise InputError(
                f"{self.path}: all its boxes lie between 0 and 1, as shares of the picture; give pixels"
            )


def listed_pictures(path: str | Path) -> dict[int | str, tuple[str, int, int]]:
    """File name, width and height of each picture of a COCO annotation file, by image id; 0, 0 where unknown.

    Raises:
        InputError: not JSON, no list of images, or one without id or name.
    """
    return _listed(Path(path), read_json(path))


def _listed(path: Path, content: Any) -> dict[int | str, tuple[str, int, int]]:
    images = content.get("images") if isinstance(content, dict) else None
    if not isinstance(images, list):
        raise InputError(f"{path}: lists no 'images'; give an annotation file in COCO's format")
    listed: dict[int | str, tuple[str, int, int]] = {}
    for index, image in enumerate(images):
        image_id = _usable_id(image.get("id")) if isinstance(image, dict) else None
        if image_id is None or not isinstance(image.get("file_name"), str):
            raise InputError(f"{path}: image {index} has no 'id' and 'file_name'; add them")
        size = image.get("width"), image.get("height")
        width, height = size if all(isinstance(side, int) for side in size) else (0, 0)
        listed[image_id] = image["file_name"], width, height
    return listed


def usable_boxes(boxes: np.ndarray, width: int, height: int) -> tuple[np.ndarray, list[int], list[str]]:
    """Boxes that a crop can be cut around.

    A box may reach over the edge: that of a person whom the picture cuts off does, and the crop then
    has the size of the person's body.

    Args:
        boxes: (n, 4) xyxy, image pixels.
        width, height: of the picture.

    Returns:
        the boxes (m, 4) float32 that hold a part of the picture; which of the n they are; and for
        each of the others a message that says why not.
    """
    kept, problems = [], []
    boxes = np.asarray(boxes, np.float32).reshape(-1, 4)
    for index, box in enumerate(boxes):
        inside = box.clip(0, [width, height, width, height])
        shown = "[" + ", ".join(f"{number:g}" for number in box) + "]"
        if not np.isfinite(box).all():
            problems.append(f"box {index} {shown} is not four finite numbers; mend or remove it")
        elif not (box[2:] > box[:2]).all():
            problems.append(f"box {index} {shown} has no area; mend or remove it (xyxy, x1 > x0, y1 > y0)")
        elif not (inside[2:] > inside[:2]).all():
            problems.append(f"box {index} {shown} is outside the {width}x{height} picture; mend or remove it")
        else:
            kept.append(index)
    return boxes[kept], kept, problems


def to_openpose(poses: Sequence[Pose]) -> dict[str, Any]:
    """The poses of one picture as OpenPose's JSON has them: 25 joints, by name; 0, 0, 0 where there is none.

    Neck and middle of the hips, where the skeleton has none, lie between the two shoulders and hips.
    """
    people = []
    for pose in poses:
        triplets = dict(
            zip(pose.skeleton.joints, np.column_stack([pose.keypoints, pose.scores]), strict=True)
        )
        for joint, side in (("neck", "shoulder"), ("middle_hip", "hip")):
            left, right = triplets.get(f"left_{side}"), triplets.get(f"right_{side}")
            if joint not in triplets and left is not None and right is not None:
                triplets[joint] = (left + right) / 2
        flat = np.array([triplets.get(joint, np.zeros(3)) for joint in OPENPOSE[25].split()], np.float64)
        people.append({"person_id": [-1], "pose_keypoints_2d": flat.ravel().round(3).tolist()})
    return {"version": 1.3, "people": people}


class _Unusable(Exception):
    """Why an entry cannot be used; the message goes on after the entry's name."""


def _boxes(people: Sequence[ListedPerson]) -> Boxes:
    boxes = np.array([person.box for person in people], np.float32).reshape(-1, 4)
    return boxes, np.array([person.score for person in people], np.float32)


def _boxes_have_sizes(entries: Sequence[Any]) -> bool:
    """Whether "box" is x, y, width, height (AlphaPose's), not corners: so it holds the entries' joints."""
    boxed = [
        e
        for e in entries
        if isinstance(e, dict) and e.get("box") is not None and e.get("keypoints") is not None
    ]
    if boxed and all("idx" in entry for entry in boxed):
        return True
    shares = []
    for entry in boxed:
        try:
            box, keypoints = _numbers(entry["box"], "box", (4,)), _keypoints(entry)
        except _Unusable:
            continue
        given = keypoints[keypoints[:, 2] > 0, :2]
        if len(given):
            sized = np.concatenate([box[:2], box[:2] + box[2:]])
            shares.append((_share_inside(given, box), _share_inside(given, sized)))
    corners, sizes = np.mean(shares, axis=0) if shares else (1.0, 0.0)
    return bool(corners < JOINTS_INSIDE < sizes)


def _share_inside(points: np.ndarray, box: np.ndarray) -> float:
    """Share of (n, 2) points in a box."""
    return float(((points >= box[:2]) & (points <= box[2:])).all(axis=1).mean())


def _keypoints(entry: dict[str, Any]) -> np.ndarray:
    """(J, 3) float32 x, y, score of an entry's flat triplets; 0, 0, 0 for a joint that is not given."""
    values = entry["keypoints"]
    if not isinstance(values, list) or not all(map(_is_number, values)) or len(values) % 3 or not values:
        raise _Unusable(f"has {values!r:.60} as 'keypoints'; give numbers: x, y, score of each joint")
    triplets = np.array([min(max(value, -1e38), 1e38) for value in values], np.float64).reshape(-1, 3)
    triplets[:, 2] = triplets[:, 2].clip(0)
    given = ~(triplets[:, 2] <= 0)
    if not (np.abs(triplets[given]) < LARGEST).all():
        raise _Unusable("has a given joint that is not finite; mend it, or give it the score 0")
    triplets[~given] = 0
    return triplets.astype(np.float32)


def _numbers(values: Any, name: str, counts: tuple[int, ...]) -> np.ndarray:
    """Finite float64 numbers of a list."""
    if not isinstance(values, list) or len(values) not in counts or not all(map(_is_number, values)):
        wanted = "four numbers" if 4 in counts else "a number"
        shown = values[0] if counts == (1,) else values
        raise _Unusable(f"has {shown!r:.60} as {name}; it must be {wanted}")
    numbers = np.array([min(max(value, -1e38), 1e38) for value in values], np.float64)
    if not (np.abs(numbers) < LARGEST).all():
        raise _Unusable(f"has {values!r:.60} as {name}, which is not finite or too large; mend it")
    return numbers


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _usable_id(value: Any) -> int | str | None:
    """An id as number or text; None where it is neither."""
    if isinstance(value, float) and math.isfinite(value) and value == int(value):
        return int(value)
    return value if isinstance(value, (int, str)) and not isinstance(value, bool) and value != "" else None


def _slashes(name: str) -> str:
    return name.replace("\\", "/").removeprefix("./")


def _number_at_end(stem: str) -> int | None:
    """The number that a name ends in."""
    digits = re.search(r"\d{1,18}$", stem)
    return int(digits.group()) if digits else None


def told(messages: Sequence[str]) -> Iterator[str]:
    """The first few of many messages, and how many more there are."""
    yield from messages[:MOST_TOLD]
    if len(messages) > MOST_TOLD:
        yield f"and {len(messages) - MOST_TOLD} more like these"
