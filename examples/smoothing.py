"""Measure the smoothing of `diffusionpose video`: jitter, lag and error of none, One-Euro and Kalman filter.

python examples/smoothing.py VIDEO... [--photos IMAGES ANNOTATIONS.json]   # photographs: moved to and fro

The three smooth the same poses. Sizes are of the person: the longer side of the box. Jitter is the mean of
|x(t+1) - 2 x(t) + x(t-1)| in % of the size. Lag is the delay at which the reference fits best, error the mean
distance from it. Reference is, for videos, the track itself without its noise (median of 3 frames, then a
centred parabola over 7, which cannot be late); for photographs the truth, but for its constant part, as no
smoothing changes that.
"""

import argparse
import json
import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from diffusionpose import Pose, PoseEstimator
from diffusionpose.data.annotations import read_annotations
from diffusionpose.data.pictures import find_pictures
from diffusionpose.runtime.boxes import PeopleFile
from diffusionpose.runtime.video.following import VideoPoses
from diffusionpose.runtime.video.reading import Frame, VideoFile
from diffusionpose.runtime.video.smoothing import KalmanFilter

FRAMES, LEAST, PERSONS = 60, 20, 6  # of a clip at most, of a track at least, of photographs
SETTLED = 6  # frames after which a filter is measured
REACH = 0.15  # sizes each way that a photograph moves
PERIODS = {"slow": 3.2, "fast": 0.8}  # seconds to and fro: at most 0.3 and 1.2 sizes/s
DELAYS = np.arange(0, 4.01, 0.1)  # frames
SEEN = 0.2  # score of a joint that is measured
MEASURES = ("jitter", "lag", "error")


@dataclass
class Track:
    """A person in consecutive frames."""

    times: np.ndarray
    poses: list[Pose]
    truth: np.ndarray | None = None  # (n, 2) pixels that the person has moved

    @property
    def points(self) -> np.ndarray:
        """(n, J, 2) pixels."""
        return np.stack([pose.keypoints for pose in self.poses]).astype(float)


class OneEuro:
    """Casiez, Roussel and Vogel, CHI 2012, Algorithm 1, in sizes; an unsure joint moves less."""

    def __init__(self, min_cutoff: float = 3.0, beta: float = 16.0) -> None:
        self.min_cutoff, self.beta, self.time = min_cutoff, beta, None

    def __call__(self, time: float, pose: Pose) -> Pose:
        """The smooth pose."""
        size, points = (pose.box[2:] - pose.box[:2]).max(), pose.keypoints.astype(float)
        if self.time is None:
            self.points, self.speed = points, np.zeros_like(points)
        else:
            period, weight = time - self.time, np.clip(pose.scores / 0.5, 0, 1)[:, None]
            alpha = lambda cutoff: weight / (1 + 1 / (2 * math.pi * cutoff * period))  # noqa: E731
            self.speed = self.speed + alpha(1.0) * ((points - self.points) / (period * size) - self.speed)
            cutoff = self.min_cutoff + self.beta * np.linalg.norm(self.speed, axis=1, keepdims=True)
            self.points = self.points + alpha(cutoff) * (points - self.points)
        self.time = time
        return replace(pose, keypoints=self.points)


FILTERS: dict[str, Callable[[], Callable[[float, Pose], Pose]]] = {
    "none": lambda: lambda _, pose: pose,
    "One-Euro": OneEuro,
    "Kalman": KalmanFilter,
}


def tracks_of(estimator: PoseEstimator, video: Path) -> list[Track]:
    """Those of the persons in a video's beginning."""
    with VideoFile(video, FRAMES) as source:
        rate, persons = float(source.facts.rate), {}
        for frame, found in VideoPoses(estimator, rate, detect_every=1, smooth=False)(source):
            for person in found:
                persons.setdefault(person.id, []).append((frame.time, person.pose))
    tracks = []
    for sight in persons.values():
        times = np.array([time for time, _ in sight])
        for part in np.split(np.arange(len(times)), np.flatnonzero(np.diff(times) > 1.5 / rate) + 1):
            if len(part) >= LEAST:
                tracks.append(Track(times[part], [sight[index][1] for index in part]))
    return tracks


