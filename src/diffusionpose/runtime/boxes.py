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

import os
import re
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from diffusionpose.errors import InputError
from diffusionpose.json_files import (
    LARGEST,
    as_flag,
    as_id,
    as_list,
    as_number,
    as_numbers,
    id_key,
    read_json,
)
from diffusionpose.poses import BOX_COLUMNS, Pose, box_around, read_csv
from diffusionpose.runtime.images import PICTURE_SUFFIXES
from diffusionpose.skeletons import Skeleton

Boxes = tuple[np.ndarray, np.ndarray]  # (n, 4) float32 xyxy in image pixels, and their (n,) float32 scores

LEAST = 1e-6  # pixels; no crop can be scaled up from less
PERSON = "1"  # COCO's category of persons
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

    ``keypoints`` (J, 3) float32 are x, y in image pixels and how sure; 0, 0, 0 for a joint that is not given.
    None where the file gives no keypoints.
    """

    index: int  # of the entry in its file, or of the box in its picture's list
    picture: str  # by what the file knows the picture: a name, or "image 785"
    box: np.ndarray  # (4,) float32 xyxy, image pixels
    score: float  # of the person; 1 where the file gives none
    keypoints: np.ndarray | None = None
    joints: tuple[str, ...] = ()  # names of the keypoints, where the file tells them
    ids: dict[str, Any] = field(default_factory=dict)  # the entry's own image_id, category_id and id


class PeopleFile:
    """The persons that a file lists, by picture.

    An entry that cannot be used is left out and told in ``problems``. Entries of other categories than
    persons, crowd regions, and OpenPose's people without a joint are no problems.

    Args:
        path: of the file, or of a folder of OpenPose's files.
        names: file names of pictures by image_id, in the place of what the entries say themselves.

    Raises:
        InputError: the file cannot be read, none of its entries can be used, or none is of a person.
    """

    def __init__(self, path: str | Path, names: Mapping[int | str, str] | None = None) -> None:
        self.path = Path(path)
        self.people: list[ListedPerson] = []  # in the file's order
        self.pictures: dict[str, list[ListedPerson]] = {}  # by the file's names for them; some have nobody
        self.problems: list[str] = []  # a message for each entry that is left out
        self._names = None if names is None else {id_key(key): name for key, name in names.items()}
        self._image_ids: dict[str, int] = {}  # picture -> the file's number for it
        # the number that a text id ends in, after what stands before it; "" and an image_id -> picture
        self._by_number: dict[tuple[str, int | None], str] = {}
        self._stems: set[str] = set()  # text ids, and other names without a picture's suffix
        self._foreign: dict[str, list[str]] = {}  # last part of another machine's absolute paths -> pictures
        self._read()
        self._check_left(self.people)
        boxes, _ = _boxes(self.people)
        if len(boxes) and np.abs(boxes).max() <= 1 and (boxes % 1 != 0).any():
            raise InputError(
                f"{self.path}: all its boxes lie between 0 and 1, as shares of the picture; give pixels"
            )

    def _check_left(self, people: Sequence[ListedPerson]) -> None:
        """InputError where what is left out leaves nobody."""
        if self.problems and not people:
            more = f" (and {len(self.problems) - 1} more)" if len(self.problems) > 1 else ""
            raise InputError(f"{self.problems[0]}{more}")

    # --- which picture ---

    def key(self, picture: Path) -> str | None:
        r"""The file's name for a picture, or None.

        A file that names ``trip/photo.jpg`` means ``/home/me/trip/photo.jpg``; of ``D:\data\photo.jpg`` the
        last part counts, as far as that tells pictures apart. Then numbers count: image 785, or "785", is
        ``000000000785.jpg`` as well as ``COCO_val2014_000000000785.jpg``; "clip_785" is ``clip_0785.jpg``.
        """
        parts = Path(os.path.abspath(picture)).parts  # not resolved: a link keeps its own name
        for path in [Path(*parts).as_posix(), *("/".join(parts[start:]) for start in range(1, len(parts)))]:
            if path in self.pictures:
                return path
            if (stem := path.removesuffix(picture.suffix)) in self._stems:
                return stem
        found = self._foreign.get(picture.name, [])
        for depth in range(1, len(parts)):
            found = [name for name in found if name.endswith("/" + "/".join(parts[-depth:]))]
            if len(found) == 1:
                return found[0]
        before, number = _split_number(picture.stem)
        return self._by_number.get((before, number), self._by_number.get(("", number)))

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

    @cached_property
    def _frames(self) -> dict[int, str]:
        """The file's name for each frame of a video; of two, the first."""
        named = ((self._image_ids.get(key, _split_number(_stem(key))[1]), key) for key in self.pictures)
        return {number: key for number, key in reversed(list(named)) if number is not None}

    def image_id(self, picture: Path) -> int | None:
        """The number that the file itself gives a picture, or None."""
        return self._image_ids.get(self.key(picture) or "")

    def match(self, pictures: Iterable[Path]) -> tuple[dict[str, list[Path]], list[Path]]:
        """The pictures that fit each of the file's names, and those that fit none."""
        owners: dict[str, list[Path]] = {}
        unknown = []
        for picture in pictures:
            if (key := self.key(picture)) is None:
                unknown.append(picture)
            else:
                owners.setdefault(key, []).append(picture)
        return owners, unknown

    def keypoints_for(self, skeleton: Skeleton) -> list[ListedPerson]:
        """The persons with the joints of a skeleton: by name where the file tells names.

        An entry that cannot have them is left out and told in ``problems``; InputError where none is left.
        """
        people = []
        for person in self.people:
            try:
                people.append(_with_joints(person, skeleton))
            except _Unusable as error:
                self.problems.append(f"{self.path}: entry {person.index} {error}")
        self._check_left(people)
        return people

    # --- the forms ---

    def _read(self) -> None:
        if self.path.is_dir():
            files = sorted(self.path.glob("*_keypoints.json")) or sorted(self.path.glob("*.json"))
            if not files:
                raise InputError(f"{self.path}: holds no *_keypoints.json of OpenPose; {FORMS}")
            for file in files:
                self._read_openpose(file, read_json(file))
        elif self.path.suffix.lower() == ".jsonl":
            raise InputError(
                f"{self.path}: lines of `video`, not boxes; run it with --csv, and give its .csv"
            )
        elif self.path.suffix.lower() == ".csv":
            self._read_entries(self._csv_entries(), "person", None)
        else:
            content = read_json(self.path)
            if isinstance(content, list):
                self._read_entries(content, "entry", {PERSON})
            elif isinstance(content, dict) and "annotations" in content:
                self._read_annotations(content)
            elif isinstance(content, dict) and "people" in content:
                self._read_openpose(self.path, content)
            elif isinstance(content, dict):
                self._read_mapping(content)
            else:
                raise InputError(f"{self.path}: holds no boxes and no poses; {FORMS}")

    def _add(self, name: str, image_id: int | str | None = None, person: ListedPerson | None = None) -> None:
        """Note a picture, and by what else it can be meant; and a person in it."""
        if name not in self.pictures:
            self.pictures[name] = []
            if isinstance(image_id, int):
                self._image_ids[name] = image_id
                if name == f"image {image_id}":
                    self._by_number.setdefault(("", image_id), name)
            elif Path(name).suffix.lower() not in PICTURE_SUFFIXES:  # a text id, or a name of OpenPose's
                self._stems.add(name)
                if (split := _split_number(name))[1] is not None:
                    self._by_number.setdefault(split, name)
            if _is_absolute(name):
                self._foreign.setdefault(name.rpartition("/")[2], []).append(name)
        if person is not None:
            self.people.append(person)
            self.pictures[name].append(person)

    def _read_entries(self, entries: list[Any], what: str, persons: set[str] | None) -> None:
        """COCO's detections, results or annotations, AlphaPose's results, or keypoints.json.

        ``persons`` are categories of persons; None for any. Poses count whatever their category: that of a
        skeleton of one's own may have any number.
        """
        others: set[str] = set()
        for index, entry in enumerate(entries):
            try:
                if not isinstance(entry, dict):
                    raise _Unusable(f"is {entry!r:.60}, not an object with keys")
                given = as_id(entry.get("category_id"))
                category = PERSON if given is None else id_key(given)
                if persons is not None and category not in persons and "keypoints" not in entry:
                    others.add(category)
                elif not as_flag(entry.get("iscrowd")):
                    self._read_entry(index, entry)
            except _Unusable as error:
                self.problems.append(f"{self.path}: {what} {index} {error}")
        if others and persons is not None and not (self.people or self.problems):
            raise InputError(
                f"{self.path}: none of its {len(entries)} boxes is of a person: a person has category_id "
                f"{' or '.join(sorted(persons))}, these have {', '.join(sorted(others))}; "
                "write that, or leave category_id out"
            )

    def _read_entry(self, index: int, entry: dict[str, Any]) -> None:
        picture, image_id = self._picture_of(entry)
        keypoints = None if entry.get("keypoints") is None else _keypoints(entry["keypoints"])
        corners, size = entry.get("box"), entry.get("bbox")
        if corners is not None and "idx" not in entry:
            box = _numbers(corners, "'box'")
        elif corners is not None or size is not None:  # AlphaPose's "box" has a size, too
            sized = _numbers(size if corners is None else corners, "'bbox'" if corners is None else "'box'")
            box = np.concatenate([sized[:2], sized[:2] + sized[2:]])
        elif keypoints is None:
            raise _Unusable("has no 'bbox' and no 'keypoints'; add one of them")
        elif not keypoints[:, 2].any():
            raise _Unusable("has neither a given joint nor a box; give it one of the two")
        else:
            box = box_around(keypoints[keypoints[:, 2] > 0, :2])
        score = 1.0 if entry.get("score") is None else as_number(entry["score"])
        if score is None:
            raise _Unusable(f"has {entry['score']!r:.60} as 'score'; it must be a finite number")
        names = as_list(entry.get("joints"))
        joints = tuple(map(sys.intern, names)) if all(isinstance(name, str) for name in names) else ()
        if joints and keypoints is not None and len(joints) != len(keypoints):
            raise _Unusable(f"has {len(keypoints)} joints (x, y, score each), but names {len(joints)}")
        ids = {key: entry[key] for key in ("image_id", "category_id", "id") if entry.get(key) is not None}
        person = ListedPerson(index, picture, box.astype(np.float32), score, keypoints, joints, ids)
        self._add(picture, image_id, person)

    def _picture_of(self, entry: dict[str, Any]) -> tuple[str, int | str | None]:
        """The file's name for the picture of an entry, and its id."""
        image_id, name = as_id(entry.get("image_id")), entry.get("file_name")
        if self._names is not None:
            name = self._names.get(id_key(image_id)) if image_id is not None else None
            if name is None:
                raise _Unusable(f"is of image {entry.get('image_id')!r:.60}, which 'images' does not list")
        if name is not None:
            return slashed(str(name)), image_id
        if image_id is None:
            what = f"has {entry['image_id']!r:.60} as" if "image_id" in entry else "has no"
            raise _Unusable(f"{what} 'image_id'; give it the number or the name of its picture")
        return (slashed(image_id), None) if isinstance(image_id, str) else (f"image {image_id}", image_id)

    def _read_annotations(self, content: dict[str, Any]) -> None:
        if not isinstance(content["annotations"], list):
            raise InputError(f"{self.path}: its 'annotations' are not a list; {FORMS}")
        listed = {image_id: name for image_id, (name, _, _) in _listed(self.path, content).items()}
        self._names = {**{id_key(key): name for key, name in listed.items()}, **(self._names or {})}
        for image_id in listed:
            self._add(slashed(self._names[id_key(image_id)]), image_id)
        named = [c for c in as_list(content.get("categories")) if isinstance(c, dict)]
        persons = {id_key(as_id(c.get("id")) or 0) for c in named if c.get("name") == "person"}
        self._read_entries(content["annotations"], "annotation", persons or None)

    def _read_mapping(self, content: dict[str, Any]) -> None:
        for name, boxes in content.items():
            self._add(slashed(name))
            entries: list[Any] = []
            if not isinstance(boxes, list):
                self.problems.append(f"{self.path}: {name!r} needs a list of boxes [[x0, y0, x1, y1], ...]")
                continue
            for box in boxes:
                score = box[4] if isinstance(box, list) and len(box) == 5 else None
                corners = box if score is None else box[:4]
                entries.append({"file_name": name, "box": corners, "score": score})
            self._read_entries(entries, f"{name!r:.60}: box", None)

    def _read_openpose(self, file: Path, content: Any) -> None:
        people = content.get("people") if isinstance(content, dict) else None
        if not isinstance(people, list):
            raise InputError(f"{file}: no file of OpenPose, which lists 'people'; {FORMS}")
        name = file.stem.removesuffix("_keypoints")
        self._add(name)
        for index, person in enumerate(people):
            try:
                keypoints = _keypoints(person.get("pose_keypoints_2d") if isinstance(person, dict) else None)
                joints = tuple(OPENPOSE.get(len(keypoints), "").split())
                if not joints:
                    raise _Unusable(f"has {len(keypoints)} joints; OpenPose's bodies have 25, or 18")
            except _Unusable as error:
                self.problems.append(f"{file}: person {index} {error}")
                continue
            given = keypoints[:, 2] > 0
            if given.any():
                box, ids = box_around(keypoints[given, :2]), {"image_id": name}
                self._add(name, None, ListedPerson(index, name, box, 1.0, keypoints, joints, ids))

    def _csv_entries(self) -> list[Any]:
        """The persons of keypoints.csv as keypoints.json has them; of a video's, by the frame's number."""
        persons: dict[tuple[str, int, int], list[dict[str, Any]]] = {}
        for row in read_csv(self.path):
            persons.setdefault((row["file_name"], row["image_id"], row["person"]), []).append(row)
        pictures = Counter(name for name, _ in {(name, image_id) for name, image_id, _ in persons})
        joints = list(dict.fromkeys(row["joint"] for rows in persons.values() for row in rows))
        entries = []
        for (name, image_id, _), rows in persons.items():
            triplets = dict.fromkeys(joints, (0.0, 0.0, 0.0))
            triplets.update({row["joint"]: (row["x"], row["y"], row["score"]) for row in rows})
            entry: dict[str, Any] = {"image_id": image_id, "score": rows[0]["person_score"]}
            entry.update(joints=joints, box=[rows[0][corner] for corner in BOX_COLUMNS])
            if pictures[name] == 1:
                entry["file_name"] = name
            entries.append({**entry, "keypoints": [number for each in triplets.values() for number in each]})
        return entries


