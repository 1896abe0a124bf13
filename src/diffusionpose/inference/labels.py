"""What is written at persons in a picture: boxes, numbers, scores (by supervision) and names of joints."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import supervision
from supervision import Color, ColorPalette

from diffusionpose.poses import Pose

# Of persons with a number, in turn; legible below black text. From Okabe and Ito's colour-blind-safe set.
PERSON_COLORS = ("#56B4E9", "#E69F00", "#F0E442", "#CC79A7", "#00C795", "#FF8A5C", "#A9C7FF", "#D9D9D9")
PLAIN = "#FFFFFF"  # of persons without a number
INK = "#101018"
FONT = cv2.FONT_HERSHEY_SIMPLEX
FONT_HEIGHT = 22.0  # pixels of a capital letter at scale 1


def draw_boxes(image: np.ndarray, poses: Sequence[Pose], ids: Sequence[int | None]) -> None:
    """Draw the person boxes into a picture (H, W, 3) uint8 RGB, in place."""
    if not poses:
        return
    thickness = max(1, round(max(image.shape[:2]) / 400))
    frame = supervision.BoxAnnotator(_palette(ids), thickness, supervision.ColorLookup.INDEX)
    frame.annotate(image, _detections([pose.box for pose in poses], image))


def draw_labels(
    image: np.ndarray,
    poses: Sequence[Pose],
    ids: Sequence[int | None],
    *,
    at_boxes: bool,
    scores: bool,
    min_score: float,
) -> None:
    """Write number and score of each person into a picture (H, W, 3) uint8 RGB, in place.

    Args:
        image: the picture.
        poses: of the persons.
        ids: their numbers, None for a person without.
        at_boxes: at the corners of the boxes; else above the joints that are shown.
        scores: write the scores of the poses.
        min_score: joints with a score below are not shown.
    """
    words, places, owners = [], [], []
    for pose, number in zip(poses, ids, strict=True):
        shown = pose.keypoints[pose.scores >= min_score]
        parts = ([] if number is None else [str(number)]) + ([f"{pose.score:.2f}"] if scores else [])
        if not parts or not (at_boxes or len(shown)):
            continue
        words.append("  ".join(parts))
        places.append(pose.box if at_boxes else np.concatenate([shown.min(axis=0), shown.max(axis=0)]))
        owners.append(number)
    if not words:
        return
    scale = max(0.35, max(image.shape[:2]) / 1600)
    annotator = supervision.LabelAnnotator(
        _palette(owners),
        supervision.ColorLookup.INDEX,
        _color(INK),
        text_scale=scale,
        text_thickness=max(1, round(1.6 * scale)),
        text_padding=max(2, round(7 * scale)),
        text_position=supervision.Position.TOP_LEFT if at_boxes else supervision.Position.TOP_CENTER,
        text_offset=(0, 0) if at_boxes else (0, -round(FONT_HEIGHT * scale)),
        smart_position=True,  # keeps labels inside the picture
    )
    annotator.annotate(image, _detections(places, image), words)


def draw_names(image: np.ndarray, pose: Pose, min_score: float, width: float) -> None:
    """Write the names of the joints shown beside them, in place.

    Args:
        image: (H, W, 3) uint8 RGB.
        pose: whose joints.
        min_score: joints with a score below are not shown.
        width: of the pose's limbs, in pixels; letters are in proportion.
    """
    scale = max(0.3, 2.5 * width / FONT_HEIGHT)
    for name, point, score in zip(pose.skeleton.joints, pose.keypoints, pose.scores, strict=True):
        if score < min_score:
            continue
        place = np.round(point + (1.6 * width, FONT_HEIGHT * scale / 2)).astype(int)
        if (np.abs(place) > 2**15).any():  # OpenCV's text has 16 bits for a place; this one is far outside
            continue
        words, at = name.replace("_", " "), (int(place[0]), int(place[1]))
        thin = max(1, round(1.6 * scale))
        for color, thickness in ((INK, thin + 2), (PLAIN, thin)):
            cv2.putText(image, words, at, FONT, scale, _color(color).as_bgr(), thickness, cv2.LINE_AA)


def _palette(ids: Sequence[int | None]) -> ColorPalette:
    """The colour of each person, by its number."""
    colors = [PLAIN if number is None else PERSON_COLORS[number % len(PERSON_COLORS)] for number in ids]
    return ColorPalette([_color(color) for color in colors])


def _color(color: str) -> Color:
    """A colour for supervision, which takes pictures for BGR, while ours are RGB."""
    red, green, blue = Color.from_hex(color).as_rgb()
    return Color(blue, green, red)


def _detections(places: Sequence[np.ndarray], image: np.ndarray) -> supervision.Detections:
    """Boxes for supervision, cut where they leave the picture by more than a frame's thickness."""
    height, width = image.shape[:2]
    limits = np.array([width, height, width, height], np.float32)
    return supervision.Detections(xyxy=np.clip(np.stack(places), -limits, 2 * limits).astype(np.float32))
