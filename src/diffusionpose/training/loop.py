"""One training from start to end, or from where it was interrupted."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel
from tqdm import tqdm

from diffusionpose.data.dataset import PersonDataset, crops_of
from diffusionpose.errors import InputError, file_digest
from diffusionpose.evaluation.evaluate import Inference, predict_persons, score_results
from diffusionpose.models.pose_model import PoseModel
from diffusionpose.poses import Pose
from diffusionpose.runtime.drawing import draw_poses
from diffusionpose.skeletons import Skeleton, get_skeleton
from diffusionpose.training.data import TrainingData, read_persons, thread_count, worker_count
from diffusionpose.training.folder import RunFolder
from diffusionpose.training.optimiser import learning_rate, make_optimiser, moving_average, set_learning_rate
from diffusionpose.training.processes import CtrlC, Processes, end_with_parent, joined, watching_ctrl_c
from diffusionpose.training.settings import ImageSet, Machine, TrainingSettings
from diffusionpose.training.start import starting_model

COLUMNS = ("AP", "AP50", "AP75", "AR", "PCK", "PCK_limbs")  # of the validation, in metrics.csv
CHECK_EVERY = 20  # steps between looks at the loss: each look waits for the device


@dataclass(frozen=True)
class Summary:
    """How a training ended.

    Attributes:
        folder: of the run.
        epochs: done in all.
        resumed_from: epochs that were already done.
        metrics: the last row of ``metrics.csv``.
        failures: what could not be done, in words (pictures that could not be read).
    """

    folder: RunFolder
    epochs: int
    resumed_from: int
    metrics: dict[str, str]
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
    end_with_parent()
    with watching_ctrl_c() as ctrl_c, folder.opened(), ExitStack() as stack:
        skeleton = get_skeleton(settings.skeleton)
        data = TrainingData(train_sets, skeleton, settings, machine)
        validation = Validation(val_set, skeleton, settings, machine, ctrl_c)
        entries = {
            "settings": settings.to_dict(),
            "persons_per_step": data.batch_size,
            "train": [_entries(each) | {"share": each.share} for each in train_sets],
            "val": _entries(val_set),
            "start": {"weights": _text(weights), "encoder_weights": _text(encoder_weights)},
            "torch": torch.__version__,
        }
        checkpoint = folder.resume(entries)
        first_epoch = 0 if checkpoint is None else checkpoint["epoch"] + 1
        if first_epoch >= settings.epochs:
            return Summary(folder, first_epoch, first_epoch, folder.rows()[-1])

        model = starting_model(settings, weights, encoder_weights, resuming=first_epoch > 0)
        processes = stack.enter_context(joined(machine))
        first = processes.rank == 0
        training = Training(model, settings, data, processes, checkpoint, folder)
        report = Report(folder, settings, data, processes, progress, first_epoch)
        if first:
            folder.write_settings(entries)
            for line in (*data.notes, *training.notes):
                tqdm.write(line)

        for epoch in range(first_epoch, settings.epochs):
            report.begin(epoch)
            ctrl_c.waits = True
            model.train()
            for step, batch in enumerate(data.loader(epoch, processes.rank, processes.world)):
                losses = training.step(batch, epoch * data.steps + step)
                if step % CHECK_EVERY == 0 or step + 1 == data.steps:
                    training.check(losses)
                    report.step(step + 1, losses, training.rate)
                ctrl_c.check()
            loss = training.epoch_loss()
            report.end_of_steps()

            metrics: dict[str, float] = {}
            if (epoch + 1) % settings.val_every == 0 or epoch + 1 == settings.epochs:
                metrics = validation(training.result, processes)
            for broken in processes.gather(data.broken):
                data.broken |= broken
            if first:
                # the checkpoint comes last: a run killed before it repeats the epoch and writes the same
                best = metrics.get("AP", -1.0) > training.best_ap
                training.best_ap = max(metrics.get("AP", -1.0), training.best_ap)
                folder.write_model(training.result, best)
                report.end(epoch, loss, training, metrics, validation)
                folder.write_checkpoint(training.checkpoint(epoch))
            ctrl_c.waits = False
            ctrl_c.check()

        report.close()
        failures = list(dict.fromkeys([*data.failures(), *validation.failures]))
        return Summary(folder, settings.epochs, first_epoch, folder.rows()[-1], failures)


def _entries(images: ImageSet) -> dict[str, Any]:
    digest = file_digest(images.annotations)
    return {"images": str(images.images), "annotations": str(images.annotations), "sha256": digest}


def _text(path: Path | str | None) -> str | None:
    return None if path is None else str(path)


# One step, and what it changes


class Training:
    """The model in training, its moving average and its optimiser.

    Every random number of a step comes from (seed, step): the noise is drawn for the whole batch of all
    processes and each takes its rows, so that the numbers depend neither on where a run was
    interrupted nor on how many processes share the batch.

    Args:
        model: to train.
        settings: optimiser, schedule, average, seed.
        data: its number of steps.
        processes: that train together.
        checkpoint: to go on from; None for a new run.
        folder: named where the checkpoint does not fit.

    Raises:
        InputError: a checkpoint of another model.
    """

    def __init__(
        self,
        model: PoseModel,
        settings: TrainingSettings,
        data: TrainingData,
        processes: Processes,
        checkpoint: dict[str, Any] | None,
        folder: RunFolder,
    ) -> None:
        self.settings, self.data, self.processes = settings, data, processes
        device = processes.device
        self.notes: list[str] = []
        self.bf16 = settings.precision == "bf16-mixed" and has_bf16(device)
        if settings.precision == "bf16-mixed" and not self.bf16:
            self.notes.append(f"no bf16 on this {device.type}: trained in 32 bits")
        if device.type == "cpu":
            torch.set_num_threads(thread_count(data.machine))
        self.model = model.to(device).to(memory_format=torch.channels_last)
        self.average: AveragedModel | None = None
        if settings.ema_decay:
            self.average = moving_average(model, settings.ema_decay)
        self.best_ap, self.rate = -1.0, 0.0
        if settings.sync_batchnorm and processes.world > 1:
            if device.type != "cuda":
                raise InputError("--sync-batchnorm works between GPUs only; leave it out")
            self.model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
        self.optimiser = make_optimiser(self.model, settings)
        if checkpoint is not None:
            self._resume(checkpoint, folder)
        self.loss: nn.Module = _Loss(self.model)
        if processes.world > 1:
            self.loss = DistributedDataParallel(self.loss)
        self.loss_sum = torch.zeros((), device=device)

    def _resume(self, checkpoint: dict[str, Any], folder: RunFolder) -> None:
        try:
            self.model.load_state_dict(checkpoint["model"])
            if self.average is not None:
                self.average.load_state_dict(checkpoint["average"])
            self.optimiser.load_state_dict(checkpoint["optimiser"])
        except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(
                f"{folder.checkpoint}: does not fit {self.settings.model} ({str(error).splitlines()[0]}); "
                "put back a copy of it, or give another --output"
            ) from error
        self.best_ap = checkpoint["best_ap"]

    def checkpoint(self, epoch: int) -> dict[str, Any]:
        """What the training goes on from after ``epoch``."""
        return {
            "epoch": epoch,
            "model": self.model.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "best_ap": self.best_ap,
        }

    @property
    def result(self) -> PoseModel:
        """The model to validate and to save: the moving average, or the model itself without one."""
        return self.model if self.average is None else self.average.module  # type: ignore[return-value]

    def step(self, batch: dict[str, Tensor], step: int) -> dict[str, Tensor]:
        """One optimiser step: ``image`` (b, 3, h, w) uint8, ``keypoints`` (b, j, 2), ``visible`` (b, j)."""
        rank, world, device = self.processes.rank, self.processes.world, self.processes.device
        self.data.note_broken(batch)
        self.rate = learning_rate(self.settings, step, self.data.steps)
        set_learning_rate(self.optimiser, self.rate)
        torch.manual_seed(step_seed(self.settings.seed, step, rank))  # of drop-out and the like
        generator = torch.Generator().manual_seed(step_seed(self.settings.seed, step))
        noise = self.model.draw_noise(len(batch["image"]) * world, generator)
        noise = {name: value[rank::world].to(device) for name, value in noise.items()}
        images, keypoints, visible = (
            batch[name].to(device, non_blocking=True) for name in ("image", "keypoints", "visible")
        )
        images = images.contiguous(memory_format=torch.channels_last)
        with torch.autocast(device.type, torch.bfloat16, enabled=self.bf16):
            losses: dict[str, Tensor] = self.loss(images, keypoints, visible, noise)
        self.optimiser.zero_grad()
        losses["loss"].backward()
        if self.settings.clip_norm:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.clip_norm)
        self.optimiser.step()
        if self.average is not None:
            self.average.update_parameters(self.model)
        self.loss_sum += losses["loss"].detach()
        return losses

    def check(self, losses: dict[str, Tensor]) -> None:
        """Stop all processes at once when the training has diverged."""
        mean = self.processes.mean(losses["loss"])
        if np.isfinite(mean):
            return
        if self.processes.rank:
            raise SystemExit(1)
        raise InputError(
            f"the loss is {mean}: the training has diverged; give a lower --learning-rate or --clip-norm 1, "
            "and another --output (checkpoints so far are kept)"
        )

    def epoch_loss(self) -> float:
        """The mean loss of the epoch's steps over all processes, and begin that of the next epoch."""
        mean = self.processes.mean(self.loss_sum) / self.data.steps
        self.loss_sum.zero_()
        return mean


