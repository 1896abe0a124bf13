"""The masks of Eq. 5: varphi(y_t, delta_kps, delta_ske) = {M_kps, M_ske}.

A mask is 1 within ``delta`` heatmap pixels of a keypoint (or of a limb) and 0 elsewhere. The
person has one mask of each kind, the union over joints (or limbs), which Eq. 6 multiplies with
every channel of the feature.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

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
