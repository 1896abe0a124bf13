"""OpenVINO files (.xml, and the weights in the .bin beside it), on the CPU."""

from __future__ import annotations

import os
import tempfile
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from diffusionpose.errors import InputError
from diffusionpose.extras import needs_extra
from diffusionpose.models.exported_model import METADATA_KEY, ExportedModel, Run, exported_model

WEIGHTS = ".bin"


def import_openvino() -> ModuleType:
    """openvino, which is an extra of this package; InputError where it is not installed."""
    with needs_extra("openvino", "OpenVINO files need openvino"):
        import openvino
    return openvino


def compiled(model: Any, device: str = "cpu") -> Run:
    """What runs an OpenVINO model in float32, with as many threads as PyTorch has; always on the CPU."""
    if device != "cpu":
        warnings.warn(f"OpenVINO files run on the CPU here, not on {device}", stacklevel=2)
    # f32: on CPUs that have bfloat16, OpenVINO takes that by itself
    settings = {"INFERENCE_NUM_THREADS": torch.get_num_threads(), "INFERENCE_PRECISION_HINT": "f32"}
    network = import_openvino().Core().compile_model(model, "CPU", settings)
    return lambda images: list(network(images).values())


def from_onnx(content: bytes) -> Any:
    """OpenVINO's model of an ONNX file's bytes."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.onnx"
        file.write_bytes(content)
        return import_openvino().convert_model(file)


def save_openvino(model: Any, path: Path, metadata: str) -> None:
    """Write a model as float32: its .bin first, then the .xml, which makes it one, each in one stroke.

    Raises:
        OSError: a file cannot be written.
    """
    model.set_rt_info(metadata, [METADATA_KEY])
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.stem}.") as folder:
        written = Path(folder) / path.name
        import_openvino().save_model(model, written, compress_to_fp16=False)
        for file in (written.with_suffix(WEIGHTS), written):
            os.replace(file, path.with_name(file.name))


def open_openvino(path: Path, device: str = "cpu") -> Run:
    """What runs an OpenVINO file; errors as of :func:`load_openvino`."""
    return compiled(_read(path), device)


def load_openvino(path: str | Path) -> ExportedModel:
    """The model of an .xml file that ``diffusionpose export`` wrote.

    Raises:
        InputError: no openvino, a file that cannot be read, no .bin beside it, or one without this package's
            metadata.
    """
    path = Path(path)
    model = _read(path)
    metadata = model.get_rt_info([METADATA_KEY]).astype(str) if model.has_rt_info([METADATA_KEY]) else None
    return exported_model(path, compiled(model), metadata, open_openvino)


def _read(path: Path) -> Any:
    openvino = import_openvino()
    weights = path.with_suffix(WEIGHTS)
    if not weights.is_file():
        raise InputError(f"{path}: its weights, {weights.name}, are not beside it; copy both files")
    try:
        return openvino.Core().read_model(path)
    except Exception as error:  # openvino's own errors share no base class
        reason = str(error).strip().splitlines()[-1]
        raise InputError(
            f"{path}: OpenVINO cannot read it, perhaps cut short ({reason}); copy it and {weights.name} again"
        ) from error
