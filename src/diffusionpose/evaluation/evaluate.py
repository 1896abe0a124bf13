"""A model measured on a data set, with true or with detected boxes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from diffusionpose.data.annotations import Annotations, Person, annotations_in
from diffusionpose.data.boxes import read_boxes
from diffusionpose.data.dataset import PersonDataset, crops_of
from diffusionpose.errors import InputError
from diffusionpose.evaluation.compare import Interval, bootstrap_pck
from diffusionpose.evaluation.metrics import (
    JointCounts,
    Metrics,
    aic_score,
    coco_metrics,
    count_pose_joints,
    crowdposetools_metrics,
    has_torso,
    oks_nms,
    rescore,
)
from diffusionpose.geometry import DECODE_METHODS, Crop
from diffusionpose.models.pose_model import PoseModel
from diffusionpose.poses import Pose
from diffusionpose.runtime.estimator import keypoints_in_crops
from diffusionpose.runtime.networks import Network, TorchNetwork
from diffusionpose.skeletons import AIC, CROWDPOSE, LOWER_BODY, Skeleton

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
        device: a PoseModel is moved there; None leaves it where it is.
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
        """Keyword arguments of :func:`~diffusionpose.runtime.estimator.keypoints_in_crops`."""
        return {"decode": self.decode, "flip": self.flip, "steps": self.steps}


def predict_dataset(
    model: Network | PoseModel, dataset: PersonDataset, **options: Any
) -> tuple[list[Row], list[str]]:
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
    model: Network | PoseModel, dataset: PersonDataset, how: Inference
) -> tuple[list[Row | None], list[str]]:
    """As :func:`predict_dataset`, with None in the place of every person of ``dataset`` that failed."""
    network = model if isinstance(model, Network) else TorchNetwork(model, how.device)
    rows: list[Row | None] = [None] * len(dataset)
    failures = list(dataset.failures)
    loader = DataLoader(dataset, how.batch_size, num_workers=how.workers)
    done = 0
    for batch in loader:
        for index, answer in _answers(network, dataset, batch, how):
            if isinstance(answer, str):
                failures.append(answer)
            else:
                rows[index] = answer
        done += len(batch["index"])
        if how.progress is not None:
            how.progress(done, len(dataset))
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
    network: Network, dataset: PersonDataset, batch: dict[str, Tensor], how: Inference
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
        yield from zip(indices, _estimate(network, dataset, batch, how), strict=True)
    except InputError as error:
        if len(indices) == 1:
            yield indices[0], f"{_picture(dataset, indices[0])}: {error}"
        else:  # a number that is not finite in the heatmaps of at least one person: find out whose
            for position in range(len(indices)):
                one = {key: values[position : position + 1] for key, values in batch.items()}
                yield from _answers(network, dataset, one, how)


def _estimate(
    network: Network, dataset: PersonDataset, batch: dict[str, Tensor], how: Inference
) -> list[Row]:
    crops = crops_of(batch, dataset.input_size, dataset.unbiased)
    keypoints, scores = keypoints_in_crops(network, batch["image"], crops, **how.options)
    return [
        result_row(dataset.annotations, dataset.persons[index], points, sure)
        for index, points, sure in zip(
            batch["index"].tolist(),
            keypoints,
            scores,
            strict=True,
        )
    ]


def _picture(dataset: PersonDataset, index: int) -> Path:
    return dataset.images / dataset.annotations.images[dataset.persons[index].image_id].file_name


# The mean pose: the same keypoints in every box, what a model must at least beat


def learn_mean_pose(annotations: Annotations) -> np.ndarray:
    """Mean position of every joint relative to the box, over the labelled joints of ``annotations``.

    Args:
        annotations: a training set.

    Returns:
        (J, 2): x / box width and y / box height from the box's upper left corner. A joint that is
        never labelled stands in the middle of the box.

    Raises:
        InputError: no person has a labelled joint.
    """
    persons = annotations.labelled().persons
    if not persons:
        raise InputError(f"{annotations.path}: no person with a labelled joint to learn a mean pose from")
    boxes = np.stack([person.box for person in persons]).astype(np.float64)[:, None]
    keypoints = np.stack([person.keypoints for person in persons])
    labelled = (np.stack([person.visible for person in persons]) > 0)[..., None]
    relative = (keypoints - boxes[..., :2]) / (boxes[..., 2:] - boxes[..., :2])
    count = labelled.sum(0)
    total: np.ndarray = np.where(labelled, relative, 0).sum(0)
    return np.where(count > 0, total / np.maximum(count, 1), 0.5)


def predict_mean_pose(mean_pose: np.ndarray, annotations: Annotations) -> list[dict[str, Any]]:
    """The mean pose in the box of every person.

    Args:
        mean_pose: (J, 2) of :func:`learn_mean_pose`.
        annotations: persons with boxes; J joints.

    Returns:
        COCO keypoint results in the order of the persons; keypoint scores 1, ``score`` the box's.

    Raises:
        InputError: another number of joints.
    """
    if mean_pose.shape != (annotations.skeleton.num_joints, 2):
        raise InputError(
            f"a mean pose of shape {mean_pose.shape} does not fit {annotations.path}, "
            f"whose skeleton has {annotations.skeleton.num_joints} joints"
        )
    rows = []
    for person in annotations.persons:
        corner, size = person.box[:2], person.box[2:] - person.box[:2]
        keypoints = corner + mean_pose * size
        rows.append(result_row(annotations, person, keypoints, np.ones(len(keypoints))))
    return rows


# Errors as pose estimators make them, put on true poses: what a refinement is measured on

KINDS = ("good", "jitter", "miss", "inversion")
GOOD, JITTER, MISS, NEVER = 1.0, 0.85, 0.5, 0.1  # ks at which each kind begins, and where the last ends
HEAD = ("nose", "eye", "ear", "head")
TRIES = 500  # places drawn for an error; where none of them fits, the joint is good

# (most labelled joints for which the row holds, rates by part): PoseFix's rates
JITTER_RATES = (
    (10, {"calm": 0.15, "hip": 0.25, "other": 0.20}),
    (math.inf, {"calm": 0.10, "hip": 0.20, "other": 0.15}),
)
MISS_RATES = (
    (5, {"head": 0.15, "end": 0.20, "other": 0.25}),
    (10, {"head": 0.10, "end": 0.13, "other": 0.15}),
    (math.inf, {"head": 0.02, "end": 0.05, "other": 0.10}),
)
INVERSION_RATES = {"head": 0.01, "lower": 0.06, "other": 0.03}


def with_errors(
    keypoints: np.ndarray, given: np.ndarray, area: float, skeleton: Skeleton, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """A pose as an estimator might have given it.

    Args:
        keypoints: (J, 2) true ones, image pixels.
        given: (J,) bool, which are known; the others stay as they are.
        area: of the person, square pixels, as OKS takes it.
        skeleton: names, pairs and sigmas of the joints.
        generator: of the randomness; the same seed gives the same errors.

    Returns:
        keypoints (J, 2) and the index in ``KINDS`` of what was done to each joint, (J,).
    """
    changed, kinds = keypoints.astype(np.float64), np.zeros(len(keypoints), np.int64)
    for joint in np.flatnonzero(given):
        mirror = skeleton.flip_order[joint]
        paired = mirror != joint and bool(given[mirror])
        rates = error_rates(skeleton.joints[joint], int(given.sum()))
        if not paired:
            rates[KINDS.index("inversion")] = 0
        kind = int(generator.choice(len(KINDS), p=rates / rates.sum()))
        reach = _distances(skeleton.sigmas[joint], area)
        away = keypoints[mirror] if paired else None
        place = _place(KINDS[kind], keypoints[joint], away, reach, generator)
        if place is None:
            kind = KINDS.index("good")
            place = _place("good", keypoints[joint], None, reach, generator)
        changed[joint], kinds[joint] = place, kind
    return changed, kinds


def error_rates(joint: str, labelled: int) -> np.ndarray:
    """(4,) rates of ``KINDS`` for a joint of a person with so many labelled joints."""
    words = joint.split("_")
    head = any(word in HEAD for word in words)
    lower = any(word in LOWER_BODY for word in words)
    calm = "nose" in words or (lower and "hip" not in words)
    end = "shoulder" in words or "ankle" in words
    jitter = _row(JITTER_RATES, labelled)["calm" if calm else "hip" if "hip" in words else "other"]
    miss = _row(MISS_RATES, labelled)["head" if head else "end" if end else "other"]
    inversion = INVERSION_RATES["head" if head else "lower" if lower else "other"]
    return np.array([1 - jitter - miss - inversion, jitter, miss, inversion])


def _row(rows: tuple[tuple[float, dict[str, float]], ...], labelled: int) -> dict[str, float]:
    return next(rates for most, rates in rows if labelled <= most)


def _distances(sigma: float, area: float) -> Callable[[float], float]:
    """The distance in pixels at which a joint has a keypoint similarity."""
    return lambda ks: math.sqrt(-2 * area * (2 * sigma) ** 2 * math.log(ks))


def _place(
    kind: str,
    truth: np.ndarray,
    mirror: np.ndarray | None,
    reach: Callable[[float], float],
    generator: np.random.Generator,
) -> np.ndarray | None:
    """(2,) where an error of that kind lies, nearer to its own joint than to the mirror one; or None."""
    near, far = {
        "good": (GOOD, JITTER), "jitter": (JITTER, MISS), "miss": (MISS, NEVER), "inversion": (GOOD, MISS)
    }[kind]  # fmt: skip
    middle, other = (mirror, truth) if kind == "inversion" else (truth, mirror)
    angles = generator.uniform(0, 2 * math.pi, TRIES)
    radii = generator.uniform(reach(near), reach(far), TRIES)
    places = middle + radii[:, None] * np.column_stack([np.cos(angles), np.sin(angles)])
    if other is not None:
        least = np.full(TRIES, reach(MISS)) if kind == "miss" else radii
        places = places[np.hypot(*(places - other).T) > least]
    return places[0] if len(places) else None


# A model measured on a data set, with true or with detected boxes

CROWDPOSETOOLS_KEYS = ("AP", "AP50", "AP75", "AR", "AP_easy", "AP_medium", "AP_hard")


@dataclass(frozen=True, eq=False)
class Report:
    """What an evaluation found.

    Attributes:
        metrics: by name, in [0, 1]; None where nothing falls into a metric's range.
        results: COCO keypoint results, rescored, after OKS-NMS where boxes were detected.
        box_source: where the boxes come from; belongs beside every number.
        settings: decode, flip and steps of a model; empty for other results.
        counts: images, boxes, poses, boxes without a pose.
        failures: a message for everything that could not be done.
        joints: which joints PCK counts; None with detected boxes or without a torso in the skeleton.
    """

    metrics: Metrics
    results: list[Row]
    box_source: str
    settings: dict[str, Any] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    joints: JointCounts | None = None

    @cached_property
    def intervals(self) -> dict[str, Interval | None]:
        """95 % bootstrap intervals over persons, of PCK and PCK_limbs."""
        if self.joints is None:
            return {}
        return {
            "PCK": bootstrap_pck(self.joints),
            "PCK_limbs": bootstrap_pck(self.joints, self.joints.limbs),
        }

    def to_dict(self) -> dict[str, Any]:
        """What metrics.json holds: the metrics at the top level, valid JSON (null for None)."""
        more: dict[str, Any] = {}
        if self.joints is not None:
            more = {"PCK_per_joint": self.joints.per_joint(), "intervals_95": self.intervals}
        return {
            **self.metrics,
            "box_source": self.box_source,
            "settings": self.settings,
            "counts": self.counts,
            **more,
            "failures": self.failures,
        }

    def table(self) -> str:
        """One line for each metric, the box source beside every number, and PCK's 95 % intervals."""
        width = max(map(len, self.metrics))
        settings = ", ".join(f"{name} {value}" for name, value in self.settings.items() if value is not None)
        counts = ", ".join(f"{number} {name}" for name, number in self.counts.items())
        lines = [f"{'metric':<{width}}   value   boxes"]
        for name, value in self.metrics.items():
            number = "     -" if value is None else f"{value:6.4f}"
            ends = self.intervals.get(name)
            between = f"   95 %: {ends[0]:.4f} to {ends[1]:.4f}" if ends else ""
            lines.append(f"{name:<{width}}  {number}   {self.box_source}{between}")
        return "\n".join([*lines, *filter(None, (settings, counts))])


