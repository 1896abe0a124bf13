"""Who is who: boxes of persons get identities that last, by ByteTrack (the package ``trackers``)."""

from __future__ import annotations

from typing import Any

import numpy as np
import supervision

from diffusionpose.inference.video.extra import import_extra

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
