"""Validation on the boxes of the annotations, its persons shared out over the processes."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import distributed

from diffusionpose.data.dataset import PersonDataset
from diffusionpose.evaluation.evaluate import score_results
from diffusionpose.evaluation.results import Inference, Row, predict_persons
from diffusionpose.models.pose_model import PoseModel
from diffusionpose.skeletons import Skeleton
from diffusionpose.training.data import read_persons, worker_count
from diffusionpose.training.settings import ImageSet, Machine, TrainingSettings


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
        data = PersonDataset(part, self.data.images, self.data.input_size, self.data.unbiased)
        parts = [predict_persons(model, data, self.how)]
        if world > 1:
            gathered: list[tuple[list[Row | None], list[str]]] = [([], [])] * world
            distributed.all_gather_object(gathered, parts[0])
            parts = gathered
        self.rows = [None] * len(self.persons.persons)
        for place, (rows, _) in enumerate(parts):
            self.rows[place::world] = rows
        self.failures = [message for _, failures in parts for message in failures]
        metrics = score_results(self.truth, self.persons, self.rows).metrics
        return {name: value for name, value in metrics.items() if value is not None}

    def picture(self, count: int = 8) -> torch.Tensor:
        """The first ``count`` crops with their poses, side by side: (3, h, count * w) uint8."""
        from diffusionpose.training.pictures import draw_pose

        shown = range(min(count, len(self.data)))
        return torch.cat([draw_pose(self.data, index, self.rows[index]) for index in shown], dim=2)
