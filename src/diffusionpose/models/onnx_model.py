"""ONNX files by onnxruntime: on a CUDA device its CUDA provider, and the CPU where that is not installed."""

from __future__ import annotations

import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from diffusionpose.errors import InputError
from diffusionpose.extras import needs_extra
from diffusionpose.models.exported_model import IMAGES, METADATA_KEY, ExportedModel, Run, exported_model

ERRORS_ONLY = 3  # onnxruntime's severity; below it tells of every optimisation it leaves out
CUDA = "CUDAExecutionProvider"


def import_onnxruntime() -> ModuleType:
    """onnxruntime, which is an extra of this package; InputError where it is not installed."""
    with needs_extra("export", "ONNX files need onnxruntime"):
        import onnxruntime
    return onnxruntime


def open_session(file: Path | bytes, device: str = "cpu") -> Any:
    """onnxruntime's session of a file or of its bytes, with as many threads as PyTorch has.

    Args:
        device: "cuda" takes the CUDA provider, anything else the CPU.

    Raises:
        InputError: no onnxruntime, or a file that it cannot read.
    """
    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = ERRORS_ONLY
    providers = ["CPUExecutionProvider"]
    if device == "cuda" and CUDA in onnxruntime.get_available_providers():
        providers.insert(0, CUDA)
    elif device != "cpu":
        warnings.warn(
            f"onnxruntime has no provider for {device} here: ONNX files run on the CPU", stacklevel=2
        )
    try:
        return onnxruntime.InferenceSession(
            file if isinstance(file, bytes) else str(file), options, providers=providers
        )
    except Exception as error:  # onnxruntime's own errors share no base class
        name = file if isinstance(file, Path) else "the exported graph"
        reason = str(error).splitlines()[0]
        raise InputError(
            f"{name}: onnxruntime cannot read it, perhaps cut short ({reason}); copy it again"
        ) from error


def open_onnx(file: Path | bytes, device: str = "cpu") -> Run:
    """What runs an ONNX file, or its bytes; arguments and errors as of :func:`open_session`."""
    session = open_session(file, device)
    return lambda images: session.run(None, {IMAGES: images})


def load_onnx(path: str | Path) -> ExportedModel:
    """The model of an .onnx file that ``diffusionpose export`` wrote, on the CPU.

    Raises:
        InputError: no onnxruntime, a file that cannot be read, or one without this package's metadata.
    """
    path = Path(path)
    session = open_session(path)
    metadata = session.get_modelmeta().custom_metadata_map.get(METADATA_KEY)
    return exported_model(path, lambda images: session.run(None, {IMAGES: images}), metadata, open_onnx)
