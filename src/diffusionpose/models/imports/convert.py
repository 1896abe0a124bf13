"""From a file of another project to a model, or to weights of an encoder, of ours."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffusionpose.errors import InputError
from diffusionpose.models.imports.layouts import LAYOUTS, UNSUPPORTED, Layout, fit, place
from diffusionpose.models.imports.reading import Checkpoint, read_checkpoint
from diffusionpose.models.pose_model import PoseModel
from diffusionpose.models.weight_files import three_numbers, write_safetensors
from diffusionpose.models.zoo import MODELS, create_model
from diffusionpose.skeletons import SKELETONS, Skeleton, get_skeleton

DEFAULT_SIZE = (192, 256)  # (width, height) of the network input, pixels: what most files are for
Triple = tuple[float, float, float]  # red, green, blue in [0, 1]
IMAGENET_MEAN: Triple = (0.485, 0.456, 0.406)  # by which all these projects normalise
IMAGENET_STD: Triple = (0.229, 0.224, 0.225)
FIRST_LAYERS = ("encoder.backbone.conv1.weight", "encoder.backbone.patch_embed.proj.weight")
STATED = "the file's settings, or config.json beside it, say so"
OFFSETS_UNSUPPORTED = (
    "has UDP's combined target, three maps for each joint (a heatmap and two offsets), which is not "
    "supported here; give a model trained on Gaussian heatmaps"
)
VITPOSE_WIDTHS = {384: "s", 768: "b", 1024: "l", 1280: "h"}


@dataclass(frozen=True)
class ImportedModel:
    """A pose model with the weights of a file."""

    model: PoseModel  # in evaluation mode
    layout: str  # what the file was found to be
    notes: list[str]  # one line for each thing that was decided or left out, and why


@dataclass(frozen=True)
class ImportedEncoder:
    """Weights of an encoder's backbone, in timm's names, for ``create_model(.., encoder_weights=..)``."""

    tensors: dict[str, Tensor]
    mean: Triple  # of the pictures it was trained on
    std: Triple
    layout: str  # as of :class:`ImportedModel`
    notes: list[str]

    def save(self, path: str | Path) -> None:
        """Write a file that ``Encoder.load_backbone`` reads; InputError where it cannot be written."""
        metadata = {name: ",".join(map(repr, getattr(self, name))) for name in ("mean", "std")}
        write_safetensors(Path(path), self.tensors, metadata)


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
    names = [known for known in MODELS if any(fnmatchcase(known, model) for model in layout.models)]
    if name not in names:
        raise InputError(f"{path}: is {layout.title}; --as must be one of {', '.join(names)}, not {name!r}")
    if layout.encoder:
        asked = {"--skeleton": skeleton, "--input-size": input_size, "--unbiased": unbiased, "--colours": bgr}
        if useless := [option for option, value in asked.items() if value is not None]:
            raise InputError(f"{path}: is {layout.title}, without a pose head: leave out {useless[0]}")
        return _import_encoder(checkpoint, layout, name)
    facts, notes = _training_facts(checkpoint, layout, input_size, unbiased)
    bgr = layout.bgr if bgr is None else bgr
    model = _pose_model(checkpoint, layout, name, skeleton, bgr, {**facts, **options}, notes)
    return ImportedModel(model, layout.title, notes)


def import_vitpose(path: Path, skeleton: Skeleton | None = None) -> PoseModel:
    """The model of transformers' ViTPose, as config.json describes it beside the weights at ``path``.

    Raises:
        InputError: a form of ViTPose that is not known here, or weights that do not fit.
    """
    checkpoint = read_checkpoint(path)
    layout = find_layout(checkpoint)
    # transformers leaves out of config.json what equals its defaults, those of the base model
    config = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12}
    config |= _vitpose_config(checkpoint, layout)
    width, depth, heads = (config[key] for key in ("hidden_size", "num_hidden_layers", "num_attention_heads"))
    if width not in VITPOSE_WIDTHS or not isinstance(depth, int) or not isinstance(heads, int):
        raise InputError(
            f"{path.parent / 'config.json'}: a ViTPose of {width!r:.40} channels, {depth!r:.40} layers and "
            f"{heads!r:.40} heads; known are those of {', '.join(map(str, VITPOSE_WIDTHS))} channels"
        )
    name = f"vitpose_{VITPOSE_WIDTHS[width]}{'_simple' if 'simple' in layout.title else ''}"
    imported = import_weights(path, name, skeleton=skeleton, encoder={"depth": depth, "num_heads": heads})
    assert isinstance(imported, ImportedModel)
    return imported.model


def _vitpose_config(checkpoint: Checkpoint, layout: Layout) -> Mapping[str, Any]:
    """What the config.json of transformers' ViTPose says of the backbone."""
    backbone = checkpoint.config.get("backbone_config")
    return backbone if "transformers" in layout.title and isinstance(backbone, Mapping) else {}


