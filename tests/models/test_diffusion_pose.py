"""The parts of the paper's model: masks, windows, steps (test_paper.py has the equations)."""

import math

import pytest
import torch
from torch.nn import functional as F

from diffusionpose.models.diffusion_pose import (
    ChannelGroupAttention,
    SpatialChannelCrossAttention,
    WindowAttention,
    keypoint_mask,
    skeleton_mask,
)
from diffusionpose.models.zoo import create_model

SIZE = (24, 32)
ALL = torch.ones(1, 2)


def test_keypoint_mask_is_a_disc_of_radius_delta():
    mask = keypoint_mask(torch.tensor([[[12.0, 16.0], [-50.0, -50.0]]]), SIZE, 4.0, ALL)
    assert mask.shape == (1, 1, 32, 24)
    assert set(mask.unique().tolist()) == {0.0, 1.0}
    assert mask[0, 0, 16, 16] == 1
    assert mask[0, 0, 16, 17] == 0
    assert abs(mask.sum() - math.pi * 16) < 4


def test_skeleton_mask_is_a_band_along_the_limb_with_round_ends():
    mask = skeleton_mask(torch.tensor([[[6.0, 10.0], [18.0, 10.0]]]), [(0, 1)], SIZE, 2.0, ALL)[0, 0]
    assert mask[10, 6:19].all()
    assert mask[12, 12] == 1
    assert mask[13, 12] == 0
    assert mask[10, 4] == 1
    assert mask[10, 3] == 0
    assert mask[12, 4] == 0


def test_a_limb_of_no_length_is_a_disc():
    points = torch.tensor([[[6.0, 10.0], [6.0, 10.0]]])
    disc = keypoint_mask(points, SIZE, 3.0, ALL)
    assert torch.equal(skeleton_mask(points, [(0, 1)], SIZE, 3.0, ALL), disc)


def test_joints_without_label_draw_nothing():
    points = torch.tensor([[[6.0, 10.0], [18.0, 10.0]]])
    half = torch.tensor([[1.0, 0.0]])
    assert keypoint_mask(points, SIZE, 2.0, half)[0, 0, 10, 18] == 0
    assert keypoint_mask(points, SIZE, 2.0, half)[0, 0, 10, 6] == 1
    assert skeleton_mask(points, [(0, 1)], SIZE, 2.0, half).sum() == 0


def test_a_skeleton_without_limbs_has_an_empty_mask():
    assert skeleton_mask(torch.zeros(3, 2, 2), [], SIZE, 2.0, torch.ones(3, 2)).shape == (3, 1, 32, 24)


def test_batch_equals_single():
    generator = torch.Generator().manual_seed(0)
    points = torch.rand(6, 5, 2, generator=generator) * 30
    visible = (torch.rand(6, 5, generator=generator) > 0.3).float()
    limbs = [(0, 1), (1, 2), (3, 4)]
    together = skeleton_mask(points, limbs, SIZE, 2.0, visible)
    singles = [skeleton_mask(points[i : i + 1], limbs, SIZE, 2.0, visible[i : i + 1]) for i in range(6)]
    assert torch.equal(together, torch.cat(singles))


def heads(linear, feature, groups):
    """Of maps (1, c, h, w): (groups, positions, d)."""
    return linear(feature[0].flatten(1).T).unflatten(1, (groups, -1)).transpose(0, 1)


@torch.no_grad()
def test_channels_attend_within_their_groups():
    attention, (q, k, v) = ChannelGroupAttention(12, 3), torch.randn(3, 1, 12, 5, 4)
    queries, keys, values = (
        heads(layer, feature, 3)
        for layer, feature in ((attention.query, q), (attention.key, k), (attention.value, v))
    )
    weights = torch.einsum("gnd,gne->gde", queries, keys).div(20**0.5).softmax(-1)
    expected = attention.out(torch.einsum("gde,gne->ngd", weights, values).flatten(1)).T
    assert torch.allclose(attention(q, k, v)[0].flatten(1), expected, atol=1e-6)


@torch.no_grad()
def test_positions_attend_within_their_windows():
    attention, maps = WindowAttention(8, 2), torch.randn(3, 1, 8, 10, 21)
    made = attention(*maps)
    padded = F.pad(maps, (0, 0, 0, 4))  # to two windows of 7 rows
    for row, column in ((0, 7), (7, 14)):
        parts = padded[..., row : row + 7, column : column + 7]
        layers = (attention.query, attention.key, attention.value)
        q, k, v = (heads(layer, part, 2) for layer, part in zip(layers, parts, strict=True))
        found = F.scaled_dot_product_attention(q, k, v).transpose(0, 1).flatten(1)
        expected = attention.out(found).T.unflatten(1, (7, 7))[:, : 10 - row]
        assert torch.allclose(made[0, :, row : row + 7, column : column + 7], expected, atol=1e-6)


@pytest.mark.parametrize("channels", [24, 32, 96])
def test_attention_takes_maps_of_any_size(channels):
    attention = SpatialChannelCrossAttention(channels)
    q, k = torch.randn(2, 1, channels, 9, 12).unbind(0)
    assert attention(q, k, k).shape == q.shape


def test_encode_and_step_are_all_of_algorithm_2():
    """The two parts that are exported; the loop and the reading of keypoints lie outside."""
    torch.manual_seed(0)
    model = create_model("diffusionpose_tiny", "crowdpose", input_size=(48, 64)).eval()
    images = torch.randint(0, 256, (2, 3, 64, 48), dtype=torch.uint8)
    with torch.no_grad():
        x_fea, hm = model.encode(images)
        for _ in range(2):
            hm = model.step(x_fea, hm, model.codec.decode(hm, "argmax")[0])
        assert torch.equal(hm, model(images, steps=2))
    assert x_fea.shape[2:] == hm.shape[2:]
