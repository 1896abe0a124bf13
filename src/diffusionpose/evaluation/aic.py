"""The score of the AI Challenger 2017 keypoint contest, which is not COCO's AP."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from diffusionpose.data.json_files import entries_with, read_json
from diffusionpose.data.persons import Annotations, Person
from diffusionpose.errors import InputError
from diffusionpose.skeletons import AIC

THRESHOLDS = np.linspace(0.5, 0.95, 10)


def aic_score(annotations: Annotations, results: Sequence[Mapping[str, Any]]) -> float:
    """The official score: how many true persons have a prediction close to them.

    The OKS of a true person and a prediction is the mean, over the joints that are in the picture
    and not hidden (flag 1 in the native file, ``visible`` 2 here), of exp(-d^2 / (2 area (2 sigma)^2))
    with the area of the box plus 1. Every true person takes its best prediction; predictions are not
    used up and their scores play no part. The score is the mean over the thresholds 0.50, 0.55 .. 0.95
    of the persons with an OKS above it, divided by the sum over images of the larger of true and
    predicted persons: superfluous predictions cost. An image without predictions counts its persons
    as missed; a prediction for an image without annotations does not count.

    Args:
        annotations: joints of the AI Challenger skeleton, native or COCO form.
        results: ``image_id`` and ``keypoints`` (flat x, y, anything triplets) for each person.

    Returns:
        Score in [0, 1]; 0 where there are neither persons nor predictions.

    Raises:
        InputError: another skeleton, or a result without 14 keypoints.
    """
    if annotations.skeleton.joints != AIC.joints:
        raise InputError(
            f"{annotations.path}: the AI Challenger score needs its {AIC.num_joints} joints, "
            f"these annotations have those of {annotations.skeleton.name!r}"
        )
    found = _keypoints_by_image(results)
    persons: dict[Any, list[Person]] = {image_id: [] for image_id in annotations.images}
    for person in annotations.persons:
        persons[person.image_id].append(person)
    total = sum(max(len(true), len(found[image_id])) for image_id, true in persons.items())
    both = [(true, found[image_id]) for image_id, true in persons.items() if true and found[image_id]]
    best = [_oks(true, np.stack(predicted)).max(1) for true, predicted in both]
    if not best:
        return 0.0
    above = np.concatenate(best)[:, None] > THRESHOLDS
    return float(above.sum(0).mean() / total)


def _keypoints_by_image(results: Sequence[Mapping[str, Any]]) -> defaultdict[Any, list[np.ndarray]]:
    """(14, 2) of every predicted person."""
    found: defaultdict[Any, list[np.ndarray]] = defaultdict(list)
    for result in results:
        found[result["image_id"]].append(_triplets(result["keypoints"], "the results")[:, :2])
    return found


def read_aic_predictions(path: str | Path) -> list[dict[str, Any]]:
    """The persons of a native AI Challenger predictions file as COCO keypoint results.

    The file is a list of ``{"image_id": .., "keypoint_annotations": {"human1": [x, y, flag, ..]}}``.
    It states no scores, so every person has score 1.

    Raises:
        InputError: the file cannot be read, is not JSON, or an entry is not of this form.
    """
    keys = ("image_id", "keypoint_annotations")
    return [
        {
            "image_id": record["image_id"],
            "category_id": 1,
            "keypoints": _triplets(numbers, f"{path}: image {record['image_id']}, {human}").ravel().tolist(),
            "score": 1.0,
        }
        for record in entries_with(Path(path), "predictions", read_json(path), keys)
        for human, numbers in record["keypoint_annotations"].items()
    ]


def _triplets(numbers: Any, where: str) -> np.ndarray:
    try:
        keypoints = np.asarray(numbers, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{where}: 'keypoints' holds something that is no number ({error})") from error
    if keypoints.shape != (3 * AIC.num_joints,) or not np.isfinite(keypoints).all():
        raise InputError(
            f"{where}: {keypoints.size} numbers for a person, or one that is not finite; "
            f"AI Challenger needs {AIC.num_joints} finite x, y, flag triplets"
        )
    return keypoints.reshape(-1, 3)


def _oks(persons: Sequence[Person], keypoints: np.ndarray) -> np.ndarray:
    """(persons, predictions) OKS of one image; 0 for a person without a joint of flag 1."""
    truth = np.stack([person.keypoints for person in persons]).astype(np.float64)
    counted = np.stack([person.visible for person in persons]) == 2
    boxes = np.stack([person.box for person in persons]).astype(np.float64)
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]) + 1
    distance = ((truth[:, None] - keypoints[None]) ** 2).sum(-1)
    variance = (2 * np.asarray(AIC.sigmas)) ** 2
    similarity = np.exp(-distance / (2 * variance * area[:, None, None])) * counted[:, None]
    oks: np.ndarray = similarity.sum(-1) / np.maximum(counted.sum(1), 1)[:, None]
    return oks
