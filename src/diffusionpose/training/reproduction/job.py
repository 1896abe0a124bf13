"""A job: one training and its measurements, as plain data that crosses from process to process."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from diffusionpose import files
from diffusionpose.errors import InputError
from diffusionpose.training.settings import ImageSet, Machine, TrainingSettings

OPTIONAL_FILES = ("boxes", "encoder_weights", "weights")  # of Data, in its order


@dataclass(frozen=True)
class Data:
    """What all trainings of an output folder learn from and are measured on.

    Attributes:
        train: one or several sets.
        val: measured on.
        boxes: detected person boxes of ``val``; None for the annotated ones.
        encoder_weights: ImageNet weights of the encoder; None lets timm fetch them.
        weights: a trained model that every training starts from instead.
    """

    train: tuple[ImageSet, ...]
    val: ImageSet
    boxes: Path | None = None
    encoder_weights: Path | None = None
    weights: Path | None = None

    def digests(self) -> dict[str, Any]:
        """SHA-256 of every file: what makes two data sets the same."""
        return {
            "training annotations": [file_digest(each.annotations) for each in self.train],
            "validation annotations": file_digest(self.val.annotations),
            "boxes": _digest_of(self.boxes),
            "encoder weights": _digest_of(self.encoder_weights),
            "weights": _digest_of(self.weights),
        }


@dataclass(frozen=True)
class Job:
    """One training and its measurements.

    Attributes:
        name: of the run.
        folder: of the run.
        settings: of the training.
        data: to learn from and to be measured on.
        steps: numbers of diffusion steps to measure.
        machine: of the training.
        threads: of the arithmetic, in the process that trains.
    """

    name: str
    folder: Path
    settings: TrainingSettings
    data: Data
    steps: tuple[int, ...] = (1,)
    machine: Machine = field(default_factory=Machine)
    threads: int = 1

    @property
    def model_file(self) -> Path:
        """The model after the last epoch: the best one is chosen on the very data it is measured on."""
        return self.folder / "model.safetensors"

    def result_file(self, steps: int) -> Path:
        """Where the measurement with so many diffusion steps lies."""
        return self.folder / "evaluation" / f"steps{steps}.json"

    def key(self, steps: int) -> dict[str, Any]:
        """What a measurement depends on; one with another key is stale."""
        data = self.data.digests()
        return {
            "model": file_digest(self.model_file),
            "settings": self.settings.to_dict(),
            "validation annotations": data["validation annotations"],
            "boxes": data["boxes"],
            "steps": steps,
        }

    def result(self, steps: int) -> dict[str, Any] | None:
        """The measurement with so many steps, None where it has still to be made."""
        try:
            found: dict[str, Any] = json.loads(self.result_file(steps).read_text())
            key = {**found["key"], "settings": complete_settings(found["key"]["settings"])}
            return found if key == _as_json(self.key(steps)) else None
        except (OSError, ValueError, KeyError, TypeError, InputError):
            return None

    @property
    def finished(self) -> bool:
        """Whether every measurement is there."""
        return all(self.result(steps) is not None for steps in self.steps)

    def to_json(self) -> str:
        """For the command line of the process that does it."""
        return json.dumps({**asdict(self), "settings": self.settings.to_dict()}, default=str)

    @classmethod
    def from_json(cls, text: str) -> Job:
        """The inverse of :meth:`to_json`."""
        entries = json.loads(text)
        data = entries["data"]
        return cls(
            name=entries["name"],
            folder=Path(entries["folder"]),
            settings=TrainingSettings.from_dict(entries["settings"]),
            data=Data(
                tuple(_image_set(each) for each in data["train"]),
                _image_set(data["val"]),
                *(None if data[name] is None else Path(data[name]) for name in OPTIONAL_FILES),
            ),
            steps=tuple(entries["steps"]),
            machine=Machine(**entries["machine"]),
            threads=entries["threads"],
        )


def _digest_of(path: Path | None) -> str | None:
    return None if path is None else file_digest(path)


def file_digest(path: Path) -> str:
    """SHA-256 of a file; InputError where it cannot be read."""
    try:
        stat = path.stat()
        return _digest(path, stat.st_mtime_ns, stat.st_size)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check the path") from error


@lru_cache(maxsize=256)
def _digest(path: Path, _changed: int, _size: int) -> str:
    return files.file_digest(path)


def complete_settings(before: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as an older version wrote them, with what has been added since at its default.

    Raises:
        InputError: one of them is no setting any more.
        TypeError, KeyError: they are none at all.
    """
    complete: dict[str, Any] = _as_json(TrainingSettings.from_dict(before).to_dict())
    return complete


def _image_set(entries: Mapping[str, str]) -> ImageSet:
    return ImageSet(Path(entries["images"]), Path(entries["annotations"]))


def _as_json(value: Any) -> Any:
    return json.loads(json.dumps(value))
