"""Crop: the coordinates of picture, input and heatmap, each change with its exact inverse."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from diffusionpose.geometry import Crop

SIZES = [(192, 256), (288, 384), (96, 128)]


def random_crop(seed: int, count: int, input_size: tuple[int, int], unbiased: bool) -> Crop:
    """Boxes of 5 to 600 pixels, turned and zoomed as in training."""
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=generator) * 800
    size = 5 + torch.rand(count, 2, generator=generator) * 595
    zoom = 0.65 + 0.7 * torch.rand(count, generator=generator)
    turn = 180 * torch.rand(count, generator=generator) - 90
    return Crop.from_boxes(torch.cat([corner, corner + size], 1), input_size, unbiased=unbiased).changed(
        zoom, turn
    )


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    input_size=st.sampled_from(SIZES),
    stride=st.sampled_from([1, 2, 4, 8]),
    unbiased=st.booleans(),
)
def test_round_trip_image_heatmap_image_is_below_a_thousandth_of_a_pixel(seed, input_size, stride, unbiased):
    crop = random_crop(seed, 8, input_size, unbiased)
    heatmap_size = (input_size[0] // stride, input_size[1] // stride)
    points = torch.rand(8, 17, 2, generator=torch.Generator().manual_seed(seed)) * 1000
    back = crop.heatmap_to_image(crop.image_to_heatmap(points, heatmap_size), heatmap_size)
    assert (back - points).abs().max() < 1e-3


@pytest.mark.parametrize("unbiased", [False, True])
def test_matrix_is_image_to_input(unbiased):
    crop = random_crop(1, 20, (192, 256), unbiased)
    points = torch.rand(20, 5, 2) * 1000
    matrix = crop.matrix()
    by_matrix = points @ matrix[:, :, :2].mT + matrix[:, None, :, 2]
    assert torch.allclose(by_matrix, crop.image_to_input(points), atol=2e-3)


def test_biased_crop_of_the_input_size_moves_nothing():
    crop = Crop.from_boxes(torch.tensor([[0.0, 0.0, 192.0, 256.0]]), (192, 256), padding=1.0)
    points = torch.rand(1, 5, 2) * 200
    assert torch.allclose(crop.image_to_input(points), points, atol=1e-4)


def test_box_is_grown_to_the_aspect_of_the_input_and_by_a_quarter():
    wide = Crop.from_boxes(torch.tensor([[0.0, 0.0, 300.0, 100.0]]), (192, 256))
    assert torch.allclose(wide.scale, torch.tensor([[375.0, 500.0]]))
    assert torch.equal(wide.center, torch.tensor([[150.0, 50.0]]))


def test_unbiased_mirror_of_the_input_is_the_mirror_of_the_heatmap():
    crop = random_crop(0, 1, (192, 256), unbiased=True)
    x = torch.tensor([[[30.0, 40.0]]])
    mirrored = torch.tensor([[[191.0 - 30.0, 40.0]]])
    hm, hm_mirrored = crop.input_to_heatmap(x, (48, 64)), crop.input_to_heatmap(mirrored, (48, 64))
    assert torch.allclose(47 - hm[..., 0], hm_mirrored[..., 0], atol=1e-5)


def test_positive_angle_turns_the_content_clockwise():
    crop = Crop.from_boxes(torch.tensor([[0.0, 0.0, 300.0, 400.0]]), (192, 256))
    above = crop.image_to_input(torch.tensor([[[150.0, 100.0]]]))
    turned = crop.changed(torch.ones(1), torch.tensor([90.0])).image_to_input(
        torch.tensor([[[150.0, 100.0]]])
    )
    assert above[0, 0, 1] < 128
    assert turned[0, 0, 0] > 96
    assert torch.allclose(turned[0, 0, 1], torch.tensor(128.0), atol=1e-3)


@pytest.mark.parametrize("unbiased", [False, True])
def test_cut_puts_a_dot_where_image_to_input_says(unbiased):
    image = np.zeros((400, 500, 3), np.uint8)
    dot = torch.tensor([[[260.0, 190.0]]])
    image[188:193, 258:263] = 255
    crop = Crop.from_boxes(
        torch.tensor([[150.0, 80.0, 350.0, 300.0]]), (192, 256), unbiased=unbiased
    ).changed(torch.ones(1), torch.tensor([30.0]))
    pixels = crop.cut(image)[:, :, 0].astype(float)
    rows, columns = np.mgrid[:256, :192]
    found = np.array([(pixels * columns).sum(), (pixels * rows).sum()]) / pixels.sum()
    assert np.abs(found - crop.image_to_input(dot)[0, 0].numpy()).max() < 0.2


def test_batch_equals_single():
    crop = random_crop(3, 6, (96, 128), True)
    points = torch.rand(6, 14, 2) * 500
    single = torch.cat([crop[i].image_to_input(points[i : i + 1]) for i in range(6)])
    assert torch.allclose(crop.image_to_input(points), single, atol=1e-4)
    rejoined = Crop.cat([crop[i] for i in range(6)])
    assert torch.equal(rejoined.scale, crop.scale)
    assert len(crop[-1]) == 1
    assert torch.equal(crop[-1].center[0], crop.center[5])


def test_crops_of_different_inputs_are_no_batch():
    with pytest.raises(ValueError, match="cannot be one batch"):
        Crop.cat([random_crop(0, 1, (192, 256), False), random_crop(0, 1, (96, 128), False)])
