"""Boxes of persons, and the files that hold them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from diffusionpose.errors import InputError
from diffusionpose.runtime.json_files import read_json

Boxes = tuple[np.ndarray, np.ndarray]  # (n, 4) float32 xyxy in image pixels, and their (n,) float32 scores


class BoxesFromFile:
    """Person boxes that a JSON file holds, in one of three forms.

    * a detection file, as COCO's detectors write it (the "56.4 AP" person boxes):
      ``[{"image_id": 785, "category_id": 1, "bbox": [x, y, width, height], "score": 0.9}, ...]``;
      an entry may give ``file_name`` in the place of ``image_id``; only category 1 is used;
    * a COCO annotation file: ``{"images": [...], "annotations": [{"image_id", "bbox"}, ...]}``; crowd
      regions are left out, and so are other categories where there is one called "person";
    * a mapping: ``{"photo.jpg": [[x0, y0, x1, y1], ...], ...}``.

    Pixels are those of the picture as shown, after its EXIF rotation.

    Raises:
        InputError: the file cannot be read, or an entry is not of its form.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._boxes: dict[str, list[tuple[list[float], float]]] = {}  # picture's key -> (xyxy, score)
        self._ids: dict[str, int] = {}
        content = read_json(self.path)
        if isinstance(content, list):
            self._read_detections(content)
        elif isinstance(content, dict) and "annotations" in content:
            self._read_annotations(content)
        elif isinstance(content, dict):
            self._read_mapping(content)
        else:
            raise InputError(f"{self.path}: holds no boxes; see `diffusionpose predict --help` for its forms")

    def key(self, picture: Path) -> str | None:
        """By what the file knows a picture, or None: the end of its path, or the number at its name's end.

        A file that names ``trip/photo.jpg`` means ``/home/me/trip/photo.jpg``, and image 785 is
        ``000000000785.jpg`` as well as ``COCO_val2014_000000000785.jpg``.
        """
        whole = Path(os.path.abspath(picture))  # a link keeps its own name
        paths = [whole.as_posix(), *("/".join(whole.parts[start:]) for start in range(1, len(whole.parts)))]
        number = re.search(r"\d+$", picture.stem)
        stems = [f"id {picture.stem}"] + ([f"id {int(number.group())}"] if number else [])
        return next((key for key in (*paths, *stems) if key in self._boxes), None)

    def of(self, picture: Path) -> Boxes:
        """The boxes of a picture: (n, 4) xyxy float32 and (n,) scores; none where the file knows none."""
        found = self._boxes.get(self.key(picture) or "", [])
        boxes = np.array([box for box, _ in found], np.float32).reshape(-1, 4)
        return boxes, np.array([score for _, score in found], np.float32)

    def image_id(self, picture: Path) -> int | None:
        """The number that the file itself gives a picture, or None."""
        return self._ids.get(self.key(picture) or "")

    def _read_detections(self, entries: list[Any]) -> None:
        for where, entry in self._entries(entries, "entry"):
            if entry.get("category_id", 1) != 1:
                continue
            key = (
                str(entry["file_name"])
                if "file_name" in entry
                else f"id {self._get(entry, 'image_id', where)}"
            )
            box = self._corners(self._get(entry, "bbox", where), where)
            self._boxes.setdefault(key, []).append((box, self._score(entry, where)))
            if isinstance(entry.get("image_id"), int):
                self._ids[key] = entry["image_id"]

    def _read_annotations(self, content: dict[str, Any]) -> None:
        names = {}
        for where, image in self._entries(self._get(content, "images", "the file"), "image"):
            names[self._get(image, "id", where)] = key = str(self._get(image, "file_name", where))
            self._boxes[key] = []
            if isinstance(image["id"], int):
                self._ids[key] = image["id"]
        persons = {c.get("id") for _, c in self._entries(content.get("categories", []), "category")
                   if c.get("name") == "person"}  # fmt: skip
        for where, entry in self._entries(content["annotations"], "annotation"):
            if entry.get("iscrowd") or (persons and entry.get("category_id") not in persons):
                continue
            image_id = self._get(entry, "image_id", where)
            if image_id not in names:
                raise InputError(f"{self.path}: {where} is of image {image_id}, which 'images' does not list")
            box = self._corners(self._get(entry, "bbox", where), where)
            self._boxes[names[image_id]].append((box, self._score(entry, where)))

    def _read_mapping(self, content: dict[str, Any]) -> None:
        for name, boxes in content.items():
            if not isinstance(boxes, list):
                raise InputError(f"{self.path}: {name!r} needs a list of boxes [[x0, y0, x1, y1], ...]")
            self._boxes[name] = [(self._numbers(box, f"a box of {name!r}"), 1.0) for box in boxes]

    def _entries(self, entries: Any, what: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """The entries of a list, each with the words that name it in an error."""
        if not isinstance(entries, list):
            raise InputError(f"{self.path}: its {what} list is not a list")
        for index, entry in enumerate(entries):
            if not isinstance(entry, dict):
                raise InputError(f"{self.path}: {what} {index} is {entry!r:.60}, not an object with keys")
            yield f"{what} {index}", entry

    def _get(self, entry: dict[str, Any], key: str, where: str) -> Any:
        if key not in entry:
            raise InputError(f"{self.path}: {where} has no {key!r}; add it")
        return entry[key]

    def _corners(self, bbox: Any, where: str) -> list[float]:
        x, y, width, height = self._numbers(bbox, f"'bbox' of {where}")
        return [x, y, x + width, y + height]

    def _numbers(self, box: Any, where: str) -> list[float]:
        if not isinstance(box, list) or len(box) != 4 or not all(_is_number(number) for number in box):
            raise InputError(f"{self.path}: {where} is {box!r:.60}; it must be four numbers")
        return [float(number) for number in box]

    def _score(self, entry: dict[str, Any], where: str) -> float:
        score = entry.get("score", 1.0)
        if not _is_number(score):
            raise InputError(f"{self.path}: 'score' of {where} is {score!r:.60}; it must be a number")
        return float(score)


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


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
