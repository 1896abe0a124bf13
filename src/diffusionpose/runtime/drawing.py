"""Poses drawn on a picture: limbs, joints, boxes, numbers, scores and names of joints."""

from collections.abc import Callable, Sequence

import cv2
import numpy as np

from diffusionpose.errors import InputError
from diffusionpose.poses import ABSENT, HIDDEN, REGION, VISIBLE_SCORE, Pose

WHITE, DARK = "#FFFFFF", "#101018"
# Of persons with a number, in turn; legible below black text. From Okabe and Ito's colour-blind-safe set.
PERSON_COLORS = ("#56B4E9", "#E69F00", "#F0E442", "#CC79A7", "#00C795", "#FF8A5C", "#A9C7FF", "#D9D9D9")
FONT = cv2.FONT_HERSHEY_SIMPLEX
FONT_HEIGHT = 22.0  # pixels of a capital letter at scale 1
SURE_SCORE = 0.5  # joints above are drawn at full strength
FAINTEST = 0.55  # opacity of a joint at VISIBLE_SCORE
SHADOW = 0.6  # opacity of the dark rim that keeps limbs legible on any ground
FACE_WEIGHT = 0.65  # finer lines where joints are close together
DIMMED = 0.45  # of a picture's brightness below a heatmap
STRIP = 256  # rows that are painted at a time, which bounds the memory; 64 to 512 are as fast (measured)
SHIFT = 4  # OpenCV takes coordinates in 2^-SHIFT pixels
EDGE = 0.7  # OpenCV's smooth edges reach this many pixels over the outline (measured: 0.6 to 0.75)
CIRCLE = np.array([(np.cos(angle), np.sin(angle)) for angle in np.linspace(0, 2 * np.pi, 24, endpoint=False)])

# Sides stay apart for the colour-blind, too: the nearest two of left, right and middle differ by 29 in
# CIE Lab as seen with protanopia, deuteranopia or tritanopia (Machado et al. 2009; test_drawing.py).
COLORS = {
    "left arm": "#F2600C",
    "left leg": "#FFC400",
    "right arm": "#2A6BFF",
    "right leg": "#12B8EE",
    "middle": "#FFFFFF",
    "head": "#B8F2A8",
}
FACE = {"nose", "eye", "ear"}
HEAD = {"head", *FACE}
LEG = {"hip", "knee", "ankle", "foot", "heel", "toe"}


def draw_poses(
    image: np.ndarray,
    poses: Sequence[Pose],
    min_score: float = VISIBLE_SCORE,
    *,
    boxes: bool = False,
    ids: Sequence[int | None] | None = None,
    scores: bool = False,
    names: bool = False,
    regions: bool = False,
) -> np.ndarray:
    """A copy of the picture with the poses drawn on it.

    A joint that the model is less sure of is fainter. Of poses with confidence, hidden joints are rings with
    dashed limbs, and joints that are absent, and more likely wrong than right, are left out. Who stands lower
    in the picture, mostly nearer, is drawn above the others.

    Args:
        image: (H, W, 3) uint8 RGB.
        poses: of persons in that picture.
        min_score: joints with a score below, and their limbs, are left out.
        boxes: draw the person boxes too.
        ids: a number for each pose or None; it is written at the person, and colours box and label.
        scores, names: write the score of each pose at the person, and the names of the joints.
        regions: draw the ellipses in which the joints lie with 90 %, of poses with confidence.

    Raises:
        InputError: another number of ids than of poses.
    """
    if ids is not None and len(ids) != len(poses):
        raise InputError(f"{len(poses)} poses but {len(ids)} ids; give one for each, None for none")
    drawn = np.array(image, order="C")
    numbers = [None] * len(poses) if ids is None else list(ids)
    for pose, number in zip(poses, numbers, strict=True) if boxes else ():
        draw_box(drawn, pose.box, _person_color(number))
    for pose in sorted(poses, key=lambda pose: float(pose.box[3])):
        if regions:
            _draw_regions(drawn, pose, min_score)
        _draw_pose(drawn, pose, min_score)
    for pose in poses if names else ():
        _draw_names(drawn, pose, min_score)
    for pose, number in zip(poses, numbers, strict=True):
        shown = pose.keypoints[drawn_joints(pose, min_score)]
        words = ([] if number is None else [str(number)]) + ([f"{pose.score:.2f}"] if scores else [])
        if words and boxes:
            draw_label(drawn, "  ".join(words), pose.box, _person_color(number), at_box=True)
        elif words and len(shown):
            place = np.concatenate([shown.min(axis=0), shown.max(axis=0)])
            draw_label(drawn, "  ".join(words), place, _person_color(number), at_box=False)
    return drawn


