"""Geometry: crops, heatmaps and mirroring, the same code for NumPy arrays and PyTorch tensors.

Every function takes arrays of either kind and answers in the same kind, on the same device; nothing here
imports PyTorch. Batched, no state. All points are (x, y); sizes are (width, height).

A :class:`Crop` owns every change of coordinates between picture, network input and heatmap, in one of two
geometries (Huang et al., "The Devil is in the Details", CVPR 2020):

* biased, as in HRNet: sizes are counted in pixels, w_in / w_region input pixels per image pixel, and a
  heatmap pixel is w_in / w_hm input pixels;
* unbiased (UDP): sizes are counted in intervals between pixel centres, w - 1, so that mirroring the input
  mirrors the heatmap exactly.

A :class:`HeatmapCodec` turns keypoints into heatmaps (phi of Eq. 5) and back: by the plain maximum
(Algorithm 2), the quarter-pixel shift of HRNet, or DARK (Zhang et al., "Distribution-Aware Coordinate
Representation for Human Pose Estimation", CVPR 2020).
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
from array_api_compat import array_namespace, device

from diffusionpose.errors import InputError

Array: TypeAlias = Any  # np.ndarray or torch.Tensor

PADDING = 1.25  # a person box grows by this much in the crop (HRNet)
DECODE_METHODS = ("argmax", "quarter", "dark")
# Gaussian of HRNet's targets: sigma 2 on a map of 64 rows, 3 on one of 96, and so on with the map
ROWS_PER_SIGMA = 32


def namespace(array: Array) -> Any:
    """The array API of an array: NumPy's own, or PyTorch's by array-api-compat."""
    return np if isinstance(array, np.ndarray) else array_namespace(array)


def to_numpy(array: Array) -> np.ndarray:
    """An array of either kind as NumPy's, on the CPU, floats as float32 or wider."""
    if isinstance(array, np.ndarray):
        return array
    array = array.detach().cpu()
    return (array.float() if array.is_floating_point() and array.itemsize < 4 else array).numpy()


def _like(numbers: Sequence[Any], array: Array) -> Array:
    """Numbers as an array of the kind, type and device of another."""
    return namespace(array).asarray(numbers, dtype=array.dtype, device=device(array))


