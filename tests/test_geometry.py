import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from diffusionpose.errors import InputError
from diffusionpose.geometry import (
    DECODE_METHODS,
    Crop,
    HeatmapCodec,
    Start,
    decode,
    draw_heatmaps,
    flip_heatmaps,
    flip_images,
    flip_keypoints,
)
from diffusionpose.skeletons import COCO, CROWDPOSE

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
    codec = HeatmapCodec(input_size, stride, unbiased)
    points = torch.rand(8, 17, 2, generator=torch.Generator().manual_seed(seed)) * 1000
    back = crop.heatmap_to_image(codec.to_heatmap(crop.image_to_input(points)), codec.size)
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
    codec = HeatmapCodec((192, 256), unbiased=True)
    x = torch.tensor([[[30.0, 40.0]]])
    mirrored = torch.tensor([[[191.0 - 30.0, 40.0]]])
    hm, hm_mirrored = codec.to_heatmap(x), codec.to_heatmap(mirrored)
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


def test_a_batch_of_crops_equals_single_ones():
    crop = random_crop(3, 6, (96, 128), True)
    points = torch.rand(6, 14, 2) * 500
    single = torch.cat([crop[i].image_to_input(points[i : i + 1]) for i in range(6)])
    assert torch.allclose(crop.image_to_input(points), single, atol=1e-4)
    assert len(crop[-1]) == 1
    assert torch.equal(crop[-1].center[0], crop.center[5])


SIZE = (48, 64)


