from dataclasses import replace

import pytest

from diffusionpose.training.loop import COSINE_FLOOR, learning_rate
from diffusionpose.training.recipes import get_recipe


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
