"""Person boxes of a detector, in the format of COCO's detection results.

The file that most papers use, "56.4 AP" (``COCO_val2017_detections_AP_H_56_person.json``), is a list
of {image_id, category_id, bbox: [x, y, width, height], score}.
"""

from __future__ import annotations

import csv
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from diffusionpose.data.annotations import Annotations, ImageRecord, Person, boxes_inside
from diffusionpose.errors import InputError, needs_extra
from diffusionpose.poses import Pose, box_around
from diffusionpose.runtime.images import PICTURE_SUFFIXES, read_image, read_recorded_image
from diffusionpose.runtime.json_files import entries_with, read_json, refuse
from diffusionpose.skeletons import Skeleton

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


# Poses that another model or a hand made, in COCO's results format: what a refinement starts from


@dataclass(frozen=True, eq=False)
class GivenPose:
    """One entry of a results file.

    Attributes:
        index: of the entry.
        entry: as the file has it.
        triplets: (J, 3) float32, x and y in image pixels and how sure; 0 for a joint that is not given.
        box: (4,) float32 xyxy, image pixels.
        score: of the entry; 1 where it has none.
    """

    index: int
    entry: dict[str, Any]
    triplets: np.ndarray
    box: np.ndarray
    score: float


def read_given_poses(path: str | Path, joints: int) -> tuple[list[GivenPose], list[str]]:
    """The poses of a COCO results list: ``[{"image_id", "keypoints": [x, y, score, ...]}, ...]``.

    A joint whose score (or visibility) is 0 or less is not given, whatever its coordinates. The box is the
    entry's ``box`` (x0, y0, x1, y1), else its ``bbox`` (x, y, width, height), else that of
    :func:`~diffusionpose.poses.box_around` its given joints.

    Args:
        path: of the file.
        joints: how many a pose must have.

    Returns:
        the poses that can be used, in the file's order, and a message for each of the others.

    Raises:
        InputError: not JSON, no list, an empty one, or a pose of another number of joints.
    """
    path = Path(path)
    content = read_json(path)
    if not isinstance(content, list):
        raise InputError(
            f"{path}: not a list of poses; give COCO results: "
            '[{"image_id": 785, "keypoints": [x, y, score, ...]}, ...]'
        )
    if not content:
        raise InputError(f"{path}: an empty list; there is no pose to refine")
    poses, problems = [], []
    for index, entry in enumerate(content):
        try:
            poses.append(_pose(index, entry, joints))
        except InputError as error:
            raise InputError(f"{path}: entry {index} {error}") from error
        except ValueError as error:
            problems.append(f"{path}: entry {index} {error}")
    return poses, problems


def _pose(index: int, entry: Any, joints: int) -> GivenPose:
    """The entry, checked.

    Raises:
        ValueError: it cannot be used; the message goes on after its number.
        InputError: it has another number of joints, and so will the rest of the file.
    """
    if not isinstance(entry, dict):
        raise ValueError(f"is {entry!r:.60}, not an object with keys")
    if not isinstance(entry.get("image_id"), (int, str)):
        raise ValueError(f"has {entry.get('image_id')!r} as 'image_id'; give it the number of its picture")
    numbers = _numbers_given_poses(entry.get("keypoints"), "keypoints")
    if len(numbers) != 3 * joints:
        raise InputError(
            f"has {len(numbers) / 3:g} joints (x, y, score each), but the model has {joints}; "
            "give weights of this skeleton"
        )
    with np.errstate(over="ignore"):  # what is too large for float32 becomes infinite, and is told below
        triplets = numbers.reshape(joints, 3).astype(np.float32)
    triplets[:, 2] = triplets[:, 2].clip(0)
    given = triplets[:, 2] > 0
    if not np.isfinite(triplets[given]).all() or np.isnan(triplets[:, 2]).any():
        raise ValueError("has a given joint that is not finite; mend it, or give it the score 0")
    triplets[~given] = 0
    (score,) = _numbers_given_poses([entry.get("score", 1.0)], "score").tolist()
    if not math.isfinite(score):
        raise ValueError(f"has {score} as 'score'; mend it, or leave it out")
    return GivenPose(index, entry, triplets, _box(entry, triplets), score)


def _box(entry: dict[str, Any], triplets: np.ndarray) -> np.ndarray:
    """(4,) float32 xyxy of an entry; whether it lies in the picture is found out there."""
    given = triplets[:, 2] > 0
    key = next((key for key in ("box", "bbox") if entry.get(key) is not None), None)
    if key is None:
        if not given.any():
            raise ValueError("has neither a given joint nor a box; give it one of the two")
        return box_around(triplets[given, :2])
    box = _numbers_given_poses(entry[key], key)
    if len(box) != 4:
        raise ValueError(f"has {len(box)} numbers in {key!r}; give four")
    return (box if key == "box" else np.concatenate([box[:2], box[:2] + box[2:]])).astype(np.float32)


def _numbers_given_poses(values: Any, key: str) -> np.ndarray:
    """(n,) float64."""
    if not isinstance(values, list) or any(
        isinstance(v, bool) or not isinstance(v, (int, float)) for v in values
    ):
        raise ValueError(f"has {values!r:.60} as {key!r}; give numbers")
    return np.asarray(values, np.float64)


