"""Heatmaps: what is drawn can be read back, by each decoder to its own accuracy."""

import pytest
import torch

from diffusionpose.errors import InputError
from diffusionpose.geometry import DECODE_METHODS, HeatmapCodec, decode, draw_heatmaps

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
