"""The folder of a run: written so that a kill never loses what was done, checked before it is used."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from diffusionpose.errors import InputError, atomically, locked, make_writable
from diffusionpose.models.checkpoints import save_model
from diffusionpose.models.pose_model import PoseModel
from diffusionpose.training.processes import is_first
from diffusionpose.training.settings import TrainingSettings

FREE_TO_CHANGE = ("epochs", "val_every")
CHECKPOINT_FORMAT = 2  # 1 was Lightning's


class RunFolder:
    """What a run leaves behind.

    ``settings.json``, ``checkpoints/last.ckpt``, ``model.safetensors`` (newest), ``best.safetensors``
    (best validation AP), ``metrics.csv`` (one row an epoch) and ``logs/`` (TensorBoard).
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.settings_file = path / "settings.json"
        self.checkpoint = path / "checkpoints" / "last.ckpt"
        self.newest = path / "model.safetensors"
        self.best = path / "best.safetensors"
        self.metrics = path / "metrics.csv"

    @contextmanager
    def opened(self) -> Iterator[None]:
        """The folder is there and can be written to; the first process keeps other trainings out.

        Raises:
            InputError: it cannot be written to, or another training is at work in it.
        """
        try:
            make_writable(self.path)
            self.checkpoint.parent.mkdir(exist_ok=True)
        except OSError as error:
            raise InputError(
                f"{self.path}: cannot write here ({error.strerror}); give another --output"
            ) from error
        if not is_first():
            yield
            return
        lock = locked(self.path / ".lock")
        try:
            lock.__enter__()
        except BlockingIOError as error:
            raise InputError(
                f"{self.path}: another training is at work in this folder; wait for it, stop it, or "
                "give another --output"
            ) from error
        try:
            yield
        finally:
            lock.__exit__(None, None, None)

    def resume(self, entries: Mapping[str, Any]) -> dict[str, Any] | None:
        """The checkpoint to go on from, None for a new run.

        Args:
            entries: what ``settings.json`` is to hold.

        Raises:
            InputError: the run in this folder had other settings or data, or a file of it is damaged.
        """
        if not self.checkpoint.exists():
            return None
        if differences := self._differences(entries):
            raise InputError(
                f"{self.settings_file}: this folder holds a run with other settings "
                f"({'; '.join(differences)}); give the same ones to resume it, or another --output "
                f"(free to change: {', '.join(FREE_TO_CHANGE)})"
            )
        self.rows()
        return read_checkpoint(self.checkpoint)

    def _differences(self, wanted: Mapping[str, Any]) -> list[str]:
        """In what the run differs from what is wanted, where it changes the numbers.

        The batch may be split over another number of processes, but its total stays.
        """
        try:
            before = json.loads(self.settings_file.read_text())
            old = TrainingSettings.from_dict(before["settings"]).to_dict()
            sets = [(each["sha256"], each.get("share", 1.0)) for each in before["train"]]
            persons = before["persons_per_step"]
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise InputError(
                f"{self.settings_file}: cannot be read, so the run in this folder cannot be resumed; "
                f"give another --output, or delete {self.checkpoint} to start again"
            ) from error
        new = wanted["settings"]
        found = [
            f"{name} was {old[name]!r}, is {new[name]!r}"
            for name in new
            if name not in (*FREE_TO_CHANGE, "batch_size") and old[name] != new[name]
        ]
        if persons != wanted["persons_per_step"]:
            found.append(f"persons per step were {persons}, are {wanted['persons_per_step']}")
        digests, shares = zip(*((each["sha256"], each["share"]) for each in wanted["train"]), strict=True)
        if [digest for digest, _ in sets] != list(digests):
            found.append("other training annotations")
        elif [share for _, share in sets] != list(shares):
            found.append("other --shares of the training sets")
        return found

    def write_settings(self, entries: Mapping[str, Any]) -> None:
        """Write ``settings.json``."""
        text = json.dumps(entries, indent=2) + "\n"
        with writing(self.settings_file):
            atomically(self.settings_file, lambda part: part.write_text(text))

    def write_checkpoint(self, checkpoint: Mapping[str, Any]) -> None:
        """Write ``last.ckpt``; a kill or a full disk leaves the one before whole."""
        entries = {**checkpoint, "format": CHECKPOINT_FORMAT}
        with writing(self.checkpoint):
            atomically(self.checkpoint, lambda part: torch.save(entries, part))

    def write_model(self, model: PoseModel, best: bool) -> None:
        """Write the newest model, and as the best one too where it is."""
        for path in (self.newest, self.best) if best else (self.newest,):
            with writing(path):
                save_model(model, path)

    def write_row(self, row: Mapping[str, Any]) -> None:
        """Add an epoch's row to ``metrics.csv``, in place of rows of that epoch and later ones."""
        rows = [old for old in self.rows() if int(old["epoch"]) < row["epoch"]]

        def write(part: Path) -> None:
            with part.open("w", newline="") as file:
                writer = csv.DictWriter(file, fieldnames=list(row), restval="", extrasaction="ignore")
                writer.writeheader()
                writer.writerows([*rows, row])

        with writing(self.metrics):
            atomically(self.metrics, write)

    def rows(self) -> list[dict[str, str]]:
        """The rows of ``metrics.csv`` so far; InputError for a damaged file."""
        if not self.metrics.exists():
            return []
        try:
            with self.metrics.open(newline="") as file:
                rows = list(csv.DictReader(file))
            for row in rows:
                int(row["epoch"])
        except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
            raise InputError(
                f"{self.metrics}: not the table of a run ({error}); mend it, or delete it: the training "
                "goes on all the same, and a new table begins"
            ) from error
        return rows


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The entries of a checkpoint, tensors on the CPU; nothing but tensors and plain types is loaded.

    Raises:
        InputError: no whole checkpoint of this version.
    """
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises a dozen kinds for a cut or foreign file
        raise _not_whole(path, type(error).__name__) from error
    if isinstance(checkpoint, dict) and "pytorch-lightning_version" in checkpoint:
        raise InputError(
            f"{path}: of an older version, whose runs this one does not resume; give another --output and "
            f"--weights {path.parent.parent} to start from its weights"
        )
    kinds = {"epoch": int, "model": dict, "average": dict | None, "optimiser": dict, "best_ap": float}
    if not isinstance(checkpoint, dict) or checkpoint.get("format") != CHECKPOINT_FORMAT:
        raise _not_whole(path, "other content")
    if wrong := [name for name, kind in kinds.items() if not isinstance(checkpoint.get(name, ...), kind)]:
        raise _not_whole(path, f"no usable {', '.join(wrong)}")
    return checkpoint


def _not_whole(path: Path, reason: str) -> InputError:
    return InputError(
        f"{path}: not a whole checkpoint ({reason}); put back a copy of it, or delete it to train from the "
        f"start (with --weights {path.parent.parent / 'model.safetensors'} from its last weights)"
    )


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what a full or read-only disk raises into an InputError that names the file."""
    try:
        yield
    except (OSError, RuntimeError) as error:  # torch.save raises RuntimeError on a full disk
        raise InputError(
            f"{path}: cannot be written ({error}); free some space or mend the folder, then give the same "
            "command again: it goes on from the last whole checkpoint"
        ) from error
