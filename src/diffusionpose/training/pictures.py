"""Small pictures of validation poses for TensorBoard."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import Tensor

from diffusionpose.data.dataset import PersonDataset, crops_of
from diffusionpose.evaluation.results import Row

JOINT_SCORE = 0.2  # HRNet's threshold: a joint below it is not drawn
LIMB, JOINT = (255, 160, 0), (0, 200, 255)  # RGB


def draw_pose(data: PersonDataset, index: int, row: Row | None) -> Tensor:
    """The crop of a person with its estimated pose, (3, h, w) uint8 RGB.

    Args:
        data: without augmentation.
        index: of the person in ``data``.
        row: COCO keypoint result, None for a person without one.
    """
    sample = data[index]
    image = np.ascontiguousarray(sample["image"].permute(1, 2, 0).numpy())
    if row is None:
        return sample["image"]
    skeleton = data.annotations.skeleton
    pose = torch.tensor(row["keypoints"], dtype=torch.float32).view(1, skeleton.num_joints, 3)
    batch = {name: sample[name][None] for name in ("center", "scale", "angle")}
    points = crops_of(batch, data.input_size, data.unbiased).image_to_input(pose[..., :2])[0]
    places = [tuple(point) for point in points.round().int().tolist()]
    drawn = [float(score) > JOINT_SCORE for score in pose[0, :, 2]]
    for a, b in skeleton.limbs:
        if drawn[a] and drawn[b]:
            cv2.line(image, places[a], places[b], LIMB, 1, cv2.LINE_AA)
    for place, visible in zip(places, drawn, strict=True):
        if visible:
            cv2.circle(image, place, 2, JOINT, -1, cv2.LINE_AA)
    return torch.from_numpy(image).permute(2, 0, 1)
