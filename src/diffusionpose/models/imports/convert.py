"""From a file of another project to a model, or to weights of an encoder, of ours."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffusionpose.errors import InputError
from diffusionpose.models.imports import hrnet, simplebaseline, training_facts
from diffusionpose.models.imports.joints import (
    OFFSETS_UNSUPPORTED,
    choose_skeleton,
    count_outputs,
    order_joints,
)
from diffusionpose.models.imports.layouts import Layout, Placed, fit, place
from diffusionpose.models.imports.normalisation import beside_timm_weights
from diffusionpose.models.imports.reading import Checkpoint, read_checkpoint
from diffusionpose.models.pose_model import PoseModel
from diffusionpose.models.zoo import MODELS, create_model
from diffusionpose.skeletons import Skeleton

LAYOUTS = (*hrnet.LAYOUTS, *simplebaseline.LAYOUTS)
DEFAULT_SIZE = (192, 256)
FIRST_LAYER = "encoder.backbone.conv1.weight"


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
        layout, notes: as in :class:`ImportedModel`.
    """

    tensors: Mapping[str, Tensor]
    mean: tuple[float, ...]
    std: tuple[float, ...]
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
    names = [known for known in MODELS if re.fullmatch(layout.models, known)]
    if name not in names:
        raise InputError(f"{path}: is {layout.title}; --as must be one of {', '.join(names)}, not {name!r}")
    placed = place(checkpoint.tensors, layout)
    notes = [f"left out {len(which)} weights: {reason}" for reason, which in placed.left_out.items()]
    if layout.encoder:
        wishes = {"--skeleton": skeleton, "--input-size": input_size, "--unbiased": unbiased, "--bgr": bgr}
        if given := [option for option, value in wishes.items() if value is not None]:
            raise InputError(f"{path}: is {layout.title}, without a pose head: {given[0]} means nothing here")
        return _encoder(checkpoint, layout, placed, name, notes)
    kind, known = choose_skeleton(checkpoint, count_outputs(placed), skeleton)
    notes.append(f"joints: {kind.name} ({known})")
    if order_joints(placed, checkpoint.joints, kind, checkpoint):
        notes.append("outputs brought into the skeleton's order of joints")
    facts = _facts(checkpoint, layout, input_size, unbiased, notes)
    model = create_model(name, kind, **facts, **options)
    _fill(model, placed, checkpoint, name, layout.bgr if bgr is None else bgr, notes)
    return ImportedModel(model.eval(), layout.title, notes)


def find_layout(checkpoint: Checkpoint) -> Layout:
    """The one layout that the names of a file are of.

    Raises:
        InputError: none, or a network that is known and not supported.
    """
    names = list(checkpoint.tensors)
    fitting = [layout for layout in LAYOUTS if layout.fits(names)]
    if len(fitting) == 1:
        return fitting[0]
    raise InputError(
        f"{checkpoint.path}: of no known layout: its {len(names)} weights are called {', '.join(names[:4])}, "
        f"..; known are {'; '.join(layout.title for layout in LAYOUTS)}"
    )


def _facts(
    checkpoint: Checkpoint,
    layout: Layout,
    input_size: tuple[int, int] | None,
    unbiased: bool | None,
    notes: list[str],
) -> dict[str, Any]:
    """Options of the model that its weights do not show: what is asked for, else what the file says."""
    settings = checkpoint.settings
    if training_facts.with_offsets(settings):
        raise InputError(f"{checkpoint.path}: {OFFSETS_UNSUPPORTED}")
    size, stated = training_facts.input_size(settings), training_facts.unbiased(settings)
    if input_size is None:
        notes.append(
            f"input size: {size[0]}x{size[1]}, as the file's settings say"
            if size
            else "input size: 192x256; the file does not say, --input-size W H takes another"
        )
    geometry = layout.unbiased if stated is None else stated
    if unbiased is None:
        said = "as the file's settings say"
        if stated is None:
            flag = "--no-unbiased" if geometry else "--unbiased"
            said = f"as its project trains this network; the file does not say, {flag} takes the other"
        notes.append(f"geometry: {'unbiased (UDP)' if geometry else 'HRNet`s'}, {said}".replace("`", "'"))
    elif stated is not None and stated != unbiased:
        notes.append("geometry: as asked for, although the file's settings say otherwise")
    return {
        "input_size": input_size or size or DEFAULT_SIZE,
        "unbiased": geometry if unbiased is None else unbiased,
    }


def _fill(
    model: PoseModel, placed: Placed, checkpoint: Checkpoint, name: str, bgr: bool, notes: list[str]
) -> None:
    """Load the weights into the model; what was trained on BGR is turned to take RGB."""
    own = {key: value for key, value in model.state_dict().items() if key not in ("mean", "std")}
    tensors = fit(placed, own, checkpoint.path, name)
    if bgr:
        tensors[FIRST_LAYER] = tensors[FIRST_LAYER].flip(1)
        tensors |= {"mean": model.mean.flip(0), "std": model.std.flip(0)}
        notes.append("trained on BGR pictures: first layer and normalisation turned to take RGB")
    model.load_state_dict(tensors, strict=False)  # `fit` was strict; the rest are mean, std and counters


def _encoder(
    checkpoint: Checkpoint, layout: Layout, placed: Placed, name: str, notes: list[str]
) -> ImportedEncoder:
    with torch.device("meta"):
        encoder = create_model(name).encoder
    tensors = fit(placed, encoder.backbone.state_dict(), checkpoint.path, f"the encoder of {name}")
    mean, std = encoder.mean, encoder.std
    if found := beside_timm_weights(checkpoint.path):
        mean, std = found
        notes.append(f"normalisation: mean {mean}, std {std}, from config.json beside the file")
    return ImportedEncoder(tensors, mean, std, layout.title, notes)
