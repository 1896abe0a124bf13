"""The page: how it looks, how its parts are laid out, and which handler answers what."""

from __future__ import annotations

from abc import ABCMeta
from collections.abc import Callable, Iterable, Iterator
from inspect import isgeneratorfunction
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from diffusionpose.app.web import clip
from diffusionpose.app.web.picture import (
    ALL_JOINTS,
    MOST_STEPS,
    WELCOME,
    Editor,
    Handlers,
    Options,
    Parts,
    new_folder,
    notice,
)
from diffusionpose.bundled import PORTRAIT
from diffusionpose.errors import InputError
from diffusionpose.poses import VISIBLE_SCORE
from diffusionpose.runtime.networks import Network
from diffusionpose.runtime.video.reading import check_extra

KEPT_SECONDS, SWEPT_SECONDS = (
    3600,
    600,
)  # files and pictures of visitors live so long; are looked through so often
WAITING_LINE = 32  # visitors in the queue before the next one is asked to come back later
TITLE = "DiffusionPose"
SENTENCE = "Find the poses of people in a picture or a clip, and watch diffusion refine them step by step."
WAITING = "The poses, the score of each joint, its heatmap and every diffusion step appear here."
CLIP_WAITING = "The video with its poses appears here."
IN_NUMBERS = (
    '<p class="summary">Each person: upper left corner x0, y0 and lower right corner x1, y1, '
    "in pixels of the picture.</p>"
)

# Parts that handlers change, by their names
EDITED = ("editor", "picture", "table", "tools", "notice")
LOADED = (*EDITED, "results", "waiting", "result")
FOUND = ("overlay", "png", "json", "joints", "heat", "steps_shown", "notice")
RAN = (*FOUND, "results", "waiting", "result", "person", "joint")
DROPPED = tuple(dict.fromkeys((*LOADED, *RAN)))

# Who waits for whom: one picture or clip at a time bounds the memory
ONE_AT_A_TIME: dict[str, Any] = {"concurrency_id": "pictures", "concurrency_limit": 1}
# gradio's own check of a file's kind writes the file's name into the page as HTML; this only asks for videos.
ASK_FOR_VIDEOS = """document.addEventListener("click", event => event.target.closest("#clip")
  ?.querySelector("input[type=file]")?.setAttribute("accept", "video/*"), true);"""
QUICK: dict[str, Any] = {"concurrency_limit": 4, "show_progress": "hidden", "api_visibility": "private"}
# Where the page is one narrow column, results appear below what is seen; a complaint stands above them.
SCROLL = """() => setTimeout(() => {{
  const results = document.getElementById("{results}");
  if (window.innerWidth < 800 && results?.offsetParent && !document.querySelector("#{notice} .alert"))
    results.scrollIntoView({{behavior: "smooth"}});
}}, 300)"""

FONTS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Helvetica Neue", "sans-serif")
MONOSPACE = ("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace")

