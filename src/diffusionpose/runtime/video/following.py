"""Persons of a video: found, followed from frame to frame with an identity that lasts, and posed.

Identities are ByteTrack's, by the package ``trackers``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice
from typing import Any

import numpy as np

from diffusionpose.errors import InputError
from diffusionpose.journal import Journal
from diffusionpose.poses import VISIBLE_SCORE, Confidence, Pose, pose_score
from diffusionpose.runtime.boxes import Boxes, PeopleFile, usable_boxes
from diffusionpose.runtime.drawing import drawn_joints
from diffusionpose.runtime.estimator import PoseEstimator, Request
from diffusionpose.runtime.people import box_overlaps
from diffusionpose.runtime.video.reading import Frame, import_extra
from diffusionpose.runtime.video.smoothing import KalmanFilter

NEW_SCORE = 0.5  # a box with a lower score only goes on with a person who is known
LEAST_SCORE = 0.1  # boxes with a lower score are not even used for that (ByteTrack)
LEAST_OVERLAP = 0.1  # IoU of a box with where its person is expected
FORGET = 1.0  # seconds out of sight after which a person who comes back is someone new
NOMINAL = 30.0  # frames/s in which ``trackers`` counts how long it remembers
MARGIN = 0.1  # a person's box reaches this far beyond their joints, as a share of the joints' extent
SEEN_SHARE = 1 / 3  # of the joints; a person of whom less is seen is not followed further
TAKEN = 0.5  # IoU of a person who is not seen with one who is, who then has taken their place
LEAST_SIZE = 8  # pixels; a smaller extent of the joints is no person's
HELD_BYTES = 200_000_000  # frames that go through the network together take at most about this much memory


@dataclass(frozen=True, eq=False)
class Person:
    """A person in one frame."""

    id: int  # the same in all frames; 1 for the first person of the video
    pose: Pose  # in pixels of the frame; its box is the one the network looked at


FrameResult = tuple[Frame, list[Person]]


class VideoPoses:
    """Finds the persons of each frame of a video and follows them.

    Args:
        estimator: finds the poses; its detector finds the persons.
        rate: frames per second, about.
        detect_every: the detector looks at every n-th frame; in those between, persons are followed by
            their poses. None for the detector's own ``detect_every``.
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
            detect_every = 1 if boxes is not None else estimator.detector.detect_every
        if detect_every < 1:
            raise InputError(f"detect every: {detect_every} must be 1 (each frame) or more")
        self.estimator = estimator
        self.skeleton = estimator.skeleton
        self.detect_every = detect_every
        self.boxes = boxes
        self.from_last = from_last
        self._following = Following((detect_every - 1) / rate, smooth, bridge=boxes is None)
        self._next_look = 0

    def __call__(self, frames: Iterable[Frame], journal: Journal | None = None) -> Iterator[FrameResult]:
        """Each frame with its persons, in order, in constant memory.

        What the journal of an interrupted run over the same frames with the same settings holds is taken from
        there, and what is found from then on is added; InputError where it is of other frames.
        """
        frames = iter(frames)
        first = next(frames, None)
        if first is None:
            return
        # frames share a pass through the network, but where each needs the one before
        alone = self.detect_every > 1 or self.boxes or self.from_last
        count = 1 if alone else max(1, min(self.estimator.batch_size, HELD_BYTES // first.image.nbytes))
        frames, known = chain([first], frames), iter(journal or ())
        while together := list(islice(frames, count)):
            rows = next(known, None)
            if journal and rows is not None and len(rows) != len(together):
                raise InputError(f"{journal.path}: is of another video; remove it")
            yield from self._persons(together, rows, journal)

    def _persons(
        self, frames: Sequence[Frame], known: list[dict[str, Any]] | None, journal: Journal | None
    ) -> Iterator[FrameResult]:
        """Frames with their persons: from what the journal knows, or newly found.

        A row of the journal has a frame's "boxes" (x0, y0, x1, y1, score each; None where the detector does
        not look) and "poses" (COCO results), rounded: what goes on is what the journal holds.
        """
        rows: list[dict[str, Any]] = known or [{"boxes": self._detected(frame)} for frame in frames]
        places = []
        for frame, row in zip(frames, rows, strict=True):
            found = None
            if row["boxes"] is not None:
                self._next_look = frame.index + self.detect_every
                numbers = np.array(row["boxes"], np.float32).reshape(-1, 5)
                found = numbers[:, :4], numbers[:, 4]
            places.append(self._following.place(frame.time, found, frame.image.shape[1::-1]))
        if known is None:
            requests = (self._request(*pair) for pair in zip(frames, places, strict=True))
            for row, (_, poses) in zip(rows, self.estimator.stream(requests), strict=True):
                row["poses"] = [pose.to_coco_result(frame.index) for pose in poses]
            if journal:
                journal.append(rows)
        for frame, row, placed in zip(frames, rows, places, strict=True):
            poses = [self._pose(*pair) for pair in zip(placed, row["poses"], strict=True)]
            yield frame, self._following.settle(frame.time, placed, poses)

    def _detected(self, frame: Frame) -> list[list[float]] | None:
        """The "boxes" of a row of the journal."""
        if self.boxes is not None:
            found = self.boxes.frame(frame.index)
            if found is None:
                return None
        elif frame.index < self._next_look:
            return None
        else:
            found = self.estimator.detector(frame.image)
        rows = np.column_stack([np.reshape(found[0], (-1, 4)), found[1]]).astype(float).round(4)
        return [row for row in rows.tolist() if row[4] >= LEAST_SCORE]

    def _request(self, frame: Frame, places: Sequence[Place]) -> Request:
        """What the network shall look at; a joint that was not seen in the last pose has no start there."""
        boxes = np.array([place.box for place in places], np.float32).reshape(-1, 4)
        scores, start = np.array([place.score for place in places], np.float32), None
        if self.from_last and places:
            start = np.zeros((len(places), self.skeleton.num_joints, 3), np.float32)
            for row, place in zip(start, places, strict=True):
                if place.last is not None:
                    seen = place.last.scores >= VISIBLE_SCORE
                    row[seen] = np.column_stack([place.last.keypoints, place.last.scores])[seen]
        return Request(frame.image, boxes, scores, start=start)

    def _pose(self, place: Place, entry: dict[str, Any]) -> Pose:
        """The pose of a row of the journal."""
        triplets = np.array(entry["keypoints"], np.float32).reshape(-1, 3)
        points, scores, sure = triplets[:, :2], triplets[:, 2], Confidence.from_dict(entry)
        return Pose(self.skeleton, points, scores, place.box, pose_score(place.score, scores), sure)


@dataclass(frozen=True, eq=False)
class Place:
    """Where the network shall look for a person."""

    id: int  # of the person
    box: np.ndarray  # (4,) xyxy, pixels
    score: float  # of the box
    last: Pose | None = None  # the person's pose in the frame before; None for a person not seen there


class Following:
    """The persons of a video, frame after frame: :meth:`place`, then the network, then :meth:`settle`.

    Args:
        patience: seconds between two detections, which a person out of sight must outlast.
        smooth: smooth the keypoints.
        bridge: when smoothing, expect a person who is not found for a moment where they were going.
    """

    def __init__(self, patience: float = 0.0, smooth: bool = True, bridge: bool = True) -> None:
        self._tracks = Tracks(FORGET + patience)
        self._filters: dict[int, KalmanFilter] = {}
        self._smooth, self._bridge = smooth, bridge
        self._last: dict[int, tuple[Pose, float]] = {}  # the frame before: pose and box score by id

    def place(self, time: float, detected: Boxes | None, size: tuple[int, int]) -> list[Place]:
        """Where to look for whom in a frame of a time, seconds, and a (width, height).

        ``detected`` is None where the persons of the last frame are followed.
        """
        boxes, scores = self._expected(time) if detected is None else detected
        boxes, kept, _ = usable_boxes(boxes, *size)
        scores = scores[kept]
        numbers = self._tracks.update(boxes, scores, time)
        return [
            Place(number, box, float(score), self._last[number][0] if number in self._last else None)
            for number, box, score in zip(numbers, boxes, scores, strict=True)
            if number is not None
        ]

    def settle(self, time: float, places: Sequence[Place], poses: Sequence[Pose]) -> list[Person]:
        """The persons of a frame, with one pose for each of the places of :meth:`place`.

        After them those who are not seen for a moment, where they are expected.
        """
        persons = [Person(place.id, pose) for place, pose in zip(places, poses, strict=True)]
        scores = {place.id: place.score for place in places}
        if self._smooth:
            persons = [
                replace(one, pose=self._filters.setdefault(one.id, KalmanFilter())(time, one.pose))
                for one in persons
            ]
            boxes = np.array([place.box for place in places], np.float32).reshape(-1, 4)
            for number in sorted(self._filters.keys() - scores.keys()):
                pose = self._unseen(number, time, boxes)
                if pose is None:
                    del self._filters[number]
                else:
                    persons.append(Person(number, pose))
                    scores[number] = pose.score
        self._last = {person.id: (person.pose, scores[person.id]) for person in persons}
        return persons

    def _unseen(self, number: int, time: float, taken: np.ndarray) -> Pose | None:
        """Where a person is who was not found, for as long as they had been seen; None if nobody knows."""
        follow = self._filters[number]
        if not self._bridge or time - follow.time > follow.time - follow.since:
            return None
        pose = follow.predict(time)
        box = None if pose is None else box_of(pose)
        if pose is None or box is None or (box_overlaps(box[None], taken) > TAKEN).any():
            return None
        return replace(pose, box=box)

    def _expected(self, time: float) -> Boxes:
        """Boxes around the last frame's poses, moved on, with the scores of the boxes they were found in."""
        boxes, scores = [], []
        for number, (pose, score) in self._last.items():
            moved = self._filters[number].predict(time) if self._smooth else None
            box = box_of(pose if moved is None else replace(pose, keypoints=moved.keypoints))
            if box is not None:
                boxes.append(box)
                scores.append(score)
        return np.array(boxes, np.float32).reshape(-1, 4), np.array(scores, np.float32)


def box_of(pose: Pose) -> np.ndarray | None:
    """(4,) box around the joints that are drawn, with a margin; None where too few of them are."""
    seen = drawn_joints(pose)
    if seen.sum() < SEEN_SHARE * len(seen):
        return None
    low, high = pose.keypoints[seen].min(axis=0), pose.keypoints[seen].max(axis=0)
    extent = (high - low).max()  # a person seen from the side has joints in a narrow column
    if extent < LEAST_SIZE:
        return None
    return np.concatenate([low - MARGIN * extent, high + MARGIN * extent]).astype(np.float32)


class Tracks:
    """Identities of persons, from boxes in frame after frame: 1, 2, .. in the order in which they appear.

    In a time lapse seconds say little: where frames are mostly further apart than a third of ``forget``, a
    person is someone new after three frames out of sight.

    Args:
        forget: seconds out of sight after which a person who comes back is someone new.
    """

    def __init__(self, forget: float = FORGET) -> None:
        self._supervision = import_extra("supervision")
        self._tracker = import_extra("trackers").ByteTrackTracker(
            lost_track_buffer=round(forget * NOMINAL),
            track_activation_threshold=NEW_SCORE,
            high_conf_det_threshold=NEW_SCORE,
            minimum_iou_threshold=LEAST_OVERLAP,
        )
        self._numbers: dict[int, tuple[Any, int]] = {}  # id() of a tracklet -> itself, its person's number
        self._next = 1
        self._longest_period = forget / 3
        self._periods: deque[float] = deque(maxlen=9)  # seconds between the last frames
        self._time: float | None = None  # of the frame before, and the tracker's
        self._clock = 0.0

    def update(self, boxes: np.ndarray, scores: np.ndarray, time: float) -> list[int | None]:
        """The numbers of (n, 4) xyxy boxes with (n,) scores, at a time in seconds, later than the last one.

        None where it is nobody: a low score and no person known there.
        """
        found = self._supervision.Detections(
            xyxy=np.asarray(boxes, np.float32).reshape(-1, 4),
            confidence=np.asarray(scores, np.float32),
            data={"row": np.arange(len(boxes))},
        )
        if self._time is not None:
            self._periods.append(time - self._time)
            usual = float(np.median(self._periods))
            self._clock += (time - self._time) * min(1.0, self._longest_period / usual)
        self._time = time
        tracked = self._tracker.update(found, timestamp=self._clock)
        alive, before = list(self._tracker.tracks), self._numbers
        self._numbers = {}
        for track in alive:
            if id(track) not in before:
                before[id(track)] = track, self._next
                self._next += 1
            self._numbers[id(track)] = before[id(track)]
        by_id = {track.tracker_id: track for track in alive if track.tracker_id != -1}
        unnamed = [track for track in alive if track.tracker_id == -1]
        answer: list[int | None] = [None] * len(boxes)
        rows = tracked.data.get("row", ())
        for box, tracker_id, row in zip(tracked.xyxy, tracked.tracker_id, rows, strict=True):
            track = by_id.get(tracker_id)
            if tracker_id == -1:
                # trackers names a person at the second sight only; its newest tracklets begin at their boxes
                track = next((t for t in unnamed if np.allclose(t.get_state_bbox(), box, atol=0.5)), None)
                unnamed = [other for other in unnamed if other is not track]
            answer[int(row)] = self._numbers[id(track)][1] if track is not None else None
        return answer
