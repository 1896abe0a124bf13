"""Every model by name: the only file that knows them all.

A model is made by a function of its encoder, skeleton, codec and options. ``create_model`` calls it and notes
name, skeleton and options in ``model.config``, so that a checkpoint can make it again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from diffusionpose.errors import InputError
from diffusionpose.geometry import HeatmapCodec
from diffusionpose.models.diffusion_pose import (
    Condition,
    FeatureCondition,
    KeypointCondition,
    StructureCondition,
    StructureGuidedDecoder,
)
from diffusionpose.models.encoders import (
    Encoder,
    HRNetEncoder,
    LastStageEncoder,
    MoveNetEncoder,
    PyramidEncoder,
    RaisedEncoder,
    ViTEncoder,
)
from diffusionpose.models.heads import (
    SimpleDecoder,
    TokenPoseHead,
    TransPoseHead,
    UNetHead,
    deconvolution_head,
)
from diffusionpose.models.hrformer import HRFormerEncoder
from diffusionpose.models.pose_model import HeatmapModel, PoseModel, coarse_head
from diffusionpose.models.variants import DiffusionPoseVariant, TimedDecoder
from diffusionpose.skeletons import CROWDPOSE, Skeleton, get_skeleton

CONDITIONS = ("features", "keypoints", "full")  # the rows of Table 5
MASK_WIDTH = 2.0  # delta_kps and delta_ske in units of the heatmaps' sigma
HEAD_STRIDE = 4  # input pixels per pixel of a heatmap model's output

# --- options: which there are, and what they may be ---


@dataclass(frozen=True)
class Option:
    """What an option may be.

    Attributes:
        kind: bool, int, float, or str for one of ``choices``.
        least, most: of a number.
        choices: words.
        count: how many numbers: 2 for a pair of width and height.
    """

    kind: type
    least: float = 0
    most: float = 1
    choices: tuple[str, ...] = ()
    count: int = 1

    def __str__(self) -> str:
        if self.kind is bool:
            return "true or false"
        if self.choices:
            return f"one of {', '.join(self.choices)}"
        number = "a whole number" if self.kind is int else "a number"
        return f"{number if self.count == 1 else 'two whole numbers'} from {self.least:g} to {self.most:g}"

    def fits(self, value: Any) -> bool:
        """Whether a value is such."""
        if self.count > 1:
            single = Option(self.kind, self.least, self.most)
            return (
                isinstance(value, (list, tuple)) and len(value) == self.count and all(map(single.fits, value))
            )
        if self.kind is bool or isinstance(value, bool):
            return self.kind is bool and isinstance(value, bool)
        if self.choices:
            return isinstance(value, str) and value in self.choices
        number = int if self.kind is int else (int, float)
        return isinstance(value, number) and self.least <= value <= self.most


# Options describe an architecture, and nothing else: files of weights name them, so none may lead to the
# network or to another file. The numbers are bounds of reason.
OPTIONS = {
    "input_size": Option(int, 8, 4096, count=2),
    "stride": Option(int, 1, 64),
    "unbiased": Option(bool),
    "quantise": Option(bool),
    "width": Option(int, 1, 2048),
    "zeta": Option(float, 1e-6, 1e6),
    "conditions": Option(str, choices=CONDITIONS),
    "time_input": Option(bool),
    "own_start": Option(float),
    "mistakes": Option(float),
    "patch": Option(int, 1, 512, count=2),
    "depth": Option(int, 1, 128),
    "heads": Option(int, 1, 256),
    "feedforward": Option(int, 1, 16384),
    "dropout": Option(float),
}
ENCODER_OPTIONS = {
    "depth": Option(int, 1, 128),
    "embed_dim": Option(int, 1, 8192),
    "num_heads": Option(int, 1, 256),
    "drop_path_rate": Option(float),
    "width": Option(float, 0.1, 16),
    "frozen": Option(int, 0, 17),
}


def check_options(name: str, options: Mapping[str, Any]) -> None:
    """See whether ``create_model`` can take options.

    Args:
        name: one of ``MODELS``.
        options: by name; ``encoder`` holds a mapping of those of the encoder.

    Raises:
        InputError: an unknown model or option, or a value that it cannot have.
    """
    if name not in MODELS:
        raise InputError(f"no model {name!r}; there are {', '.join(MODELS)}")
    of_encoder = options.get("encoder", {})
    if not isinstance(of_encoder, Mapping):
        raise InputError(
            f"model {name!r} cannot be made with options encoder={of_encoder!r:.80}; give them by name"
        )
    of_model = {key: value for key, value in options.items() if key != "encoder"}
    for given, known in ((of_model, OPTIONS), (of_encoder, ENCODER_OPTIONS)):
        for key, value in given.items():
            if key not in known:
                raise InputError(
                    f"model {name!r} cannot be made with options such as {key!r:.80}; "
                    f"there are {', '.join(known)}"
                )
            if not known[key].fits(value):
                raise InputError(
                    f"model {name!r} cannot be made with options {key}={value!r:.80}: it must be {known[key]}"
                )


# --- what builds models and encoders ---

Builder = Callable[..., PoseModel]
EncoderMaker = Callable[..., Encoder]  # of input_size, pretrained and the backbone's own options


def make_condition(kind: str, feature_channels: int, skeleton: Skeleton, sigma: float) -> Condition:
    """The condition of a row of Table 5, with masks ``MASK_WIDTH`` x sigma wide."""
    delta = MASK_WIDTH * sigma
    if kind == "features":
        return FeatureCondition(feature_channels)
    if kind == "keypoints":
        return KeypointCondition(feature_channels, delta)
    return StructureCondition(feature_channels, skeleton.limbs, delta, delta)


def _diffusion_pose(
    encoder: Encoder,
    skeleton: Skeleton,
    codec: HeatmapCodec,
    width: int = 128,
    zeta: float = 0.05,
    conditions: str = "full",
    time_input: bool = False,
    **training: float,
) -> DiffusionPoseVariant:
    condition = make_condition(conditions, encoder.channels, skeleton, codec.sigma)
    decoder = (TimedDecoder if time_input else StructureGuidedDecoder)(
        skeleton.num_joints, condition.channels, width
    )
    return DiffusionPoseVariant(encoder, condition, decoder, skeleton, codec, zeta, **training)


def _heatmap_model(make_head: Callable[..., nn.Module]) -> Builder:
    """A heatmap model; its head is made from the encoder's channels, the number of joints and the codec."""

    def build(encoder: Encoder, skeleton: Skeleton, codec: HeatmapCodec, **options: Any) -> HeatmapModel:
        if codec.stride != HEAD_STRIDE:
            raise InputError(f"stride {codec.stride}: this model's heatmaps have stride {HEAD_STRIDE}")
        head = make_head(encoder.channels, skeleton.num_joints, codec, **options)
        return HeatmapModel(encoder, head, skeleton, codec)

    return build


