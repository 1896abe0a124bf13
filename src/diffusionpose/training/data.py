"""Training data: which persons each process sees in which step of which epoch."""

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from diffusionpose.data.annotations import Annotations, annotations_in
from diffusionpose.data.augmentation import Augmentation
from diffusionpose.data.dataset import JointDataset, PersonDataset, Sample
from diffusionpose.data.pose_errors import PoseErrors
from diffusionpose.errors import InputError
from diffusionpose.runtime.networks import cores, cpu_threads
from diffusionpose.skeletons import Skeleton
from diffusionpose.training.settings import ImageSet, Machine, TrainingSettings


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


class TrainingData:
    """The training sets as batches of every epoch, from (seed, epoch) alone.

    The joints that a set lacks are not visible in its samples. InputError for a set that cannot be used, or
    pictures that are not there.
    """

    def __init__(
        self, sets: Sequence[ImageSet], skeleton: Skeleton, settings: TrainingSettings, machine: Machine
    ) -> None:
        known = [each.name for each in fields(Augmentation)]
        if unknown := sorted((settings.augmentation or {}).keys() - set(known)):
            raise InputError(f"augmentation: no {', '.join(unknown)}; there are {', '.join(known)}")
        augmentation = None if settings.augmentation is None else Augmentation(**settings.augmentation)
        options: dict[str, Any] = {"augmentation": augmentation, "seed": settings.seed}
        parts = [
            PersonDataset(
                read_persons(each, skeleton).labelled(),
                each.images,
                settings.input_size,
                settings.unbiased,
                **options,
            )
            for each in sets
        ]
        self.persons = JointDataset(parts)
        self.shown = [round(each.share * len(part)) for each, part in zip(sets, parts, strict=True)]
        for each, part, count in zip(sets, parts, self.shown, strict=True):
            if not count:
                raise InputError(
                    f"{each.annotations}: --shares {each.share:g} of {len(part)} labelled persons is nobody; "
                    f"give {1 / len(part):.2g} or more, or leave the set out"
                )
        self.seed, self.machine, self.workers = settings.seed, machine, worker_count(machine)
        self.batch_size = settings.batch_size * machine.processes  # persons a step, of all processes
        self.steps = max(1, sum(self.shown) // self.batch_size)  # of an epoch
        self.whole_pictures = False
        self.broken: set[int] = set()
        self.notes = [line for part in parts for line in part.annotations.dropped]  # what is left out

    def keep_pictures_whole(self) -> None:
        """Persons of a picture come one after another from now on, changed by the same randomness."""
        self.whole_pictures = True
        for part in self.persons.parts:
            part.alike = True
        if all(list(range(len(part))) == part.first_of_picture for part in self.persons.parts):
            self.notes.append("nobody here has a neighbour: no picture has two labelled persons")

    def add_errors(self) -> None:
        """Samples come with a start from now on: their poses with errors."""
        for part in self.persons.parts:
            part.errors = PoseErrors(part.annotations)

    def batches(self, epoch: int) -> np.ndarray:
        """(steps, batch_size) indices of persons: a shuffled order, each set as often as its share says.

        The order is cut to whole steps; sets smaller than one step are repeated to fill it. With whole
        pictures only those at the border of two steps, or of two processes, are parted.
        """
        generator = np.random.default_rng((self.seed, epoch))
        order = generator.permutation(len(self.persons))
        starts = self.persons.starts
        if self.shown != [len(part) for part in self.persons.parts]:
            picked = [
                np.resize(order[(order >= low) & (order < high)], count)
                for low, high, count in zip(starts, starts[1:], self.shown, strict=False)
            ]
            order = generator.permutation(np.concatenate(picked))
        if not self.whole_pictures:
            return np.resize(order, (self.steps, self.batch_size))
        parts = zip(self.persons.parts, starts, strict=False)
        picture = np.concatenate([start + np.array(part.first_of_picture) for part, start in parts])
        _, turn, number = np.unique(picture[order], return_index=True, return_inverse=True)
        order = order[np.argsort(turn[number], kind="stable")]
        world = self.machine.processes  # each takes every world-th, and so gets a stretch of the order
        stretches = np.resize(order, (self.steps, world, self.batch_size // world))
        return stretches.swapaxes(1, 2).reshape(self.steps, -1)

    def loader(self, epoch: int, rank: int = 0, world: int = 1) -> DataLoader[Sample]:
        """The batches of an epoch; of each the places rank, rank + world, .. are this process's."""
        self.persons.set_epoch(epoch)
        return DataLoader(
            self.persons,
            batch_sampler=self.batches(epoch)[:, rank::world].tolist(),
            num_workers=self.workers,
            worker_init_fn=_single_thread,
            pin_memory=torch.cuda.is_available(),
        )

    def picture_numbers(self, batch: dict[str, Tensor]) -> Tensor:
        """(b,) the same number for neighbours: a person who is repeated counts as in another picture."""
        index = batch["index"]
        copy = (index[:, None] == index).tril(-1).sum(1)
        return batch["picture"] + copy * len(self.persons)

    def note_broken(self, batch: dict[str, Tensor]) -> None:
        """Remember the persons of a batch whose picture could not be read; they count for nothing in it."""
        self.broken.update(batch["index"][batch["broken"] > 0].tolist())

    def failures(self) -> list[str]:
        """A message for every picture that could not be read."""
        messages: dict[str, None] = {}
        for index in sorted(self.broken):
            part = int(np.searchsorted(self.persons.starts, index, side="right")) - 1
            message = self.persons.parts[part].failure(index - int(self.persons.starts[part]))
            messages[message or f"person {index}: could not be read for a while"] = None
        return list(messages)


def worker_count(machine: Machine) -> int:
    """Processes that read pictures, for each training process: as told, else by the cores at hand.

    Beside a GPU up to 8; beside arithmetic on the CPU, which takes longer than reading, a quarter of the
    cores.
    """
    if machine.workers is not None:
        return machine.workers
    on_gpu = machine.accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available()
    share = cores() // machine.devices
    return max(1, min(8, share if on_gpu else share // 4))


def thread_count(machine: Machine) -> int:
    """Threads of the arithmetic of each training process: the cores that no worker needs.

    On two cores one thread and one worker are faster than two threads, which wait for each other at every
    small layer. OMP_NUM_THREADS, where it is set, decides.
    """
    return cpu_threads(max(1, cores() // machine.devices - worker_count(machine)))


def _single_thread(_worker: int) -> None:
    """Each worker is one core's work: OpenCV's own threads would fight over the cores."""
    import cv2

    cv2.setNumThreads(0)
    torch.set_num_threads(1)
