"""The tab for pictures, without its layout: a visitor's picture, what is found in it, and what is shown next.

Answers are dictionaries from the names of the page's parts (``page.py``) to their new values. Whatever
belongs to one visitor is in an :class:`Editor` and a :class:`Result`, which the page keeps for each session.
"""

from __future__ import annotations

import os
import re
import secrets
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from diffusionpose.app.options import write_json
from diffusionpose.app.predict import named_pictures
from diffusionpose.app.web.front_door import MILLION, Limits
from diffusionpose.errors import InputError
from diffusionpose.geometry import Crop, heatmap_ratio, to_numpy
from diffusionpose.poses import Pose, pose_score
from diffusionpose.runtime.boxes import usable_boxes
from diffusionpose.runtime.drawing import COLORS, draw_poses, part_of
from diffusionpose.runtime.estimator import PoseEstimator, heatmap_steps
from diffusionpose.runtime.images import FORMATS, read_image
from diffusionpose.runtime.networks import Network

Parts = dict[str, Any]

MOST_PERSONS = 30  # in one picture: bounds the time and the memory that a visitor can ask for
MOST_STEPS = 5
LONGEST = 1024  # pixels of the longer side of what is shown

WELCOME = "Drop a picture of people above, or try an example."
MARK = "tap (or click) two opposite corners around each person"
GUESSED = f"The whole picture counts as one person. Better: {MARK}."
CORNER = "Now tap the opposite corner."
NOBODY = f"Nobody is marked: {MARK}."
NOBODY_FOUND = f"Nobody was found in this picture. Is there somebody? Then {MARK}, and press Find poses."
GONE = "This picture was loaded long ago and is no longer kept: please load it again."
ALL_JOINTS = "all joints"


# --- files: what visitors load up, and what they take away ---


def read_upload(path: str | Path, limits: Limits) -> np.ndarray:
    """An uploaded picture as (H, W, 3) uint8 RGB, turned upright.

    Its header is looked at first; a picture with too many pixels is not decoded.

    Raises:
        InputError: not a picture, damaged or too large.
    """
    path = Path(path)
    size = _size_by_header(path)
    if size is None or size[0] * size[1] > limits.megapixels * MILLION:
        shown = "this picture" if size is None else f"{size[0]} x {size[1]} pixels"
        raise InputError(
            f"{path.name}: {shown} is more than {limits.megapixels} million pixels; "
            "scale it down and try again"
        )
    return read_image(path)


