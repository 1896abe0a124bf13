"""The studies list the paper's rows: numbers typed anew from its Tables 5, 6 and 7."""

import subprocess
import sys
from itertools import combinations

import pytest
import torch

from diffusionpose.models.costs import count_multiply_adds, count_parameters
from diffusionpose.models.zoo import create_model
from diffusionpose.training.recipes import get_recipe
from diffusionpose.training.studies import BUDGETS, STUDIES

TABLES = {
    "table5": [(74.4, 78.9), (75.0, 80.0), (75.2, None), (75.4, 80.5)],
    "table6": [(72.2, 78.1), (75.4, 80.5), (75.9, 81.1), (76.1, 81.3)],
    "table7": [(75.3, 80.5), (75.4, 80.5), (75.2, 80.4), (71.6, 78.0), (70.7, 77.5)],
}
VARIED = {
    "table5": ("conditions", [None, "features", "keypoints", "full"]),
    "table6": ("stride", [8, 4, 2, 1]),
    "table7": ("zeta", [0.01, 0.05, 0.10, 0.50, 1.00]),
}
# (width, height)
SIZES = {"full": (192, 256), "small": (96, 128), "short": (96, 128), "tiny": (64, 96), "movenet": (96, 128)}


def settings_of(study, budget):
    return [row.settings(BUDGETS[budget], "coco") for row in STUDIES[study].rows]


@pytest.mark.parametrize("name", TABLES)
def test_rows_and_numbers_of_the_paper(name):
    assert [row.paper for row in STUDIES[name].rows] == TABLES[name]


@pytest.mark.parametrize("name", TABLES)
def test_full_varies_what_the_table_is_about(name):
    option, values = VARIED[name]
    assert [each.options.get(option) for each in settings_of(name, "full")] == values


@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("name", TABLES)
def test_rows_differ_in_exactly_that_one_thing(name, budget):
    rows = settings_of(name, budget)
    for one, other in combinations(rows, 2):
        a, b = ({k: v for k, v in each.to_dict().items() if k != "recipe"} for each in (one, other))
        differing = {k for k in a if a[k] != b[k]}
        if BUDGETS[budget].baseline in (one.model, other.model):
            assert differing == {"model", "options"}
            baseline = one if one.model == BUDGETS[budget].baseline else other
            encoder = {k: v for k, v in BUDGETS[budget].base.options.items() if k == "encoder"}
            assert baseline.options == {"stride": 4, **encoder}
        else:
            assert differing == {"options"}
            assert {k for k in one.options if one.options[k] != other.options[k]} == {VARIED[name][0]}
            assert one.options.keys() == other.options.keys()


@pytest.mark.parametrize("budget", BUDGETS)
def test_the_same_training_has_the_same_folder_in_all_studies(budget):
    runs = {}
    for study in STUDIES.values():
        for row in study.rows:
            settings = row.settings(BUDGETS[budget], "coco")
            assert runs.setdefault(row.run, settings) == settings
    # 4 + 4 + 5 rows of the tables, of which one training stands in all three, and four of "heads" only
    assert len(runs) == 15
    different = [{k: v for k, v in s.to_dict().items() if k != "recipe"} for s in runs.values()]
    assert all(a != b for a, b in combinations(different, 2))


@pytest.mark.parametrize("budget", BUDGETS)
def test_zeta_keeps_the_share_of_the_map_that_noise_covers(budget):
    """20 of the 64 rows of the paper's map at zeta = 0.05, and so on."""
    height = SIZES[budget][1]
    for paper, settings in zip(VARIED["table7"][1], settings_of("table7", budget), strict=True):
        assert settings.input_size == SIZES[budget]
        share = 1 / settings.options["zeta"] / (height / 4)
        assert share == pytest.approx(1 / paper / 64, rel=2e-3)


