"""A training that takes seconds: the tiny model on twelve synthetic pictures, run once for all tests here."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from diffusionpose.training.recipes import get_recipe
from diffusionpose.training.settings import ImageSet, Machine, TrainingSettings

CPU = Machine("cpu", workers=0)


@pytest.fixture(scope="session")
def images(synthetic_set: tuple[Path, Path]) -> ImageSet:
    return ImageSet(*synthetic_set)


@pytest.fixture(scope="session")
def tiny() -> TrainingSettings:
    """Three epochs of a few steps; the network has no BatchNorm."""
    recipe = get_recipe("diffusionpose_tiny_synthetic")
    return replace(
        recipe,
        skeleton="coco",
        input_size=(64, 64),
        options={"zeta": 0.1, "width": 8},
        precision="32",
        epochs=3,
        batch_size=4,
        warmup_steps=2,
    )


@pytest.fixture(scope="session")
def run(images: ImageSet) -> Callable[..., object]:
    """Train on ``images``, or what is given instead, in this process."""
    from diffusionpose.training.loop import train

    def call(settings: TrainingSettings, output: Path, images: ImageSet = images, machine: Machine = CPU):
        return train(settings, [images], images, output, machine, progress=False)

    return call


@pytest.fixture(scope="session")
def finished(run: Callable[..., object], tiny: TrainingSettings, tmp_path_factory) -> Path:
    """A run of three epochs that nothing interrupted."""
    output = tmp_path_factory.mktemp("finished")
    run(tiny, output)
    return output