def find_layout(checkpoint: Checkpoint) -> Layout:
    """The one layout that the names of a file are of.

    Raises:
        InputError: none, or a network that is known and not supported.
    """
    names = list(checkpoint.tensors)
    for pattern, reason in UNSUPPORTED.items():
        if any(fnmatchcase(name, pattern) for name in names):
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
    _, output = placed.tensors[f"{layout.output}.weight"]
    kind, known = _choose_skeleton(checkpoint, len(output), skeleton)
    notes += [f"joints: {kind.name} ({known})", *placed.reasons()]
    model = create_model(name, kind, **options)
    theirs = _vitpose_config(checkpoint, layout).get("num_attention_heads")
    if theirs is not None and theirs != (ours := model.encoder.backbone.blocks[0].attn.num_heads):
        raise InputError(  # the weights alone do not show it
            f"{checkpoint.path}: has {theirs} attention heads (config.json beside it); {name} has {ours}"
        )
    own = {key: value for key, value in model.state_dict().items() if key not in ("mean", "std")}
    tensors = fit(placed, own, checkpoint.path, name)
    if checkpoint.joints and checkpoint.joints != kind.joints:
        order = [checkpoint.joints.index(joint) for joint in kind.joints]
        for part in (f"{layout.output}.weight", f"{layout.output}.bias"):
            tensors[part] = tensors[part][order]
        notes.append("outputs brought into the skeleton's order of joints")
    mean, std = (255 * torch.tensor(values)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))
    if bgr:
        for first in tensors.keys() & set(FIRST_LAYERS):
            tensors[first] = tensors[first].flip(1)
        mean, std = mean.flip(0), std.flip(0)  # the means of red were taken off blue
        notes.append("trained on BGR pictures: first layer and normalisation turned to take RGB")
    # `fit` was strict already; only BatchNorm's counters may be absent
    model.load_state_dict({**tensors, "mean": mean, "std": std}, strict=False)
    return model.eval()


def _choose_skeleton(
    checkpoint: Checkpoint, outputs: int, wanted: Skeleton | str | None
) -> tuple[Skeleton, str]:
    """The skeleton of a network, and how it is known.

    mmpose, the official repositories and we number the joints of COCO, CrowdPose and AI Challenger alike.
    """
    says, cure = f"{checkpoint.path}: gives {outputs} heatmaps", "--skeleton (a name or a YAML file)"
    joints, named = checkpoint.joints, ", ".join(checkpoint.joints)
    candidates = [*SKELETONS.values()] if wanted is None else [get_skeleton(wanted)]
    alike = [one for one in candidates if one.num_joints == outputs]
    fitting = [one for one in alike if not joints or sorted(joints) == sorted(one.joints)]
    if len(fitting) == 1:
        by_file = "the file names its joints" if joints else f"the only one here of {outputs} joints"
        return fitting[0], by_file if wanted is None else "as given"
    if any(outputs == 3 * one.num_joints for one in candidates):
        raise InputError(f"{says}: probably it {OFFSETS_UNSUPPORTED}")
    if wanted is None:
        what = " or ".join(one.name for one in fitting) or "no skeleton that comes with this package"
        named = f" ({named})" if named else ""
        raise InputError(f"{says}{named}, of {what}; say which joints they are by {cure}")
    (own,) = candidates
    if alike:
        raise InputError(
            f"{checkpoint.path}: its joints are {named}; those of skeleton {own.name!r} are "
            f"{', '.join(own.joints)}; give another {cure}"
        )
    raise InputError(f"{says}, but skeleton {own.name!r} has {own.num_joints} joints; give another {cure}")