def listed_pictures(path: str | Path) -> dict[int | str, tuple[str, int, int]]:
    """File name, width and height of each picture of a COCO annotation file, by id; 0, 0 where unknown."""
    return _listed(Path(path), read_json(path))


def _listed(path: Path, content: Any) -> dict[int | str, tuple[str, int, int]]:
    images = content.get("images") if isinstance(content, dict) else None
    if not isinstance(images, list):
        raise InputError(f"{path}: lists no 'images'; give an annotation file in COCO's format")
    listed: dict[int | str, tuple[str, int, int]] = {}
    for index, image in enumerate(images):
        image_id = as_id(image.get("id")) if isinstance(image, dict) else None
        if image_id is None or not isinstance(image.get("file_name"), str):
            raise InputError(f"{path}: image {index} has no 'id' and 'file_name'; add them")
        size = image.get("width"), image.get("height")
        width, height = size if all(isinstance(side, int) and side > 0 for side in size) else (0, 0)
        listed[image_id] = image["file_name"], width, height
    return listed


def usable_boxes(
    boxes: np.ndarray, width: int, height: int, *, numbers: Sequence[int] | None = None
) -> tuple[np.ndarray, list[int], list[str]]:
    """Those of (n, 4) xyxy boxes that hold a part of the picture, so that a crop can be cut around them.

    A box may reach over the edge: that of a person whom the picture cuts off does, and the crop then
    has the size of the person's body. ``numbers`` are what messages call the boxes, by default 0 to n - 1.

    Returns:
        the boxes (m, 4) float32; which of the n they are; and why not, of each of the others.
    """
    kept, problems = [], []
    boxes = np.asarray(boxes, np.float32).reshape(-1, 4)
    for index, box in enumerate(boxes):
        inside = box.clip(0, [width, height, width, height])
        if not np.isfinite(box).all():
            problem = "is not four finite numbers; mend or remove it"
        elif not (box[2:] > box[:2] + LEAST).all():
            problem = "has no area; mend or remove it (xyxy, x1 > x0, y1 > y0)"
        elif not (inside[2:] > inside[:2]).all():
            problem = f"is outside the {width}x{height} picture; mend or remove it"
        else:
            kept.append(index)
            continue
        number = index if numbers is None else numbers[index]
        problems.append(f"box {number} [{', '.join(f'{value:g}' for value in box)}] {problem}")
    return boxes[kept], kept, problems


