"""How other projects name their weights, and the strict change of names into ours.

Every weight of a file must be placed or be left out for a reason that its layout states; every weight
of our model must be given.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from diffusionpose.errors import InputError
from diffusionpose.models.checkpoints import write_safetensors
from diffusionpose.models.heads import PATCH
from diffusionpose.models.imports.reading import Checkpoint, timm_normalisation
from diffusionpose.models.zoo import create_model
from diffusionpose.skeletons import COCO, SKELETONS, Skeleton, get_skeleton

ALIASES = {"top_head": "head"}  # mmpose's name of CrowdPose's joint 12 -> ours
OUTPUT = r"head\.(?:(\d+)\.|conv\.)?weight"  # of a sequence, of the simple decoder, of HRNet
OFFSETS_UNSUPPORTED = (
    "has UDP's combined target, three maps for each joint (a heatmap and two offsets), which is not "
    "supported here; give a model trained on Gaussian heatmaps"
)


def output_layer(placed: Placed) -> str | None:
    """Our name of the convolution that gives the heatmaps (without ``.weight``); None if it is missing."""
    places = [(int(m[1] or 0), name) for name in placed.tensors if (m := re.fullmatch(OUTPUT, name))]
    return max(places)[1].removesuffix(".weight") if places else None


def count_outputs(placed: Placed) -> int | None:
    """How many heatmaps the network gives; None where its last layer is missing."""
    layer = output_layer(placed)
    return None if layer is None else len(placed.tensors[f"{layer}.weight"][1])


def choose_skeleton(
    checkpoint: Checkpoint, outputs: int | None, wanted: Skeleton | str | None
) -> tuple[Skeleton, str]:
    """The skeleton of a network, and how it is known.

    mmpose, the official repositories and we number the joints of COCO, CrowdPose and AI Challenger alike.

    Raises:
        InputError: a number of outputs other than that of the joints, or more than one skeleton of it.
    """
    path = checkpoint.path
    if outputs is None:  # the last layer is missing, which `fit` will say; any skeleton does until then
        return COCO if wanted is None else get_skeleton(wanted), "as given"
    if wanted is not None:
        skeleton = get_skeleton(wanted)
        if outputs == 3 * skeleton.num_joints:
            raise InputError(f"{path}: {OFFSETS_UNSUPPORTED}")
        if outputs != skeleton.num_joints:
            raise InputError(
                f"{path}: gives {outputs} heatmaps, but skeleton {skeleton.name!r} has "
                f"{skeleton.num_joints} joints; give another --skeleton (a name or a YAML file)"
            )
        return skeleton, "as given"
    names = {ALIASES.get(name, name) for name in checkpoint.joints}
    alike = [s for s in SKELETONS.values() if s.num_joints == outputs]
    fitting = [s for s in alike if not names or names == {*s.joints}]
    if len(fitting) == 1:
        known = "the file names its joints" if names else f"the only one here of {outputs} joints"
        return fitting[0], known
    if any(outputs == 3 * s.num_joints for s in SKELETONS.values()):
        raise InputError(f"{path}: gives {outputs} heatmaps: probably it {OFFSETS_UNSUPPORTED}")
    several = " or ".join(s.name for s in fitting)
    what = f"of {several}" if several else "of no skeleton that comes with this package"
    named = f" ({', '.join(checkpoint.joints)})" if checkpoint.joints else ""
    raise InputError(
        f"{path}: gives {outputs} heatmaps{named}, {what}; say which joints they are by --skeleton "
        "(a name or a YAML file)"
    )


def order_joints(placed: Placed, joints: Sequence[str], skeleton: Skeleton, checkpoint: Checkpoint) -> bool:
    """Bring the outputs into the skeleton's order, where the file names its joints; whether it was another.

    Raises:
        InputError: the file names other joints than the skeleton.
    """
    layer = output_layer(placed)
    if not joints or layer is None:
        return False
    theirs = [ALIASES.get(joint, joint) for joint in joints]
    if sorted(theirs) != sorted(ALIASES.get(joint, joint) for joint in skeleton.joints):
        raise InputError(
            f"{checkpoint.path}: its joints are {', '.join(joints)}; those of skeleton {skeleton.name!r} "
            f"are {', '.join(skeleton.joints)}; give another --skeleton (a name or a YAML file)"
        )
    order = [theirs.index(ALIASES.get(joint, joint)) for joint in skeleton.joints]
    for part in ("weight", "bias"):
        if (entry := placed.tensors.get(f"{layer}.{part}")) is not None and len(entry[1]) == len(order):
            value: Tensor = entry[1][order]
            placed.tensors[f"{layer}.{part}"] = (entry[0], value)
    return order != sorted(order)


# What the settings of a training, which mmpose writes into its checkpoints as text, say about a model

SIZE = r"\b(?:image_size|input_size)\s*=\s*[\[(]\s*(\d+)\s*,\s*(\d+)\s*[\])]"
UDP = r"\buse_udp['\"]?\s*[=:]\s*True\b|\bUDPHeatmap\b"
OFFSETS = r"CombinedTarget|heatmap_type\s*=\s*['\"]combined['\"]"


def unbiased(settings: str) -> bool | None:
    """Whether they cut crops in UDP geometry; None without settings.

    ``unbiased_encoding`` and ``post_process='unbiased'`` are DARK, which is another thing.
    """
    return bool(re.search(UDP, settings)) if settings else None


def with_offsets(settings: str) -> bool:
    """Whether they train UDP's combined target: a heatmap and two maps of offsets for each joint."""
    return bool(re.search(OFFSETS, settings))


