"""A visitor's clip: the persons of its first seconds, followed and drawn, in bounded time and memory."""

from __future__ import annotations

import os
import secrets
import shutil
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from diffusionpose.app.web.files import MILLION, Limits
from diffusionpose.app.web.handlers import MOST_PERSONS, MOST_STEPS, Handlers, Options, notice
from diffusionpose.app.web.parts import ONE_AT_A_TIME, QUICK, SCROLL, Parts, named, on
from diffusionpose.errors import InputError
from diffusionpose.runtime.boxes import Boxes
from diffusionpose.runtime.estimator import PoseEstimator
from diffusionpose.runtime.people import PersonDetector, WholeImage
from diffusionpose.runtime.video.following import VideoPoses
from diffusionpose.runtime.video.reading import Frame, VideoFile, check_extra
from diffusionpose.runtime.video.writing import draw_video

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


class Surest(PersonDetector):
    """A detector that finds at most ``MOST_PERSONS``, those with the highest scores.

    Attributes:
        left_out: whether there were others.
    """

    def __init__(self, detector: PersonDetector) -> None:
        self.detector = detector
        self.detect_every = detector.detect_every
        self.left_out = False

    def detect(self, images: Sequence[np.ndarray]) -> list[Boxes]:
        """Boxes (n, 4) and scores (n,) of each picture, in the detector's order."""
        return [self._surest(*found) for found in self.detector.detect(images)]

    def _surest(self, boxes: np.ndarray, scores: np.ndarray) -> Boxes:
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
        estimator.network,
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


# The part of the page for clips

WELCOME = f"Drop a video of people above. At most {LIMIT} are used."
LOADED = "Now follow the people."
NOTHING = "There is no video yet: drop one."
GONE = "This video was loaded long ago and is no longer kept: please load it again."
WAITING = "The video with its poses appears here."
SHOWN_EVERY = 0.3  # seconds between two answers while a clip is at work
STARTS = '<progress></progress><p class="summary">Waiting for the first frame</p>'


def loaded(path: str | None) -> Parts:
    """What the tab shows once a clip is there, or was taken off (None): nothing of the one before."""
    return {"clip_notice": notice(LOADED if path else WELCOME), "clip_bar": "", **_results(False)}


def answers(
    handlers: Handlers, path: str | None, steps: int | None, flip: bool, smooth: bool
) -> Iterator[Parts]:
    """What the tab shows from the press of its button on.

    Args:
        handlers: of the page; their model, limits and folder are used.
        path: of the clip; None where there is none.
        steps, flip: as of ``Options``.
        smooth: smooth the joints over time.
    """
    if path is None or not Path(path).is_file():
        yield {"clip_notice": notice(NOTHING if path is None else GONE, alert=True)}
        return
    said = notice("Finding the poses, one frame after the other.")
    yield {"clip_bar": STARTS, "clip_notice": said, **_results(False)}
    options, shown = Options(steps, flip, handlers.decode), 0.0
    job = follow(handlers.estimator, Path(path), options, smooth, handlers.limits, handlers.folder)
    try:
        with closing(job):
            for news in job:
                if isinstance(news, Followed):
                    yield _done(news)
                elif time.monotonic() - shown >= SHOWN_EVERY:
                    yield {"clip_bar": bar(news)}
                    shown = time.monotonic()
    except InputError as error:
        yield {"clip_notice": notice(str(error), alert=True), "clip_bar": ""}


def bar(progress: Progress) -> str:
    """How far a clip is, in HTML."""
    return (
        f'<progress value="{progress.done}" max="{progress.total}"></progress>'
        f'<p class="summary">Frame {progress.done} of {progress.total}</p>'
    )


def _results(there: bool) -> Parts:
    """The results, or the words in their place."""
    import gradio as gr

    return {"clip_waiting": gr.update(visible=not there), "clip_results": gr.update(visible=there)}