def moved_photographs(
    estimator: PoseEstimator, images: Path, file: Path, period: float, folder: Path
) -> Iterator[Track]:
    """A person of each of the first photographs, followed while the photograph moves to and fro."""
    annotations = read_annotations(file).labelled()
    pictures = find_pictures(annotations, images, persons_only=True)
    for person in tqdm(annotations.persons[:PERSONS], leave=False):
        image, size = (
            pictures.read(annotations.images[person.image_id]),
            float((person.box[2:] - person.box[:2]).max()),
        )
        times = np.arange(LEAST + 4) / 25
        truth = np.stack([REACH * size * np.sin(2 * np.pi * times / period), np.zeros_like(times)], axis=1)
        frames = []
        for index, (time, (x, y)) in enumerate(zip(times, truth, strict=True)):
            shift = np.array([[1, 0, x], [0, 1, y]])
            shifted = cv2.warpAffine(image, shift, image.shape[1::-1], borderMode=cv2.BORDER_REPLICATE)
            frames.append(Frame(index, float(time), index, shifted))
        (folder / "boxes.json").write_text(json.dumps({"0": [person.box.tolist()]}))
        poses = VideoPoses(estimator, 25, boxes=PeopleFile(folder / "boxes.json"), smooth=False)
        found = [persons[0].pose for _, persons in poses(frames) if persons]
        if len(found) == len(frames):
            yield Track(times, found, truth)


def measure(track: Track, smooth: Callable[[float, Pose], Pose]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Jitter and error in sizes, of all joints and frames, and squared distances by delay."""
    found, points = (
        track.points,
        [smooth(*each).keypoints for each in zip(track.times, track.poses, strict=True)],
    )
    size = np.mean([(pose.box[2:] - pose.box[:2]).max() for pose in track.poses])
    seen = np.stack([pose.scores for pose in track.poses]) >= SEEN
    smoothed = np.array(points, float)
    if track.truth is None:
        middle = found.copy()
        middle[1:-1] = np.median([found[:-2], found[1:-1], found[2:]], axis=0)
        fit = np.linalg.pinv(np.vander(np.arange(-3, 4), 3))[2]
        reference = middle.copy()
        reference[3:-3] = sum(
            w * middle[3 + at : len(middle) - 3 + at] for w, at in zip(fit, range(-3, 4), strict=True)
        )
        jitter = np.diff(smoothed, 2, axis=0)
    else:
        offset = np.mean(found[SETTLED:] - track.truth[SETTLED:, None], axis=0)
        reference = track.truth[:, None] + offset
        jitter = np.diff(smoothed - reference, 2, axis=0)
    used = np.arange(SETTLED, len(found) - 3)
    squares = []
    for delay in DELAYS:
        at, part = np.divmod(used - delay, 1)
        part, at = part[:, None, None], at.astype(int)
        late = (1 - part) * reference[at] + part * reference[np.minimum(at + 1, len(found) - 1)]
        squares.append((((smoothed[used] - late) ** 2).sum(-1) * seen[used]).sum() / size**2)
    apart = np.linalg.norm(smoothed - reference, axis=-1)[used][seen[used]] / size
    return np.linalg.norm(jitter[used - 1], axis=-1)[seen[used]] / size, apart, np.array(squares)


def row(name: str, tracks: Sequence[Track]) -> str:
    """A line of the table."""
    cells = [f"{name} ({len(tracks)} persons)"]
    for make in FILTERS.values():
        jitter, apart, squares = zip(*(measure(track, make()) for track in tracks), strict=True)
        period = np.median(np.concatenate([np.diff(track.times) for track in tracks]))
        lag = 1000 * period * DELAYS[np.sum(squares, axis=0).argmin()]
        moved, error = (100 * np.concatenate(each).mean() for each in (jitter, apart))
        cells.append(f"{moved:.2f} / {lag:.0f} / {error:.2f}")
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("videos", nargs="*", type=Path)
    parser.add_argument("--photos", nargs=2, type=Path)
    words = parser.parse_args()
    estimator = PoseEstimator.from_pretrained(skeleton="coco")
    print(
        "| jitter (%) / lag (ms) / error (%) | "
        + " | ".join(FILTERS)
        + " |\n|---"
        + "|---" * len(FILTERS)
        + "|"
    )
    for video in words.videos:
        print(row(video.name, tracks_of(estimator, video)), flush=True)
    with tempfile.TemporaryDirectory() as place:
        for name, period in PERIODS.items() if words.photos else ():
            print(
                row(
                    f"photographs, {name}",
                    list(moved_photographs(estimator, *words.photos, period, Path(place))),
                ),
                flush=True,
            )
