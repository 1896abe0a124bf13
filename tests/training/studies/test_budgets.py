"""Every training of every study can be made and takes a step, in the smallest maps."""

import pytest
import torch

from diffusionpose.models.zoo import create_model
from diffusionpose.training.studies import BUDGETS, STUDIES, plan

TINY = {
    each.name: each.settings for study in STUDIES.values() for each in plan(study, BUDGETS["tiny"], "coco")
}


@pytest.mark.parametrize("name", TINY)
def test_a_tiny_training_has_finite_losses_and_gradients(name):
    """s = 8 leaves maps of 8 x 12, halved three times by the decoder."""
    settings = TINY[name]
    torch.manual_seed(0)
    model = create_model(settings.model, "coco", input_size=settings.input_size, **settings.options)
    width, height = settings.input_size
    assert model.heatmap_size == (width // model.codec.stride, height // model.codec.stride)
    images = torch.randint(0, 256, (2, 3, height, width), dtype=torch.uint8)
    keypoints = torch.rand(2, 17, 2) * torch.tensor([width, height])
    noise = model.draw_noise(2, torch.Generator().manual_seed(0))
    with torch.autocast("cpu", torch.bfloat16):
        loss = model.loss(images, keypoints, torch.ones(2, 17), noise=noise)["loss"]
    loss.backward()
    assert torch.isfinite(loss)
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
    assert model.eval()(images).shape == (2, 17, *model.heatmap_size[::-1])


@pytest.mark.parametrize("budget", BUDGETS.values(), ids=BUDGETS)
def test_a_budget_has_sides_the_networks_take(budget):
    assert all(side % 32 == 0 for side in budget.base.input_size)
    assert budget.name in BUDGETS


def test_scaled_zeta_of_the_papers_input_is_the_papers():
    assert BUDGETS["full"].scaled_zeta(0.05) == 0.05
    assert BUDGETS["tiny"].scaled_zeta(0.05) == pytest.approx(0.05 * 256 / 96, abs=5e-5)
