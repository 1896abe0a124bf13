"""The tab for pictures, without its layout: a visitor's picture, what is found in it, and what is shown next.

Answers are dictionaries from the names of the page's parts (``page.py``) to their new values. Whatever
belongs to one visitor is in an :class:`Editor` and a :class:`Result`, which the page keeps for each session.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path
from typing import Any

import cv2
import gradio as gr
import numpy as np
from PIL import Image

from diffusionpose.app.options import counted
from diffusionpose.app.predict import named_pictures
from diffusionpose.app.web.limits import MILLION, MOST_PERSONS, MOST_STEPS, Limits
from diffusionpose.errors import InputError
from diffusionpose.geometry import Crop
from diffusionpose.json_files import write_json
from diffusionpose.poses import Pose
from diffusionpose.runtime.boxes import usable_boxes
from diffusionpose.runtime.drawing import DARK, draw_box, draw_heatmap, draw_label, draw_poses, rgb
from diffusionpose.runtime.estimator import PoseEstimator, Request
from diffusionpose.runtime.images import read_image
from diffusionpose.runtime.people import PersonDetector

Parts = dict[str, Any]

LONGEST = 1024  # pixels of the longer side of what is shown

WELCOME = "Drop a picture of people above, or try an example."
MARK = "tap (or click) two opposite corners around each person"
GUESSED = f"The whole picture counts as one person. Better: {MARK}."
CORNER = "Now tap the opposite corner."
NOBODY = f"Nobody is marked: {MARK}."
NOBODY_FOUND = f"Nobody was found in this picture. Is there somebody? Then {MARK}, and press Find poses."
MISSING = "Somebody is missing? Tap two corners, and press Find poses."
GONE = "This picture was loaded long ago and is no longer kept: please load it again."
ALL_JOINTS = "all joints"
HYPOTHESES = 8  # poses that a person may have, on the page
OTHER_POSE, MOVE_JOINT = TAPS = ("shows another pose of the person", "moves a joint, which then stays")
NO_JOINT = "There is no joint: tap one that is drawn, then where it belongs."
NOT_THERE = "Nobody is there: tap a person whose pose is drawn."


# --- files: what visitors load up, and what they take away ---


def write_results(folder: Path, source: Path, drawn: np.ndarray, poses: Sequence[Pose]) -> tuple[Path, Path]:
    """The PNG and the JSON that `diffusionpose predict` makes of a picture (H, W, 3), in a new folder."""
    (picture,) = named_pictures([source], lambda path: None)
    place = new_folder(folder)
    (place / picture.drawn).write_bytes(cv2.imencode(".png", drawn[:, :, ::-1])[1].tobytes())
    write_json(place / "keypoints.json", picture.rows(poses))
    return place / picture.drawn, place / "keypoints.json"


def new_folder(folder: Path) -> Path:
    """A new folder in a folder, by a name that cannot be guessed."""
    place = folder / secrets.token_urlsafe(12)
    place.mkdir(parents=True)
    return place


# --- analysis: poses with everything that led to them ---

VIEW_ROWS = 384  # about the height in pixels of the crop that the steps are shown on


@dataclass(frozen=True, eq=False)
class Person:
    """One person, and how the pose came about in S steps, the coarse heatmaps included."""

    steps: list[Pose]  # S of them; the last one is the answer
    heatmaps: np.ndarray  # (S, J, h, w) uint8, 255 for 1; below 0 and above 1 is cut off
    crop: Crop  # what the network saw, one crop in its geometry but larger
    view: np.ndarray  # (H, W, 3) uint8 RGB, the picture in that crop
    held: np.ndarray  # (J,) bool, joints that the visitor has put where they are
    shown: int = 0  # which of the poses is

    @property
    def poses(self) -> tuple[Pose, ...]:
        """The answer, and its alternatives."""
        return self.steps[-1], *self.steps[-1].alternatives

    @property
    def pose(self) -> Pose:
        """The one that is shown."""
        return self.poses[self.shown]

    @property
    def choices(self) -> list[str]:
        """The poses by number and weight."""
        return [f"{number}: {pose.weight or 0:.0%}" for number, pose in enumerate(self.poses, start=1)]


def analyse(
    estimator: PoseEstimator,
    image: np.ndarray,
    boxes: np.ndarray,
    scores: np.ndarray,
    start: np.ndarray | None = None,
    held: np.ndarray | None = None,
) -> list[Person]:
    """The pose in each box (n, 4) of a picture, and what led to it; InputError as of :func:`check_boxes`.

    ``start`` (n, J, 3) and its joints that are ``held`` (n, J) bool are as of a ``Request``.
    """
    if len(boxes) == 0:
        raise InputError("Nobody is marked: tap two opposite corners around one, or take the whole picture.")
    check_boxes(boxes, image.shape[1::-1])
    codec = estimator.network.codec
    (width, height), zoom = codec.input_size, max(1, round(VIEW_ROWS / codec.input_size[1]))
    request = Request(image, boxes.astype(np.float32), scores, start=start, fixed=held)
    held = np.zeros((len(boxes), estimator.skeleton.num_joints), bool) if held is None else held
    crops = Crop.from_boxes(request.boxes, (width * zoom, height * zoom), unbiased=codec.unbiased)
    return [
        Person(
            poses,
            (heatmaps * 255).round().clip(0, 255).astype(np.uint8),
            crops[index],
            crops.cut(image, index),
            held[index],
        )
        for index, (poses, heatmaps) in enumerate(estimator.trace(request))
    ]


def check_boxes(boxes: np.ndarray, size: tuple[int, ...]) -> None:
    """InputError where boxes (n, 4) are too many, or one holds nothing of the picture of (width, height)."""
    if len(boxes) > MOST_PERSONS:
        raise InputError(f"At most {MOST_PERSONS} persons at a time, please: delete a box first.")
    for number, box in enumerate(boxes, start=1):
        for problem in usable_boxes(box, *size, numbers=[number])[2]:
            raise InputError(problem.replace("box", "Box", 1))


# --- views: the pictures and tables the page shows ---

BOX = "#FFD040"
PICKED = "#40FFFF"  # of the ring round a joint that is about to be moved
GAP = 6  # pixels between the two halves of a step


def shrink(image: np.ndarray, longest: int) -> np.ndarray:
    """The picture (H, W, 3) with its longer side at most ``longest`` pixels; a copy."""
    picture = Image.fromarray(image)
    picture.thumbnail((longest, longest))
    return np.array(picture)


def draw_boxes(image: np.ndarray, boxes: np.ndarray, frames: bool = True) -> np.ndarray:
    """A copy of the picture with its boxes (n, 4), numbered from 1; only the numbers without ``frames``."""
    drawn = image.copy()
    for number, box in enumerate(boxes, start=1):
        if frames:
            draw_box(drawn, box, BOX)
        draw_label(drawn, str(number), box, BOX, at_box=True)
    return drawn


def ring(image: np.ndarray, point: np.ndarray, color: str) -> None:
    """Draw a ring round a point (2,) into the picture, on a rim that keeps it legible on any ground."""
    center, size = np.round(point).astype(int).tolist(), max(image.shape[:2]) // 80
    for shade, line in ((DARK, 5), (color, 2)):
        cv2.circle(image, center, size, rgb(shade), line, cv2.LINE_AA)


def _lay_joints(
    image: np.ndarray, maps: np.ndarray, joint: int | None, place: Callable[..., np.ndarray]
) -> np.ndarray:
    """The picture with the heatmap of a joint, or (None) the highest of all (J, h, w) uint8 everywhere."""
    heat = maps.max(axis=0) if joint is None else maps[joint]
    return draw_heatmap(image, heat.astype(np.float32) / 255, place)


def heatmap_view(preview: np.ndarray, scale: float, person: Person, joint: int | None) -> np.ndarray:
    """The heatmap of a joint, or (None) of all, where it lies in the picture, (h, w, 3) uint8 RGB.

    ``preview`` (h, w, 3) has ``scale`` pixels per pixel of the picture.
    """

    def place(points: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        # pixel centres: the preview's pixel p shows the picture's (p + 0.5) / scale - 0.5
        return (person.crop.heatmap_to_image(points, size) + 0.5) * scale - 0.5

    return _lay_joints(preview, person.heatmaps[-1], joint, place)


def step_view(person: Person, step: int, threshold: float) -> np.ndarray:
    """One step: on the left its highest heatmap, on the right the skeleton read out of it.

    Both lie over ``person.view``: (H, 2 W + ``GAP``, 3) uint8 RGB.
    """
    view, pose = person.view, person.steps[step]
    left = _lay_joints(view, person.heatmaps[step], None, person.crop.heatmap_to_input)
    points = np.concatenate([pose.keypoints, pose.box.reshape(2, 2)])
    moved = person.crop.image_to_input(points[None])[0]
    right = draw_poses(view, [replace(pose, keypoints=moved[:-2], box=moved[-2:].ravel())], threshold)
    return np.concatenate([left, np.full((len(view), GAP, 3), 255, np.uint8), right], axis=1)


def step_captions(person: Person) -> list[str]:
    """A line for each step: which it is, and how far the joints moved in it on average, image pixels."""
    points = np.stack([pose.keypoints for pose in person.steps])
    moved = np.linalg.norm(np.diff(points, axis=0), axis=2).mean(axis=1)
    if not len(moved):
        return ["Heatmaps and pose"]
    steps = [f"Step {step} of {len(moved)}: {far:.1f} px moved" for step, far in enumerate(moved, start=1)]
    return ["Coarse heatmaps", *steps]


def joint_scores(pose: Pose) -> dict[str, float]:
    """The score of each joint, 0 to 1, by its name."""
    names = (joint.replace("_", " ") for joint in pose.skeleton.joints)
    return dict(zip(names, pose.scores.clip(0, 1).tolist(), strict=True))


def notice(text: str, alert: bool = False) -> str:
    """A line for the visitor, in HTML; ``alert`` for what went wrong."""
    return f'<p class="notice{" alert" * alert}" role="{"alert" if alert else "status"}">{escape(text)}</p>'


def shown(results: bool, prefix: str = "") -> Parts:
    """The results of a tab, or the words in their place."""
    return {
        f"{prefix}results": gr.update(visible=results),
        f"{prefix}waiting": gr.update(visible=not results),
    }


# --- the picture a visitor works on, and the boxes around the persons in it: every change gives a new one ---

NEAR = 0.05  # of the picture's longer side: a tap is on a joint that is nearer
LEAST = 0.01  # the smaller side of a box drawn by hand, in shares of the picture's longer side


@dataclass(frozen=True, eq=False)
class Editor:
    """One visitor's picture, and the persons marked in it."""

    path: Path
    size: tuple[int, int]  # (width, height) of the picture
    preview: np.ndarray  # (h, w, 3) uint8 RGB, the picture at the size it is shown at
    boxes: np.ndarray  # (n, 4) float32 xyxy, image pixels
    scores: np.ndarray  # (n,) of the boxes; 1 for those drawn by hand
    corner: tuple[float, float] | None = None  # of a box of which only one is drawn, image pixels
    guessed: bool = False  # whether the only box is the whole picture, because nobody has looked for persons
    mistyped: str = ""  # what is wrong with the table of boxes as it stands on the page

    @classmethod
    def of(cls, path: Path, image: np.ndarray, boxes: np.ndarray, scores: np.ndarray) -> Editor:
        """A picture (H, W, 3) as it was loaded, with its first boxes; of too many the best."""
        size = (image.shape[1], image.shape[0])
        best = best_of(scores, MOST_PERSONS)
        boxes = np.asarray(boxes, np.float32).reshape(-1, 4)[best]
        guessed = len(boxes) == 1 and bool((boxes[0] == (0, 0, *size)).all())
        return cls(path, size, shrink(image, LONGEST), boxes, scores[best], guessed=guessed)

    @property
    def scale(self) -> float:
        """Pixels of the preview per pixel of the picture."""
        return self.preview.shape[1] / self.size[0]

    @property
    def hint(self) -> str:
        """What the visitor may do next."""
        if self.corner:
            return CORNER
        if self.guessed:
            return GUESSED
        marked = f"{counted(len(self.boxes), 'person')} marked. Tap two corners to add another."
        return marked if len(self.boxes) else NOBODY

    def tap(self, x: float, y: float) -> Editor:
        """The visitor pointed at a pixel of the preview: the first corner of a box, or its opposite.

        The box takes the place of one that was only guessed; InputError where it is tiny, or one too many.
        """
        point = ((x + 0.5) / self.scale, (y + 0.5) / self.scale)
        if self.corner is None:
            return replace(self, corner=point)
        ends = np.array([self.corner, point], np.float32)
        box = np.concatenate([ends.min(axis=0), ends.max(axis=0)])
        if (box[2:] - box[:2]).min() < LEAST * max(self.size):
            raise InputError(
                "These two corners are too close together: tap the opposite corner of the person."
            )
        kept = self.clear() if self.guessed else self
        changed = kept._changed(np.vstack([kept.boxes, box]), np.append(kept.scores, np.float32(1)))
        check_boxes(changed.boxes, self.size)
        return changed

    def whole(self) -> Editor:
        """With the whole picture as the only box."""
        return self._changed(np.array([[0, 0, *self.size]], np.float32), np.ones(1, np.float32))

    def undo(self) -> Editor:
        """Without the last thing drawn: a first corner, else the last box."""
        return replace(self, corner=None) if self.corner else self._changed(self.boxes[:-1], self.scores[:-1])

    def clear(self) -> Editor:
        """Without any box."""
        return self._changed(self.boxes[:0], self.scores[:0])

    def with_table(self, rows: Sequence[Sequence[Any]]) -> Editor:
        """With the boxes of a table of x0, y0, x1, y1; rows without any entry are left out.

        Boxes that the table shows as they are keep their decimals and their score. InputError for a row that
        is not four numbers, and as of :func:`check_boxes`.
        """
        known = {tuple(row): index for index, row in enumerate(self.table())}
        boxes, scores = [], []
        for number, row in enumerate(rows, start=1):
            if all(cell is None or cell == "" or cell != cell for cell in row):  # NaN is not itself
                continue
            try:
                box = np.array([float(cell) for cell in row], np.float32)
            except (TypeError, ValueError):
                box = np.zeros(0, np.float32)
            if len(box) != 4 or not np.isfinite(box).all():
                raise InputError(f"Box {number}: fill in four numbers x0, y0, x1, y1.")
            index = known.get(tuple(box.round().tolist()))
            boxes.append(box if index is None else self.boxes[index])
            scores.append(1.0 if index is None else self.scores[index])
        changed = self._changed(np.array(boxes, np.float32).reshape(-1, 4), np.array(scores, np.float32))
        check_boxes(changed.boxes, self.size)
        return changed

    def table(self) -> list[list[float]]:
        """The boxes as rows of whole pixels."""
        rows: list[list[float]] = self.boxes.round().tolist()
        return rows

    def picture(self) -> np.ndarray:
        """The preview with its boxes, numbered from 1, and the corner drawn so far."""
        drawn = draw_boxes(self.preview, self.boxes * self.scale)
        if self.corner:
            ring(drawn, np.array(self.corner) * self.scale, BOX)
        return drawn

    def _changed(self, boxes: np.ndarray, scores: np.ndarray) -> Editor:
        return replace(self, boxes=boxes, scores=scores, corner=None, guessed=False)


