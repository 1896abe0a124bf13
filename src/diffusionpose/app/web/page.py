"""The page: how its parts are laid out, and which handler answers what."""

from abc import ABCMeta
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr

from diffusionpose.app.web import clip
from diffusionpose.app.web.limits import KEPT_SECONDS, MOST_STEPS, SWEPT_SECONDS, WAITING_LINE
from diffusionpose.app.web.picture import (
    ALL_JOINTS,
    OTHER_POSE,
    TAPS,
    WELCOME,
    Editor,
    Handlers,
    Parts,
    notice,
)
from diffusionpose.bundled import DRAWN_PEOPLE, PORTRAIT
from diffusionpose.errors import InputError
from diffusionpose.poses import VISIBLE_SCORE
from diffusionpose.runtime.networks import Network
from diffusionpose.runtime.video.reading import check_extra

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
FOUND = ("overlay", "png", "json", "joints", "heat", "steps_shown", "alternative", "notice")
RAN = (*FOUND, "results", "waiting", "result", "person", "joint")
DROPPED = tuple(dict.fromkeys((*LOADED, *RAN)))
CLIP_LOADED = ("clip_notice", "clip_bar", "clip_waiting", "clip_results")
CLIP_RAN = (*CLIP_LOADED, "clip_video", "clip_mp4", "clip_lines")

# Who waits for whom: one picture or clip at a time bounds the memory
ONE_AT_A_TIME: dict[str, Any] = {"concurrency_id": "pictures", "concurrency_limit": 1}
QUICK: dict[str, Any] = {"concurrency_limit": 4, "show_progress": "hidden", "api_visibility": "private"}
# gradio's own check of a file's kind writes the file's name into the page as HTML; this only asks for videos.
ASK_FOR_VIDEOS = """document.addEventListener("click", event => event.target.closest("#clip")
  ?.querySelector("input[type=file]")?.setAttribute("accept", "video/*"), true);"""
# Where the page is one narrow column, results appear below what is seen; a complaint stands above them.
SCROLL = """() => setTimeout(() => {{
  const results = document.getElementById("{prefix}results");
  if (window.innerWidth < 800 && results?.offsetParent && !document.querySelector("#{prefix}notice .alert"))
    results.scrollIntoView({{behavior: "smooth"}});
}}, 300)"""
STYLE = Path(__file__).with_suffix(".css").read_text(encoding="utf-8")
HEAD = f"<style>{STYLE}</style><script>{ASK_FOR_VIDEOS}</script>"
FONTS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Helvetica Neue", "sans-serif")
MONOSPACE = ("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace")

# --- layout ---


def build_page(handlers: Handlers) -> Any:
    """The page as ``gradio.Blocks``, not yet served; the handlers' model decides which options there are."""
    network = handlers.estimator.network
    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(SWEPT_SECONDS, KEPT_SECONDS)) as page:
        gr.HTML(f"<h1>{TITLE}</h1><p>{SENTENCE}</p>", elem_id="head")
        parts: Parts = {name: gr.State(None, time_to_live=KEPT_SECONDS) for name in ("editor", "result")}
        wiring = Wiring(parts, handlers)
        with gr.Tabs():
            with gr.Tab("Picture"), gr.Row(equal_height=False):
                with gr.Column(scale=5, min_width=320):
                    parts |= _picture_input(network)
                with gr.Column(scale=6, min_width=320):
                    parts |= _picture_results(network)
            with gr.Tab("Clip"):
                try:
                    check_extra()
                except InputError as error:
                    gr.HTML(notice(str(error)), elem_id="clip_missing")
                else:
                    with gr.Row(equal_height=False):
                        with gr.Column(scale=5, min_width=320):
                            parts |= _clip_input(network)
                        with gr.Column(scale=6, min_width=320):
                            parts |= _clip_results()
                    _wire_clip(wiring)
        _wire_editing(wiring)
        _wire_results(wiring)
    page.queue(max_size=WAITING_LINE)
    return page


def _picture_input(network: Network) -> Parts:
    """What the visitor gives: the picture, the persons, the options."""
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
    shown: Any = {"interactive": False, "show_label": False, "buttons": ["fullscreen"], "format": "jpeg"}
    parts: Parts = {"waiting": gr.HTML(f"<p>{WAITING}</p>", elem_id="waiting", elem_classes="waiting")}
    with gr.Column(visible=False, elem_id="results") as parts["results"]:
        parts["person"] = gr.Radio([], label="Person", visible=False)
        with gr.Tabs():
            with gr.Tab("Poses"):
                parts["tapping"] = gr.Radio(
                    list(TAPS), value=OTHER_POSE, label="A tap on the picture", visible=network.encodes_once,
                    elem_id="tapping",
                )  # fmt: skip
                parts["overlay"] = gr.Image(elem_id="overlay", **shown)
                parts["alternative"] = gr.Radio(
                    [], label="Poses this person may have", visible=False, elem_id="alternative"
                )
                with gr.Row(elem_classes="files"):
                    parts["png"] = gr.DownloadButton("Picture (PNG)", size="sm", elem_id="png")
                    parts["json"] = gr.DownloadButton("Keypoints (JSON)", size="sm", elem_id="json")
            with gr.Tab("Joints"):
                count = network.skeleton.num_joints
                parts["joints"] = gr.Label(
                    num_top_classes=count, show_label=False, show_heading=False, elem_id="joints"
                )
            with gr.Tab("Heatmaps"):
                joints = [ALL_JOINTS, *network.skeleton.joints]
                parts["joint"] = gr.Dropdown(joints, value=ALL_JOINTS, label="Joint", elem_id="joint")
                parts["heat"] = gr.Image(elem_id="heat", **shown)
            with gr.Tab("Steps" if network.any_steps else "Crop"):
                parts["steps_shown"] = gr.Gallery(
                    columns=2, height="auto", object_fit="contain", elem_id="steps", **shown
                )
    return parts


