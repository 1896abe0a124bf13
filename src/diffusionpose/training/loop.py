"""One training from start to end, or from where it was interrupted."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from diffusionpose.data.dataset import PersonDataset, crops_of
from diffusionpose.data.pose_errors import PoseErrors
from diffusionpose.errors import InputError, file_digest
from diffusionpose.evaluation.evaluate import predict_persons, score_results
from diffusionpose.geometry import NOT_FINITE
from diffusionpose.json_files import read_json, write_json
from diffusionpose.models.checkpoints import save_model
from diffusionpose.models.pose_model import PoseModel
from diffusionpose.poses import Pose
from diffusionpose.runtime.drawing import draw_poses
from diffusionpose.runtime.estimator import PoseEstimator
from diffusionpose.skeletons import Skeleton, get_skeleton
from diffusionpose.training.data import TrainingData, read_persons, thread_count, worker_count
from diffusionpose.training.folder import RunFolder
from diffusionpose.training.optimiser import learning_rate, make_optimiser, moving_average, set_learning_rate
from diffusionpose.training.processes import Processes, end_with_parent, is_first, joined, noting_ctrl_c
from diffusionpose.training.settings import ImageSet, Machine, TrainingSettings
from diffusionpose.training.start import starting_model

COLUMNS = ("AP", "AP50", "AP75", "AR", "PCK", "PCK_limbs")  # of the validation, in metrics.csv
LEFT_OUT = ("(left out of the training)", "(left out of the validation)")
CHECK_EVERY = 20  # steps between looks at the loss: each look waits for the device


@dataclass(frozen=True)
class Summary:
    """How a training ended."""

    folder: RunFolder
    epochs: int  # done in all
    resumed_from: int  # epochs that were already done
    metrics: dict[str, str]  # the last row of metrics.csv
    failures: list[str] = field(default_factory=list)  # pictures that could not be read


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
    with folder.opened(), ExitStack() as stack:
        skeleton = get_skeleton(settings.skeleton)
        data = TrainingData(train_sets, skeleton, settings, machine)
        validation = Validation(val_set, skeleton, settings, machine)
        entries: dict[str, Any] = {
            "settings": settings.to_dict(),
            "persons_per_step": data.batch_size,
            "train": [_entries(each) | {"share": each.share} for each in train_sets],
            "val": _entries(val_set),
            "skeleton": skeleton.to_dict(),
            "start": {"weights": _text(weights), "encoder_weights": _text(encoder_weights)},
            "torch": torch.__version__,
        }
        checkpoint = folder.resume(entries)
        first_epoch = 0 if checkpoint is None else checkpoint["epoch"] + 1
        if checkpoint is not None:
            data.broken = set(checkpoint.get("broken", ()))
            validation.failures = checkpoint.get("val_failures", [])
            start = read_json(folder.settings_file).get("start") or {}
            for name, text in entries["start"].items():
                if text not in (None, start.get(name)) and is_first():
                    tqdm.write(
                        f"--{name.replace('_', '-')} {text}: ignored, {output} goes on from its last epoch"
                    )
            entries["start"] = start
        if first_epoch >= settings.epochs:
            if first_epoch > settings.epochs and is_first():
                tqdm.write(f"--epochs {settings.epochs}: ignored, {output} has more")
            last = (folder.rows() or [{}])[-1]
            return Summary(folder, first_epoch, first_epoch, last, failure_lines(data, validation))

        model = starting_model(settings, weights, encoder_weights, resuming=first_epoch > 0)
        processes = stack.enter_context(joined(machine))
        training = Training(model, settings, data, processes)
        if checkpoint is not None:
            training.resume(checkpoint, folder.checkpoint)
        first, report = processes.rank == 0, None
        if first:
            write_json(folder.settings_file, entries)
            report = Report(folder, training, first_epoch)

        check_ctrl_c = stack.enter_context(noting_ctrl_c())
        for epoch in range(first_epoch, settings.epochs):
            began = time.monotonic()
            bar = tqdm(
                data.loader(epoch, processes.rank, processes.world),
                f"epoch {epoch + 1}/{settings.epochs}",
                unit=" persons",
                unit_scale=data.batch_size,
                disable=not (progress and first),
                leave=False,
            )
            model.train()
            for step, batch in enumerate(bar, start=epoch * data.steps):
                losses = training.step(batch, step)
                if step % CHECK_EVERY == 0 or step + 1 == (epoch + 1) * data.steps:
                    training.check(losses)
                    if report is not None:
                        bar.set_postfix_str(report.step(step + 1, losses))
                check_ctrl_c()
            loss, seconds = training.epoch_loss(), time.monotonic() - began

            metrics: dict[str, float] = {}
            if (epoch + 1) % settings.val_every == 0 or epoch + 1 == settings.epochs:
                # BatchNorm's statistics are each process's own: validated are those that are saved
                processes.broadcast(training.result.buffers())
                metrics = validation(training.result, processes, check_ctrl_c)
                if any(NOT_FINITE in failure for failure in validation.failures):
                    training.stop("a heatmap of the validation is not finite")
            for broken in processes.gather(data.broken):
                data.broken |= broken
            if report is not None:
                # the checkpoint comes last: a run killed before it repeats the epoch and writes the same
                best = "AP" in metrics and metrics["AP"] >= training.best_ap
                training.best_ap = metrics["AP"] if best else training.best_ap
                for path in (folder.newest, folder.best) if best else (folder.newest,):
                    save_model(training.result, path)
                report.epoch(epoch, loss, seconds, metrics, validation)
                folder.write_checkpoint({**training.checkpoint(epoch), "val_failures": validation.failures})
            check_ctrl_c()

        last = folder.rows()[-1] if first else {}  # which the others may read too early
        return Summary(folder, settings.epochs, first_epoch, last, failure_lines(data, validation))


def failure_lines(data: TrainingData, validation: Validation) -> list[str]:
    """A message for every picture that could not be read, and what it was left out of."""
    found = zip((data.failures(), validation.failures), LEFT_OUT, strict=True)
    return [f"{message} {left_out}" for messages, left_out in found for message in messages]


def _entries(images: ImageSet) -> dict[str, Any]:
    digest = file_digest(images.annotations)
    return {"images": str(images.images), "annotations": str(images.annotations), "sha256": digest}


def _text(path: Path | str | None) -> str | None:
    return None if path is None else str(path)


class Training:
    """The model in training, its moving average and its optimiser.

    Every random number of a step comes from (seed, step): the noise is drawn for the whole batch of all
    processes and each takes its rows, so that the numbers depend neither on where a run was
    interrupted nor on how many processes share the batch.
    """

    def __init__(
        self, model: PoseModel, settings: TrainingSettings, data: TrainingData, processes: Processes
    ) -> None:
        self.settings, self.data, self.processes = settings, data, processes
        device = processes.device
        self.notes = list(data.notes)
        if model.learns_from_errors:
            data.add_errors()
        if model.sees_neighbours:
            data.keep_pictures_whole()
        self.bf16 = settings.precision == "bf16-mixed" and has_bf16(device)
        if settings.precision == "bf16-mixed" and not self.bf16:
            self.notes.append(f"no bf16 on this {device.type}: trained in 32 bits")
        if device.type == "cpu":
            torch.set_num_threads(thread_count(data.machine))
            torch.set_flush_denormal(True)  # the tails of heatmaps, with which a CPU computes at a crawl
        self.model = model.to(device).to(memory_format=torch.channels_last)
        self.average = moving_average(model, settings.ema_decay) if settings.ema_decay else None
        self.best_ap, self.rate = -1.0, 0.0
        if settings.sync_batchnorm and processes.world > 1:
            if device.type != "cuda":
                raise InputError("--sync-batchnorm works between GPUs only; leave it out")
            self.model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
        self.optimiser = make_optimiser(self.model, settings)
        self.loss: nn.Module = _Loss(self.model)
        if settings.compile:
            self.loss.compile()
        if processes.world > 1:
            self.loss = DistributedDataParallel(self.loss)
        self.loss_sum = torch.zeros((), device=device)

    def checkpoint(self, epoch: int) -> dict[str, Any]:
        """What the training goes on from after ``epoch``."""
        return {
            "epoch": epoch,
            "model": self.model.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "best_ap": self.best_ap,
            "broken": sorted(self.data.broken),
        }

    def resume(self, checkpoint: dict[str, Any], path: Path) -> None:
        """Go on from a checkpoint; InputError, which names its path, for one of another model."""
        try:
            self.model.load_state_dict(checkpoint["model"])
            if self.average is not None:
                self.average.load_state_dict(checkpoint["average"])
            self.optimiser.load_state_dict(checkpoint["optimiser"])
        except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(
                f"{path}: does not fit {self.settings.model} ({str(error).splitlines()[0]}); "
                "put back a copy of it, or give another --output"
            ) from error
        self.best_ap = checkpoint["best_ap"]

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
        noise |= {name: batch[name].to(device) for name in ("start", "place") if name in batch}
        noise["picture"] = self.data.picture_numbers(batch).to(device)
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
        return {name: value.detach() for name, value in losses.items()}

    def check(self, losses: dict[str, Tensor]) -> None:
        """Stop all processes at once when the training has diverged."""
        mean = self.processes.mean(losses["loss"])
        if not np.isfinite(mean):
            self.stop(f"the loss is {mean}")

    def stop(self, reason: str) -> NoReturn:
        """The training has diverged; to be called by all processes."""
        if self.processes.rank:
            raise SystemExit(1)
        raise InputError(
            f"{reason}: the training has diverged; give a lower --learning-rate or --clip-norm 1, "
            "and another --output (checkpoints so far are kept)"
        )

    def epoch_loss(self) -> float:
        """The mean loss of the epoch's steps over all processes; that of the next epoch begins."""
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
    there, names = torch.cpu.get_capabilities(), ("avx512_bf16", "amx_bf16", "bf16")
    return device.type == "cpu" and any(there.get(name) for name in names)