class _Loss(nn.Module):
    """A model's loss as the forward of a module, which is what DistributedDataParallel wants."""

    def __init__(self, model: PoseModel) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, images: Tensor, keypoints: Tensor, visible: Tensor, noise: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        return self.model.loss(images, keypoints, visible, noise=noise)


def step_seed(seed: int, step: int, rank: int = 0) -> int:
    """A 63-bit seed from (seed, step, rank); neighbouring steps give unrelated streams."""
    words = np.random.SeedSequence((seed, step, rank)).generate_state(2, np.uint32)
    return (int(words[0]) << 31) ^ int(words[1])


def has_bf16(device: torch.device) -> bool:
    """Whether a device computes in bf16; on a CPU without the instructions reference kernels crawl."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities = torch.cpu.get_capabilities()
    return device.type == "cpu" and any(
        capabilities.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16")
    )


# Validation on the boxes of the annotations, its persons shared out over the processes


class Validation:
    """The same numbers as ``diffusionpose evaluate`` on the same file.

    Args:
        images: the validation set.
        skeleton: the model's.
        settings: input size, decoder, flip test, steps.
        machine: number of workers.
        ctrl_c: looked at after every batch.

    Raises:
        InputError: a set that cannot be used.
    """

    def __init__(
        self,
        images: ImageSet,
        skeleton: Skeleton,
        settings: TrainingSettings,
        machine: Machine,
        ctrl_c: CtrlC,
    ) -> None:
        self.truth = read_persons(images, skeleton)
        self.persons = self.truth.labelled()
        self.data = PersonDataset(self.persons, images.images, settings.input_size, settings.unbiased)
        self.inference = Inference(
            decode=settings.decode,
            flip=settings.flip,
            steps=settings.steps,
            batch_size=2 * settings.batch_size,
            workers=worker_count(machine),
            progress=lambda done, total: ctrl_c.check(),
        )
        self.failures: list[str] = []
        self.rows: list[dict[str, Any] | None] = []

    def __call__(self, model: PoseModel, processes: Processes) -> dict[str, float]:
        """Metrics by name, fractions of 1; to be called by all processes, which get the same answer."""
        part = replace(self.persons, persons=self.persons.persons[processes.rank :: processes.world])
        steps = None if model.default_steps is None else self.inference.steps  # heatmap models take none
        answer = predict_persons(model, part, self.data.images, replace(self.inference, steps=steps))
        self.rows = [None] * len(self.persons.persons)
        self.failures = []
        for rank, (rows, failures) in enumerate(processes.gather(answer)):
            self.rows[rank :: processes.world] = rows
            self.failures += failures
        report = score_results(self.truth, self.persons, self.rows, self.data.input_size, self.data.unbiased)
        return {name: value for name, value in report.metrics.items() if value is not None}

    def picture(self, count: int = 8) -> np.ndarray:
        """The first ``count`` crops with their estimated poses, side by side: (h, count * w, 3) uint8 RGB."""
        width, height = self.data.input_size
        drawn = []
        for index in range(min(count, len(self.data))):
            sample, row = self.data[index], self.rows[index]
            image = sample["image"].permute(1, 2, 0).numpy()
            if row is not None:
                points = torch.tensor(row["keypoints"], dtype=torch.float32).view(1, -1, 3)
                batch = {name: sample[name][None] for name in ("center", "scale", "angle")}
                crop = crops_of(batch, self.data.input_size, self.data.unbiased)
                keypoints = crop.image_to_input(points[..., :2])[0].numpy()
                box = np.array([0, 0, width, height])
                pose = Pose(self.truth.skeleton, keypoints, points[0, :, 2].numpy(), box, row["score"])
                image = draw_poses(image, [pose])
            drawn.append(image)
        return np.concatenate(drawn, axis=1)


# What a training shows: a bar in a terminal, one line an epoch everywhere, metrics.csv, TensorBoard


class Report:
    """Everything that is shown and recorded, by the first process.

    Args:
        folder: of the run.
        settings: number of epochs.
        data: persons a step, steps an epoch.
        processes: that train together.
        progress: show a bar.
        first_epoch: of this sitting.
    """

    def __init__(
        self,
        folder: RunFolder,
        settings: TrainingSettings,
        data: TrainingData,
        processes: Processes,
        progress: bool,
        first_epoch: int,
    ) -> None:
        self.folder, self.epochs, self.data, self.first_epoch = folder, settings.epochs, data, first_epoch
        self.silent = processes.rank > 0
        self.bar_wanted = progress and not self.silent
        self.tensorboard = None if self.silent else _tensorboard(folder.path / "logs")
        self.last_ap = ""
        self.start = time.monotonic()

    def begin(self, epoch: int) -> None:
        """An epoch begins."""
        self.epoch, self.epoch_start = epoch, time.monotonic()
        self.bar = tqdm(
            total=self.data.steps,
            desc=f"epoch {epoch + 1}/{self.epochs}",
            bar_format="{desc} {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt}{postfix}",
            disable=not self.bar_wanted,
            leave=False,
        )

    def step(self, steps: int, losses: dict[str, Tensor], rate: float) -> None:
        """So many steps of the epoch are done."""
        if self.silent:
            return
        loss = float(losses["loss"].detach())
        speed = steps * self.data.batch_size / (time.monotonic() - self.epoch_start)
        self.bar.set_postfix_str(
            f"loss {loss:.3g}, {speed:.1f} persons/s{self.last_ap}, {self.time_left(steps)} left"
        )
        self.bar.update(steps - self.bar.n)
        if self.tensorboard is not None:
            number = self.epoch * self.data.steps + steps
            self.tensorboard.add_scalar("train/learning_rate", rate, number)
            for name, value in losses.items():
                self.tensorboard.add_scalar(f"train/{name}", float(value.detach()), number)

    def time_left(self, steps: int) -> str:
        """To the end of the run, from the mean pace of this sitting (validation included)."""
        done = (self.epoch - self.first_epoch) * self.data.steps + steps
        ahead = (self.epochs - self.first_epoch) * self.data.steps - done
        return str(timedelta(seconds=round((time.monotonic() - self.start) / done * ahead)))

    def end_of_steps(self) -> None:
        """The epoch's steps are done; its validation follows."""
        self.seconds = time.monotonic() - self.epoch_start
        self.bar.close()

    def end(
        self, epoch: int, loss: float, training: Training, metrics: dict[str, float], validation: Validation
    ) -> None:
        """The epoch is done: one line, one row."""
        step = (epoch + 1) * self.data.steps
        speed = self.data.steps * self.data.batch_size / self.seconds
        row = {"epoch": epoch, "step": step, "loss": loss, "learning_rate": training.rate}
        row |= {"seconds": round(self.seconds, 1), "persons_per_s": round(speed, 1)}
        self.folder.write_row(row | {name: metrics.get(name, "") for name in COLUMNS})
        found = "".join(f"  {name} {100 * metrics[name]:.1f}" for name in COLUMNS if name in metrics)
        tqdm.write(
            f"epoch {epoch + 1}/{self.epochs}  loss {loss:.4g}  {speed:.1f} persons/s{found}"
            f"  {self.time_left(self.data.steps)} left"
        )
        if "AP" in metrics:
            self.last_ap = f", val AP {100 * metrics['AP']:.1f}"
        if self.tensorboard is not None:
            self.tensorboard.add_scalar("train/epoch_loss", loss, step)
            for name, value in metrics.items():
                self.tensorboard.add_scalar(f"val/{name}", value, step)
            if metrics:
                self.tensorboard.add_image("val/poses", validation.picture(), step, dataformats="HWC")
            self.tensorboard.flush()

    def close(self) -> None:
        """The training is done."""
        if self.tensorboard is not None:
            self.tensorboard.close()


def _tensorboard(folder: Path) -> Any:
    """A writer of TensorBoard's logs, None where TensorBoard is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(folder)
