"""Mirroring: pictures, keypoints and heatmaps, left joints swapped with right ones."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


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
