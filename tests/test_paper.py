"""The paper, equation by equation: each test names the place it holds the code to."""

import math

import pytest
import torch
from torch import nn

from diffusionpose.geometry import HeatmapCodec, Start
from diffusionpose.models.costs import count_multiply_adds, count_parameters
from diffusionpose.models.diffusion_pose import (
    NoiseSchedule,
    StructureCondition,
    StructureGuidedDecoder,
    diffuse_keypoints,
    keypoint_mask,
    skeleton_mask,
)
from diffusionpose.models.pose_model import heatmap_loss
from diffusionpose.models.zoo import create_model
from diffusionpose.skeletons import COCO, CROWDPOSE


@pytest.fixture
def model():
    torch.manual_seed(0)
    return create_model("diffusionpose_tiny", CROWDPOSE, input_size=(64, 96), zeta=0.1).eval()


def batch(count: int = 3):
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (count, 3, 96, 64), dtype=torch.uint8, generator=generator)
    keypoints = torch.rand(count, 14, 2, generator=generator) * torch.tensor([64.0, 96.0])
    return images, keypoints, torch.ones(count, 14)


def test_equation_1_alphas_lie_between_0_and_1():
    schedule = NoiseSchedule(1000)
    assert ((schedule.alpha[1:] > 0) & (schedule.alpha[1:] < 1)).all()


def test_equation_2_gamma_is_the_product_of_alphas():
    schedule = NoiseSchedule(1000)
    product = schedule.alpha[1:].double().cumprod(0)
    assert torch.allclose(product, schedule.gamma[1:].double(), atol=1e-5)
    assert schedule.gamma[1] > 0.999
    assert schedule.gamma[1000] < 1e-6


def test_equation_3_is_equation_4_with_zeta_1():
    y_0, epsilon = torch.randn(5, 14, 2), torch.randn(5, 14, 2)
    gamma_t = torch.rand(5)
    expected = gamma_t.sqrt()[:, None, None] * y_0 + (1 - gamma_t).sqrt()[:, None, None] * epsilon
    assert torch.allclose(diffuse_keypoints(y_0, gamma_t, epsilon, zeta=1.0), expected)


def test_equation_4_signal_and_noise_have_the_stated_mean_and_variance():
    y_0 = torch.full((20000, 1, 2), 10.0)
    epsilon = torch.randn(20000, 1, 2, generator=torch.Generator().manual_seed(0))
    y_t = diffuse_keypoints(y_0, torch.full((20000,), 0.36), epsilon, zeta=0.05)
    assert abs(y_t.mean() - 0.6 * 10) < 0.3
    assert abs(y_t.std() - 0.8 / 0.05) < 0.3


def test_equation_4_ends_in_noise_around_the_centre_of_the_crop(model):
    _, keypoints, visible = batch()
    y_0 = model.codec.to_heatmap(keypoints)
    zero = torch.zeros(3, 14, 2)
    last, first = torch.full((3,), 1000), torch.full((3,), 1)
    assert torch.allclose(model.diffuse(y_0, last, zero, visible), torch.tensor([7.5, 11.5]), atol=0.02)
    assert torch.allclose(model.diffuse(y_0, first, zero, visible), y_0, atol=0.02)


def test_equation_4_noise_is_the_same_share_of_the_picture_at_every_s():
    epsilon = torch.randn(2, 14, 2)
    spread = {}
    for stride in (2, 4):
        model = create_model("diffusionpose_tiny", CROWDPOSE, input_size=(64, 96), stride=stride)
        y_t = model.diffuse(torch.zeros(2, 14, 2), torch.full((2,), 1000), epsilon, torch.zeros(2, 14))
        spread[stride] = y_t.std() * stride
    assert torch.isclose(spread[2], spread[4], rtol=0.01)


def test_equation_5_heatmaps_are_gaussians_of_height_1():
    codec = HeatmapCodec((192, 256))
    drawn = codec.draw(torch.tensor([[[20.0, 30.0]]]))[0, 0]
    assert drawn[30, 20] == 1
    assert torch.isclose(drawn[30, 22], torch.tensor(math.exp(-0.5)))
    assert torch.isclose(drawn[34, 20], torch.tensor(math.exp(-2.0)))


def condition_and_input():
    torch.manual_seed(0)
    condition = StructureCondition(32, CROWDPOSE.limbs, 4.0, 3.0)
    return condition, torch.randn(2, 32, 32, 24), torch.rand(2, 14, 2) * 24, torch.ones(2, 14)


