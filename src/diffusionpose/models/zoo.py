"""Every model by name: the only file that knows them all.

A model is made by a function of its encoder, skeleton, codec and options. ``create_model`` calls it and notes
name, skeleton and options in ``model.config``, so that a checkpoint can make it again.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from diffusionpose.errors import InputError
from diffusionpose.geometry import HeatmapCodec
from diffusionpose.models import encoders, heads
from diffusionpose.models.diffusion_pose import StructureCondition, StructureGuidedDecoder
from diffusionpose.models.encoders import Encoder
from diffusionpose.models.hrformer import HRFormerEncoder
from diffusionpose.models.i2r import I2RNet
from diffusionpose.models.pose_model import HeatmapModel, PoseModel, coarse_head
from diffusionpose.models.refiners import OPECNet, PoseFix
from diffusionpose.models.variants import DiffusionPoseVariant, TimedDecoder
from diffusionpose.skeletons import CROWDPOSE, Skeleton, get_skeleton

CONDITIONS = ("features", "keypoints", "full")  # the rows of Table 5
MASK_WIDTH = 2.0  # delta_kps and delta_ske in units of the heatmaps' sigma
HEAD_STRIDE = 4  # input pixels per pixel of a heatmap model's output

Option = tuple[str, Callable[[Any], bool]]  # what a value must be, in words and as a test


def _number(least: float, most: float, kind: type | tuple[type, ...] = (int, float)) -> Option:
    def fits(value: Any) -> bool:
        is_number = isinstance(value, kind) and not isinstance(value, bool)
        return is_number and bool(least <= value <= most)

    return f"{'a whole number' if kind is int else 'a number'} from {least:g} to {most:g}", fits


def _whole(least: int, most: int) -> Option:
    return _number(least, most, int)


def _pair(least: int, most: int) -> Option:
    _, fits = _whole(least, most)
    return (
        f"two whole numbers from {least} to {most}",
        lambda value: isinstance(value, (list, tuple)) and len(value) == 2 and all(map(fits, value)),
    )


SHARE = _number(0, 1)
FLAG: Option = "true or false", lambda value: isinstance(value, bool)

# Options describe an architecture, and nothing else: files of weights name them, so none may lead to the
# network or to another file. The numbers are bounds of reason.
OPTIONS: dict[str, Option] = {
    "input_size": _pair(8, 4096),
    "stride": _whole(1, 64),
    "unbiased": FLAG,
    "quantise": FLAG,
    "width": _whole(1, 2048),
    "zeta": _number(1e-6, 1e6),
    "conditions": (
        f"one of {', '.join(CONDITIONS)}",
        lambda value: isinstance(value, str) and value in CONDITIONS,
    ),
    "time_input": FLAG,
    "own_start": SHARE,
    "mistakes": SHARE,
    "patch": _pair(1, 512),
    "depth": _whole(1, 128),
    "heads": _whole(1, 256),
    "feedforward": _whole(1, 16384),
    "dropout": SHARE,
    "neighbours": FLAG,
}
ENCODER_OPTIONS: dict[str, Option] = {
    "depth": _whole(1, 128),
    "embed_dim": _whole(1, 8192),
    "num_heads": _whole(1, 256),
    "drop_path_rate": SHARE,
    "width": _number(0.1, 16),
    "frozen": _whole(0, 17),
}


def check_options(name: str, options: Mapping[str, Any]) -> None:
    """InputError where ``create_model`` cannot take the options, or knows no model of the name."""
    if name not in MODELS:
        raise InputError(f"no model {name!r}; there are {', '.join(MODELS)}")
    of_model, of_encoder = dict(options), options.get("encoder", {})
    of_model.pop("encoder", None)
    refused = f"model {name!r} cannot be made with options"
    if not isinstance(of_encoder, Mapping):
        raise InputError(f"{refused} encoder={of_encoder!r:.80}; give them by name")
    for given, known in ((of_model, OPTIONS), (of_encoder, ENCODER_OPTIONS)):
        for key, value in given.items():
            if key not in known:
                raise InputError(f"{refused} such as {key!r:.80}; there are {', '.join(known)}")
            must_be, fits = known[key]
            if not fits(value):
                raise InputError(f"{refused} {key}={value!r:.80}: it must be {must_be}")


# --- what builds models and encoders ---

Builder = Callable[..., PoseModel]
EncoderMaker = Callable[..., Encoder]  # of input_size, pretrained and the backbone's own options


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
    delta = MASK_WIDTH * codec.sigma
    condition = StructureCondition(encoder.channels, skeleton.limbs, delta, delta, conditions)
    decoder = (TimedDecoder if time_input else StructureGuidedDecoder)(
        skeleton.num_joints, condition.channels, width
    )
    return DiffusionPoseVariant(encoder, condition, decoder, skeleton, codec, zeta, **training)


def _heatmap_model(
    make_head: Callable[..., nn.Module],
    kind: Callable[..., PoseModel] = HeatmapModel,
    sized: bool = False,
    **fixed: Any,
) -> Builder:
    """A heatmap model; its head takes encoder channels, joints and, if ``sized``, the size of the maps."""

    def build(encoder: Encoder, skeleton: Skeleton, codec: HeatmapCodec, **options: Any) -> PoseModel:
        if codec.stride != HEAD_STRIDE:
            raise InputError(f"stride {codec.stride}: this model's heatmaps have stride {HEAD_STRIDE}")
        size = [codec.size] if sized else []
        head = make_head(encoder.channels, skeleton.num_joints, *size, **{**fixed, **options})
        return kind(encoder, head, skeleton, codec)

    return build


def _encoder(kind: Callable[..., Encoder], *arguments: Any, **fixed: Any) -> EncoderMaker:
    """An encoder; a vision transformer's positions are made for one input size, others take any."""

    def make(input_size: tuple[int, int], pretrained: bool, **options: Any) -> Encoder:
        size = (input_size,) if kind is encoders.ViTEncoder else ()
        return kind(*arguments, *size, pretrained=pretrained, **{**fixed, **options})

    return make