# --- crops ---


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
    """b rectangles cut out of pictures, all resized to one network input size."""

    center: Array  # (b, 2) middle of the rectangle, image pixels
    scale: Array  # (b, 2) its width and height, image pixels
    angle: Array  # (b,) degrees by which the content turns, clockwise as seen on the screen
    input_size: tuple[int, int]  # (width, height) of the network input, pixels
    unbiased: bool = False  # UDP geometry instead of HRNet's

    @classmethod
    def from_boxes(
        cls,
        boxes: Array,
        input_size: tuple[int, int],
        padding: float = PADDING,
        unbiased: bool = False,
        turn: int = 0,
    ) -> Crop:
        """Crops around (b, 4) xyxy boxes in image pixels, grown to the input's aspect and by ``padding``.

        ``turn`` is the angle, a multiple of 90 degrees.
        """
        xp = namespace(boxes)
        boxes = xp.astype(boxes, xp.float32)
        center = (boxes[:, :2] + boxes[:, 2:]) / 2
        width, height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
        if turn % 180:
            width, height = height, width
        aspect = input_size[0] / input_size[1]
        width, height = xp.maximum(width, height * aspect), xp.maximum(height, width / aspect)
        scale = xp.stack([width, height], axis=1) * padding
        return cls(center, scale, xp.zeros_like(width) + turn, input_size, unbiased)

    def __len__(self) -> int:
        return len(self.center)

    def __getitem__(self, index: int | slice | Array) -> Crop:
        if isinstance(index, int):
            index = slice(index, index + 1 or None)
        return replace(self, center=self.center[index], scale=self.scale[index], angle=self.angle[index])

    def changed(self, zoom: Array, turn: Array) -> Crop:
        """Augmented crops: the region grown by ``zoom`` (b,), the content turned by ``turn`` (b,) degrees."""
        return replace(self, scale=self.scale * zoom[:, None], angle=self.angle + turn)

    def matrix(self) -> Array:
        """(b, 2, 3) affine matrices from image pixels to input pixels."""
        linear = self._linear()
        shift = self._middle() - (linear @ self.center[:, :, None])[:, :, 0]
        return namespace(linear).concat([linear, shift[:, :, None]], axis=2)

    def image_to_input(self, points: Array) -> Array:
        """(b, n, 2) image pixels -> input pixels."""
        return (points - self.center[:, None]) @ self._linear().mT + self._middle()

    def input_to_image(self, points: Array) -> Array:
        """(b, n, 2) input pixels -> image pixels: the inverse of :meth:`image_to_input`."""
        inverse = self._rotation().mT / self._zoom()[:, None, :]
        return (points - self._middle()) @ inverse.mT + self.center[:, None]

    def heatmap_to_input(self, points: Array, heatmap_size: tuple[int, int]) -> Array:
        """(b, n, 2) pixels of a heatmap of ``heatmap_size`` (width, height) -> input pixels."""
        ratio = heatmap_ratio(self.input_size, heatmap_size, self.unbiased)
        return points / _like(ratio, points)

    def heatmap_to_image(self, points: Array, heatmap_size: tuple[int, int]) -> Array:
        """(b, n, 2) pixels of a heatmap of ``heatmap_size`` (width, height) -> image pixels."""
        return self.input_to_image(self.heatmap_to_input(points, heatmap_size))

    def covariance_to_image(self, covariances: Array, heatmap_size: tuple[int, int]) -> Array:
        """(b, n, 2, 2) square pixels of a heatmap of ``heatmap_size`` (width, height) -> image pixels."""
        ratio = _like(heatmap_ratio(self.input_size, heatmap_size, self.unbiased), covariances)
        back = (self._rotation().mT / (self._zoom() * ratio)[:, None, :])[:, None]
        return back @ covariances @ back.mT

    def cut(self, image: np.ndarray, index: int = 0) -> np.ndarray:
        """The crop ``index`` of a picture: (H, W, 3) uint8 -> (h, w, 3) uint8, bilinear, black outside."""
        import cv2

        matrix = to_numpy(self[index].matrix())[0].astype(np.float64)
        return cv2.warpAffine(image, matrix, self.input_size, flags=cv2.INTER_LINEAR)

    def _middle(self) -> Array:
        return _like(intervals(self.input_size, self.unbiased), self.center) / 2

    def _zoom(self) -> Array:
        """(b, 2) input pixels per image pixel."""
        return _like(intervals(self.input_size, self.unbiased), self.center) / self.scale

    def _rotation(self) -> Array:
        xp = namespace(self.angle)
        radians = self.angle * (math.pi / 180)
        cos, sin = xp.cos(radians), xp.sin(radians)
        return xp.stack([xp.stack([cos, -sin], axis=1), xp.stack([sin, cos], axis=1)], axis=1)

    def _linear(self) -> Array:
        return self._zoom()[:, :, None] * self._rotation()


# --- heatmaps ---