def _size_by_header(path: Path) -> tuple[int, int] | None:
    """(width, height) that the header claims; None where Pillow finds it too large, (0, 0) for no picture."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path, formats=FORMATS) as image:
                return image.size
    except Image.DecompressionBombError:
        return None
    except Exception:  # no picture, or a damaged one: read_image says which
        return 0, 0


def write_results(folder: Path, source: Path, drawn: np.ndarray, poses: Sequence[Pose]) -> tuple[Path, Path]:
    """The drawn picture and the poses, named and filled as `diffusionpose predict` does it.

    Args:
        folder: gets a new folder with the two files.
        source: the picture's file.
        drawn: (H, W, 3) uint8 RGB.
        poses: found in it.

    Returns:
        the PNG and the JSON file.

    Raises:
        InputError, OSError: they cannot be written.
    """
    (picture,) = named_pictures([source], lambda path: None)
    names = {"file_name": picture.file_name, "drawn": picture.drawn}
    rows = [
        {
            **pose.to_coco_result(picture.image_id),
            "box": pose.rounded_box,
            "joints": list(pose.skeleton.joints),
            **names,
        }
        for pose in poses
    ]
    place = new_folder(folder)
    (place / picture.drawn).write_bytes(cv2.imencode(".png", drawn[:, :, ::-1])[1].tobytes())
    write_json(place / "keypoints.json", rows)
    return place / picture.drawn, place / "keypoints.json"


def new_folder(folder: Path) -> Path:
    """A new folder in a folder, by a name that cannot be guessed."""
    place = folder / secrets.token_urlsafe(12)
    place.mkdir(parents=True)
    return place


# --- analysis: poses with everything that led to them ---


@dataclass(frozen=True)
class Options:
    """Options of the network.

    Attributes:
        steps: diffusion steps; None for the model's own number, and for models without diffusion.
        flip: average with the mirrored picture.
        decode: "argmax", "quarter" or "dark".
    """

    steps: int | None = None
    flip: bool = True
    decode: str = "dark"


@dataclass(frozen=True, eq=False)
class Person:
    """One person, and how the pose came about in S steps, the coarse heatmaps included.

    Attributes:
        steps: a pose for each of the S steps; the last one is the answer.
        heatmaps: (S, J, h, w) uint8, 255 for 1; below 0 and above 1 is cut off.
        crop: what the network saw, one crop in its geometry but larger.
        view: (H, W, 3) uint8 RGB, the picture in that crop.
    """

    steps: tuple[Pose, ...]
    heatmaps: np.ndarray
    crop: Crop
    view: np.ndarray

    @property
    def pose(self) -> Pose:
        """The answer."""
        return self.steps[-1]


VIEW_ROWS = 384  # about the height in pixels of the crop that the steps are shown on


def analyse(
    estimator: PoseEstimator, image: np.ndarray, boxes: np.ndarray, scores: np.ndarray, options: Options
) -> list[Person]:
    """Find the poses in one picture, and keep what led to them.

    Args:
        estimator: whose network is used.
        image: (H, W, 3) uint8 RGB.
        boxes: (n, 4) xyxy, image pixels; they may reach over the edge.
        scores: (n,) of the boxes.
        options: of the network.

    Returns:
        One person for each box, in their order.

    Raises:
        InputError: no box, more than ``MOST_PERSONS``, a box that is outside or has no area, or options that
            the model cannot take.
    """
    if len(boxes) == 0:
        raise InputError("Nobody is marked: tap two opposite corners around one, or take the whole picture.")
    _check_count(len(boxes))
    if options.steps is not None and options.steps > MOST_STEPS:
        raise InputError(f"steps: {options.steps} is more than {MOST_STEPS}")
    estimator.network.check(options.flip, options.steps)
    check_boxes(boxes, (image.shape[1], image.shape[0]))
    persons: list[Person] = []
    for start in range(0, len(boxes), estimator.batch_size):
        part = slice(start, start + estimator.batch_size)
        persons += _persons(estimator.network, image, boxes[part].astype(np.float32), scores[part], options)
    return persons


def check_boxes(boxes: np.ndarray, size: tuple[int, int]) -> None:
    """See that every box holds a part of the picture.

    Args:
        boxes: (n, 4) xyxy, image pixels.
        size: (width, height) of the picture.

    Raises:
        InputError: a box is outside or has no area; it is numbered from 1.
    """
    for number, box in enumerate(boxes, start=1):
        for problem in usable_boxes(box, *size)[2]:
            raise InputError(problem.replace("box 0", f"Box {number}", 1))


def _persons(
    network: Network, image: np.ndarray, boxes: np.ndarray, scores: np.ndarray, options: Options
) -> Iterator[Person]:
    """One pass through the network."""
    codec = network.codec
    crops = Crop.from_boxes(boxes, codec.input_size, unbiased=codec.unbiased)
    images = np.stack([crops.cut(image, index) for index in range(len(boxes))]).transpose(0, 3, 1, 2)
    maps, poses = [], []
    for heatmaps in heatmap_steps(network, images, flip=options.flip, steps=options.steps):
        y, sure = codec.decode(heatmaps, options.decode)
        maps.append((to_numpy(heatmaps) * 255).round().clip(0, 255).astype(np.uint8))
        poses.append((crops.heatmap_to_image(to_numpy(y), codec.size), to_numpy(sure)))
    (width, height), zoom = codec.input_size, max(1, round(VIEW_ROWS / codec.input_size[1]))
    views = Crop.from_boxes(boxes, (width * zoom, height * zoom), unbiased=codec.unbiased)
    for index, box in enumerate(boxes):
        steps = tuple(
            Pose(network.skeleton, points[index], sure[index], box, pose_score(scores[index], sure[index]))
            for points, sure in poses
        )
        yield Person(steps, np.stack([part[index] for part in maps]), views[index], views.cut(image, index))


# --- views: the pictures and tables the page shows ---

BOX, RIM = (255, 208, 64), (16, 16, 24)  # RGB, of a box and the rim that keeps it legible on any ground
DIMMED = 0.45  # of a picture's brightness below a heatmap
GAP = 6  # pixels between the two halves of a step


def shrink(image: np.ndarray, longest: int) -> np.ndarray:
    """The picture (H, W, 3) with its longer side at most ``longest`` pixels; a copy."""
    scale = longest / max(image.shape[:2])
    if scale >= 1:
        return image.copy()
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def draw_boxes(image: np.ndarray, boxes: np.ndarray, frames: bool = True) -> np.ndarray:
    """A copy of the picture with numbered boxes.

    Args:
        image: (H, W, 3) uint8 RGB.
        boxes: (n, 4) xyxy in its pixels; edges outside are drawn at the picture's own.
        frames: draw the boxes too, not only their numbers, which count from 1.
    """
    drawn = image.copy()
    height, width = image.shape[:2]
    thick = max(2, round(max(image.shape[:2]) / 350))
    for number, box in enumerate(boxes, start=1):
        x0, y0, x1, y1 = (round(float(part)) for part in box.clip(0, [width - 1, height - 1] * 2))
        for color, line in ((RIM, 2 * thick + 1), (BOX, thick)) if frames else ():
            cv2.rectangle(drawn, (x0, y0), (x1, y1), color, line, cv2.LINE_AA)
        _draw_number(drawn, number, (x0, y0), 0.3 * thick)
    return drawn


def _draw_number(image: np.ndarray, number: int, corner: tuple[int, int], size: float) -> None:
    """A number on a tag inside the upper left corner of a box, in place."""
    font, line = cv2.FONT_HERSHEY_SIMPLEX, max(1, round(2 * size))
    (wide, high), _ = cv2.getTextSize(str(number), font, size, line)
    x, y = corner
    cv2.rectangle(image, (x, y), (x + wide + high, y + 2 * high), BOX, cv2.FILLED)
    cv2.putText(image, str(number), (x + high // 2, y + high + high // 2), font, size, RIM, line, cv2.LINE_AA)


def _draw_cross(image: np.ndarray, x: float, y: float) -> None:
    """Mark a point of the picture (H, W, 3), in place."""
    size = max(image.shape[:2]) // 25
    for color, line in ((RIM, 7), (BOX, 3)):
        cv2.drawMarker(image, (round(x), round(y)), color, cv2.MARKER_CROSS, size, line, cv2.LINE_AA)


def lay_heat(image: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """The picture (H, W, 3) dimmed, with a heatmap (H, W) of 0 to 1 glowing over it."""
    glow = cv2.applyColorMap((heat * 255).clip(0, 255).astype(np.uint8), cv2.COLORMAP_INFERNO)[:, :, ::-1]
    strength = np.sqrt(heat.clip(0, 1))[:, :, None]  # the outskirts of a peak are seen too
    return ((1 - strength) * DIMMED * image + strength * glow).clip(0, 255).astype(np.uint8)


def heat_of(person: Person, joint: int | None, step: int = -1) -> np.ndarray:
    """(h, w) of 0 to 1: the heatmap of a joint, or (None) the highest of all joints at every pixel."""
    maps = person.heatmaps[step]
    heat = maps.max(axis=0) if joint is None else maps[joint]
    return heat.astype(np.float32) / 255


def heatmap_view(preview: np.ndarray, scale: float, person: Person, joint: int | None) -> np.ndarray:
    """The heatmap of a joint where it lies in the picture.

    Args:
        preview: (h, w, 3) uint8 RGB, the picture at ``scale`` pixels per pixel of the original.
        scale: of the preview.
        person: whose heatmaps.
        joint: its index; None for all joints.

    Returns:
        (h, w, 3) uint8 RGB.
    """
    heat = heat_of(person, joint)
    corners, size = np.array([[[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]]), (heat.shape[1], heat.shape[0])
    origin, right, down = person.crop.heatmap_to_image(corners, size)[0]
    # pixel centres: the preview's pixel p shows the picture's (p + 0.5) / scale - 0.5
    matrix = np.column_stack([right - origin, down - origin, origin + 0.5]) * scale
    matrix[:, 2] -= 0.5
    heat = cv2.warpAffine(heat, matrix, preview.shape[1::-1], flags=cv2.INTER_LINEAR)
    return lay_heat(preview, heat)


def step_view(person: Person, step: int, threshold: float) -> np.ndarray:
    """One step: on the left its highest heatmap, on the right the skeleton read out of it.

    Returns:
        (H, 2 W + ``GAP``, 3) uint8 RGB over two copies of ``person.view``.
    """
    view, heat = person.view, heat_of(person, None, step)
    size = (view.shape[1], view.shape[0])
    across, down = heatmap_ratio(size, (heat.shape[1], heat.shape[0]), person.crop.unbiased)
    matrix = np.array([[1 / across, 0, 0], [0, 1 / down, 0]])
    left = lay_heat(view, cv2.warpAffine(heat, matrix, size, flags=cv2.INTER_LINEAR))
    pose = person.steps[step]
    points = np.concatenate([pose.keypoints, pose.box.reshape(2, 2)])
    moved = person.crop.image_to_input(points[None])[0]
    in_view = Pose(pose.skeleton, moved[:-2], pose.scores, moved[-2:].ravel(), pose.score)
    right = draw_poses(view, [in_view], threshold)
    return np.concatenate([left, np.full((size[1], GAP, 3), 255, np.uint8), right], axis=1)


def step_captions(person: Person) -> list[str]:
    """A line for each step: which it is, and how far the joints moved in it on average, image pixels."""
    last = len(person.steps) - 1
    if last == 0:
        return ["Heatmaps and pose"]
    captions = ["Coarse heatmaps"]
    for step in range(1, last + 1):
        before, after = person.steps[step - 1].keypoints, person.steps[step].keypoints
        moved = float(np.linalg.norm(after - before, axis=1).mean())
        captions.append(f"Step {step} of {last}: {moved:.1f} px moved")
    return captions


def confidence_table(pose: Pose, threshold: float) -> str:
    """A row for each joint: its name, a bar in the colour it is drawn in, its score; in HTML.

    Args:
        pose: of one person.
        threshold: rows of joints with a score below, which are not drawn, are pale.
    """
    rows = ""
    for joint, score in zip(pose.skeleton.joints, pose.scores.tolist(), strict=True):
        pale = "" if score >= threshold else ' class="pale"'
        share = 100 * min(max(score, 0.0), 1.0)
        rows += (
            f'<tr{pale}><th scope="row">{escape(joint.replace("_", " "))}</th>'
            f'<td class="bar"><div style="width:{share:.1f}%;background:{COLORS[part_of(joint)]}"></div></td>'
            f"<td>{score:.2f}</td></tr>"
        )
    drawn = int((pose.scores >= threshold).sum())
    return (
        f'<p class="summary">{drawn} of {pose.skeleton.num_joints} joints drawn, '
        f"score of the person {pose.score:.2f}</p>"
        f'<table class="confidence"><tbody>{rows}</tbody></table>'
    )


def notice(text: str, alert: bool = False) -> str:
    """A line for the visitor, in HTML; ``alert`` for what went wrong."""
    return f'<p class="notice{" alert" * alert}" role="{"alert" if alert else "status"}">{escape(text)}</p>'


def counted(count: int, singular: str, plural: str = "") -> str:
    """A number and what it counts."""
    return f"{count} {singular if count == 1 else plural or singular + 's'}"


# --- the picture a visitor works on, and the boxes around the persons in it: every change gives a new one ---

LEAST = 0.01  # the smaller side of a box drawn by hand, in shares of the picture's longer side


@dataclass(frozen=True, eq=False)
class Editor:
    """One visitor's picture.

    Attributes:
        path: of the file.
        size: (width, height) of the picture.
        preview: (h, w, 3) uint8 RGB, the picture at the size it is shown at.
        boxes: (n, 4) float32 xyxy, image pixels.
        scores: (n,) of the boxes; 1 for those drawn by hand.
        corner: (x, y) of a box of which only one corner is drawn, image pixels.
        guessed: whether the only box is the whole picture, because nobody has looked for persons yet.
        mistyped: what is wrong with the table of boxes as it stands on the page; empty where nothing is.
    """

    path: Path
    size: tuple[int, int]
    preview: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray
    corner: tuple[float, float] | None = None
    guessed: bool = False
    mistyped: str = ""

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
        if not len(self.boxes):
            return NOBODY
        return f"{counted(len(self.boxes), 'person', 'persons')} marked. Tap two corners to add another."

    def tap(self, x: float, y: float) -> Editor:
        """The visitor pointed at a pixel of the preview: the first corner of a box, or its opposite.

        The second corner takes the place of a box that was only guessed.

        Raises:
            InputError: the box would be tiny, or one too many.
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
        kept = self._without(0) if self.guessed else self
        _check_count(len(kept.boxes) + 1)
        return kept._changed(np.vstack([kept.boxes, box]), np.append(kept.scores, np.float32(1)))

    def whole(self) -> Editor:
        """With the whole picture as the only box."""
        return self._changed(np.array([[0, 0, *self.size]], np.float32), np.ones(1, np.float32))

    def undo(self) -> Editor:
        """Without the last thing drawn: a first corner, else the last box."""
        return replace(self, corner=None) if self.corner else self._without(max(len(self.boxes) - 1, 0))

    def clear(self) -> Editor:
        """Without any box."""
        return self._changed(self.boxes[:0], self.scores[:0])

    def with_table(self, rows: Sequence[Sequence[Any]]) -> Editor:
        """With the boxes of a table of x0, y0, x1, y1; rows without any entry are left out.

        Raises:
            InputError: a row that is not four numbers, too many rows, or a box that is outside the picture or
                has no area.
        """
        boxes, scores = [], []
        known = {tuple(map(_whole_pixel, box)): index for index, box in enumerate(self.boxes)}
        for number, row in enumerate(rows, start=1):
            if all(cell is None or cell == "" or cell != cell for cell in row):  # NaN is not itself
                continue
            try:
                box = np.array([float(cell) for cell in row], np.float32)
            except (TypeError, ValueError):
                box = np.zeros(0, np.float32)
            if len(box) != 4 or not np.isfinite(box).all():
                raise InputError(f"Box {number}: fill in four numbers x0, y0, x1, y1.")
            index = known.get(tuple(map(_whole_pixel, box)))  # others keep their decimals and their score
            boxes.append(box if index is None else self.boxes[index])
            scores.append(1.0 if index is None else float(self.scores[index]))
        _check_count(len(boxes))
        changed = self._changed(np.array(boxes, np.float32).reshape(-1, 4), np.array(scores, np.float32))
        check_boxes(changed.boxes, self.size)
        return changed

    def table(self) -> list[list[float]]:
        """The boxes as rows of whole pixels."""
        return [[_whole_pixel(number) for number in box] for box in self.boxes]

    def picture(self) -> np.ndarray:
        """The preview with its boxes, numbered from 1, and the corner drawn so far."""
        drawn = draw_boxes(self.preview, self.boxes * self.scale)
        if self.corner:
            _draw_cross(drawn, *(part * self.scale for part in self.corner))
        return drawn

    def _without(self, index: int) -> Editor:
        others = np.arange(len(self.boxes)) != index
        return self._changed(self.boxes[others], self.scores[others])

    def _changed(self, boxes: np.ndarray, scores: np.ndarray) -> Editor:
        return replace(self, boxes=boxes, scores=scores, corner=None, guessed=False)