# Put into the page's head as it is: what goes through gradio's own `css` loses its media queries.
CSS = """
.gradio-container { max-width: 1240px !important; width: 100%; margin: 0 auto !important; }
.gradio-container .app { padding: 16px 24px !important; }
.gradio-container main { width: 100%; padding: 0 !important; }
.html-container { padding: 0 !important; }
#head h1 { font-size: 26px; font-weight: 700; letter-spacing: -0.02em; margin: 0; }
#head p { margin: 2px 0 4px; opacity: 0.75; font-size: 15px; text-wrap: pretty; }
#picture img { cursor: crosshair; max-height: 460px; }
#overlay img, #heat img { max-height: 560px; }
:is(#picture, #overlay, #heat):fullscreen img { max-height: none; }

.notice { margin: 0 !important; padding: 10px 14px; border-radius: 4px; font-size: 14px; line-height: 1.4;
  background: var(--background-fill-primary); border-left: 4px solid var(--color-accent); }
.notice.alert { background: #fdecec; border-color: #d64545; color: #8f1d1d; }
.dark .notice.alert { background: #4a1d1d; border-color: #d64545; color: #ffd9d9; }

#tools, #examples, .files { gap: 8px; flex-wrap: nowrap; }
#tools button, #examples button { min-width: 0 !important; }

.waiting { border: 2px dashed var(--border-color-primary); border-radius: 14px; }
.waiting p { padding: 190px 40px; text-align: center; color: var(--body-text-color-subdued); margin: 0;
  text-wrap: balance; }
#clip_bar:not(:has(progress)) { display: none; }
#clip_bar progress { width: 100%; height: 14px; accent-color: var(--color-accent); }
#clip_notice .summary { margin: 6px 0 0 18px !important; }
#clip .file-preview-holder { padding-top: 22px; }
#clip_video .icon-button-wrapper:not(:has(*)) { display: none; }
#clip_video video { max-height: 560px; }

.summary { margin: 0 0 8px !important; color: var(--body-text-color-subdued); font-size: 14px; }
table.confidence { width: 100% !important; border-collapse: collapse; font-size: 14px; margin: 0 !important; }
table.confidence, table.confidence :is(tbody, tr, th, td) { border: 0 !important;
  background: none !important; }
table.confidence th { text-align: left; font-weight: 500; white-space: nowrap;
  padding: 5px 12px 5px 0 !important; }
table.confidence td { padding: 5px 0 5px 12px !important; font-variant-numeric: tabular-nums; }
table.confidence td.bar { width: 100%; padding: 5px 0 !important; }
table.confidence td.bar div { height: 12px; border-radius: 6px; min-width: 2px;
  box-shadow: inset 0 0 0 1px rgba(16, 16, 24, 0.25); }
table.confidence tr.pale { opacity: 0.4; }

#steps, #steps .grid-wrap { min-height: 0 !important; height: auto !important; max-height: none !important; }
#steps .thumbnail-lg { aspect-ratio: auto !important; height: auto !important; display: block; }
#steps .thumbnail-lg img { height: auto !important; padding-bottom: 30px; }
#steps .caption-label { left: 0; right: 0; bottom: 0; max-width: none !important; text-align: center;
  border: 0 !important; background: none !important; }
#steps .grid-container { grid-template-rows: none !important; grid-auto-rows: auto !important; }

@media (max-width: 640px) {
  .gradio-container { padding: 0 !important; }
  .gradio-container .app { padding: 12px !important; }
  .waiting p { padding: 40px 24px; }
  #steps .grid-container { grid-template-columns: 1fr !important; }
  button[role="tab"] { padding: 0 10px !important; }
  #tools button, #examples button { padding-left: 4px; padding-right: 4px; }
}
footer { display: none !important; }
"""


# --- examples ---

PORTRAIT_BOX = (5, 17, 512, 594)  # x0, y0, x1, y1, as the people finder has it
SEED, NUMBERS = 7, (7, 2, 6)  # drawn people who are seen from head to foot


def portrait() -> tuple[Path, np.ndarray]:
    """The photograph of Grace Hopper in the package, and her (1, 4) box."""
    return PORTRAIT, np.array([PORTRAIT_BOX], np.float32)


def drawn_people(folder: Path, turn: int) -> tuple[Path, np.ndarray]:
    """A picture of synthetic people below ``folder``, another one at every turn, and their (n, 4) boxes."""
    from diffusionpose.data.synthetic import draw_picture
    from diffusionpose.skeletons import COCO

    number = NUMBERS[turn % len(NUMBERS)]
    picture, people = draw_picture(SEED, number, COCO, (640, 480), most_people=2)
    path = new_folder(folder) / f"people_{number}.png"
    path.write_bytes(cv2.imencode(".png", picture[:, :, ::-1])[1].tobytes())
    boxes = np.array([person["bbox"] for person in people], np.float32)
    boxes[:, 2:] += boxes[:, :2]
    return path, boxes


# --- layout ---


