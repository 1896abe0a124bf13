"""From a file of another project to a model, or to weights of an encoder, of ours."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffusionpose.errors import InputError
from diffusionpose.models.imports.layouts import (
    HUGGING_FACE,
    LAYOUTS,
    UNSUPPORTED,
    Layout,
    Placed,
    fit,
    place,
)
from diffusionpose.models.imports.reading import Checkpoint, read_checkpoint
from diffusionpose.models.pose_model import PoseModel
from diffusionpose.models.weight_files import write_safetensors
from diffusionpose.models.zoo import MODELS, create_model
from diffusionpose.skeletons import COCO, SKELETONS, Skeleton, get_skeleton

DEFAULT_SIZE = (192, 256)  # (width, height) of the network input, pixels: what most files are for
# red, green, blue in [0, 1]: all these projects normalise by them
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
FIRST_LAYERS = ("encoder.backbone.conv1.weight", "encoder.backbone.patch_embed.proj.weight")
STATED = "the file's settings, or config.json beside it, say so"
OFFSETS_UNSUPPORTED = (
    "has UDP's combined target, three maps for each joint (a heatmap and two offsets), which is not "
    "supported here; give a model trained on Gaussian heatmaps"
)
VITPOSE_WIDTHS = {384: "s", 768: "b", 1024: "l", 1280: "h"}


@dataclass(frozen=True)
class ImportedModel:
    """A pose model with the weights of a file.

    Attributes:
        model: in evaluation mode; ``model.config`` makes it again.
        layout: what the file was found to be.
        notes: one line for each thing that was decided or left out, and why.
    """

    model: PoseModel
    layout: str
    notes: list[str] = field(default_factory=list)


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

    def save(self, path: str | Path) -> None:
        """Write a file that ``Encoder.load_backbone`` reads; InputError where it cannot be written."""
        metadata = {name: ",".join(map(repr, getattr(self, name))) for name in ("mean", "std")}
        write_safetensors(Path(path), dict(self.tensors), metadata)


def import_weights(
    path: str | Path,
    name: str,
    *,
    skeleton: Skeleton | str | None = None,
    input_size: tuple[int, int] | None = None,
    unbiased: bool | None = None,
    bgr: bool | None = None,
    **options: Any,
) -> ImportedModel | ImportedEncoder:
    """Take over a file of another project: a pose model, or an encoder where it has no pose head.

    Args:
        path: a .safetensors, .pth, .pt or .bin file of one of ``LAYOUTS``.
        name: the model of ours that it becomes, or for whose encoder it is.
        skeleton: its joints, where neither the file nor their number says.
        input_size: (width, height), pixels; else what the file says, else 192x256.
        unbiased: whether it was trained in UDP geometry; else what the file says, else the layout.
        bgr: whether it was trained on pictures in the order blue, green, red; else the layout.
        options: further ones of ``create_model``.

    Raises:
        InputError: a file that cannot be read, is of no known layout, or does not fit the model.
    """
    if name not in MODELS:
        raise InputError(f"--as: no model {name!r}; there are {', '.join(MODELS)}")
    checkpoint = read_checkpoint(path)
    layout = find_layout(checkpoint)
    names = [known for known in MODELS if re.fullmatch(layout.models, known)]
    if name not in names:
        raise InputError(f"{path}: is {layout.title}; --as must be one of {', '.join(names)}, not {name!r}")
    if layout.encoder:
        for option, value in zip(
            ("--skeleton", "--input-size", "--unbiased", "--colours"),
            (skeleton, input_size, unbiased, bgr),
            strict=True,
        ):
            if value is not None:
                raise InputError(
                    f"{path}: is {layout.title}, without a pose head: leave out {option}, which means "
                    "nothing for it"
                )
        return _import_encoder(checkpoint, layout, name)
    facts, notes = _training_facts(checkpoint, layout, input_size, unbiased)
    bgr = layout.bgr if bgr is None else bgr
    model = _pose_model(checkpoint, layout, name, skeleton, bgr, {**facts, **options}, notes)
    return ImportedModel(model, layout.title, notes)


def is_vitpose(config: Mapping[str, Any]) -> bool:
    """Whether entries of a config.json are those of transformers' ViTPose."""
    return config.get("model_type") == "vitpose"


def import_vitpose(path: Path, skeleton: Skeleton | None = None) -> PoseModel:
    """The model of transformers' ViTPose, as its config.json describes it beside the weights.

    Args:
        path: of ``model.safetensors``.
        skeleton: its joints, where their number does not say.

    Raises:
        InputError: a form of ViTPose that is not known here, or weights that do not fit.
    """
    checkpoint = read_checkpoint(path)
    backbone = checkpoint.config.get("backbone_config")
    width, depth, heads = (
        backbone.get(key) if isinstance(backbone, Mapping) else None
        for key in ("hidden_size", "num_hidden_layers", "num_attention_heads")
    )
    # transformers leaves out of config.json what equals its defaults, those of the base model
    width, depth, heads = width or 768, depth or 12, heads or 12
    if width not in VITPOSE_WIDTHS or not isinstance(depth, int) or not isinstance(heads, int):
        raise InputError(
            f"{path.parent / 'config.json'}: a ViTPose of {width!r:.40} channels, {depth!r:.40} layers and "
            f"{heads!r:.40} heads; known are those of {', '.join(map(str, VITPOSE_WIDTHS))} channels"
        )
    simple = find_layout(checkpoint) is HUGGING_FACE[1]
    name = f"vitpose_{VITPOSE_WIDTHS[width]}{'_simple' if simple else ''}"
    imported = import_weights(path, name, skeleton=skeleton, encoder={"depth": depth, "num_heads": heads})
    assert isinstance(imported, ImportedModel)
    return imported.model


