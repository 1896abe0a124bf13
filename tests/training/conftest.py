"""A training that takes seconds: the tiny model on twelve synthetic pictures."""

from dataclasses import replace
from pathlib import Path

import pytest

from diffusionpose.training.recipes import get_recipe
from diffusionpose.training.settings import ImageSet, TrainingSettings


@pytest.fixture(scope="session")
def images(synthetic_set: tuple[Path, Path]) -> ImageSet:
    return ImageSet(*synthetic_set)


@pytest.fixture(scope="session")
def tiny() -> TrainingSettings:
    """Three epochs of a few steps; the network has no BatchNorm."""
    recipe = get_recipe("diffusionpose_tiny_synthetic")
    return replace(recipe, skeleton="coco", precision="32", epochs=3, batch_size=4, warmup_steps=2)