def input_size(settings: str) -> tuple[int, int] | None:
    """(width, height) of the network's input, pixels; None where they do not say or name several."""
    sizes = {(int(width), int(height)) for width, height in re.findall(SIZE, settings)}
    return sizes.pop() if len(sizes) == 1 else None


# How other projects name their weights, and the strict change of names into ours

DEFAULT_SIZE = (192, 256)  # (width, height) of the network input, pixels: what most files are for
# red, green, blue in [0, 1]: all these projects normalise by them
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SHOWN = 12  # names listed of each kind of misfit
Tensors = Mapping[str, Tensor]
Size = tuple[int, int]  # (width, height) of the network input, pixels
Rules = tuple[tuple[str, str], ...]  # (pattern, replacement or reason)
Prepare = Callable[[Tensors, Size], Tensors]


def as_it_is(given: Tensors, size: Size) -> Tensors:
    """What most layouts need to be done to their weights before they are renamed: nothing."""
    return given


@dataclass(frozen=True)
class Layout:
    """The names of one project's weights of one family of networks.

    Attributes:
        title: the project and network, as messages call it.
        models: pattern of the names of our models that it becomes.
        marks: patterns, for each of which a file of this layout has a name.
        without: patterns for which it has none.
        names: (pattern, replacement): the first that fits a whole name gives ours.
        left_out: (pattern, reason) of names that have no place in our model, and why.
        prepare: changes weights, under their own names, before they are renamed.
        unbiased: whether the project trains this network in UDP geometry.
        bgr: whether it trains it on pictures in the order blue, green, red.
        encoder: whether these are weights of an encoder, without a pose head.
    """

    title: str
    models: str
    marks: tuple[str, ...]
    names: Rules
    without: tuple[str, ...] = ()
    left_out: Rules = ()
    prepare: Prepare = as_it_is
    unbiased: bool = False
    bgr: bool = False
    encoder: bool = False

    def fits(self, names: Sequence[str]) -> bool:
        """Whether a file of these names is of this layout; some may be missing or too many."""

        def has(pattern: str) -> bool:
            return any(re.match(pattern, name) for name in names)

        return all(map(has, self.marks)) and not any(map(has, self.without))