def _raised(encoder: EncoderMaker) -> EncoderMaker:
    """The same encoder brought to stride 4."""
    return lambda *arguments, **options: encoders.RaisedEncoder(encoder(*arguments, **options))


HRNET_W32 = _encoder(encoders.HRNetEncoder, "hrnet_w32")
HRNET_W48 = _encoder(encoders.HRNetEncoder, "hrnet_w48")
HRNET_STAGE_3 = _encoder(encoders.HRNetEncoder, "hrnet_w48", stages=3)
HRNET_COARSE = _encoder(encoders.HRNetEncoder, "hrnet_w48", stages=3, branch=2)
HRFORMER = {size[0]: _encoder(HRFormerEncoder, size) for size in ("small", "base")}
RESNET = {depth: _encoder(encoders.LastStageEncoder, f"resnet{depth}") for depth in (50, 101, 152)}
VIT = {
    # heads and patches as ViTPose publishes them; timm's own ViT-S has 6 heads, its ViT-H patches of 14
    "s": _encoder(encoders.ViTEncoder, "vit_small_patch16_224.dino", num_heads=12),
    "b": _encoder(encoders.ViTEncoder, "vit_base_patch16_224.mae"),
    "l": _encoder(encoders.ViTEncoder, "vit_large_patch16_224.mae"),
    "h": _encoder(encoders.ViTEncoder, "vit_huge_patch14_224.mae"),
}
# pad_type "same" is how the ImageNet weights at hand for MobileNetV2 were trained
MOBILENETV2 = _encoder(encoders.PyramidEncoder, "mobilenetv2_100", 64, pad_type="same")
# Input sides in multiples of 32: on CPU in bf16, torch 2.15's 2x2 convolution of stride 2 reads beyond
# maps of odd width and gives NaN.
MOVENET = _encoder(encoders.MoveNetEncoder)
TINY = _encoder(encoders.PyramidEncoder, "test_convnext", 32)
MOBILENETV2_LAST = _encoder(encoders.LastStageEncoder, "mobilenetv2_100", pad_type="same")
TINY_LAST = _encoder(encoders.LastStageEncoder, "test_convnext")

