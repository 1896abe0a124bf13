"""Every row of Tables 2, 3 and 4, but for those that see more than one person, is a recipe."""

import json

import pytest
import torch

from diffusionpose.data.augmentation import Augmentation
from diffusionpose.errors import InputError
from diffusionpose.models.zoo import MODELS, create_model
from diffusionpose.training.recipes import get_recipe, recipes, tables

# recipe: model, (width, height), skeleton, s, unbiased, the paper's AP
ROWS = {
    "diffusionpose_w32_256x192_coco": ("diffusionpose_hrnet_w32", (192, 256), "coco", 4, False, "75.9"),
    "diffusionpose_w32_384x288_coco": ("diffusionpose_hrnet_w32", (288, 384), "coco", 4, False, "77.1"),
    "diffusionpose_w48_256x192_coco": ("diffusionpose_hrnet_w48", (192, 256), "coco", 4, False, "76.7"),
    "diffusionpose_w48_384x288_coco": ("diffusionpose_hrnet_w48", (288, 384), "coco", 4, False, "77.6"),
    "diffusionpose_w32_256x192_s2_coco": ("diffusionpose_hrnet_w32", (192, 256), "coco", 2, False, "75.9"),
    "diffusionpose_w32_384x288_s2_coco": ("diffusionpose_hrnet_w32", (288, 384), "coco", 2, False, "77.1"),
    "diffusionpose_w48_256x192_s2_coco": ("diffusionpose_hrnet_w48", (192, 256), "coco", 2, False, "76.7"),
    "diffusionpose_w48_384x288_s2_coco": ("diffusionpose_hrnet_w48", (288, 384), "coco", 2, False, "77.6"),
    "hrnet_w32_256x192_coco": ("hrnet_w32", (192, 256), "coco", None, False, "74.4"),
    "hrnet_w32_384x288_coco": ("hrnet_w32", (288, 384), "coco", None, False, "75.8"),
    "hrnet_w48_256x192_coco": ("hrnet_w48", (192, 256), "coco", None, False, "75.1"),
    "hrnet_w48_384x288_coco": ("hrnet_w48", (288, 384), "coco", None, False, "76.3"),
    "hrnet_w32_dark_384x288_coco": ("hrnet_w32", (288, 384), "coco", None, False, "76.6"),
    "hrnet_w48_dark_384x288_coco": ("hrnet_w48", (288, 384), "coco", None, False, "76.8"),
    "hrnet_w32_udp_dark_384x288_coco": ("hrnet_w32", (288, 384), "coco", None, True, "76.8"),
    "hrnet_w48_udp_dark_384x288_coco": ("hrnet_w48", (288, 384), "coco", None, True, "77.2"),
    "simplebaseline_r152_256x192_coco": ("simplebaseline_r152", (192, 256), "coco", None, False, "73.5"),
    "hrnet_w32_256x192_crowdpose": ("hrnet_w32", (192, 256), "crowdpose", None, False, "71.3"),
    "diffusionpose_w32_256x192_crowdpose": (
        "diffusionpose_hrnet_w32", (192, 256), "crowdpose", 4, False, "76.7",
    ),
    "diffusionpose_w48_256x192_crowdpose": (
        "diffusionpose_hrnet_w48", (192, 256), "crowdpose", 4, False, "77.5",
    ),
    "diffusionpose_w32_256x192_s2_crowdpose": (
        "diffusionpose_hrnet_w32", (192, 256), "crowdpose", 2, False, "76.7",
    ),
    "diffusionpose_w48_256x192_s2_crowdpose": (
        "diffusionpose_hrnet_w48", (192, 256), "crowdpose", 2, False, "77.5",
    ),
    "simplebaseline_r50_256x192_aic": ("simplebaseline_r50", (192, 256), "aic", None, False, "28.0"),
    "simplebaseline_r101_256x192_aic": ("simplebaseline_r101", (192, 256), "aic", None, False, "29.4"),
    "simplebaseline_r152_256x192_aic": ("simplebaseline_r152", (192, 256), "aic", None, False, "29.9"),
    "hrnet_w32_256x192_aic": ("hrnet_w32", (192, 256), "aic", None, False, "32.3"),
    "hrnet_w48_256x192_aic": ("hrnet_w48", (192, 256), "aic", None, False, "33.5"),
    "diffusionpose_w32_256x192_aic": ("diffusionpose_hrnet_w32", (192, 256), "aic", 4, False, "34.7"),
    "diffusionpose_w48_256x192_aic": ("diffusionpose_hrnet_w48", (192, 256), "aic", 4, False, "35.6"),
    "diffusionpose_w32_256x192_s2_aic": ("diffusionpose_hrnet_w32", (192, 256), "aic", 2, False, "34.7"),
    "diffusionpose_w48_256x192_s2_aic": ("diffusionpose_hrnet_w48", (192, 256), "aic", 2, False, "35.6"),
}  # fmt: skip

