"""The people finder: a person is a point and a box (CenterNet, Zhou et al. 2019), on MoveNet's MultiPose.

MobileNetV2 x 1.5 with its pyramid gives a feature of stride 4, on which small heads say

============== ======================================================== =========
head           output                                                   channels
============== ======================================================== =========
``center``     logit of "a person's centre is here"                     1
``box_scale``  height and width of that person's box, in stride pixels  2
``box_offset`` from this pixel to the box's centre (y, x)               2
============== ======================================================== =========

Google's published weights (Apache-2.0) have these heads beside those for joints, so that training goes on
from a network that finds people. People are the local maxima of the centre's probability; no anchors.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import generalized_box_iou_loss

from diffusionpose.errors import InputError
from diffusionpose.models.encoders import (
    HEAD_CHANNELS,
    PYRAMID_CHANNELS,
    Convolution,
    MobileNetPyramid,
    Separable,
)
from diffusionpose.models.weight_files import read_safetensors

STRIDE = 4
WIDTH = 1.5  # MultiPose's multiplier of MobileNetV2's channels
HEADS = {"center": 1, "box_scale": 2, "box_offset": 2}
SPREAD = 0.09  # sigma of a centre's Gaussian over the side of the box (TTFNet, Liu et al. 2020: 0.54 / 6)
LEAST_SIGMA = 0.7  # of that Gaussian, in stride pixels
BOX_LEARNS_ABOVE = 0.3  # of the Gaussian: at these pixels the box is learned


class Targets(NamedTuple):
    """What the network should say of one picture, at stride 4."""

    center: Tensor  # (h, w), a Gaussian at each person's centre, exactly 1 at its middle
    known: Tensor  # (h, w), 0 where a centre may be that nobody labelled, else 1
    boxes: Tensor  # (4, h, w) xyxy in input pixels, of the person whose Gaussian is highest there
    weight: Tensor  # (h, w), how much the box counts there; sums to 1 for each person


class PeopleFinder(nn.Module):
    """Centres and boxes of persons; ``width`` and ``frozen`` as of :class:`MobileNetPyramid`."""

    def __init__(self, width: float = WIDTH, frozen: int = 0) -> None:
        super().__init__()
        self.backbone = MobileNetPyramid(width, frozen)
        self.heads = nn.ModuleDict()
        for name, outputs in HEADS.items():
            feature = Separable(PYRAMID_CHANNELS, HEAD_CHANNELS)
            self.heads[name] = nn.Sequential(feature, Convolution(HEAD_CHANNELS, outputs))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Images (b, 3, H, W) in [-1, 1], sides in multiples of 32 -> logits (b, h, w), boxes (b, 4, h, w).

        Boxes are xyxy in input pixels, h = H / 4, w = W / 4.
        """
        feature = self.backbone(images)
        center, size, offset = (self.heads[name](feature).float() for name in HEADS)
        height, width = feature.shape[2:]
        rows = torch.arange(height, device=images.device).view(-1, 1).expand(height, width)
        columns = torch.arange(width, device=images.device).expand(height, width)
        middle = torch.stack([rows, columns]) + offset  # (b, 2, h, w), y and x
        low, high = middle - size / 2, middle + size / 2
        boxes = torch.cat([low.flip(1), high.flip(1)], 1) * STRIDE
        return center[:, 0], boxes


class Peaks(nn.Module):
    """The network as it is exported: images (b, 3, H, W) -> scores (b, h, w), boxes (b, 4, h, w).

    Scores are the centre's probability, 0 wherever one of the eight neighbours is higher.
    """

    def __init__(self, finder: nn.Module) -> None:
        super().__init__()
        self.finder = finder

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """As of the class."""
        logits, boxes = self.finder(images)
        scores = logits.sigmoid()
        highest = F.max_pool2d(scores[:, None], 3, 1, 1)[:, 0]
        return scores * (scores >= highest), boxes


