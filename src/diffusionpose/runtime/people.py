"""Who is in the picture: person detectors."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import numpy as np

from diffusionpose.runtime.boxes import Boxes

AUTO, WHOLE = SIMPLE = ("auto", "whole")  # names of detectors that need no other package
MIN_SCORE = 0.3  # of a person's box
MAX_PERSONS = 100  # COCO's official limit of detections a picture


class PersonDetector(ABC):
    """Finds the persons in pictures.

    Attributes:
        batch_size: as many pictures at once suit :meth:`detect` best.
        detect_every: in a video it looks at every n-th frame, unless it is told otherwise.
    """

    batch_size: int = 1
    detect_every: int = 1

    @abstractmethod
    def detect(self, images: Sequence[np.ndarray]) -> list[Boxes]:
        """Persons of each picture (H, W, 3) uint8 RGB: (n, 4) float32 xyxy, scores (n,), highest first."""

    def __call__(self, image: np.ndarray) -> Boxes:
        """Persons of one picture (H, W, 3) uint8 RGB: boxes (n, 4) float32 xyxy, scores (n,)."""
        return self.detect([image])[0]

    def identity(self) -> str:
        """Which detector it is, its weights included: a job that goes on must find the same again."""
        return type(self).__name__


class FunctionDetector(PersonDetector):
    """A detector made of a function of your own that takes one picture and returns boxes and scores."""

    def __init__(self, function: Callable[[np.ndarray], Boxes]) -> None:
        self._function = function

    def detect(self, images: Sequence[np.ndarray]) -> list[Boxes]:
        """What the function returns for each picture."""
        return [self._function(image) for image in images]


class WholeImage(PersonDetector):
    """Takes the whole picture as one person: for pictures that show one, and fill with it."""

    def detect(self, images: Sequence[np.ndarray]) -> list[Boxes]:
        """One box for each picture, the picture, with score 1."""
        return [
            (np.array([[0, 0, image.shape[1], image.shape[0]]], np.float32), np.ones(1, np.float32))
            for image in images
        ]