def evaluate(
    model: Network | PoseModel,
    annotations: Annotations | str | Path,
    images: str | Path,
    boxes: Annotations | str | Path | None = None,
    skeleton: Skeleton | None = None,
    **options: Any,
) -> Report:
    """Measure a model.

    With true boxes the score of a pose is the mean score of its keypoints above 0.2; with detected
    boxes that is multiplied by the score of the box, and near-copies are dropped by OKS-NMS at 0.9
    (HRNet's protocol). PCK is measured with true boxes only: it needs to know who is who.

    Args:
        model: any pose model; annotations of other joints are matched to its skeleton by name.
        annotations: the truth, or its file.
        images: folder of the pictures.
        boxes: detected boxes or their file; None for the true boxes of the labelled persons.
        skeleton: of the annotation file, where its joint names do not tell.
        options: decode, flip, steps, batch_size, workers, device, progress of :class:`Inference`.

    Raises:
        InputError: a file that cannot be used, no joint in common, or no picture to be found. What
            concerns single pictures goes to ``Report.failures`` instead, and the rest is done.
    """
    how = Inference(**options)
    truth = annotations_in(annotations, skeleton).to_skeleton(model.skeleton)
    if boxes is None:
        persons = truth.labelled()
    else:
        given = boxes if isinstance(boxes, Annotations) else read_boxes(boxes, truth)
        persons = given.to_skeleton(model.skeleton)
    rows, failures = _aligned_rows(model, persons, images, how)
    report = score_results(truth, persons, rows, None if boxes is None else _crop_areas(persons, model))
    dropped = truth.dropped if boxes is None else [*truth.dropped, *persons.dropped]
    settings = {"decode": how.decode, "flip": how.flip, "steps": how.steps}
    return replace(report, settings=settings, failures=[*dropped, *failures])


