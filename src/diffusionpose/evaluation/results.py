"""A model run over the persons of a data set: COCO keypoint results, and what could not be done."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from diffusionpose.data.dataset import PersonDataset, crops_of
from diffusionpose.data.persons import Annotations, Person
from diffusionpose.errors import InputError
from diffusionpose.geometry.heatmaps import DECODE_METHODS
from diffusionpose.models.pose_model import PoseModel
from diffusionpose.poses import Pose

Row = dict[str, Any]


@dataclass(frozen=True)
class Inference:
    """How poses are made and how the work is done; only the first three change the poses.

    Attributes:
        decode: how heatmaps become coordinates, one of ``DECODE_METHODS``.
        flip: average with the mirrored picture.
        steps: diffusion steps; None for the model's own number.
        batch_size: persons per pass through the network.
        workers: processes that read pictures; 0 reads in this one.
        device: the model is moved there; None leaves it where it is.
        progress: called after every batch with the persons done and the persons in all.

    Raises:
        InputError: an unknown decoder or a number below its least.
    """

    decode: str = "dark"
    flip: bool = True
    steps: int | None = None
    batch_size: int = 32
    workers: int = 0
    device: str | torch.device | None = None
    progress: Callable[[int, int], None] | None = None

    def __post_init__(self) -> None:
        if self.decode not in DECODE_METHODS:
            raise InputError(f"decode: {self.decode!r} is not one of {', '.join(DECODE_METHODS)}")
        for name, number, least in (
            ("steps", self.steps, 0),
            ("batch_size", self.batch_size, 1),
            ("workers", self.workers, 0),
        ):
            if number is not None and number < least:
                raise InputError(f"{name}: {number} must be {least} or more")

    @property
    def options(self) -> dict[str, Any]:
        """Keyword arguments of :meth:`PoseModel.estimate`."""
        steps = {} if self.steps is None else {"steps": self.steps}
        return {"decode": self.decode, "flip": self.flip, **steps}


def predict_dataset(model: PoseModel, dataset: PersonDataset, **options: Any) -> tuple[list[Row], list[str]]:
    """COCO keypoint results of a data set's persons, in their order, and a message for every failure.

    A picture that is missing or cannot be read, and heatmaps that are not finite, cost the persons
    concerned; the rest is done.

    Args:
        model: with the skeleton, input size and geometry of ``dataset``.
        dataset: without augmentation.
        options: of :class:`Inference`.

    Returns:
        Rows as of :func:`result_row` with the box's score, and failures.
    """
    rows, failures = predict_persons(model, dataset, Inference(**options))
    return [row for row in rows if row is not None], failures


def predict_persons(
    model: PoseModel, dataset: PersonDataset, how: Inference
) -> tuple[list[Row | None], list[str]]:
    """As :func:`predict_dataset`, with None in the place of every person of ``dataset`` that failed."""
    if how.device is not None:
        model.to(how.device)
    rows: list[Row | None] = [None] * len(dataset)
    failures = list(dataset.failures)
    loader = DataLoader(dataset, how.batch_size, num_workers=how.workers)
    training = model.training
    model.eval()
    try:
        done = 0
        for batch in loader:
            for index, answer in _answers(model, dataset, batch, how):
                if isinstance(answer, str):
                    failures.append(answer)
                else:
                    rows[index] = answer
            done += len(batch["index"])
            if how.progress is not None:
                how.progress(done, len(dataset))
    finally:
        model.train(training)
    # the persons of one picture fail alike
    return rows, list(dict.fromkeys(failures))


def result_row(annotations: Annotations, person: Person, keypoints: np.ndarray, scores: np.ndarray) -> Row:
    """A pose as an entry of a COCO keypoint results file, with ``box`` and ``file_name`` added.

    ``box`` is x0, y0, x1, y1. There is no ``bbox``: evaluators would take the area of an unmatched
    pose from it, and AP_M and AP_L would differ from those of COCO results.

    Args:
        annotations: names the joints and the picture.
        person: whose box.
        keypoints: (J, 2) image pixels.
        scores: (J,).

    Raises:
        InputError: a number that is not finite.
    """
    pose = Pose(annotations.skeleton, keypoints, scores, person.box, person.score)
    return {
        **pose.to_coco_result(person.image_id),
        "box": [round(number, 2) for number in person.box.tolist()],
        "file_name": annotations.images[person.image_id].file_name,
    }


def _answers(
    model: PoseModel, dataset: PersonDataset, batch: dict[str, Tensor], how: Inference
) -> Iterator[tuple[int, Row | str]]:
    """Index and row, or index and message, of every person of a batch."""
    broken = batch["broken"] > 0
    for index in batch["index"][broken].tolist():
        yield index, dataset.failure(index) or f"{_picture(dataset, index)}: could not be read"
    if broken.all():
        return
    batch = {key: values[~broken] for key, values in batch.items()}
    indices = batch["index"].tolist()
    try:
        yield from zip(indices, _estimate(model, dataset, batch, how), strict=True)
    except InputError as error:
        if len(indices) == 1:
            yield indices[0], f"{_picture(dataset, indices[0])}: {error}"
        else:  # a number that is not finite in the heatmaps of at least one person: find out whose
            for position in range(len(indices)):
                one = {key: values[position : position + 1] for key, values in batch.items()}
                yield from _answers(model, dataset, one, how)


def _estimate(
    model: PoseModel, dataset: PersonDataset, batch: dict[str, Tensor], how: Inference
) -> list[Row]:
    crops = crops_of(batch, dataset.input_size, dataset.unbiased).to(model.device)
    keypoints, scores = model.estimate(batch["image"].to(model.device), crops, **how.options)
    return [
        result_row(dataset.annotations, dataset.persons[index], points, sure)
        for index, points, sure in zip(
            batch["index"].tolist(),
            keypoints.float().cpu().numpy(),
            scores.float().cpu().numpy(),
            strict=True,
        )
    ]


def _picture(dataset: PersonDataset, index: int) -> Path:
    return dataset.images / dataset.annotations.images[dataset.persons[index].image_id].file_name