def test_the_full_budget_is_the_papers_recipe():
    recipe = get_recipe("diffusionpose_w32_256x192_coco")
    made, *_ = settings_of("figure4", "full")
    for name, value in recipe.to_dict().items():
        if name not in ("recipe", "options", "val_every"):
            assert made.to_dict()[name] == value, name
    assert made.options == {"stride": 4, "width": 128, "zeta": 0.05, "conditions": "full"}
    assert settings_of("table5", "full")[0].model == get_recipe("hrnet_w32_256x192_coco").model


def test_small_is_the_recipe_of_that_size():
    recipe = get_recipe("diffusionpose_mobilenetv2_128x96_crowdpose")
    made, *_ = settings_of("figure4", "small")
    assert made.options["zeta"] == recipe.options["zeta"] == 0.1
    assert (made.model, made.epochs, made.learning_rate) == (recipe.model, 18, recipe.learning_rate)


HEADS = {row.label: row.settings(BUDGETS["short"], "coco") for row in STUDIES["heads"].rows}


def test_all_heads_are_the_same_training_of_other_models():
    kept = [
        {name: value for name, value in each.to_dict().items() if name not in ("recipe", "model", "options")}
        for each in HEADS.values()
    ]
    assert len(kept) == 6
    assert all(each == kept[0] for each in kept)
    assert HEADS["twice the width C"].options == {**HEADS["DiffusionPose"].options, "width": 64}
    without, usual = HEADS["decoder, no noise"], HEADS["DiffusionPose"]
    assert without.model == usual.model
    assert without.options == {**usual.options, "own_start": 1.0}


@pytest.mark.parametrize("budget", ["tiny"])
def test_the_unet_costs_what_the_decoder_without_structure_costs(budget):
    """It is the decoder of Table 5's first row, without the coarse head."""
    unet, features = (
        next(row.settings(BUDGETS[budget], "coco") for row in STUDIES[study].rows if row.run == run)
        for study, run in (("heads", "unet"), ("table5", "diffusionpose-features"))
    )
    with torch.device("meta"):
        one, other = (
            create_model(each.model, "coco", input_size=each.input_size, **each.options)
            for each in (unet, features)
        )
        conv = sum(p.numel() for p in other.conv.parameters())
        assert count_parameters(other) - count_parameters(one) == conv
        assert count_multiply_adds(one) == pytest.approx(count_multiply_adds(other), rel=0.02)


TINY = {
    row.run: row.settings(BUDGETS["tiny"], "coco")
    for name, study in STUDIES.items()
    if name != "table7"  # zeta is a number, not another network
    for row in study.rows
}


@pytest.mark.parametrize("name", TINY)
def test_a_tiny_training_has_finite_losses_and_gradients(name):
    """On the smallest maps: s = 8 leaves 8 x 12, halved three times; one in bf16, slow on many CPUs."""
    settings = TINY[name]
    torch.manual_seed(0)
    model = create_model(settings.model, "coco", input_size=settings.input_size, **settings.options)
    width, height = settings.input_size
    assert model.heatmap_size == (width // model.codec.stride, height // model.codec.stride)
    images = torch.randint(0, 256, (2, 3, height, width), dtype=torch.uint8)
    keypoints = torch.rand(2, 17, 2) * torch.tensor([width, height])
    noise = {"start": keypoints, **model.draw_noise(2, torch.Generator().manual_seed(0))}
    with torch.autocast("cpu", torch.bfloat16, enabled=name == "diffusionpose-s8"):
        loss = model.loss(images, keypoints, torch.ones(2, 17), noise=noise)["loss"]
    loss.backward()
    assert torch.isfinite(loss)
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_scaled_zeta_of_the_papers_input_is_the_papers():
    assert BUDGETS["full"].scaled_zeta(0.05) == 0.05
    assert BUDGETS["tiny"].scaled_zeta(0.05) == pytest.approx(0.05 * 256 / 96, abs=5e-5)


def test_studies_need_no_torch():
    code = "import sys; import diffusionpose.training.studies; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