class PictureFinder:
    """Finds the picture of an entry of a results file in a folder.

    As ``listed`` by image_id; without that by its own ``file_name``, else the one picture of the folder
    whose name is the image_id, or ends in that number (785 is ``000000000785.jpg``).

    Args:
        folder: of the pictures.
        listed: the pictures by image_id, file names relative to the folder.

    Raises:
        InputError: no such folder.
    """

    def __init__(self, folder: str | Path, listed: dict[int | str, ImageRecord] | None = None) -> None:
        self.folder = Path(folder)
        self.listed = listed
        self._records: dict[Path, ImageRecord] = {}
        self._by_id: dict[int | str, list[Path]] = {}
        if not self.folder.is_dir():
            raise InputError(f"{self.folder}: no such folder; give that of the pictures")
        for path in sorted(self.folder.iterdir()):
            if path.suffix.lower() in PICTURE_SUFFIXES:
                for key in _ids(path):
                    self._by_id.setdefault(key, []).append(path)

    def path(self, entry: dict[str, Any]) -> Path:
        """The picture.

        Raises:
            InputError: it is not there, or several pictures could be meant.
        """
        image_id, name = entry["image_id"], entry.get("file_name")
        if self.listed is not None:
            if image_id not in self.listed:
                raise InputError(
                    f"image {image_id!r}: not listed by the annotations; give those of the results"
                )
            name = self.listed[image_id].file_name
        if name is not None:
            path = self.folder / str(name)
            if not path.is_file():
                raise InputError(f"{path}: no such picture; give the folder that file names start from")
            if self.listed is not None:
                self._records[path] = self.listed[image_id]
            return path
        found = self._by_id.get(image_id, [])
        if len(found) != 1:
            meant = f"{len(found)} pictures" if found else "no picture"
            raise InputError(
                f"image {image_id!r}: {meant} of that number in {self.folder}; "
                "give --annotations, or a file_name in each entry"
            )
        return found[0]

    def image(self, path: Path) -> np.ndarray:
        """(H, W, 3) uint8 RGB of a picture of :meth:`path`, in whose pixels the keypoints are.

        That is the picture as it is shown or, where annotations tell its size, as it has that size: turned by
        its EXIF orientation or not, as in an evaluation.

        Raises:
            InputError: as :func:`~diffusionpose.runtime.images.read_recorded_image`.
        """
        record = self._records.get(path)
        if record is None or not (record.width and record.height):
            return read_image(path)
        return read_recorded_image(path, record.width, record.height)


def _ids(path: Path) -> Iterator[int | str]:
    """The image ids that a file can be meant by."""
    yield path.stem
    number = re.search(r"\d+$", path.stem)
    if number:
        yield int(number.group())


def read_listed_pictures(path: str | Path) -> dict[int | str, ImageRecord]:
    """The pictures of a COCO annotation file by image id; its persons do not matter, nor sizes left out.

    Raises:
        InputError: not JSON, or no list of images with ids and names.
    """
    path = Path(path)
    content = read_json(path)
    if not isinstance(content, dict) or "images" not in content:
        raise InputError(f"{path}: lists no 'images'; give an annotation file in COCO's format")
    images = entries_with(path, "images", content["images"], ("id", "file_name"))
    return {image["id"]: ImageRecord(image["id"], str(image["file_name"]), *_size(image)) for image in images}


def _size(image: dict[str, Any]) -> tuple[int, int]:
    """Width and height of an image's entry; 0 and 0 where it does not say both."""
    width, height = (image.get(key) for key in ("width", "height"))
    return (width, height) if isinstance(width, int) and isinstance(height, int) else (0, 0)


# Poses as a table: one row for each person and joint, as CSV or as a pandas DataFrame, and back

if TYPE_CHECKING:
    import pandas

WHOLE = {"image_id": int, "person": int}
BOX = ("x0", "y0", "x1", "y1")
PERSON = ("file_name", "image_id", "person", "person_score", *BOX)  # the same for all joints of a person
COLUMNS = ("file_name", "image_id", "person", "joint", "x", "y", "score", "person_score", *BOX)
# a file name may hold bytes that are no UTF-8; they are kept as they are
TEXT: dict[str, str] = {"encoding": "utf-8", "errors": "surrogateescape", "newline": ""}
Row = dict[str, Any]


def pose_rows(poses: Sequence[Pose], file_name: str = "", image_id: int = 1) -> Iterator[Row]:
    """The rows of one picture's poses, all digits of their float32 numbers kept."""
    for person, pose in enumerate(poses):
        picture = {"file_name": file_name, "image_id": image_id, "person": person}
        triplets = np.column_stack([pose.keypoints, pose.scores]).astype(float)
        yield from _rows(picture, pose.skeleton.joints, triplets.tolist(), pose.score, pose.box.tolist())


