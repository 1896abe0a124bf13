"""Crop: every change of coordinates between picture, network input and heatmap.

Two geometries (Huang et al., "The Devil is in the Details", CVPR 2020):

* biased, as in HRNet: sizes are counted in pixels, w_in / w_region input pixels per image pixel,
  and a heatmap pixel is w_in / w_hm input pixels;
* unbiased (UDP): sizes are counted in intervals between pixel centres, w - 1, so that mirroring
  the input mirrors the heatmap exactly.

Each is its own exact inverse. All points are (x, y).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

PADDING = 1.25  # a person box grows by this much in the crop (HRNet)


def intervals(size: tuple[int, int], unbiased: bool) -> tuple[float, float]:
    """Width and height as the geometry counts them: pixels, or (unbiased) intervals between their centres."""
    return (size[0] - 1.0, size[1] - 1.0) if unbiased else (float(size[0]), float(size[1]))


def heatmap_ratio(
    input_size: tuple[int, int], heatmap_size: tuple[int, int], unbiased: bool
) -> tuple[float, float]:
    """Heatmap pixels per input pixel, in x and in y."""
    (in_w, in_h), (hm_w, hm_h) = intervals(input_size, unbiased), intervals(heatmap_size, unbiased)
    return hm_w / in_w, hm_h / in_h


@dataclass(frozen=True, eq=False)
class Crop:
    """b rectangles cut out of pictures, all resized to one network input size.

    Attributes:
        center: (b, 2) middle of the rectangle, image pixels.
        scale: (b, 2) its width and height, image pixels.
        angle: (b,) degrees by which the content turns, clockwise as seen on the screen.
        input_size: (width, height) of the network input, pixels.
        unbiased: UDP geometry instead of HRNet's.
    """

    center: Tensor
    scale: Tensor
    angle: Tensor
    input_size: tuple[int, int]
    unbiased: bool = False

    @classmethod
    def from_boxes(
        cls, boxes: Tensor, input_size: tuple[int, int], padding: float = PADDING, unbiased: bool = False
    ) -> Crop:
        """Crops around (b, 4) xyxy boxes in image pixels, grown to the input's aspect and by ``padding``."""
        boxes = boxes.to(torch.float32)
        center = (boxes[:, :2] + boxes[:, 2:]) / 2
        width, height = (boxes[:, 2:] - boxes[:, :2]).unbind(1)
        aspect = input_size[0] / input_size[1]
        width, height = torch.maximum(width, height * aspect), torch.maximum(height, width / aspect)
        scale = torch.stack([width, height], dim=1) * padding
        return cls(center, scale, boxes.new_zeros(len(boxes)), input_size, unbiased)

    @classmethod
    def cat(cls, crops: Sequence[Crop]) -> Crop:
        """Several batches of crops as one; all must have the same input size and geometry."""
        first = crops[0]
        if any((c.input_size, c.unbiased) != (first.input_size, first.unbiased) for c in crops):
            raise ValueError("crops of different input sizes or geometries cannot be one batch")
        return replace(
            first,
            center=torch.cat([crop.center for crop in crops]),
            scale=torch.cat([crop.scale for crop in crops]),
            angle=torch.cat([crop.angle for crop in crops]),
        )

    def __len__(self) -> int:
        return len(self.center)

    def __getitem__(self, index: int | slice | Tensor) -> Crop:
        if isinstance(index, int):
            index = slice(index, index + 1 or None)
        return replace(self, center=self.center[index], scale=self.scale[index], angle=self.angle[index])

    def to(self, device: torch.device | str) -> Crop:
        """The same crops with their tensors on another device."""
        return replace(
            self, center=self.center.to(device), scale=self.scale.to(device), angle=self.angle.to(device)
        )

    def changed(self, zoom: Tensor, turn: Tensor) -> Crop:
        """Augmented crops: the region grown by ``zoom`` (b,), the content turned by ``turn`` (b,) degrees."""
        return replace(self, scale=self.scale * zoom[:, None], angle=self.angle + turn)

    def matrix(self) -> Tensor:
        """(b, 2, 3) affine matrices from image pixels to input pixels."""
        linear = self._linear()
        shift = self._middle() - (linear @ self.center[:, :, None])[:, :, 0]
        return torch.cat([linear, shift[:, :, None]], dim=2)

    def image_to_input(self, points: Tensor) -> Tensor:
        """(b, n, 2) image pixels -> input pixels."""
        return (points - self.center[:, None]) @ self._linear().mT + self._middle()

    def input_to_image(self, points: Tensor) -> Tensor:
        """(b, n, 2) input pixels -> image pixels: the inverse of :meth:`image_to_input`."""
        inverse = self._rotation().mT / self._zoom()[:, None, :]
        return (points - self._middle()) @ inverse.mT + self.center[:, None]

    def input_to_heatmap(self, points: Tensor, heatmap_size: tuple[int, int]) -> Tensor:
        """(b, n, 2) input pixels -> pixels of a heatmap of ``heatmap_size`` (width, height)."""
        return points * points.new_tensor(self._heatmap_ratio(heatmap_size))

    def heatmap_to_input(self, points: Tensor, heatmap_size: tuple[int, int]) -> Tensor:
        """The inverse of :meth:`input_to_heatmap`."""
        return points / points.new_tensor(self._heatmap_ratio(heatmap_size))

    def image_to_heatmap(self, points: Tensor, heatmap_size: tuple[int, int]) -> Tensor:
        """(b, n, 2) image pixels -> heatmap pixels."""
        return self.input_to_heatmap(self.image_to_input(points), heatmap_size)

    def heatmap_to_image(self, points: Tensor, heatmap_size: tuple[int, int]) -> Tensor:
        """(b, n, 2) heatmap pixels -> image pixels."""
        return self.input_to_image(self.heatmap_to_input(points, heatmap_size))

    def cut(self, image: np.ndarray, index: int = 0) -> np.ndarray:
        """The crop ``index`` of a picture: (H, W, 3) uint8 -> (h, w, 3) uint8, bilinear, black outside."""
        import cv2

        matrix = self[index].matrix()[0].double().cpu().numpy()
        return cv2.warpAffine(image, matrix, self.input_size, flags=cv2.INTER_LINEAR)

    def _heatmap_ratio(self, heatmap_size: tuple[int, int]) -> tuple[float, float]:
        return heatmap_ratio(self.input_size, heatmap_size, self.unbiased)

    def _middle(self) -> Tensor:
        return self.center.new_tensor(intervals(self.input_size, self.unbiased)) / 2

    def _zoom(self) -> Tensor:
        """(b, 2) input pixels per image pixel."""
        return self.center.new_tensor(intervals(self.input_size, self.unbiased)) / self.scale

    def _rotation(self) -> Tensor:
        radians = self.angle * (math.pi / 180)
        cos, sin = radians.cos(), radians.sin()
        return torch.stack([torch.stack([cos, -sin], 1), torch.stack([sin, cos], 1)], 1)

    def _linear(self) -> Tensor:
        return self._zoom()[:, :, None] * self._rotation()
