"""How other projects name their weights, and the strict change of names into ours.

Every weight of a file must be placed or be left out for a reason that its layout states; every weight
of our model must be given.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from diffusionpose.errors import InputError
from diffusionpose.models.encoders import PATCH

SHOWN = 12  # names listed of each kind of misfit
Tensors = Mapping[str, Tensor]
Size = tuple[int, int]  # (width, height) of the network input, pixels
Rules = tuple[tuple[str, str], ...]  # (pattern, replacement or reason)
Prepare = Callable[[Tensors, Size], Tensors]


@dataclass(frozen=True)
class Layout:
    """The names of one project's weights of one family of networks.

    Attributes:
        title: the project and network, as messages call it.
        models: pattern of the names of our models that it becomes.
        marks: patterns, for each of which a file of this layout has a name.
        names: (pattern, replacement): the first that fits a whole name gives ours.
        without: patterns for which it has none.
        left_out: (pattern, reason) of names that have no place in our model, and why.
        prepare: changes weights, under their own names, before they are renamed; None for nothing to change.
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
    prepare: Prepare | None = None
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


def place(weights: Tensors, layout: Layout, size: Size) -> Placed:
    """Rename weights of a file by the rules of its layout, for a network input of a size."""
    placed = Placed()
    for name, value in (layout.prepare(weights, size) if layout.prepare else weights).items():
        reason = next((why for pattern, why in layout.left_out if re.fullmatch(pattern, name)), None)
        rule = next((rule for rule in layout.names if re.fullmatch(rule[0], name)), None)
        if reason is not None:
            placed.left_out.setdefault(reason, []).append(name)
        elif rule is None:
            placed.left_over.append(name)
        elif (ours := re.sub(*rule, name)) in placed.tensors:
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
    tensors = placed.tensors
    faults = {
        "missing (in our names)": [
            name for name in own if name not in tensors and not name.endswith("num_batches_tracked")
        ],
        "left over": placed.left_over + [theirs for ours, (theirs, _) in tensors.items() if ours not in own],
        "of another shape": [
            f"{theirs} is {tuple(value.shape)}, must be {tuple(own[ours].shape)}"
            for ours, (theirs, value) in tensors.items()
            if ours in own and value.shape != own[ours].shape
        ],
        "twice": placed.twice,
        "not finite": [theirs for theirs, value in tensors.values() if not torch.isfinite(value).all()],
    }
    if kinds := {kind: names for kind, names in faults.items() if names}:
        counts = ", ".join(f"{len(names)} {kind}" for kind, names in kinds.items())
        lines = [f"{path}: does not fit as {what}; {counts}; is --as the right model?"]
        for kind, names in kinds.items():
            more = f", and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
            lines.append(f"  {kind}: {', '.join(names[:SHOWN])}{more}")
        raise InputError("\n".join(lines))
    return {ours: value.to(own[ours].dtype).contiguous() for ours, (_, value) in tensors.items()}


# --- HRNet and SimpleBaseline: their own repositories, mmpose 0.x and 1.x; and classifiers of ImageNet ---

HRNET = r"((?:conv[12]|bn[12]|layer1|transition[123]|stage[234])\..+)"
RESNET = r"((?:conv1|bn1|layer[1234])\..+)"
EMA = (r"ema_.+", "a second copy of all weights: mmcv keeps there those that its moving average replaced")


def _pose_layouts(
    network: str, repository: str, models: str, backbone: tuple[str, str], head: Rules, bgr: bool
) -> Iterator[Layout]:
    """The layouts of a network in three projects, which differ in what stands before the names.

    Args:
        network: its name.
        repository: of its authors.
        models: as of :class:`Layout`.
        backbone: pattern of the backbone's names, and the mark by which it is known.
        head: names of the head, and which ours are. The last one is that of the output.
        bgr: whether the authors' files are of pictures in the order blue, green, red.
    """
    names, mark = backbone
    for project, before_backbone, before_head, without in (
        (repository, "", "", ()),
        ("mmpose 0.x", r"backbone\.", r"keypoint_head\.", ()),
        ("mmpose 1.x", r"backbone\.", r"head\.", (r"keypoint_head\.",)),
    ):
        yield Layout(
            title=f"{network} of {project}",
            models=models,
            marks=(before_backbone + mark, before_head or head[0][0].removesuffix("(.+)")),
            names=(
                (before_backbone + names, r"encoder.backbone.\1"),
                *((before_head + theirs, ours) for theirs, ours in head),
            ),
            without=without,
            left_out=(EMA,) if before_backbone else (),
            # The repositories of SimpleBaseline read pictures by OpenCV and leave them in its order:
            # COLOR_RGB is false for its ResNets, and true for HRNet
            bgr=bgr and not before_backbone,
        )


