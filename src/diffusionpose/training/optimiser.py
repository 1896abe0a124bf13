"""Which parameters get which learning rate and weight decay."""

from __future__ import annotations

from typing import Any

import torch
from timm.optim import param_groups_layer_decay  # type: ignore[attr-defined]

from diffusionpose.errors import InputError
from diffusionpose.models.pose_model import PoseModel
from diffusionpose.training.settings import TrainingSettings


def make_optimiser(model: PoseModel, settings: TrainingSettings) -> torch.optim.Optimizer:
    """Adam or AdamW over :func:`parameter_groups`."""
    kind = torch.optim.AdamW if settings.optimiser == "adamw" else torch.optim.Adam
    groups = parameter_groups(model, settings.weight_decay, settings.layer_decay)
    return kind(groups, lr=settings.learning_rate, fused=True)


def parameter_groups(model: PoseModel, weight_decay: float, layer_decay: float = 1.0) -> list[dict[str, Any]]:
    """Groups for an optimiser; no weight decay on norms, biases and position embeddings.

    Args:
        model: to train.
        weight_decay: on weights of two or more dimensions.
        layer_decay: each block of the backbone learns at this share of the rate of the block above it; what
            lies above the backbone has the full rate (Bao et al. 2022, BEiT; ViTPose trains so, except that
            the backbone's last norm goes with its last block here). 1: one rate for all. A group's share
            of the rate is its ``lr_scale``.

    Raises:
        InputError: a layer decay for a backbone whose blocks timm does not know the order of.
    """
    backbone = model.encoder.innermost.backbone
    unshrunk = set(backbone.no_weight_decay()) if hasattr(backbone, "no_weight_decay") else set()
    layered: list[dict[str, Any]] = []
    if layer_decay != 1:
        if not hasattr(backbone, "group_matcher"):
            name = type(backbone).__name__
            raise InputError(f"layer_decay is {layer_decay}, but {name} has no order of blocks; make it 1")
        layered = param_groups_layer_decay(backbone, weight_decay, unshrunk, layer_decay=layer_decay)
        for group in layered:  # timm gives the last block the full rate, as if nothing lay above it
            group["lr_scale"] *= layer_decay
    done = {id(parameter) for group in layered for parameter in group["params"]}
    spared = {id(parameter) for name, parameter in backbone.named_parameters() if name in unshrunk}
    rest = [p for p in model.parameters() if p.requires_grad and id(p) not in done]
    shrunk = [p for p in rest if p.ndim > 1 and id(p) not in spared]
    others = [p for p in rest if p.ndim <= 1 or id(p) in spared]
    plain = [
        {"params": shrunk, "weight_decay": weight_decay, "lr_scale": 1.0},
        {"params": others, "weight_decay": 0.0, "lr_scale": 1.0},
    ]
    return [group for group in [*layered, *plain] if group["params"]]
