"""The rate of every step and parameter, and the moving average."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from diffusionpose.errors import InputError
from diffusionpose.models.zoo import create_model
from diffusionpose.training.optimiser import (
    COSINE_FLOOR,
    SMALLEST_SIZE,
    learning_rate,
    make_optimiser,
    moving_average,
    parameter_groups,
    set_learning_rate,
)
from diffusionpose.training.recipes import get_recipe

SHALLOW = {"depth": 3, "embed_dim": 48, "num_heads": 3}


@pytest.fixture(scope="module")
def vit():
    return create_model("diffusionpose_vit_s", input_size=(64, 96), width=16, encoder=SHALLOW)


def by_name(model, groups):
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {names[id(p)]: group for group in groups for p in group["params"]}


@pytest.mark.parametrize("layer_decay", [1.0, 0.5])
def test_every_parameter_once(vit, layer_decay):
    groups = parameter_groups(vit, 0.1, layer_decay)
    found = [id(p) for group in groups for p in group["params"]]
    assert sorted(found) == sorted(id(p) for p in vit.parameters())


def test_blocks_learn_slower_towards_the_picture(vit):
    groups = by_name(vit, parameter_groups(vit, 0.1, layer_decay=0.5))
    start = "encoder.inner.backbone."
    expected = {  # three blocks: the embedding is the fourth layer below the top
        f"{start}patch_embed.proj.weight": 0.5**4,
        f"{start}pos_embed": 0.5**4,
        f"{start}blocks.0.attn.qkv.weight": 0.5**3,
        f"{start}blocks.2.attn.qkv.bias": 0.5,
        f"{start}norm.weight": 0.5,
        "encoder.neck.0.weight": 1,
        "decoder.stem.weight": 1,
        "conv.weight": 1,
    }
    assert {name: groups[name]["lr_scale"] for name in expected} == pytest.approx(expected)


@pytest.mark.parametrize("layer_decay", [1.0, 0.5])
def test_norms_biases_and_positions_do_not_shrink(vit, layer_decay):
    for name, group in by_name(vit, parameter_groups(vit, 0.1, layer_decay)).items():
        free = name.endswith((".bias", "pos_embed")) or vit.get_parameter(name).ndim == 1
        assert group["weight_decay"] == (0 if free else 0.1), name


def test_a_backbone_without_order_is_refused():
    model = create_model("tiny", input_size=(64, 96))
    with pytest.raises(InputError, match="has no order of blocks"):
        parameter_groups(model, 0.0, layer_decay=0.5)


def test_a_training_step_moves_each_group_at_its_rate(vit):
    settings = replace(
        get_recipe("diffusionpose_tiny_synthetic"), optimiser="adam", weight_decay=0.0, layer_decay=0.5
    )
    optimiser = make_optimiser(vit, settings)
    set_learning_rate(optimiser, 1e-3)
    before = {name: p.detach().clone() for name, p in vit.named_parameters()}
    for parameter in vit.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimiser.step()
    start = "encoder.inner.backbone."
    for name, rate in {f"{start}blocks.0.attn.qkv.weight": 0.5**3, "conv.weight": 1.0}.items():
        moved = (before[name] - vit.get_parameter(name).detach()).abs().max()
        assert moved.item() == pytest.approx(
            1e-3 * rate, rel=1e-2
        )  # Adam's first step has the size of the rate


def test_a_relative_rate_moves_each_tensor_in_proportion_to_its_size(tiny):
    model = create_model("tiny", input_size=(64, 96))
    with torch.no_grad():
        model.head.weight.fill_(3.0)
        model.head.bias.zero_()  # as small as this, it counts as SMALLEST_SIZE
    settings = replace(tiny, optimiser="adam", weight_decay=0.0, relative_rate=True)
    optimiser = make_optimiser(model, settings)
    assert sum(len(group["params"]) for group in optimiser.param_groups) == len(list(model.parameters()))
    set_learning_rate(optimiser, 0.01)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimiser.step()
    assert torch.allclose(model.head.weight, torch.tensor(3.0 - 0.01 * 3.0), atol=1e-5)
    assert torch.allclose(model.head.bias, torch.tensor(-0.01 * SMALLEST_SIZE), atol=1e-6)


def test_position_biases_of_windows_do_not_shrink():
    model = create_model("diffusionpose_hrformer_s", input_size=(64, 96), width=16)
    groups = by_name(model, parameter_groups(model, 0.1))
    biases = [name for name in groups if name.endswith("relative_position_bias_table")]
    # two blocks on each branch: one module of two branches, four of three, two of four
    assert len(biases) == 2 * (1 * 2 + 4 * 3 + 2 * 4)
    assert all(model.get_parameter(name).ndim == 2 for name in biases)
    assert {groups[name]["weight_decay"] for name in biases} == {0}
    assert groups[biases[0].replace("relative_position_bias_table", "qkv.weight")]["weight_decay"] == 0.1


def test_the_papers_rate_drops_after_170_and_200_epochs():
    settings = get_recipe("diffusionpose_w32_256x192_coco")
    rates = [learning_rate(settings, epoch * 10 + 9, steps_per_epoch=10) for epoch in range(210)]
    assert rates[:170] == pytest.approx([5e-4] * 170)
    assert rates[170:200] == pytest.approx([5e-5] * 30)
    assert rates[200:] == pytest.approx([5e-6] * 10)


def test_warm_up_reaches_the_full_rate_at_its_last_step(tiny):
    settings = replace(tiny, schedule="steps", drops=(), warmup_steps=4, learning_rate=1.0)
    rates = [learning_rate(settings, step, steps_per_epoch=100) for step in range(6)]
    assert rates == pytest.approx([0.25, 0.5, 0.75, 1, 1, 1])


def test_cosine_falls_from_the_full_rate_to_its_floor(tiny):
    settings = replace(tiny, schedule="cosine", warmup_steps=0, learning_rate=1.0, epochs=4)
    rates = [learning_rate(settings, step, steps_per_epoch=10) for step in range(41)]
    assert rates[0] == 1
    assert rates[20] == pytest.approx((1 + COSINE_FLOOR) / 2)
    assert rates[40] == pytest.approx(COSINE_FLOOR)
    assert rates == sorted(rates, reverse=True)


def test_the_average_is_the_sum_that_defines_it():
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    average = moving_average(model, decay=0.9)
    average.n_averaged += 1000  # beyond the first steps, whose decay is smaller
    expected = model[0].weight.detach().clone()
    running = model[1].running_mean.clone()
    for _ in range(5):
        with torch.no_grad():
            model[0].weight.normal_()
        model(torch.randn(8, 2))
        average.update_parameters(model)
        expected = 0.9 * expected + 0.1 * model[0].weight.detach()
        running = 0.9 * running + 0.1 * model[1].running_mean
    torch.testing.assert_close(average.module[0].weight, expected)
    torch.testing.assert_close(average.module[1].running_mean, running)
    assert average.module[1].num_batches_tracked == 5
    assert not average.module.training
    assert not any(parameter.requires_grad for parameter in average.parameters())


def test_the_first_steps_forget_the_initial_weights():
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 100.0)
    average = moving_average(model, decay=0.9999)
    nn.init.constant_(model.weight, 1.0)
    for _ in range(100):
        average.update_parameters(model)
    assert abs(float(average.module.weight) - 1) < 1e-3
