"""The learning rate as a pure function of the step, so that nothing of it needs saving."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import cv2
import lightning.pytorch as pl
import numpy as np
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Checkpoint, TQDMProgressBar
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.strategies import DDPStrategy
from timm.optim import param_groups_layer_decay  # type: ignore[attr-defined]
from torch import Tensor, distributed, nn
from tqdm import tqdm

from diffusionpose.data.dataset import PersonDataset, crops_of
from diffusionpose.errors import InputError, file_digest
from diffusionpose.evaluation.evaluate import Inference, Row, predict_persons, score_results
from diffusionpose.models.checkpoints import save_model
from diffusionpose.models.pose_model import PoseModel
from diffusionpose.skeletons import Skeleton, get_skeleton
from diffusionpose.training.data import PersonDataModule, read_persons, worker_count
from diffusionpose.training.folder import (
    AtomicCheckpointIO,
    RunFolder,
    first_process,
    plain_endings,
    quiet,
    writing,
)
from diffusionpose.training.settings import ImageSet, Machine, TrainingSettings
from diffusionpose.training.start import starting_model

COSINE_FLOOR = 0.01  # of the full rate, at the last step


def learning_rate(settings: TrainingSettings, step: int, steps_per_epoch: int) -> float:
    """The rate of optimiser step ``step`` (from 0).

    A linear warm-up over ``settings.warmup_steps``; then either divided by 10 at the start of each epoch of
    ``settings.drops`` (section 4.1 of the paper; HRNet's 170 and 200) or half a cosine over all epochs.
    """
    warmup = min(1.0, (step + 1) / settings.warmup_steps) if settings.warmup_steps else 1.0
    if settings.schedule == "cosine":
        done = min(1.0, step / max(1, settings.epochs * steps_per_epoch))
        factor = COSINE_FLOOR + (1 - COSINE_FLOOR) * 0.5 * (1 + math.cos(math.pi * done))
    else:
        epoch = step // steps_per_epoch
        factor = 0.1 ** sum(epoch >= drop for drop in settings.drops)
    return settings.learning_rate * warmup * factor


# The moving average of the weights


def averaged_copy(model: nn.Module) -> nn.Module:
    """A copy of the model to hold its moving average: no gradients, always in evaluation mode."""
    return copy.deepcopy(model).requires_grad_(False).eval()


@torch.no_grad()
def update_average(average: nn.Module, model: nn.Module, decay: float, step: int) -> None:
    """average <- decay * average + (1 - decay) * model, BatchNorm statistics included.

    Args:
        average: from :func:`averaged_copy`, changed in place.
        model: the model in training, on the same device.
        decay: of the average; over the first steps the smaller (1 + step) / (10 + step), so that the
            random initial weights are soon forgotten.
        step: optimiser steps done, from 0.
    """
    weight = 1 - min(decay, (1 + step) / (10 + step))
    ours, theirs = average.state_dict(), model.state_dict()
    floats = [name for name, value in ours.items() if value.is_floating_point()]
    torch._foreach_lerp_([ours[name] for name in floats], [theirs[name] for name in floats], weight)
    for name in ours.keys() - set(floats):
        ours[name].copy_(theirs[name])


# Which parameters get which learning rate and weight decay


def make_optimiser(model: PoseModel, settings: TrainingSettings) -> torch.optim.Optimizer:
    """Adam or AdamW over :func:`parameter_groups`."""
    kind = torch.optim.AdamW if settings.optimiser == "adamw" else torch.optim.Adam
    groups = parameter_groups(model, settings.weight_decay, settings.layer_decay)
    return kind(groups, lr=settings.learning_rate, fused=True)


def parameter_groups(model: PoseModel, weight_decay: float, layer_decay: float = 1.0) -> list[dict[str, Any]]:
    """Groups for an optimiser; no weight decay on norms, biases and position embeddings.

    Args:
        model: to train.
        weight_decay: on weights of two or more dimensions.
        layer_decay: each block of the backbone learns at this share of the rate of the block above it; what
            lies above the backbone has the full rate (Bao et al. 2022, BEiT; ViTPose trains so, except that
            the backbone's last norm goes with its last block here). 1: one rate for all. A group's share
            of the rate is its ``lr_scale``.

    Raises:
        InputError: a layer decay for a backbone whose blocks timm does not know the order of.
    """
    backbone = model.encoder.innermost.backbone
    unshrunk = set(backbone.no_weight_decay()) if hasattr(backbone, "no_weight_decay") else set()
    layered: list[dict[str, Any]] = []
    if layer_decay != 1:
        if not hasattr(backbone, "group_matcher"):
            name = type(backbone).__name__
            raise InputError(f"layer_decay is {layer_decay}, but {name} has no order of blocks; make it 1")
        layered = param_groups_layer_decay(backbone, weight_decay, unshrunk, layer_decay=layer_decay)
        for group in layered:  # timm gives the last block the full rate, as if nothing lay above it
            group["lr_scale"] *= layer_decay
    done = {id(parameter) for group in layered for parameter in group["params"]}
    spared = {id(parameter) for name, parameter in backbone.named_parameters() if name in unshrunk}
    rest = [p for p in model.parameters() if p.requires_grad and id(p) not in done]
    shrunk = [p for p in rest if p.ndim > 1 and id(p) not in spared]
    others = [p for p in rest if p.ndim <= 1 or id(p) in spared]
    plain = [
        {"params": shrunk, "weight_decay": weight_decay, "lr_scale": 1.0},
        {"params": others, "weight_decay": 0.0, "lr_scale": 1.0},
    ]
    return [group for group in [*layered, *plain] if group["params"]]


# What a training shows: a bar in a terminal, one line an epoch everywhere


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


# Small pictures of validation poses for TensorBoard

JOINT_SCORE = 0.2  # HRNet's threshold: a joint below it is not drawn
LIMB, JOINT = (255, 160, 0), (0, 200, 255)  # RGB


def draw_pose(data: PersonDataset, index: int, row: Row | None) -> Tensor:
    """The crop of a person with its estimated pose, (3, h, w) uint8 RGB.

    Args:
        data: without augmentation.
        index: of the person in ``data``.
        row: COCO keypoint result, None for a person without one.
    """
    sample = data[index]
    image = np.ascontiguousarray(sample["image"].permute(1, 2, 0).numpy())
    if row is None:
        return sample["image"]
    skeleton = data.annotations.skeleton
    pose = torch.tensor(row["keypoints"], dtype=torch.float32).view(1, skeleton.num_joints, 3)
    batch = {name: sample[name][None] for name in ("center", "scale", "angle")}
    points = crops_of(batch, data.input_size, data.unbiased).image_to_input(pose[..., :2])[0]
    places = [tuple(point) for point in points.round().int().tolist()]
    drawn = [float(score) > JOINT_SCORE for score in pose[0, :, 2]]
    for a, b in skeleton.limbs:
        if drawn[a] and drawn[b]:
            cv2.line(image, places[a], places[b], LIMB, 1, cv2.LINE_AA)
    for place, visible in zip(places, drawn, strict=True):
        if visible:
            cv2.circle(image, place, 2, JOINT, -1, cv2.LINE_AA)
    return torch.from_numpy(image).permute(2, 0, 1)


# The Lightning module: one training step, the optimiser, and the moving average

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


# Validation on the boxes of the annotations, its persons shared out over the processes


class Validation:
    """The same numbers as ``diffusionpose evaluate`` on the same file.

    Args:
        images: the validation set.
        skeleton: the model's.
        settings: input size, decoder, flip test, steps.
        machine: number of workers.

    Raises:
        InputError: a set that cannot be used.
    """

    def __init__(
        self, images: ImageSet, skeleton: Skeleton, settings: TrainingSettings, machine: Machine
    ) -> None:
        self.truth = read_persons(images, skeleton)
        self.persons = self.truth.labelled()
        self.data = PersonDataset(self.persons, images.images, settings.input_size, settings.unbiased)
        self.how = Inference(
            decode=settings.decode,
            flip=settings.flip,
            steps=settings.steps,
            batch_size=2 * settings.batch_size,
            workers=worker_count(machine),
        )
        self.failures: list[str] = []
        self.rows: list[Row | None] = []

    def __call__(self, model: PoseModel, rank: int = 0, world: int = 1) -> dict[str, float]:
        """Metrics by name, fractions of 1; to be called by all processes, which get the same answer."""
        part = replace(self.persons, persons=self.persons.persons[rank::world])
        parts = [predict_persons(model, part, self.data.images, self.how)]
        if world > 1:
            gathered: list[tuple[list[Row | None], list[str]]] = [([], [])] * world
            distributed.all_gather_object(gathered, parts[0])
            parts = gathered
        self.rows = [None] * len(self.persons.persons)
        for place, (rows, _) in enumerate(parts):
            self.rows[place::world] = rows
        self.failures = [message for _, failures in parts for message in failures]
        metrics = score_results(
            self.truth, self.persons, self.rows, self.data.input_size, self.data.unbiased
        ).metrics
        return {name: value for name, value in metrics.items() if value is not None}

    def picture(self, count: int = 8) -> torch.Tensor:
        """The first ``count`` crops with their poses, side by side: (3, h, count * w) uint8."""

        shown = range(min(count, len(self.data)))
        return torch.cat([draw_pose(self.data, index, self.rows[index]) for index in shown], dim=2)


# What happens after every epoch: validate, save, record; in an order that any kill leaves resumable

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


# One training from start to end, or from where it was interrupted


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
