"""What a model costs: parameters, multiply-adds, and the counts that publications print.

Published "GFLOPs" come from tools that differ in what they see. ``count_multiply_adds`` is the true
count; ``count_as_published`` follows the tool of a publication, so that a model's structure can be
checked against the number printed there. The rules of counting:

==========  ===============================================================  =================
rule        counts                                                           used by
==========  ===============================================================  =================
``hrnet``   Convolutions and deconvolutions: weights x output positions,     SimpleBaseline,
            for a deconvolution of stride 2 four times the truth. Linear     HRNet, TokenPose
            layers: outputs x second dimension of the input, which for
            (b, n, c) is the number of tokens instead of their channels.
            Attention products: not at all. In units of 2^30.
``mmcv``    Convolutions with bias, deconvolutions, linear layers, each as   HRFormer
            they are. Attention products: not at all. In units of 10^9.
            Norms and activations, below 1 %, are left out here.
``detr``    Multiply-adds as they are, attention included; 4 per value of    TransPose
            a batch norm, 5 of a softmax, 1 of a ReLU, sum or product.
            In units of 10^9.
==========  ===============================================================  =================

Sources: ``get_model_summary`` of deep-high-resolution-net.pytorch, ``get_model_complexity_info``
of mmcv, ``tools/flop_count.py`` of TransPose.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from diffusionpose.errors import InputError
from diffusionpose.models.pose_model import PoseModel

SMALL, LARGE = (192, 256), (288, 384)


@dataclass(frozen=True)
class Publication:
    """The size of a model as its own publication states it, with COCO's 17 joints.

    Attributes:
        model: name in the zoo.
        input_size: (width, height), pixels.
        parameters: millions.
        multiply_adds: billions in the publication's way of counting; None where it states none.
        counting: that way, one of ``costs.RULES``.
        source: where it is stated.
        unseen: last names of layers that its way of counting misses.
        backbone_only: the parameters are those of the backbone without head.
    """

    model: str
    input_size: tuple[int, int]
    parameters: float
    multiply_adds: float | None
    counting: str | None
    source: str
    unseen: tuple[str, ...] = ()
    backbone_only: bool = False


SIMPLEBASELINE = "Xiao et al., ECCV 2018, and its repository"
HRNET = "Sun et al., CVPR 2019, Table 1"
TOKENPOSE = "Li et al., ICCV 2021: 56.8 % fewer parameters, 24.7 % fewer GFLOPs than HRNet-W48"
TRANSPOSE = "README of its repository (Yang et al., ICCV 2021)"
HRFORMER = "Yuan et al., NeurIPS 2021, comparison on COCO val"
VITPOSE = "Xu et al., NeurIPS 2022, comparison on COCO val (backbone)"

PUBLICATIONS = (
    Publication("simplebaseline_r50", SMALL, 34.0, 8.9, "hrnet", SIMPLEBASELINE),
    Publication("simplebaseline_r101", SMALL, 53.0, 12.4, "hrnet", SIMPLEBASELINE),
    Publication("simplebaseline_r152", SMALL, 68.6, 15.7, "hrnet", SIMPLEBASELINE),
    Publication("hrnet_w32", SMALL, 28.5, 7.10, "hrnet", HRNET),
    Publication("hrnet_w32", LARGE, 28.5, 16.0, "hrnet", HRNET),
    Publication("hrnet_w48", SMALL, 63.6, 14.6, "hrnet", HRNET),
    Publication("hrnet_w48", LARGE, 63.6, 32.9, "hrnet", HRNET),
    Publication("tokenpose_l", SMALL, 27.5, 11.0, "hrnet", TOKENPOSE),
    Publication("transpose_h", SMALL, 17.5, 21.8, "detr", TRANSPOSE),
    Publication("hrformer_s", SMALL, 7.8, 2.8, "mmcv", HRFORMER, unseen=("out",)),
    Publication("hrformer_s", LARGE, 7.8, 6.2, "mmcv", HRFORMER, unseen=("out",)),
    Publication("hrformer_b", SMALL, 43.2, 12.2, "mmcv", HRFORMER, unseen=("out",)),
    Publication("hrformer_b", LARGE, 43.2, 26.8, "mmcv", HRFORMER, unseen=("out",)),
    Publication("vitpose_b", SMALL, 86, None, None, VITPOSE, backbone_only=True),
    Publication("vitpose_l", SMALL, 307, None, None, VITPOSE, backbone_only=True),
    Publication("vitpose_h", SMALL, 632, None, None, VITPOSE, backbone_only=True),
)


def publication_of(model: str, input_size: tuple[int, int]) -> Publication | None:
    """What the model's own publication states at an input size, None where it states nothing."""
    return next((p for p in PUBLICATIONS if (p.model, p.input_size) == (model, input_size)), None)


