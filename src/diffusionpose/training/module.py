"""The Lightning module: one training step, the optimiser, and the moving average."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor, nn

from diffusionpose.errors import InputError
from diffusionpose.models.pose_model import PoseModel
from diffusionpose.training.ema import averaged_copy, update_average
from diffusionpose.training.optimiser import make_optimiser
from diffusionpose.training.schedule import learning_rate
from diffusionpose.training.settings import TrainingSettings

CHECK_EVERY = 20  # steps between looks at the loss: each look waits for the device


class PoseTraining(pl.LightningModule):
    """Minimises a model's own loss.

    Every random number of a step comes from (seed, step): the noise is drawn for the whole batch of all
    processes and each takes its rows, so that the numbers depend neither on where a run was
    interrupted nor on how many processes share the batch.

    Args:
        model: to train.
        settings: optimiser, schedule, average, seed.
        steps_per_epoch: optimiser steps in an epoch.
    """

    def __init__(self, model: PoseModel, settings: TrainingSettings, steps_per_epoch: int) -> None:
        super().__init__()
        self.model = model.to(memory_format=torch.channels_last)
        self.average = averaged_copy(model) if settings.ema_decay else None
        self.settings, self.steps_per_epoch = settings, steps_per_epoch
        self.loss_sum: Tensor | None = None
        self.last_loss = float("nan")

    @property
    def result(self) -> PoseModel:
        """The model to validate and to save: the moving average, or the model itself without one."""
        return self.model if self.average is None else self.average  # type: ignore[return-value]

    def train(self, mode: bool = True) -> PoseTraining:
        """As usual, except that the moving average never leaves evaluation mode."""
        super().train(mode)
        if self.average is not None:
            self.average.eval()
        return self

    def on_train_epoch_start(self) -> None:
        """Begin the epoch's mean loss."""
        self.loss_sum = torch.zeros((), device=self.device)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Set the step's learning rate and the seed of whatever draws inside the network (drop-out)."""
        rate = learning_rate(self.settings, self.global_step, self.steps_per_epoch)
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = rate * group.get("lr_scale", 1.0)
        torch.manual_seed(step_seed(self.settings.seed, self.global_step, self.global_rank))

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """The loss of ``image`` (b, 3, h, w) uint8, ``keypoints`` (b, j, 2), ``visible`` (b, j)."""
        images = batch["image"].contiguous(memory_format=torch.channels_last)
        noise = self.own_noise(len(images))
        losses = self.model.loss(images, batch["keypoints"], batch["visible"], noise=noise)
        loss = losses["loss"]
        assert self.loss_sum is not None
        self.loss_sum += loss.detach()
        if batch_idx % CHECK_EVERY == 0 or batch_idx + 1 == self.steps_per_epoch:
            self.watch({name: float(value.detach()) for name, value in losses.items()})
        return loss

    def own_noise(self, count: int) -> dict[str, Tensor]:
        """This process's rows of the step's noise, on this process's device."""
        generator = torch.Generator().manual_seed(step_seed(self.settings.seed, self.global_step))
        world = self.trainer.world_size
        drawn = self.model.draw_noise(count * world, generator) or {}
        return {name: value[self.global_rank :: world].to(self.device) for name, value in drawn.items()}

    def watch(self, losses: dict[str, float]) -> None:
        """Note the losses of a step; stop at once when the training has diverged."""
        self.last_loss = losses["loss"]
        if not torch.isfinite(torch.tensor(self.last_loss)):
            raise InputError(
                f"the loss is {self.last_loss} at step {self.global_step}: the training has diverged; give a "
                "lower --learning-rate or --clip-norm 1, and another --output (checkpoints so far are kept)"
            )
        if self.logger is not None:
            rate = learning_rate(self.settings, self.global_step, self.steps_per_epoch)
            scalars = {f"train/{name}": value for name, value in losses.items()} | {
                "train/learning_rate": rate
            }
            self.logger.log_metrics(scalars, step=self.global_step)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Follow the new weights with the average."""
        if self.average is not None:
            update_average(self.average, self.model, self.settings.ema_decay, self.global_step)

    def epoch_loss(self) -> float:
        """The mean loss of the epoch's steps over all processes; to be called by all of them."""
        assert self.loss_sum is not None
        mean = self.trainer.strategy.reduce(self.loss_sum / self.steps_per_epoch, reduce_op="mean")
        return float(mean)

    def configure_gradient_clipping(self, optimizer: Any, *_: Any, **__: Any) -> None:
        """Clip the norm of the gradient where the settings say so."""
        if self.settings.clip_norm:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.clip_norm)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """By the settings."""
        return make_optimiser(self.model, self.settings)


def step_seed(seed: int, step: int, rank: int = 0) -> int:
    """A 63-bit seed from (seed, step, rank); neighbouring steps give unrelated streams."""
    words = np.random.SeedSequence((seed, step, rank)).generate_state(2, np.uint32)
    return (int(words[0]) << 31) ^ int(words[1])
