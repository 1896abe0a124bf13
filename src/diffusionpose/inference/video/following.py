"""Persons from frame to frame: where to look for each next, and their smooth poses.

The network is not called here. What a frame adds is where its persons were detected and what the network
found in their boxes; given the same again, the same persons come out, number for number. That is how an
interrupted job finds its place again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from diffusionpose.evaluation.nms import VISIBLE_SCORE
from diffusionpose.inference.detectors import Boxes, usable_boxes
from diffusionpose.inference.video.smoothing import OneEuroFilter
from diffusionpose.inference.video.tracks import FORGET, Tracks
from diffusionpose.poses import Pose

MARGIN = 0.1  # a person's box reaches this far beyond their joints, as a share of the joints' extent
SEEN_SHARE = 1 / 3  # of the joints; a person of whom less is seen is not followed further
LEAST_SIZE = 8  # pixels; a smaller extent of the joints is no person's


@dataclass(frozen=True, eq=False)
class Person:
    """A person in one frame.

    Attributes:
        id: the same in all frames; 1 for the first person of the video.
        pose: in pixels of the frame; its box is the one the network looked at.
    """

    id: int
    pose: Pose


@dataclass(frozen=True, eq=False)
class Place:
    """Where the network shall look for a person.

    Attributes:
        id: of the person.
        box: (4,) xyxy, pixels.
        score: of the box.
        last: the person's pose in the frame before; None for a person not seen there.
    """

    id: int
    box: np.ndarray
    score: float
    last: Pose | None = None


class Following:
    """The persons of a video, frame after frame: :meth:`place`, then the network, then :meth:`settle`.

    Args:
        rate: frames per second, about.
        patience: seconds between two detections, which a person out of sight must outlast.
        smooth: smooth the keypoints.

    Raises:
        InputError: the package ``trackers`` is not installed.
    """

    def __init__(self, rate: float, patience: float = 0.0, smooth: bool = True) -> None:
        self._tracks = Tracks(rate, FORGET + patience)
        self._filters: dict[int, OneEuroFilter] = {}
        self._smooth = smooth
        self._last: dict[int, tuple[Pose, float]] = {}  # the frame before: pose and box score by id

    def place(self, time: float, detected: Boxes | None, size: tuple[int, int]) -> list[Place]:
        """Where to look for whom.

        Args:
            time: of the frame, seconds.
            detected: boxes (n, 4) and scores (n,); None where the persons of the last frame are followed.
            size: (width, height) of the frame.
        """
        boxes, scores = self._expected() if detected is None else detected
        boxes, kept, _ = usable_boxes(boxes, *size)
        scores = scores[kept]
        numbers = self._tracks.update(boxes, scores, time)
        return [
            Place(number, box, float(score), self._last[number][0] if number in self._last else None)
            for number, box, score in zip(numbers, boxes, scores, strict=True)
            if number is not None
        ]

    def settle(self, time: float, places: Sequence[Place], poses: Sequence[Pose]) -> list[Person]:
        """The persons of a frame.

        Args:
            time: as of :meth:`place`.
            places: its answer.
            poses: what the network found there, one for each.
        """
        persons = []
        for place, pose in zip(places, poses, strict=True):
            if self._smooth:
                follow = self._filters.setdefault(place.id, OneEuroFilter())
                size = float((place.box[2:] - place.box[:2]).max())
                pose = replace(pose, keypoints=follow(time, pose.keypoints, pose.scores, size))
            persons.append(Person(place.id, pose))
        self._last = {
            person.id: (person.pose, place.score) for person, place in zip(persons, places, strict=True)
        }
        self._filters = {
            number: follow for number, follow in self._filters.items() if time - follow.time <= follow.gap
        }
        return persons

    def surest(self) -> float:
        """The highest score of a pose in the frame before; 0 where there was nobody."""
        return max((pose.score for pose, _ in self._last.values()), default=0.0)

    def _expected(self) -> Boxes:
        """Boxes around the last frame's poses, with the scores of the boxes they were found in."""
        followed = [(box_around(pose), score) for pose, score in self._last.values()]
        kept = [(box, score) for box, score in followed if box is not None]
        boxes = np.array([box for box, _ in kept], np.float32).reshape(-1, 4)
        return boxes, np.array([score for _, score in kept], np.float32)


def box_around(pose: Pose) -> np.ndarray | None:
    """(4,) box around the joints that are seen, with a margin; None where too few of them are."""
    seen = pose.scores >= VISIBLE_SCORE
    if seen.sum() < SEEN_SHARE * len(seen):
        return None
    low, high = pose.keypoints[seen].min(axis=0), pose.keypoints[seen].max(axis=0)
    if (high - low).max() < LEAST_SIZE:
        return None
    # a person seen from the side has joints in a narrow column: the margin goes by the longer side
    margin = MARGIN * (high - low).max()
    return np.concatenate([low - margin, high + margin]).astype(np.float32)