# the same for those that are trained as their own publications do it
TRANSFORMERS = {
    "tokenpose_l_256x192_coco": ("tokenpose_l", (192, 256), "coco", None, False, "75.8"),
    "transpose_h_256x192_coco": ("transpose_h", (192, 256), "coco", None, False, "75.8"),
    "hrformer_b_256x192_coco": ("hrformer_b", (192, 256), "coco", None, False, "75.6"),
    "hrformer_b_384x288_coco": ("hrformer_b", (288, 384), "coco", None, False, "77.2"),
    "vitpose_b_256x192_coco": ("vitpose_b", (192, 256), "coco", None, True, "75.8"),
    "transpose_h_256x192_crowdpose": ("transpose_h", (192, 256), "crowdpose", None, False, "71.8"),
    "hrformer_b_256x192_crowdpose": ("hrformer_b", (192, 256), "crowdpose", None, False, "72.4"),
    "hrformer_s_256x192_aic": ("hrformer_s", (192, 256), "aic", None, False, "31.6"),
    "hrformer_b_256x192_aic": ("hrformer_b", (192, 256), "aic", None, False, "34.4"),
}

# and those that refine poses
REFINERS = {
    "posefix_r152_384x288_coco": ("posefix_r152", (288, 384), "coco", None, False, "77.2"),
    "opecnet_r101_320x256_crowdpose": ("opecnet_r101", (256, 320), "crowdpose", None, False, "70.6"),
}
# and those that see the other persons of a picture
SEE_NEIGHBOURS = {
    "i2rnet_w48_256x192_crowdpose": ("i2rnet_hrnet_w48", (192, 256), "crowdpose", None, False, "72.3"),
    "i2rnet_transpose_h_256x192_crowdpose": (
        "i2rnet_transpose_h", (192, 256), "crowdpose", None, False, "76.3",
    ),
}  # fmt: skip
OTHERS = {**TRANSFORMERS, **REFINERS, **SEE_NEIGHBOURS}


@pytest.mark.parametrize("name", [*ROWS, *OTHERS])
def test_a_row_of_the_tables(name):
    model, input_size, skeleton, stride, unbiased, _ = {**ROWS, **OTHERS}[name]
    settings = get_recipe(name)
    assert (settings.model, settings.input_size, settings.skeleton) == (model, input_size, skeleton)
    assert (settings.options.get("stride"), settings.unbiased) == (stride, unbiased)
    modern = any(method in name for method in ("dark", "vit", "token", "transpose", "posefix", "opec", "i2r"))
    assert settings.decode == ("dark" if modern else "quarter")
    heatmaps_of_old = not name.startswith("diffusionpose") and not modern
    assert settings.options.get("quantise", False) == heatmaps_of_old


def test_the_tables_name_these_recipes_and_no_others():
    rows = {row.recipe: row for table in tables().values() for row in table if row.recipe}
    assert set(rows) == {name for name in {**ROWS, **OTHERS} if "_s2_" not in name}
    for name, row in rows.items():
        _, input_size, skeleton, _, _, paper_ap = {**ROWS, **OTHERS}[name]
        assert (row.input_size, f"{row.accuracy['AP']:.1f}") == (input_size, paper_ap), name
        assert {2: "coco", 3: "crowdpose", 4: "aic"}[row.table] == skeleton
    assert [len(table) for table in tables().values()] == [19, 8, 9]
    assert all(row.recipe for table in tables().values() for row in table)


@pytest.mark.parametrize("name", ROWS)
def test_the_schedule_of_section_4_1(name):
    settings = get_recipe(name)
    assert (settings.optimiser, settings.learning_rate, settings.weight_decay) == ("adam", 5e-4, 0)
    assert (settings.schedule, settings.epochs, settings.drops) == ("steps", 210, (170, 200))
    assert settings.batch_size == 32
    assert settings.flip
    assert settings.steps == 1
    assert settings.augmentation == {}, "the defaults of Augmentation are the paper's"


@pytest.mark.parametrize("name", recipes())
def test_a_recipe_carries_its_name(name):
    assert get_recipe(name).recipe == name
    Augmentation(**(get_recipe(name).augmentation or {}))


def test_every_model_of_a_recipe_can_be_made():
    made = {}
    for name in recipes():
        settings = get_recipe(name)
        made[settings.model, json.dumps(settings.options, sort_keys=True)] = settings
    with torch.device("meta"):
        for settings in made.values():
            create_model(
                settings.model,
                settings.skeleton,
                input_size=settings.input_size,
                unbiased=settings.unbiased,
                **settings.options,
            )
    assert {settings.model for settings in made.values()} <= set(MODELS)


def test_what_the_publications_train_with_against_overfitting():
    """Drop path and drop-out of the authors' configurations."""
    rates = {
        "hrformer_b_256x192_coco": 0.2,
        "hrformer_b_384x288_coco": 0.3,
        "hrformer_b_256x192_crowdpose": 0.2,
        "hrformer_s_256x192_aic": 0.1,
        "vitpose_b_256x192_coco": 0.3,
        "vitpose_l_256x192_coco": 0.5,
        "vitpose_h_256x192_coco": 0.55,
    }
    assert {name: get_recipe(name).options["encoder"]["drop_path_rate"] for name in rates} == rates
    for name in ("transpose_h_256x192_coco", "transpose_h_256x192_crowdpose"):
        assert get_recipe(name).options == {"dropout": 0.1}


def test_an_unknown_recipe_is_answered_with_its_neighbours():
    with pytest.raises(InputError, match="hrnet_w32_256x192_coco"):
        get_recipe("hrnet_w32_256x192")