def best_of(scores: np.ndarray, most: int) -> np.ndarray:
    """Which of some persons have the ``most`` highest scores, in the order they come in."""
    return np.sort(np.argsort(-np.asarray(scores), kind="stable")[:most])


# --- what happens when a visitor does something: from what the page holds to what it shows next ---


@dataclass(frozen=True, eq=False)
class Result:
    """What was found for one visitor, and in which picture."""

    editor: Editor
    steps: int  # options of the run
    flip: bool
    threshold: float  # score from which on joints are drawn
    persons: list[Person]
    picked: tuple[int, int] | None = None  # person and joint that the next tap moves

    def nearest(self, x: float, y: float) -> tuple[int, int] | None:
        """The person and the joint drawn next to a point of the picture; None where none is near."""
        reach, found = NEAR * max(self.editor.size), None
        for person, each in enumerate(self.persons):
            drawn = each.held | (each.pose.scores >= self.threshold)
            far = np.where(drawn, np.linalg.norm(each.pose.keypoints - (x, y), axis=1), np.inf)
            if far.min() < reach:
                reach, found = float(far.min()), (person, int(far.argmin()))
        return found

    def person_at(self, x: float, y: float) -> int | None:
        """The person whose joint is next to a point, else the one in whose smallest box it lies."""
        if joint := self.nearest(x, y):
            return joint[0]
        boxes = self.editor.boxes
        inside = ((boxes[:, :2] <= (x, y)) & (boxes[:, 2:] >= (x, y))).all(1)
        sizes = np.where(inside, (boxes[:, 2:] - boxes[:, :2]).prod(1), np.inf)
        return int(sizes.argmin()) if inside.any() else None

    def put(self, number: int, person: Person) -> Result:
        """With another in a person's place, and no joint picked."""
        persons = [person if row == number else each for row, each in enumerate(self.persons)]
        return replace(self, persons=persons, picked=None)


