"""Poses that another model or a hand made, in COCO's results format: what a refinement starts from."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from diffusionpose.data.images import PICTURE_SUFFIXES, read_image, read_recorded_image
from diffusionpose.data.json_files import entries_with, read_json
from diffusionpose.data.persons import ImageRecord
from diffusionpose.errors import InputError
from diffusionpose.poses import box_around


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
    numbers = _numbers(entry.get("keypoints"), "keypoints")
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
    (score,) = _numbers([entry.get("score", 1.0)], "score").tolist()
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
    box = _numbers(entry[key], key)
    if len(box) != 4:
        raise ValueError(f"has {len(box)} numbers in {key!r}; give four")
    return (box if key == "box" else np.concatenate([box[:2], box[:2] + box[2:]])).astype(np.float32)


def _numbers(values: Any, key: str) -> np.ndarray:
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
            InputError: as :func:`~diffusionpose.data.images.read_recorded_image`.
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
