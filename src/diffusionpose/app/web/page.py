"""The page: its parts, how they are laid out, and which handler answers what.

Annotations are evaluated here, unlike elsewhere: gradio reads them to see which handler wants the point
that was tapped.
"""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from diffusionpose.app.demo import BOX
from diffusionpose.app.web.clip import clip_tab
from diffusionpose.app.web.files import KEPT_SECONDS, SWEPT_SECONDS
from diffusionpose.app.web.handlers import ALL_JOINTS, MOST_STEPS, WELCOME, Editor, Handlers, notice
from diffusionpose.app.web.parts import ONE_AT_A_TIME, QUICK, SCROLL, Parts, named, on
from diffusionpose.poses import VISIBLE_SCORE
from diffusionpose.runtime.networks import Network

SEED, NUMBERS = 7, (7, 2, 6)  # drawn people who are seen from head to foot
SIZE = (640, 480)


def portrait() -> tuple[Path, np.ndarray]:
    """A photograph of Grace Hopper, which comes with matplotlib, and her (1, 4) box."""
    from matplotlib import get_data_path

    return Path(get_data_path()) / "sample_data" / "grace_hopper.jpg", np.array([BOX], np.float32)


def drawn_people(folder: Path, turn: int) -> tuple[Path, np.ndarray]:
    """A picture of synthetic people below ``folder``, another one at every turn, and their (n, 4) boxes."""
    from diffusionpose.data.synthetic import draw_picture
    from diffusionpose.skeletons import COCO

    number = NUMBERS[turn % len(NUMBERS)]
    picture, people = draw_picture(SEED, number, COCO, SIZE, most_people=2)
    place = folder / secrets.token_urlsafe(12)
    place.mkdir(parents=True)
    path = place / f"people_{number}.png"
    cv2.imwrite(str(path), picture[:, :, ::-1])
    boxes = np.array([person["bbox"] for person in people], np.float32)
    boxes[:, 2:] += boxes[:, :2]
    return path, boxes


# The page: its parts, how they are laid out, and which handler answers what

TITLE = "DiffusionPose"
SENTENCE = "Find the poses of people in a picture or a clip, and watch diffusion refine them step by step."
WAITING = "The poses, how sure each joint is, its heatmap and every diffusion step appear here."
CORNERS = ["x0", "y0", "x1", "y1"]
EDITED = ("editor", "picture", "table", "tools", "notice")
LOADED = (*EDITED, "results", "waiting", "result")
FOUND = ("overlay", "png", "json", "joints", "heat", "steps_shown", "notice")
RAN = (*FOUND, "results", "waiting", "result", "person", "joint")
IN_NUMBERS = (
    '<p class="summary">Each person: upper left corner x0, y0 and lower right corner x1, y1, '
    "in pixels of the picture.</p>"
)
WAITING_LINE = 32  # visitors in the queue before the next one is asked to come back later


def build_page(handlers: Handlers) -> Any:
    """The page as ``gradio.Blocks``, not yet served.

    Args:
        handlers: its answers; their model decides which options there are.
    """
    import gradio as gr

    model = handlers.estimator.network
    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(SWEPT_SECONDS, KEPT_SECONDS)) as page:
        gr.HTML(f"<h1>{TITLE}</h1><p>{SENTENCE}</p>", elem_id="head")
        parts: Parts = {
            name: gr.State(None, time_to_live=KEPT_SECONDS) for name in ("editor", "result", "turn")
        }
        with gr.Tabs():
            with gr.Tab("Picture"), gr.Row(equal_height=False):
                with gr.Column(scale=5, min_width=320):
                    parts |= _left(model)
                with gr.Column(scale=6, min_width=320):
                    parts |= _right(model)
            with gr.Tab("Clip"):
                clip_tab(handlers)
        _wire_editing(parts, handlers)
        _wire_results(parts, handlers)
    page.queue(max_size=WAITING_LINE)
    return page


def _left(model: Network) -> Parts:
    """What the visitor gives: the picture, the persons, the options."""
    import gradio as gr

    parts: Parts = {"picture": _drop()}
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
        parts["steps"] = gr.Slider(
            0, MOST_STEPS, 1, step=1, label="Diffusion steps", visible=model.any_steps,
            info="0 shows the coarse heatmaps; the paper advises 1.",
        )  # fmt: skip
        parts["flip"] = gr.Checkbox(
            True, label="Average with the mirrored picture", visible=not model.flip_inside
        )
        parts["threshold"] = gr.Slider(
            0, 1, VISIBLE_SCORE, step=0.05, label="Joints are drawn from this score on"
        )
    with gr.Accordion("Boxes in numbers", open=False):
        gr.HTML(IN_NUMBERS)
        parts["table"] = gr.Dataframe(
            headers=CORNERS, datatype="number", type="array", column_count=4, interactive=True,
            show_label=False, buttons=[], elem_id="boxes",
        )  # fmt: skip
    return parts


