"""The masks of Eq. 5: varphi(y_t, delta_kps, delta_ske) = {M_kps, M_ske}.

A mask is 1 within ``delta`` heatmap pixels of a keypoint (or of a limb) and 0 elsewhere. The
person has one mask of each kind, the union over joints (or limbs), which Eq. 6 multiplies with
every channel of the feature.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from diffusionpose.errors import InputError

ROUNDING = 1e-3  # heatmap pixels


def pixel_grid(size: tuple[int, int], like: Tensor) -> tuple[Tensor, Tensor]:
    """Coordinates of a (width, height) grid: x of shape (w,), y of shape (h, 1)."""
    width, height = size
    x = torch.arange(width, dtype=like.dtype, device=like.device)
    y = torch.arange(height, dtype=like.dtype, device=like.device)
    return x, y[:, None]


def keypoint_mask(keypoints: Tensor, size: tuple[int, int], delta: float, visible: Tensor) -> Tensor:
    """M_kps of Eq. 5: discs of radius ``delta`` around the visible keypoints.

    Args:
        keypoints: (b, j, 2) heatmap pixels.
        size: (width, height) of the mask.
        delta: radius, heatmap pixels.
        visible: (b, j); joints that are 0 draw nothing.

    Returns:
        (b, 1, h, w) of zeros and ones.
    """
    x, y = pixel_grid(size, keypoints)
    x0, y0 = keypoints[:, :, None, None, :].unbind(-1)
    near = (x - x0).square() + (y - y0).square() <= delta**2
    return (near & visible.bool()[:, :, None, None]).any(dim=1, keepdim=True).to(keypoints.dtype)


def skeleton_mask(
    keypoints: Tensor,
    limbs: Sequence[tuple[int, int]],
    size: tuple[int, int],
    delta: float,
    visible: Tensor,
) -> Tensor:
    """M_ske of Eq. 5: bands of half width ``delta`` around the limbs whose two joints are visible.

    Args:
        keypoints: (b, j, 2) heatmap pixels.
        limbs: ``Skeleton.limbs``.
        size: (width, height) of the mask.
        delta: half width, heatmap pixels.
        visible: (b, j).

    Returns:
        (b, 1, h, w) of zeros and ones.
    """
    if not limbs:
        return keypoints.new_zeros(keypoints.shape[0], 1, size[1], size[0])
    first, second = torch.as_tensor(limbs, device=keypoints.device).unbind(1)
    start, along = keypoints[:, first], keypoints[:, second] - keypoints[:, first]
    drawn = visible.bool()[:, first] & visible.bool()[:, second]

    x, y = pixel_grid(size, keypoints)
    x0, y0 = start[:, :, None, None, :].unbind(-1)
    dx, dy = along[:, :, None, None, :].unbind(-1)
    # Nearest point of the segment: its share of the way from start to end, clipped to the segment.
    length_squared = (dx.square() + dy.square()).clamp_min(1e-6)
    share = (((x - x0) * dx + (y - y0) * dy) / length_squared).clamp(0, 1)
    distance_squared = (x - x0 - share * dx).square() + (y - y0 - share * dy).square()
    # pixels at just this distance are frequent: rounding, other in every runtime, is not to decide on them
    near = (distance_squared <= (delta + ROUNDING) ** 2) & drawn[:, :, None, None]
    return near.any(dim=1, keepdim=True).to(keypoints.dtype)


# Crop: every change of coordinates between picture, network input and heatmap

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


# Heatmaps: drawing them (phi of Eq. 5) and reading keypoints out of them

DECODE_METHODS = ("argmax", "quarter", "dark")


def draw_heatmaps(keypoints: Tensor, size: tuple[int, int], sigma: float, quantise: bool = False) -> Tensor:
    """phi(y, sigma) of Eq. 5: a Gaussian of height 1 at every keypoint.

    Args:
        keypoints: (b, j, 2) heatmap pixels; may lie outside, then only its tail is seen.
        size: (width, height) of the heatmap.
        sigma: of the Gaussian, heatmap pixels.
        quantise: centre the Gaussian on the nearest pixel, as HRNet's biased targets are.

    Returns:
        (b, j, h, w).
    """
    if quantise:
        keypoints = (keypoints + 0.5).floor()
    x, y = pixel_grid(size, keypoints)
    x0, y0 = keypoints[:, :, None, None, :].unbind(-1)
    # exp(a + b) as a product of two vectors: w + h exponentials a joint instead of w x h
    along_x = torch.exp(-(x - x0).square() / (2 * sigma**2))
    along_y = torch.exp(-(y - y0).square() / (2 * sigma**2))
    return along_x * along_y


def decode(heatmaps: Tensor, method: str = "dark", sigma: float = 2.0) -> tuple[Tensor, Tensor]:
    """Keypoints and scores of heatmaps.

    Args:
        heatmaps: (b, j, h, w), finite.
        method: one of ``DECODE_METHODS``.
        sigma: of the Gaussians the model was trained on, heatmap pixels; DARK smooths with it.

    Returns:
        keypoints (b, j, 2) in heatmap pixels, scores (b, j): the maximum of each heatmap.

    Raises:
        ValueError: an unknown method.
        InputError: a heatmap holds a number that is not finite.
    """
    if method not in DECODE_METHODS:
        raise ValueError(f"decode method {method!r} is not one of {', '.join(DECODE_METHODS)}")
    heatmaps = heatmaps.float()
    numbers = not (heatmaps.is_meta or torch.compiler.is_exporting())  # else there are none to look at yet
    if numbers and not heatmaps.isfinite().all():
        raise InputError(
            "a heatmap holds a number that is not finite (NaN or infinity): the weights or the picture "
            "are broken, or bf16 overflowed; check the checkpoint and try precision fp32"
        )
    keypoints, scores = _argmax(heatmaps)
    if method == "quarter":
        keypoints = _quarter_shift(heatmaps, keypoints)
    elif method == "dark":
        keypoints = _dark(heatmaps, keypoints, sigma)
    return keypoints, scores


def _argmax(heatmaps: Tensor) -> tuple[Tensor, Tensor]:
    width = heatmaps.shape[-1]
    scores, index = heatmaps.flatten(2).max(dim=2)
    return torch.stack([index % width, index // width], dim=-1).to(heatmaps.dtype), scores


def _neighbour(heatmaps: Tensor, keypoints: Tensor, dx: int, dy: int) -> Tensor:
    """(b, j) heatmap values at the integer keypoints moved by (dx, dy); the edge is repeated."""
    height, width = heatmaps.shape[-2:]
    x = (keypoints[..., 0].long() + dx).clamp(0, width - 1)
    y = (keypoints[..., 1].long() + dy).clamp(0, height - 1)
    return heatmaps.flatten(2).gather(2, (y * width + x)[..., None])[..., 0]


def _inside(keypoints: Tensor, size: tuple[int, int], margin: int) -> Tensor:
    """(b, j) whether every neighbour up to ``margin`` pixels away lies on the map."""
    x, y = keypoints.unbind(-1)
    return (x >= margin) & (x < size[0] - margin) & (y >= margin) & (y < size[1] - margin)


def _quarter_shift(heatmaps: Tensor, keypoints: Tensor) -> Tensor:
    """A quarter pixel towards the higher neighbour in x and in y (Newell et al. 2016; HRNet)."""
    height, width = heatmaps.shape[-2:]
    slope = torch.stack(
        [
            _neighbour(heatmaps, keypoints, 1, 0) - _neighbour(heatmaps, keypoints, -1, 0),
            _neighbour(heatmaps, keypoints, 0, 1) - _neighbour(heatmaps, keypoints, 0, -1),
        ],
        dim=-1,
    )
    inside = _inside(keypoints, (width, height), margin=1)
    return keypoints + 0.25 * slope.sign() * inside[..., None]


def _smooth(heatmaps: Tensor, sigma: float) -> Tensor:
    """Gaussian smoothing that keeps each map's maximum (DARK, Eq. 11)."""
    radius = math.ceil(2.5 * sigma)  # 11 wide at sigma 2, as published
    steps = torch.arange(-radius, radius + 1, dtype=heatmaps.dtype, device=heatmaps.device)
    kernel = torch.exp(-steps.square() / (2 * sigma**2))
    kernel = kernel / kernel.sum()
    maps = heatmaps.flatten(0, 1)[:, None]
    maps = F.conv2d(maps, kernel[None, None, None, :], padding=(0, radius))
    maps = F.conv2d(maps, kernel[None, None, :, None], padding=(radius, 0)).view_as(heatmaps)
    before = heatmaps.amax(dim=(2, 3), keepdim=True)
    after = maps.amax(dim=(2, 3), keepdim=True).clamp_min(1e-10)
    return maps * before / after


