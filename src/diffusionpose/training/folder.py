"""The folder of a run: written so that a kill never loses what was done, checked before it is used."""

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch

from diffusionpose.errors import InputError, locked, make_writable, write_file
from diffusionpose.training.processes import is_first
from diffusionpose.training.settings import TrainingSettings

ENTRIES = ("epoch", "model", "average", "optimiser", "best_ap")  # of a checkpoint
FREE_TO_CHANGE = ("epochs", "val_every", "batch_size")  # of the last the total stays, see persons_per_step
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
        with ExitStack() as stack:
            try:
                make_writable(self.path)
                self.checkpoint.parent.mkdir(exist_ok=True)
                if is_first():
                    stack.enter_context(locked(self.path))
            except OSError as error:
                raise InputError(
                    f"{self.path}: cannot write here ({error.strerror}); give another --output"
                ) from error
            yield

    def resume(self, entries: Mapping[str, Any]) -> dict[str, Any] | None:
        """The checkpoint to go on from, None for a new run.

        Args:
            entries: what ``settings.json`` is to hold.

        Raises:
            InputError: the run in this folder had other settings or data, or a file of it is damaged.
        """
        if not self.checkpoint.exists():
            return None
        try:
            before = json.loads(self.settings_file.read_text())
            old = TrainingSettings.from_dict(before["settings"]).to_dict()
            digests, shares = zip(*((each["sha256"], each["share"]) for each in before["train"]), strict=True)
            persons = before["persons_per_step"]
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise InputError(
                f"{self.settings_file}: cannot be read, so the run in this folder cannot be resumed; "
                f"give another --output, or delete {self.checkpoint} to start again"
            ) from error
        differing = [
            f"{name} was {old[name]!r}, is {value!r}"
            for name, value in entries["settings"].items()
            if name not in FREE_TO_CHANGE and old[name] != value
        ]
        if persons != entries["persons_per_step"]:
            differing.append(f"persons per step were {persons}, are {entries['persons_per_step']}")
        if before.get("skeleton", entries["skeleton"]) != entries["skeleton"]:
            differing.append(f"other joints, limbs, pairs or sigmas of skeleton {old['skeleton']}")
        if list(digests) != [each["sha256"] for each in entries["train"]]:
            differing.append("other training annotations")
        elif list(shares) != [each["share"] for each in entries["train"]]:
            differing.append("other --shares of the training sets")
        if differing:
            raise InputError(
                f"{self.settings_file}: this folder holds a run with other settings "
                f"({'; '.join(differing)}); give the same ones to resume it, or another --output "
                "(free to change: epochs, val_every)"
            )
        self.rows()
        return read_checkpoint(self.checkpoint, ENTRIES)

    def write_checkpoint(self, checkpoint: Mapping[str, Any]) -> None:
        """Write ``last.ckpt``; a kill or a full disk leaves the one before whole."""
        write_file(self.checkpoint, partial(torch.save, {**checkpoint, "format": CHECKPOINT_FORMAT}))

    def write_row(self, row: Mapping[str, Any]) -> None:
        """Add an epoch's row to ``metrics.csv``, in place of rows of that epoch and later ones."""
        text = io.StringIO(newline="")
        table = csv.DictWriter(text, list(row), restval="", extrasaction="ignore")
        table.writeheader()
        table.writerows([*(old for old in self.rows() if int(old["epoch"]) < row["epoch"]), row])
        write_file(self.metrics, text.getvalue().encode())

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


def read_checkpoint(path: Path, names: Iterable[str] = ()) -> dict[str, Any]:
    """The entries of a checkpoint, tensors on the CPU; nothing but tensors and plain types is loaded.

    Raises:
        InputError: no whole checkpoint of this version, or one without the entries of these names.
    """
    reason = "other content"
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        whole = isinstance(checkpoint, dict) and checkpoint.keys() >= set(names)
        if whole and checkpoint.get("format") == CHECKPOINT_FORMAT:
            return checkpoint
    except Exception as error:  # torch raises a dozen kinds for a cut or foreign file
        reason = type(error).__name__
    weights = path.parent.parent / "model.safetensors"
    raise InputError(
        f"{path}: not a whole checkpoint of this version ({reason}); put back a copy of it, or delete it to "
        f"train from the start (with --weights {weights} from its last weights)"
    )