def to_openpose(poses: Sequence[Pose]) -> dict[str, Any]:
    """The poses of one picture as OpenPose's JSON has them: 25 joints, by name; 0, 0, 0 where there is none.

    Neck and middle of the hips, where the skeleton has none, lie between the two shoulders and hips.
    """
    people = []
    for pose in poses:
        numbers = np.column_stack([pose.keypoints, pose.scores])
        triplets = dict(zip(pose.skeleton.joints, numbers, strict=True))
        for joint, side in (("neck", "shoulder"), ("middle_hip", "hip")):
            left, right = triplets.get(f"left_{side}"), triplets.get(f"right_{side}")
            if joint not in triplets and left is not None and right is not None:
                triplets[joint] = (left + right) / 2
        flat = np.array([triplets.get(joint, np.zeros(3)) for joint in OPENPOSE[25].split()], np.float64)
        people.append({"person_id": [-1], "pose_keypoints_2d": flat.ravel().round(3).tolist()})
    return {"version": 1.3, "people": people}


def slashed(name: str) -> str:
    """A picture's name with slashes, and none before it that says nothing."""
    return name.replace("\\", "/").removeprefix("./")


def may_be_one(name: str, other: str) -> bool:
    """Whether two names with one last part may mean one picture: not where their folders contradict."""
    one, two = f"/{name}", f"/{other}"
    return one.endswith(two) or two.endswith(one) or _is_absolute(name) or _is_absolute(other)