def build_page(handlers: Handlers) -> Any:
    """The page as ``gradio.Blocks``, not yet served.

    Args:
        handlers: its answers; their model decides which options there are.
    """
    import gradio as gr

    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(SWEPT_SECONDS, KEPT_SECONDS)) as page:
        gr.HTML(f"<h1>{TITLE}</h1><p>{SENTENCE}</p>", elem_id="head")
        parts: Parts = {
            name: gr.State(None, time_to_live=KEPT_SECONDS) for name in ("editor", "result", "turn")
        }
        wiring = Wiring(parts, handlers)
        with gr.Tabs():
            with gr.Tab("Picture"), gr.Row(equal_height=False):
                with gr.Column(scale=5, min_width=320):
                    parts |= _picture_input(handlers.estimator.network)
                with gr.Column(scale=6, min_width=320):
                    parts |= _picture_results(handlers.estimator.network)
            with gr.Tab("Clip"):
                try:
                    check_extra()
                except InputError as error:
                    gr.HTML(notice(str(error)), elem_id="clip_missing")
                else:
                    with gr.Row(equal_height=False):
                        with gr.Column(scale=5, min_width=320):
                            parts |= _clip_input(handlers.estimator.network)
                        with gr.Column(scale=6, min_width=320):
                            parts |= _clip_results()
                    _wire_clip(wiring)
        _wire_editing(wiring)
        _wire_results(wiring)
    page.queue(max_size=WAITING_LINE)
    return page


def _picture_input(network: Network) -> Parts:
    """What the visitor gives: the picture, the persons, the options."""
    import gradio as gr

    parts: Parts = {}
    parts["picture"] = _handing_on_paths(gr.Image)(
        sources=["upload", "clipboard"], label="Picture", show_label=False, format="jpeg",
        buttons=["fullscreen"], interactive=True, elem_id="picture",
    )  # fmt: skip
    parts["notice"] = gr.HTML(notice(WELCOME), elem_id="notice")
    with gr.Row(visible=False, elem_id="tools") as parts["tools"]:
        parts["undo"] = gr.Button("Undo", size="sm")
        parts["clear"] = gr.Button("Clear boxes", size="sm")
        parts["whole"] = gr.Button("Whole picture", size="sm")
    parts["run"] = gr.Button("Find poses", variant="primary", size="lg")
    with gr.Row(elem_id="examples"):
        parts["portrait"] = gr.Button("Try a portrait", size="sm")
        parts["people"] = gr.Button("Try drawn people", size="sm")
    with gr.Accordion("Options", open=False):
        parts |= _network_options(network, "", "0 shows the coarse heatmaps; the paper advises 1.", flip=True)
        parts["threshold"] = gr.Slider(
            0, 1, VISIBLE_SCORE, step=0.05, label="Least score of a joint to be drawn"
        )
    with gr.Accordion("Boxes in numbers", open=False):
        gr.HTML(IN_NUMBERS)
        parts["table"] = gr.Dataframe(
            headers=["x0", "y0", "x1", "y1"], datatype="number", type="array", column_count=4,
            interactive=True, show_label=False, buttons=[], elem_id="boxes",
        )  # fmt: skip
    return parts


def _network_options(network: Network, prefix: str, info: str, flip: bool) -> Parts:
    """The options that depend on the model; those it does not take are hidden."""
    import gradio as gr

    steps = gr.Slider(0, MOST_STEPS, 1, step=1, label="Diffusion steps", info=info, visible=network.any_steps)
    mirror = gr.Checkbox(
        flip, label="Average with the mirrored picture", info="Takes twice as long.",
        visible=not network.flip_inside,
    )  # fmt: skip
    return {f"{prefix}steps": steps, f"{prefix}flip": mirror}


def _handing_on_paths(part: Any) -> Any:
    """A kind of part whose handlers get the path of a file, which they look at before they decode it.

    A class, for gradio makes parts anew when they are updated; made past gradio's metaclass, which would
    write a .pyi file beside the source.
    """

    def preprocess(self: Any, payload: Any) -> str | None:
        return None if payload is None else payload.path

    facts = {"preprocess": preprocess, "__module__": part.__module__}
    return ABCMeta.__new__(type(part), part.__name__, (part,), facts)


