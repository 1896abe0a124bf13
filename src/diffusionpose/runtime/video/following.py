"""Who is who: boxes of persons get identities that last, by ByteTrack (the package ``trackers``)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import supervision

from diffusionpose.poses import VISIBLE_SCORE, Pose
from diffusionpose.runtime.boxes import Boxes, usable_boxes
from diffusionpose.runtime.video.reading import import_extra
from diffusionpose.runtime.video.smoothing import OneEuroFilter

NEW_SCORE = 0.5  # a box with a lower score only goes on with a person who is known
LEAST_OVERLAP = 0.1  # IoU of a box with where its person is expected
FORGET = 1.0  # seconds out of sight after which a person who comes back is someone new
NOMINAL = 30.0  # frames/s in which ``trackers`` counts how long it remembers


class Tracks:
    """Identities of persons, from boxes in frame after frame.

    A person is numbered in the frame in which they appear, 1, 2, .. in this order.

    Args:
        rate: frames per second, about.
        forget: seconds.

    Raises:
        InputError: the package ``trackers`` is not installed.
    """

    def __init__(self, rate: float, forget: float = FORGET) -> None:
        self._tracker = import_extra("trackers").ByteTrackTracker(
            lost_track_buffer=round(forget * NOMINAL),
            frame_rate=rate,
            track_activation_threshold=NEW_SCORE,
            high_conf_det_threshold=NEW_SCORE,
            minimum_iou_threshold=LEAST_OVERLAP,
        )
        self._numbers: dict[int, tuple[Any, int]] = {}  # id() of a tracklet -> itself, its person's number
        self._next = 1

    def update(self, boxes: np.ndarray, scores: np.ndarray, time: float) -> list[int | None]:
        """The persons' numbers.

        Args:
            boxes: (n, 4) xyxy, pixels.
            scores: (n,).
            time: seconds, later than in the call before.

        Returns:
            one for each box; None where it is nobody: a low score and no person known there.
        """
        found = supervision.Detections(
            xyxy=np.asarray(boxes, np.float32).reshape(-1, 4),
            confidence=np.asarray(scores, np.float32),
            data={"row": np.arange(len(boxes))},
        )
        tracked = self._tracker.update(found, timestamp=time)
        alive = list(self._tracker.tracks)
        self._number(alive)
        by_id = {track.tracker_id: track for track in alive if track.tracker_id != -1}
        unnamed = [track for track in alive if track.tracker_id == -1]
        answer: list[int | None] = [None] * len(boxes)
        for box, tracker_id, row in zip(
            tracked.xyxy, tracked.tracker_id, tracked.data.get("row", ()), strict=True
        ):
            # trackers names a person at the second sight only; its newest tracklets begin at their boxes
            track = by_id.get(tracker_id) if tracker_id != -1 else _take_nearest(unnamed, box)
            answer[int(row)] = self._numbers[id(track)][1] if track is not None else None
        return answer

    def _number(self, alive: list[Any]) -> None:
        """Number who is new, forget who is gone."""
        numbers = {}
        for track in alive:
            if id(track) not in self._numbers:
                self._numbers[id(track)] = (track, self._next)
                self._next += 1
            numbers[id(track)] = self._numbers[id(track)]
        self._numbers = numbers


def _take_nearest(tracks: list[Any], box: np.ndarray) -> Any:
    """The tracklet that begins at a box, taken out of the list; None where there is none."""
    for index, track in enumerate(tracks):
        if np.allclose(track.get_state_bbox(), box, atol=0.5):
            return tracks.pop(index)
    return None


# Persons from frame to frame: where to look for each next, and their smooth poses

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
