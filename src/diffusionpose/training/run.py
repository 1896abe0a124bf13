"""One training from start to end, or from where it was interrupted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.strategies import DDPStrategy

from diffusionpose.errors import InputError
from diffusionpose.files import file_digest
from diffusionpose.models.pose_model import PoseModel
from diffusionpose.skeletons import get_skeleton
from diffusionpose.training.data import PersonDataModule, read_persons
from diffusionpose.training.epochs import EpochEnd
from diffusionpose.training.folder import AtomicCheckpointIO, RunFolder
from diffusionpose.training.manners import first_process, plain_endings, quiet
from diffusionpose.training.module import PoseTraining
from diffusionpose.training.progress import Pace, TrainingBar
from diffusionpose.training.settings import ImageSet, Machine, TrainingSettings
from diffusionpose.training.start import starting_model
from diffusionpose.training.validation import Validation


@dataclass(frozen=True)
class Summary:
    """How a training ended.

    Args:
        folder: of the run.
        epochs: done in all.
        resumed_from: epochs that were already done.
        metrics: the last row of ``metrics.csv``.
        first_process: of all that train together: the one to report.
        failures: what could not be done, in words (pictures that could not be read).
    """

    folder: RunFolder
    epochs: int
    resumed_from: int
    metrics: dict[str, str]
    first_process: bool
    failures: list[str] = field(default_factory=list)


def train(
    settings: TrainingSettings,
    train_sets: Sequence[ImageSet],
    val_set: ImageSet,
    output: Path,
    machine: Machine | None = None,
    weights: Path | str | None = None,
    encoder_weights: Path | None = None,
    progress: bool = True,
) -> Summary:
    """Train a model; a run that ``output`` already holds is resumed after its last whole epoch, and ends
    in the weights of an uninterrupted one: all that is random comes from (seed, epoch or step, index).

    Args:
        settings: from a recipe.
        train_sets: one or several; joints are matched to the model's skeleton by name.
        val_set: validated with ground-truth boxes.
        output: folder of the run.
        machine: accelerator, processes, workers; None for one process.
        weights, encoder_weights: of ``start.starting_model``.
        progress: show a bar (one line an epoch is always printed).

    Raises:
        InputError: something given cannot be used, the disk is full or the loss not finite.
    """
    machine, folder = machine or Machine(), RunFolder(output)
    folder.prepare()
    start = {"weights": weights, "encoder_weights": encoder_weights}
    with folder.sole_use():
        return _train(settings, train_sets, val_set, machine, folder, start, progress)


def _train(
    settings: TrainingSettings,
    train_sets: Sequence[ImageSet],
    val_set: ImageSet,
    machine: Machine,
    folder: RunFolder,
    start: dict[str, Any],
    progress: bool,
) -> Summary:
    """:func:`train` in a folder that is ready and nobody else's."""
    skeleton = get_skeleton(settings.skeleton)
    sets = [(read_persons(each, skeleton).labelled(), each.images) for each in train_sets]
    validation = Validation(val_set, skeleton, settings, machine)
    entries = _entries(settings, train_sets, val_set, machine, start)
    done = folder.resume_epoch(entries)
    if done >= settings.epochs:
        return Summary(folder, done, done, _last_row(folder), first_process())
    folder.write_settings(entries)  # by every process the same, each in one stroke
    shares = [each.share for each in train_sets]
    data = PersonDataModule(sets, settings, machine, first_epoch=done, shares=shares)
    model = starting_model(settings, **start, resuming=done > 0)
    _fit(model, data, settings, machine, folder, validation, progress)
    failed = list(dict.fromkeys([*data.failures(), *validation.failures]))
    return Summary(folder, settings.epochs, done, _last_row(folder), first_process(), failed)


def _fit(
    model: PoseModel,
    data: PersonDataModule,
    settings: TrainingSettings,
    machine: Machine,
    folder: RunFolder,
    validation: Validation,
    progress: bool,
) -> None:
    """All epochs from ``data.first_epoch`` on."""
    with quiet(), plain_endings():
        trainer = _trainer(settings, machine, folder, validation, data.steps_per_epoch, progress)
        training = PoseTraining(model, settings, data.steps_per_epoch)
        checkpoint = folder.checkpoint if data.first_epoch else None
        trainer.fit(training, data, ckpt_path=checkpoint, weights_only=True)


def _trainer(
    settings: TrainingSettings,
    machine: Machine,
    folder: RunFolder,
    validation: Validation,
    steps: int,
    progress: bool,
) -> pl.Trainer:
    pace = Pace(settings.batch_size * machine.processes, steps, settings.epochs)
    callbacks: list[pl.Callback] = [EpochEnd(folder, validation, pace)]
    if progress:
        callbacks.append(TrainingBar(pace))
    try:
        return pl.Trainer(
            **_options(settings, machine, folder), callbacks=callbacks, enable_progress_bar=progress
        )
    except (MisconfigurationException, ImportError, ValueError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(
            f"--accelerator {machine.accelerator} --devices {machine.devices}: {reason}"
        ) from error


def _options(settings: TrainingSettings, machine: Machine, folder: RunFolder) -> dict[str, Any]:
    return {
        "accelerator": machine.accelerator,
        "devices": machine.devices,
        "num_nodes": machine.nodes,
        "strategy": DDPStrategy() if machine.processes > 1 else "auto",
        "precision": "bf16-mixed" if settings.precision == "bf16-mixed" else "32-true",
        "sync_batchnorm": settings.sync_batchnorm,
        "max_epochs": settings.epochs,
        "limit_val_batches": 0,
        "num_sanity_val_steps": 0,
        "use_distributed_sampler": False,
        "enable_model_summary": False,
        "default_root_dir": folder.path,
        "logger": _TensorBoard(folder.path, name="logs", version=""),
        "plugins": [AtomicCheckpointIO()],
    }


class _TensorBoard(TensorBoardLogger):
    """Without the file of hyperparameters: ``settings.json`` holds them."""

    def save(self) -> None:
        """Write what is buffered."""
        self.experiment.flush()


def _entries(
    settings: TrainingSettings,
    train_sets: Sequence[ImageSet],
    val_set: ImageSet,
    machine: Machine,
    start: dict[str, Any],
) -> dict[str, Any]:
    """What ``settings.json`` holds."""
    return {
        "settings": settings.to_dict(),
        "persons_per_step": settings.batch_size * machine.processes,
        "train": [_set_entry(each) | {"share": each.share} for each in train_sets],
        "val": _set_entry(val_set),
        "start": {name: _text(path) for name, path in start.items()},
        "torch": torch.__version__,
    }


def _set_entry(images: ImageSet) -> dict[str, str]:
    digest = file_digest(images.annotations)
    return {"images": str(images.images), "annotations": str(images.annotations), "sha256": digest}


def _text(path: Path | str | None) -> str | None:
    return None if path is None else str(path)


def _last_row(folder: RunFolder) -> dict[str, str]:
    rows = folder.rows()
    return rows[-1] if rows else {}
