"""The learning rate as a pure function of the step, so that nothing of it needs saving."""

import math

from diffusionpose.training.settings import TrainingSettings

COSINE_FLOOR = 0.01  # of the full rate, at the last step


def learning_rate(settings: TrainingSettings, step: int, steps_per_epoch: int) -> float:
    """The rate of optimiser step ``step`` (from 0).

    A linear warm-up over ``settings.warmup_steps``; then either divided by 10 at the start of each epoch of
    ``settings.drops`` (section 4.1 of the paper; HRNet's 170 and 200) or half a cosine over all epochs.
    """
    warmup = min(1.0, (step + 1) / settings.warmup_steps) if settings.warmup_steps else 1.0
    if settings.schedule == "cosine":
        done = min(1.0, step / max(1, settings.epochs * steps_per_epoch))
        factor = COSINE_FLOOR + (1 - COSINE_FLOOR) * 0.5 * (1 + math.cos(math.pi * done))
    else:
        epoch = step // steps_per_epoch
        factor = 0.1 ** sum(epoch >= drop for drop in settings.drops)
    return settings.learning_rate * warmup * factor
