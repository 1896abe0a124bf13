"""What detector networks share: one picture or many, and which of the boxes they find are persons to pose."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
import torch
from torchvision.ops import nms

from diffusionpose.inference.detectors import Boxes

PERSON = "person"  # as COCO calls it, and with it all detectors here
MIN_SCORE = 0.3
MAX_PERSONS = 100  # COCO's official limit of detections a picture
# Boxes whose IoU is above are one person found twice. Measured: of 8,905 persons annotated in CrowdPose's and
# COCO's val, 34 (0.4 %) overlap so far with another, nearly all of them in crowds.
SAME_PERSON = 0.8
LEAST_SIDE = 1.0  # pixels; a box any thinner holds no body


class NetworkDetector(ABC):
    """A network that finds persons.

    Attributes:
        batch_size: pictures that :meth:`many` passes through the network together.
        min_score: boxes with a lower score are left out.
        max_persons: of the others, so many with the highest scores are kept.
    """

    batch_size: int = 1

    def __init__(self, min_score: float = MIN_SCORE, max_persons: int = MAX_PERSONS) -> None:
        self.min_score = min_score
        self.max_persons = max_persons

    def __call__(self, image: np.ndarray) -> Boxes:
        """Persons of a picture (H, W, 3) uint8 RGB: boxes (n, 4) xyxy float32, scores (n,), highest first."""
        return self.many([image])[0]

    def many(self, images: Sequence[np.ndarray]) -> list[Boxes]:
        """Persons of each picture, as of each alone; ``batch_size`` pictures at a time."""
        answers: list[Boxes] = []
        for first in range(0, len(images), self.batch_size):
            batch = images[first : first + self.batch_size]
            with torch.inference_mode():
                found = self._find(batch)
            answers += [
                self._persons(*boxes, image.shape[1], image.shape[0])
                for boxes, image in zip(found, batch, strict=True)
            ]
        return answers

    @abstractmethod
    def _find(self, images: Sequence[np.ndarray]) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """All boxes of the class "person": (n, 4) xyxy in image pixels and (n,) scores, for each picture."""

    def _persons(self, boxes: torch.Tensor, scores: torch.Tensor, width: int, height: int) -> Boxes:
        """The boxes to pose: sure enough, cut at the picture's edge, each person once, surest first."""
        boxes, scores = boxes.detach().float().cpu(), scores.detach().float().cpu()
        limits = torch.tensor([width, height, width, height], dtype=torch.float32)
        boxes = torch.minimum(boxes.clamp(min=0), limits)
        good = (scores >= self.min_score) & ((boxes[:, 2:] - boxes[:, :2]) >= LEAST_SIDE).all(dim=1)
        boxes, scores = boxes[good], scores[good]
        kept = nms(boxes, scores, SAME_PERSON)[: self.max_persons]
        return boxes[kept].numpy(), scores[kept].numpy()