def keypoints_away_from_the_edge(count: int = 64, margin: float = 6.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    span = torch.tensor([SIZE[0] - 1 - 2 * margin, SIZE[1] - 1 - 2 * margin])
    return margin + torch.rand(count, 17, 2, generator=generator) * span


@pytest.mark.parametrize(
    ("method", "limit"),
    [("argmax", 0.5 * 2**0.5), ("quarter", 0.25 * 2**0.5), ("dark", 0.05)],
)
@pytest.mark.parametrize("sigma", [1.0, 2.0])
def test_decode_of_a_drawn_heatmap(method, limit, sigma):
    keypoints = keypoints_away_from_the_edge()
    found, scores = decode(draw_heatmaps(keypoints, SIZE, sigma), method, sigma)
    assert (found - keypoints).norm(dim=-1).max() <= limit + 1e-4
    assert (scores > 0.75).all()
    assert (scores <= 1).all()


def test_quarter_shift_is_better_than_argmax_and_dark_better_than_both():
    keypoints = keypoints_away_from_the_edge()
    heatmaps = draw_heatmaps(keypoints, SIZE, 2.0)
    errors = [(decode(heatmaps, m, 2.0)[0] - keypoints).norm(dim=-1).mean() for m in DECODE_METHODS]
    assert errors[0] > 1.9 * errors[1] > 10 * errors[2]


def test_dark_survives_noise_and_two_peaks():
    keypoints = keypoints_away_from_the_edge(margin=10.0)
    generator = torch.Generator().manual_seed(1)
    noise = 0.02 * torch.randn(64, 17, SIZE[1], SIZE[0], generator=generator)
    found, _ = decode(draw_heatmaps(keypoints, SIZE, 2.0) + noise, "dark", 2.0)
    assert (found - keypoints).norm(dim=-1).mean() < 0.15
    corner = torch.full_like(keypoints, 3.0)
    both = draw_heatmaps(keypoints, SIZE, 2.0) + 0.5 * draw_heatmaps(corner, SIZE, 2.0)
    found, _ = decode(both, "dark", 2.0)
    assert (found - keypoints).norm(dim=-1).mean() < 0.1


@pytest.mark.parametrize("method", DECODE_METHODS)
def test_empty_map_and_maxima_at_the_edge_stay_on_the_map(method):
    corners = torch.tensor([[[-3.0, -3.0], [47.4, 63.4], [-3.0, 63.4], [20.0, 63.9]]])
    heatmaps = torch.cat([draw_heatmaps(corners, SIZE, 2.0), torch.zeros(1, 1, 64, 48)], dim=1)
    found, scores = decode(heatmaps, method, 2.0)
    assert found.isfinite().all()
    assert (found >= 0).all()
    assert (found <= torch.tensor([47.0, 63.0])).all()
    assert scores[0, -1] == 0


@pytest.mark.parametrize("method", DECODE_METHODS)
def test_batch_equals_single(method):
    heatmaps = torch.rand(5, 14, 32, 24, generator=torch.Generator().manual_seed(2))
    together, scores = decode(heatmaps, method, 1.0)
    for i in range(5):
        alone, score = decode(heatmaps[i : i + 1], method, 1.0)
        assert torch.allclose(alone[0], together[i], atol=1e-5)
        assert torch.equal(score[0], scores[i])


def test_nan_in_a_heatmap_is_an_error_that_says_what_to_check():
    heatmaps = torch.zeros(1, 2, 8, 8)
    heatmaps[0, 1, 3, 3] = float("nan")
    with pytest.raises(InputError, match="not finite"):
        decode(heatmaps)


def test_unknown_decoder_is_an_error():
    with pytest.raises(ValueError, match="argmax, quarter, dark"):
        decode(torch.zeros(1, 1, 8, 8), "softargmax")


def test_quantised_targets_sit_on_whole_pixels():
    drawn = draw_heatmaps(torch.tensor([[[10.3, 20.7]]]), SIZE, 2.0, quantise=True)
    assert drawn[0, 0, 21, 10] == 1


@pytest.mark.parametrize(
    ("input_size", "stride", "size", "sigma"),
    [((192, 256), 4, (48, 64), 2), ((288, 384), 4, (72, 96), 3), ((192, 256), 2, (96, 128), 4)],
)
def test_codec_sizes_and_sigma(input_size, stride, size, sigma):
    codec = HeatmapCodec(input_size, stride)
    assert codec.size == size
    assert codec.sigma == sigma


@pytest.mark.parametrize("unbiased", [False, True])
@pytest.mark.parametrize("stride", [2, 4, 8])
def test_codec_reads_back_what_it_draws(unbiased, stride):
    codec = HeatmapCodec((192, 256), stride, unbiased)
    keypoints = 40 + torch.rand(4, 14, 2, generator=torch.Generator().manual_seed(0)) * 100
    y = codec.to_heatmap(keypoints)
    found, _ = codec.decode(codec.draw(y), "dark")
    assert (found - y).abs().max() < 0.05


def test_codec_needs_an_input_that_the_stride_divides():
    with pytest.raises(InputError, match="multiple"):
        HeatmapCodec((190, 256), 4)


def test_twice_is_identity():
    images = torch.rand(2, 3, 8, 6)
    keypoints, visible = torch.rand(2, 17, 2) * 6, (torch.rand(2, 17) > 0.5).float()
    heatmaps = torch.rand(2, 17, 8, 6)
    assert torch.equal(flip_images(flip_images(images)), images)
    assert torch.equal(flip_heatmaps(flip_heatmaps(heatmaps, COCO.flip_order), COCO.flip_order), heatmaps)
    there = flip_keypoints(keypoints, visible, COCO.flip_order, 6)
    back = flip_keypoints(*there, COCO.flip_order, 6)
    assert torch.allclose(back[0], keypoints, atol=1e-6)
    assert torch.equal(back[1], visible)


def test_left_and_right_are_swapped():
    keypoints = torch.zeros(1, 17, 2)
    keypoints[0, COCO.index("left_wrist")] = torch.tensor([10.0, 5.0])
    visible = torch.zeros(1, 17)
    visible[0, COCO.index("left_wrist")] = 1
    flipped, seen = flip_keypoints(keypoints, visible, COCO.flip_order, 192)
    right = COCO.index("right_wrist")
    assert flipped[0, right].tolist() == [181.0, 5.0]
    assert seen[0].nonzero().flatten().tolist() == [right]


def mirrored_back(codec: HeatmapCodec, shift: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Heatmaps of a person, and those of its mirror image mirrored back."""
    keypoints = 60 + torch.rand(1, 17, 2, generator=torch.Generator().manual_seed(0)) * 60
    flipped, _ = flip_keypoints(keypoints, torch.ones(1, 17), COCO.flip_order, 192)
    straight = codec.draw(codec.to_heatmap(keypoints))
    return straight, flip_heatmaps(codec.draw(codec.to_heatmap(flipped)), COCO.flip_order, shift)


def test_unbiased_heatmaps_of_the_mirror_image_fall_on_the_picture_s_own():
    straight, back = mirrored_back(HeatmapCodec((192, 256), unbiased=True), shift=False)
    assert torch.allclose(straight, back, atol=1e-4)


def test_biased_heatmaps_need_the_shift():
    codec = HeatmapCodec((192, 256))
    straight, back = mirrored_back(codec, shift=False)
    _, shifted = mirrored_back(codec, shift=True)
    away = [
        (codec.decode(hm, "dark")[0] - codec.decode(straight, "dark")[0])[..., 0] for hm in (back, shifted)
    ]
    assert torch.allclose(away[0], torch.tensor(-0.75), atol=0.01)  # 1 - 1 / stride
    assert torch.allclose(away[1], torch.tensor(0.25), atol=0.01)


def people(count: int = 2) -> Start:
    generator = torch.Generator().manual_seed(0)
    keypoints = 10 + 40 * torch.rand(count, 14, 2, generator=generator)
    return Start(keypoints, (torch.rand(count, 14, generator=generator) - 0.3).clamp_min(0))


def test_a_joint_that_is_not_given_may_hold_anything():
    start = people()
    missing = ~start.given
    assert 0 < missing.sum() < missing.numel()
    keypoints = start.keypoints.clone()
    keypoints[missing] = torch.nan
    assert torch.equal(Start(keypoints, start.scores).given, start.given)


@pytest.mark.parametrize(
    ("keypoints", "scores", "message"),
    [
        (torch.zeros(2, 14, 3), torch.ones(2, 14), r"shape \(2, 14, 3\) with scores of shape \(2, 14\)"),
        (torch.zeros(14, 2), torch.ones(14), "give \\(persons, joints, 2\\)"),
        (torch.zeros(1, 2, 2), torch.tensor([[1.0, -0.1]]), "a score is negative"),
        (torch.zeros(1, 2, 2), torch.tensor([[1.0, torch.nan]]), "no number"),
        (torch.tensor([[[1.0, torch.inf]]]), torch.ones(1, 1), "a keypoint is not finite"),
    ],
)
def test_what_is_no_start(keypoints, scores, message):
    with pytest.raises(InputError, match=message):
        Start(keypoints, scores)


def test_into_the_crop_and_back():
    start = people()
    crop = Crop.from_boxes(torch.tensor([[0.0, 0, 30, 60], [5, 5, 80, 40]]), (48, 64))
    assert torch.allclose(crop.input_to_image(start.in_crop(crop).keypoints), start.keypoints, atol=1e-3)


@pytest.mark.parametrize("unbiased", [True, False])
def test_the_mirrored_start_draws_the_mirrored_heatmaps(unbiased):
    """In the biased geometry the two lie 1 - 1/stride heatmap pixels apart, as those of a model do."""
    codec, start = HeatmapCodec((48, 64), unbiased=unbiased), people(3)
    both = start.with_mirrored(CROWDPOSE.flip_order, 48)
    straight, mirrored = codec.draw(codec.to_heatmap(both.keypoints)).chunk(2)
    assert torch.equal(both.scores[3:], start.scores[:, list(CROWDPOSE.flip_order)])
    back = flip_heatmaps(mirrored, CROWDPOSE.flip_order)
    away = 0.0 if unbiased else 1 - 1 / codec.stride
    assert torch.allclose(
        back, codec.draw(codec.to_heatmap(start.keypoints) - torch.tensor([away, 0.0])), atol=1e-5
    )
    assert torch.equal(straight, codec.draw(codec.to_heatmap(start.keypoints)))


@pytest.mark.parametrize("unbiased", [False, True])
def test_a_covariance_is_turned_and_scaled_as_the_points_are(unbiased):
    crop = Crop(np.array([[50.0, 40.0]]), np.array([[48.0, 64.0]]), np.array([30.0]), (96, 128), unbiased)
    spread = np.random.default_rng(0).normal(size=(2000, 2)) @ [[3.0, 1.0], [0.0, 0.5]]
    moved = crop.heatmap_to_image(spread[None], (24, 32))[0]
    found = crop.covariance_to_image(np.cov(spread.T)[None, None], (24, 32))[0, 0]
    np.testing.assert_allclose(found, np.cov(moved.T), rtol=1e-6)
