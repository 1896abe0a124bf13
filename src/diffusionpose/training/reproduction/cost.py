"""What an epoch of a training costs, compared with other trainings."""

from __future__ import annotations

from diffusionpose.errors import InputError
from diffusionpose.training.settings import TrainingSettings

# Multiply-adds that take as long as what is not counted (reading pictures, many small layers).
OVERHEAD = 40e6


def epoch_weight(settings: TrainingSettings) -> float:
    """Cost of a person and epoch, in multiply-adds and what takes as long; for the time left only.

    Counted on the meta device: shapes without numbers, which takes a fraction of a second. 1 for a
    model that cannot be made: its training will say why.
    """
    import torch

    from diffusionpose.models.costs import count_multiply_adds
    from diffusionpose.models.zoo import create_model

    try:
        with torch.device("meta"):
            model = create_model(
                settings.model, settings.skeleton, input_size=settings.input_size, **settings.options
            )
            return OVERHEAD + count_multiply_adds(model)
    except (InputError, RuntimeError):
        return OVERHEAD