@dataclass(frozen=True)
class HeatmapCodec:
    """From keypoints to heatmaps and back, for one input size and one stride."""

    input_size: tuple[int, int]  # (width, height) of the network input, pixels
    stride: int = 4  # input pixels per heatmap pixel, the paper's s
    unbiased: bool = False  # UDP geometry
    quantise: bool = False  # draw targets at whole pixels, as HRNet and SimpleBaseline do

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

    def to_heatmap(self, keypoints: Array) -> Array:
        """(b, j, 2) input pixels -> heatmap pixels."""
        return keypoints * _like(heatmap_ratio(self.input_size, self.size, self.unbiased), keypoints)

    def draw(self, keypoints: Array) -> Array:
        """phi (Eq. 5): (b, j, 2) heatmap pixels -> (b, j, h, w)."""
        return draw_heatmaps(keypoints, self.size, self.sigma, self.quantise)

    def decode(self, heatmaps: Array, method: str) -> tuple[Array, Array]:
        """(b, j, h, w) -> keypoints (b, j, 2) in heatmap pixels, scores (b, j)."""
        return decode(heatmaps, method, self.sigma)

    def reverse(
        self, coarse: Array, steps: int, start: Start | None, step: Callable[[Array, Array, float], Array]
    ) -> list[Array]:
        """Lines 3 to 8 of Algorithm 2: hm_T, .., hm_0, (b, j, h, w) each.

        A joint that ``start`` gives, in input pixels, is drawn at its keypoint, as Algorithm 1 draws y_t; the
        others start from the coarse heatmaps (Eq. 10). Fixed joints are drawn again after every step, as
        RePaint does with the known part of a picture (Lugmayr et al., CVPR 2022), so that the next step's
        heatmaps, keypoints and masks have them where they are.

        Args:
            coarse: heatmaps hm_T of no start.
            step: lines 5 to 8: hm_t, y_t (b, j, 2) in heatmap pixels and t / T -> hm_{t-1}.
        """
        xp, hm, y_t = namespace(coarse), [coarse], None
        if start is not None:
            given = start.given[..., None]
            y_t = xp.where(given, self.to_heatmap(start.keypoints), self.decode(coarse, "argmax")[0])
            drawn = self.draw(y_t)
            hm = [xp.where(given[..., None], drawn, coarse)]
        for number in range(steps):
            if y_t is None:
                y_t, _ = self.decode(hm[-1], "argmax")  # line 4
            hm.append(step(hm[-1], y_t, 1 - number / steps))
            if start is not None and start.fixed is not None:
                hm[-1] = xp.where(start.fixed[..., None, None], drawn, hm[-1])
            y_t = None
        return hm

    def mean_of_mirrored(self, both: Array, flip_order: Sequence[int]) -> Array:
        """The flip test: heatmaps (2 b, j, h, w) of pictures, then of their mirror images -> (b, j, h, w).

        HRNet's shift by one pixel belongs to its geometry; at stride 1 the two maps agree without.
        """
        # no len(): it would fix the batch of an exported graph
        straight, mirrored = namespace(both).reshape(both, (2, -1, *both.shape[1:]))
        shift = not self.unbiased and self.stride > 1
        return (straight + flip_heatmaps(mirrored, flip_order, shift)) / 2


def pixel_grid(size: tuple[int, int], like: Array) -> tuple[Array, Array]:
    """Coordinates of a (width, height) grid: x of shape (w,), y of shape (h, 1)."""
    xp, options = namespace(like), {"dtype": like.dtype, "device": device(like)}
    return xp.arange(size[0], **options), xp.arange(size[1], **options)[:, None]


def draw_heatmaps(keypoints: Array, size: tuple[int, int], sigma: float, quantise: bool = False) -> Array:
    """phi(y, sigma) of Eq. 5: (b, j, h, w), a Gaussian of height 1 at each of (b, j, 2) keypoints.

    All in heatmap pixels; a keypoint may lie outside, then only its tail is seen. ``quantise`` centres the
    Gaussian on the nearest pixel, as HRNet's biased targets are.
    """
    xp = namespace(keypoints)
    if quantise:
        keypoints = xp.floor(keypoints + 0.5)
    x, y = pixel_grid(size, keypoints)
    x0, y0 = keypoints[..., 0][..., None, None], keypoints[..., 1][..., None, None]
    # exp(a + b) as a product of two vectors: w + h exponentials a joint instead of w x h
    along_x = xp.exp(-((x - x0) ** 2) / (2 * sigma**2))
    along_y = xp.exp(-((y - y0) ** 2) / (2 * sigma**2))
    return along_x * along_y


