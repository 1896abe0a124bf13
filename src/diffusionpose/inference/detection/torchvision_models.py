"""torchvision's object detectors (BSD-3-Clause), trained on COCO."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from diffusionpose.errors import InputError
from diffusionpose.inference.detection.downloads import Tell, download, out_of_reach
from diffusionpose.inference.detection.network import MAX_PERSONS, MIN_SCORE, PERSON, NetworkDetector
from diffusionpose.inference.device import find_device

SUFFIXES = (".pth", ".pt", ".safetensors")
COCO_LABELS = "labels of COCO, 91 with the background"


def architectures() -> list[str]:
    """Names of torchvision's detectors whose trained weights know persons."""
    from torchvision import models

    return [
        name for name in models.list_models(models.detection) if PERSON in _weights(name).meta["categories"]
    ]


def architecture_of(path: Path) -> str | None:
    """The detector that a file of weights is of, told by the beginning of its name."""
    fitting = [name for name in architectures() if path.name.startswith(name)]
    return max(fitting, key=len, default=None)


def cached_weights(name: str) -> Path:
    """Where torchvision keeps the weights of a detector, whether they are there or not."""
    return Path(torch.hub.get_dir()) / "checkpoints" / Path(_weights(name).url).name


def fetch(name: str, tell: Tell) -> Path:
    """The file with a detector's weights: from torchvision's cache, else downloaded into it, which is told.

    Raises:
        InputError: it is not in the cache and cannot be downloaded.
    """
    path, url = cached_weights(name), _weights(name).url
    if path.is_file():
        return path
    cure = f"download {url} elsewhere and give it to --detector, give --boxes FILE, or --detector whole"
    reason = out_of_reach(url)
    if reason is not None:
        raise InputError(f"detector {name}: not in {path.parent}, and {url}: {reason}; {cure}")
    megabytes = _weights(name).meta["_file_size"] * 1.048576  # torchvision gives MiB
    tell(f"downloading {name}, {megabytes:.0f} MB, for this and later times")
    try:
        download(url, path, sha256=path.stem.rpartition("-")[2])
    except OSError as error:
        raise InputError(f"detector {name}: {url} cannot be downloaded ({error}); {cure}") from error
    return path


class TorchvisionDetector(NetworkDetector):
    """One of torchvision's detectors, of which the class "person" is used.

    Pictures go through it one by one: it would pad those of a batch to one size, which changes what is
    found in them.

    Args:
        name: as torchvision names it, such as "fasterrcnn_mobilenet_v3_large_fpn".
        weights: a file with its state dict.
        device: as PyTorch names it, or "auto".
        min_score, max_persons: as of :class:`NetworkDetector`.

    Raises:
        InputError: no such detector, or a file that cannot be read or does not fit it.
    """

    def __init__(
        self,
        name: str,
        weights: str | Path,
        device: str = "auto",
        *,
        min_score: float = MIN_SCORE,
        max_persons: int = MAX_PERSONS,
    ) -> None:
        super().__init__(min_score, max_persons)
        from torchvision import models

        if name not in architectures():
            raise InputError(f"detector {name!r}: not one of torchvision's: {', '.join(architectures())}")
        categories = _weights(name).meta["categories"]
        self._label = categories.index(PERSON)
        self._model = models.get_model(name, weights=None, weights_backbone=None, num_classes=len(categories))
        try:
            self._model.load_state_dict(_read(Path(weights)))
        except (RuntimeError, TypeError, AttributeError) as error:
            raise InputError(
                f"{weights}: does not fit torchvision's {name} with the {COCO_LABELS} "
                f"({str(error).splitlines()[0]}); is the name of the file that of the detector?"
            ) from error
        self.device = find_device(device)
        self._model.to(self.device).eval()

    def _find(self, images: Sequence[np.ndarray]) -> list[tuple[torch.Tensor, torch.Tensor]]:
        answers = []
        for image in images:
            pixels = (
                torch.from_numpy(np.ascontiguousarray(image)).to(self.device).permute(2, 0, 1).float() / 255
            )
            (found,) = self._model([pixels])
            persons = found["labels"] == self._label
            answers.append((found["boxes"][persons], found["scores"][persons]))
        return answers


def _weights(name: str) -> Any:
    from torchvision import models

    return models.get_model_weights(name).DEFAULT


def _read(path: Path) -> dict[str, torch.Tensor]:
    """A state dict; nothing in the file can run."""
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; check the path") from error
    except Exception as error:  # a damaged or foreign file raises anything
        reason = str(error).splitlines() or [type(error).__name__]
        raise InputError(
            f"{path}: not a state dict that can be read ({reason[0]}); download it again"
        ) from error