def _drop() -> Any:
    """Where pictures are dropped; it hands on the file as it came, which `upload.py` looks at first."""
    import gradio as gr

    drop: Any = gr.Image(
        sources=["upload", "clipboard"], label="Picture", show_label=False, format="jpeg",
        buttons=["fullscreen"], interactive=True, elem_id="picture",
    )  # fmt: skip
    # replaced here and not in a subclass: gradio writes a .pyi file beside the source of each of those
    drop.preprocess = lambda payload: None if payload is None else payload.path
    return drop


def _right(model: Network) -> Parts:
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
                joints = [ALL_JOINTS, *model.skeleton.joints]
                parts["joint"] = gr.Dropdown(joints, value=ALL_JOINTS, label="Joint", elem_id="joint")
                parts["heat"] = gr.Image(elem_id="heat", **shown)
            with gr.Tab("Steps" if model.any_steps else "Crop"):
                parts["steps_shown"] = gr.Gallery(
                    columns=2, height="auto", object_fit="contain", show_label=False, format="jpeg",
                    interactive=False, buttons=["fullscreen"], elem_id="steps",
                )  # fmt: skip
    return parts


def _wire_editing(parts: Parts, handlers: Handlers) -> None:
    """The picture and the boxes in it."""
    import gradio as gr

    editor = [parts["editor"]]

    def tap(before: Editor | None, event: gr.SelectData) -> Any:
        x, y = event.index
        return named(parts, handlers.change(before, lambda editor: editor.tapped(x, y)))

    def undo(before: Editor | None) -> Parts:
        return handlers.change(before, Editor.undone)

    def clear(before: Editor | None) -> Parts:
        return handlers.change(before, Editor.emptied)

    def whole(before: Editor | None) -> Parts:
        return handlers.change(before, Editor.whole)

    def show_portrait() -> Parts:
        path, boxes = portrait()
        return handlers.load(str(path), boxes)

    def people(turn: int | None) -> Parts:
        path, boxes = drawn_people(handlers.folder, turn or 0)
        return {**handlers.load(str(path), boxes), "turn": (turn or 0) + 1}

    picture = parts["picture"]
    on(parts, picture.upload, handlers.load, [picture], LOADED, api_name="load", **ONE_AT_A_TIME)
    on(parts, picture.clear, lambda: handlers.load(None), [], LOADED, **QUICK)
    picture.select(tap, editor, [parts[name] for name in EDITED], **QUICK)
    for name, answer in (("undo", undo), ("clear", clear), ("whole", whole)):
        on(parts, parts[name].click, answer, editor, EDITED, **QUICK)
    table = [*editor, parts["table"]]
    on(parts, parts["table"].input, handlers.type_boxes, table, EDITED, **QUICK)
    on(parts, parts["portrait"].click, show_portrait, [], LOADED, api_name="portrait", **ONE_AT_A_TIME)
    turn = [parts["turn"]]
    on(parts, parts["people"].click, people, turn, (*LOADED, "turn"), api_name="people", **ONE_AT_A_TIME)


def _wire_results(parts: Parts, handlers: Handlers) -> None:
    """The poses, and looking at them."""
    takes_steps = handlers.estimator.network.any_steps

    def run(editor: Editor | None, steps: int, flip: bool, threshold: float) -> Parts:
        return handlers.run(editor, int(steps) if takes_steps else None, flip, threshold)

    def inputs(*names: str) -> list[Any]:
        return [parts[name] for name in names]

    given = inputs("editor", "steps", "flip", "threshold")
    ran = on(parts, parts["run"].click, run, given, RAN, api_name="run", **ONE_AT_A_TIME)
    ran.success(None, js=SCROLL.format(notice="notice", results="results"))
    chosen = inputs("result", "person", "joint")
    on(parts, parts["joint"].input, handlers.glow, chosen, ["heat"], **QUICK)
    chosen += inputs("threshold")
    shown = ("joints", "heat", "steps_shown")
    on(parts, parts["person"].input, handlers.choose, chosen, shown, **QUICK)
    given = inputs("result", "person", "threshold")
    options = {**ONE_AT_A_TIME, "api_visibility": "private", "show_progress": "hidden"}
    on(parts, parts["threshold"].release, handlers.redraw, given, FOUND, **options)