PLAIN, PLAIN_POSEFIX = (_heatmap_model(coarse_head, kind) for kind in (HeatmapModel, PoseFix))
DECONVOLUTIONS, POSEFIX, OPECNET = (
    _heatmap_model(heads.deconvolution_head, kind) for kind in (HeatmapModel, PoseFix, OPECNet)
)
CLASSIC = _heatmap_model(heads.deconvolution_head, layers=2)
UNET, SIMPLE = _heatmap_model(heads.UNetHead), _heatmap_model(heads.SimpleDecoder)
TOKENPOSE, TRANSPOSE = (
    _heatmap_model(head, sized=True) for head in (heads.TokenPoseHead, heads.TransPoseHead)
)

MODELS: dict[str, tuple[Builder, EncoderMaker, dict[str, Any]]] = {
    # name: (builder, encoder, default options)
    "diffusionpose_hrnet_w32": (_diffusion_pose, HRNET_W32, {}),
    "diffusionpose_hrnet_w48": (_diffusion_pose, HRNET_W48, {}),
    **{f"diffusionpose_vit_{size}": (_diffusion_pose, _raised(vit), {}) for size, vit in VIT.items()},
    **{
        f"diffusionpose_hrformer_{size}": (_diffusion_pose, encoder, {}) for size, encoder in HRFORMER.items()
    },
    "diffusionpose_resnet50": (_diffusion_pose, _encoder(encoders.PyramidEncoder, "resnet50", 128), {}),
    "diffusionpose_convnext_tiny": (
        _diffusion_pose,
        _encoder(encoders.PyramidEncoder, "convnext_tiny", 128),
        {},
    ),
    "diffusionpose_convnext_base": (
        _diffusion_pose,
        _encoder(encoders.PyramidEncoder, "convnext_base", 128),
        {},
    ),
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
    "posefix_r152": (POSEFIX, RESNET[152], {}),
    "posefix_mobilenetv2": (PLAIN_POSEFIX, MOBILENETV2, {}),
    "posefix_movenet": (PLAIN_POSEFIX, MOVENET, {}),
    "posefix_tiny": (PLAIN_POSEFIX, TINY, {"input_size": (64, 96)}),
    "opecnet_r101": (OPECNET, RESNET[101], {}),
    "opecnet_mobilenetv2": (OPECNET, MOBILENETV2_LAST, {"width": 64}),
    "opecnet_tiny": (OPECNET, TINY_LAST, {"width": 16, "input_size": (64, 96)}),
    "tokenpose_l": (TOKENPOSE, HRNET_STAGE_3, {}),
    "transpose_h": (TRANSPOSE, HRNET_STAGE_3, {}),
    "i2rnet_hrnet_w48": (I2RNet, HRNET_COARSE, {}),
    "i2rnet_transpose_h": (I2RNet, HRNET_STAGE_3, {}),
    "i2rnet_mobilenetv2": (I2RNet, MOBILENETV2, {}),
    "i2rnet_movenet": (I2RNet, MOVENET, {}),
    "i2rnet_tiny": (I2RNet, TINY, {"width": 16, "feedforward": 32, "input_size": (64, 96)}),
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
        options: of ``OPTIONS``. Of the heatmaps: ``input_size`` (width, height; 192x256), ``stride`` (the
            paper's s; 4), ``unbiased`` (False), ``quantise`` (False). Of DiffusionPose: ``width`` (C; 128),
            ``zeta`` (0.05), ``conditions`` ("full", "keypoints", "features"), ``time_input``, ``own_start``,
            ``mistakes``. Of other heads what they take. Of the encoder: ``encoder``, a dict of what its
            backbone takes (``{"drop_path_rate": 0.3}``).

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