@dataclass
class Placed:
    """Weights of a file under our names.

    Attributes:
        tensors: our name -> (name in the file, weight).
        left_out: reason -> names in the file.
        left_over: names in the file that no rule knows.
        twice: names in the file whose place another one took.
    """

    tensors: dict[str, tuple[str, Tensor]] = field(default_factory=dict)
    left_out: dict[str, list[str]] = field(default_factory=dict)
    left_over: list[str] = field(default_factory=list)
    twice: list[str] = field(default_factory=list)

    def reasons(self) -> list[str]:
        """What was left out and why, one line for each reason."""
        return [f"left out: {len(names)} weights, {reason}" for reason, names in self.left_out.items()]


def place(given: Tensors, layout: Layout, size: Size) -> Placed:
    """Rename weights of a file by the rules of its layout, for a network input of a size."""
    placed = Placed()
    for name, value in layout.prepare(given, size).items():
        reason = next((why for pattern, why in layout.left_out if re.fullmatch(pattern, name)), None)
        rule = next((rule for rule in layout.names if re.fullmatch(rule[0], name)), None)
        if reason is not None:
            placed.left_out.setdefault(reason, []).append(name)
        elif rule is None:
            placed.left_over.append(name)
        else:
            ours = re.sub(*rule, name)
            if ours in placed.tensors:
                placed.twice.append(name)
            else:
                placed.tensors[ours] = (name, value)
    return placed


def fit(placed: Placed, own: Tensors, path: Path, what: str) -> dict[str, Tensor]:
    """Weights for ``own``, all of them and no others, as float32.

    BatchNorm's ``num_batches_tracked`` may be missing: older PyTorch did not write it and nothing reads
    it where BatchNorm has a fixed momentum, as here.

    Args:
        placed: from :func:`place`.
        own: the state of our module.
        path: of the file, for messages.
        what: as which what is loaded, for messages.

    Raises:
        InputError: weights missing, left over, of another shape or not finite; lists all kinds.
    """
    given = placed.tensors
    shapes = [
        f"{theirs} is {tuple(value.shape)}, must be {tuple(own[ours].shape)}"
        for ours, (theirs, value) in given.items()
        if ours in own and value.shape != own[ours].shape
    ]
    faults = {
        "missing (in our names)": [
            name for name in own if name not in given and not name.endswith("num_batches_tracked")
        ],
        "left over": placed.left_over + [theirs for ours, (theirs, _) in given.items() if ours not in own],
        "of another shape": shapes,
        "twice": placed.twice,
        "not finite": [theirs for theirs, value in given.values() if not torch.isfinite(value).all()],
    }
    if any(faults.values()):
        raise InputError(f"{path}: does not fit as {what}; {_listing(faults)}")
    return {ours: value.to(own[ours].dtype).contiguous() for ours, (_, value) in given.items()}


def _listing(faults: Mapping[str, Sequence[str]]) -> str:
    """Counts in one line, then a line of names for every kind."""
    kinds = {kind: names for kind, names in faults.items() if names}
    counts = ", ".join(f"{len(names)} {kind}" for kind, names in kinds.items())
    lines = [f"{counts}; is --as the right model?"]
    for kind, names in kinds.items():
        more = f", and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
        lines.append(f"  {kind}: {', '.join(names[:SHOWN])}{more}")
    return "\n".join(lines)


# HRNet: the official pose and ImageNet files, timm's, and mmpose's (UDP and DARK have the same names)

BACKBONE = r"((?:conv[12]|bn[12]|layer1|transition[123]|stage[234])\..+)"
ENCODER_MODELS = r"(?:diffusionpose_)?hrnet_w\d+"
POSE_MODELS = r"hrnet_w\d+"
COARSER = (
    r"stage4\.2\.fuse_layers\.[123]\..+",
    "the coarser outputs of the last fusion, which our encoder does without",
)
CLASSIFIER = (
    # incre_modules and so on in timm and the official files, head in those of the pose repository
    r"(?:incre_modules|downsamp_modules|final_layer|classifier|head|fc)\..+",
    "the classifier of ImageNet",
)
EMA = (r"ema_.+", "a second copy of all weights: mmcv keeps there those that its moving average replaced")

