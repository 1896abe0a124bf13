"""Scores and suppression of persons found in detected boxes, as HRNet does it.

Two boxes on one person give two nearly equal poses. The score of a pose is first made of the box's
score and its keypoints' scores (:func:`rescore`), then near-copies of a better pose are dropped by
object keypoint similarity (:func:`oks_nms`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

VISIBLE_SCORE = 0.2  # HRNet's in_vis_thre
SAME_PERSON = 0.9  # HRNet's oks_thre

Row = dict[str, Any]


def pose_score(box_score: float, scores: np.ndarray, threshold: float = VISIBLE_SCORE) -> float:
    """The box's score times the mean of the (J,) keypoint scores above ``threshold``; 0 without any."""
    sure = scores[scores > threshold]
    return float(box_score) * float(sure.mean()) if sure.size else 0.0


def rescore(results: Sequence[Mapping[str, Any]], threshold: float = VISIBLE_SCORE) -> list[Row]:
    """Results whose ``score`` (so far the box's) is multiplied by the mean score of their sure keypoints.

    Args:
        results: COCO keypoint results; ``keypoints`` flat x, y, score triplets.
        threshold: only keypoints with a score above it enter the mean; a pose without any scores 0.

    Returns:
        Copies of the results, in the same order.
    """
    rows = []
    for result in results:
        scores = np.asarray(result["keypoints"], dtype=np.float64)[2::3]
        rows.append({**result, "score": pose_score(result["score"], scores, threshold)})
    return rows


def pairwise_oks(keypoints: np.ndarray, areas: np.ndarray, sigmas: Sequence[float]) -> np.ndarray:
    """Similarity of every pose with every other, the area of a pair being the mean of the two.

    Args:
        keypoints: (n, J, 2), image pixels.
        areas: (n,), square pixels.
        sigmas: (J,), COCO convention.

    Returns:
        (n, n), 1 where two poses are equal. All joints count, whatever their scores.
    """
    distance = ((keypoints[:, None] - keypoints[None]) ** 2).sum(-1)
    area = (areas[:, None] + areas[None]) / 2 + np.spacing(1)
    variance = (2 * np.asarray(sigmas)) ** 2
    similarity: np.ndarray = np.exp(-distance / (2 * variance * area[..., None])).mean(-1)
    return similarity


def oks_nms(
    results: Sequence[Mapping[str, Any]],
    sigmas: Sequence[float],
    threshold: float = SAME_PERSON,
    areas: Sequence[float] | None = None,
) -> list[Row]:
    """Results without the poses that repeat a better-scored pose of the same image.

    Args:
        results: COCO keypoint results with ``box`` (x0, y0, x1, y1) unless ``areas`` is given.
        sigmas: (J,), the skeleton's.
        threshold: a pose with OKS above it to a kept pose of higher score is dropped.
        areas: one area for each result. HRNet takes that of the crop (the box padded and brought to
            the input's aspect); without it the area of ``box`` is taken.

    Returns:
        Copies of the kept results, in the order given.
    """
    if areas is None:
        areas = [(x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in (result["box"] for result in results)]
    of_image: dict[Any, list[int]] = defaultdict(list)
    for index, result in enumerate(results):
        of_image[result["image_id"]].append(index)
    kept: list[int] = []
    for indices in of_image.values():
        keypoints = np.stack([_coordinates(results[index]) for index in indices])
        similarity = pairwise_oks(keypoints, np.asarray([areas[index] for index in indices]), sigmas)
        scores = np.asarray([results[index]["score"] for index in indices])
        kept += [indices[position] for position in _suppress(similarity, scores, threshold)]
    return [dict(results[index]) for index in sorted(kept)]


def _coordinates(result: Mapping[str, Any]) -> np.ndarray:
    return np.asarray(result["keypoints"], dtype=np.float64).reshape(-1, 3)[:, :2]


def _suppress(similarity: np.ndarray, scores: np.ndarray, threshold: float) -> list[int]:
    """Greedy choice from the best score down; (n, n) similarity, (n,) scores."""
    kept: list[int] = []
    for candidate in np.argsort(-scores, kind="stable"):
        if not kept or similarity[candidate, kept].max() <= threshold:
            kept.append(int(candidate))
    return kept
