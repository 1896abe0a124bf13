"""Writing the weights of an encoder, for ``--encoder-weights``."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file

from diffusionpose.errors import InputError
from diffusionpose.files import atomically
from diffusionpose.models.imports.convert import ImportedEncoder


def save_encoder(encoder: ImportedEncoder, path: str | Path) -> None:
    """Write a file that ``Encoder.load_backbone`` reads, whole or not at all.

    Raises:
        InputError: the file cannot be written.
    """
    path = Path(path)
    metadata = {name: ",".join(map(repr, getattr(encoder, name))) for name in ("mean", "std")}
    try:
        atomically(path, lambda temporary: save_file(dict(encoder.tensors), temporary, metadata))
    except (OSError, SafetensorError) as error:
        raise InputError(
            f"{path}: cannot be written ({error}); is the folder there, writable, not full?"
        ) from error