def draw_heatmap(image: np.ndarray, heatmap: np.ndarray, place: Callable[..., np.ndarray]) -> np.ndarray:
    """The picture (H, W, 3) dimmed, with a heatmap (h, w) of 0 to 1 glowing over it.

    ``place`` moves points (1, n, 2) of a heatmap of a size (w, h) to the picture.
    """
    corners = np.array([[[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]])
    origin, right, down = place(corners, heatmap.shape[::-1])[0]
    matrix = np.column_stack([right - origin, down - origin, origin])
    heat = cv2.warpAffine(heatmap.astype(np.float32), matrix, image.shape[1::-1])
    glow = cv2.applyColorMap((heat * 255).clip(0, 255).astype(np.uint8), cv2.COLORMAP_INFERNO)[:, :, ::-1]
    strength = np.sqrt(heat.clip(0, 1))[:, :, None]  # the outskirts of a peak are seen too
    return ((1 - strength) * DIMMED * image + strength * glow).clip(0, 255).astype(np.uint8)


def drawn_joints(pose: Pose, min_score: float = VISIBLE_SCORE) -> np.ndarray:
    """(J,) bool: which joints :func:`draw_poses` draws."""
    shown: np.ndarray = pose.scores >= min_score
    if pose.confidence is not None:
        shown = shown & ((pose.confidence.visibility != ABSENT) | (pose.confidence.right >= 0.5))
    return shown


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


def limb_width(image: np.ndarray, pose: Pose) -> float:
    """Width of a limb in pixels: in proportion to the person, but visible and never clumsy."""
    person = float(np.hypot(*(pose.box[2:] - pose.box[:2])))
    picture = max(image.shape[:2])
    return max(1.5, float(np.clip(person / 75, picture / 700, picture / 100)))


# A limb (two joints) or a joint (one): (n, 2) points, red, green, blue times opacity and opacity, radius
_Stroke = tuple[np.ndarray, tuple[int, int, int, int], float]


def _draw_pose(image: np.ndarray, pose: Pose, min_score: float) -> None:
    """Draw one pose into the picture, in place, strip by strip."""
    shown = drawn_joints(pose, min_score)
    if not shown.any():
        return
    width = limb_width(image, pose)
    strokes = _strokes(pose, shown, width)
    low = np.floor(pose.keypoints[shown].min(axis=0) - 2 * width).astype(int)
    high = np.ceil(pose.keypoints[shown].max(axis=0) + 2 * width).astype(int) + 1
    (x0, y0), (x1, y1) = np.maximum(low, 0).tolist(), np.minimum(high, image.shape[1::-1]).tolist()
    if x1 <= x0:
        return
    for top in range(y0, y1, STRIP):
        region = image[top : min(top + STRIP, y1), x0:x1]
        layer = np.zeros((*region.shape[:2], 4), np.uint8)
        for points, ink, radius in strokes:
            outline = np.round(_outline(points - (x0, top), max(radius - EDGE, 0.25)) * 2**SHIFT)
            cv2.fillConvexPoly(layer, outline.astype(np.int32), ink, cv2.LINE_AA, SHIFT)
        clear = cv2.bitwise_not(layer[:, :, 3])
        rest = cv2.multiply(region, cv2.merge([clear, clear, clear]), scale=1 / 255)
        region[:] = cv2.add(rest, layer[:, :, :3])


def _outline(points: np.ndarray, radius: float) -> np.ndarray:
    """(n, 2) outline of a limb or joint."""
    if len(points) == 1:
        return points + radius * CIRCLE
    along = points[1] - points[0]
    across = along[::-1] * (-radius, radius) / max(float(np.hypot(*along)), 1e-6)
    return np.concatenate([points + across, points[::-1] - across])


def _strokes(pose: Pose, shown: np.ndarray, width: float) -> list[_Stroke]:
    """What a pose is painted of, in order: dark rims, limbs (the least sure first), joints, their cores."""
    skeleton = pose.skeleton
    # FAINTEST at VISIBLE_SCORE, 1 from SURE_SCORE on
    sure = (pose.scores - VISIBLE_SCORE) / (SURE_SCORE - VISIBLE_SCORE)
    opacity = np.clip(FAINTEST + (1 - FAINTEST) * sure, FAINTEST, 1.0)
    parts = [*skeleton.limbs, *((joint,) for joint in range(skeleton.num_joints))]
    parts = [joints for joints in parts if shown[list(joints)].all()]
    parts.sort(key=lambda joints: (-len(joints), opacity[list(joints)].min()))
    hidden = (
        np.zeros(skeleton.num_joints, bool)
        if pose.confidence is None
        else pose.confidence.visibility == HIDDEN
    )
    rims, limbs, cores = [], [], []
    for joints in parts:
        points, strength = pose.keypoints[list(joints)], float(opacity[list(joints)].min())
        names = [skeleton.joints[joint] for joint in joints]
        color, limb = COLORS[part_of(*names)], len(joints) == 2
        reach = width * (FACE_WEIGHT if all(FACE & set(name.split("_")) for name in names) else 1.0)
        covered = bool(hidden[list(joints)].any())
        for piece in _dashes(points, 4 * reach) if limb and covered else [points]:
            rims.append((piece, _ink(DARK, strength * SHADOW), reach * (0.85 if limb else 1.25)))
            limbs.append((piece, _ink(color, strength), reach * (0.5 if limb else 0.9)))
        if not limb:
            core = DARK if color == WHITE else WHITE
            # no ink at all: the picture shows through the ring
            cores.append((points, _ink(core, 0 if covered else strength), reach * (0.6 if covered else 0.45)))
    return [*rims, *limbs, *cores]


def _dashes(points: np.ndarray, period: float) -> list[np.ndarray]:
    """The limb (2, 2) in pieces, each half a period long."""
    count = max(1, round(float(np.hypot(*(points[1] - points[0]))) / period))
    starts = (np.arange(count) + 0.25) / count
    return [points[0] + np.outer([at, at + 0.5 / count], points[1] - points[0]) for at in starts]


def _draw_regions(image: np.ndarray, pose: Pose, min_score: float) -> None:
    """Draw the outlines of the joints' 90 % regions, in place."""
    if pose.confidence is None:
        return
    thickness = max(1, round(limb_width(image, pose) / 4))
    for joint in np.flatnonzero(drawn_joints(pose, min_score)):
        reach = np.sqrt(REGION) * np.linalg.cholesky(pose.confidence.covariances[joint].astype(float))
        outline = np.round((pose.keypoints[joint] + CIRCLE @ reach.T) * 2**SHIFT).astype(np.int32)
        color = rgb(COLORS[part_of(pose.skeleton.joints[joint])])
        cv2.polylines(image, [outline], True, color, thickness, cv2.LINE_AA, SHIFT)


def _ink(color: str, opacity: float) -> tuple[int, int, int, int]:
    red, green, blue = (round(part * opacity) for part in rgb(color))
    return red, green, blue, round(255 * opacity)


def draw_box(image: np.ndarray, box: np.ndarray, color: str) -> None:
    """Draw a box (4,) xyxy, in place."""
    height, width = image.shape[:2]
    limits = np.array([width, height, width, height], np.float32)
    x0, y0, x1, y1 = np.clip(box, -limits, 2 * limits).astype(int).tolist()
    cv2.rectangle(image, (x0, y0), (x1, y1), rgb(color), max(1, round(max(height, width) / 400)))


def draw_label(image: np.ndarray, words: str, place: np.ndarray, color: str, at_box: bool) -> None:
    """Words on coloured ground, on the box's left upper corner or over its middle, inside the picture."""
    height, width = image.shape[:2]
    scale = max(0.35, max(height, width) / 1600)
    padding, thickness = max(2, round(7 * scale)), max(1, round(1.6 * scale))
    (w, h), _ = cv2.getTextSize(words, FONT, scale, thickness)
    w, h = w + 2 * padding, h + 2 * padding
    x0, y0, x1, _ = place
    left = x0 if at_box else (x0 + x1 - w) / 2
    bottom = y0 if at_box else y0 - FONT_HEIGHT * scale
    x = int(np.clip(left, 0, max(0, width - w)))
    y = int(np.clip(bottom - h, 0, max(0, height - h)))
    cv2.rectangle(image, (x, y), (x + w, y + h), rgb(color), cv2.FILLED)
    cv2.putText(image, words, (x + padding, y + h - padding), FONT, scale, rgb(DARK), thickness, cv2.LINE_AA)


def _draw_names(image: np.ndarray, pose: Pose, min_score: float) -> None:
    """Write the names of the joints shown beside them, in place."""
    width = limb_width(image, pose)
    scale = max(0.3, 1.7 * width / FONT_HEIGHT)
    thickness, rim = max(1, round(1.6 * scale)), max(1, round(1.2 * scale))
    looks = [(DARK, x, y) for x in (-rim, rim) for y in (-rim, rim)] + [(WHITE, 0, 0)]
    joints = zip(pose.skeleton.joints, pose.keypoints, drawn_joints(pose, min_score), strict=True)
    for name, point, shown in joints:
        if not shown:
            continue
        place = np.round(point + (1.6 * width, FONT_HEIGHT * scale / 2)).astype(int)
        if (np.abs(place) > 2**15).any():  # OpenCV's text has 16 bits for a place
            continue
        for color, x, y in looks:
            at = (int(place[0]) + x, int(place[1]) + y)
            ink = rgb(color)
            cv2.putText(image, name.replace("_", " "), at, FONT, scale, ink, thickness, cv2.LINE_AA)


def _person_color(number: int | None) -> str:
    """The colour of a person, by its number."""
    return WHITE if number is None else PERSON_COLORS[number % len(PERSON_COLORS)]


def rgb(color: str) -> tuple[int, int, int]:
    """``#RRGGBB`` as OpenCV takes it for pictures that are RGB."""
    return int(color[1:3], 16), int(color[3:5], 16), int(color[5:7], 16)