# What a model costs: parameters, multiply-adds, and the counts that publications print

RULES = ("hrnet", "mmcv", "detr")
# what DETR's tool adds to multiply-adds, per value that the operation gives
DETR_WEIGHTS = {"batch_norm": 4, "softmax": 5, "relu": 1, "add": 1, "mul": 1, "sub": 1, "div": 1}


def count_parameters(model: nn.Module) -> int:
    """Trainable numbers of a model."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def count_multiply_adds(model: PoseModel, **options: Any) -> int:
    """Multiply-adds of one forward pass of one person, without the flip test (what papers call FLOPs).

    Those of convolutions, linear layers and attention. Norms, activations and softmax are left out.
    """
    # torch's counter sees nothing in the CPU's fused attention; by this kernel it is two products
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        _run(model, **options)
    return counter.get_total_flops() // 2


def count_as_published(model: PoseModel, rule: str, unseen: Sequence[str] = (), **options: Any) -> float:
    """The "GFLOPs" that a publication's tool would print for one forward pass of one person.

    The rules stand at the head of this module.

    Args:
        model: on any device, the meta device included.
        rule: one of ``RULES``.
        unseen: last names of layers that the authors' code does not call as modules, so that the tools
            that hook modules (``hrnet``, ``mmcv``) miss them.
        options: of the model's forward pass.

    Raises:
        InputError: an unknown rule.
    """
    if rule not in RULES:
        raise InputError(f"no rule {rule!r} of counting; there are {', '.join(RULES)}")
    if rule == "detr":
        with (
            sdpa_kernel(SDPBackend.MATH),
            _ValueCounter() as values,
            FlopCounterMode(display=False) as products,
        ):
            _run(model, **options)
        return (products.get_total_flops() // 2 + values.total) / 1e9
    count, unit = (_hrnet_count, 2**30) if rule == "hrnet" else (_mmcv_count, 10**9)
    counts: list[int] = []
    hooks = [
        module.register_forward_hook(lambda *call: counts.append(count(*call)))
        for name, module in model.named_modules()
        if name.rpartition(".")[2] not in unseen
    ]
    try:
        _run(model, **options)
    finally:
        for hook in hooks:
            hook.remove()
    return sum(counts) / unit


def _hrnet_count(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> int:
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        return module.weight.numel() * output[0, 0].numel()
    return output.numel() * inputs[0].shape[1] if isinstance(module, nn.Linear) else 0


def _mmcv_count(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> int:
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        positions = inputs[0] if isinstance(module, nn.ConvTranspose2d) else output
        bias = 0 if module.bias is None else output.numel()
        return module.weight.numel() * positions[0, 0].numel() + bias
    return output.numel() * module.in_features if isinstance(module, nn.Linear) else 0


class _ValueCounter(TorchDispatchMode):
    """Sums ``DETR_WEIGHTS`` over the values that operations give."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        name = str(func.__name__).partition(".")[0].strip("_")
        for part, weight in DETR_WEIGHTS.items():
            if name == part or (part in ("batch_norm", "softmax") and part in name):
                self.total += weight * (result[0] if isinstance(result, tuple) else result).numel()
        return result


def _run(model: PoseModel, **options: Any) -> None:
    width, height = model.input_size
    images = torch.zeros(1, 3, height, width, dtype=torch.uint8, device=next(model.parameters()).device)
    training = model.training
    with torch.no_grad():
        model.eval()(images, **options)
    model.train(training)
