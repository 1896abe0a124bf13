"""Start: what it refuses, its way into a crop, and its mirror image."""

import pytest
import torch

from diffusionpose.errors import InputError
from diffusionpose.geometry import Crop, HeatmapCodec, Start, flip_heatmaps
from diffusionpose.skeletons import CROWDPOSE


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
