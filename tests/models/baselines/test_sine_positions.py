"""The table of positions against its formula, number by number."""

import math

import pytest
import torch

from diffusionpose.models.heads import sine_positions


def test_it_is_the_formula():
    width, height, channels = 3, 5, 12
    table = sine_positions((width, height), channels)
    assert table.shape == (height * width, channels)
    half = channels // 2
    for row in range(height):
        for column in range(width):
            for k in range(channels):
                place, count = (row, height) if k < half else (column, width)
                i = k % half
                angle = 2 * math.pi * (place + 1) / count / 10000 ** (2 * (i // 2) / half)
                expected = math.cos(angle) if i % 2 else math.sin(angle)
                assert table[row * width + column, k].item() == pytest.approx(expected, abs=1e-5)


def test_places_differ_and_stretch_with_the_map():
    table = sine_positions((48, 64), 96)
    apart = torch.cdist(table, table) + 10 * torch.eye(len(table))
    assert apart.min() > 0.05
    coarse, fine = (sine_positions(size, 96).unflatten(0, size[::-1]) for size in ((6, 8), (12, 16)))
    assert torch.allclose(coarse, fine[1::2, 1::2], atol=1e-5)


def test_channels_that_cannot_be_split_are_an_error():
    with pytest.raises(ValueError, match="multiple of 4"):
        sine_positions((4, 4), 6)
