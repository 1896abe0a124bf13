"""Training data for Lightning: which persons each process sees in which epoch."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor, distributed
from torch.utils.data import DataLoader, Sampler

from diffusionpose.data.annotations import Annotations, annotations_in
from diffusionpose.data.dataset import Augmentation, JointDataset, PersonDataset, Sample
from diffusionpose.errors import InputError
from diffusionpose.skeletons import Skeleton
from diffusionpose.training.settings import ImageSet, Machine, TrainingSettings


class EpochSampler(Sampler[int]):
    """A shuffled order per epoch, from (seed, epoch) alone, split over the processes.

    Process r of n takes places r, r + n, r + 2n, ... of the order, so that step k of n processes with batch
    b / n covers exactly the persons of step k of one process with batch b. The order is cut to whole steps
    of all processes; a set smaller than one step is repeated to fill it.

    Args:
        persons: the data set's; its ``set_epoch`` is called along with the sampler's.
        batch: persons per step over all processes.
        shares: how often an epoch shows the persons of each set; None for once each.
    """

    def __init__(
        self,
        persons: JointDataset,
        seed: int,
        batch: int,
        rank: int = 0,
        world: int = 1,
        shares: Sequence[float] | None = None,
    ) -> None:
        self.persons, self.seed, self.batch, self.rank, self.world = persons, seed, batch, rank, world
        self.shares = shares or [1.0] * len(persons.parts)
        self.steps = max(1, shown_persons(persons, self.shares) // batch)
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before every epoch."""
        self.epoch = epoch
        self.persons.set_epoch(epoch)

    def __iter__(self) -> Iterator[int]:
        generator = np.random.default_rng((self.seed, self.epoch))
        order = generator.permutation(len(self.persons))
        if any(share != 1 for share in self.shares):
            starts = self.persons.starts
            picked = [
                np.resize(order[(order >= low) & (order < high)], round(share * (high - low)))
                for low, high, share in zip(starts, starts[1:], self.shares, strict=False)
            ]
            order = generator.permutation(np.concatenate(picked))
        places = np.resize(order, self.steps * self.batch)
        return iter(places[self.rank :: self.world].tolist())

    def __len__(self) -> int:
        return self.steps * self.batch // self.world


def shown_persons(persons: JointDataset, shares: Sequence[float]) -> int:
    """How many persons an epoch shows."""
    return sum(round(share * len(part)) for share, part in zip(shares, persons.parts, strict=True))


def read_persons(images: ImageSet, skeleton: Skeleton) -> Annotations:
    """The persons of a set, labelled or not, their joints matched to ``skeleton`` by name.

    Raises:
        InputError: a missing folder, a file that cannot be read, a set without a labelled person.
    """
    if not images.images.is_dir():
        raise InputError(f"{images.images}: no such folder of images; check --images and --val-images")
    persons = annotations_in(images.annotations, skeleton)
    if not persons.labelled().persons:
        raise InputError(
            f"{images.annotations}: no person with a labelled joint of the {skeleton.name} skeleton; "
            "check --skeleton and the file"
        )
    return persons


class PersonDataModule(pl.LightningDataModule):
    """Builds the training loader; validation is not Lightning's job here (see ``epochs.py``).

    Args:
        sets: the training sets and the folder of each one's images.
        settings: batch size, input size, augmentation, seed.
        machine: number of processes and workers.
        first_epoch: the epoch to start from; not 0 when resuming. Lightning starts its first iterator
            before it tells the sampler the epoch.
        shares: how often an epoch shows the persons of each set; None for once each.
    """

    def __init__(
        self,
        sets: Sequence[tuple[Annotations, Path]],
        settings: TrainingSettings,
        machine: Machine,
        first_epoch: int = 0,
        shares: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        self.shares = shares or [1.0] * len(sets)
        augmentation = None if settings.augmentation is None else Augmentation(**settings.augmentation)
        self.persons = JointDataset(
            [
                PersonDataset(
                    annotations,
                    folder,
                    settings.input_size,
                    settings.unbiased,
                    augmentation=augmentation,
                    seed=settings.seed,
                )
                for annotations, folder in sets
            ]
        )
        self.settings, self.machine, self.first_epoch = settings, machine, first_epoch
        self._broken: set[int] = set()

    def note_broken(self, batch: dict[str, Tensor]) -> None:
        """Remember the persons of a batch whose picture could not be read (they count for nothing)."""
        self._broken.update(batch["index"][batch["broken"] > 0].tolist())

    def failures(self) -> list[str]:
        """A message for every picture that could not be read."""
        messages: dict[str, None] = {}
        for index in sorted(self._broken):
            part = int(np.searchsorted(self.persons.starts, index, side="right")) - 1
            message = self.persons.parts[part].failure(index - int(self.persons.starts[part]))
            messages[message or f"person {index}: could not be read for a while"] = None
        return list(messages)

    def share_broken(self) -> None:
        """Let every process know what the others could not read; to be called by all of them."""
        if self.trainer and self.trainer.world_size > 1:
            found: list[set[int]] = [set()] * self.trainer.world_size
            distributed.all_gather_object(found, self._broken)
            self._broken.update(*found)

    def on_before_batch_transfer(self, batch: dict[str, Tensor], dataloader_idx: int) -> dict[str, Tensor]:
        """Called by Lightning while the batch is still on the CPU."""
        self.note_broken(batch)
        return batch

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps in an epoch."""
        shown = shown_persons(self.persons, self.shares)
        return max(1, shown // (self.settings.batch_size * self.machine.processes))

    def train_dataloader(self) -> DataLoader[Sample]:
        """The loader of this process."""
        trainer = self.trainer
        rank, world = (trainer.global_rank, trainer.world_size) if trainer else (0, 1)
        batch = self.settings.batch_size * world
        sampler = EpochSampler(self.persons, self.settings.seed, batch, rank, world, self.shares)
        sampler.set_epoch(self.first_epoch)
        return DataLoader(
            self.persons,
            batch_size=self.settings.batch_size,
            sampler=sampler,
            num_workers=worker_count(self.machine),
            worker_init_fn=_single_thread,
            pin_memory=torch.cuda.is_available(),
            drop_last=True,
        )


def worker_count(machine: Machine) -> int:
    """Data loading processes per training process: as told, else up to 8, by the cores at hand."""
    if machine.workers is not None:
        return machine.workers
    return max(1, min(8, (os.cpu_count() or 1) // machine.devices))


def _single_thread(_worker: int) -> None:
    """Each worker is one core's work: OpenCV's own threads would fight over the cores."""
    import cv2

    cv2.setNumThreads(0)
    torch.set_num_threads(1)
