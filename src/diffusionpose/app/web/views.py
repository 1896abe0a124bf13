"""The pictures the page shows, painted from the numbers of an analysis."""

from __future__ import annotations

import cv2
import numpy as np
import torch

from diffusionpose.app.web.analysis import Person
from diffusionpose.geometry.crops import Crop, heatmap_ratio
from diffusionpose.inference.drawing import draw_poses
from diffusionpose.poses import Pose

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


def draw_cross(image: np.ndarray, x: float, y: float) -> None:
    """Mark a point of the picture (H, W, 3), in place."""
    size = max(image.shape[:2]) // 25
    for color, line in ((RIM, 7), (BOX, 3)):
        cv2.drawMarker(image, (round(x), round(y)), color, cv2.MARKER_CROSS, size, line, cv2.LINE_AA)


def _draw_number(image: np.ndarray, number: int, corner: tuple[int, int], size: float) -> None:
    """A number on a tag inside the upper left corner of a box, in place."""
    font, line = cv2.FONT_HERSHEY_SIMPLEX, max(1, round(2 * size))
    (wide, high), _ = cv2.getTextSize(str(number), font, size, line)
    x, y = corner
    cv2.rectangle(image, (x, y), (x + wide + high, y + 2 * high), BOX, cv2.FILLED)
    cv2.putText(image, str(number), (x + high // 2, y + high + high // 2), font, size, RIM, line, cv2.LINE_AA)


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
    corners, size = torch.tensor([[[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]]), (heat.shape[1], heat.shape[0])
    origin, right, down = person.crop.heatmap_to_image(corners, size)[0].double().numpy()
    # pixel centres: the preview's pixel p shows the picture's (p + 0.5) / scale - 0.5
    matrix = np.column_stack([right - origin, down - origin, origin + 0.5]) * scale
    matrix[:, 2] -= 0.5
    heat = cv2.warpAffine(heat, matrix, preview.shape[1::-1], flags=cv2.INTER_LINEAR)
    return lay_heat(preview, heat)


def step_view(person: Person, step: int, threshold: float) -> np.ndarray:
    """What one step knew: on the left its highest heatmap, on the right the skeleton read out of it.

    Returns:
        (H, 2 W + ``GAP``, 3) uint8 RGB over two copies of ``person.view``.
    """
    view = person.view
    size = (view.shape[1], view.shape[0])
    left = lay_heat(view, _grown(heat_of(person, None, step), size, person.crop.unbiased))
    right = draw_poses(view, [_in_view(person.steps[step], person.crop)], threshold)
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


def _grown(heat: np.ndarray, size: tuple[int, int], unbiased: bool) -> np.ndarray:
    """A heatmap (h, w) at the size (width, height) of the view, in the geometry of its crop."""
    across, down = heatmap_ratio(size, (heat.shape[1], heat.shape[0]), unbiased)
    matrix = np.array([[1 / across, 0, 0], [0, 1 / down, 0]])
    return cv2.warpAffine(heat, matrix, size, flags=cv2.INTER_LINEAR)


def _in_view(pose: Pose, crop: Crop) -> Pose:
    """The pose in pixels of the view."""
    points = torch.from_numpy(np.concatenate([pose.keypoints, pose.box.reshape(2, 2)]))
    moved = crop.image_to_input(points[None])[0].numpy()
    return Pose(pose.skeleton, moved[:-2], pose.scores, moved[-2:].ravel(), pose.score)
