"""Counts against closed forms, and every compared network against what its own publication prints.

Published "GFLOPs" come from tools that differ in what they see, so a network made elsewhere is checked by the
rule of its publication's tool:

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

import functools
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from diffusionpose.geometry import HeatmapCodec
from diffusionpose.models.costs import (
    PUBLICATIONS,
    count_multiply_adds,
    count_parameters,
    publication_of,
    run_once,
)
from diffusionpose.models.encoders import Encoder
from diffusionpose.models.heads import TransPoseHead
from diffusionpose.models.pose_model import HeatmapModel, PoseModel
from diffusionpose.models.zoo import MODELS, create_model
from diffusionpose.skeletons import COCO

RULES = ("hrnet", "mmcv", "detr")
# what DETR's tool adds to multiply-adds, per value that the operation gives
DETR_WEIGHTS = {"batch_norm": 4, "softmax": 5, "relu": 1, "add": 1, "mul": 1, "sub": 1, "div": 1}


def count_as_published(model: PoseModel, rule: str, unseen: Sequence[str] = ()) -> float:
    """The "GFLOPs" that a publication's tool would print for one forward pass of one person.

    The rules stand at the head of this file.

    Args:
        model: on any device, the meta device included.
        rule: one of ``RULES``.
        unseen: last names of layers that the authors' code does not call as modules, so that the tools
            that hook modules (``hrnet``, ``mmcv``) miss them.
    """
    if rule == "detr":
        with (
            sdpa_kernel(SDPBackend.MATH),
            _ValueCounter() as values,
            FlopCounterMode(display=False) as products,
        ):
            run_once(model)
        return (products.get_total_flops() // 2 + values.total) / 1e9
    count, unit = (_hrnet_count, 2**30) if rule == "hrnet" else (_mmcv_count, 10**9)
    counts: list[int] = []
    hooks = [
        module.register_forward_hook(lambda *call: counts.append(count(*call)))
        for name, module in model.named_modules()
        if name.rpartition(".")[2] not in unseen
    ]
    try:
        run_once(model)
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


class Stride4(Encoder):
    """One 4x4 convolution of stride 4 with bias, from 3 to 8 channels."""

    def __init__(self):
        super().__init__(nn.Conv2d(3, 8, 4, 4), 8, 4)

    def forward(self, x):
        return self.backbone(x)


class Tokens(nn.Module):
    """A linear layer over the positions as tokens, then a deconvolution and a batch norm."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(8, 5, bias=False)
        self.deconvolution = nn.ConvTranspose2d(5, 17, 4, 2, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(17)

    def forward(self, feature):
        tokens = self.linear(feature.flatten(2).mT)
        return self.norm(self.deconvolution(tokens.mT.unflatten(2, feature.shape[2:]))).relu()


CONV = 4 * 4 * 3 * 8 * 6 * 4  # a 24x16 input is 6x4 positions
LINEAR = 6 * 4 * 8 * 5
DECONV = 6 * 4 * 4 * 4 * 5 * 17


def small():
    return HeatmapModel(Stride4(), Tokens(), COCO, HeatmapCodec((16, 24), stride=2))


def test_parameters_are_the_trainable_numbers():
    model = small()
    assert count_parameters(model) == 4 * 4 * 3 * 8 + 8 + 8 * 5 + 4 * 4 * 5 * 17 + 2 * 17
    model.encoder.requires_grad_(False)
    assert count_parameters(model) == 8 * 5 + 4 * 4 * 5 * 17 + 2 * 17


def test_multiply_adds_are_the_true_ones():
    assert count_multiply_adds(small()) == CONV + LINEAR + DECONV


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_multiply_adds_of_attention_are_counted_on_every_device(device):
    with torch.device(device):
        head = TransPoseHead(8, 17, (4, 6), width=16, depth=2, heads=4, feedforward=24)
        model = HeatmapModel(Stride4(), head, COCO, HeatmapCodec((16, 24)))
        counted = count_multiply_adds(model)
    tokens, width, layers = 24, 16, 2
    linear = 4 * width * width + 2 * width * 24
    attention = 2 * tokens * tokens * width
    assert counted == CONV + tokens * 8 * width + layers * (tokens * linear + attention) + tokens * width * 17


def test_hrnets_rule():
    # weights x output positions, so 4 times a stride-2 deconvolution; 24 tokens where 8 channels are meant
    expected = CONV + (6 * 4 * 5) * 24 + 4 * DECONV
    assert count_as_published(small(), "hrnet") == pytest.approx(expected / 2**30, rel=1e-12)


def test_mmcvs_rule():
    expected = CONV + 6 * 4 * 8 + LINEAR + DECONV
    assert count_as_published(small(), "mmcv") == pytest.approx(expected / 1e9, rel=1e-12)
    without = count_as_published(small(), "mmcv", unseen=("linear",))
    assert without == pytest.approx((expected - LINEAR) / 1e9, rel=1e-12)


def test_detrs_rule():
    values = 17 * 12 * 8
    # a batch norm and a ReLU; normalising the picture subtracts and divides
    expected = CONV + LINEAR + DECONV + (4 + 1) * values + 2 * (3 * 24 * 16)
    assert count_as_published(small(), "detr") == pytest.approx(expected / 1e9, rel=1e-12)


def test_counting_leaves_the_model_as_it_was():
    model = small().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for rule in ("hrnet", "mmcv", "detr"):
        count_as_published(model, rule)
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())


