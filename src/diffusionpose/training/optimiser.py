"""What changes the weights: the learning rate of a step, which parameter gets which, the moving average."""

import math
from typing import Any

import torch
from timm.optim import param_groups_layer_decay  # type: ignore[attr-defined]
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from diffusionpose.errors import InputError
from diffusionpose.models.pose_model import PoseModel
from diffusionpose.training.settings import TrainingSettings

COSINE_FLOOR = 0.01  # of the full rate, at the last step
SMALLEST_SIZE = 0.05  # under a relative rate, a tensor counts as no smaller, so that new and tiny ones learn


def learning_rate(settings: TrainingSettings, step: int, steps_per_epoch: int) -> float:
    """The rate of optimiser step ``step`` (from 0): a pure function, so that nothing of it needs saving.

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


def make_optimiser(model: PoseModel, settings: TrainingSettings) -> torch.optim.Optimizer:
    """Adam or AdamW over :func:`parameter_groups`."""
    kind = torch.optim.AdamW if settings.optimiser == "adamw" else torch.optim.Adam
    groups = parameter_groups(model, settings.weight_decay, settings.layer_decay)
    if settings.relative_rate:
        groups = [
            {**group, "params": [tensor], "lr_scale": group["lr_scale"] * tensor_size(tensor, SMALLEST_SIZE)}
            for group in groups
            for tensor in group["params"]
        ]
    return kind(groups, lr=settings.learning_rate, fused=True)


def tensor_size(tensor: Tensor, smallest: float) -> float:
    """The root mean square of a tensor, no less than ``smallest``: what a relative rate is relative to."""
    return max(float(tensor.detach().square().mean().sqrt()), smallest)


def set_learning_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    """Give every group its share of the rate."""
    for group in optimiser.param_groups:
        group["lr"] = rate * group["lr_scale"]


def parameter_groups(model: PoseModel, weight_decay: float, layer_decay: float = 1.0) -> list[dict[str, Any]]:
    """Groups for an optimiser; no weight decay on norms, biases and position embeddings.

    With a ``layer_decay`` below 1 each block of the backbone learns at this share of the rate of the block
    above it; what lies above the backbone has the full rate (Bao et al. 2022, BEiT; ViTPose trains so, except
    that the backbone's last norm goes with its last block here). A group's share of the rate: ``lr_scale``.

    Raises:
        InputError: a layer decay for a backbone whose blocks timm does not know the order of.
    """
    backbone = model.encoder.innermost.backbone
    unshrunk = set(backbone.no_weight_decay()) if hasattr(backbone, "no_weight_decay") else set()
    groups: list[dict[str, Any]] = []
    if layer_decay != 1:
        if not hasattr(backbone, "group_matcher"):
            name = type(backbone).__name__
            raise InputError(f"layer_decay is {layer_decay}, but {name} has no order of blocks; make it 1")
        groups = param_groups_layer_decay(backbone, weight_decay, unshrunk, layer_decay=layer_decay)
        for group in groups:  # timm gives the last block the full rate, as if nothing lay above it
            group["lr_scale"] *= layer_decay
    taken = {id(parameter) for group in groups for parameter in group["params"]}
    spared = {id(parameter) for name, parameter in backbone.named_parameters() if name in unshrunk}
    rest = [p for p in model.parameters() if p.requires_grad and id(p) not in taken]
    for decay, shrinks in ((weight_decay, True), (0.0, False)):
        params = [p for p in rest if (p.ndim > 1 and id(p) not in spared) == shrinks]
        groups.append({"params": params, "weight_decay": decay, "lr_scale": 1.0})
    return [group for group in groups if group["params"]]


def moving_average(model: nn.Module, decay: float) -> AveragedModel:
    """The exponential moving average of a model, BatchNorm statistics included; never trained itself.

    Over the first steps the decay is the smaller (1 + step) / (10 + step), so that the random initial weights
    are soon forgotten.
    """

    def average(ours: list[Tensor], theirs: list[Tensor], step: Tensor) -> None:
        if ours[0].is_floating_point():
            torch._foreach_lerp_(ours, theirs, 1 - min(decay, (1 + int(step)) / (10 + int(step))))
        else:  # counters of BatchNorm
            torch._foreach_copy_(ours, theirs)

    averaged = AveragedModel(model, multi_avg_fn=average, use_buffers=True)  # type: ignore[arg-type]
    return averaged.requires_grad_(False).eval()
