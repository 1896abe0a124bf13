"""Calibrated confidence: fitted to what is seen of heatmaps and what is true, and measured.

The fit is ridge regression: logistic for probabilities, quantile for the 90 % region. All joints share one
set of weights, from which those of each joint depart as far as the data demand.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from diffusionpose.calibration import ANSWERS, Calibration, joint_features, sigmoid
from diffusionpose.data.annotations import Annotations
from diffusionpose.data.pictures import find_pictures
from diffusionpose.errors import InputError
from diffusionpose.evaluation.compare import BLUE, GREY, panels
from diffusionpose.geometry import Crop
from diffusionpose.poses import ABSENT, BOX_SHARE, HIDDEN, REGION, VISIBLE, keypoint_similarity
from diffusionpose.runtime.estimator import PoseEstimator, Request
from diffusionpose.runtime.networks import Network

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RIGHT = 0.5  # keypoint similarity from which on a joint is right
BINS = 10  # of probability, for the expected calibration error
RIDGE, OWN_RIDGE = 1.0, 30.0  # of the weights that all joints share, and of each joint's departures
QUANTILE, SOFTNESS = 0.9, 0.15  # of the region; width of the rounded corner of its loss, in log pixels
NEAREST = 0.05  # heatmap pixels that are added to a distance, whose logarithm is taken
ROUNDS = 500  # of the fit, at most
SELDOM = 1e-3  # least share of absent, hidden or visible joints that is reckoned with

# Measured


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
    sure = {index: row for index, row in enumerate(rows) if row and "probabilities" in row}
    if not sure:
        return None
    chosen, joints = list(sure), persons.skeleton.num_joints
    boxes, visible = persons.boxes[chosen], persons.visible[chosen]
    probabilities, flags, covariances, triplets = (
        np.array([row[key] for row in sure.values()])
        for key in ("probabilities", "visibility", "covariances", "keypoints")
    )
    error = triplets.reshape(-1, joints, 3)[..., :2] - persons.keypoints[chosen]
    similarity, labelled = _similarity(error, boxes, persons.skeleton.sigmas), visible > 0
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
        "OKS_error": float(np.abs(oks - [row["expected_oks"] for row in sure.values()]).mean()),
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


def _similarity(error: np.ndarray, boxes: np.ndarray, sigmas: Sequence[float]) -> np.ndarray:
    """(n, J) keypoint similarities at distances (n, J, 2), with 0.53 of the box as the person's area."""
    areas = BOX_SHARE * (boxes[:, 2:] - boxes[:, :2]).prod(1, keepdims=True)
    return keypoint_similarity(error, areas, sigmas)


# Fitted


@dataclass(frozen=True, eq=False)
class Sample:
    """Joints of n persons to fit on: what is seen of them, and what is true."""

    features: np.ndarray  # (n, J, F)
    similarity: np.ndarray  # (n, J) to the true place
    distance: np.ndarray  # (n, J) from it, heatmap pixels, in the metric of the peak's shape
    visible: np.ndarray  # (n, J) COCO's flags; -1 where it is not known
    flagged: np.ndarray  # (n,) whether absent and hidden joints are told apart

    def __add__(self, other: Sample) -> Sample:
        pairs = zip(vars(self).values(), vars(other).values(), strict=True)
        return Sample(*(np.concatenate(pair) for pair in pairs))