# --- publications ---

COMPARED = [name for name in MODELS if not name.startswith("diffusionpose") and name.split("_")[0] != "tiny"]


@functools.cache
def shapes(name: str, size: tuple[int, int]) -> PoseModel:
    """A model without numbers, on the meta device."""
    with torch.device("meta"):
        return create_model(name, "coco", input_size=size)


@pytest.mark.parametrize("stated", PUBLICATIONS, ids=lambda p: f"{p.model}-{p.input_size[1]}")
def test_within_2_percent(stated, request):
    if stated.counting != "detr":
        request.getfixturevalue("uncounted_norms")
    model = shapes(stated.model, stated.input_size)
    with torch.device("meta"):
        counted = stated.counting and count_as_published(model, stated.counting, stated.unseen)
    counts = count_parameters(model.encoder if stated.backbone_only else model)
    assert counts / 1e6 == pytest.approx(stated.parameters, rel=0.02)
    if stated.multiply_adds is None:
        assert counted is None
    else:
        assert stated.counting in RULES
        assert counted == pytest.approx(stated.multiply_adds, rel=0.02)


def test_what_is_found_by_model_and_size():
    assert publication_of("hrnet_w32", (288, 384)).multiply_adds == 16.0
    assert publication_of("hrnet_w32", (96, 128)) is None
    # our own yardsticks have no publication, nor has the simple decoder a size of its own
    without = [n for n in COMPARED if publication_of(n, (192, 256)) is None]
    own = {"mobilenetv2", "mobilenetv2_unet", "movenet", "movenet_unet", "hrnet_w32_unet"}
    # PoseFix and OPEC-Net state no size, and I2R-Net's could not be had
    own |= {name for name in COMPARED if name.startswith(("posefix", "opecnet", "i2rnet"))}
    assert set(without) == own | {"vitpose_s", *(f"vitpose_{s}_simple" for s in "sblh")}


@pytest.mark.usefixtures("uncounted_norms")
@pytest.mark.parametrize(
    ("name", "size", "giga"),
    [
        ("tokenpose_l", (192, 256), 12.2),
        ("transpose_h", (192, 256), 21.3),
        ("hrformer_s", (192, 256), 3.2),
        ("hrformer_b", (288, 384), 30.5),
    ],
)
def test_true_multiply_adds_are_more_than_published_where_tools_miss_attention(name, size, giga):
    with torch.device("meta"):
        assert count_multiply_adds(shapes(name, size)) / 1e9 == pytest.approx(giga, abs=0.05)


@pytest.mark.parametrize(("depth", "parameters", "gflops"), [(4, 17.3, 17.5), (6, 17.5, 21.8)])
def test_both_published_depths_of_transpose(depth, parameters, gflops):
    """README of yangsenius/TransPose; its parameters include the fixed table of positions."""
    with torch.device("meta"):
        model = create_model("transpose_h", COCO, depth=depth)
        counted = count_as_published(model, "detr")
    with_table = count_parameters(model) + model.head.positions.numel()
    assert with_table / 1e6 == pytest.approx(parameters, abs=0.05)
    assert counted == pytest.approx(gflops, rel=0.02)