OFFICIAL = Layout(
    title="HRNet of deep-high-resolution-net.pytorch",
    models=POSE_MODELS,
    marks=(r"stage[234]\.", r"final_layer\.(?:weight|bias)$"),
    names=((BACKBONE, r"encoder.backbone.\1"), (r"final_layer\.(weight|bias)", r"head.\1")),
)
MMPOSE_0 = Layout(
    title="HRNet of mmpose 0.x",
    models=POSE_MODELS,
    marks=(r"backbone\.stage[234]\.", r"keypoint_head\."),
    names=(
        (rf"backbone\.{BACKBONE}", r"encoder.backbone.\1"),
        (r"keypoint_head\.final_layer\.(weight|bias)", r"head.\1"),
    ),
    left_out=(EMA,),
)
MMPOSE_1 = Layout(
    title="HRNet of mmpose 1.x",
    models=POSE_MODELS,
    marks=(r"backbone\.stage[234]\.", r"head\."),
    without=(r"keypoint_head\.",),
    names=(
        (rf"backbone\.{BACKBONE}", r"encoder.backbone.\1"),
        (r"head\.final_layer\.(weight|bias)", r"head.\1"),
    ),
)
IMAGENET = Layout(
    title="HRNet trained on ImageNet (timm, HRNet-Image-Classification)",
    models=ENCODER_MODELS,
    marks=(r"stage[234]\.",),
    without=(r"final_layer\.(?:weight|bias)$",),
    names=((BACKBONE, r"\1"),),
    left_out=(COARSER, CLASSIFIER),
    encoder=True,
)
LAYOUTS = (OFFICIAL, MMPOSE_0, MMPOSE_1, IMAGENET)


# SimpleBaseline (ResNet and deconvolutions): the official files and mmpose's; and ResNets for ImageNet

BACKBONE_SIMPLEBASELINE = r"((?:conv1|bn1|layer[1234])\..+)"
MODELS = r"simplebaseline_r\d+"
# three times deconvolution, BatchNorm, ReLU, and then the output: places 0 to 8 and 9 of our head
DECONVOLUTIONS, OUTPUT_SIMPLEBASELINE = r"deconv_layers\.([013467])\.(.+)", r"final_layer\.(weight|bias)"

OFFICIAL_SIMPLEBASELINE = Layout(
    title="SimpleBaseline of human-pose-estimation.pytorch or deep-high-resolution-net.pytorch",
    models=MODELS,
    marks=(r"layer4\.", r"deconv_layers\."),
    names=(
        (BACKBONE_SIMPLEBASELINE, r"encoder.backbone.\1"),
        (DECONVOLUTIONS, r"head.\1.\2"),
        (OUTPUT_SIMPLEBASELINE, r"head.9.\1"),
    ),
    # The first repository reads pictures by OpenCV and leaves them in its order; the second has
    # COLOR_RGB: false in the settings of its ResNets, and true in those of HRNet.
    bgr=True,
)
MMPOSE_0_SIMPLEBASELINE = Layout(
    title="SimpleBaseline of mmpose 0.x",
    models=MODELS,
    marks=(r"backbone\.layer4\.", r"keypoint_head\."),
    names=(
        (rf"backbone\.{BACKBONE}", r"encoder.backbone.\1"),
        (rf"keypoint_head\.{DECONVOLUTIONS}", r"head.\1.\2"),
        (rf"keypoint_head\.{OUTPUT}", r"head.9.\1"),
    ),
    left_out=(EMA,),
)
MMPOSE_1_SIMPLEBASELINE = Layout(
    title="SimpleBaseline of mmpose 1.x",
    models=MODELS,
    marks=(r"backbone\.layer4\.", r"head\."),
    without=(r"keypoint_head\.",),
    names=(
        (rf"backbone\.{BACKBONE}", r"encoder.backbone.\1"),
        (rf"head\.{DECONVOLUTIONS}", r"head.\1.\2"),
        (rf"head\.{OUTPUT}", r"head.9.\1"),
    ),
)
IMAGENET_SIMPLEBASELINE = Layout(
    title="ResNet trained on ImageNet (timm, torchvision)",
    models=rf"{MODELS}|diffusionpose_resnet\d+",
    marks=(r"layer4\.",),
    without=(r"deconv_layers\.", r"final_layer\."),
    names=((BACKBONE_SIMPLEBASELINE, r"\1"),),
    left_out=((r"fc\.(?:weight|bias)", "the classifier of ImageNet"),),
    encoder=True,
)
LAYOUTS_SIMPLEBASELINE = (
    OFFICIAL_SIMPLEBASELINE,
    MMPOSE_0_SIMPLEBASELINE,
    MMPOSE_1_SIMPLEBASELINE,
    IMAGENET_SIMPLEBASELINE,
)


