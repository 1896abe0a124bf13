"""What a model costs: parameters and multiply-adds. ``diffusionpose models`` keeps them in ``costs.json``."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from diffusionpose.geometry import Start
from diffusionpose.models.pose_model import PoseModel


def count_parameters(model: nn.Module) -> int:
    """Trainable numbers of a model."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def count_multiply_adds(model: PoseModel, steps: int | None = None) -> int:
    """Multiply-adds of one forward pass of one person, without the flip test (what papers call FLOPs).

    Those of convolutions, linear layers and attention. Norms, activations and softmax are left out.
    """
    # torch's counter sees nothing in the CPU's fused attention; by this kernel it is two products
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        run_once(model, steps)
    return counter.get_total_flops() // 2


def run_once(model: PoseModel, steps: int | None = None) -> None:
    """One forward pass of one person, of zeros, on the model's device."""
    width, height = model.input_size
    images = torch.zeros(1, 3, height, width, dtype=torch.uint8, device=model.device)
    training = model.training
    corner = torch.zeros(1, model.skeleton.num_joints, 2, device=model.device)
    start = Start(corner, corner[..., 0] + 1) if model.needs_start else None
    with torch.no_grad():
        model.eval()(images, steps, start)
    model.train(training)