def _done(followed: Followed) -> Parts:
    frames, persons = followed.frames, followed.persons
    said = f"{frames} frame{'s' * (frames != 1)}, {persons} person{'s' * (persons != 1)}."
    remarks = "".join(f'<p class="summary">{escape(remark)}</p>' for remark in followed.remarks)
    return {
        "clip_notice": notice(said) + remarks,
        "clip_bar": "",
        **_results(True),
        "clip_video": str(followed.video),
        "clip_mp4": str(followed.video),
        "clip_lines": str(followed.lines),
    }


def clip_tab(handlers: Handlers) -> None:
    """Lay out and wire the tab; without the extra ``video`` it says so and holds nothing else."""
    import gradio as gr

    try:
        check_extra()
    except InputError as error:
        gr.HTML(notice(str(error)), elem_id="clip_missing")
        return
    with gr.Row(equal_height=False):
        with gr.Column(scale=5, min_width=320):
            parts = _given(handlers)
        with gr.Column(scale=6, min_width=320):
            parts |= _shown()
    _wire(parts, handlers)


def _given(handlers: Handlers) -> Parts:
    import gradio as gr

    model = handlers.estimator.network
    # no gr.Video: its editor gets a program from elsewhere
    drop: Any = gr.File(label="Video", show_label=False, file_types=["video"], height=180, elem_id="clip")
    drop.preprocess = lambda payload: None if payload is None else payload.path  # as it came
    parts: Parts = {"clip": drop, "clip_notice": gr.HTML(notice(WELCOME), elem_id="clip_notice")}
    parts["follow"] = gr.Button("Follow the people", variant="primary", size="lg")
    with gr.Accordion("Options", open=False):
        parts["steps"] = gr.Slider(
            0, MOST_STEPS, 1, step=1, label="Diffusion steps of each frame",
            visible=model.any_steps,
        )  # fmt: skip
        parts["flip"] = gr.Checkbox(
            False, label="Average with the mirrored picture", info="Takes twice as long.",
            visible=not model.flip_inside,
        )  # fmt: skip
        parts["smooth"] = gr.Checkbox(True, label="Smooth the joints over time")
    return parts


def _shown() -> Parts:
    import gradio as gr

    parts: Parts = {"clip_bar": gr.HTML(elem_id="clip_bar")}
    parts["clip_waiting"] = gr.HTML(f"<p>{WAITING}</p>", elem_id="clip_waiting", elem_classes="waiting")
    with gr.Column(visible=False, elem_id="clip_results") as parts["clip_results"]:
        parts["clip_video"] = gr.Video(
            interactive=False, show_label=False, buttons=[], autoplay=True, loop=True, elem_id="clip_video"
        )
        with gr.Row(elem_classes="files"):
            parts["clip_mp4"] = gr.DownloadButton("Video (MP4)", size="sm")
            parts["clip_lines"] = gr.DownloadButton("Keypoints (JSON lines)", size="sm")
    return parts


def _wire(parts: Parts, handlers: Handlers) -> None:
    takes_steps = handlers.estimator.network.any_steps
    names = ("clip_notice", "clip_bar", "clip_waiting", "clip_results")
    done = (*names, "clip_video", "clip_mp4", "clip_lines")

    def run(path: str | None, steps: int, flip: bool, smooth: bool) -> Iterator[dict[Any, Any]]:
        for answer in answers(handlers, path, int(steps) if takes_steps else None, flip, smooth):
            yield named(parts, answer)

    given = [parts[name] for name in ("clip", "steps", "flip", "smooth")]
    options = {**ONE_AT_A_TIME, "show_progress": "hidden", "api_name": "clip"}
    ran = parts["follow"].click(run, given, [parts[name] for name in done], **options)
    ran.success(None, js=SCROLL.format(notice="clip_notice", results="clip_results"))
    on(parts, parts["clip"].change, loaded, [parts["clip"]], names, **QUICK)