def _aligned_rows(
    model: Network | PoseModel, persons: Annotations, images: str | Path, how: Inference
) -> tuple[list[Row | None], list[str]]:
    """A row for each of ``persons``, None where there is no pose, and the failures."""
    dataset = PersonDataset(persons, images, model.input_size, model.unbiased, skip_missing=True)
    if persons.persons and not dataset.persons:
        raise InputError(f"{images}: none of the pictures of {persons.path} is there; give their folder")
    rows, failures = predict_persons(model, dataset, how)
    found = {id(person): row for person, row in zip(dataset.persons, rows, strict=True)}
    return [found.get(id(person)) for person in persons.persons], failures


def evaluate_mean_pose(
    train: Annotations | str | Path,
    annotations: Annotations | str | Path,
    skeleton: Skeleton | None = None,
) -> Report:
    """Measure the mean pose of a training set on the true boxes of another: the least a model must beat.

    Args:
        train: persons to learn the mean pose from.
        annotations: the truth.
        skeleton: whose joints to take from both; that of ``annotations`` by default.

    Raises:
        InputError: a file that cannot be used, or no joint in common.
    """
    truth = annotations_in(annotations, skeleton)
    persons = truth.labelled()
    mean_pose = learn_mean_pose(annotations_in(train, truth.skeleton))
    report = score_results(truth, persons, predict_mean_pose(mean_pose, persons))
    return replace(report, failures=list(truth.dropped))