def _encoder(kind: Callable[..., Encoder], *arguments: Any, **fixed: Any) -> EncoderMaker:
    """An encoder that takes pictures of any size."""
    return lambda input_size, pretrained, **options: kind(
        *arguments, pretrained=pretrained, **fixed, **options
    )


def _vit(name: str, **defaults: Any) -> EncoderMaker:
    """A vision transformer, whose positions are made for one input size."""
    return lambda input_size, pretrained, **options: ViTEncoder(
        name, input_size, pretrained, **{**defaults, **options}
    )


def _raised(encoder: EncoderMaker) -> EncoderMaker:
    """The same encoder brought to stride 4."""
    return lambda input_size, pretrained, **options: RaisedEncoder(encoder(input_size, pretrained, **options))


HRNET_W32 = _encoder(HRNetEncoder, "hrnet_w32")
HRNET_W48 = _encoder(HRNetEncoder, "hrnet_w48")
HRNET_STAGE_3 = _encoder(HRNetEncoder, "hrnet_w48", stages=3)
HRFORMER = {size[0]: _encoder(HRFormerEncoder, size) for size in ("small", "base")}
RESNET = {depth: _encoder(LastStageEncoder, f"resnet{depth}") for depth in (50, 101, 152)}
VIT = {
    # heads and patches as ViTPose publishes them; timm's own ViT-S has 6 heads, its ViT-H patches of 14
    "s": _vit("vit_small_patch16_224.dino", num_heads=12),
    "b": _vit("vit_base_patch16_224.mae"),
    "l": _vit("vit_large_patch16_224.mae"),
    "h": _vit("vit_huge_patch14_224.mae"),
}
# pad_type "same" is how the ImageNet weights at hand for MobileNetV2 were trained
MOBILENETV2 = _encoder(PyramidEncoder, "mobilenetv2_100", 64, pad_type="same")
# Input sides in multiples of 32: on CPU in bf16, torch 2.15's 2x2 convolution of stride 2 reads beyond
# maps of odd width and gives NaN.
MOVENET = _encoder(MoveNetEncoder)
TINY = _encoder(PyramidEncoder, "test_convnext", 32)

PLAIN = _heatmap_model(lambda channels, joints, codec: coarse_head(channels, joints))
DECONVOLUTIONS = _heatmap_model(lambda channels, joints, codec: deconvolution_head(channels, joints))
CLASSIC = _heatmap_model(lambda channels, joints, codec: deconvolution_head(channels, joints, layers=2))
UNET = _heatmap_model(lambda channels, joints, codec, **options: UNetHead(channels, joints, **options))
SIMPLE = _heatmap_model(lambda channels, joints, codec: SimpleDecoder(channels, joints))
TOKENPOSE = _heatmap_model(
    lambda channels, joints, codec, **options: TokenPoseHead(
        channels, joints, codec.size, codec.size, **options
    )
)
TRANSPOSE = _heatmap_model(
    lambda channels, joints, codec, **options: TransPoseHead(channels, joints, codec.size, **options)
)