class _Unusable(Exception):
    """Why an entry cannot be used; the message goes on after the entry's name."""


def _boxes(people: Sequence[ListedPerson]) -> Boxes:
    boxes = np.array([person.box for person in people], np.float32).reshape(-1, 4)
    return boxes, np.array([person.score for person in people], np.float32)


def _keypoints(values: Any) -> np.ndarray:
    """(J, 3) float32 x, y, score of flat triplets; 0, 0, 0 for a joint that is not given."""
    numbers = as_numbers(values)
    if numbers is None or not len(numbers) or len(numbers) % 3:
        raise _Unusable(f"has {values!r:.60} as 'keypoints'; give numbers: x, y, score of each joint")
    triplets = numbers.reshape(-1, 3)
    triplets[triplets[:, 2] <= 0] = 0
    if not (np.abs(triplets) < LARGEST).all():
        raise _Unusable("has a given joint that is not finite; mend it, or give it the score 0")
    return triplets.astype(np.float32)


def _numbers(values: Any, name: str) -> np.ndarray:
    """Four finite float64 numbers of a list."""
    numbers = as_numbers(values, 4)
    if numbers is None:
        raise _Unusable(f"has {values!r:.60} as {name}; it must be four numbers")
    if not (np.abs(numbers) < LARGEST).all():
        raise _Unusable(f"has {values!r:.60} as {name}, which is not finite or too large; mend it")
    return numbers