HRNET_LAYOUTS = (
    *_pose_layouts(
        "HRNet",
        "deep-high-resolution-net.pytorch",
        r"hrnet_w\d+",
        (HRNET, r"stage[234]\."),
        ((r"final_layer\.(weight|bias)", r"head.\1"),),
        bgr=False,
    ),
    Layout(
        title="HRNet trained on ImageNet (timm, HRNet-Image-Classification)",
        models=r"(?:diffusionpose_)?hrnet_w\d+",
        marks=(r"stage[234]\.",),
        without=(r"final_layer\.(?:weight|bias)$",),
        names=((HRNET, r"\1"),),
        left_out=(
            (
                r"stage4\.2\.fuse_layers\.[123]\..+",
                "the coarser outputs of the last fusion, which our encoder does without",
            ),
            # incre_modules and so on in timm and the official files, head in those of the pose repository
            (
                r"(?:incre_modules|downsamp_modules|final_layer|classifier|head|fc)\..+",
                "the classifier of ImageNet",
            ),
        ),
        encoder=True,
    ),
)
SIMPLEBASELINE_LAYOUTS = (
    *_pose_layouts(
        "SimpleBaseline",
        "human-pose-estimation.pytorch or deep-high-resolution-net.pytorch",
        r"simplebaseline_r\d+",
        (RESNET, r"layer4\."),
        # three times deconvolution, BatchNorm, ReLU, and then the output: places 0 to 8 and 9 of our head
        (
            (r"deconv_layers\.([013467])\.(.+)", r"head.\1.\2"),
            (r"final_layer\.(weight|bias)", r"head.9.\1"),
        ),
        bgr=True,
    ),
    Layout(
        title="ResNet trained on ImageNet (timm, torchvision)",
        models=r"simplebaseline_r\d+|diffusionpose_resnet\d+",
        marks=(r"layer4\.",),
        without=(r"deconv_layers\.", r"final_layer\."),
        names=((RESNET, r"\1"),),
        left_out=((r"fc\.(?:weight|bias)", "the classifier of ImageNet"),),
        encoder=True,
    ),
)

# --- ViTPose: its own repository and mmpose 0.x, mmpose 1.x, transformers; and ViTs of ImageNet ---

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
CLASS_TOKEN = (
    (r"backbone\.(?:embeddings\.)?cls_token", "a class token, which the network does not use"),
    (re.escape(CLASS_POSITION), "the position of a class token, which mmpose 1.x cuts off as well"),
)


def class_position(weights: Tensors, size: Size, name: str, fold: bool) -> Tensors:
    """Take the class token's position out of the (1, 1 + patches, c) positions, where there is one.

    The network has no class token, but kept the position of the one it started from.

    Args:
        weights: of the file.
        size: (width, height) of the network input, pixels.
        name: of the positions.
        fold: add it to every patch's, as ViTPose does before its first block; else cut it off, as mmpose 1.x
            does when it loads such a file.
    """
    positions = weights.get(name)
    patches = (size[0] // PATCH) * (size[1] // PATCH)
    if positions is None or positions.ndim != 3 or positions.shape[1] != patches + 1:
        return weights
    first, rest = positions[:, :1], positions[:, 1:]
    return {**weights, name: rest + first} if fold else {**weights, name: rest, CLASS_POSITION: first}


def fuse_attention(weights: Tensors, size: Size) -> Tensors:
    """Join transformers' query, key and value into one layer; a triple with a part missing stays as it is."""
    fused = dict(weights)
    for name in weights:
        if not (match := re.fullmatch(rf"(.+\.attention\.attention\.)query\.{WB}", name)):
            continue
        parts = [f"{match[1]}{part}.{match[2]}" for part in ("query", "key", "value")]
        if all(part in weights for part in parts):
            fused[f"{match[1]}qkv.{match[2]}"] = torch.cat([fused.pop(part) for part in parts])
    return class_position(fused, size, "backbone.embeddings.position_embeddings", fold=True)


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


def _mmpose(title: str, head: str, block: str, names: Rules, fold: bool) -> tuple[Layout, Layout]:
    """mmpose's heads have the names of SimpleBaseline's."""
    base = Layout(
        title=title,
        models="",
        marks=(block, rf"{head}\."),
        names=names,
        left_out=(*CLASS_TOKEN, EMA),
        prepare=partial(class_position, name="backbone.pos_embed", fold=fold),
        unbiased=True,
    )
    deconvolutions, output = rf"{head}\.deconv_layers\.", rf"{head}\.final_layer\.{WB}"
    classic = ((rf"{deconvolutions}([0134])\.(.+)", r"head.\1.\2"), (output, r"head.6.\1"))
    return _decoders(base, deconvolutions, classic, output)


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
VITPOSE_LAYOUTS = (
    *_mmpose(
        "ViTPose of its own repository or mmpose 0.x",
        "keypoint_head",
        r"backbone\.blocks\.",
        TIMM_NAMES,
        fold=True,
    ),
    *_mmpose("ViTPose of mmpose 1.x", "head", r"backbone\.layers\.", MMPRETRAIN_NAMES, fold=False),
    *HUGGING_FACE,
    Layout(
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
    ),
)

LAYOUTS = (*HRNET_LAYOUTS, *SIMPLEBASELINE_LAYOUTS, *VITPOSE_LAYOUTS)