MODELS: dict[str, tuple[Builder, EncoderMaker, dict[str, Any]]] = {
    # name: (builder, encoder, default options)
    "diffusionpose_hrnet_w32": (_diffusion_pose, HRNET_W32, {}),
    "diffusionpose_hrnet_w48": (_diffusion_pose, HRNET_W48, {}),
    **{f"diffusionpose_vit_{size}": (_diffusion_pose, _raised(vit), {}) for size, vit in VIT.items()},
    **{
        f"diffusionpose_hrformer_{size}": (_diffusion_pose, encoder, {}) for size, encoder in HRFORMER.items()
    },
    "diffusionpose_resnet50": (_diffusion_pose, _encoder(PyramidEncoder, "resnet50", 128), {}),
    "diffusionpose_convnext_tiny": (_diffusion_pose, _encoder(PyramidEncoder, "convnext_tiny", 128), {}),
    "diffusionpose_convnext_base": (_diffusion_pose, _encoder(PyramidEncoder, "convnext_base", 128), {}),
    "diffusionpose_mobilenetv2": (_diffusion_pose, MOBILENETV2, {"width": 64}),
    "diffusionpose_movenet": (_diffusion_pose, MOVENET, {"width": 32}),
    "diffusionpose_tiny": (_diffusion_pose, TINY, {"width": 16, "input_size": (64, 96)}),
    "hrnet_w32": (PLAIN, HRNET_W32, {}),
    "hrnet_w48": (PLAIN, HRNET_W48, {}),
    "mobilenetv2": (PLAIN, MOBILENETV2, {}),
    "movenet": (PLAIN, MOVENET, {}),
    "hrnet_w32_unet": (UNET, HRNET_W32, {}),
    "mobilenetv2_unet": (UNET, MOBILENETV2, {"width": 64}),
    "movenet_unet": (UNET, MOVENET, {"width": 32}),
    "tiny": (PLAIN, TINY, {"input_size": (64, 96)}),
    "tiny_unet": (UNET, TINY, {"width": 16, "input_size": (64, 96)}),
    **{f"simplebaseline_r{depth}": (DECONVOLUTIONS, resnet, {}) for depth, resnet in RESNET.items()},
    "tokenpose_l": (TOKENPOSE, HRNET_STAGE_3, {}),
    "transpose_h": (TRANSPOSE, HRNET_STAGE_3, {}),
    **{f"hrformer_{size}": (PLAIN, hrformer, {}) for size, hrformer in HRFORMER.items()},
    **{f"vitpose_{size}": (CLASSIC, vit, {}) for size, vit in VIT.items()},
    **{f"vitpose_{size}_simple": (SIMPLE, vit, {}) for size, vit in VIT.items()},
}


def create_model(
    name: str,
    skeleton: Skeleton | str = CROWDPOSE,
    *,
    pretrained: bool = False,
    encoder_weights: str | Path | None = None,
    **options: Any,
) -> PoseModel:
    """A model by name, with random weights unless told otherwise.

    Args:
        name: one of ``MODELS``.
        skeleton: a skeleton, its name or its YAML file.
        pretrained: let timm download ImageNet weights of the encoder.
        encoder_weights: safetensors file of ImageNet weights of the encoder, in timm's names.
        options: of the heatmaps: ``input_size`` (width, height; 192x256), ``stride`` (the paper's s;
            4), ``unbiased`` (False), ``quantise`` (False). Of DiffusionPose: ``width`` (C; 128),
            ``zeta`` (0.05), ``conditions`` ("full", "keypoints", "features"), ``time_input`` (False),
            ``own_start`` (0), ``mistakes`` (0). Of U-Net heads: ``width``. Of the encoder: ``encoder``, a
            dict of what its backbone takes (``{"drop_path_rate": 0.3}``). Of TokenPose and TransPose what
            their heads take, such as ``patch`` and ``dropout``.

    Raises:
        InputError: an unknown name or option, or encoder weights that do not fit.
    """
    check_options(name, options)
    builder, make_encoder, defaults = MODELS[name]
    skeleton = get_skeleton(skeleton)
    rest = {"input_size": (192, 256), **defaults, **options}
    width, height = (int(side) for side in rest.pop("input_size"))
    of_encoder = rest.pop("encoder", {})
    of_codec = {key: rest.pop(key) for key in ("stride", "unbiased", "quantise") if key in rest}
    refused = f"model {name!r} cannot be made with options {options}"
    try:
        encoder = make_encoder((width, height), pretrained, **of_encoder)
    # no ValueError: a download that fails is one, and no fault of the options; timm asserts that heads fit
    except (TypeError, AssertionError) as error:
        raise InputError(f"{refused}: {error}") from error
    if encoder_weights is not None:
        encoder.load_backbone(encoder_weights)
    try:
        model = builder(encoder, skeleton, HeatmapCodec((width, height), **of_codec), **rest)
    except InputError:
        raise
    except (TypeError, ValueError) as error:
        raise InputError(f"{refused}: {error}") from error
    model.config = {
        "name": name,
        "skeleton": skeleton.to_dict(),
        "options": {**options, "input_size": [width, height]},
    }
    return model
