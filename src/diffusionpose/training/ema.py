"""The moving average of the weights."""

import copy

import torch
from torch import nn


def averaged_copy(model: nn.Module) -> nn.Module:
    """A copy of the model to hold its moving average: no gradients, always in evaluation mode."""
    return copy.deepcopy(model).requires_grad_(False).eval()


@torch.no_grad()
def update_average(average: nn.Module, model: nn.Module, decay: float, step: int) -> None:
    """average <- decay * average + (1 - decay) * model, BatchNorm statistics included.

    Args:
        average: from :func:`averaged_copy`, changed in place.
        model: the model in training, on the same device.
        decay: of the average; over the first steps the smaller (1 + step) / (10 + step), so that the
            random initial weights are soon forgotten.
        step: optimiser steps done, from 0.
    """
    weight = 1 - min(decay, (1 + step) / (10 + step))
    ours, theirs = average.state_dict(), model.state_dict()
    floats = [name for name, value in ours.items() if value.is_floating_point()]
    torch._foreach_lerp_([ours[name] for name in floats], [theirs[name] for name in floats], weight)
    for name in ours.keys() - set(floats):
        ours[name].copy_(theirs[name])
