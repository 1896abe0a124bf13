"""What is asked of the estimator: pictures, the persons in them and, where given, the poses to start from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from diffusionpose.data.images import read_image, to_rgb
from diffusionpose.errors import InputError
from diffusionpose.inference.detectors import Boxes, usable_boxes
from diffusionpose.inference.starts import boxes_of_start, read_start
from diffusionpose.skeletons import Skeleton

ImageLike = str | Path | Image.Image | np.ndarray


@dataclass(frozen=True, eq=False)
class Request:
    """A picture and the persons in it whose poses are wanted.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        boxes: (n, 4) float32 xyxy, image pixels, each with an area inside the picture.
        scores: (n,) of the boxes.
        source: whatever the caller needs to know the picture by.
        start: (n, J, 3) x and y in image pixels and how sure that is, 0 for a joint that is not given: the
            keypoints to start from; None starts from the model's own coarse heatmaps.
    """

    image: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray
    source: Any = None
    start: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class GivenPicture:
    """A picture of a call: its name in messages, its pixels, its persons (None: to be found), their start."""

    name: str
    pixels: np.ndarray
    persons: Boxes | None
    start: np.ndarray | None

    def request(self, persons: Boxes) -> Request:
        """With its persons; InputError where one cannot be used."""
        usable, _, problems = usable_boxes(persons[0], *self.pixels.shape[1::-1])
        if problems:
            raise InputError(f"{self.name}: {'; '.join(problems)}")
        if self.start is not None and len(self.start) != len(usable):
            raise InputError(
                f"{self.name}: {len(usable)} boxes, but a start for {len(self.start)}; give each one"
            )
        return Request(self.pixels, usable, persons[1], start=self.start)


def given_picture(index: int, image: ImageLike, boxes: Any, start: Any, skeleton: Skeleton) -> GivenPicture:
    """A picture of a call, read, with what the caller knows of its persons.

    Args:
        index: of the picture in the call, for messages.
        image: a file, a PIL image or an array.
        boxes: (n, 4) xyxy, or None.
        start: a pose for each box, or None.
        skeleton: of the poses.

    Raises:
        InputError: a picture that cannot be read, boxes that are none, or a start of another skeleton.
    """
    name = str(image) if isinstance(image, (str, Path)) else f"picture {index}"
    triplets = None if start is None else read_start(start, skeleton, name)
    if boxes is None and triplets is not None:
        boxes = boxes_of_start(start, triplets, name)
    return GivenPicture(name, _pixels(image), None if boxes is None else _as_boxes(name, boxes), triplets)


def _as_boxes(name: str, boxes: Any) -> Boxes:
    """Boxes of a caller, each with score 1; InputError where they are none."""
    try:
        boxes = np.asarray(boxes, np.float32)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name}: boxes are not numbers ({error})") from error
    if boxes.size and (boxes.ndim != 2 or boxes.shape[1] != 4):
        raise InputError(f"{name}: boxes of shape {boxes.shape}; give (n, 4): x0, y0, x1, y1 each")
    return boxes.reshape(-1, 4), np.ones(len(boxes), np.float32)


def _pixels(image: ImageLike) -> np.ndarray:
    """(H, W, 3) uint8 RGB of whatever a caller may give as a picture."""
    if isinstance(image, (str, Path)):
        return read_image(image)
    if isinstance(image, Image.Image):
        return to_rgb(image, "PIL image")
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
        raise InputError(
            f"an array of shape {image.shape} and type {image.dtype} is no picture; give (H, W, 3) uint8 RGB"
        )
    return np.ascontiguousarray(image)