# ViTPose: its own repository and mmpose 0.x, mmpose 1.x, Hugging Face transformers; and ViTs for ImageNet

OURS = "encoder.backbone."
WB = r"(weight|bias)"
CLASS_POSITION = "backbone.pos_embed of the class token"
UNSUPPORTED = (
    (
        r".*\.experts\.|associate_keypoint_heads\.",
        "ViTPose for several data sets at once (ViTPose+), which is not supported; give the file of one data "
        "set, as ViTPose's tools/model_split.py makes it",
    ),
)


def fold_class_position(name: str, given: Tensors, size: Size) -> Tensors:
    """Add the class token's position to every patch's, as ViTPose does before its first block.

    The network has no class token, but kept the (1, 1 + patches, c) positions of the one it started from.
    """
    if not _has_class_position(name, given, size):
        return given
    positions = given[name]
    return {**given, name: positions[:, 1:] + positions[:, :1]}


def drop_class_position(name: str, given: Tensors, size: Size) -> Tensors:
    """Cut off the class token's position, as mmpose 1.x does when it loads a file that has one."""
    if not _has_class_position(name, given, size):
        return given
    positions = given[name]
    return {**given, name: positions[:, 1:], CLASS_POSITION: positions[:, :1]}


def _has_class_position(name: str, given: Tensors, size: Size) -> bool:
    """Whether the positions are those of every patch and one more."""
    positions = given.get(name)
    patches = (size[0] // PATCH) * (size[1] // PATCH)
    return positions is not None and positions.ndim == 3 and positions.shape[1] == patches + 1


def fuse_attention(given: Tensors, size: Size) -> Tensors:
    """Join transformers' query, key and value into one layer; a triple with a part missing stays as it is."""
    fused = dict(given)
    for name in given:
        if not (match := re.fullmatch(rf"(.+\.attention\.attention\.)query\.{WB}", name)):
            continue
        parts = [f"{match[1]}{part}.{match[2]}" for part in ("query", "key", "value")]
        if all(part in given for part in parts):
            fused[f"{match[1]}qkv.{match[2]}"] = torch.cat([fused.pop(part) for part in parts])
    return fold_class_position("backbone.embeddings.position_embeddings", fused, size)


TIMM_NAMES: Rules = (
    (
        rf"backbone\.(pos_embed|patch_embed\.proj\.{WB}|blocks\.\d+\.(?:norm[12]|attn\.(?:qkv|proj)|mlp\.fc[12])\.{WB})",
        rf"{OURS}\1",
    ),
    (rf"backbone\.last_norm\.{WB}", rf"{OURS}norm.\1"),
)
MMPRETRAIN_BLOCK = r"backbone\.layers\.(\d+)\."
MMPRETRAIN_NAMES: Rules = (
    (r"backbone\.pos_embed", rf"{OURS}pos_embed"),
    (rf"backbone\.patch_embed\.projection\.{WB}", rf"{OURS}patch_embed.proj.\1"),
    (rf"{MMPRETRAIN_BLOCK}ln([12])\.{WB}", rf"{OURS}blocks.\1.norm\2.\3"),
    (rf"{MMPRETRAIN_BLOCK}attn\.(qkv|proj)\.{WB}", rf"{OURS}blocks.\1.attn.\2.\3"),
    (rf"{MMPRETRAIN_BLOCK}ffn\.layers\.0\.0\.{WB}", rf"{OURS}blocks.\1.mlp.fc1.\2"),
    (rf"{MMPRETRAIN_BLOCK}ffn\.layers\.1\.{WB}", rf"{OURS}blocks.\1.mlp.fc2.\2"),
    (rf"backbone\.ln1\.{WB}", rf"{OURS}norm.\1"),
)
HUGGING_FACE_BLOCK = r"backbone\.encoder\.layer\.(\d+)\."
HUGGING_FACE_NAMES: Rules = (
    (r"backbone\.embeddings\.position_embeddings", rf"{OURS}pos_embed"),
    (rf"backbone\.embeddings\.patch_embeddings\.projection\.{WB}", rf"{OURS}patch_embed.proj.\1"),
    (rf"{HUGGING_FACE_BLOCK}layernorm_before\.{WB}", rf"{OURS}blocks.\1.norm1.\2"),
    (rf"{HUGGING_FACE_BLOCK}layernorm_after\.{WB}", rf"{OURS}blocks.\1.norm2.\2"),
    (rf"{HUGGING_FACE_BLOCK}attention\.attention\.qkv\.{WB}", rf"{OURS}blocks.\1.attn.qkv.\2"),
    (rf"{HUGGING_FACE_BLOCK}attention\.output\.dense\.{WB}", rf"{OURS}blocks.\1.attn.proj.\2"),
    (rf"{HUGGING_FACE_BLOCK}mlp\.fc([12])\.{WB}", rf"{OURS}blocks.\1.mlp.fc\2.\3"),
    (rf"backbone\.layernorm\.{WB}", rf"{OURS}norm.\1"),
)
HUGGING_FACE_CLASSIC: Rules = (
    (r"head\.deconv1\.weight", r"head.0.weight"),
    (r"head\.batchnorm1\.(.+)", r"head.1.\1"),
    (r"head\.deconv2\.weight", r"head.3.weight"),
    (r"head\.batchnorm2\.(.+)", r"head.4.\1"),
    (rf"head\.conv\.{WB}", r"head.6.\1"),
)
CLASS_TOKEN = (
    (r"backbone\.(?:embeddings\.)?cls_token", "a class token, which the network does not use"),
    (re.escape(CLASS_POSITION), "the position of a class token, which mmpose 1.x cuts off as well"),
)


def _decoders(base: Layout, deconvolutions: str, classic: Rules, output: str) -> tuple[Layout, Layout]:
    """The two layouts of a project, which differ in the decoder.

    Args:
        base: what both share.
        deconvolutions: pattern of the names that the classic decoder alone has.
        classic: names of the classic decoder.
        output: pattern of the names of the simple decoder's convolution.
    """
    return (
        replace(
            base,
            title=f"{base.title}, classic decoder",
            models=r"vitpose_[sblh]",
            marks=(*base.marks, deconvolutions),
            names=(*base.names, *classic),
        ),
        replace(
            base,
            title=f"{base.title}, simple decoder",
            models=r"vitpose_[sblh]_simple",
            without=(*base.without, deconvolutions),
            names=(*base.names, (output, r"head.conv.\1")),
        ),
    )


def _mmpose(title: str, head: str, block: str, names: Rules, prepare: Prepare) -> tuple[Layout, Layout]:
    """mmpose's heads have the names of SimpleBaseline's."""
    base = Layout(
        title=title,
        models="",
        marks=(block, rf"{head}\."),
        names=names,
        left_out=(*CLASS_TOKEN, EMA),
        prepare=prepare,
        unbiased=True,
    )
    deconvolutions, output = rf"{head}\.deconv_layers\.", rf"{head}\.final_layer\.{WB}"
    classic = ((rf"{deconvolutions}([0134])\.(.+)", r"head.\1.\2"), (output, r"head.6.\1"))
    return _decoders(base, deconvolutions, classic, output)


IMAGENET_VITPOSE = Layout(
    title="a vision transformer trained on ImageNet (timm, MAE)",
    models=r"vitpose_[sblh](?:_simple)?|diffusionpose_vit_[sblh]",
    marks=(r"blocks\.\d+\.", r"patch_embed\."),
    # class token and all positions stay: the encoder fits them to its input size when it takes them
    names=((r"((?:cls_token|pos_embed|patch_embed\.proj|blocks\.\d+|norm)(?:\..+)?)", r"\1"),),
    left_out=(
        (r"(?:head|fc_norm)\..+", "the classifier of ImageNet"),
        (r"(?:mask_token|decoder_.+)", "MAE's decoder, which paints hidden patches"),
    ),
    encoder=True,
)
HUGGING_FACE = _decoders(
    Layout(
        title="ViTPose of Hugging Face transformers",
        models="",
        marks=(r"backbone\.encoder\.layer\.", r"head\."),
        names=HUGGING_FACE_NAMES,
        left_out=CLASS_TOKEN,
        prepare=fuse_attention,
        unbiased=True,
    ),
    r"head\.deconv1\.",
    HUGGING_FACE_CLASSIC,
    rf"head\.conv\.{WB}",
)
LAYOUTS_VITPOSE = (
    *_mmpose(
        "ViTPose of its own repository or mmpose 0.x",
        "keypoint_head",
        r"backbone\.blocks\.",
        TIMM_NAMES,
        partial(fold_class_position, "backbone.pos_embed"),
    ),
    *_mmpose(
        "ViTPose of mmpose 1.x",
        "head",
        r"backbone\.layers\.",
        MMPRETRAIN_NAMES,
        partial(drop_class_position, "backbone.pos_embed"),
    ),
    *HUGGING_FACE,
    IMAGENET_VITPOSE,
)


# Weights of an encoder alone, such as ImageNet's: from a file of another project to one of ours


@dataclass(frozen=True)
class ImportedEncoder:
    """Weights of an encoder, in timm's names, for ``create_model(.., encoder_weights=..)``.

    Attributes:
        tensors: of the encoder's backbone.
        mean, std: by which the pictures it was trained on were normalised, of RGB in [0, 1].
        layout: what the file was found to be.
        notes: one line for each thing that was decided or left out, and why.
    """

    tensors: Mapping[str, Tensor]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    layout: str
    notes: list[str] = field(default_factory=list)


def import_encoder(checkpoint: Checkpoint, layout: Layout, name: str) -> ImportedEncoder:
    """Weights for the encoder of the model ``name``.

    Raises:
        InputError: they do not fit it.
    """
    with torch.device("meta"):
        encoder = create_model(name).encoder.innermost
    placed = place(checkpoint.tensors, layout, DEFAULT_SIZE)
    taken = {ours: value for ours, (_, value) in placed.tensors.items()}
    # what the encoder makes of them must be all it needs; written is what it makes that of
    names = {ours: theirs for ours, (theirs, _) in placed.tensors.items()}
    fitted = {ours: (names[ours], value) for ours, value in encoder.fit(taken).items()}
    own = encoder.backbone.state_dict()
    fit(replace(placed, tensors=fitted), own, checkpoint.path, f"the encoder of {name}")
    notes, mean, std = placed.reasons(), IMAGENET_MEAN, IMAGENET_STD
    if found := timm_normalisation(checkpoint.path, encoder.backbone.pretrained_cfg["architecture"]):
        mean, std = found
        notes.append(f"normalisation: mean {mean}, std {std} (config.json beside the file)")
    tensors = {ours: value.float().clone() for ours, value in taken.items()}
    return ImportedEncoder(tensors, mean, std, layout.title, notes)


def save_encoder(encoder: ImportedEncoder, path: str | Path) -> None:
    """Write a file that ``Encoder.load_backbone`` reads, whole or not at all.

    Raises:
        InputError: the file cannot be written.
    """
    metadata = {name: ",".join(map(repr, getattr(encoder, name))) for name in ("mean", "std")}
    write_safetensors(Path(path), dict(encoder.tensors), metadata)
