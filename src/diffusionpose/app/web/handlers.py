"""What happens when a visitor does something: from what the page holds to what it shows next.

Answers are dictionaries from the names of the page's parts (``page.py``) to their new values. Whatever
belongs to one visitor is in an :class:`Editor` and a :class:`Result`, which the page keeps for each session.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from diffusionpose.app.web.analysis import Options, Person, analyse
from diffusionpose.app.web.confidence import confidence_table
from diffusionpose.app.web.editing import LONGEST, Editor
from diffusionpose.app.web.results import write_results
from diffusionpose.app.web.upload import Limits, read_upload
from diffusionpose.app.web.views import draw_boxes, heatmap_view, shrink, step_captions, step_view
from diffusionpose.app.web.wiring import Parts
from diffusionpose.errors import InputError
from diffusionpose.inference.drawing import draw_poses
from diffusionpose.inference.estimator import PoseEstimator

WELCOME = "Drop a picture of people above, or try an example."
GUESSED = (
    "The whole picture counts as one person. Better: tap (or click) two opposite corners around each person."
)
CORNER = "Now tap the opposite corner."
NOBODY = "No person is marked: tap (or click) two opposite corners around each person."
ALL_JOINTS = "all joints"


@dataclass(frozen=True, eq=False)
class Result:
    """What was found for one visitor.

    Attributes:
        path: the picture's file.
        preview: (h, w, 3) uint8 RGB, at ``scale`` pixels per pixel of the picture.
        scale: of the preview.
        persons: found in it.
    """

    path: Path
    preview: np.ndarray
    scale: float
    persons: list[Person]


class Handlers:
    """The page's answers.

    Args:
        estimator: whose model and detector are used.
        limits: on pictures.
        decode: how heatmaps become points.
        folder: for the files that visitors take away.
    """

    def __init__(self, estimator: PoseEstimator, limits: Limits, decode: str, folder: Path) -> None:
        self.estimator = estimator
        self.limits = limits
        self.decode = decode
        self.folder = folder

    def load(self, path: str | None, boxes: np.ndarray | None = None) -> Parts:
        """A picture was dropped, or taken off; ``boxes`` of a picture whose persons are known."""
        if path is None:
            return self._empty(WELCOME)
        try:
            image = read_upload(path, self.limits)
            if boxes is None:
                boxes, scores = self.estimator.detector(image)
            else:
                scores = np.ones(len(boxes), np.float32)
        except InputError as error:
            return self._empty(str(error), alert=True)
        return {**self._edited(Editor.of(Path(path), image, boxes, scores)), **self._shown(False)}

    def change(self, editor: Editor | None, how: Callable[[Editor], Editor]) -> Parts:
        """The boxes are changed; what was wrong is said, and nothing changes."""
        if editor is None:
            return {"notice": notice(WELCOME)}
        try:
            return self._edited(how(replace(editor, mistyped="")))
        except InputError as error:
            return {"notice": notice(str(error), alert=True)}

    def type_boxes(self, editor: Editor | None, rows: list[list[Any]]) -> Parts:
        """The table of boxes was edited. It stays as it is typed; with a mistake in it nothing is run."""
        if editor is None:
            return {"notice": notice(WELCOME)}
        try:
            parts = self._edited(replace(editor, mistyped="").tabled(rows))
        except InputError as error:
            said = str(error)
            return {"editor": replace(editor, mistyped=said), "notice": notice(said, alert=True)}
        return {name: value for name, value in parts.items() if name != "table"}

    def run(self, editor: Editor | None, steps: int | None, flip: bool, threshold: float) -> Parts:
        """Find the poses and show everything about them."""
        import gradio as gr

        if editor is None:
            return {"notice": notice("There is no picture yet: drop one, or try an example.", alert=True)}
        try:
            if editor.mistyped:
                raise InputError(editor.mistyped)
            image = self._read(editor.path)
            options = Options(steps, flip, self.decode)
            persons = analyse(
                self.estimator.model, image, editor.boxes, editor.scores, options, self.estimator.batch_size
            )
            result = Result(editor.path, editor.preview, editor.scale, persons)
            names = [str(number) for number in range(1, len(persons) + 1)]
            return {
                **self._shown(True),
                "result": result,
                "notice": notice(_counted(len(persons), "pose", "found")),
                "person": gr.update(choices=names, value=names[0], visible=len(names) > 1),
                **self._drawn(result, image, threshold),
                **self.choose(result, names[0], ALL_JOINTS, threshold),
                "joint": ALL_JOINTS,
            }
        except InputError as error:
            return {"notice": notice(str(error), alert=True)}

    def redraw(self, result: Result | None, person: str, threshold: float) -> Parts:
        """Other joints count as sure enough to be drawn."""
        if result is None:
            return {}
        try:
            parts = self._drawn(result, self._read(result.path), threshold)
        except InputError as error:
            return {"notice": notice(str(error), alert=True)}
        return {**parts, **_facts(result.persons[int(person) - 1], threshold)}

    def choose(self, result: Result | None, person: str, joint: str, threshold: float) -> Parts:
        """Another person or joint is looked at."""
        if result is None:
            return {}
        chosen = result.persons[int(person) - 1]
        return {**_facts(chosen, threshold), **self.glow(result, person, joint)}

    def glow(self, result: Result | None, person: str, joint: str) -> Parts:
        """Another joint's heatmap is looked at."""
        if result is None:
            return {}
        chosen = result.persons[int(person) - 1]
        index = None if joint == ALL_JOINTS else chosen.pose.skeleton.joints.index(joint)
        return {"heat": heatmap_view(result.preview, result.scale, chosen, index)}

    def _read(self, path: Path) -> np.ndarray:
        if not path.is_file():
            raise InputError("This picture was loaded long ago and is no longer kept: please load it again.")
        return read_upload(path, self.limits)

    def _drawn(self, result: Result, image: np.ndarray, threshold: float) -> Parts:
        """The picture with the poses, to look at and to take away."""
        poses = [person.pose for person in result.persons]
        drawn = draw_poses(image, poses, threshold)
        png, json = write_results(self.folder, result.path, drawn, poses)
        shown = shrink(drawn, LONGEST)
        if len(poses) > 1:
            boxes = np.stack([pose.box for pose in poses]) * result.scale
            shown = draw_boxes(shown, boxes, frames=False)
        return {"overlay": shown, "png": str(png), "json": str(json)}

    def _edited(self, editor: Editor) -> Parts:
        import gradio as gr

        if editor.corner:
            hint = CORNER
        elif editor.guessed:
            hint = GUESSED
        elif not len(editor.boxes):
            hint = NOBODY
        else:
            hint = _counted(len(editor.boxes), "person", "marked") + " Tap two corners to add another."
        return {
            "editor": editor,
            "picture": editor.picture(),
            "table": editor.table(),
            "tools": gr.update(visible=True),
            "notice": notice(hint),
        }

    def _empty(self, text: str, alert: bool = False) -> Parts:
        import gradio as gr

        return {
            "editor": None,
            "picture": None,
            "table": [],
            "tools": gr.update(visible=False),
            "notice": notice(text, alert),
            **self._shown(False),
        }

    def _shown(self, results: bool) -> Parts:
        """The results, or the words in their place."""
        import gradio as gr

        parts = {"results": gr.update(visible=results), "waiting": gr.update(visible=not results)}
        return parts if results else {**parts, "result": None}


def notice(text: str, alert: bool = False) -> str:
    """A line for the visitor, in HTML; ``alert`` for what went wrong."""
    return f'<p class="notice{" alert" * alert}" role="{"alert" if alert else "status"}">{escape(text)}</p>'


def _facts(person: Person, threshold: float) -> Parts:
    """What does not depend on the joint looked at."""
    captions = step_captions(person)
    steps = [(step_view(person, step, threshold), caption) for step, caption in enumerate(captions)]
    return {"joints": confidence_table(person.pose, threshold), "steps_shown": steps}


def _counted(count: int, what: str, done: str) -> str:
    return f"{count} {what}{'s' * (count != 1)} {done}."