NOT_FINITE = "a heatmap holds a number that is not finite"


def decode(heatmaps: Array, method: str = "dark", sigma: float = 2.0) -> tuple[Array, Array]:
    """Keypoints (b, j, 2) in heatmap pixels and scores (b, j), the maxima, of heatmaps (b, j, h, w).

    Args:
        heatmaps: InputError where one holds a number that is not finite.
        method: one of ``DECODE_METHODS``.
        sigma: of the Gaussians the model was trained on, heatmap pixels; DARK smooths with it.
    """
    if method not in DECODE_METHODS:
        raise ValueError(f"decode method {method!r} is not one of {', '.join(DECODE_METHODS)}")
    xp = namespace(heatmaps)
    heatmaps = xp.astype(heatmaps, xp.float32, copy=False)
    if _holds_numbers(heatmaps) and not xp.all(xp.isfinite(heatmaps)):
        raise InputError(
            f"{NOT_FINITE} (NaN or infinity): the weights or the picture are broken, or bf16 overflowed; "
            "check the checkpoint and try precision fp32"
        )
    b, j, h, w = heatmaps.shape
    flat = xp.reshape(heatmaps, (b, j, h * w))
    index, scores = xp.argmax(flat, axis=2), xp.max(flat, axis=2)
    keypoints = xp.astype(xp.stack([index % w, index // w], axis=-1), heatmaps.dtype)
    if method == "quarter":
        keypoints = _quarter_shift(heatmaps, keypoints)
    elif method == "dark":
        keypoints = _dark(heatmaps, keypoints, sigma)
    return keypoints, scores


def _holds_numbers(array: Array) -> bool:
    """False for tensors without numbers: of the meta device, or of a graph that is being exported."""
    if isinstance(array, np.ndarray):
        return True
    return not (array.is_meta or sys.modules["torch"].compiler.is_exporting())


def _neighbour(heatmaps: Array, keypoints: Array, dx: int, dy: int) -> Array:
    """(b, j) heatmap values at the integer keypoints moved by (dx, dy); the edge is repeated."""
    xp, (b, j, h, w) = namespace(heatmaps), heatmaps.shape
    at = xp.astype(keypoints, xp.int64)
    index = xp.clip(at[..., 1] + dy, 0, h - 1) * w + xp.clip(at[..., 0] + dx, 0, w - 1)
    return xp.take_along_axis(xp.reshape(heatmaps, (b, j, h * w)), index[..., None], axis=2)[..., 0]


def _inside(keypoints: Array, size: tuple[int, int], margin: int) -> Array:
    """(b, j) whether every neighbour up to ``margin`` pixels away lies on the map."""
    x, y = keypoints[..., 0], keypoints[..., 1]
    return (x >= margin) & (x < size[0] - margin) & (y >= margin) & (y < size[1] - margin)


def _quarter_shift(heatmaps: Array, keypoints: Array) -> Array:
    """A quarter pixel towards the higher neighbour in x and in y (Newell et al. 2016; HRNet)."""
    xp, (height, width) = namespace(heatmaps), heatmaps.shape[-2:]
    across = _neighbour(heatmaps, keypoints, 1, 0) - _neighbour(heatmaps, keypoints, -1, 0)
    down = _neighbour(heatmaps, keypoints, 0, 1) - _neighbour(heatmaps, keypoints, 0, -1)
    slope = xp.stack([across, down], axis=-1)
    inside = _inside(keypoints, (width, height), margin=1)
    return xp.where(inside[..., None], keypoints + 0.25 * xp.sign(slope), keypoints)


def _smoothing(size: int, sigma: float, like: Array) -> Array:
    """(size, size) matrix that smooths a row with a Gaussian, zeros beyond its ends."""
    xp = namespace(like)
    radius = math.ceil(2.5 * sigma)  # 11 wide at sigma 2, as published
    steps = xp.arange(-radius, radius + 1, dtype=like.dtype, device=device(like))
    places = xp.arange(size, dtype=like.dtype, device=device(like))
    apart = places[:, None] - places
    weights = xp.where(xp.abs(apart) <= radius, xp.exp(-(apart**2) / (2 * sigma**2)), 0.0)
    return weights / xp.sum(xp.exp(-(steps**2) / (2 * sigma**2)))


def _smooth(heatmaps: Array, sigma: float) -> Array:
    """Gaussian smoothing that keeps each map's maximum (DARK, Eq. 11), as two products of matrices."""
    xp, (height, width) = namespace(heatmaps), heatmaps.shape[-2:]
    maps = _smoothing(height, sigma, heatmaps) @ (heatmaps @ _smoothing(width, sigma, heatmaps))
    before = xp.max(heatmaps, axis=(2, 3), keepdims=True)
    after = xp.max(maps, axis=(2, 3), keepdims=True)
    return maps * before / xp.clip(after, 1e-10, None)


def _dark(heatmaps: Array, keypoints: Array, sigma: float) -> Array:
    """One Newton step on the log of the smoothed heatmap from its maximum (DARK, Eq. 10)."""
    xp, (height, width) = namespace(heatmaps), heatmaps.shape[-2:]
    smooth = _smooth(heatmaps, sigma)

    def at(dx: int, dy: int) -> Array:
        return xp.log(xp.clip(_neighbour(smooth, keypoints, dx, dy), 1e-10, None))

    middle, left, right, above, below = at(0, 0), at(-1, 0), at(1, 0), at(0, -1), at(0, 1)
    gradient_x, gradient_y = (right - left) / 2, (below - above) / 2
    # second differences two pixels wide, as the published method takes them
    hessian_xx = (at(2, 0) - 2 * middle + at(-2, 0)) / 4
    hessian_yy = (at(0, 2) - 2 * middle + at(0, -2)) / 4
    hessian_xy = (at(1, 1) - at(1, -1) - at(-1, 1) + at(-1, -1)) / 4
    determinant = hessian_xx * hessian_yy - hessian_xy**2
    # a maximum has a positive determinant; a flat or saddle-shaped map keeps its argmax
    peaked = (determinant > 1e-8) & (hessian_xx < 0) & _inside(keypoints, (width, height), margin=2)
    safe = xp.where(peaked, determinant, xp.ones_like(determinant))
    step_x = -(hessian_yy * gradient_x - hessian_xy * gradient_y) / safe
    step_y = -(hessian_xx * gradient_y - hessian_xy * gradient_x) / safe
    step = xp.clip(xp.stack([step_x, step_y], axis=-1), -1, 1)
    return xp.where(peaked[..., None], keypoints + step, keypoints)


# --- mirroring ---


def flip_images(images: Array) -> Array:
    """(..., h, w) pictures mirrored left to right: pixel x goes to w - 1 - x."""
    return namespace(images).flip(images, axis=-1)


def flip_keypoints(
    keypoints: Array, visible: Array, flip_order: Sequence[int], width: int
) -> tuple[Array, Array]:
    """Keypoints (b, j, 2) and visibility (b, j) of the mirrored picture, ``width`` pixels wide."""
    order = list(flip_order)
    mirrored = keypoints[:, order]
    x, y = width - 1 - mirrored[..., 0], mirrored[..., 1]
    return namespace(keypoints).stack([x, y], axis=-1), visible[:, order]


def flip_heatmaps(heatmaps: Array, flip_order: Sequence[int], shift: bool = False) -> Array:
    """(b, j, h, w) heatmaps of the mirrored picture.

    With ``shift`` they move one pixel to the right: in the biased geometry the mirrored picture's heatmap,
    mirrored back, lies 1 - 1/stride pixels too far left, and HRNet's flip test moves it by one pixel. The
    unbiased geometry needs none (UDP, section 3).
    """
    xp = namespace(heatmaps)
    mirrored = xp.flip(heatmaps[:, list(flip_order)], axis=-1)
    return xp.concat([mirrored[..., :1], mirrored[..., :-1]], axis=-1) if shift else mirrored


# --- keypoints to start from ---


@dataclass(frozen=True, eq=False)
class Start:
    """Keypoints of b persons at which the reverse process begins, in the place of coarse heatmaps.

    Another model, an earlier frame or a hand gives them.

    ``keypoints`` (b, j, 2) are in pixels of the image or of the input, as the function that takes it says;
    those of joints that are not given do not count. ``fixed`` joints stay where they are in every step.

    Raises:
        InputError: arrays that do not belong together, a score that is negative or no number, a given joint
            whose keypoint is not finite, or a fixed one that is not given.
    """

    keypoints: Array
    scores: Array  # (b, j) confidence; above 0 where a joint is given, 0 where it is not
    fixed: Array | None = None  # (b, j) bool; None for no joint

    def __post_init__(self) -> None:
        xp = namespace(self.keypoints)
        if tuple(self.keypoints.shape) != (*self.scores.shape, 2) or self.scores.ndim != 2:
            raise InputError(
                f"start: keypoints of shape {tuple(self.keypoints.shape)} with scores of shape "
                f"{tuple(self.scores.shape)}; give (persons, joints, 2) and (persons, joints)"
            )
        if not _holds_numbers(self.scores):
            return
        if not xp.all(self.scores >= 0):
            raise InputError("start: a score is negative or no number; give 0 for a joint that is not given")
        if not xp.all(xp.isfinite(self.keypoints[self.given])):
            raise InputError("start: a keypoint is not finite; give its joint the score 0, or mend it")
        if self.fixed is not None and xp.any(self.fixed & ~self.given):
            raise InputError("start: a fixed joint is not given; give its place, and a score above 0")

    @property
    def given(self) -> Array:
        """(b, j) bool: which joints are given."""
        return self.scores > 0

    def in_crop(self, crop: Crop) -> Start:
        """From image pixels to input pixels of b crops."""
        return replace(self, keypoints=crop.image_to_input(self.keypoints))

    def with_mirrored(self, flip_order: Sequence[int], width: int) -> Start:
        """2 b persons: these, then those of the mirrored picture, ``width`` pixels wide."""
        concat = namespace(self.keypoints).concat
        keypoints, scores = flip_keypoints(self.keypoints, self.scores, flip_order, width)
        fixed = self.fixed
        return Start(
            concat([self.keypoints, keypoints]),
            concat([self.scores, scores]),
            None if fixed is None else concat([fixed, fixed[:, list(flip_order)]]),
        )


@dataclass(frozen=True)
class Neighbours:
    """Which of b crops are of one picture, and where in it: for networks that see the other persons beside.

    InputError for places that are not finite: those of pictures whose size is not known.
    """

    picture: Array  # (b,) whole numbers, equal for crops of one picture
    place: Array  # (b, 4) x0, y0, x1, y1 of the persons' boxes, shares of the picture's width and height

    def __post_init__(self) -> None:
        xp = namespace(self.place)
        if _holds_numbers(self.place) and not xp.all(xp.isfinite(self.place)):
            raise InputError(
                "neighbours: a picture's width and height are not known; annotations must tell them"
            )

    def with_mirrored(self) -> Neighbours:
        """2 b crops: these, then those of the mirrored pictures."""
        xp, (x0, y0, x1, y1) = namespace(self.place), self.place.T
        mirrored = xp.stack([1 - x1, y0, 1 - x0, y1], axis=1)
        others = self.picture + (xp.max(self.picture) + 1)
        return Neighbours(xp.concat([self.picture, others]), xp.concat([self.place, mirrored]))