class Validation:
    """The numbers of ``diffusionpose evaluate`` on the same file; processes share its persons out."""

    def __init__(
        self, images: ImageSet, skeleton: Skeleton, settings: TrainingSettings, machine: Machine
    ) -> None:
        self.truth = read_persons(images, skeleton)
        self.persons = self.truth.labelled()
        self.data = PersonDataset(self.persons, images.images, settings.input_size, settings.unbiased)
        self.settings, self.workers = settings, worker_count(machine)
        self.failures: list[str] = []
        self.rows: list[dict[str, Any] | None] = []

    def __call__(
        self, model: PoseModel, processes: Processes, check_ctrl_c: Callable[[], None]
    ) -> dict[str, float]:
        """Metrics by name, fractions of 1; to be called by all processes, which get the same answer."""
        rank, persons = processes.rank, self.persons.persons
        picture = {image: number for number, image in enumerate(dict.fromkeys(p.image_id for p in persons))}
        shares: list[list[int]] = [[] for _ in range(processes.world)]  # pictures stay whole
        for index, person in enumerate(persons):
            shares[picture[person.image_id] % processes.world].append(index)
        part = replace(self.persons, persons=[persons[i] for i in shares[rank]])
        starts, settings = self.starts[shares[rank]] if model.needs_start else None, self.settings
        estimator = PoseEstimator(
            model,
            device=None,
            decode=settings.decode,
            flip=settings.flip,
            steps=None if model.default_steps is None else settings.steps,  # heatmap models take none
            batch_size=2 * settings.batch_size,
        )
        answer = predict_persons(
            estimator, part, self.data.images, starts, self.workers, lambda done, total: check_ctrl_c()
        )
        self.rows, self.failures = [None] * len(self.persons.persons), []
        for share, (rows, failures) in zip(shares, processes.gather(answer), strict=True):
            for place, row in zip(share, rows, strict=True):
                self.rows[place] = row
            self.failures += failures
        report = score_results(self.truth, self.persons, self.rows, self.data.input_size, self.data.unbiased)
        return {name: value for name, value in report.metrics.items() if value is not None}

    @cached_property
    def starts(self) -> np.ndarray:
        """(n, J, 3) the persons' poses with errors, the same every time, for models that refine poses."""
        errors, generator = PoseErrors(self.persons), np.random.default_rng(0)
        return np.stack(
            [
                np.column_stack([errors(person, generator)[0], person.visible > 0])
                for person in self.persons.persons
            ]
        ).astype(np.float32)

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


