"""Figure 5's pictures: which persons are hard by a rule that favours no model, and what each model sees."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from diffusionpose.data.annotations import Annotations
from diffusionpose.data.dataset import PersonDataset
from diffusionpose.evaluation.results import Inference, Row, predict_persons
from diffusionpose.geometry.crops import heatmap_ratio
from diffusionpose.models.pose_model import PoseModel
from diffusionpose.models.weights import load_model
from diffusionpose.training.data import read_persons, worker_count
from diffusionpose.training.reproduction.machine import device_for
from diffusionpose.training.reproduction.picture_plot import Shown, View, plot_pictures
from diffusionpose.training.reproduction.rows import Measured

if TYPE_CHECKING:
    from diffusionpose.training.reproduction.reproduce import Request

HARDEST = 0.2  # share of the persons that count as hard
LABELLED = 0.75  # share of the joints that a person must have labelled to be shown
RULE = (
    "A person's error under a model is the mean distance of its labelled joints from the truth, in per cent "
    "of the root of its box's area. Persons with at least {labelled} of {joints} joints labelled ({eligible} "
    "of {persons}) are ordered by the mean error over both models; of the worst fifth ({hard}), {shown} are "
    "drawn at random (seed {seed})."
)


def show_hard_pictures(
    request: Request,
    measured: Sequence[Measured],
    path: Path,
    before: dict[str, Any] | None = None,
    seed: int = 0,
) -> dict[str, Any] | None:
    """Choose, draw and list the pictures; None where a model is missing.

    Args:
        request: of the study; its first seed's models are shown.
        measured: every planned training with its results.
        path: of the PNG.
        before: what this gave the last time; it and the PNG are kept where nothing has changed.
        seed: of the draw among the hard ones.
    """
    first = [(planned, job) for planned, job, results in measured if planned.seed == 0 and results]
    if len(first) < len(request.study.variants):
        return None
    key = {"pictures": request.pictures, "seed": seed, **{job.name: job.key(1) for _, job in first}}
    if before is not None and before.get("key") == key and path.exists():
        return before
    device = device_for(request.machine.accelerator)
    models = {planned.variant.run: load_model(job.model_file, device) for planned, job in first}
    names, settings = list(models), first[0][1].settings
    data = _data(request, next(iter(models.values())))
    how = Inference(settings.decode, settings.flip, 1, 2 * settings.batch_size, worker_count(request.machine))
    rows = [predict_persons(model, data, how)[0] for model in models.values()]
    errors = np.stack([person_errors(data.annotations, data.persons, each) for each in rows])
    chosen, rule = _choose(data, errors, request.pictures, seed)
    shown = [_view(models, data, index, settings.decode) for index in chosen]
    plot_pictures(request.study.title, data.annotations.skeleton, shown, path)
    return {
        "key": key,
        "rule": rule,
        "models": names,
        "mean_error": dict(zip(names, np.nanmean(errors, axis=1).tolist(), strict=True)),
        "shown": [_entry(data, index, dict(zip(names, errors[:, index], strict=True))) for index in chosen],
    }


def _data(request: Request, model: PoseModel) -> PersonDataset:
    truth = read_persons(request.data.val, model.skeleton).labelled()
    return PersonDataset(truth, request.data.val.images, model.input_size, model.unbiased, skip_missing=True)


def _entry(data: PersonDataset, index: int, errors: Mapping[str, np.floating]) -> dict[str, Any]:
    person = data.persons[index]
    return {
        "file_name": data.annotations.images[person.image_id].file_name,
        "annotation": person.id,
        "errors": {name: float(error) for name, error in errors.items()},
    }


def _choose(data: PersonDataset, errors: np.ndarray, count: int, seed: int) -> tuple[list[int], str]:
    """Which persons are shown, and the rule in words."""
    joints = data.annotations.skeleton.num_joints
    labelled = int(np.ceil(LABELLED * joints))
    counts = np.array([int((person.visible > 0).sum()) for person in data.persons])
    hard, eligible = hardest(errors, counts >= labelled)
    chosen = np.random.default_rng(seed).permutation(hard)[:count].tolist()
    numbers = {"labelled": labelled, "joints": joints, "eligible": eligible, "persons": len(data)}
    return chosen, RULE.format(**numbers, hard=len(hard), shown=len(chosen), seed=seed)


def person_errors(annotations: Annotations, persons: Sequence[Any], rows: Sequence[Row | None]) -> np.ndarray:
    """(n,) mean distance of the labelled joints, in units of the root of the box's area; NaN without a pose.

    Args:
        annotations: name the joints.
        persons: n with their truth, each with a labelled joint.
        rows: their poses, None where there is none.
    """
    joints, errors = annotations.skeleton.num_joints, []
    for person, row in zip(persons, rows, strict=True):
        if row is None:
            errors.append(np.nan)
            continue
        keypoints = np.reshape(row["keypoints"], (joints, 3))[:, :2]
        distance = np.linalg.norm(keypoints - person.keypoints, axis=1)[person.visible > 0]
        size = np.sqrt(np.prod(person.box[2:] - person.box[:2]))
        errors.append(float(distance.mean() / size))
    return np.array(errors)


def hardest(errors: np.ndarray, eligible: np.ndarray) -> tuple[np.ndarray, int]:
    """The worst fifth of the eligible persons by mean error over models, and how many are eligible.

    Args:
        errors: (models, n); a person with a NaN is not eligible.
        eligible: (n,) bool.

    Returns:
        Indices, worst first, and a number.
    """
    mean = errors.mean(axis=0)
    allowed = np.flatnonzero(eligible & np.isfinite(mean))
    order = allowed[np.argsort(-mean[allowed], kind="stable")]
    return order[: int(np.ceil(HARDEST * len(order)))], len(allowed)


@torch.no_grad()
def _view(models: Mapping[str, PoseModel], data: PersonDataset, index: int, decode: str) -> Shown:
    sample = data[index]
    views = []
    for model in models.values():
        images = sample["image"][None].to(model.mean.device)
        for title, options in _looks(model):
            heatmaps = model.heatmaps(images, flip=False, **options).cpu()
            keypoints, _ = model.codec.decode(heatmaps, decode)
            across, down = heatmap_ratio(model.input_size, model.heatmap_size, model.unbiased)
            pixel = (1 / across, 1 / down)
            points = keypoints[0].numpy() * np.array(pixel)
            views.append(View(title, heatmaps[0].numpy(), points, pixel))
    image = sample["image"].permute(1, 2, 0).numpy()
    return Shown(image, sample["keypoints"].numpy(), sample["visible"].numpy(), views)


def _looks(model: PoseModel) -> list[tuple[str, dict[str, Any]]]:
    from diffusionpose.models.diffusion_pose import DiffusionPose

    if isinstance(model, DiffusionPose):
        return [("DiffusionPose, coarse\n(0 steps)", {"steps": 0}), ("DiffusionPose\n(1 step)", {"steps": 1})]
    return [("heatmap baseline", {})]
