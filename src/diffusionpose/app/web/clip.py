"""A visitor's clip: the persons of its first seconds, followed and drawn, in bounded time and memory."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Generator, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from diffusionpose.app.web.analysis import MOST_PERSONS, MOST_STEPS, Options
from diffusionpose.app.web.upload import MILLION, Limits
from diffusionpose.errors import InputError
from diffusionpose.inference.detectors import Boxes, PersonDetector, WholeImage
from diffusionpose.inference.estimator import PoseEstimator
from diffusionpose.inference.video.copying import draw_video
from diffusionpose.inference.video.frames import Frame
from diffusionpose.inference.video.posing import VideoPoses
from diffusionpose.inference.video.reading import VideoFile

MOST_FRAMES = 300
MOST_SECONDS = 20.0
LIMIT = f"{MOST_SECONDS:g} s and {MOST_FRAMES} frames"
FRAME_MEGAPIXELS = 9  # 4096 x 2160; the encoder holds some twenty frames, so pictures may be larger


@dataclass(frozen=True)
class Progress:
    """How far a clip is: ``done`` of about ``total`` frames are written."""

    done: int
    total: int


@dataclass(frozen=True)
class Followed:
    """A clip that is done.

    Attributes:
        video: the mp4 file.
        lines: the file of JSON lines.
        frames: how many there are in it.
        persons: how many were told apart.
        remarks: what the visitor should know, sentences.
    """

    video: Path
    lines: Path
    frames: int
    persons: int
    remarks: list[str]


class Beginning:
    """The first ``MOST_SECONDS`` and ``MOST_FRAMES`` of a video, as a ``VideoSource``.

    Args:
        path: of the file.
        limits: on the pixels of a frame.

    Raises:
        InputError: as of ``VideoFile``.
    """

    live = False

    def __init__(self, path: Path, limits: Limits) -> None:
        pixels = min(limits.megapixels, FRAME_MEGAPIXELS) * MILLION
        self._file = VideoFile(path, MOST_FRAMES + 1, max_pixels=pixels)  # one more tells that there is more
        self.name = self._file.name
        self.more = False
        facts = self._file.facts
        total = min(facts.frames or MOST_FRAMES, MOST_FRAMES, int(MOST_SECONDS * facts.rate) or 1)
        self.facts = replace(facts, frames=total)
        self.rest: list[Any] = []
        self.problems: list[str] = []

    def __iter__(self) -> Iterator[Frame]:
        """The frames."""
        for frame in self._file:
            if frame.index == MOST_FRAMES or frame.time >= MOST_SECONDS:
                self.more = True
                self.rest = list(frame.packets)  # the sound before it
                return
            yield frame
        self.rest, name = self._file.rest, Path(self.name).name
        self.problems = [problem.replace(self.name, name) for problem in self._file.problems]

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()


class Surest:
    """A detector that finds at most ``MOST_PERSONS``, those with the highest scores.

    Attributes:
        left_out: whether there were others.
    """

    def __init__(self, detector: PersonDetector) -> None:
        self.detector = detector
        self.detect_every = getattr(detector, "detect_every", 1)
        self.finds_one = getattr(detector, "finds_one", False)
        self.left_out = False

    def __call__(self, image: np.ndarray) -> Boxes:
        """Boxes (n, 4) and scores (n,), in the detector's order."""
        boxes, scores = self.detector(image)
        if len(boxes) <= MOST_PERSONS:
            return boxes, scores
        self.left_out = True
        kept = np.sort(np.argsort(-scores, kind="stable")[:MOST_PERSONS])
        return boxes[kept], scores[kept]


def follow(
    estimator: PoseEstimator, path: Path, options: Options, smooth: bool, limits: Limits, folder: Path
) -> Generator[Progress | Followed]:
    """Find and follow the persons of a clip.

    Args:
        estimator: whose model and detector are used.
        path: of the clip.
        options: of the network.
        smooth: smooth the joints over time.
        limits: on the clip.
        folder: gets a new folder with the results; it is removed again where there are none.

    Yields:
        how far it is, frame by frame, and what came of it.

    Raises:
        InputError: no clip that can be used (named without its folder), or options the model cannot take.
    """
    mine = _with_options(estimator, surest := Surest(estimator.detector), options)
    place = folder / secrets.token_urlsafe(12)
    with ExitStack() as stack:
        stack.enter_context(_without_folders(path.parent, place))
        source = Beginning(path, limits)
        stack.callback(source.close)
        place.mkdir(parents=True)
        unfinished = stack.enter_context(ExitStack())
        unfinished.callback(shutil.rmtree, place, ignore_errors=True)
        output, ids, count = place / f"{path.stem}.mp4", set(), 0
        poses = VideoPoses(mine, float(source.facts.rate), smooth=smooth)
        boxes = not isinstance(estimator.detector, WholeImage)
        for frame, persons in stack.enter_context(closing(draw_video(source, poses, output, boxes=boxes))):
            ids |= {person.id for person in persons}
            count = frame.index + 1
            os.utime(place)  # what is at work is not old
            yield Progress(count, max(count, source.facts.frames or 0))
        unfinished.pop_all()
        remarks = _remarks(source, whole=not boxes, left_out=surest.left_out)
        yield Followed(output, output.with_suffix(".jsonl"), count, len(ids), remarks)


def _with_options(estimator: PoseEstimator, detector: PersonDetector, options: Options) -> PoseEstimator:
    """The same model with a visitor's options; InputError where it cannot take them."""
    if options.steps is not None and options.steps > MOST_STEPS:
        raise InputError(f"steps: {options.steps} is more than {MOST_STEPS}")
    return PoseEstimator(
        estimator.model,
        device=str(estimator.model.device),
        detector=detector,
        steps=options.steps,
        decode=options.decode,
        flip=options.flip,
        batch_size=estimator.batch_size,
    )


def _remarks(source: Beginning, whole: bool, left_out: bool) -> list[str]:
    """What is worth knowing about a clip that is done."""
    remarks = []
    if source.more:
        remarks.append(f"The clip goes on after these: at most {LIMIT} are used.")
    if whole:
        remarks.append("No detector looks for persons, so each whole frame counts as one.")
    if left_out:
        remarks.append(f"Of the persons in a frame the {MOST_PERSONS} surest are used.")
    return remarks + [f"{problem}." for problem in source.problems]


@contextmanager
def _without_folders(*folders: Path) -> Iterator[None]:
    """What is said does not name our folders, which the visitor does not know."""
    try:
        yield
    except InputError as error:
        text = str(error)
        for folder in folders:
            text = text.replace(f"{folder}{os.sep}", "")
        raise InputError(text) from error
