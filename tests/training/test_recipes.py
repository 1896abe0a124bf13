"""Every row of Tables 2, 3 and 4 for DiffusionPose, HRNet and SimpleBaseline is a recipe."""

import pytest
import torch

from diffusionpose.data.augmentation import Augmentation
from diffusionpose.errors import InputError
from diffusionpose.models.zoo import MODELS, create_model
from diffusionpose.training.recipes import RECIPES, get_recipe

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


@pytest.mark.parametrize("name", ROWS)
def test_a_row_of_the_tables(name):
    model, input_size, skeleton, stride, unbiased, paper_ap = ROWS[name]
    settings = get_recipe(name)
    assert (settings.model, settings.input_size, settings.skeleton) == (model, input_size, skeleton)
    assert (settings.options.get("stride"), settings.unbiased) == (stride, unbiased)
    assert settings.decode == ("dark" if "dark" in name else "quarter")
    heatmaps_of_old = not name.startswith("diffusionpose") and "dark" not in name
    assert settings.options.get("quantise", False) == heatmaps_of_old
    assert f"{paper_ap} AP" in (RECIPES[name].__doc__ or "")


@pytest.mark.parametrize("name", ROWS)
def test_the_schedule_of_section_4_1(name):
    settings = get_recipe(name)
    assert (settings.optimiser, settings.learning_rate, settings.weight_decay) == ("adam", 5e-4, 0)
    assert (settings.schedule, settings.epochs, settings.drops) == ("steps", 210, (170, 200))
    assert settings.batch_size == 32
    assert settings.flip
    assert settings.steps == 1
    assert settings.augmentation == {}, "the defaults of Augmentation are the paper's"


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_carries_its_name_and_its_command(name):
    assert get_recipe(name).recipe == name
    assert f"diffusionpose train {name}" in " ".join((RECIPES[name].__doc__ or "").split())
    Augmentation(**(get_recipe(name).augmentation or {}))


def test_every_model_of_a_recipe_can_be_made():
    made = {}
    for name in RECIPES:
        settings = get_recipe(name)
        made[settings.model, settings.skeleton, *sorted(settings.options.items())] = settings
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


def test_an_unknown_recipe_is_answered_with_its_neighbours():
    with pytest.raises(InputError, match="hrnet_w32_256x192_coco"):
        get_recipe("hrnet_w32_256x192")
