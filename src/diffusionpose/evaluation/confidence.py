"""Calibrated confidence measured: how often what a model says of its keypoints is true."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from diffusionpose.data.annotations import BOX_SHARE, Annotations
from diffusionpose.evaluation.compare import BLUE, GREY, panels
from diffusionpose.poses import ABSENT, HIDDEN, REGION, VISIBLE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RIGHT = 0.5  # keypoint similarity from which on a joint is right
BINS = 10  # of probability, for the expected calibration error


@dataclass(frozen=True, eq=False)
class ConfidenceReport:
    """How far confidence can be trusted.

    Attributes:
        metrics: ``ECE``, the expected calibration error of a joint's probability of being right;
            ``region_90``, the share of joints in their 90 % region; ``visibility_accuracy``, the mean of the
            shares of absent, hidden and visible joints that are known as such (None where one kind is not
            labelled); ``OKS_error``, the mean distance of the expected from the true OKS of a person.
        bins: of probability: its mean, the share of right joints, and how many joints.
    """

    metrics: dict[str, float | None]
    bins: list[tuple[float, float, int]]


def measure_confidence(
    persons: Annotations, rows: Sequence[Mapping[str, Any] | None]
) -> ConfidenceReport | None:
    """Of results that carry confidence, one for each of the persons or None; None where none does."""
    pairs = [(p, row) for p, row in zip(persons.persons, rows, strict=True) if row and "probabilities" in row]
    if not pairs:
        return None
    joints = persons.skeleton.num_joints
    keypoints = np.array([row["keypoints"] for _, row in pairs]).reshape(-1, joints, 3)[..., :2]
    error = keypoints - np.stack([person.keypoints for person, _ in pairs])
    visible = np.stack([person.visible for person, _ in pairs])
    boxes = np.stack([person.box for person, _ in pairs])
    probabilities, flags, covariances = (
        np.array([row[key] for _, row in pairs]) for key in ("probabilities", "visibility", "covariances")
    )
    similarity, labelled = keypoint_similarity(error, boxes, persons.skeleton.sigmas), visible > 0
    right, said = similarity[labelled] >= RIGHT, probabilities[labelled]
    places = np.minimum((said * BINS).astype(int), BINS - 1)
    bins = [
        (float(said[own].mean()), float(right[own].mean()), int(own.sum()))
        for number in range(BINS)
        if (own := places == number).any()
    ]
    (xx, xy, yy), (dx, dy) = np.moveaxis(covariances, -1, 0), np.moveaxis(error, -1, 0)
    distance = (yy * dx**2 - 2 * xy * dx * dy + xx * dy**2) / (xx * yy - xy**2)
    oks = (similarity * labelled).sum(1) / labelled.sum(1)
    kinds = {flag: visible == flag for flag in (ABSENT, HIDDEN, VISIBLE)}
    known = [float((flags[own] == flag).mean()) for flag, own in kinds.items() if own.any()]
    metrics = {
        "ECE": sum(count * abs(mean - share) for mean, share, count in bins) / len(said),
        "region_90": float((distance[labelled] <= REGION).mean()),
        "visibility_accuracy": float(np.mean(known)) if len(known) == len(kinds) else None,
        "OKS_error": float(np.abs(oks - [row["expected_oks"] for _, row in pairs]).mean()),
    }
    return ConfidenceReport(metrics, bins)


def plot_reliability(report: ConfidenceReport) -> Figure:
    """The share of right joints by the probability that was said, and how many joints each bin has."""
    figure, (left, right) = panels(2)
    said, share, counts = zip(*report.bins, strict=True)
    left.plot([0, 1], [0, 1], color=GREY, linestyle="--")
    left.plot(said, share, color=BLUE, marker="o")
    title = f"Reliability, ECE {report.metrics['ECE']:.3f}"
    left.set(title=title, xlabel="probability of being right", ylabel="share of joints that are")
    right.bar(said, counts, width=0.8 / BINS, color=BLUE)
    right.set(title="Joints", xlabel="probability of being right")
    return figure


def keypoint_similarity(error: np.ndarray, boxes: np.ndarray, sigmas: Sequence[float]) -> np.ndarray:
    """(n, J) keypoint similarities at distances (n, J, 2), with 0.53 of the box as the person's area."""
    areas = BOX_SHARE * (boxes[:, 2:] - boxes[:, :2]).prod(1, keepdims=True)
    similarity: np.ndarray = np.exp(-(error**2).sum(-1) / (2 * areas * (2 * np.asarray(sigmas)) ** 2))
    return similarity
