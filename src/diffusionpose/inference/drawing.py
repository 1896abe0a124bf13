"""Drawing poses on a picture, by supervision's annotators.

The annotators paint whole pixels in one opaque colour. Here they paint an enlarged layer and its
opacity instead, which are shrunk and laid over the picture once per person: edges come out smooth,
and a joint that the model is less sure of is fainter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import supervision

from diffusionpose.evaluation.nms import VISIBLE_SCORE
from diffusionpose.poses import Pose
from diffusionpose.skeletons import Skeleton

SURE_SCORE = 0.5  # joints above are drawn at full strength
FAINTEST = 0.55  # opacity of a joint at VISIBLE_SCORE
SHADOW = 0.6  # opacity of the dark rim that keeps limbs legible on any ground
FACE_WEIGHT = 0.65  # finer lines where joints are close together
LAYER_PIXELS = 16_000_000  # an enlarged layer is at most about this large, which bounds the memory

COLORS = {
    "left arm": "#FF7A1A",
    "left leg": "#FFC21A",
    "right arm": "#2F7BFF",
    "right leg": "#1FC8E8",
    "middle": "#C06BFF",
    "head": "#FF5C9E",
}
WHITE = "#FFFFFF"
DARK = "#101018"
FACE = {"nose", "eye", "ear"}
HEAD = {"head", *FACE}
LEG = {"hip", "knee", "ankle", "foot", "heel", "toe"}


def draw_poses(
    image: np.ndarray, poses: Sequence[Pose], threshold: float = VISIBLE_SCORE, boxes: bool = False
) -> np.ndarray:
    """A copy of the picture with the poses drawn on it.

    Left limbs are orange and yellow, right limbs blue and cyan, the trunk violet, the head pink.

    Args:
        image: (H, W, 3) uint8 RGB.
        poses: of persons in that picture.
        threshold: joints with a score below, and their limbs, are left out.
        boxes: draw the person boxes too.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    drawn = image.copy()
    if boxes and poses:
        detections = supervision.Detections(xyxy=np.stack([pose.box for pose in poses]))
        thickness = max(1, round(max(image.shape[:2]) / 500))
        frame = supervision.BoxAnnotator(
            supervision.Color.from_hex(WHITE), thickness, supervision.ColorLookup.INDEX
        )
        drawn = frame.annotate(drawn, detections)
    for pose in poses:
        _draw_pose(drawn, pose, threshold)
    return drawn


def part_of(*joints: str) -> str:
    """Which part of the body, a key of ``COLORS``, a joint or a limb between joints belongs to, by name."""
    words = {word for joint in joints for word in joint.split("_")}
    trunk = "shoulder" in words and len(joints) == 2
    if words & HEAD and not trunk:
        return "head"
    sides = words & {"left", "right"}
    if len(sides) != 1 or any("_" not in joint for joint in joints) or (trunk and words & {*LEG, *HEAD}):
        return "middle"
    return f"{sides.pop()} {'leg' if words & LEG else 'arm'}"


@dataclass(frozen=True)
class _Stroke:
    """A limb (two joints) or a joint (one), in the colour of its part of the body."""

    joints: tuple[int, ...]
    color: str
    opacity: float
    weight: float = 1.0


def _draw_pose(image: np.ndarray, pose: Pose, threshold: float) -> None:
    """Draw one pose into the picture."""
    shown = pose.scores >= threshold
    if not shown.any():
        return
    width = _limb_width(image, pose)
    low = np.floor(pose.keypoints[shown].min(axis=0) - 2 * width).astype(int)
    high = np.ceil(pose.keypoints[shown].max(axis=0) + 2 * width).astype(int) + 1
    (x0, y0), (x1, y1) = np.maximum(low, 0), np.minimum(high, image.shape[1::-1])
    region = image[y0:y1, x0:x1]
    if region.size == 0:
        return
    zoom = int(np.clip(np.sqrt(LAYER_PIXELS / (region.shape[0] * region.shape[1])), 1, 4))
    points = (pose.keypoints - (x0, y0) + 0.5) * zoom
    strokes = _strokes(pose.skeleton, pose.scores, shown)
    width *= zoom
    layer = _Layer.empty(region, zoom)
    for stroke in strokes:
        layer.paint(points, stroke, DARK, stroke.opacity * SHADOW, 1.7 * width, 1.25 * width)
    layer.lay_over(region)
    layer = _Layer.empty(region, zoom)
    for stroke in strokes:
        layer.paint(points, stroke, stroke.color, stroke.opacity, width, 0.9 * width)
    for stroke in strokes:
        if len(stroke.joints) == 1:
            layer.paint(points, stroke, WHITE, stroke.opacity, width, 0.45 * width)
    layer.lay_over(region)


