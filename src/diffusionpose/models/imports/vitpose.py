"""ViTPose: its own repository and mmpose 0.x, mmpose 1.x, Hugging Face transformers; and ViTs for ImageNet.

Each with both decoders: the classic one has two deconvolutions, the simple one only a 3x3 convolution.
All of them train in UDP geometry.
"""

from __future__ import annotations

import re
from dataclasses import replace
from functools import partial

import torch

from diffusionpose.models.baselines.vitpose import PATCH
from diffusionpose.models.imports.hrnet import EMA
from diffusionpose.models.imports.layouts import Layout, Prepare, Rules, Size, Tensors

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


IMAGENET = Layout(
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
LAYOUTS = (
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
    IMAGENET,
)
