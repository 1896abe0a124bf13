"""A pose model in a file of another runtime: that in the place of PyTorch, everything around it the same.

``diffusionpose export`` writes such files (``inference/export.py``). What the file cannot show, such as its
joints, is in its metadata: JSON under the key ``diffusionpose``, described in docs/export.md.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
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

    def forward(self, images: Tensor, **options: Any) -> Tensor:
        """(b, 3, H, W) RGB uint8 crops -> (b, j, h, w) heatmaps; with the flip test if the file holds it."""
        self.check_options(steps=options.get("steps"))
        if images.device.type != self._placed:
            self._run, self._placed = self._open_run(self.path, images.device.type), images.device.type
        heatmaps = self._run(images.contiguous().cpu().numpy())[0]
        return torch.from_numpy(np.asarray(heatmaps)).to(images.device)

    def heatmaps(
        self, images: Tensor, flip: bool = True, start: Start | None = None, **options: Any
    ) -> Tensor:
        """As :meth:`PoseModel.heatmaps`; the flip test is made once, inside the file or here."""
        self.check_options(flip, start=start is not None)
        return super().heatmaps(images, flip and not self.flip_inside, **options)


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
