"""RT-DETR, D-FINE and other object detectors of the transformers library (Apache-2.0)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from diffusionpose.errors import InputError
from diffusionpose.extras import needs_extra
from diffusionpose.inference.detection.downloads import Tell, out_of_reach
from diffusionpose.inference.detection.network import MAX_PERSONS, MIN_SCORE, PERSON, NetworkDetector
from diffusionpose.inference.device import find_device

FILES = ("config.json", "preprocessor_config.json", "model.safetensors")  # of a detector, here and on the hub
GPU_BATCH = 8


class TransformersDetector(NetworkDetector):
    """An object detector in the format of transformers, of which the class "person" is used.

    Args:
        folder: holds config.json, preprocessor_config.json and model.safetensors.
        device: as PyTorch names it, or "auto".
        min_score, max_persons: as of :class:`NetworkDetector`.
        name: what to call it in errors; None for the folder's own.

    Raises:
        InputError: transformers is not installed, a file is missing or damaged, the model is no object
            detector, its weights are not whole, or it knows no class "person".
    """

    def __init__(
        self,
        folder: str | Path,
        device: str = "auto",
        *,
        min_score: float = MIN_SCORE,
        max_persons: int = MAX_PERSONS,
        name: str | None = None,
    ) -> None:
        super().__init__(min_score, max_persons)
        folder, name = Path(folder), name or str(folder)
        missing = [file for file in FILES if not (folder / file).is_file()]
        if missing:
            raise InputError(
                f"detector {name}: {folder} holds no {', '.join(missing)}; give a "
                "folder that transformers' save_pretrained wrote for a detector and its image processor"
            )
        self._processor, self._model = _load(folder, name)
        self._labels = _person_labels(self._model.config.id2label, name)
        self.device = find_device(device)
        self._model.to(self.device).eval()
        size = dict(self._processor.size)
        # pictures of one size need no padding, without which one of a batch is found as it is alone
        alike = {"height", "width"} <= size.keys() and not getattr(self._processor, "do_pad", False)
        self.batch_size = GPU_BATCH if alike and self.device.type != "cpu" else 1

    def _find(self, images: Sequence[np.ndarray]) -> list[tuple[torch.Tensor, torch.Tensor]]:
        # named, as a picture three pixels high could be taken for one with its channels first
        inputs = self._processor(images=list(images), return_tensors="pt", input_data_format="channels_last")
        outputs = self._model(**inputs.to(self.device))
        sizes = [image.shape[:2] for image in images]
        found = self._processor.post_process_object_detection(outputs, threshold=0.0, target_sizes=sizes)
        answers = []
        for one in found:
            persons = torch.isin(one["labels"], torch.tensor(self._labels, device=one["labels"].device))
            answers.append((one["boxes"][persons], one["scores"][persons]))
        return answers


def in_hub_cache(repository: str) -> Path | None:
    """The folder of a hub repository in the local cache, if all files of a detector are there."""
    from huggingface_hub import hf_hub_download

    try:
        files = [hf_hub_download(repository, file, local_files_only=True) for file in FILES]
    except Exception:  # LocalEntryNotFoundError, or a name that cannot be a repository's
        return None
    return Path(files[0]).parent


def fetch(repository: str, megabytes: int | None, tell: Tell) -> Path:
    """The folder of a hub repository: from the local cache, else downloaded into it, which is told.

    Args:
        repository: its id.
        megabytes: of the download, if known.
        tell: is told of the download.

    Raises:
        InputError: it is not in the cache, and the hub cannot be reached or does not give it.
    """
    cached = in_hub_cache(repository)
    if cached is not None:
        return cached
    from huggingface_hub import constants, hf_hub_download

    cure = "give --boxes FILE, a folder with a detector, or --detector whole"
    reason = out_of_reach(constants.ENDPOINT)
    if reason is not None:
        raise InputError(
            f"detector {repository}: not in the local cache, and {constants.ENDPOINT}: {reason}; {cure}"
        )
    size = "" if megabytes is None else f"{megabytes} MB, "
    tell(f"downloading {repository}, {size}for this and later times")
    try:
        files = [hf_hub_download(repository, file) for file in FILES]
    except Exception as error:  # whatever the network, the hub or the disk may raise
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise InputError(f"detector {repository}: not to be had from the hub ({lines[0]}); {cure}") from error
    return Path(files[0]).parent


def _load(folder: Path, name: str) -> tuple[Any, Any]:
    """Image processor and model from a folder."""
    with needs_extra("detect", f"detector {name}: needs transformers"):
        from transformers import AutoImageProcessor, AutoModelForObjectDetection
    try:
        with _quiet():
            processor = AutoImageProcessor.from_pretrained(folder, local_files_only=True)
            model, facts = AutoModelForObjectDetection.from_pretrained(
                folder, local_files_only=True, use_safetensors=True, output_loading_info=True
            )
    except Exception as error:  # a damaged file, or a model of another kind, raises anything
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise InputError(
            f"detector {name}: {folder} holds no object detector that can be used ({lines[0]})"
        ) from error
    lacking = sorted(facts["missing_keys"]) + sorted(str(key) for key in facts["mismatched_keys"])
    if lacking:
        raise InputError(
            f"detector {name}: {folder / FILES[2]} lacks {len(lacking)} weights of the model "
            f"({lacking[0]}, ...); give the file of a trained detector"
        )
    return processor, model.float()  # files of half precision stay so, and pictures come as float32


def _person_labels(classes: dict[int, str], name: str) -> list[int]:
    """Numbers of the class "person"."""
    labels = [int(number) for number, label in classes.items() if str(label).lower() == PERSON]
    if not labels:
        some = ", ".join(str(label) for label in list(classes.values())[:5])
        raise InputError(
            f'detector {name}: none of its {len(classes)} classes is "{PERSON}" (it knows {some}, ...); '
            "give a detector that was trained on persons, or correct id2label in its config.json"
        )
    return labels


@contextmanager
def _quiet() -> Iterator[None]:
    """Without transformers' own progress bars and warnings: what matters is checked and raised here."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
