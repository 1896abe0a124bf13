"""Poses with everything that led to them: the heatmaps and the poses of every diffusion step.

The last step's pose is that of :class:`PoseEstimator` for the same box and options.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffusionpose.errors import InputError
from diffusionpose.evaluation.nms import pose_score
from diffusionpose.geometry.crops import Crop
from diffusionpose.geometry.flips import flip_images
from diffusionpose.inference.detectors import usable_boxes
from diffusionpose.models.diffusion_pose import DiffusionPose
from diffusionpose.models.pose_model import PoseModel
from diffusionpose.poses import Pose

MOST_PERSONS = 12  # in one picture: bounds the time and the memory that a visitor can ask for
MOST_STEPS = 5
VIEW_ROWS = 384  # about the height in pixels of the crop that the steps are shown on


@dataclass(frozen=True)
class Options:
    """How the network is run.

    Attributes:
        steps: diffusion steps; None for the model's own way, and for models without diffusion.
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


def analyse(
    model: PoseModel,
    image: np.ndarray,
    boxes: np.ndarray,
    scores: np.ndarray,
    options: Options,
    batch: int = 8,
) -> list[Person]:
    """Find the poses in one picture, and keep what led to them.

    Args:
        model: in evaluation mode, on its device.
        image: (H, W, 3) uint8 RGB.
        boxes: (n, 4) xyxy, image pixels; they may reach over the edge.
        scores: (n,) of the boxes.
        options: of the network.
        batch: persons per pass through the network.

    Returns:
        One person for each box, in their order.

    Raises:
        InputError: no box, more than ``MOST_PERSONS``, a box that is outside or has no area, or options that
            the model cannot take.
    """
    _check(model, image, boxes, options)
    persons: list[Person] = []
    for start in range(0, len(boxes), batch):
        part = slice(start, start + batch)
        persons += _persons(model, image, boxes[part].astype(np.float32), scores[part], options)
    return persons


def _check(model: PoseModel, image: np.ndarray, boxes: np.ndarray, options: Options) -> None:
    """InputError where boxes or options cannot be used."""
    if len(boxes) == 0:
        raise InputError(
            "No person is marked: tap two opposite corners around one, or take the whole picture."
        )
    if len(boxes) > MOST_PERSONS:
        raise InputError(f"{len(boxes)} boxes are marked; at most {MOST_PERSONS} at a time, please.")
    if options.steps is not None and options.steps > MOST_STEPS:
        raise InputError(f"steps: {options.steps} is more than {MOST_STEPS}")
    model.check_options(options.flip, options.steps)
    check_boxes(boxes, (image.shape[1], image.shape[0]))


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


@torch.no_grad()
def _persons(
    model: PoseModel, image: np.ndarray, boxes: np.ndarray, scores: np.ndarray, options: Options
) -> Iterator[Person]:
    """One pass through the network."""
    corners = torch.from_numpy(boxes)
    crops = Crop.from_boxes(corners, model.input_size, unbiased=model.unbiased)
    inputs = np.stack([crops.cut(image, index) for index in range(len(boxes))])
    images = torch.from_numpy(inputs).permute(0, 3, 1, 2).to(model.device)
    maps, poses = [], []
    for heatmaps in heatmap_steps(model, images, options):
        y, sure = model.codec.decode(heatmaps, options.decode)
        keypoints = crops.to(y.device).heatmap_to_image(y, model.heatmap_size)
        maps.append((heatmaps * 255).round().clamp(0, 255).to(torch.uint8).cpu().numpy())
        poses.append((keypoints.float().cpu().numpy(), sure.float().cpu().numpy()))
    (width, height), zoom = model.input_size, max(1, round(VIEW_ROWS / model.input_size[1]))
    views = Crop.from_boxes(corners, (width * zoom, height * zoom), unbiased=model.unbiased)
    for index, box in enumerate(boxes):
        steps = tuple(
            Pose(model.skeleton, points[index], sure[index], box, pose_score(scores[index], sure[index]))
            for points, sure in poses
        )
        yield Person(steps, np.stack([part[index] for part in maps]), views[index], views.cut(image, index))


def heatmap_steps(model: PoseModel, images: Tensor, options: Options) -> list[Tensor]:
    """The heatmaps of every step, (b, j, h, w) each, with the flip test; one alone without diffusion.

    Args:
        model: any pose model.
        images: (b, 3, H, W) RGB uint8 crops.
        options: of the network.
    """
    steps: dict[str, Any] = {} if options.steps is None else {"steps": options.steps}
    if not isinstance(model, DiffusionPose):
        return [model.heatmaps(images, options.flip, **steps)]
    both = torch.cat([images, flip_images(images)]) if options.flip else images
    maps = [heatmaps.float() for heatmaps in model.denoise(both, **steps)]
    return [model.mean_of_mirrored(heatmaps) for heatmaps in maps] if options.flip else maps
