"""Figure 5: heatmaps of several models on hard pictures, chosen by a rule that favours none of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image

from diffusionpose.data.annotations import Annotations
from diffusionpose.data.dataset import PersonDataset
from diffusionpose.evaluation.evaluate import Inference, predict_persons
from diffusionpose.geometry import heatmap_ratio
from diffusionpose.models.pose_model import PoseModel
from diffusionpose.poses import Pose
from diffusionpose.runtime.drawing import draw_poses
from diffusionpose.training.data import read_persons
from diffusionpose.training.settings import ImageSet

HARDEST = 0.2  # share of the persons that count as hard
LABELLED = 0.75  # share of the joints that a person must have labelled to be shown
RULE = """\
A column is a person; the rows from above are the annotated pose, then {models}: the highest heatmap at
every pixel, and the pose read from the heatmaps. A person's error under a model is the mean distance of
its labelled joints from the truth as a share of the root of its box's area. The {persons} persons with
at least three quarters of their joints labelled are ordered by the mean error over the models; of the
worst fifth ({hard}), {shown} are drawn at random."""
DIMMED = 0.45  # brightness of the picture below the heatmaps
HEIGHT = 384  # of a picture, in pixels


def hard_pictures(
    models: Mapping[str, tuple[PoseModel, int]], val: ImageSet, decode: str, count: int
) -> tuple[Image.Image, dict[str, Any]]:
    """Choose hard pictures and draw them: the truth, then what each model sees and reads from that.

    Args:
        models: each with its number of diffusion steps, by name; all of one input size and skeleton.
        val: persons to choose from.
        decode: of the heatmaps.
        count: of persons to show.

    Returns:
        the picture, and "rule" (in words) and "shown" (file names).
    """
    one = next(iter(models.values()))[0]
    truth = read_persons(val, one.skeleton).labelled()
    labelled = [person for person in truth.persons if (person.visible > 0).mean() >= LABELLED]
    truth = replace(truth, persons=labelled)
    data = PersonDataset(truth, val.images, one.input_size, one.unbiased, skip_missing=True)
    truth = replace(truth, persons=data.persons)
    errors = []
    for model, steps in models.values():
        options = Inference(decode, steps=None if model.default_steps is None else steps)
        errors.append(person_errors(truth, predict_persons(model, truth, val.images, options)[0]))
    hard = hardest(np.stack(errors))
    chosen = np.random.default_rng(0).permutation(hard)[:count].tolist()
    columns = [np.zeros((HEIGHT * (1 + len(models)), 1, 3), np.uint8)]
    for sample in (data[index] for index in chosen):
        cells = [_drawn(one, sample["image"], sample["keypoints"].numpy(), sample["visible"].numpy() > 0)]
        for model, steps in models.values():
            with torch.no_grad():
                heatmaps = model(
                    sample["image"][None].to(model.device), None if model.default_steps is None else steps
                )
            keypoints, _ = model.codec.decode(heatmaps.float().cpu(), decode)
            points = keypoints[0].numpy() / np.array(_ratio(model))
            highest = heatmaps[0].amax(dim=0).float().cpu().numpy()
            cells.append(_drawn(model, sample["image"], points, np.ones(len(points)), highest))
        columns.append(np.concatenate(cells))
    rule = RULE.format(models="; ".join(models), persons=len(data), hard=len(hard), shown=len(chosen))
    shown = [truth.images[truth.persons[index].image_id].file_name for index in chosen]
    return Image.fromarray(np.concatenate(columns, axis=1)), {"rule": rule, "shown": shown}


def person_errors(persons: Annotations, rows: Sequence[Any]) -> np.ndarray:
    """(n,) mean distance of the labelled joints, in units of the root of the box's area; NaN without a pose.

    Args:
        persons: n with their truth, each with a labelled joint.
        rows: their poses as COCO results, None where there is none.
    """
    errors = np.full(len(rows), np.nan)
    for index, (person, row) in enumerate(zip(persons.persons, rows, strict=True)):
        if row is not None:
            keypoints = np.reshape(row["keypoints"], (-1, 3))[:, :2]
            distance = np.linalg.norm(keypoints - person.keypoints, axis=1)[person.visible > 0]
            errors[index] = distance.mean() / np.sqrt(np.prod(person.box[2:] - person.box[:2]))
    return errors


def hardest(errors: np.ndarray) -> np.ndarray:
    """Indices of the worst fifth by mean error over models (models, n), worst first; NaN does not count."""
    mean = errors.mean(axis=0)
    order = np.argsort(-mean, kind="stable")  # NaN comes last
    return order[: int(np.ceil(HARDEST * np.isfinite(mean).sum()))]


def _ratio(model: PoseModel) -> tuple[float, float]:
    return heatmap_ratio(model.input_size, model.heatmap_size, model.unbiased)


def _drawn(
    model: PoseModel,
    crop: torch.Tensor,
    keypoints: np.ndarray,
    visible: np.ndarray,
    heatmap: np.ndarray | None = None,
) -> np.ndarray:
    """A crop (3, h, w) uint8, enlarged, with a heatmap and a pose (j, 2) in input pixels."""
    width, height = model.input_size
    zoom = HEIGHT / height
    size = (round(width * zoom), HEIGHT)
    image = _enlarged(crop.permute(1, 2, 0).numpy(), (1.0, 1.0), zoom, size)
    if heatmap is not None:
        glow = _enlarged((255 * heatmap.clip(0, 1)).astype(np.uint8), _ratio(model), zoom, size)
        image = cv2.add(
            (DIMMED * image).astype(np.uint8), cv2.applyColorMap(glow, cv2.COLORMAP_INFERNO)[..., ::-1]
        )
    box = np.array([0, 0, *size])
    return draw_poses(image, [Pose(model.skeleton, keypoints * zoom, visible, box, 1.0)])


def _enlarged(
    image: np.ndarray, ratio: tuple[float, float], zoom: float, size: tuple[int, int]
) -> np.ndarray:
    """Pixel i of a map with so many pixels per input pixel goes to i / ratio * zoom."""
    matrix = np.diag([zoom / ratio[0], zoom / ratio[1], 1.0])[:2]
    return cv2.warpAffine(image, matrix, size, flags=cv2.INTER_LINEAR)
