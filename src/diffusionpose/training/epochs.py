"""What happens after every epoch: validate, save, record; in an order that any kill leaves resumable."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.loggers import TensorBoardLogger
from tqdm import tqdm

from diffusionpose.models.pose_model import PoseModel
from diffusionpose.models.weights import save_model
from diffusionpose.training.folder import RunFolder, writing
from diffusionpose.training.module import PoseTraining
from diffusionpose.training.progress import Pace, TrainingBar
from diffusionpose.training.schedule import learning_rate
from diffusionpose.training.validation import Validation

COLUMNS = ("AP", "AP50", "AP75", "AR", "PCK", "PCK_limbs")


class EpochEnd(Checkpoint):
    """Validates the averaged weights, writes models, the row and last the checkpoint.

    The checkpoint comes last: a run killed before it repeats the epoch and writes the same again.

    Args:
        folder: of the run.
        validation: of the averaged weights.
        pace: of the run.
    """

    def __init__(self, folder: RunFolder, validation: Validation, pace: Pace) -> None:
        self.folder, self.validation, self.pace = folder, validation, pace
        self.best_ap = -1.0

    def state_dict(self) -> dict[str, Any]:
        """What the checkpoint holds of this."""
        return {"best_ap": self.best_ap}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """The inverse of :meth:`state_dict`."""
        self.best_ap = state_dict["best_ap"]

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock of this sitting."""
        self.pace.start_run(trainer.current_epoch)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock of the epoch."""
        self.pace.start_epoch(trainer.current_epoch)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Everything this class is for."""
        assert isinstance(pl_module, PoseTraining)
        loss = pl_module.epoch_loss()
        seconds = self.pace.seconds()
        metrics = self._validate(trainer, pl_module)
        if trainer.is_global_zero:
            self._save_models(pl_module.result, metrics)
            self._record(trainer, pl_module, loss, seconds, metrics)
        trainer.datamodule.share_broken()  # type: ignore[attr-defined]
        trainer.strategy.barrier()
        trainer.save_checkpoint(self.folder.checkpoint)

    def _validate(self, trainer: pl.Trainer, training: PoseTraining) -> dict[str, float]:
        done, settings = trainer.current_epoch + 1, training.settings
        if done % settings.val_every and done != settings.epochs:
            return {}
        return self.validation(training.result, trainer.global_rank, trainer.world_size)

    def _save_models(self, model: PoseModel, metrics: dict[str, float]) -> None:
        with writing(self.folder.newest):
            save_model(model, self.folder.newest)
        if metrics.get("AP", -1.0) > self.best_ap:
            self.best_ap = metrics["AP"]
            with writing(self.folder.best):
                save_model(model, self.folder.best)

    def _record(
        self,
        trainer: pl.Trainer,
        training: PoseTraining,
        loss: float,
        seconds: float,
        metrics: dict[str, float],
    ) -> None:
        steps, epoch = training.steps_per_epoch, trainer.current_epoch
        speed = steps * self.pace.persons_per_step / seconds
        rate = learning_rate(training.settings, trainer.global_step - 1, steps)
        row = {"epoch": epoch, "step": trainer.global_step, "loss": loss, "learning_rate": rate}
        row |= {"seconds": round(seconds, 1), "persons_per_s": round(speed, 1)}
        self.folder.write_row(row | {name: metrics.get(name, "") for name in COLUMNS})
        self._log(trainer, metrics, loss)
        shown = "".join(f"  {name} {100 * metrics[name]:.1f}" for name in COLUMNS if name in metrics)
        tqdm.write(
            f"epoch {epoch + 1}/{training.settings.epochs}  loss {loss:.4g}  {speed:.1f} persons/s{shown}"
            f"  {self.pace.left(steps)} left"
        )
        bar = trainer.progress_bar_callback
        if isinstance(bar, TrainingBar) and "AP" in metrics:
            bar.validation_ap = metrics["AP"]

    def _log(self, trainer: pl.Trainer, metrics: dict[str, float], loss: float) -> None:
        if not isinstance(trainer.logger, TensorBoardLogger):
            return
        scalars = {f"val/{name}": value for name, value in metrics.items()} | {"train/epoch_loss": loss}
        trainer.logger.log_metrics(scalars, step=trainer.global_step)
        if metrics:
            trainer.logger.experiment.add_image("val/poses", self.validation.picture(), trainer.global_step)
        trainer.logger.experiment.flush()
