"""AP of person boxes: how well people are found."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from diffusionpose.data.annotations import Annotations
from diffusionpose.data.pictures import find_pictures
from diffusionpose.errors import InputError
from diffusionpose.evaluation.metrics import coco_evaluation
from diffusionpose.runtime.boxes import Boxes
from diffusionpose.runtime.people import box_overlaps

Truth = Mapping[Any, np.ndarray]  # picture id -> boxes (n, 4) xyxy


def people_of(annotations: Annotations) -> tuple[Truth, Truth]:
    """By picture, boxes of persons to be found, and of crowds and persons without a labelled joint."""

    def boxes(counted: bool) -> Truth:
        return {
            image_id: np.reshape(
                [p.box for p in people if (p.visible.any() and not p.is_crowd) == counted], (-1, 4)
            ).astype(np.float32)
            for image_id, people in annotations.by_image.items()
        }

    return boxes(True), boxes(False)


def people_metrics(found: Mapping[Any, Boxes], truth: Truth, ignored: Truth) -> dict[str, float]:
    """AP and AR of boxes by COCO's rules, over the pictures in ``found``.

    Args:
        found: picture id -> boxes (n, 4) xyxy and scores (n,); pictures where nobody is found as well.
        truth: picture id -> boxes (m, 4) xyxy of its persons.
        ignored: picture id -> boxes of crowds and the like: an unmatched box does not count if the share of
            its area that lies on one of them reaches the threshold (0.5 for AP50).

    Returns:
        AP, AP50, AP75 and AR50, the share of the persons found at IoU 0.5; 0 where there is nothing to find.
    """
    regions = [
        {"image_id": number, "iscrowd": crowd, **_bbox(box)}
        for crowd, boxes_of in enumerate((truth, ignored))
        for number, image_id in enumerate(found, start=1)
        for box in boxes_of.get(image_id, ())
    ]
    results = [
        {"image_id": number, "score": float(score), **_bbox(box)}
        for number, (boxes, scores) in enumerate(found.values(), start=1)
        for box, score in zip(boxes, scores, strict=True)
    ]
    if not results or not any(region["iscrowd"] == 0 for region in regions):
        return dict.fromkeys(("AP", "AP50", "AP75", "AR50"), 0.0)
    evaluation = coco_evaluation(len(found), regions, results, iouType="bbox")
    evaluation.run()
    precision, recall = evaluation.eval["precision"][:, :, 0, 0, -1], evaluation.eval["recall"][:, 0, 0, -1]
    means = {"AP": precision, "AP50": precision[0], "AP75": precision[5], "AR50": recall[0]}
    return {name: float(values.mean()) for name, values in means.items()}


def find_all(
    finder: Callable[[np.ndarray], Boxes],
    annotations: Annotations,
    images: Path,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[dict[Any, Boxes], list[str]]:
    """What is found in annotated pictures, by their ids, and a message for each that cannot be read.

    ``finder`` makes boxes and scores of a picture (H, W, 3) uint8 RGB, ``images`` is the folder of the
    pictures, ``progress`` is called with the pictures done and in all.
    """
    found: dict[Any, Boxes] = {}
    pictures, failures = find_pictures(annotations, images), []
    for number, (image_id, record) in enumerate(annotations.images.items(), start=1):
        try:
            found[image_id] = finder(pictures.read(record))
        except InputError as error:
            failures.append(str(error))
        if progress is not None:
            progress(number, len(annotations.images))
    return found, failures


def evaluate_people(
    found: Mapping[Any, Boxes], annotations: Annotations, min_score: float
) -> dict[str, float]:
    """How well people are found.

    Args:
        found: picture id -> boxes and scores, also of low scores: AP ranks them all.
        annotations: all persons of the pictures.
        min_score: from which on a box is given to a user.

    Returns:
        the metrics of :func:`people_metrics`; of the boxes from ``min_score`` on alone the AP50
        ("AP50_given"), precision and recall at IoU 0.5.
    """
    truth, ignored = people_of(annotations)
    given, hits, false, persons = {}, 0, 0, 0
    for image_id, (boxes, scores) in found.items():
        sure = scores >= min_score
        given[image_id] = boxes[sure], scores[sure]
        hit, counts = matched(boxes[sure], truth[image_id], ignored[image_id])
        hits, false = hits + int(hit.sum()), false + int((counts & ~hit).sum())
        persons += len(truth[image_id])
    metrics = people_metrics(found, truth, ignored)
    metrics["AP50_given"] = people_metrics(given, truth, ignored)["AP50"]
    return metrics | {"precision": hits / max(hits + false, 1), "recall": hits / max(persons, 1)}


def matched(boxes: np.ndarray, truth: np.ndarray, ignored: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which boxes (n, 4) xyxy, surest first, are a person's, by COCO's greedy matching at IoU 0.5.

    Returns:
        hit (n,) bool; and counts (n,) bool, False if the box hits nobody and half of it is on a crowd or the
        like, ``ignored`` (k, 4).
    """
    hit, counts, free = np.zeros(len(boxes), bool), np.ones(len(boxes), bool), np.ones(len(truth), bool)
    overlaps = box_overlaps(boxes, truth)
    for index, box in enumerate(boxes):
        overlap = overlaps[index] * free
        if overlap.max(initial=0) >= 0.5:
            hit[index], free[overlap.argmax()] = True, False
        else:
            sides = np.minimum(box[2:], ignored[:, 2:]) - np.maximum(box[:2], ignored[:, :2])
            counts[index] = not (sides.clip(0).prod(1) >= 0.5 * (box[2:] - box[:2]).prod()).any()
    return hit, counts


def detections(found: Mapping[Any, Boxes]) -> list[dict[str, Any]]:
    """What was found as COCO's detection list."""
    return [
        {"image_id": image_id, "category_id": 1, "bbox": _bbox(box)["bbox"], "score": float(score)}
        for image_id, (boxes, scores) in found.items()
        for box, score in zip(boxes, scores, strict=True)
    ]


def _bbox(box: Sequence[float]) -> dict[str, Any]:
    x0, y0, x1, y1 = (float(number) for number in box)
    return {"bbox": [x0, y0, x1 - x0, y1 - y0], "area": (x1 - x0) * (y1 - y0)}
