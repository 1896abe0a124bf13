"""Every model by name: the only file that knows them all.

A model is a function from a skeleton and options to a :class:`PoseModel`. ``create_model`` calls
it and notes name, skeleton and options in ``model.config``, so that a checkpoint can make it again.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from diffusionpose.errors import InputError
from diffusionpose.geometry.codec import HeatmapCodec
from diffusionpose.models.condition import Condition, FeatureCondition, KeypointCondition, StructureCondition
from diffusionpose.models.diffusion_pose import DiffusionPose
from diffusionpose.models.encoders import Encoder, HRNetEncoder, LastStageEncoder, PyramidEncoder
from diffusionpose.models.heatmap_model import HeatmapModel, coarse_head, deconvolution_head
from diffusionpose.models.pose_model import PoseModel
from diffusionpose.models.sgdd import StructureGuidedDecoder
from diffusionpose.skeletons import CROWDPOSE, Skeleton, get_skeleton

CONDITIONS = ("features", "keypoints", "full")  # the rows of Table 5
MASK_WIDTH = 2.0  # delta_kps and delta_ske in units of the heatmaps' sigma

Builder = Callable[..., PoseModel]


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
) -> DiffusionPose:
    condition = make_condition(conditions, encoder.channels, skeleton, codec.sigma)
    decoder = StructureGuidedDecoder(skeleton.num_joints, condition.channels, width, time_input)
    return DiffusionPose(encoder, condition, decoder, skeleton, codec, zeta)


def _heatmap_model(encoder: Encoder, skeleton: Skeleton, codec: HeatmapCodec) -> HeatmapModel:
    return HeatmapModel(encoder, coarse_head(encoder.channels, skeleton.num_joints), skeleton, codec)


def _simple_baseline(encoder: Encoder, skeleton: Skeleton, codec: HeatmapCodec) -> HeatmapModel:
    head = deconvolution_head(encoder.channels, skeleton.num_joints)
    return HeatmapModel(encoder, head, skeleton, codec)


def _hrnet(width: int) -> Callable[[bool], Encoder]:
    return lambda pretrained: HRNetEncoder(f"hrnet_w{width}", pretrained)


def _resnet(depth: int) -> Callable[[bool], Encoder]:
    return lambda pretrained: LastStageEncoder(f"resnet{depth}", pretrained)


def _mobilenetv2(pretrained: bool) -> Encoder:
    # pad_type "same" is how the bundled ImageNet weights were trained
    return PyramidEncoder("mobilenetv2_100", 64, pretrained, pad_type="same")


def _tiny(pretrained: bool) -> Encoder:
    # Input sides in multiples of 32: on CPU in bf16, torch 2.15's 2x2 convolution of stride 2 reads
    # beyond maps of odd width and gives NaN.
    return PyramidEncoder("test_convnext", 32, pretrained)


MODELS: dict[str, tuple[Builder, Callable[[bool], Encoder], dict[str, Any]]] = {
    # name: (builder, encoder, defaults of the builder)
    "diffusionpose_hrnet_w32": (_diffusion_pose, _hrnet(32), {}),
    "diffusionpose_hrnet_w48": (_diffusion_pose, _hrnet(48), {}),
    "diffusionpose_mobilenetv2": (_diffusion_pose, _mobilenetv2, {"width": 64}),
    "diffusionpose_tiny": (_diffusion_pose, _tiny, {"width": 16, "input_size": (64, 96)}),
    "hrnet_w32": (_heatmap_model, _hrnet(32), {}),
    "hrnet_w48": (_heatmap_model, _hrnet(48), {}),
    "mobilenetv2": (_heatmap_model, _mobilenetv2, {}),
    "tiny": (_heatmap_model, _tiny, {"input_size": (64, 96)}),
    "simplebaseline_r50": (_simple_baseline, _resnet(50), {}),
    "simplebaseline_r101": (_simple_baseline, _resnet(101), {}),
    "simplebaseline_r152": (_simple_baseline, _resnet(152), {}),
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
            ``zeta`` (0.05), ``conditions`` ("full", "keypoints", "features"), ``time_input`` (False).

    Raises:
        InputError: an unknown name or option, or encoder weights that do not fit.
    """
    if name not in MODELS:
        raise InputError(f"no model {name!r}; there are {', '.join(MODELS)}")
    builder, make_encoder, defaults = MODELS[name]
    skeleton = get_skeleton(skeleton)
    given = {"input_size": (192, 256), **defaults, **options}
    width, height = (int(side) for side in given.pop("input_size"))
    codec_options = {key: given.pop(key) for key in ("stride", "unbiased", "quantise") if key in given}
    encoder = make_encoder(pretrained)
    if encoder_weights is not None:
        encoder.load_backbone(encoder_weights)
    try:
        model = builder(encoder, skeleton, HeatmapCodec((width, height), **codec_options), **given)
    except (TypeError, ValueError) as error:
        raise InputError(f"model {name!r} cannot be made with options {options}: {error}") from error
    options["input_size"] = [width, height]
    model.config = {"name": name, "skeleton": skeleton.to_dict(), "options": options}
    return model
