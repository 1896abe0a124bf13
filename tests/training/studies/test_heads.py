"""The study of heads: what its rows share with DiffusionPose, and what not."""

import pytest

from diffusionpose.models.costs import count_multiply_adds, count_parameters
from diffusionpose.models.zoo import create_model
from diffusionpose.training.studies import BUDGETS, STUDIES, plan


@pytest.fixture
def rows():
    return {each.variant.label: each.settings for each in plan(STUDIES["heads"], BUDGETS["short"], "coco")}


def test_all_rows_are_the_same_training_of_other_models(rows):
    kept = [
        {name: value for name, value in each.to_dict().items() if name not in ("recipe", "model", "options")}
        for each in rows.values()
    ]
    assert len(kept) == 4
    assert all(each == kept[0] for each in kept)


def test_without_noise_differs_in_own_start_only(rows):
    without, usual = rows["decoder, no noise"], rows["DiffusionPose"]
    assert without.model == usual.model
    assert without.options == {**usual.options, "own_start": 1.0}


@pytest.mark.parametrize("budget", BUDGETS)
def test_the_unet_costs_what_the_decoder_without_structure_costs(budget):
    """It is the decoder of Table 5's first row, without the coarse head."""
    unet, features = (
        next(each.settings for each in plan(STUDIES[study], BUDGETS[budget], "coco") if each.name == name)
        for study, name in (("heads", "unet-seed0"), ("table5", "diffusionpose-features-seed0"))
    )
    one, other = (
        create_model(each.model, "coco", input_size=each.input_size, **each.options)
        for each in (unet, features)
    )
    assert count_parameters(other) - count_parameters(one) == sum(p.numel() for p in other.conv.parameters())
    assert count_multiply_adds(one) == pytest.approx(count_multiply_adds(other), rel=0.02)