def find_layout(checkpoint: Checkpoint) -> Layout:
    """The one layout that the names of a file are of.

    Raises:
        InputError: none, or a network that is known and not supported.
    """
    names = list(checkpoint.tensors)
    for pattern, reason in UNSUPPORTED:
        if any(re.match(pattern, name) for name in names):
            raise InputError(f"{checkpoint.path}: is {reason}")
    fitting = [layout for layout in LAYOUTS if layout.fits(names)]
    if len(fitting) == 1:
        return fitting[0]
    raise InputError(
        f"{checkpoint.path}: of no known layout: its {len(names)} weights are called {', '.join(names[:4])}, "
        f"..; known are {'; '.join(layout.title for layout in LAYOUTS)}"
    )


def _pose_model(
    checkpoint: Checkpoint,
    layout: Layout,
    name: str,
    skeleton: Skeleton | str | None,
    bgr: bool,
    options: dict[str, Any],
    notes: list[str],
) -> PoseModel:
    placed = place(checkpoint.tensors, layout, options["input_size"])
    layer = _output_layer(placed)
    outputs = None if layer is None else len(placed.tensors[f"{layer}.weight"][1])
    kind, known = choose_skeleton(checkpoint, outputs, skeleton)
    notes += [f"joints: {kind.name} ({known})", *placed.reasons()]
    if layer is not None and _order_joints(placed, layer, kind, checkpoint):
        notes.append("outputs brought into the skeleton's order of joints")
    model = create_model(name, kind, **options)
    backbone = checkpoint.config.get("backbone_config") if layout in HUGGING_FACE else None
    theirs = backbone.get("num_attention_heads") if isinstance(backbone, Mapping) else None
    if theirs is not None and theirs != (ours := model.encoder.backbone.blocks[0].attn.num_heads):
        raise InputError(  # the weights alone do not show it
            f"{checkpoint.path}: has {theirs} attention heads (config.json beside it); {name} has {ours}"
        )
    own = {key: value for key, value in model.state_dict().items() if key not in ("mean", "std")}
    tensors = fit(placed, own, checkpoint.path, name)
    mean, std = (255 * torch.tensor(values)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))
    if bgr:
        for first in tensors.keys() & set(FIRST_LAYERS):
            tensors[first] = tensors[first].flip(1)
        mean, std = mean.flip(0), std.flip(0)  # the means of red were taken off blue
        notes.append("trained on BGR pictures: first layer and normalisation turned to take RGB")
    # `fit` was strict already; only BatchNorm's counters may be absent
    model.load_state_dict({**tensors, "mean": mean, "std": std}, strict=False)
    return model.eval()


def _import_encoder(checkpoint: Checkpoint, layout: Layout, name: str) -> ImportedEncoder:
    with torch.device("meta"):
        encoder = create_model(name).encoder.innermost
    placed = place(checkpoint.tensors, layout, DEFAULT_SIZE)
    weights = {ours: value for ours, (_, value) in placed.tensors.items()}
    # what the encoder makes of them must be all it needs; written is what it makes that of
    fitted = {ours: (placed.tensors[ours][0], value) for ours, value in encoder.fit(weights).items()}
    fit(
        replace(placed, tensors=fitted),
        encoder.backbone.state_dict(),
        checkpoint.path,
        f"the encoder of {name}",
    )
    notes, mean, std = placed.reasons(), IMAGENET_MEAN, IMAGENET_STD
    if found := _timm_normalisation(checkpoint, encoder.backbone.pretrained_cfg["architecture"]):
        mean, std = found
        notes.append(f"normalisation: mean {mean}, std {std} (config.json beside the file)")
    tensors = {ours: value.float().clone() for ours, value in weights.items()}
    return ImportedEncoder(tensors, mean, std, layout.title, notes)


Triple = tuple[float, float, float]


def _timm_normalisation(checkpoint: Checkpoint, architecture: str) -> tuple[Triple, Triple] | None:
    """(mean, std) of RGB in [0, 1] in timm's config.json; None where there is none of this architecture."""
    facts = checkpoint.config.get("pretrained_cfg")
    if checkpoint.config.get("architecture") != architecture or not isinstance(facts, dict):
        return None
    if not {"mean", "std"} <= facts.keys():
        return None
    try:
        (m_0, m_1, m_2), (s_0, s_1, s_2) = facts["mean"], facts["std"]
        return (float(m_0), float(m_1), float(m_2)), (float(s_0), float(s_1), float(s_2))
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(
            f"{checkpoint.path.parent / 'config.json'}: mean and std of pretrained_cfg must be three numbers "
            "each; mend them, or move the weights to a folder of their own"
        ) from error


