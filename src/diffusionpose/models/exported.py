"""A pose model in a file of another runtime: that in the place of PyTorch, everything around it the same.

``diffusionpose export`` writes such files (``models/export.py``). What the file cannot show, such as its
joints, is in its metadata: JSON under the key ``diffusionpose``, described in docs/export.md.
"""

from __future__ import annotations

import json
import os
import tempfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from diffusionpose.errors import InputError, needs_extra
from diffusionpose.geometry import HeatmapCodec, Start
from diffusionpose.models.encoders import Encoder
from diffusionpose.models.pose_model import PoseModel
from diffusionpose.skeletons import Skeleton

METADATA_KEY = "diffusionpose"
IMAGES, HEATMAPS = "images", "heatmaps"  # the graph's input and output

Run = Callable[[np.ndarray], Sequence[np.ndarray]]  # crops (b, 3, H, W) uint8 -> the outputs, heatmaps first


class ExportedModel(PoseModel):
    """What an exported file computes, as a pose model: it estimates and is evaluated like any other.

    It has no weights to train, and its diffusion steps were fixed when it was exported.

    Args:
        path: of the file; it is kept for messages and for another device.
        run: what runs it on the CPU.
        facts: the file's metadata.
        open_run: gives what runs it on another device, from its path and the device's type.

    Raises:
        KeyError, TypeError: metadata that lacks something or holds something else.
    """

    def __init__(
        self, path: Path, run: Run, facts: dict[str, Any], open_run: Callable[[Path, str], Run]
    ) -> None:
        width, height = facts["input_size"]
        codec = HeatmapCodec((int(width), int(height)), int(facts["stride"]), bool(facts["unbiased"]))
        # the graph holds encoder and normalisation; what is left here are joints, sizes and geometry
        super().__init__(
            Encoder(nn.Identity(), channels=3, stride=1), Skeleton.from_dict(facts["skeleton"]), codec
        )
        self.path = path
        self.steps: int | None = facts["steps"]
        self.flip_inside = bool(facts["flip"])
        self.config = {"name": facts["model"], "skeleton": facts["skeleton"], "options": facts["options"]}
        self._run, self._placed, self._open_run = run, "cpu", open_run

    def check_options(self, flip: bool = True, steps: int | None = None, start: bool = False) -> None:
        """As :meth:`PoseModel.check_options`.

        Raises:
            InputError: steps other than the file's, no flip test where the file holds it, or a start.
        """
        if start:
            raise InputError(
                f"start: {self.path} was exported to start from its own coarse heatmaps; "
                "give the .safetensors file it was made from"
            )
        if steps is not None and steps != self.steps:
            held = (
                "takes no diffusion steps"
                if self.steps is None
                else f"was exported with --steps {self.steps}"
            )
            raise InputError(
                f"steps: {self.path} {held}, and {steps} cannot be had of it; leave the option out"
            )
        if self.flip_inside and not flip:
            raise InputError(
                f"flip: {self.path} was exported with --flip and always averages with the mirror image; "
                "leave the flip test on, or export again without --flip"
            )

    def trajectory(
        self, images: Tensor, steps: int | None = None, start: Start | None = None
    ) -> list[Tensor]:
        """(b, 3, H, W) RGB uint8 crops -> (b, j, h, w) heatmaps; with the flip test if the file holds it."""
        self.check_options(steps=steps)
        if images.device.type != self._placed:
            self._run, self._placed = self._open_run(self.path, images.device.type), images.device.type
        heatmaps = self._run(images.contiguous().cpu().numpy())[0]
        return [torch.from_numpy(np.asarray(heatmaps)).to(images.device)]

    def heatmaps(
        self, images: Tensor, flip: bool = True, start: Start | None = None, steps: int | None = None
    ) -> Tensor:
        """As :meth:`PoseModel.heatmaps`; the flip test is made once, inside the file or here."""
        self.check_options(flip, start=start is not None)
        return super().heatmaps(images, flip and not self.flip_inside, start, steps)


def exported_model(
    path: Path, run: Run, metadata: str | None, open_run: Callable[[Path, str], Run]
) -> ExportedModel:
    """The model of a file, from its metadata as the runtime gives them.

    Raises:
        InputError: they are not this package's.
    """
    try:
        return ExportedModel(path, run, json.loads(metadata), open_run).eval()  # type: ignore[arg-type]
    except (KeyError, TypeError, ValueError) as error:
        kind = path.suffix.removeprefix(".").upper()
        raise InputError(
            f"{path}: {kind} without this package's metadata, so its joints and sizes are unknown; "
            "give a file that `diffusionpose export` wrote"
        ) from error


# ONNX files by onnxruntime: on a CUDA device its CUDA provider, and the CPU where that is not installed

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


# OpenVINO files (.xml, and the weights in the .bin beside it), on the CPU

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