def score_results(
    truth: Annotations,
    persons: Annotations,
    rows: Sequence[Row | None],
    areas: Sequence[float] | None = None,
) -> Report:
    """Metrics of poses, of whatever origin.

    Args:
        truth: all annotated persons, also unlabelled ones and crowds.
        persons: those whose poses were sought: ``truth.labelled()``, or the detected boxes.
        rows: for each of ``persons`` its result with the score of its box, or None if there is none.
        areas: for each of ``persons`` that of its crop, for the OKS-NMS of detected boxes; None where
            boxes are true and nothing is suppressed.
    """
    made = [index for index, row in enumerate(rows) if row is not None]
    results = rescore([row for row in rows if row is not None])
    joints = None
    if areas is not None:
        results = oks_nms(results, truth.skeleton.sigmas, areas=[areas[index] for index in made])
    elif has_torso(truth.skeleton):
        joints = count_pose_joints(persons, rows)
    counts = {
        "images": len(truth.images),
        "boxes": len(persons.persons),
        "poses": len(results),
        "boxes without a pose": len(rows) - len(made),
    }
    metrics = _metrics(truth, results, joints)
    return Report(metrics, results, persons.box_source, counts=counts, joints=joints)


def _metrics(truth: Annotations, results: list[Row], joints: JointCounts | None) -> Metrics:
    metrics = coco_metrics(truth, results)
    if joints is not None:
        metrics |= {name: joints.summary()[name] for name in ("PCK", "PCK_limbs")}
    if truth.skeleton.joints == AIC.joints:
        metrics["AIC_score"] = aic_score(truth, results)
    if truth.skeleton.joints == CROWDPOSE.joints and "AP_easy" in metrics:
        official = crowdposetools_metrics(truth, results)
        metrics |= {f"{name}_crowdposetools": official[name] for name in CROWDPOSETOOLS_KEYS}
    return metrics


def _crop_areas(persons: Annotations, model: Network | PoseModel) -> list[float]:
    """Of every person the area of the crop, which HRNet's OKS-NMS takes for the person's."""
    boxes = np.reshape([person.box for person in persons.persons], (-1, 4))
    crops = Crop.from_boxes(torch.from_numpy(boxes), model.input_size, unbiased=model.unbiased)
    return crops.scale.prod(dim=1).tolist()