def test_equation_6_and_7_read_as_the_paper_has_them():
    condition, x_fea, y, visible = condition_and_input()
    x_kps = x_fea * keypoint_mask(y, (24, 32), 4.0, visible)
    x_ske = x_fea * skeleton_mask(y, CROWDPOSE.limbs, (24, 32), 3.0, visible)
    expected = torch.cat([x_kps + condition.attention(x_kps, x_ske, x_ske), x_fea], dim=1)
    assert torch.allclose(condition(x_fea, y, visible), expected)
    assert condition.channels == expected.shape[1] == 64


def test_equation_8_is_a_sum_of_channel_and_window_attention():
    condition, x_fea, *_ = condition_and_input()
    attention = condition.attention
    q, k = x_fea, x_fea.flip(0)
    whole = attention(q, k, k)
    nn.init.zeros_(attention.spatial.out.weight)
    nn.init.zeros_(attention.spatial.out.bias)
    channel = attention(q, k, k)
    assert torch.allclose(channel, attention.channel(q, k, k), atol=1e-5)
    assert not torch.allclose(whole, channel)


def test_equation_8_window_attention_stays_inside_its_window():
    condition, x_fea, *_ = condition_and_input()
    attention = condition.attention
    nn.init.zeros_(attention.channel.out.weight)
    changed = x_fea.clone()
    changed[:, :, 9, 9] += 1  # in the window of rows and columns 7 to 13
    difference = (attention(x_fea, changed, changed) - attention(x_fea, x_fea, x_fea)).abs().sum(1)
    assert (difference[:, 7:14, 7:14] > 0).any()
    difference[:, 7:14, 7:14] = 0
    assert difference.max() < 1e-6


def test_equation_9_the_decoder_sees_heatmaps_and_condition_alone():
    decoder = StructureGuidedDecoder(14, 64, 16)
    hm_t, x_c = torch.rand(2, 14, 24, 16), torch.randn(2, 64, 24, 16)
    assert decoder(hm_t, x_c).shape == hm_t.shape
    assert decoder.stem.in_channels == 14 + 64


def test_equation_11_is_the_sum_of_two_squared_errors_on_visible_joints(model):
    images, keypoints, visible = batch()
    visible[:, 3] = 0
    noise = model.draw_noise(3, torch.Generator().manual_seed(0))
    losses = model.loss(images, keypoints, visible, noise)
    assert torch.isclose(losses["loss"], losses["decoder"] + losses["coarse"])
    keypoints[:, 3] = 1e4
    moved = model.loss(images, keypoints, visible, noise)
    assert torch.equal(moved["loss"], losses["loss"])
    estimated, truth = torch.zeros(1, 2, 4, 4), torch.ones(1, 2, 4, 4)
    assert heatmap_loss(estimated, truth, torch.tensor([[1.0, 0.0]])) == 0.5


def test_table_1_stages_blocks_and_channels():
    decoder = StructureGuidedDecoder(17, 64, 128)
    assert [[block.conv2.out_channels for block in stage] for stage in decoder.stages] == [
        [128, 128],
        [256, 256],
        [256, 256],
        [256, 256],
    ]