def _picture_results(network: Network) -> Parts:
    """What the visitor gets."""
    import gradio as gr

    shown: Any = {"interactive": False, "show_label": False, "buttons": ["fullscreen"], "format": "jpeg"}
    parts: Parts = {"waiting": gr.HTML(f"<p>{WAITING}</p>", elem_id="waiting", elem_classes="waiting")}
    with gr.Column(visible=False, elem_id="results") as parts["results"]:
        parts["person"] = gr.Radio([], label="Person", visible=False)
        with gr.Tabs():
            with gr.Tab("Poses"):
                parts["overlay"] = gr.Image(elem_id="overlay", **shown)
                with gr.Row(elem_classes="files"):
                    parts["png"] = gr.DownloadButton("Picture (PNG)", size="sm", elem_id="png")
                    parts["json"] = gr.DownloadButton("Keypoints (JSON)", size="sm", elem_id="json")
            with gr.Tab("Joints"):
                parts["joints"] = gr.HTML(elem_id="joints")
            with gr.Tab("Heatmaps"):
                joints = [ALL_JOINTS, *network.skeleton.joints]
                parts["joint"] = gr.Dropdown(joints, value=ALL_JOINTS, label="Joint", elem_id="joint")
                parts["heat"] = gr.Image(elem_id="heat", **shown)
            with gr.Tab("Steps" if network.any_steps else "Crop"):
                parts["steps_shown"] = gr.Gallery(
                    columns=2, height="auto", object_fit="contain", show_label=False, format="jpeg",
                    interactive=False, buttons=["fullscreen"], elem_id="steps",
                )  # fmt: skip
    return parts


def _clip_input(network: Network) -> Parts:
    import gradio as gr

    # no gr.Video: its editor gets a program from elsewhere
    drop = _handing_on_paths(gr.File)(label="Video", show_label=False, height=180, elem_id="clip")
    parts: Parts = {"clip": drop}
    parts["clip_notice"] = gr.HTML(notice(clip.WELCOME), elem_id="clip_notice")
    parts["follow"] = gr.Button("Follow the people", variant="primary", size="lg")
    with gr.Accordion("Options", open=False):
        parts |= _network_options(network, "clip_", "Of each frame.", flip=False)
        parts["smooth"] = gr.Checkbox(True, label="Smooth the joints over time")
    return parts


def _clip_results() -> Parts:
    import gradio as gr

    parts: Parts = {"clip_bar": gr.HTML(elem_id="clip_bar")}
    parts["clip_waiting"] = gr.HTML(f"<p>{CLIP_WAITING}</p>", elem_id="clip_waiting", elem_classes="waiting")
    with gr.Column(visible=False, elem_id="clip_results") as parts["clip_results"]:
        parts["clip_video"] = gr.Video(
            interactive=False, show_label=False, buttons=[], autoplay=True, loop=True, elem_id="clip_video"
        )
        with gr.Row(elem_classes="files"):
            parts["clip_mp4"] = gr.DownloadButton("Video (MP4)", size="sm")
            parts["clip_lines"] = gr.DownloadButton("Keypoints (JSON lines)", size="sm")
    return parts


# --- wiring ---


class Wiring:
    """Lets answers, by the names of parts, follow events.

    Args:
        parts: of the page, by their names; filled after this is made.
        handlers: of the page.
    """

    def __init__(self, parts: Parts, handlers: Handlers) -> None:
        self.parts = parts
        self.handlers = handlers

    def options(self, steps: int, flip: bool) -> Options:
        """The options of the network as the page has them."""
        network = self.handlers.estimator.network
        return Options(int(steps) if network.any_steps else None, flip, self.handlers.decode)

    def on(
        self,
        event: Callable[..., Any],
        answer: Callable[..., Any],
        inputs: str,
        outputs: Iterable[str],
        with_point: bool = False,
        **options: Any,
    ) -> Any:
        """Let ``answer`` follow an event; what is wrong is said in the notice.

        Args:
            event: of a part.
            answer: gets the values of ``inputs``, gives ``Parts``, or several one after the other.
            inputs: names of parts, with spaces between.
            outputs: names of the parts that may change.
            with_point: ``answer`` gets the point that was tapped, too.
            options: of gradio.
        """
        import gradio as gr

        def answers(*values: Any) -> Iterator[dict[Any, Any]]:
            try:
                for parts in answer(*values) if isgeneratorfunction(answer) else [answer(*values)]:
                    yield {self.parts[name]: value for name, value in parts.items()}
            except (InputError, OSError) as error:
                yield {self.parts["notice"]: notice(self.handlers.reason(error), alert=True)}

        def only_answer(*values: Any) -> dict[Any, Any]:
            return next(answers(*values))

        def answer_to_point(value: Any, point: Any) -> dict[Any, Any]:
            return next(answers(value, point.index))

        answer_to_point.__annotations__ = {"point": gr.SelectData}  # by which gradio sees that it is wanted
        called = answers if isgeneratorfunction(answer) else answer_to_point if with_point else only_answer
        return event(called, self._parts(inputs.split()), self._parts(outputs), **options)

    def _parts(self, names: Iterable[str]) -> list[Any]:
        return [self.parts[name] for name in names]


