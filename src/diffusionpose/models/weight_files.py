"""Files of weights: safetensors, read and written with messages that name the file and the cure."""

from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from diffusionpose.errors import InputError, write_file


def read_safetensors(
    path: str | Path, cure: str = "copy it again", finite: bool = True
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors by name, numbers with a fraction as float32, and metadata.

    Args:
        path: of the file.
        cure: of a file that cannot be read, for the message.
        finite: refuse NaN and infinity.

    Raises:
        InputError: the file cannot be read, or holds NaN or infinity.
    """
    try:
        with safe_open(str(path), "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            metadata = file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise InputError(
            f"{path}: not a readable safetensors file, perhaps cut short ({error}); {cure}"
        ) from error
    tensors = {n: value.float() if value.is_floating_point() else value for n, value in tensors.items()}
    if finite and (broken := [n for n, value in tensors.items() if not value.isfinite().all()]):
        raise InputError(
            f"{path}: {len(broken)} of its weights hold NaN or infinity, first {broken[0]}; "
            "the training that wrote it broke down, or the file is damaged: take another"
        )
    return tensors, metadata


def write_safetensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Write a safetensors file, whole or not at all; InputError where it cannot be written."""
    stored = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    write_file(path, save(stored, metadata))


def three_numbers(text: str) -> tuple[float, float, float]:
    """Red, green and blue from "0.5" or "0.4,0.5,0.6"; ValueError for anything else."""
    numbers = [float(number) for number in text.split(",")]
    red, green, blue = numbers if len(numbers) > 1 else 3 * numbers
    if not torch.tensor(numbers).isfinite().all():
        raise ValueError(f"{text}: not finite")
    return red, green, blue
