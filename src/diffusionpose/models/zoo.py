"""Every model by name: the only file that knows them all.

A model is a function from a skeleton and options to a :class:`PoseModel`. ``create_model`` calls
it and notes name, skeleton and options in ``model.config``, so that a checkpoint can make it again.
"""

from __future__ import annotations

from collections.abc import Callable
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
    HRNetStage3Encoder,
    LastStageEncoder,
    MoveNetEncoder,
    PyramidEncoder,
    RaisedEncoder,
)
from diffusionpose.models.heads import (
    SimpleDecoder,
    TokenPoseHead,
    TransPoseHead,
    UNetHead,
    ViTEncoder,
    deconvolution_head,
)
from diffusionpose.models.hrformer import HRFormerEncoder
from diffusionpose.models.pose_model import HeatmapModel, PoseModel, coarse_head
from diffusionpose.models.variants import DiffusionPoseVariant, TimedDecoder
from diffusionpose.skeletons import CROWDPOSE, Skeleton, get_skeleton

CONDITIONS = ("features", "keypoints", "full")  # the rows of Table 5
MASK_WIDTH = 2.0  # delta_kps and delta_ske in units of the heatmaps' sigma

HEAD_STRIDE = 4  # input pixels per pixel of a heatmap model's output

Builder = Callable[..., PoseModel]
EncoderMaker = Callable[..., Encoder]  # of input_size, pretrained and the backbone's own options


def make_condition(kind: str, feature_channels: int, skeleton: Skeleton, sigma: float) -> Condition:
    """The condition of a row of Table 5, with masks ``MASK_WIDTH`` x sigma wide."""
    delta = MASK_WIDTH * sigma
    if kind == "features":
        return FeatureCondition(feature_channels)
    if kind == "keypoints":
        return KeypointCondition(feature_channels, delta)
    if kind == "full":
        return StructureCondition(feature_channels, skeleton.limbs, delta, delta)
    raise InputError(f"conditions {kind!r} is not one of {', '.join(CONDITIONS)}")


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


def _heatmap_model(head: Callable[..., nn.Module]) -> Builder:
    """A heatmap model; its head is made from the encoder's channels, the number of joints and the codec."""

    def build(encoder: Encoder, skeleton: Skeleton, codec: HeatmapCodec, **options: Any) -> HeatmapModel:
        if codec.stride != HEAD_STRIDE:
            raise InputError(f"stride {codec.stride}: this model's heatmaps have stride {HEAD_STRIDE}")
        made = head(encoder.channels, skeleton.num_joints, codec, **options)
        return HeatmapModel(encoder, made, skeleton, codec)

    return build


def _encoder(kind: Callable[..., Encoder], *arguments: Any, **defaults: Any) -> EncoderMaker:
    """An encoder that takes pictures of any size."""
    return lambda input_size, pretrained, **options: kind(
        *arguments, pretrained=pretrained, **{**defaults, **options}
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
HRNET_STAGE_3 = _encoder(HRNetStage3Encoder, "hrnet_w48")
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
    # name: (builder, encoder, defaults of the builder)
    "diffusionpose_hrnet_w32": (_diffusion_pose, HRNET_W32, {}),
    "diffusionpose_hrnet_w48": (_diffusion_pose, HRNET_W48, {}),
    **{f"diffusionpose_vit_{size}": (_diffusion_pose, _raised(vit), {}) for size, vit in VIT.items()},
    **{f"diffusionpose_hrformer_{size}": (_diffusion_pose, made, {}) for size, made in HRFORMER.items()},
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
    if name not in MODELS:
        raise InputError(f"no model {name!r}; there are {', '.join(MODELS)}")
    skeleton = get_skeleton(skeleton)
    given = {"input_size": (192, 256), **MODELS[name][2], **options}
    width, height = given["input_size"] = tuple(int(side) for side in given["input_size"])
    model = _made(name, skeleton, given, pretrained, encoder_weights)
    model.config = {
        "name": name,
        "skeleton": skeleton.to_dict(),
        "options": {**options, "input_size": [width, height]},
    }
    return model


def _made(
    name: str,
    skeleton: Skeleton,
    options: dict[str, Any],
    pretrained: bool,
    encoder_weights: str | Path | None,
) -> PoseModel:
    """The model of all its options, sorted out among encoder, codec and builder."""
    builder, make_encoder, _ = MODELS[name]
    rest = dict(options)
    size, encoder_options = rest.pop("input_size"), rest.pop("encoder", {})
    codec_options = {key: rest.pop(key) for key in ("stride", "unbiased", "quantise") if key in rest}
    refused = f"model {name!r} cannot be made with options {options}"
    try:
        encoder = make_encoder(size, pretrained, **encoder_options)
    # no ValueError: a download that fails is one, and no fault of the options; timm asserts that heads fit
    except (TypeError, AssertionError) as error:
        raise InputError(f"{refused}: {error}") from error
    if encoder_weights is not None:
        encoder.load_backbone(encoder_weights)
    try:
        return builder(encoder, skeleton, HeatmapCodec(size, **codec_options), **rest)
    except InputError:
        raise
    except (TypeError, ValueError) as error:
        raise InputError(f"{refused}: {error}") from error
