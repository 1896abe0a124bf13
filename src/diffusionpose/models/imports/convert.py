"""From a file of another project to a model, or to weights of an encoder, of ours."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from diffusionpose.errors import InputError
from diffusionpose.models.imports import (
    layouts as hrnet,
)
from diffusionpose.models.imports import (
    layouts as simplebaseline,
)
from diffusionpose.models.imports import (
    layouts as training_facts,
)
from diffusionpose.models.imports import (
    layouts as vitpose,
)
from diffusionpose.models.imports.layouts import (
    DEFAULT_SIZE,
    IMAGENET_MEAN,
    IMAGENET_STD,
    OFFSETS_UNSUPPORTED,
    ImportedEncoder,
    Layout,
    Placed,
    choose_skeleton,
    count_outputs,
    fit,
    import_encoder,
    order_joints,
    place,
)
from diffusionpose.models.imports.reading import Checkpoint, read_checkpoint, vitpose_facts
from diffusionpose.models.pose_model import PoseModel
from diffusionpose.models.zoo import MODELS, create_model
from diffusionpose.skeletons import Skeleton

LAYOUTS = (*hrnet.LAYOUTS, *simplebaseline.LAYOUTS, *vitpose.LAYOUTS)
FIRST_LAYERS = ("encoder.backbone.conv1.weight", "encoder.backbone.patch_embed.proj.weight")
SAID = "the file's settings, or config.json beside it, say so"


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
    _check_model(name, layout, checkpoint)
    if layout.encoder:
        _refuse_wishes(checkpoint, layout, skeleton, input_size, unbiased, bgr)
        return import_encoder(checkpoint, layout, name)
    facts, notes = _facts(checkpoint, layout, input_size, unbiased)
    bgr = layout.bgr if bgr is None else bgr
    model = _pose_model(checkpoint, layout, name, skeleton, bgr, {**facts, **options}, notes)
    return ImportedModel(model, layout.title, notes)


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
    kind, known = choose_skeleton(checkpoint, count_outputs(placed), skeleton)
    notes += [f"joints: {kind.name} ({known})", *placed.reasons()]
    if order_joints(placed, checkpoint.joints, kind, checkpoint):
        notes.append("outputs brought into the skeleton's order of joints")
    model = create_model(name, kind, **options)
    _check_heads(model, checkpoint, layout)
    _fill(model, placed, checkpoint, name, bgr, notes)
    return model.eval()


def _check_model(name: str, layout: Layout, checkpoint: Checkpoint) -> None:
    """InputError where weights of a layout cannot become a model of ours."""
    names = [known for known in MODELS if re.fullmatch(layout.models, known)]
    if name not in names:
        raise InputError(
            f"{checkpoint.path}: is {layout.title}; --as must be one of {', '.join(names)}, not {name!r}"
        )


def _check_heads(model: PoseModel, checkpoint: Checkpoint, layout: Layout) -> None:
    """InputError where a transformer has another number of heads, which weights alone do not show."""
    theirs = vitpose_facts(checkpoint.path)[1]
    if layout in vitpose.HUGGING_FACE and theirs is not None:
        ours: int = model.encoder.backbone.blocks[0].attn.num_heads
        if theirs != ours:
            raise InputError(
                f"{checkpoint.path}: has {theirs} attention heads (config.json beside it); "
                f"{model.config['name']} has {ours}"
            )


def _refuse_wishes(checkpoint: Checkpoint, layout: Layout, *wishes: object) -> None:
    """InputError where an option is given that only a pose model has."""
    options = ("--skeleton", "--input-size", "--unbiased", "--colours")
    for option, value in zip(options, wishes, strict=True):
        if value is not None:
            raise InputError(
                f"{checkpoint.path}: is {layout.title}, without a pose head: leave out {option}, which means "
                "nothing for it"
            )


def find_layout(checkpoint: Checkpoint) -> Layout:
    """The one layout that the names of a file are of.

    Raises:
        InputError: none, or a network that is known and not supported.
    """
    names = list(checkpoint.tensors)
    for pattern, reason in vitpose.UNSUPPORTED:
        if any(re.match(pattern, name) for name in names):
            raise InputError(f"{checkpoint.path}: is {reason}")
    fitting = [layout for layout in LAYOUTS if layout.fits(names)]
    if len(fitting) == 1:
        return fitting[0]
    raise InputError(
        f"{checkpoint.path}: of no known layout: its {len(names)} weights are called {', '.join(names[:4])}, "
        f"..; known are {'; '.join(layout.title for layout in LAYOUTS)}"
    )


def _facts(
    checkpoint: Checkpoint, layout: Layout, input_size: tuple[int, int] | None, unbiased: bool | None
) -> tuple[dict[str, Any], list[str]]:
    """Options of the model that its weights do not show, asked for or said by the file; and notes on them."""
    settings, notes = checkpoint.settings, []
    if training_facts.with_offsets(settings):
        raise InputError(f"{checkpoint.path}: {OFFSETS_UNSUPPORTED}")
    stated = training_facts.unbiased(settings)
    size = training_facts.input_size(settings)
    if layout in vitpose.HUGGING_FACE:
        size, _ = vitpose_facts(checkpoint.path)
    if input_size is None:
        width, height = size or DEFAULT_SIZE
        known = SAID if size else "the file does not say; --input-size W H takes another"
        notes.append(f"input size: {width}x{height} ({known})")
    geometry = layout.unbiased if stated is None else stated
    if unbiased is None:
        other = "--no-unbiased" if geometry else "--unbiased"
        known = SAID if stated is not None else f"as its project trains it; the file does not say; or {other}"
        notes.append(f"geometry: {'unbiased (UDP)' if geometry else 'that of HRNet, not UDP'} ({known})")
    elif stated is not None and stated != unbiased:
        notes.append("geometry: as asked for, although the file's settings say otherwise")
    unbiased = geometry if unbiased is None else unbiased
    return {"input_size": input_size or size or DEFAULT_SIZE, "unbiased": unbiased}, notes


def _fill(
    model: PoseModel, placed: Placed, checkpoint: Checkpoint, name: str, bgr: bool, notes: list[str]
) -> None:
    """Load weights and normalisation into the model; what was trained on BGR is turned to take RGB."""
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
