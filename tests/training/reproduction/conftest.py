"""A budget that takes seconds, and a study of two rows in place of a table."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from diffusionpose.training.reproduce import Data, Request
from diffusionpose.training.settings import ImageSet, Machine, TrainingSettings
from diffusionpose.training.studies import STUDIES, Budget


@pytest.fixture(scope="session")
def budget(tiny: TrainingSettings) -> Budget:
    """The tiny model, three epochs of three steps."""
    base = replace(tiny, options={"width": 8}, batch_size=8, val_every=3)
    return Budget("test", "the tiny model", base, "tiny", "tiny_unet")


@pytest.fixture(scope="session")
def ask(images: ImageSet, budget: Budget) -> Callable[..., Request]:
    """A request for the first and the last row of Table 7, or what is given instead."""
    table7 = STUDIES["table7"]
    two = replace(table7, variants=(table7.variants[1], table7.variants[4]))

    def request(output: Path, **changes: object) -> Request:
        usual = Request(
            two, budget, Data((images,), images), output, machine=Machine("cpu", workers=0), parallel=2
        )
        return replace(usual, **changes)

    return request
