"""The folder of a run: what lies in it, how it is written so that a kill never loses what was done."""

from __future__ import annotations

import csv
import json
import logging
import signal
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch import distributed

from diffusionpose.errors import InputError, atomically, locked, make_writable
from diffusionpose.training.settings import TrainingSettings


def first_process() -> bool:
    """Whether this is the one of all processes that writes and reports."""
    return getattr(rank_zero_only, "rank", 0) in (0, None)


@contextmanager
def quiet() -> Iterator[None]:
    """No notices and hints of Lightning's: what matters is said by the run itself."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="lightning")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextmanager
def plain_endings() -> Iterator[None]:
    """What Lightning makes of signals put right: SIGTERM it ends with status 0, Ctrl-C it swallows.

    And of several processes only the one in which something went wrong says so.
    """
    try:
        yield
    except SIGTERMException:
        raise SystemExit(128 + signal.SIGTERM) from None
    except SystemExit:
        raise KeyboardInterrupt from None
    except RuntimeError as error:
        lost = isinstance(error, distributed.DistError) or "gloo" in str(error)
        if lost and not first_process():
            raise SystemExit(1) from error
        raise


# The folder of a run: what lies in it, how it is written so that a kill never loses what was done

FREE_TO_CHANGE = ("epochs", "val_every")


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

    def prepare(self) -> None:
        """Make the folder; InputError where it cannot be written to."""
        try:
            make_writable(self.path)
            self.checkpoint.parent.mkdir(exist_ok=True)
        except OSError as error:
            raise InputError(
                f"{self.path}: cannot write here ({error.strerror}); give another --output"
            ) from error

    @contextmanager
    def sole_use(self) -> Iterator[None]:
        """Keep other trainings out for as long as the block runs: the first process holds the folder for all.

        Raises:
            InputError: another training is at work in it.
        """
        if not first_process():
            yield
            return
        with ExitStack() as stack:
            try:
                stack.enter_context(locked(self.path / ".lock"))
            except BlockingIOError as error:
                raise InputError(
                    f"{self.path}: another training is at work in this folder; wait for it, stop it, or "
                    "give another --output"
                ) from error
            yield

    def resume_epoch(self, wanted: Mapping[str, Any]) -> int:
        """The epoch to go on from, 0 for a new run.

        Raises:
            InputError: the run in this folder had other settings or data, or its checkpoint cannot be read.
        """
        if not self.checkpoint.exists():
            return 0
        before = self._settings_before()
        if differences := list(_differences(before, wanted)):
            raise InputError(
                f"{self.settings_file}: this folder holds a run with other settings "
                f"({'; '.join(differences)}); give the same ones to resume it, or another --output "
                f"(free to change: {', '.join(FREE_TO_CHANGE)})"
            )
        return int(read_checkpoint(self.checkpoint)["epoch"]) + 1

    def _settings_before(self) -> dict[str, Any]:
        try:
            before: dict[str, Any] = json.loads(self.settings_file.read_text())
            TrainingSettings.from_dict(before["settings"])
            return before
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{self.settings_file}: cannot be read, so the run in this folder cannot be resumed; "
                f"give another --output, or delete {self.checkpoint} to start again"
            ) from error

    def write_settings(self, entries: Mapping[str, Any]) -> None:
        """Write ``settings.json``."""
        text = json.dumps(entries, indent=2) + "\n"
        with writing(self.settings_file):
            atomically(self.settings_file, lambda temporary: temporary.write_text(text))

    def write_row(self, row: Mapping[str, Any]) -> None:
        """Add an epoch's row to ``metrics.csv``, in place of rows of that epoch and later ones."""

        def write(temporary: Path) -> None:
            rows = [old for old in self.rows() if int(old["epoch"]) < row["epoch"]]
            with temporary.open("w", newline="") as file:
                writer = csv.DictWriter(file, fieldnames=list(row), restval="", extrasaction="ignore")
                writer.writeheader()
                writer.writerows([*rows, row])

        with writing(self.metrics):
            atomically(self.metrics, write)

    def rows(self) -> list[dict[str, str]]:
        """The rows of ``metrics.csv`` so far."""
        if not self.metrics.exists():
            return []
        with self.metrics.open(newline="") as file:
            return list(csv.DictReader(file))


class AtomicCheckpointIO(TorchCheckpointIO):
    """Checkpoints that a kill or a full disk leaves whole: a new file beside the old one, then a rename.

    Loads nothing but tensors and plain types (``weights_only``).
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write ``path``; InputError where the disk does not take it."""
        with writing(Path(path)):
            atomically(Path(path), lambda temporary: torch.save(checkpoint, temporary))

    def load_checkpoint(
        self, path: Any, map_location: Any = "cpu", weights_only: bool | None = True
    ) -> dict[str, Any]:
        """Read ``path``; InputError where it was cut."""
        return read_checkpoint(Path(path))


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The entries of a checkpoint, tensors on the CPU; InputError naming the file and the cure."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises a dozen kinds for a cut or foreign file
        raise InputError(
            f"{path}: not a whole checkpoint ({type(error).__name__}); put back a copy of it, or delete it "
            f"to train from the start (with --weights {path.parent.parent / 'model.safetensors'} "
            "from its last weights)"
        ) from error


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


def _differences(before: Mapping[str, Any], wanted: Mapping[str, Any]) -> Iterator[str]:
    """What differs between two ``settings.json``, where it changes the numbers.

    The batch may be split over another number of processes, but its total stays.
    """
    old = TrainingSettings.from_dict(before["settings"]).to_dict()
    new = TrainingSettings.from_dict(wanted["settings"]).to_dict()
    for name in new:
        if name not in (*FREE_TO_CHANGE, "batch_size") and old[name] != new[name]:
            yield f"{name} was {old[name]!r}, is {new[name]!r}"
    if before.get("persons_per_step") != wanted["persons_per_step"]:
        yield f"persons per step were {before.get('persons_per_step')}, are {wanted['persons_per_step']}"
    if [s["sha256"] for s in before.get("train", [])] != [s["sha256"] for s in wanted["train"]]:
        yield "other training annotations"
    if [s.get("share", 1.0) for s in before.get("train", [])] != [s["share"] for s in wanted["train"]]:
        yield "other --shares of the training sets"