def result_rows(results: Iterable[Mapping[str, Any]], joints: Sequence[str]) -> Iterator[Row]:
    """The rows of keypoints.json, the very numbers that stand there.

    Args:
        results: its entries, with ``file_name`` and ``box``; one is read at a time.
        joints: names of the keypoints.

    Raises:
        InputError: an entry has another number of keypoints.
    """
    persons: Counter[int] = Counter()
    for result in results:
        image_id, numbers = result["image_id"], result["keypoints"]
        if len(numbers) != 3 * len(joints):
            raise InputError(
                f"a result of {result['file_name']} has not the {len(joints)} joints of the model"
            )
        picture = {"file_name": result["file_name"], "image_id": image_id, "person": persons[image_id]}
        persons[image_id] += 1
        triplets = [numbers[start : start + 3] for start in range(0, len(numbers), 3)]
        yield from _rows(picture, joints, triplets, result["score"], result["box"])


def poses_of(rows: Iterable[Mapping[str, Any]], skeleton: Skeleton) -> dict[str, list[Pose]]:
    """The poses that rows were made of, by ``file_name``: of a list, or ``DataFrame.to_dict("records")``.

    Raises:
        InputError: a person has not all joints of the skeleton, or one of another.
    """
    persons: dict[tuple[str, int], dict[str, Mapping[str, Any]]] = {}
    for row in rows:
        persons.setdefault((row["file_name"], row["person"]), {})[row["joint"]] = row
    poses: dict[str, list[Pose]] = {}
    for (name, person), joints in persons.items():
        if joints.keys() != set(skeleton.joints):
            raise InputError(f"{name}: person {person} has not the joints of the skeleton {skeleton.name!r}")
        ordered = [joints[joint] for joint in skeleton.joints]
        points = np.array([[row["x"], row["y"], row["score"]] for row in ordered])
        box = np.array([ordered[0][corner] for corner in BOX])
        pose = Pose(skeleton, points[:, :2], points[:, 2], box, float(ordered[0]["person_score"]))
        poses.setdefault(name, []).append(pose)
    return poses


def to_dataframe(
    poses: Sequence[Pose] | Mapping[str, Sequence[Pose]], wide: bool = False
) -> pandas.DataFrame:
    """Poses as a pandas DataFrame.

    Args:
        poses: of one picture, or of pictures by their ``file_name``.
        wide: one row for each person, with columns ``nose_x``, ``nose_y``, ``nose_score``, ...; else one
            for each person and joint.

    Raises:
        InputError: pandas, the extra ``table``, is not installed.
    """
    pictures = poses if isinstance(poses, Mapping) else {"": poses}
    numbered = enumerate(pictures.items(), start=1)
    rows = [row for image_id, (name, found) in numbered for row in pose_rows(found, name, image_id)]
    if not wide:
        return _frame(rows, COLUMNS)
    persons: dict[tuple[str, int], Row] = {}
    for row in rows:
        person = persons.setdefault((row["file_name"], row["person"]), {name: row[name] for name in PERSON})
        person.update({f"{row['joint']}_{name}": row[name] for name in ("x", "y", "score")})
    wide_rows = list(persons.values())
    return _frame(wide_rows, tuple(wide_rows[0]) if wide_rows else PERSON)


def _frame(rows: Sequence[Row], columns: Sequence[str]) -> pandas.DataFrame:
    """Rows as a DataFrame; file names as Python's own text, as pandas' takes no bytes that are no UTF-8."""
    with needs_extra("table", "a DataFrame needs pandas"):
        import pandas
    content = {name: [row[name] for row in rows] for name in columns}
    return pandas.DataFrame({**content, "file_name": pandas.Series(content["file_name"], dtype=object)})


def write_csv(path: Path, rows: Iterable[Row]) -> None:
    """Write rows as CSV, one at a time.

    Raises:
        OSError: the file cannot be written.
    """
    with path.open("w", **TEXT) as file:  # type: ignore[call-overload]
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def read_csv(path: str | Path) -> list[Row]:
    """The rows of a file of :func:`write_csv`, the very numbers that were written.

    Raises:
        InputError: it cannot be read, lacks a column, or holds something else where a number belongs.
    """
    rows: list[Row] = []
    try:
        with Path(path).open(**TEXT) as file:  # type: ignore[call-overload]
            reader = csv.DictReader(file)
            lacking = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
            if lacking:
                raise InputError(f"{path}: has no column {lacking[0]!r}; give a keypoints.csv of predict")
            for row in reader:
                rows.append({name: _value(name, row[name]) for name in COLUMNS})
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    except (ValueError, TypeError, csv.Error) as error:
        raise InputError(f"{path}: line {reader.line_num} is damaged ({error})") from error
    return rows


def _rows(
    picture: Row,
    joints: Sequence[str],
    triplets: Sequence[Sequence[float]],
    score: float,
    box: Sequence[float],
) -> Iterator[Row]:
    person = {"person_score": score, **dict(zip(BOX, box, strict=True))}
    for joint, (x, y, sure) in zip(joints, triplets, strict=True):
        yield {**picture, "joint": joint, "x": x, "y": y, "score": sure, **person}


def _value(column: str, text: str) -> Any:
    return text if column in ("file_name", "joint") else WHOLE.get(column, float)(text)
