"""What a training shows: a bar in a terminal, one line an epoch everywhere."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import TQDMProgressBar

from diffusionpose.training.module import PoseTraining


class Pace:
    """How fast the run goes: persons per second of the epoch, time left of the run."""

    def __init__(self, persons_per_step: int, steps_per_epoch: int, epochs: int) -> None:
        self.persons_per_step, self.steps_per_epoch, self.epochs = persons_per_step, steps_per_epoch, epochs
        self.began = self.epoch_began = time.monotonic()
        self.other_seconds = 0.0
        self.first_epoch = self.epoch = 0

    def start_run(self, epoch: int) -> None:
        """Called once, with the first epoch of this sitting."""
        self.first_epoch, self.began = epoch, time.monotonic()

    def start_epoch(self, epoch: int) -> None:
        """Called at the start of every epoch."""
        self.epoch, self.epoch_began = epoch, time.monotonic()

    def seconds(self) -> float:
        """Seconds since the epoch began."""
        return time.monotonic() - self.epoch_began

    def persons_per_second(self, steps: int) -> float:
        """Over the ``steps`` done in this epoch."""
        return steps * self.persons_per_step / max(self.seconds(), 1e-9)

    def left(self, steps: int) -> str:
        """Time to the end of the run, from the mean pace of this sitting (validation included)."""
        done = (self.epoch - self.first_epoch) * self.steps_per_epoch + steps
        ahead = (self.epochs - self.first_epoch) * self.steps_per_epoch - done
        return str(timedelta(seconds=round((time.monotonic() - self.began) / max(done, 1) * ahead)))


class TrainingBar(TQDMProgressBar):
    """Lightning's bar with the loss, persons per second, the last validation AP and the time left."""

    BAR_FORMAT = "{desc} {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt}{postfix}"

    def __init__(self, pace: Pace) -> None:
        super().__init__(refresh_rate=5)
        self.pace = pace
        self.validation_ap = float("nan")

    def on_train_epoch_start(self, trainer: pl.Trainer, *args: Any) -> None:
        """Name the epoch, counted from 1."""
        super().on_train_epoch_start(trainer, *args)
        self.train_progress_bar.set_description_str(f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}")

    def get_metrics(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, int | str]:  # type: ignore[override]
        """What stands behind the bar."""
        assert isinstance(pl_module, PoseTraining)
        steps = trainer.fit_loop.epoch_loop.batch_progress.current.ready
        shown: dict[str, int | str] = {
            "loss": f"{pl_module.last_loss:.3g}",
            "persons/s": f"{self.pace.persons_per_second(steps):.1f}",
        }
        if self.validation_ap == self.validation_ap:
            shown["val AP"] = f"{100 * self.validation_ap:.1f}"
        return shown | {"left": self.pace.left(steps)}