def _dark(heatmaps: Tensor, keypoints: Tensor, sigma: float) -> Tensor:
    """One Newton step on the log of the smoothed heatmap from its maximum (DARK, Eq. 10)."""
    height, width = heatmaps.shape[-2:]
    logs = _smooth(heatmaps, sigma).clamp_min(1e-10).log()

    def at(dx: int, dy: int) -> Tensor:
        return _neighbour(logs, keypoints, dx, dy)

    gradient_x, gradient_y = (at(1, 0) - at(-1, 0)) / 2, (at(0, 1) - at(0, -1)) / 2
    # second differences two pixels wide, as the published method takes them
    hessian_xx = (at(2, 0) - 2 * at(0, 0) + at(-2, 0)) / 4
    hessian_yy = (at(0, 2) - 2 * at(0, 0) + at(0, -2)) / 4
    hessian_xy = (at(1, 1) - at(1, -1) - at(-1, 1) + at(-1, -1)) / 4
    determinant = hessian_xx * hessian_yy - hessian_xy.square()
    # a maximum has a positive determinant; a flat or saddle-shaped map keeps its argmax
    peaked = (determinant > 1e-8) & (hessian_xx < 0) & _inside(keypoints, (width, height), margin=2)
    safe = torch.where(peaked, determinant, torch.ones_like(determinant))
    step_x = -(hessian_yy * gradient_x - hessian_xy * gradient_y) / safe
    step_y = -(hessian_xx * gradient_y - hessian_xy * gradient_x) / safe
    step = torch.stack([step_x, step_y], dim=-1).clamp(-1, 1)
    return keypoints + step * peaked[..., None]