@torch.no_grad()
def find_peaks(finder: nn.Module, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What the exported network gives (:class:`Peaks`): scores (b, h, w), boxes (b, 4, h, w)."""
    scores, boxes = Peaks(finder)(torch.from_numpy(images))
    return scores.numpy(), boxes.numpy()


def load_finder_weights(finder: PeopleFinder, path: str | Path) -> None:
    """Load the weights of a trained people finder, or MoveNet MultiPose's without its heads for joints.

    Raises:
        InputError: the file cannot be read or is another network's.
    """
    named = {
        name if name.startswith(("heads.", "backbone.")) else f"backbone.{name}": weight
        for name, weight in read_safetensors(path)[0].items()
        if not name.startswith("heads.kpt_")
    }
    try:
        finder.load_state_dict(named)
    except RuntimeError as error:
        reason = str(error).splitlines()[1].strip()
        raise InputError(f"{path}: neither weights of a people finder nor of MultiPose: {reason}") from error


def draw_targets(boxes: np.ndarray, unknown: np.ndarray, height: int, width: int) -> Targets:
    """Targets of one picture.

    Args:
        boxes: (n, 4) xyxy of its persons, input pixels.
        unknown: (m, 4) xyxy, where there may be persons without a label: no centre is unlearned there.
        height, width: of the output, stride pixels.
    """
    center = np.zeros((height, width), np.float32)
    known = np.ones((height, width), np.float32)
    owner = np.full((height, width), -1)
    rows, columns = np.arange(height)[:, None], np.arange(width)[None]
    for x0, y0, x1, y1 in unknown / STRIDE:
        known[(rows >= y0 - 0.5) & (rows <= y1 + 0.5) & (columns >= x0 - 0.5) & (columns <= x1 + 0.5)] = 0
    for index, (x0, y0, x1, y1) in enumerate(boxes / STRIDE):
        x = min(max(int((x0 + x1) / 2), 0), width - 1)
        y = min(max(int((y0 + y1) / 2), 0), height - 1)
        sigma_x, sigma_y = max(SPREAD * (x1 - x0), LEAST_SIGMA), max(SPREAD * (y1 - y0), LEAST_SIGMA)
        gaussian = np.exp(-(((columns - x) / sigma_x) ** 2 + ((rows - y) / sigma_y) ** 2) / 2)
        owner[(gaussian >= BOX_LEARNS_ABOVE) & (gaussian > center)] = index
        center = np.maximum(center, gaussian)
    known = np.where(center > 0.1, 1, known).astype(np.float32)
    box_map, weight = np.zeros((4, height, width), np.float32), np.zeros((height, width), np.float32)
    for index, box in enumerate(boxes):
        mine = owner == index
        box_map[:, mine] = box[:, None]
        weight[mine] = center[mine] / max(center[mine].sum(), 1e-6)
    return Targets(*(torch.from_numpy(each.astype(np.float32)) for each in (center, known, box_map, weight)))


def finder_loss(logits: Tensor, boxes: Tensor, targets: Targets) -> tuple[Tensor, Tensor]:
    """The loss of the centres and that of the boxes, each a mean over the persons of the batch.

    Centres: the focal loss of CornerNet (Law and Deng 2018, Eq. 1) where ``known``. Boxes: 1 - GIoU
    (Rezatofighi et al. 2019) and the distance of the corners over the box's size, near the centres.
    ``logits`` (b, h, w) and ``boxes`` (b, 4, h, w) are the network's, the targets are stacked.
    """
    true = targets.center == 1
    log_p, log_not = F.logsigmoid(logits), F.logsigmoid(-logits)
    p = log_p.exp()
    found = torch.where(true, (1 - p) ** 2 * log_p, 0.0)
    empty = torch.where(true, 0.0, targets.known * (1 - targets.center) ** 4 * p**2 * log_not)
    persons = true.sum().clamp(min=1)
    center_loss = -(found + empty).sum() / persons

    at = targets.weight > 0
    weight = targets.weight[at]
    ours, theirs = boxes.permute(0, 2, 3, 1)[at], targets.boxes.permute(0, 2, 3, 1)[at]  # (n, 4)
    size = (theirs[:, 2:] - theirs[:, :2]).repeat(1, 2)
    distance = ((ours - theirs).abs() / size).mean(1)
    low, high = ours.split(2, 1)
    upright = torch.cat([low, torch.maximum(low, high)], 1)  # a box turned inside out has no area
    loss = generalized_box_iou_loss(upright, theirs) + distance
    box_loss = (weight * loss).sum() / weight.sum().clamp(min=1)
    return center_loss, box_loss
