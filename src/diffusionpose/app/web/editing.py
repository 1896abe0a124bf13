"""The picture a visitor works on, and the boxes around the persons in it: every change gives a new one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from diffusionpose.app.web.analysis import MOST_PERSONS, check_boxes
from diffusionpose.app.web.views import draw_boxes, draw_cross, shrink
from diffusionpose.errors import InputError

LONGEST = 1024  # pixels of the longer side of what is shown
LEAST = 0.01  # the smaller side of a box drawn by hand, in shares of the picture's longer side


@dataclass(frozen=True, eq=False)
class Editor:
    """One visitor's picture.

    Attributes:
        path: of the file.
        size: (width, height) of the picture.
        preview: (h, w, 3) uint8 RGB, the picture at the size it is shown at.
        boxes: (n, 4) float32 xyxy, image pixels.
        scores: (n,) of the boxes; 1 for those drawn by hand.
        corner: (x, y) of a box of which only one corner is drawn, image pixels.
        guessed: whether the boxes are only there because nobody has looked for persons yet.
        mistyped: what is wrong with the table of boxes as it stands on the page; empty where nothing is.
    """

    path: Path
    size: tuple[int, int]
    preview: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray
    corner: tuple[float, float] | None = None
    guessed: bool = False
    mistyped: str = ""

    @classmethod
    def of(cls, path: Path, image: np.ndarray, boxes: np.ndarray, scores: np.ndarray) -> Editor:
        """A picture (H, W, 3) as it was loaded, with its first boxes."""
        size = (image.shape[1], image.shape[0])
        boxes = np.asarray(boxes, np.float32).reshape(-1, 4)[:MOST_PERSONS]
        guessed = len(boxes) == 1 and bool((boxes[0] == (0, 0, *size)).all())
        return cls(path, size, shrink(image, LONGEST), boxes, scores[: len(boxes)], guessed=guessed)

    @property
    def scale(self) -> float:
        """Pixels of the preview per pixel of the picture."""
        return self.preview.shape[1] / self.size[0]

    def tapped(self, x: float, y: float) -> Editor:
        """The visitor pointed at a pixel of the preview: the first corner of a box, or its opposite.

        The second corner takes the place of a box that was only guessed.

        Raises:
            InputError: the box would be tiny, or one too many.
        """
        point = ((x + 0.5) / self.scale, (y + 0.5) / self.scale)
        if self.corner is None:
            return replace(self, corner=point)
        ends = np.array([self.corner, point], np.float32)
        box = np.concatenate([ends.min(axis=0), ends.max(axis=0)])
        if (box[2:] - box[:2]).min() < LEAST * max(self.size):
            raise InputError(
                "These two corners are too close together: tap the opposite corner of the person."
            )
        kept = self._without(0) if self.guessed else self
        return kept._with(box)

    def whole(self) -> Editor:
        """With the whole picture as the only box."""
        return self._changed(np.array([[0, 0, *self.size]], np.float32), np.ones(1, np.float32))

    def undone(self) -> Editor:
        """Without the last thing drawn: a first corner, else the last box."""
        return replace(self, corner=None) if self.corner else self._without(max(len(self.boxes) - 1, 0))

    def emptied(self) -> Editor:
        """Without any box."""
        return self._changed(self.boxes[:0], self.scores[:0])

    def tabled(self, rows: Sequence[Sequence[Any]]) -> Editor:
        """With the boxes of a table of x0, y0, x1, y1; rows without any entry are left out.

        Raises:
            InputError: a row that is not four numbers, too many rows, or a box that is outside the picture or
                has no area.
        """
        boxes, scores = [], []
        known = {tuple(map(_shown, box)): index for index, box in enumerate(self.boxes)}
        for number, row in enumerate(rows, start=1):
            if all(_empty(cell) for cell in row):
                continue
            try:
                box = np.array([float(cell) for cell in row], np.float32)
            except (TypeError, ValueError) as error:
                raise InputError(f"Box {number}: fill in four numbers x0, y0, x1, y1.") from error
            if len(box) != 4 or not np.isfinite(box).all():
                raise InputError(f"Box {number}: fill in four numbers x0, y0, x1, y1.")
            index = known.get(tuple(map(_shown, box)))  # untouched rows keep their decimals and their score
            boxes.append(box if index is None else self.boxes[index])
            scores.append(1.0 if index is None else float(self.scores[index]))
        _check_count(len(boxes))
        changed = self._changed(np.array(boxes, np.float32).reshape(-1, 4), np.array(scores, np.float32))
        check_boxes(changed.boxes, self.size)
        return changed

    def table(self) -> list[list[float]]:
        """The boxes as rows of whole pixels."""
        return [[_shown(number) for number in box] for box in self.boxes]

    def picture(self) -> np.ndarray:
        """The preview with its boxes, numbered from 1, and the corner drawn so far."""
        drawn = draw_boxes(self.preview, self.boxes * self.scale)
        if self.corner:
            draw_cross(drawn, *(part * self.scale for part in self.corner))
        return drawn

    def _with(self, box: np.ndarray) -> Editor:
        _check_count(len(self.boxes) + 1)
        return self._changed(np.vstack([self.boxes, box]), np.append(self.scores, np.float32(1)))

    def _without(self, index: int) -> Editor:
        return self._changed(
            np.delete(self.boxes, slice(index, index + 1), 0), np.delete(self.scores, slice(index, index + 1))
        )

    def _changed(self, boxes: np.ndarray, scores: np.ndarray) -> Editor:
        return replace(self, boxes=boxes, scores=scores, corner=None, guessed=False)


def _check_count(count: int) -> None:
    if count > MOST_PERSONS:
        raise InputError(f"At most {MOST_PERSONS} persons at a time, please: delete a box first.")


def _shown(number: float) -> float:
    return float(round(float(number)))


def _empty(cell: Any) -> bool:
    return cell is None or cell == "" or (isinstance(cell, float) and np.isnan(cell))