def _limb_width(image: np.ndarray, pose: Pose) -> float:
    """Width of a limb in pixels: in proportion to the person, but never clumsy in the picture."""
    person = float(np.hypot(*(pose.box[2:] - pose.box[:2])))
    picture = max(image.shape[:2])
    return max(1.5, float(np.clip(person / 75, picture / 400, picture / 100)))


def _strokes(skeleton: Skeleton, scores: np.ndarray, shown: np.ndarray) -> list[_Stroke]:
    """Limbs, the least sure first, then joints."""
    faint = FAINTEST + (1 - FAINTEST) * (scores - VISIBLE_SCORE) / (SURE_SCORE - VISIBLE_SCORE)
    opacity = np.clip(faint, FAINTEST, 1.0)
    strokes = []
    for joints in [*skeleton.limbs, *((joint,) for joint in range(skeleton.num_joints))]:
        if shown[list(joints)].all():
            names = [skeleton.joints[joint] for joint in joints]
            face = all(FACE & set(name.split("_")) for name in names)
            weight = FACE_WEIGHT if face else 1.0
            strokes.append(
                _Stroke(joints, COLORS[part_of(*names)], float(opacity[list(joints)].min()), weight)
            )
    return sorted(strokes, key=lambda stroke: (-len(stroke.joints), stroke.opacity))


@dataclass(frozen=True)
class _Layer:
    """An enlarged sheet over a region of the picture.

    ``color`` (h, w, 3) BGR holds colour times opacity, ``opacity`` (h, w) 0 to 255.
    """

    color: np.ndarray
    opacity: np.ndarray

    @classmethod
    def empty(cls, region: np.ndarray, zoom: int) -> _Layer:
        height, width = region.shape[0] * zoom, region.shape[1] * zoom
        return cls(np.zeros((height, width, 3), np.uint8), np.zeros((height, width), np.uint8))

    def paint(
        self, points: np.ndarray, stroke: _Stroke, color: str, opacity: float, width: float, radius: float
    ) -> None:
        """Paint a limb ``width`` wide or a joint of ``radius``, in layer pixels."""
        tint = supervision.Color.from_hex(color)
        full = round(255 * opacity)
        for sheet, ink in (
            (self.color, supervision.Color(*(round(part * opacity) for part in tint.as_rgb()))),
            (self.opacity, supervision.Color(full, full, full)),
        ):
            ends = supervision.KeyPoints(xy=points[None, list(stroke.joints)].astype(np.float32))
            if len(stroke.joints) == 2:
                supervision.EdgeAnnotator(ink, max(1, round(width * stroke.weight)), [(1, 2)]).annotate(
                    sheet, ends
                )
            else:
                supervision.VertexAnnotator(ink, max(1, round(radius * stroke.weight))).annotate(sheet, ends)

    def lay_over(self, region: np.ndarray) -> None:
        """Shrink the layer to the region (h, w, 3) RGB and blend it in, in place."""
        size = region.shape[1::-1]
        color = cv2.resize(self.color, size, interpolation=cv2.INTER_AREA)[:, :, ::-1]
        opacity = cv2.resize(self.opacity, size, interpolation=cv2.INTER_AREA)[:, :, None]
        region[:] = (color + region * (1 - opacity / np.float32(255))).clip(0, 255)