def _import_encoder(checkpoint: Checkpoint, layout: Layout, name: str) -> ImportedEncoder:
    with torch.device("meta"):
        encoder = create_model(name).encoder.innermost
    placed = place(checkpoint.tensors, layout, DEFAULT_SIZE)
    weights = {ours: value for ours, (_, value) in placed.tensors.items()}
    # what the encoder makes of them must be all it needs; written is what it makes that of
    fitted = {ours: (placed.tensors[ours][0], value) for ours, value in encoder.fit(weights).items()}
    own, what = encoder.backbone.state_dict(), f"the encoder of {name}"
    fit(replace(placed, tensors=fitted), own, checkpoint.path, what)
    notes, mean, std = placed.reasons(), IMAGENET_MEAN, IMAGENET_STD
    config, facts = checkpoint.config, checkpoint.config.get("pretrained_cfg")  # timm's
    same = config.get("architecture") == encoder.backbone.pretrained_cfg["architecture"]
    if same and isinstance(facts, dict) and {"mean", "std"} <= facts.keys():
        try:
            mean, std = (three_numbers(",".join(map(str, facts[key]))) for key in ("mean", "std"))
        except (TypeError, ValueError) as error:
            raise InputError(
                f"{checkpoint.path.parent / 'config.json'}: mean and std of pretrained_cfg must be three "
                "numbers each; mend them, or move the weights to a folder of their own"
            ) from error
        notes.append(f"normalisation: mean {mean}, std {std} (config.json beside the file)")
    tensors = {ours: value.float().clone() for ours, value in weights.items()}
    return ImportedEncoder(tensors, mean, std, layout.title, notes)


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
        sizes = {(int(width), int(height)) for width, height in re.findall(SIZE, settings)}
        size = _vitpose_config(checkpoint, layout).get("image_size")
        if isinstance(size, Sequence) and len(size) == 2 and all(isinstance(side, int) for side in size):
            sizes = {(size[1], size[0])}
        input_size, known = DEFAULT_SIZE, "the file does not say; --input-size W H takes another"
        if len(sizes) == 1:
            input_size, known = sizes.pop(), STATED
        notes.append(f"input size: {input_size[0]}x{input_size[1]} ({known})")
    stated = bool(re.search(UDP, settings)) if settings else None
    if unbiased is not None:
        if stated not in (None, unbiased):
            notes.append("geometry: as asked for, although the file's settings say otherwise")
        return {"input_size": input_size, "unbiased": unbiased}, notes
    if stated is not None:
        unbiased, known = stated, STATED
    else:
        # DarkPose's repository has HRNet's and SimpleBaseline's names, but counts sizes as (pixels - 1)
        # and shifts no mirrored heatmap
        place = "/".join(checkpoint.path.absolute().parts[-2:]).lower()
        dark = "pytorch" in layout.title and "dark" in place
        unbiased = dark or layout.unbiased
        known = "DarkPose's, by the name of file or folder" if dark else "as its project trains it"
        known += f"; the file does not say; or {'--no-unbiased' if unbiased else '--unbiased'}"
    notes.append(f"geometry: {'unbiased (UDP)' if unbiased else 'that of HRNet, not UDP'} ({known})")
    return {"input_size": input_size, "unbiased": unbiased}, notes
