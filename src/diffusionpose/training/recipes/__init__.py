r"""Recipes: one function per training, each returning frozen settings.

A recipe is its parent with a few entries replaced; reading it up to its ancestor shows the whole
training. Recipes need no torch. Start one with::

    diffusionpose train RECIPE --images DIR --annotations TRAIN.json \
        --val-images DIR --val-annotations VAL.json --output RUN

What the paper gives for all of its rows (section 4.1): ImageNet weights, Adam at 5e-4, 210 epochs with
the rate divided by 10 after 170 and 200 (the paper's second drop, at 210, would never act), 32 persons
on each of 8 GPUs (``--devices 8``), flip test. Numbers of the paper are APs in percent.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable

from diffusionpose.errors import InputError
from diffusionpose.training.recipes import aic, coco, coco_transformers, crowdpose, small
from diffusionpose.training.settings import TrainingSettings

Recipe = Callable[[], TrainingSettings]

RECIPES: dict[str, Recipe] = {
    recipe.__name__: recipe
    for floor in (coco, coco_transformers, crowdpose, aic, small)
    for recipe in floor.RECIPES
}


def get_recipe(name: str) -> TrainingSettings:
    """The settings of a recipe by name; InputError with the nearest names for an unknown one."""
    if name not in RECIPES:
        near = difflib.get_close_matches(name, RECIPES, n=3, cutoff=0.3)
        raise InputError(
            f"no recipe {name!r}; nearest: {', '.join(near) or 'none'} ('diffusionpose models' lists all)"
        )
    return RECIPES[name]()
