"""The tab for clips, without its layout: persons of a video's first seconds, followed in bounded time."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from diffusionpose.app.web.front_door import MILLION, Limits
from diffusionpose.app.web.picture import (
    MOST_STEPS,
    Handlers,
    Options,
    Parts,
    best_of,
    counted,
    new_folder,
    notice,
)
from diffusionpose.errors import InputError
from diffusionpose.runtime.boxes import Boxes
from diffusionpose.runtime.estimator import PoseEstimator
from diffusionpose.runtime.people import PersonDetector, WholeImage
from diffusionpose.runtime.video.following import VideoPoses
from diffusionpose.runtime.video.reading import Frame, VideoFile
from diffusionpose.runtime.video.writing import draw_video

MOST_FRAMES = 300
MOST_SECONDS = 20.0
MOST_IN_FRAME = 12  # persons
LIMIT = f"{MOST_SECONDS:g} s and {MOST_FRAMES} frames"
FRAME_MEGAPIXELS = 9  # 4096 x 2160; the encoder holds some twenty frames, so pictures may be larger

WELCOME = f"Drop a video of people above. At most {LIMIT} are used."
LOADED = "Now follow the people."
NOTHING = "There is no video yet: drop one."
GONE = "This video was loaded long ago and is no longer kept: please load it again."
SHOWN_EVERY = 0.3  # seconds between two answers while a clip is at work
STARTS = '<progress></progress><p class="summary">Waiting for the first frame</p>'


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


class FirstFrames:
    """The first ``MOST_SECONDS`` and ``MOST_FRAMES`` of a video, as a ``VideoSource``.

    Args:
        path: of the file.
        limits: on the pixels of a frame.

    Raises:
        InputError: as of ``VideoFile``.
    """

    live = False

    def __init__(self, path: Path, limits: Limits) -> None:
        pixels = int(min(limits.megapixels, FRAME_MEGAPIXELS) * MILLION)
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
        """Close the file."""
        self._file.close()


class BestPersons(PersonDetector):
    """A detector that finds at most ``MOST_IN_FRAME`` persons, those with the highest scores.

    Attributes:
        left_out: whether there were others.
    """

    def __init__(self, detector: PersonDetector) -> None:
        self.detector = detector
        self.batch_size, self.detect_every = detector.batch_size, detector.detect_every
        self.left_out = False

    def detect(self, images: Sequence[np.ndarray]) -> list[Boxes]:
        """Boxes (n, 4) and scores (n,) of each picture, in the detector's order."""
        found = self.detector.detect(images)
        self.left_out |= any(len(boxes) > MOST_IN_FRAME for boxes, _ in found)
        best = [best_of(scores, MOST_IN_FRAME) for _, scores in found]
        return [(boxes[kept], scores[kept]) for (boxes, scores), kept in zip(found, best, strict=True)]


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
        InputError: no clip that can be used, options that the model cannot take, or a full disk.
    """
    if options.steps is not None and options.steps > MOST_STEPS:
        raise InputError(f"steps: {options.steps} is more than {MOST_STEPS}")
    detector, whole = BestPersons(estimator.detector), isinstance(estimator.detector, WholeImage)
    mine = PoseEstimator(
        estimator.network, detector=detector, steps=options.steps, decode=options.decode, flip=options.flip,
        batch_size=estimator.batch_size,
    )  # fmt: skip
    with ExitStack() as stack:
        source = stack.enter_context(closing(FirstFrames(path, limits)))
        place = new_folder(folder)
        unfinished = stack.enter_context(ExitStack())
        unfinished.callback(shutil.rmtree, place, ignore_errors=True)
        output, ids, count = place / f"{path.stem}.mp4", set(), 0
        poses = VideoPoses(mine, float(source.facts.rate), smooth=smooth)
        for frame, persons in stack.enter_context(
            closing(draw_video(source, poses, output, boxes=not whole))
        ):
            ids |= {person.id for person in persons}
            count = frame.index + 1
            os.utime(place)  # what is at work is not old, and not swept away
            yield Progress(count, max(count, source.facts.frames or 0))
        unfinished.pop_all()
        remarks = [
            *([f"The clip goes on after these: at most {LIMIT} are used."] if source.more else []),
            *(["No detector looks for persons, so each whole frame counts as one."] if whole else []),
            *([f"Of the persons in a frame the best {MOST_IN_FRAME} are used."] if detector.left_out else []),
            *(f"{problem}." for problem in source.problems),
        ]
        yield Followed(output, output.with_suffix(".jsonl"), count, len(ids), remarks)


# --- what the tab shows next ---


def load_clip(path: str | None) -> Parts:
    """A clip was loaded, or taken off (None): nothing of the one before stays."""
    return {"clip_notice": notice(LOADED if path else WELCOME), "clip_bar": "", **_results(False)}


def run_clip(handlers: Handlers, path: str | None, options: Options, smooth: bool) -> Iterator[Parts]:
    """What the tab shows from the press of its button on.

    Args:
        handlers: of the page; their model, limits and folder are used.
        path: of the clip; None where there is none.
        options: of the network.
        smooth: smooth the joints over time.
    """
    if path is None or not Path(path).is_file():
        yield {"clip_notice": notice(NOTHING if path is None else GONE, alert=True)}
        return
    said = notice("Finding the poses, one frame after the other.")
    yield {"clip_bar": STARTS, "clip_notice": said, **_results(False)}
    shown = 0.0
    try:
        job = follow(handlers.estimator, Path(path), options, smooth, handlers.limits, handlers.folder)
        with closing(job):
            for news in job:
                if isinstance(news, Followed):
                    yield _finished(news)
                elif time.monotonic() - shown >= SHOWN_EVERY:
                    yield {"clip_bar": progress_bar(news)}
                    shown = time.monotonic()
    except (InputError, OSError) as error:
        yield {"clip_notice": notice(handlers.reason(error), alert=True), "clip_bar": ""}


def progress_bar(progress: Progress) -> str:
    """How far a clip is, in HTML."""
    return (
        f'<progress value="{progress.done}" max="{progress.total}"></progress>'
        f'<p class="summary">Frame {progress.done} of {progress.total}</p>'
    )


def _results(there: bool) -> Parts:
    """The results, or the words in their place."""
    import gradio as gr

    return {"clip_waiting": gr.update(visible=not there), "clip_results": gr.update(visible=there)}


def _finished(followed: Followed) -> Parts:
    text = f"{counted(followed.frames, 'frame')}, {counted(followed.persons, 'person')}."
    remarks = "".join(f'<p class="summary">{escape(remark)}</p>' for remark in followed.remarks)
    return {
        "clip_notice": notice(text) + remarks,
        "clip_bar": "",
        **_results(True),
        "clip_video": str(followed.video),
        "clip_mp4": str(followed.video),
        "clip_lines": str(followed.lines),
    }
