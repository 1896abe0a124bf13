"""The 2D sine position embedding of TransPose and TokenPose (after DETR, Carion et al., ECCV 2020)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

TEMPERATURE = 10000.0


def sine_positions(size: tuple[int, int], channels: int) -> Tensor:
    """Where each token is, as sines and cosines of its row and of its column.

    The first half of the channels is of the row, the second of the column. Rows count from 1 and are
    scaled so that the last one is at 2 pi, columns likewise: the table stretches with the map. In
    each half channels 2i and 2i + 1 are the sine and the cosine of position / 10000^(2i / half).

    Args:
        size: (width, height) of the map of tokens.
        channels: of a token; a multiple of 4.

    Returns:
        (h w, channels).

    Raises:
        ValueError: channels that cannot be split so.
    """
    if channels % 4:
        raise ValueError(f"{channels} channels are no multiple of 4, as sine positions need")
    width, height = size
    half = channels // 2
    wavelengths = TEMPERATURE ** (torch.arange(0, half, 2) / half)
    rows, columns = (
        2 * math.pi * torch.arange(1, count + 1)[:, None] / count / wavelengths for count in (height, width)
    )
    rows, columns = (torch.stack([angle.sin(), angle.cos()], 2).flatten(1) for angle in (rows, columns))
    table = torch.cat(
        [rows[:, None].expand(height, width, half), columns[None].expand(height, width, half)], dim=2
    )
    return table.flatten(0, 1)
