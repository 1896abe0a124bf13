"""The part of the page for clips."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from html import escape
from pathlib import Path
from typing import Any

from diffusionpose.app.web.analysis import MOST_STEPS, Options
from diffusionpose.app.web.clip import LIMIT, Followed, Progress, follow
from diffusionpose.app.web.handlers import Handlers, notice
from diffusionpose.app.web.wiring import ONE_AT_A_TIME, QUICK, SCROLL, Parts, named, on
from diffusionpose.errors import InputError
from diffusionpose.inference.video.extra import check_extra
from diffusionpose.models.diffusion_pose import DiffusionPose

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

    model = handlers.estimator.model
    # no gr.Video: its editor gets a program from elsewhere
    drop: Any = gr.File(label="Video", show_label=False, file_types=["video"], height=180, elem_id="clip")
    drop.preprocess = lambda payload: None if payload is None else payload.path  # as it came
    parts: Parts = {"clip": drop, "clip_notice": gr.HTML(notice(WELCOME), elem_id="clip_notice")}
    parts["follow"] = gr.Button("Follow the people", variant="primary", size="lg")
    with gr.Accordion("Options", open=False):
        parts["steps"] = gr.Slider(
            0, MOST_STEPS, 1, step=1, label="Diffusion steps of each frame",
            visible=isinstance(model, DiffusionPose),
        )  # fmt: skip
        parts["flip"] = gr.Checkbox(
            False, label="Average with the mirrored picture", info="Takes twice as long.",
            visible=not getattr(model, "flip_inside", False),
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
    takes_steps = isinstance(handlers.estimator.model, DiffusionPose)
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