class Counted(nn.Module):
    """Counts the calls of a module."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module, self.calls = module, 0

    def forward(self, *args):
        self.calls += 1
        return self.module(*args)


@pytest.mark.parametrize("steps", [0, 1, 3])
def test_algorithm_2_calls_the_encoder_once_and_the_decoder_once_a_step(model, steps):
    images, *_ = batch()
    model.encoder, model.decoder = Counted(model.encoder), Counted(model.decoder)
    heatmaps = model.denoise(images, steps)
    assert (model.encoder.calls, model.decoder.calls) == (1, steps)
    assert [hm.shape for hm in heatmaps] == [(3, 14, 24, 16)] * (steps + 1)


def test_algorithm_2_starts_from_the_coarse_heatmaps_of_equation_10(model):
    images, *_ = batch()
    x_fea, _ = model.encode(images)
    coarse, first = model.denoise(images, 1)
    assert torch.equal(coarse, model.conv(x_fea))
    y, _ = model.codec.decode(coarse, "argmax")
    x_c = model.condition(x_fea, y, torch.ones(3, 14))
    assert torch.allclose(first, model.decoder(coarse, x_c), atol=1e-6)


def test_algorithm_2_two_steps_are_one_step_and_another(model):
    images, *_ = batch()
    one, two = model.denoise(images, 1), model.denoise(images, 2)
    assert torch.allclose(one[1], two[1], atol=1e-6)


def test_algorithm_2_starts_from_given_keypoints_as_algorithm_1_from_noised_ones(model):
    images, keypoints, _ = batch()
    scores = torch.ones(3, 14)
    scores[:, ::3] = 0  # these start from their coarse heatmaps
    x_fea, _ = model.encode(images)
    coarse = model.conv(x_fea)
    y_t, hm_t = model.codec.decode(coarse, "argmax")[0], coarse.clone()
    given = scores > 0
    y_t[given] = model.codec.to_heatmap(keypoints)[given]
    hm_t[given] = model.codec.draw(y_t)[given]
    first, last = model.trajectory(images, 1, Start(keypoints, scores))
    assert torch.allclose(first, hm_t, atol=1e-6)
    x_c = model.condition(x_fea, y_t, torch.ones(3, 14))
    assert torch.allclose(last, model.decoder(hm_t, x_c), atol=1e-6)
    nothing_given = model.trajectory(images, 1, Start(keypoints, torch.zeros(3, 14)))
    assert torch.allclose(nothing_given[1], model.denoise(images, 1)[1], atol=1e-6)


TABLE_2 = [
    # model, input size, then (ours, the paper's) of millions of parameters and billions of multiply-adds
    ("diffusionpose_hrnet_w32", (192, 256), (38.9, 38), (13.8, 14)),
    ("diffusionpose_hrnet_w32", (288, 384), (38.9, 38), (31.0, 31)),
    ("diffusionpose_hrnet_w48", (192, 256), (74.0, 74), (22.1, 22)),
    ("diffusionpose_hrnet_w48", (288, 384), (74.0, 74), (49.6, 49)),
]


@pytest.mark.usefixtures("uncounted_norms")
@pytest.mark.parametrize(("name", "input_size", "parameters", "multiply_adds"), TABLE_2)
def test_table_2_cost_rows(name, input_size, parameters, multiply_adds):
    with torch.device("meta"):
        model = create_model(name, COCO, input_size=input_size)
    counts = count_parameters(model) / 1e6, count_multiply_adds(model) / 1e9
    for count, (ours, papers) in zip(counts, (parameters, multiply_adds), strict=True):
        assert count == pytest.approx(ours, rel=0.02)
        assert abs(count - papers) < 1  # the paper rounds to whole numbers, and 38.9 down to 38


@pytest.mark.usefixtures("uncounted_norms")
@pytest.mark.parametrize(
    ("name", "parameters", "multiply_adds"), [("hrnet_w32", 29, 8), ("hrnet_w48", 64, 16)]
)
def test_table_2_hrnet_rows(name, parameters, multiply_adds):
    with torch.device("meta"):
        model = create_model(name, COCO)
    assert abs(count_parameters(model) / 1e6 - parameters) < 1
    assert abs(count_multiply_adds(model) / 1e9 - multiply_adds) < 1


def test_table_5_conditions_grow_by_what_they_name():
    x_fea, y, visible = torch.randn(2, 32, 32, 24), torch.rand(2, 14, 2) * 24, torch.ones(2, 14)
    features, keypoints = (StructureCondition(32, (), 4.0, 3.0, kind) for kind in ("features", "keypoints"))
    assert torch.equal(features(x_fea, y, visible), x_fea)
    x_kps = x_fea * keypoint_mask(y, (24, 32), 4.0, visible)
    assert torch.equal(keypoints(x_fea, y, visible), torch.cat([x_fea, x_kps], 1))


@pytest.mark.parametrize("stride", [8, 4, 2, 1])
def test_table_6_heatmaps_of_every_s(stride):
    model = create_model("diffusionpose_tiny", CROWDPOSE, input_size=(64, 96), stride=stride).eval()
    assert model(batch(1)[0]).shape == (1, 14, 96 // stride, 64 // stride)


@pytest.mark.parametrize(("zeta", "pixels"), [(0.01, 100), (0.05, 20), (0.1, 10), (1.0, 1)])
def test_table_7_zeta_sets_the_noise_in_pixels(zeta, pixels):
    epsilon = torch.randn(4000, 1, 2, generator=torch.Generator().manual_seed(0))
    y_t = diffuse_keypoints(torch.zeros(4000, 1, 2), torch.zeros(4000), epsilon, zeta)
    assert y_t.std() == pytest.approx(pixels, rel=0.03)
