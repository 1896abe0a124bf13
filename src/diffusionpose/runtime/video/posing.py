"""Poses with identities in a video of any length: the loop over its frames."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np

from diffusionpose.errors import InputError
from diffusionpose.journal import Journal
from diffusionpose.poses import VISIBLE_SCORE, Pose, pose_score
from diffusionpose.runtime.boxes import Boxes, PeopleFile
from diffusionpose.runtime.estimator import PoseEstimator, Request
from diffusionpose.runtime.video.following import Following, Person, Place
from diffusionpose.runtime.video.reading import Frame

LEAST_SCORE = 0.1  # detected boxes with a lower score are not even used to go on with a person (ByteTrack)
HELD_BYTES = 200_000_000  # frames that go through the network together take at most about this much memory

Row = dict[str, Any]


class VideoPoses:
    """Finds the persons of each frame of a video and follows them.

    Args:
        estimator: finds the poses; its detector finds the persons.
        rate: frames per second, about.
        detect_every: the detector looks at every n-th frame; in those between, persons are followed by
            their poses. None for the detector's own ``detect_every``, where it has one, else 1.
        boxes: the persons of some frames, by the number of the frame as its name ("17", or image_id 17);
            they take the place of the detector, and all other frames are those between.
        smooth: smooth the keypoints over time.
        from_last: a person's last pose is where the diffusion starts, in the place of coarse heatmaps.

    Raises:
        InputError: ``detect_every`` is below 1, the model cannot start from a pose, or the extra ``video``
            is not installed.
    """

    def __init__(
        self,
        estimator: PoseEstimator,
        rate: float,
        *,
        detect_every: int | None = None,
        boxes: PeopleFile | None = None,
        smooth: bool = True,
        from_last: bool = False,
    ) -> None:
        if from_last:
            estimator.network.check(start=True)
        if detect_every is None:
            detect_every = 1 if boxes else estimator.detector.detect_every
        if detect_every < 1:
            raise InputError(f"detect every: {detect_every} must be 1 (each frame) or more")
        self.estimator = estimator
        self.detect_every = detect_every
        self.boxes = boxes
        self.from_last = from_last
        self._following = Following(rate, (detect_every - 1) / rate, smooth)

    def __call__(
        self, frames: Iterable[Frame], journal: Journal | None = None
    ) -> Iterator[tuple[Frame, list[Person]]]:
        """Each frame with its persons, in order, in constant memory.

        Args:
            frames: asked for one after the other.
            journal: of an interrupted run over the same frames with the same settings; what it holds is
                taken from there, and what is found from then on is added.

        Raises:
            InputError: the journal is of other frames, or cannot be written.
        """
        frames = iter(frames)
        first = next(frames, None)
        if first is None:
            return
        count = self._frames_together(first.image.nbytes)
        frames = chain([first], frames)
        known = iter(journal) if journal else iter(())
        while together := list(islice(frames, count)):
            rows = next(known, None)
            if rows is not None and len(rows) != len(together):
                raise InputError(f"{journal.path if journal else ''}: is of another video; remove it")
            yield from self._persons(together, rows, journal)

    def _frames_together(self, size: int) -> int:
        """How many frames, each of ``size`` bytes, share a pass; one where each needs the one before."""
        if self.detect_every > 1 or self.boxes or self.from_last:
            return 1
        return max(1, min(self.estimator.batch_size, HELD_BYTES // size))

    def _persons(
        self, frames: Sequence[Frame], known: list[Row] | None, journal: Journal | None
    ) -> Iterator[tuple[Frame, list[Person]]]:
        """Frames with their persons: from what the journal knows, or newly found."""
        rows: list[Row] = known or [{"boxes": self._detected(frame)} for frame in frames]
        places = [
            self._following.place(frame.time, _boxes(row["boxes"]), frame.image.shape[1::-1])
            for frame, row in zip(frames, rows, strict=True)
        ]
        if known is None:
            for row, poses in zip(rows, self._posed(frames, places), strict=True):
                row["poses"] = [_numbers(pose) for pose in poses]
            if journal:
                journal.append(rows)
        for frame, row, placed in zip(frames, rows, places, strict=True):
            poses = [self._pose(*pair) for pair in zip(placed, row["poses"], strict=True)]
            yield frame, self._following.settle(frame.time, placed, poses)

    def _detected(self, frame: Frame) -> list[list[float]] | None:
        """x0, y0, x1, y1, score of each person detected; None where the detector does not look."""
        name = Path(str(frame.index))
        if self.boxes.key(name) is None if self.boxes else frame.index % self.detect_every:
            return None
        boxes, scores = self.boxes.of(name) if self.boxes else self.estimator.detector(frame.image)
        rows = np.column_stack([np.reshape(boxes, (-1, 4)), scores]).astype(np.float64).round(4)
        return [row for row in rows.tolist() if row[4] >= LEAST_SCORE]

    def _posed(self, frames: Sequence[Frame], places: Sequence[Sequence[Place]]) -> Iterator[list[Pose]]:
        """What the network finds in the places of each frame."""
        requests = (
            Request(
                frame.image,
                np.array([place.box for place in placed], np.float32).reshape(-1, 4),
                np.array([place.score for place in placed], np.float32),
                start=self._start(placed),
            )
            for frame, placed in zip(frames, places, strict=True)
        )
        return (poses for _, poses in self.estimator.stream(requests))

    def _start(self, places: Sequence[Place]) -> np.ndarray | None:
        """(n, J, 3) x, y, score of the last poses; 0 for a joint not seen there. None to start from none."""
        if not self.from_last or not places:
            return None
        start = np.zeros((len(places), self.estimator.skeleton.num_joints, 3), np.float32)
        for row, place in zip(start, places, strict=True):
            if place.last is not None:
                seen = place.last.scores >= VISIBLE_SCORE
                row[seen] = np.column_stack([place.last.keypoints, place.last.scores])[seen]
        return start

    def _pose(self, place: Place, numbers: list[float]) -> Pose:
        """The pose of a row of the journal."""
        triplets = np.array(numbers, np.float32).reshape(-1, 3)
        score = pose_score(place.score, triplets[:, 2])
        return Pose(self.estimator.skeleton, triplets[:, :2], triplets[:, 2], place.box, score)


def _boxes(rows: list[list[float]] | None) -> Boxes | None:
    """Boxes and scores of a row of the journal."""
    if rows is None:
        return None
    numbers = np.array(rows, np.float32).reshape(-1, 5)
    return numbers[:, :4], numbers[:, 4]


def _numbers(pose: Pose) -> list[float]:
    """Flat x, y, score triplets, to 1e-4 pixels: what goes on is what the journal holds."""
    triplets = np.column_stack([pose.keypoints, pose.scores]).astype(np.float64).round(4)
    return [float(number) for number in triplets.ravel()]