def observe(
    network: Network,
    annotations: Annotations,
    images: str | Path,
    persons: int,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Sample, list[str]]:
    """A sample of the labelled persons of a data set, and a message for every picture that cannot be read.

    Args:
        network: whose poses, with the flip test where it can be chosen.
        annotations: joints are matched by name. Visibility counts where hidden joints are labelled apart.
        images: folder of the pictures.
        persons: so many at most, drawn at random.
        seed: of the draw.
        progress: called with the persons done and in all.

    Raises:
        InputError: no person with a labelled joint of the network, or no picture that can be read.
    """
    own, codec = network.skeleton.joints, network.codec
    shared = [joint for joint in annotations.skeleton.joints if joint in own]
    if shared:
        annotations = annotations.to_skeleton(annotations.skeleton.select(shared))
    labelled = annotations.labelled()
    if not (shared and labelled.persons):
        raise InputError(f"{annotations.path}: no person with a labelled joint of {network.name}")
    order = np.random.default_rng(seed).permutation(len(labelled.persons))[:persons]
    chosen = [labelled.persons[index] for index in sorted(order)]
    flagged = has_flags(annotations, own)
    pictures = find_pictures(labelled, images, persons_only=True)
    places, estimator = [own.index(joint) for joint in shared], PoseEstimator(network)
    samples, failures, done = [], [], 0
    for image_id, group in groupby(chosen, key=lambda person: person.image_id):
        people, record = list(group), labelled.images[image_id]
        done += len(people)
        try:
            image = pictures.read(record)
        except InputError as error:
            failures.append(str(error))
            continue
        boxes = np.stack([person.box for person in people])
        crops = Crop.from_boxes(boxes, codec.input_size, unbiased=codec.unbiased)
        poses, steps = zip(*estimator.trace(Request(image, boxes, np.ones(len(people)))), strict=True)
        keypoints, maps = np.stack([each[-1].keypoints for each in poses]), np.stack([m[-1] for m in steps])
        sizes = np.tile(np.array(image.shape[1::-1], np.float32), (len(people), 1))
        features, shapes = joint_features(maps, keypoints, boxes, sizes, crops, codec)
        apart = keypoints[:, places] - np.stack([person.keypoints for person in people])
        visible = np.full(features.shape[:2], -1)
        similarity, distance = np.zeros(visible.shape), np.zeros(visible.shape)
        flags = np.stack([person.visible for person in people])
        visible[:, places] = flags if flagged else np.where(flags > 0, VISIBLE, -1)
        similarity[:, places] = _similarity(apart, boxes, labelled.skeleton.sigmas)
        inverse = np.linalg.inv(crops.covariance_to_image(shapes[:, places], codec.size))
        distance[:, places] = np.sqrt(np.einsum("njx,njxy,njy->nj", apart, inverse, apart))
        samples.append(Sample(features, similarity, distance, visible, np.full(len(people), flagged)))
        if progress is not None:
            progress(done, len(chosen))
    if not samples:
        raise InputError(
            f"{images}: none of the pictures of {annotations.path} can be read; give their folder"
        )
    return sum(samples[1:], samples[0]), failures


def has_flags(annotations: Annotations, joints: Sequence[str]) -> bool:
    """Whether some of these joints are labelled as hidden: then the others are known to be seen or absent."""
    own = [joint in joints for joint in annotations.skeleton.joints]
    return bool((annotations.labelled().visible[:, own] == HIDDEN).any())


def fit_calibration(sample: Sample, joints: Sequence[str], about: Mapping[str, Any]) -> Calibration:
    """The calibration of a network with these joints; ``about`` says what the sample is of."""
    features = sample.features
    mean, deviation = features.mean((0, 1)), features.std((0, 1)) + 1e-6
    standard = np.insert((features - mean) / deviation, 0, 1.0, axis=2)
    labelled, flagged = sample.visible > 0, (sample.visible >= 0) & sample.flagged[:, None]
    targets = {
        "right": (sample.similarity >= RIGHT, labelled),
        "similarity": (sample.similarity, labelled),
        "absent": (sample.visible == ABSENT, flagged),
        "hidden": (sample.visible == HIDDEN, flagged),
        "visible": (sample.visible == VISIBLE, flagged),
        "reach": (np.log(sample.distance + NEAREST), labelled),
    }
    weights = [_fit(standard, *targets[answer], quantile=answer == "reach") for answer in ANSWERS]
    shares = np.array([targets[kind][0][flagged].mean() for kind in ("absent", "hidden", "visible")])
    shares = shares.clip(SELDOM, 1 - SELDOM)  # also of a kind that the sample has not, or nothing but
    priors = np.log(shares / (1 - shares))
    return Calibration(tuple(joints), mean, deviation, np.stack(weights), priors, dict(about))


def _fit(standard: np.ndarray, target: np.ndarray, counted: np.ndarray, quantile: bool) -> np.ndarray:
    """(J, 1 + F) weights, by steps under a quadratic bound of the loss, with Nesterov's momentum."""
    joints, count = standard.shape[1:]
    joint = np.broadcast_to(np.arange(joints), counted.shape)[counted]
    own = np.zeros((len(joint), joints, count))
    own[np.arange(len(joint)), joint] = standard[counted]
    inputs = np.concatenate([standard[counted], own.reshape(len(joint), -1)], axis=1)
    y = target[counted].astype(float)
    ridge = np.full((1 + joints, count), OWN_RIDGE)
    ridge[0] = RIDGE
    ridge[:, 0] /= 10  # of the constants
    ridge = ridge.ravel()
    bound = 0.25 / SOFTNESS if quantile else 0.25
    inverse = np.linalg.inv(bound * inputs.T @ inputs + np.diag(ridge))
    weights = ahead = np.zeros(inputs.shape[1])
    for number in range(ROUNDS):
        z = inputs @ ahead
        slope = sigmoid((z - y) / SOFTNESS) - QUANTILE if quantile else sigmoid(z) - y
        before, weights = weights, ahead - inverse @ (inputs.T @ slope + ridge * ahead)
        ahead = weights + number / (number + 3) * (weights - before)
        if np.abs(weights - before).max() < 1e-4:
            break
    shared, departures = weights[:count], weights[count:].reshape(joints, count)
    return shared + departures