def _is_absolute(name: str) -> bool:
    return re.match(r"/|[A-Za-z]:/", name) is not None


def _stem(name: str) -> str:
    """The last part of a picture's name without its suffix; of a name without one all of it."""
    path = Path(name)
    return path.stem if path.suffix.lower() in PICTURE_SUFFIXES else path.name


def _split_number(stem: str) -> tuple[str, int | None]:
    """A name without the number that it ends in, and the number."""
    digits = re.search(r"\d{1,18}$", stem)
    return (stem[: digits.start()], int(digits.group())) if digits else (stem, None)


def _with_joints(person: ListedPerson, skeleton: Skeleton) -> ListedPerson:
    if person.keypoints is None:
        raise _Unusable("has no 'keypoints', but a box alone; give it a pose")
    if person.joints:
        shared = [joint for joint in skeleton.joints if joint in person.joints]
        if not shared:
            raise _Unusable(f"has no joint of the model's ({skeleton.name})")
        keypoints = np.zeros((skeleton.num_joints, 3), np.float32)
        for joint in shared:
            keypoints[skeleton.index(joint)] = person.keypoints[person.joints.index(joint)]
        return replace(person, keypoints=keypoints)
    if len(person.keypoints) != skeleton.num_joints:
        raise _Unusable(
            f"has {len(person.keypoints)} joints (x, y, score each), but the model has "
            f"{skeleton.num_joints}; give weights of this skeleton"
        )
    return person
