"""By what a job knows its inputs again when it goes on where it was stopped."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from diffusionpose import files
from diffusionpose.errors import InputError

HASHED = 1_000_000  # bytes at either end of a long file


def file_digest(path: Path) -> str:
    """SHA-256 of a file's content.

    Raises:
        InputError: it cannot be read.
    """
    try:
        return files.file_digest(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error


def weights_digest(path: Path) -> str:
    """SHA-256 of a model's file, and of the one beside it that holds the numbers of an OpenVINO one.

    Raises:
        InputError: one cannot be read.
    """
    parts = [path, path.with_suffix(".bin")] if path.suffix == ".xml" else [path]
    return " ".join(file_digest(part) for part in parts)


def ends_digest(path: Path) -> dict[str, Any]:
    """By what a file is known again: its size, and a hash of its two ends."""
    size = path.stat().st_size
    with path.open("rb") as file:
        ends = file.read(HASHED)
        file.seek(max(0, size - HASHED))
        ends += file.read()
    return {"size": size, "sha256": hashlib.sha256(ends).hexdigest()}


def fingerprint(detector: object) -> str:
    """Which detector it is: its class, and SHA-256 of the weights of its networks."""
    import torch

    digest = hashlib.sha256()
    for network in vars(detector).values():
        if isinstance(network, torch.nn.Module):
            for name, values in network.state_dict().items():
                digest.update(name.encode())
                digest.update(values.detach().cpu().contiguous().numpy().tobytes())
    return f"{type(detector).__name__} {digest.hexdigest()}"