def best_of(scores: np.ndarray, most: int) -> np.ndarray:
    """Which of some persons have the ``most`` highest scores, in the order they come in."""
    return np.sort(np.argsort(-np.asarray(scores), kind="stable")[:most])


def _check_count(count: int) -> None:
    if count > MOST_PERSONS:
        raise InputError(f"At most {MOST_PERSONS} persons at a time, please: delete a box first.")


def _whole_pixel(number: float) -> float:
    return float(round(float(number)))


# --- what happens when a visitor does something: from what the page holds to what it shows next ---


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
    """The page's answers. Those that raise ``InputError`` or ``OSError`` leave it to the page to say so.

    Args:
        estimator: whose model and detector are used.
        limits: on pictures.
        decode: method by which heatmaps become points.
        folder: for the files that visitors take away, beside the one they load up to.
    """

    def __init__(self, estimator: PoseEstimator, limits: Limits, decode: str, folder: Path) -> None:
        self.estimator = estimator
        self.limits = limits
        self.decode = decode
        self.folder = folder

    def reason(self, error: InputError | OSError) -> str:
        """What is wrong, for the visitor, who does not know our folders."""
        if not isinstance(error, InputError):
            return f"The server cannot keep a file ({error.strerror or error}); please try again later."
        root, separator = re.escape(str(self.folder.parent)), re.escape(os.sep)
        text = re.sub(rf"{root}{separator}([^{separator}\s]+{separator})*", "", str(error))
        return re.sub(r"; [^;]*--[a-z][^;]*$", "", text)  # nor the options of the command

    def load(self, path: str | None, boxes: np.ndarray | None = None) -> Parts:
        """A picture was dropped, or taken off (None); ``boxes`` of a picture whose persons are known."""
        if path is None:
            return self._emptied(WELCOME)
        try:
            image = read_upload(path, self.limits)
            found = self.estimator.detector(image) if boxes is None else (boxes, np.ones(len(boxes)))
        except (InputError, OSError) as error:
            return self._emptied(self.reason(error), alert=True)
        editor = Editor.of(Path(path), image, *found)
        parts = {**self._edited(editor), **_shown(False)}
        return parts if len(editor.boxes) else {**parts, "notice": notice(NOBODY_FOUND)}

    def drop(
        self, path: str | None, options: Options, threshold: float, boxes: np.ndarray | None = None
    ) -> Iterator[Parts]:
        """A picture was dropped: it is loaded and, where persons are in it, their poses follow at once."""
        parts = self.load(path, boxes)
        yield parts
        editor = parts["editor"]
        if editor is not None and len(editor.boxes):
            more = (
                GUESSED if editor.guessed else "Somebody is missing? Tap two corners, and press Find poses."
            )
            try:
                found = self.run(editor, options, threshold)
                found["notice"] = notice(f"{counted(len(editor.boxes), 'pose')} found. {more}")
            except (InputError, OSError) as error:
                found = {"notice": notice(self.reason(error), alert=True)}
            yield {**parts, **found}  # all of it: gradio empties a table that a later answer leaves out

    def change(self, editor: Editor | None, change: Callable[[Editor], Editor]) -> Parts:
        """The boxes are changed."""
        return (
            {"notice": notice(WELCOME)}
            if editor is None
            else self._edited(change(replace(editor, mistyped="")))
        )

    def type_boxes(self, editor: Editor | None, rows: list[list[Any]]) -> Parts:
        """The table of boxes was edited. It stays as it is typed; with a mistake in it nothing is run."""
        if editor is None:
            return {"notice": notice(WELCOME)}
        try:
            parts = self._edited(replace(editor, mistyped="").with_table(rows))
        except InputError as error:
            return {"editor": replace(editor, mistyped=str(error)), "notice": notice(str(error), alert=True)}
        return {name: value for name, value in parts.items() if name != "table"}

    def run(self, editor: Editor | None, options: Options, threshold: float) -> Parts:
        """Find the poses and show everything about them."""
        import gradio as gr

        if editor is None:
            raise InputError("There is no picture yet: drop one, or try an example.")
        if editor.mistyped:
            raise InputError(editor.mistyped)
        image = self._read(editor.path)
        persons = analyse(self.estimator, image, editor.boxes, editor.scores, options)
        result = Result(editor.path, editor.preview, editor.scale, persons)
        names = [str(number) for number in range(1, len(persons) + 1)]
        return {
            **_shown(True),
            "result": result,
            "notice": notice(f"{counted(len(persons), 'pose')} found."),
            "person": gr.update(choices=names, value=names[0], visible=len(names) > 1),
            **self._drawn(result, image, threshold),
            **self.choose(result, names[0], ALL_JOINTS, threshold),
            "joint": ALL_JOINTS,
        }

    def redraw(self, result: Result | None, person: str, threshold: float) -> Parts:
        """Joints are drawn from another score on."""
        if result is None:
            return {}
        drawn = self._drawn(result, self._read(result.path), threshold)
        return {**drawn, **_facts(result.persons[int(person) - 1], threshold)}

    def choose(self, result: Result | None, person: str, joint: str, threshold: float) -> Parts:
        """Another person or joint is looked at."""
        if result is None:
            return {}
        return {**_facts(result.persons[int(person) - 1], threshold), **self.show_heat(result, person, joint)}

    def show_heat(self, result: Result | None, person: str, joint: str) -> Parts:
        """Another joint's heatmap is looked at."""
        if result is None:
            return {}
        chosen = result.persons[int(person) - 1]
        index = None if joint == ALL_JOINTS else chosen.pose.skeleton.joints.index(joint)
        return {"heat": heatmap_view(result.preview, result.scale, chosen, index)}

    def _read(self, path: Path) -> np.ndarray:
        if not path.is_file():
            raise InputError(GONE)
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

        return {
            "editor": editor,
            "picture": editor.picture(),
            "table": editor.table(),
            "tools": gr.update(visible=True),
            "notice": notice(editor.hint),
        }

    def _emptied(self, text: str, alert: bool = False) -> Parts:
        import gradio as gr

        return {
            "editor": None,
            "picture": None,
            "table": [],
            "tools": gr.update(visible=False),
            "notice": notice(text, alert),
            **_shown(False),
        }


def _shown(results: bool) -> Parts:
    """The results, or the words in their place."""
    import gradio as gr

    parts = {"results": gr.update(visible=results), "waiting": gr.update(visible=not results)}
    return parts if results else {**parts, "result": None}


def _facts(person: Person, threshold: float) -> Parts:
    """What does not depend on the joint looked at."""
    captions = step_captions(person)
    steps = [(step_view(person, step, threshold), caption) for step, caption in enumerate(captions)]
    return {"joints": confidence_table(person.pose, threshold), "steps_shown": steps}