def _wire_editing(wiring: Wiring) -> None:
    """The picture and the boxes in it."""
    handlers, parts, on = wiring.handlers, wiring.parts, wiring.on
    settings = "steps flip threshold"

    def drop(path: str | None, steps: int, flip: bool, threshold: float) -> Iterator[Parts]:
        yield from handlers.drop(path, wiring.options(steps, flip), threshold)

    def show_portrait(steps: int, flip: bool, threshold: float) -> Iterator[Parts]:
        path, boxes = portrait()
        yield from handlers.drop(str(path), wiring.options(steps, flip), threshold, boxes)

    def show_people(turn: int | None, steps: int, flip: bool, threshold: float) -> Iterator[Parts]:
        path, boxes = drawn_people(handlers.folder, turn or 0)
        for parts in handlers.drop(str(path), wiring.options(steps, flip), threshold, boxes):
            yield {**parts, "turn": (turn or 0) + 1}

    def tap(editor: Editor | None, point: list[float]) -> Parts:
        return handlers.change(editor, lambda before: before.tap(*point))

    picture = parts["picture"]
    scroll = SCROLL.format(notice="notice", results="results")
    for event, answer, inputs, name in (
        (picture.upload, drop, "picture", "load"),
        (parts["portrait"].click, show_portrait, "", "portrait"),
        (parts["people"].click, show_people, "turn", "people"),
    ):
        outputs = (*DROPPED, "turn") if name == "people" else DROPPED
        ran = on(event, answer, f"{inputs} {settings}", outputs, api_name=name, **ONE_AT_A_TIME)
        ran.success(None, js=scroll)
    on(picture.clear, lambda: handlers.load(None), "", LOADED, **QUICK)
    on(picture.select, tap, "editor", EDITED, with_point=True, **QUICK)
    for name, change in (("undo", Editor.undo), ("clear", Editor.clear), ("whole", Editor.whole)):
        on(
            parts[name].click,
            lambda editor, change=change: handlers.change(editor, change),
            "editor",
            EDITED,
            **QUICK,
        )
    on(parts["table"].input, handlers.type_boxes, "editor table", EDITED, **QUICK)


def _wire_results(wiring: Wiring) -> None:
    """The poses, and looking at them."""
    handlers, parts, on = wiring.handlers, wiring.parts, wiring.on

    def run(editor: Editor | None, steps: int, flip: bool, threshold: float) -> Parts:
        return handlers.run(editor, wiring.options(steps, flip), threshold)

    ran = on(parts["run"].click, run, "editor steps flip threshold", RAN, api_name="run", **ONE_AT_A_TIME)
    ran.success(None, js=SCROLL.format(notice="notice", results="results"))
    on(parts["joint"].input, handlers.show_heat, "result person joint", ["heat", "notice"], **QUICK)
    shown = ("joints", "heat", "steps_shown", "notice")
    on(parts["person"].input, handlers.choose, "result person joint threshold", shown, **QUICK)
    options = {**ONE_AT_A_TIME, "api_visibility": "private", "show_progress": "hidden"}
    on(parts["threshold"].release, handlers.redraw, "result person threshold", FOUND, **options)


def _wire_clip(wiring: Wiring) -> None:
    parts, names = wiring.parts, ("clip_notice", "clip_bar", "clip_waiting", "clip_results")

    def run(path: str | None, steps: int, flip: bool, smooth: bool) -> Iterator[Parts]:
        yield from clip.run_clip(wiring.handlers, path, wiring.options(steps, flip), smooth)

    options = {**ONE_AT_A_TIME, "show_progress": "hidden", "api_name": "clip"}
    results = (*names, "clip_video", "clip_mp4", "clip_lines")
    ran = wiring.on(parts["follow"].click, run, "clip clip_steps clip_flip smooth", results, **options)
    ran.success(None, js=SCROLL.format(notice="clip_notice", results="clip_results"))
    wiring.on(parts["clip"].change, clip.load_clip, "clip", names, **QUICK)
