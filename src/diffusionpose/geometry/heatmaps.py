"""Heatmaps: drawing them (phi of Eq. 5) and reading keypoints out of them.

Decoders, each batched over persons and joints: the plain maximum (Algorithm 2), the quarter-pixel
shift of HRNet, and DARK (Zhang et al., "Distribution-Aware Coordinate Representation for Human
Pose Estimation", CVPR 2020).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from diffusionpose.errors import InputError
from diffusionpose.geometry.masks import pixel_grid

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