# HeatmapCodec: from keypoints to heatmaps and back, for one input size and one stride

# Gaussian of HRNet's targets: sigma 2 on a map of 64 rows, 3 on one of 96, and so on with the map
ROWS_PER_SIGMA = 32


@dataclass(frozen=True)
class HeatmapCodec:
    """How a model's heatmaps stand for keypoints.

    Attributes:
        input_size: (width, height) of the network input, pixels.
        stride: input pixels per heatmap pixel, the paper's s.
        unbiased: UDP geometry (see :mod:`diffusionpose.geometry`).
        quantise: draw targets at whole pixels, as HRNet and SimpleBaseline do.
    """

    input_size: tuple[int, int]
    stride: int = 4
    unbiased: bool = False
    quantise: bool = False

    def __post_init__(self) -> None:
        width, height = self.input_size
        if width % self.stride or height % self.stride:
            raise InputError(f"input size {width}x{height} is no multiple of heatmap stride {self.stride}")

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the heatmaps."""
        return self.input_size[0] // self.stride, self.input_size[1] // self.stride

    @property
    def sigma(self) -> float:
        """Sigma of the Gaussians, heatmap pixels."""
        return self.size[1] / ROWS_PER_SIGMA

    def to_heatmap(self, keypoints: Tensor) -> Tensor:
        """(b, j, 2) input pixels -> heatmap pixels."""
        return keypoints * keypoints.new_tensor(heatmap_ratio(self.input_size, self.size, self.unbiased))

    def draw(self, keypoints: Tensor) -> Tensor:
        """phi (Eq. 5): (b, j, 2) heatmap pixels -> (b, j, h, w)."""
        return draw_heatmaps(keypoints, self.size, self.sigma, self.quantise)

    def decode(self, heatmaps: Tensor, method: str) -> tuple[Tensor, Tensor]:
        """(b, j, h, w) -> keypoints (b, j, 2) in heatmap pixels, scores (b, j)."""
        return decode(heatmaps, method, self.sigma)


# Mirroring: pictures, keypoints and heatmaps, left joints swapped with right ones


def flip_images(images: Tensor) -> Tensor:
    """(..., h, w) pictures mirrored left to right: pixel x goes to w - 1 - x."""
    return images.flip(-1)


def flip_keypoints(
    keypoints: Tensor, visible: Tensor, flip_order: Sequence[int], width: int
) -> tuple[Tensor, Tensor]:
    """Keypoints and visibility of the mirrored picture.

    Args:
        keypoints: (b, j, 2) pixels.
        visible: (b, j).
        flip_order: ``Skeleton.flip_order``.
        width: of the picture, pixels.
    """
    order = torch.as_tensor(flip_order, device=keypoints.device)
    mirrored = keypoints[:, order]
    return torch.stack([width - 1 - mirrored[..., 0], mirrored[..., 1]], dim=-1), visible[:, order]


def flip_heatmaps(heatmaps: Tensor, flip_order: Sequence[int], shift: bool = False) -> Tensor:
    """(b, j, h, w) heatmaps of the mirrored picture.

    Args:
        shift: move the result one pixel to the right. In the biased geometry the mirrored picture's
            heatmap, mirrored back, lies 1 - 1/stride pixels too far left; HRNet's flip test moves
            it by one pixel. The unbiased geometry needs none (UDP, section 3).
    """
    order = torch.as_tensor(flip_order, device=heatmaps.device)
    mirrored = heatmaps[:, order].flip(-1)
    if shift:
        mirrored = torch.cat([mirrored[..., :1], mirrored[..., :-1]], dim=-1)
    return mirrored


# Start: keypoints from elsewhere, at which the reverse process begins in the place of coarse heatmaps


@dataclass(frozen=True, eq=False)
class Start:
    """Keypoints of b persons, as another model, an earlier picture or a hand gives them.

    Attributes:
        keypoints: (b, j, 2), pixels of the image or of the input, as the function that takes it says.
            Those of joints that are not given do not count.
        scores: (b, j) how sure each is; above 0 where a joint is given, 0 where it is not.

    Raises:
        InputError: arrays that do not belong together, a score that is negative or no number, or a given
            joint whose keypoint is not finite.
    """

    keypoints: Tensor
    scores: Tensor

    def __post_init__(self) -> None:
        if self.keypoints.shape != (*self.scores.shape, 2) or self.scores.ndim != 2:
            raise InputError(
                f"start: keypoints of shape {tuple(self.keypoints.shape)} with scores of shape "
                f"{tuple(self.scores.shape)}; give (persons, joints, 2) and (persons, joints)"
            )
        if not (self.scores >= 0).all():
            raise InputError("start: a score is negative or no number; give 0 for a joint that is not given")
        if not self.keypoints[self.given].isfinite().all():
            raise InputError("start: a keypoint is not finite; give its joint the score 0, or mend it")

    @property
    def given(self) -> Tensor:
        """(b, j) bool: which joints are given."""
        return self.scores > 0

    def to(self, device: torch.device | str) -> Start:
        """The same on another device."""
        return Start(self.keypoints.to(device), self.scores.to(device))

    def in_crop(self, crop: Crop) -> Start:
        """From image pixels to input pixels of b crops."""
        return replace(self, keypoints=crop.image_to_input(self.keypoints))

    def with_mirrored(self, flip_order: Sequence[int], width: int) -> Start:
        """2 b persons: these, then those of the mirrored picture.

        Args:
            flip_order: ``Skeleton.flip_order``.
            width: of the picture, in the pixels of the keypoints.
        """
        keypoints, scores = flip_keypoints(self.keypoints, self.scores, flip_order, width)
        return Start(torch.cat([self.keypoints, keypoints]), torch.cat([self.scores, scores]))
