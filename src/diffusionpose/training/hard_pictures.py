"""Figure 5: heatmaps of several models on hard pictures, chosen by a rule that favours none of them."""

from __future__ import annotations

import colorsys
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
SEED = 0  # of the draw among the hard ones
RULE = """\
A column is a person, the rows from above are the annotated pose, then {models}: in the colour of its
joint the heatmap, and the pose read from it. A person's error under a model is the mean distance of its
labelled joints from the truth as a share of the root of its box's area. Persons with at least
{labelled} of {joints} joints labelled ({eligible} of {persons}) are ordered by the mean error over the
models; of the worst fifth ({hard}), {shown} are drawn at random."""
DIMMED = 0.45  # brightness of the picture below the heatmaps
POWER = 0.6  # of a heatmap's height, so that low ones can be seen too
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
    data = PersonDataset(truth, val.images, one.input_size, one.unbiased, skip_missing=True)
    persons = replace(truth, persons=data.persons)
    errors = []
    for model, steps in models.values():
        options = Inference(decode, steps=None if model.default_steps is None else steps)
        rows, _ = predict_persons(model, persons, val.images, options)
        errors.append(person_errors(truth, data.persons, rows))
    labelled = int(np.ceil(LABELLED * truth.skeleton.num_joints))
    counts = np.array([int((person.visible > 0).sum()) for person in data.persons])
    hard, eligible = hardest(np.stack(errors), counts >= labelled)
    chosen = np.random.default_rng(SEED).permutation(hard)[:count].tolist()
    columns = [np.zeros((HEIGHT * (1 + len(models)), 1, 3), np.uint8)]
    for sample in (data[index] for index in chosen):
        crop, visible = sample["image"], sample["visible"].numpy() > 0
        cells = [_drawn(crop, one, sample["keypoints"].numpy(), visible)]
        for model, steps in models.values():
            with torch.no_grad():
                arguments = {} if model.default_steps is None else {"steps": steps}
                heatmaps = model(crop[None].to(model.device), **arguments).float().cpu()
            pixel = 1 / np.array(heatmap_ratio(model.input_size, model.heatmap_size, model.unbiased))
            keypoints = model.codec.decode(heatmaps, decode)[0][0].numpy() * pixel
            cells.append(_drawn(crop, model, keypoints, np.full(len(keypoints), True), heatmaps[0].numpy()))
        columns.append(np.concatenate(cells))
    rule = RULE.format(
        models="; ".join(models),
        labelled=labelled,
        joints=truth.skeleton.num_joints,
        eligible=eligible,
        persons=len(data),
        hard=len(hard),
        shown=len(chosen),
    )
    shown = [truth.images[data.persons[index].image_id].file_name for index in chosen]
    return Image.fromarray(np.concatenate(columns, axis=1)), {"rule": rule, "shown": shown}


def person_errors(annotations: Annotations, persons: Sequence[Any], rows: Sequence[Any]) -> np.ndarray:
    """(n,) mean distance of the labelled joints, in units of the root of the box's area; NaN without a pose.

    Args:
        annotations: name the joints.
        persons: n with their truth, each with a labelled joint.
        rows: their poses as COCO results, None where there is none.
    """
    errors = np.full(len(persons), np.nan)
    for index, (person, row) in enumerate(zip(persons, rows, strict=True)):
        if row is not None:
            keypoints = np.reshape(row["keypoints"], (annotations.skeleton.num_joints, 3))[:, :2]
            distance = np.linalg.norm(keypoints - person.keypoints, axis=1)[person.visible > 0]
            errors[index] = distance.mean() / np.sqrt(np.prod(person.box[2:] - person.box[:2]))
    return errors


def hardest(errors: np.ndarray, eligible: np.ndarray) -> tuple[np.ndarray, int]:
    """The worst fifth of the eligible persons by mean error over models, worst first; how many are eligible.

    Args:
        errors: (models, n); a person with a NaN is not eligible.
        eligible: (n,) bool.
    """
    mean = errors.mean(axis=0)
    allowed = np.flatnonzero(eligible & np.isfinite(mean))
    order = allowed[np.argsort(-mean[allowed], kind="stable")]
    return order[: int(np.ceil(HARDEST * len(order)))], len(allowed)


def _drawn(
    crop: torch.Tensor,
    model: PoseModel,
    keypoints: np.ndarray,
    visible: np.ndarray,
    heatmaps: np.ndarray | None = None,
) -> np.ndarray:
    """A crop (3, h, w) uint8, enlarged, with heatmaps (j, h', w') and a pose (j, 2) in input pixels."""
    width, height = model.input_size
    zoom = HEIGHT / height
    size = (round(width * zoom), HEIGHT)
    image = _enlarged(crop.permute(1, 2, 0).numpy(), zoom, zoom, size)
    if heatmaps is not None:
        across, down = heatmap_ratio(model.input_size, model.heatmap_size, model.unbiased)
        layer = _enlarged(overlay(heatmaps).astype(np.float32), zoom / across, zoom / down, size)
        opacity = layer[..., 3:]
        image = (
            (DIMMED * image * (1 - opacity) + 255 * layer[..., :3] * opacity).clip(0, 255).astype(np.uint8)
        )
    box = np.array([0, 0, *size])
    return draw_poses(image, [Pose(model.skeleton, keypoints * zoom, visible.astype(float), box, 1.0)])


def _enlarged(image: np.ndarray, across: float, down: float, size: tuple[int, int]) -> np.ndarray:
    """Pixel i goes to i times ``across`` or ``down``."""
    return cv2.warpAffine(image, np.diag([across, down, 1.0])[:2], size, flags=cv2.INTER_LINEAR)


def overlay(heatmaps: np.ndarray) -> np.ndarray:
    """Heatmaps (J, h, w) as one RGBA picture (h, w, 4) in [0, 1].

    The colour is the mean of the joints' by the height of their heatmaps, the opacity by the highest.
    """
    joints = len(heatmaps)
    colors = np.array([colorsys.hsv_to_rgb(joint / joints, 0.85, 1.0) for joint in range(joints)])
    weights = np.clip(heatmaps, 0, 1)
    mixed = np.einsum("jhw,jc->hwc", weights, colors) / np.maximum(weights.sum(axis=0), 1e-6)[..., None]
    return np.dstack([np.clip(mixed, 0, 1), 0.95 * weights.max(axis=0) ** POWER])
