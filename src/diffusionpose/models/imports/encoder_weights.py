"""Weights of an encoder alone, such as ImageNet's: from a file of another project to one of ours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from diffusionpose.models.imports.config_beside import timm_normalisation
from diffusionpose.models.imports.layouts import (
    DEFAULT_SIZE,
    IMAGENET_MEAN,
    IMAGENET_STD,
    Layout,
    fit,
    place,
)
from diffusionpose.models.imports.reading import Checkpoint
from diffusionpose.models.weights import write_safetensors
from diffusionpose.models.zoo import create_model


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
