"""A pose model in an ONNX file: onnxruntime in the place of PyTorch, everything around it the same.

``diffusionpose export`` writes such files (``inference/export.py``). What the file cannot show, such as its
joints, is in its metadata: JSON under the key ``diffusionpose``, described in docs/export.md.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from diffusionpose.errors import InputError
from diffusionpose.geometry.codec import HeatmapCodec
from diffusionpose.geometry.start import Start
from diffusionpose.models.encoders import Encoder
from diffusionpose.models.pose_model import PoseModel
from diffusionpose.skeletons import Skeleton

ONNX_METADATA_KEY = "diffusionpose"
IMAGES, HEATMAPS = "images", "heatmaps"  # the graph's input and output
INSTALL = "pip install 'diffusionpose[export]'"
ERRORS_ONLY = 3  # onnxruntime's severity; below it tells of every optimisation it leaves out
CUDA = "CUDAExecutionProvider"


class OnnxModel(PoseModel):
    """What an ONNX file computes, as a pose model: it estimates and is evaluated like any other.

    It has no weights to train, and its diffusion steps were fixed when it was exported. On a CUDA device it
    takes onnxruntime's CUDA provider, and the CPU, with a warning, where that is not installed.

    Args:
        path: of the file; it is kept for messages and for another device.
        session: onnxruntime's, on the CPU.
        facts: the file's metadata.

    Raises:
        KeyError, TypeError: metadata that lacks something or holds something else.
    """

    def __init__(self, path: Path, session: Any, facts: dict[str, Any]) -> None:
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
        self._session, self._placed = session, "cpu"

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

    def forward(self, images: Tensor, **options: Any) -> Tensor:
        """(b, 3, H, W) RGB uint8 crops -> (b, j, h, w) heatmaps; with the flip test if the file holds it."""
        self.check_options(steps=options.get("steps"))
        if images.device.type != self._placed:
            self._session, self._placed = open_session(self.path, images.device.type), images.device.type
        (heatmaps,) = self._session.run([HEATMAPS], {IMAGES: images.contiguous().cpu().numpy()})
        return torch.from_numpy(np.asarray(heatmaps)).to(images.device)

    def heatmaps(
        self, images: Tensor, flip: bool = True, start: Start | None = None, **options: Any
    ) -> Tensor:
        """As :meth:`PoseModel.heatmaps`; the flip test is made once, inside the file or here."""
        self.check_options(flip, start=start is not None)
        return super().heatmaps(images, flip and not self.flip_inside, **options)


def import_onnxruntime() -> ModuleType:
    """onnxruntime, which is an extra of this package; InputError where it is not installed."""
    try:
        import onnxruntime
    except ImportError as error:
        raise InputError(f"ONNX files need onnxruntime ({error}); install it: {INSTALL}") from error
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


def load_onnx(path: str | Path) -> OnnxModel:
    """The model of a file that ``diffusionpose export`` wrote, on the CPU.

    Raises:
        InputError: no onnxruntime, a file that cannot be read, or one without this package's metadata.
    """
    path = Path(path)
    session = open_session(path)
    text = session.get_modelmeta().custom_metadata_map.get(ONNX_METADATA_KEY)
    try:
        return OnnxModel(path, session, json.loads(text)).eval()
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{path}: ONNX without this package's metadata, so its joints and sizes are unknown; "
            "give a file that `diffusionpose export` wrote"
        ) from error