# --- joints ---

ALIASES = {"top_head": "head"}  # mmpose's name of CrowdPose's joint 12 -> ours
OUTPUT = r"head\.(?:(\d+)\.|conv\.)?weight"  # of a sequence, of the simple decoder, of HRNet


def _output_layer(placed: Placed) -> str | None:
    """Our name of the convolution that gives the heatmaps (without ``.weight``); None if it is missing."""
    places = [(int(m[1] or 0), name) for name in placed.tensors if (m := re.fullmatch(OUTPUT, name))]
    return max(places)[1].removesuffix(".weight") if places else None


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


def _order_joints(placed: Placed, layer: str, skeleton: Skeleton, checkpoint: Checkpoint) -> bool:
    """Bring the outputs into the skeleton's order, where the file names its joints; whether it was another.

    Raises:
        InputError: the file names other joints than the skeleton.
    """
    if not checkpoint.joints:
        return False
    theirs, ours = (
        [ALIASES.get(joint, joint) for joint in names] for names in (checkpoint.joints, skeleton.joints)
    )
    if sorted(theirs) != sorted(ours):
        raise InputError(
            f"{checkpoint.path}: its joints are {', '.join(checkpoint.joints)}; those of skeleton "
            f"{skeleton.name!r} are {', '.join(skeleton.joints)}; give another --skeleton "
            "(a name or a YAML file)"
        )
    order = [theirs.index(joint) for joint in ours]
    for part in ("weight", "bias"):
        if (entry := placed.tensors.get(f"{layer}.{part}")) is not None and len(entry[1]) == len(order):
            placed.tensors[f"{layer}.{part}"] = (entry[0], entry[1][order])
    return order != sorted(order)


# --- what the file says of the training: the settings that mmpose writes into it as text, config.json ---

SIZE = r"\b(?:image_size|input_size)\s*=\s*[\[(]\s*(\d+)\s*,\s*(\d+)\s*[\])]"
UDP = r"\buse_udp['\"]?\s*[=:]\s*True\b|\bUDPHeatmap\b"  # `unbiased_encoding` is DARK, which is another thing
OFFSETS = r"CombinedTarget|heatmap_type\s*=\s*['\"]combined['\"]"


def _training_facts(
    checkpoint: Checkpoint, layout: Layout, input_size: tuple[int, int] | None, unbiased: bool | None
) -> tuple[dict[str, Any], list[str]]:
    """Options that the weights do not show, asked for or stated by the file; and notes on them."""
    settings, notes = checkpoint.settings, []
    if re.search(OFFSETS, settings):
        raise InputError(f"{checkpoint.path}: {OFFSETS_UNSUPPORTED}")
    if input_size is None:
        stated_size = _stated_size(checkpoint, layout)
        input_size = stated_size or DEFAULT_SIZE
        known = STATED if stated_size else "the file does not say; --input-size W H takes another"
        notes.append(f"input size: {input_size[0]}x{input_size[1]} ({known})")
    stated = bool(re.search(UDP, settings)) if settings else None
    if unbiased is None:
        unbiased, known = _geometry(checkpoint, layout, stated)
        other = "--no-unbiased" if unbiased else "--unbiased"
        known = known if stated is not None else f"{known}; the file does not say; or {other}"
        notes.append(f"geometry: {'unbiased (UDP)' if unbiased else 'that of HRNet, not UDP'} ({known})")
    elif stated is not None and stated != unbiased:
        notes.append("geometry: as asked for, although the file's settings say otherwise")
    return {"input_size": input_size, "unbiased": unbiased}, notes


def _geometry(checkpoint: Checkpoint, layout: Layout, stated: bool | None) -> tuple[bool, str]:
    """Whether a network was trained in unbiased geometry, and how it is known."""
    if stated is not None:
        return stated, STATED
    # DarkPose's repository has HRNet's and SimpleBaseline's names, but counts sizes as (pixels - 1) and
    # shifts no mirrored heatmap
    dark = any(
        "dark" in part.lower() for part in (checkpoint.path.name, checkpoint.path.absolute().parent.name)
    )
    if dark and "pytorch" in layout.title:
        return True, "DarkPose's, by the name of the file or its folder"
    return layout.unbiased, "as its project trains it"


def _stated_size(checkpoint: Checkpoint, layout: Layout) -> tuple[int, int] | None:
    """(width, height) of the network's input, pixels; None where nothing says, or several are named."""
    if layout in HUGGING_FACE and is_vitpose(checkpoint.config):
        backbone = checkpoint.config.get("backbone_config")
        size = backbone.get("image_size") if isinstance(backbone, Mapping) else None
        if isinstance(size, Sequence) and len(size) == 2 and all(isinstance(side, int) for side in size):
            return size[1], size[0]
        return None
    sizes = {(int(width), int(height)) for width, height in re.findall(SIZE, checkpoint.settings)}
    return sizes.pop() if len(sizes) == 1 else None
