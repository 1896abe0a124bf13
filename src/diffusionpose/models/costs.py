"""What a model costs: parameters and multiply-adds, as counted here and as its own publication states them.

``diffusionpose models`` keeps the counted ones in ``costs.json``. Needs no torch to import.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from diffusionpose.geometry import Start

if TYPE_CHECKING:
    from torch import nn

    from diffusionpose.models.pose_model import PoseModel


def count_parameters(model: nn.Module) -> int:
    """Trainable numbers of a model."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def count_multiply_adds(model: PoseModel, steps: int | None = None) -> int:
    """Multiply-adds of one forward pass of one person, without the flip test (what papers call FLOPs).

    Those of convolutions, linear layers and attention. Norms, activations and softmax are left out.
    """
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    # torch's counter sees nothing in the CPU's fused attention; by this kernel it is two products
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        run_once(model, steps)
    return counter.get_total_flops() // 2


def run_once(model: PoseModel, steps: int | None = None) -> None:
    """One forward pass of one person, of zeros, on the model's device."""
    import torch

    width, height = model.input_size
    images = torch.zeros(1, 3, height, width, dtype=torch.uint8, device=model.device)
    training = model.training
    corner = torch.zeros(1, model.skeleton.num_joints, 2, device=model.device)
    start = Start(corner, corner[..., 0] + 1) if model.needs_start else None
    with torch.no_grad():
        model.eval()(images, steps, start)
    model.train(training)


@dataclass(frozen=True)
class Publication:
    """The size of a model as its own publication states it, with COCO's 17 joints."""

    model: str  # name in the zoo
    input_size: tuple[int, int]  # (width, height), pixels
    parameters: float  # millions
    multiply_adds: float | None = None  # billions in the publication's way of counting
    counting: str | None = None  # that way: "hrnet", "mmcv" or "detr" (tests/models/test_costs.py)
    unseen: tuple[str, ...] = ()  # last names of layers that its way of counting misses
    backbone_only: bool = False  # whether the parameters are those of the backbone without head


SMALL, LARGE = (192, 256), (288, 384)
PUBLICATIONS = (
    # SimpleBaseline: Xiao et al., ECCV 2018, and its repository
    Publication("simplebaseline_r50", SMALL, 34.0, 8.9, "hrnet"),
    Publication("simplebaseline_r101", SMALL, 53.0, 12.4, "hrnet"),
    Publication("simplebaseline_r152", SMALL, 68.6, 15.7, "hrnet"),
    # HRNet: Sun et al., CVPR 2019, Table 1
    Publication("hrnet_w32", SMALL, 28.5, 7.10, "hrnet"),
    Publication("hrnet_w32", LARGE, 28.5, 16.0, "hrnet"),
    Publication("hrnet_w48", SMALL, 63.6, 14.6, "hrnet"),
    Publication("hrnet_w48", LARGE, 63.6, 32.9, "hrnet"),
    # TokenPose: Li et al., ICCV 2021: 56.8 % fewer parameters, 24.7 % fewer GFLOPs than HRNet-W48
    Publication("tokenpose_l", SMALL, 27.5, 11.0, "hrnet"),
    # TransPose: README of its repository (Yang et al., ICCV 2021)
    Publication("transpose_h", SMALL, 17.5, 21.8, "detr"),
    # HRFormer: Yuan et al., NeurIPS 2021, comparison on COCO val
    Publication("hrformer_s", SMALL, 7.8, 2.8, "mmcv", unseen=("proj",)),
    Publication("hrformer_s", LARGE, 7.8, 6.2, "mmcv", unseen=("proj",)),
    Publication("hrformer_b", SMALL, 43.2, 12.2, "mmcv", unseen=("proj",)),
    Publication("hrformer_b", LARGE, 43.2, 26.8, "mmcv", unseen=("proj",)),
    # ViTPose: Xu et al., NeurIPS 2022, comparison on COCO val (backbone)
    Publication("vitpose_b", SMALL, 86, backbone_only=True),
    Publication("vitpose_l", SMALL, 307, backbone_only=True),
    Publication("vitpose_h", SMALL, 632, backbone_only=True),
)


def publication_of(model: str, input_size: tuple[int, int]) -> Publication | None:
    """What the model's own publication states at an input size, None where it states nothing."""
    return next((p for p in PUBLICATIONS if (p.model, p.input_size) == (model, input_size)), None)