def _clip_input(network: Network) -> Parts:
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
    """Lets answers, by the names of parts, follow events; ``parts`` may be filled after this is made."""

    def __init__(self, parts: Parts, handlers: Handlers) -> None:
        self.parts, self.handlers = parts, handlers

    def on(
        self,
        event: Callable[..., Any],
        handler: Callable[..., Parts | Iterator[Parts]],
        inputs: str,
        outputs: Iterable[str],
        **options: Any,
    ) -> Any:
        """Let a handler's answer follow an event of a part; what is wrong is said in the notice.

        ``handler`` gets the values of ``inputs``, names of parts with spaces between, and gives ``Parts``, or
        several one after the other; an input called "point", the last, is where the part was tapped.
        """
        names = inputs.split()

        def answers(*values: Any) -> Iterator[dict[Any, Any]]:
            try:
                answer = handler(*values)
                for parts in [answer] if isinstance(answer, dict) else answer:
                    yield {self.parts[name]: value for name, value in parts.items()}
            except (InputError, OSError) as error:
                yield {self.parts["notice"]: notice(self.handlers.reason(error), alert=True)}

        def answers_to_tap(point: gr.SelectData, *values: Any) -> Iterator[dict[Any, Any]]:
            yield from answers(*values, point.index)

        tapped = "point" in names
        names = [name for name in names if name != "point"]
        called = answers_to_tap if tapped else answers
        return event(called, self._parts(names), self._parts(outputs), **options)

    def _parts(self, names: Iterable[str]) -> list[Any]:
        return [self.parts[name] for name in names]


def _wire_editing(wiring: Wiring) -> None:
    """The picture and the boxes in it."""
    handlers, parts, on = wiring.handlers, wiring.parts, wiring.on
    settings = "steps flip threshold"

    def tap(editor: Editor | None, point: list[float]) -> Parts:
        return handlers.change(editor, lambda before: before.tap(*point))

    for event, answer, inputs, name in (
        (parts["picture"].upload, handlers.drop, f"picture {settings}", "load"),
        (parts["portrait"].click, partial(handlers.drop, str(PORTRAIT)), settings, "portrait"),
        (parts["people"].click, partial(handlers.drop, str(DRAWN_PEOPLE)), settings, "people"),
    ):
        ran = on(event, answer, inputs, DROPPED, api_name=name, **ONE_AT_A_TIME)
        ran.success(None, js=SCROLL.format(prefix=""))
    on(parts["picture"].clear, lambda: handlers.load(None), "", LOADED, **QUICK)
    on(parts["picture"].select, tap, "editor point", EDITED, **QUICK)
    on(parts["undo"].click, lambda editor: handlers.change(editor, Editor.undo), "editor", EDITED, **QUICK)
    on(parts["clear"].click, lambda editor: handlers.change(editor, Editor.clear), "editor", EDITED, **QUICK)
    on(parts["whole"].click, lambda editor: handlers.change(editor, Editor.whole), "editor", EDITED, **QUICK)
    on(parts["table"].input, handlers.type_boxes, "editor table", EDITED, **QUICK)


def _wire_results(wiring: Wiring) -> None:
    """The poses, and looking at them."""
    handlers, parts, on = wiring.handlers, wiring.parts, wiring.on
    inputs = "editor steps flip threshold"
    ran = on(parts["run"].click, handlers.run, inputs, RAN, api_name="run", **ONE_AT_A_TIME)
    ran.success(None, js=SCROLL.format(prefix=""))
    on(parts["joint"].input, handlers.show_heat, "result person joint", ["heat", "notice"], **QUICK)
    shown = ("joints", "heat", "steps_shown", "alternative", "notice")
    on(parts["person"].input, handlers.choose, "result person joint", shown, **QUICK)
    options = {**QUICK, **ONE_AT_A_TIME}
    changed = (*FOUND, "result", "person", "joint")
    if handlers.estimator.network.encodes_once:
        on(parts["overlay"].select, handlers.tap, "result tapping point", changed, **options)
        on(parts["alternative"].input, handlers.switch, "result person alternative", changed, **options)
    on(parts["threshold"].release, handlers.redraw, "result person threshold", changed, **options)


def _wire_clip(wiring: Wiring) -> None:
    parts, on = wiring.parts, wiring.on

    run = partial(clip.run_clip, wiring.handlers)
    options = {**ONE_AT_A_TIME, "show_progress": "hidden", "api_name": "clip"}
    ran = on(parts["follow"].click, run, "clip clip_steps clip_flip smooth", CLIP_RAN, **options)
    ran.success(None, js=SCROLL.format(prefix="clip_"))
    on(parts["clip"].change, clip.load_clip, "clip", CLIP_LOADED, **QUICK)