class Handlers:
    """The page's answers. Those that raise ``InputError`` or ``OSError`` leave it to the page to say so.

    ``folder`` is for the files that visitors take away, beside the one they load up to.
    """

    def __init__(self, estimator: PoseEstimator, limits: Limits, decode: str, folder: Path) -> None:
        self.estimator, self.limits, self.decode, self.folder = estimator, limits, decode, folder

    def estimator_with(
        self, steps: int, flip: bool, detector: PersonDetector | None = None, hypotheses: int = 1
    ) -> PoseEstimator:
        """The estimator with a visitor's options, InputError where they are out of range."""
        if steps > MOST_STEPS:
            raise InputError(f"steps: {steps} is more than {MOST_STEPS}")
        network, detector = self.estimator.network, detector or self.estimator.detector
        own_steps = int(steps) if network.any_steps else None  # networks without diffusion know none
        return PoseEstimator(
            network, detector=detector, steps=own_steps, decode=self.decode, flip=flip,
            batch_size=self.estimator.batch_size, hypotheses=hypotheses,
        )  # fmt: skip

    def reason(self, error: InputError | OSError) -> str:
        """What is wrong, for the visitor, who does not know our folders."""
        if not isinstance(error, InputError):
            return f"The server cannot keep a file ({error.strerror or error}); please try again later."
        root, separator = re.escape(str(self.folder.parent)), re.escape(os.sep)
        text = re.sub(rf"{root}{separator}([^{separator}\s]+{separator})*", "", str(error))
        return re.sub(r"; [^;]*--[a-z][^;]*$", "", text)  # nor the options of the command

    def load(self, path: str | None) -> Parts:
        """A picture was dropped, or taken off (None)."""
        if path is None:
            return _edited(None, notice(WELCOME))
        try:
            image = self._read(path)
            editor = Editor.of(Path(path), image, *self.estimator.detector(image))
        except (InputError, OSError) as error:
            return _edited(None, notice(self.reason(error), alert=True))
        said = notice(editor.hint if len(editor.boxes) else NOBODY_FOUND)
        return {**_edited(editor, said), **shown(False), "result": None}

    def drop(self, path: str | None, steps: int, flip: bool, threshold: float) -> Iterator[Parts]:
        """A picture was dropped: it is loaded and, where persons are in it, their poses follow at once."""
        parts = self.load(path)
        yield parts
        editor = parts["editor"]
        if editor is not None and len(editor.boxes):
            try:
                found = self.run(editor, steps, flip, threshold)
                more = GUESSED if editor.guessed else MISSING
                found["notice"] = notice(f"{counted(len(editor.boxes), 'pose')} found. {more}")
            except (InputError, OSError) as error:
                found = {"notice": notice(self.reason(error), alert=True)}
            yield {**parts, **found}  # all of it: gradio empties a table that a later answer leaves out

    def change(self, editor: Editor | None, change: Callable[[Editor], Editor]) -> Parts:
        """The boxes are changed."""
        if editor is None:
            return {"notice": notice(WELCOME)}
        changed = change(replace(editor, mistyped=""))
        return _edited(changed, notice(changed.hint))

    def type_boxes(self, editor: Editor | None, rows: list[list[Any]]) -> Parts:
        """The table of boxes was edited. It stays as it is typed; with a mistake in it nothing is run."""
        try:
            parts = self.change(editor, lambda before: before.with_table(rows))
        except InputError as error:
            assert editor is not None
            return {"editor": replace(editor, mistyped=str(error)), "notice": notice(str(error), alert=True)}
        return {name: value for name, value in parts.items() if name != "table"}

    def run(self, editor: Editor | None, steps: int, flip: bool, threshold: float) -> Parts:
        """Find the poses and show everything about them."""
        if editor is None:
            raise InputError("There is no picture yet: drop one, or try an example.")
        if editor.mistyped:
            raise InputError(editor.mistyped)
        image = self._read(editor.path)
        persons = analyse(self.estimator_with(steps, flip), image, editor.boxes, editor.scores)
        names = [str(number) for number in range(1, len(persons) + 1)]
        parts = self._shown(
            Result(editor, steps, flip, threshold, persons), 0, f"{counted(len(persons), 'pose')} found."
        )
        person = gr.update(choices=names, value=names[0], visible=len(names) > 1)
        return {**shown(True), **parts, "person": person}

    def tap(self, result: Result | None, tapping: str, point: list[float]) -> Parts:
        """The picture with the poses was tapped at a pixel of the preview."""
        if result is None:
            return {}
        x, y = ((part + 0.5) / result.editor.scale for part in point)
        if tapping == MOVE_JOINT:
            return self._move(result, x, y)
        number = result.person_at(x, y)
        if number is None:
            raise InputError(NOT_THERE)
        chosen = result.persons[number]
        if chosen.pose.weight is None:
            held = np.column_stack([chosen.pose.keypoints, chosen.held])
            chosen = self._again(result, number, held, chosen.held, HYPOTHESES)
        else:
            chosen = replace(chosen, shown=(chosen.shown + 1) % len(chosen.poses))
        which = f"Pose {chosen.shown + 1} of {len(chosen.poses)} of person {number + 1}."
        return self._shown(result.put(number, chosen), number, f"{which} Tap again for the next.")

    def switch(self, result: Result | None, person: str, choice: str) -> Parts:
        """Another of a person's poses is chosen by its number."""
        if result is None:
            return {}
        number, shown = int(person) - 1, int(choice.partition(":")[0]) - 1
        changed = result.put(number, replace(result.persons[number], shown=shown))
        return self._shown(changed, number, f"Pose {shown + 1} of person {number + 1}.")

    def redraw(self, result: Result | None, person: str, threshold: float) -> Parts:
        """Joints are drawn from another score on."""
        if result is None:
            return {}
        changed = replace(result, threshold=threshold)
        return self._shown(changed, int(person) - 1, f"Joints are drawn from a score of {threshold:g} on.")

    def _move(self, result: Result, x: float, y: float) -> Parts:
        """A tap that picks a joint, or puts the one that is picked; the others follow."""
        if result.picked is None:
            picked = result.nearest(x, y)
            if picked is None:
                raise InputError(NO_JOINT)
            joint = self.estimator.skeleton.joints[picked[1]].replace("_", " ")
            said = f"{joint} of person {picked[0] + 1}: tap where it belongs."
            return self._shown(replace(result, picked=picked), picked[0], said)
        number, joint_number = result.picked
        before = result.persons[number]
        start = np.column_stack([before.pose.keypoints, np.ones(len(before.held))]).astype(np.float32)
        held = before.held.copy()
        start[joint_number, :2], held[joint_number] = (x, y), True
        after = self._again(result, number, start, held)
        said = f"Person {number + 1}: {counted(int(held.sum()), 'joint')} kept, the rest found again."
        return self._shown(result.put(number, after), number, said)

    def _again(
        self, result: Result, number: int, start: np.ndarray, held: np.ndarray, hypotheses: int = 1
    ) -> Person:
        """A person once more, from a start (J, 3); from the model's own where no joint is given."""
        estimator = self.estimator_with(result.steps, result.flip, hypotheses=hypotheses)
        editor, own = result.editor, slice(number, number + 1)
        begin = (start[None].astype(np.float32), held[None]) if held.any() else (None, None)
        (found,) = analyse(estimator, self._read(editor.path), editor.boxes[own], editor.scores[own], *begin)
        return found

    def _shown(self, result: Result, number: int, said: str) -> Parts:
        """All poses drawn, to look at and to take away, and everything about one person."""
        editor, poses = result.editor, [person.pose for person in result.persons]
        drawn = draw_poses(self._read(editor.path), poses, result.threshold)
        png, json = write_results(self.folder, editor.path, drawn, poses)
        overlay = shrink(drawn, LONGEST)
        if len(poses) > 1:
            overlay = draw_boxes(overlay, editor.boxes * editor.scale, frames=False)
        marks = [(point, BOX) for each in result.persons for point in each.pose.keypoints[each.held]]
        if result.picked:
            person, joint = result.picked
            marks.append((result.persons[person].pose.keypoints[joint], PICKED))
        for point, color in marks:
            ring(overlay, (point + 0.5) * editor.scale - 0.5, color)
        files = {"overlay": overlay, "png": str(png), "json": str(json)}
        chosen = self.choose(result, str(number + 1), ALL_JOINTS)
        return {**files, **chosen, "result": result, "person": str(number + 1), "joint": ALL_JOINTS,
                "notice": notice(said)}  # fmt: skip

    def choose(self, result: Result | None, person: str, joint: str) -> Parts:
        """Another person is looked at."""
        if result is None:
            return {}
        chosen = result.persons[int(person) - 1]
        names = chosen.choices
        steps = [
            (step_view(chosen, step, result.threshold), caption)
            for step, caption in enumerate(step_captions(chosen))
        ]
        return {
            "joints": joint_scores(chosen.pose),
            "steps_shown": steps,
            "alternative": gr.update(choices=names, value=names[chosen.shown], visible=len(names) > 1),
            **self.show_heat(result, person, joint),
        }

    def show_heat(self, result: Result | None, person: str, joint: str) -> Parts:
        """Another joint's heatmap is looked at."""
        if result is None:
            return {}
        chosen = result.persons[int(person) - 1]
        index = None if joint == ALL_JOINTS else chosen.pose.skeleton.joints.index(joint)
        return {"heat": heatmap_view(result.editor.preview, result.editor.scale, chosen, index)}

    def _read(self, path: str | Path) -> np.ndarray:
        if not Path(path).is_file():
            raise InputError(GONE)
        return read_image(path, int(self.limits.megapixels * MILLION))


def _edited(editor: Editor | None, said: str) -> Parts:
    """A picture with its boxes, or (None) none any more."""
    parts = {"editor": editor, "tools": gr.update(visible=editor is not None), "notice": said}
    if editor is None:
        return {**parts, "picture": None, "table": [], **shown(False), "result": None}
    return {**parts, "picture": editor.picture(), "table": editor.table()}