class Report:
    """What the first process shows and records: a line an epoch, metrics.csv, TensorBoard's logs."""

    def __init__(self, folder: RunFolder, training: Training, first_epoch: int) -> None:
        self.folder, self.training, self.first_epoch = folder, training, first_epoch
        self.last_ap, self.start = "", time.monotonic()
        for line in training.notes:
            tqdm.write(line)
        try:
            from torch.utils.tensorboard import SummaryWriter

            self.tensorboard: Any = SummaryWriter(folder.path / "logs")
        except ImportError:
            self.tensorboard = None

    def step(self, steps: int, losses: dict[str, Tensor]) -> str:
        """So many steps of the run are done; what the bar says."""
        self.log("train", {"learning_rate": self.training.rate, **losses}, steps)
        return f"loss {float(losses['loss']):.3g}{self.last_ap}"

    def epoch(
        self, epoch: int, loss: float, seconds: float, metrics: dict[str, float], validation: Validation
    ) -> None:
        """The epoch is done, its steps in so many seconds: one line, one row."""
        data, epochs = self.training.data, self.training.settings.epochs
        step, speed = (epoch + 1) * data.steps, data.steps * data.batch_size / seconds
        row = {"epoch": epoch, "step": step, "loss": loss, "learning_rate": self.training.rate}
        row |= {"seconds": round(seconds, 1), "persons_per_s": round(speed, 1)}
        self.folder.write_row(row | {name: metrics.get(name, "") for name in COLUMNS})
        found = "".join(f"  {name} {100 * metrics[name]:.1f}" for name in COLUMNS if name in metrics)
        pace = (time.monotonic() - self.start) / (epoch + 1 - self.first_epoch)
        left = timedelta(seconds=round(pace * (epochs - epoch - 1)))
        tqdm.write(f"epoch {epoch + 1}/{epochs}  loss {loss:.4g}  {speed:.1f} persons/s{found}  {left} left")
        if "AP" in metrics:
            self.last_ap = f", val AP {100 * metrics['AP']:.1f}"
        self.log("train", {"epoch_loss": loss}, step)
        self.log("val", metrics, step)
        if metrics and self.tensorboard is not None:
            self.tensorboard.add_image("val/poses", validation.picture(), step, dataformats="HWC")
            self.tensorboard.flush()

    def log(self, group: str, values: dict[str, Any], step: int) -> None:
        """For TensorBoard, where it is installed."""
        for name, value in values.items() if self.tensorboard is not None else ():
            self.tensorboard.add_scalar(f"{group}/{name}", float(value), step)
