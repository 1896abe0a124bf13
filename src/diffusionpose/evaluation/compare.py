"""Two methods on the same pictures: bootstrap intervals, accuracy curves, the difference, and its plot."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from diffusionpose.data.annotations import Annotations, Person
from diffusionpose.errors import InputError
from diffusionpose.evaluation.metrics import (
    JointCounts,
    Rows,
    ap_by_threshold,
    average_precision,
    count_pose_joints,
    has_torso,
    match_results,
    pick_joints,
)
from diffusionpose.json_files import as_numbers
from diffusionpose.skeletons import Skeleton

Interval = tuple[float, float]


def bootstrap_pck(
    counts: JointCounts,
    joints: Sequence[int] | None = None,
    rounds: int = 2000,
    seed: int = 0,
    confidence: float = 0.95,
) -> Interval | None:
    """Percentile interval of PCK over persons drawn with replacement.

    Args:
        counts: of ``count_joints`` or ``Report.joints``.
        joints: indices, such as ``counts.limbs``; all by default.
        rounds: how many samples of persons are drawn.
        seed: of the draw; two models measured with one seed are measured on the same samples.
        confidence: share of the samples inside the interval.

    Returns:
        Lower and upper end; None where no joint counts.
    """
    chosen = slice(None) if joints is None else list(joints)
    correct = counts.correct[:, chosen].sum(1)
    counted = counts.counted[:, chosen].sum(1)
    if not counted.any():
        return None
    shares = []
    for drawn in draws(len(counted), rounds, seed):
        if total := counted[drawn].sum():
            shares.append(correct[drawn].sum() / total)
    return percentiles(shares, confidence)


def bootstrap_ap(
    annotations: Annotations,
    results: Rows,
    rounds: int = 200,
    seed: int = 0,
    confidence: float = 0.95,
) -> Interval | None:
    """Percentile interval of AP over pictures drawn with replacement.

    Each round is a whole evaluation: 0.3 s for the 977 persons of lspet14 val on one core.

    Args:
        annotations: of all persons.
        results: COCO keypoint results.
        rounds, seed, confidence: as :func:`bootstrap_pck`.

    Returns:
        Lower and upper end; None where no person counts.
    """
    if not annotations.images:
        return None
    annotations, results = match_results(annotations, results)
    rows, persons = by_image(results, annotations.persons)
    samples = (
        resampled(annotations, rows, persons, drawn) for drawn in draws(len(annotations.images), rounds, seed)
    )
    values = [average_precision(*sample)["AP"] for sample in samples]
    return percentiles([value for value in values if value is not None], confidence)


def draws(count: int, rounds: int, seed: int) -> Iterator[np.ndarray]:
    """``rounds`` times ``count`` indices below ``count``, drawn with replacement; the same for one seed."""
    generator = np.random.default_rng(seed)
    for _ in range(rounds if count else 0):
        yield generator.integers(count, size=count)


def by_image(
    results: Sequence[Mapping[str, Any]], persons: Sequence[Person]
) -> tuple[defaultdict[Any, list[Mapping[str, Any]]], defaultdict[Any, list[Person]]]:
    """Results and persons of every picture, by its id."""
    rows_of, persons_of = defaultdict(list), defaultdict(list)
    for row in results:
        rows_of[row["image_id"]].append(row)
    for person in persons:
        persons_of[person.image_id].append(person)
    return rows_of, persons_of


def resampled(
    annotations: Annotations,
    rows: Mapping[Any, Sequence[Mapping[str, Any]]],
    persons: Mapping[Any, Sequence[Person]],
    drawn: np.ndarray,
) -> tuple[Annotations, list[dict[str, Any]]]:
    """The pictures of ``drawn``, by index, with their persons and results; one drawn twice is two."""
    ids = list(annotations.images)
    numbered = [(number, ids[index]) for number, index in enumerate(drawn)]
    sample = replace(
        annotations,
        images={number: replace(annotations.images[one], crowd_index=None) for number, one in numbered},
        persons=[replace(p, image_id=number) for number, one in numbered for p in persons[one]],
    )
    return sample, [{**row, "image_id": number} for number, one in numbered for row in rows[one]]


def percentiles(values: Sequence[float], confidence: float = 0.95) -> Interval | None:
    """The middle ``confidence`` of values; None of none."""
    if not values:
        return None
    tail = 50 * (1 - confidence)
    low, high = np.percentile(values, [tail, 100 - tail])
    return float(low), float(high)


# Accuracy by what counts as right, and joint by joint: where one method is better than another

Key = TypeVar("Key")
PCK_THRESHOLDS = tuple(round(0.05 * step, 2) for step in range(1, 11))  # of the torso


@dataclass(frozen=True)
class Curves:
    """What :func:`accuracy_curves` finds; all values in [0, 1].

    Attributes:
        ap: by OKS threshold, 0.50 to 0.95. Empty where no person counts.
        pck: over all joints, by distance as a share of the torso, 0.05 to 0.50. Empty, as ``joints``,
            where it is not known which pose is whose.
        joints: PCK at 0.2 of the torso by joint; those that are labelled.
    """

    ap: Mapping[float, float]
    pck: Mapping[float, float]
    joints: Mapping[str, float]


def accuracy_curves(
    annotations: Annotations | str | Path,
    results: Rows,
    skeleton: Skeleton | None = None,
) -> Curves:
    """AP by OKS threshold, PCK by distance, PCK of every joint.

    Arguments and errors as :func:`~diffusionpose.evaluation.metrics.coco_metrics`; PCK needs a pose in every
    true box and the ``box`` of each, as ``diffusionpose evaluate`` writes them.
    """
    annotations, results = match_results(annotations, results, skeleton)
    ap = ap_by_threshold(annotations, results)
    labelled = annotations.labelled()
    rows = rows_in_boxes(labelled, results)
    if rows is None:
        return Curves(ap, {}, {})
    counts = {at: count_pose_joints(labelled, rows, at) for at in PCK_THRESHOLDS}
    pck = {at: each.value() for at, each in counts.items()}
    return Curves(ap, _known(pck), _known(counts[0.2].per_joint()))


def _known(values: Mapping[Key, float | None]) -> dict[Key, float]:
    return {key: value for key, value in values.items() if value is not None}


# Plots: their look, and that of a comparison of two methods

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, ORANGE, PURPLE, GREY = "#1F5FBF", "#E07B00", "#7A3E9D", "#5A5A5A"
STYLE: Any = {
    "font.size": 11,
    "axes.titlesize": 12,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#E4E4E4",
    "axes.axisbelow": True,
}
METHODS = ((GREY, "s"), (BLUE, "o"))  # colour and marker; the yardstick stands back
BAR = 0.38  # of the distance between two joints


def panels(count: int, width: float = 4.2, height: float = 4.4) -> tuple[Figure, Sequence[Axes]]:
    """A figure of panels side by side, each of that size in inches; no window opens."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with rc_context(STYLE):
        figure = Figure(figsize=(width * count, height), layout="constrained")
        FigureCanvasAgg(figure)
        return figure, list(figure.subplots(1, count, squeeze=False)[0])


def plot_comparison(first: tuple[str, Curves], second: tuple[str, Curves]) -> Figure:
    """AP by OKS threshold and, where it is known of both, PCK by distance and PCK of every joint.

    Args:
        first, second: name, for the legend, and curves.
    """
    both = (first, second)
    pck = all(curves.pck for _, curves in both)
    figure, axes = panels(3 if pck else 1, 4.6, 4.8)
    _lines(axes[0], [(name, curves.ap) for name, curves in both])
    axes[0].set(title="AP by strictness", xlabel="OKS threshold", ylabel="per cent")
    axes[0].legend(frameon=False)
    if pck:
        _lines(axes[1], [(name, curves.pck) for name, curves in both])
        axes[1].set(title="PCK by distance", xlabel="distance as a share of the torso", ylabel="per cent")
        _bars(axes[2], [curves.joints for _, curves in both])
        axes[2].set(title="PCK at 0.2 of the torso", xlabel="per cent")
    return figure


def _lines(axes: Axes, both: Sequence[tuple[str, Mapping[float, float]]]) -> None:
    for (name, values), (color, marker) in zip(both, METHODS, strict=True):
        percent = [100 * value for value in values.values()]
        shown = name.replace("$", r"\$")  # between two of them matplotlib reads mathematics
        axes.plot(list(values), percent, color=color, marker=marker, label=shown)
    axes.set_ylim(bottom=0)


def _bars(axes: Axes, both: Sequence[Mapping[str, float]]) -> None:
    """Two bars for every joint, from the top down as the skeleton lists them."""
    joints = list(both[0])
    for side, (values, (color, _)) in enumerate(zip(both, METHODS, strict=True)):
        places = [index + (side - 0.5) * BAR for index in range(len(joints))]
        axes.barh(places, [100 * values[joint] for joint in joints], height=BAR, color=color)
    axes.set_yticks(range(len(joints)), [joint.replace("_", " ") for joint in joints])
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")


# Two methods on the same pictures: their difference, and how far it may be from that of other pictures

AP_METRICS = ("AP", "AP50", "AP75", "AR")
BOX_TOLERANCE = 0.02  # pixels; results have their boxes rounded to 0.01

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Difference:
    """One metric of two methods.

    Attributes:
        first, second: in [0, 1].
        interval: 95 % bootstrap interval of second - first.
    """

    first: float
    second: float
    interval: Interval

    @property
    def value(self) -> float:
        """Second - first."""
        return self.second - self.first

    @property
    def clear(self) -> bool:
        """Whether the interval leaves 0 out."""
        return self.interval[0] > 0 or self.interval[1] < 0


def match_both(
    annotations: Annotations | str | Path,
    first: Sequence[Any],
    second: Sequence[Any],
    skeleton: Skeleton | None = None,
    names: tuple[str, str] = ("first results", "second results"),
) -> tuple[Annotations, Rows, Rows]:
    """The truth and two results, with the joints that all three share.

    Arguments as of :func:`compare_results`; ``names`` is what messages call the two.

    Raises:
        InputError: results that do not go with the annotations, as of
            :func:`~diffusionpose.evaluation.metrics.match_results`, or with each other.
    """
    matched = [
        match_results(annotations, rows, skeleton, name)
        for rows, name in zip((first, second), names, strict=True)
    ]
    joints = [truth.skeleton.joints for truth, _ in matched]
    shared = [joint for joint in joints[0] if joint in joints[1]]
    if not shared:
        raise InputError(f"{names[0]} and {names[1]} have no joint in common")
    truth = matched[0][0].to_skeleton(matched[0][0].skeleton.select(shared))
    one, other = ([pick_joints(row, own.skeleton, truth.skeleton) for row in rows] for own, rows in matched)
    return truth, one, other


def compare_results(
    annotations: Annotations | str | Path,
    first: Sequence[Any],
    second: Sequence[Any],
    skeleton: Skeleton | None = None,
    rounds: int = 200,
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, Difference]:
    """AP, AP50, AP75, AR and, where both have a pose in every true box, PCK and PCK_limbs of two methods.

    Args:
        annotations: all persons, or their file.
        first, second: COCO keypoint results, ``image_id``, ``keypoints`` and ``score`` each; for PCK also
            ``box`` (x0, y0, x1, y1), as ``diffusionpose evaluate`` writes them.
        skeleton: of results without names of joints; the annotations' own by default.
        rounds: draws of pictures; each costs two evaluations.
        seed: of the draws.
        progress: called with the rounds done and all rounds.

    Raises:
        InputError: as of :func:`match_both`.
    """
    truth, *both = match_both(annotations, first, second, skeleton)
    samples = list(draws(len(truth.images), rounds, seed))
    return {**_ap(truth, both, samples, progress), **_pck(truth, both, samples)}


def _ap(
    annotations: Annotations,
    both: Sequence[Rows],
    samples: Sequence[np.ndarray],
    progress: Progress | None,
) -> dict[str, Difference]:
    """What of AP, AP50, AP75 and AR is known."""
    whole = [average_precision(annotations, rows) for rows in both]
    sorted_out = [by_image(rows, annotations.persons) for rows in both]
    drawn = []
    for number, sample in enumerate(samples, start=1):
        drawn.append([average_precision(*resampled(annotations, *each, sample)) for each in sorted_out])
        if progress is not None:
            progress(number, len(samples))
    found = {}
    for name in AP_METRICS:
        pairs = [(one[name], other[name]) for one, other in drawn]
        ends = percentiles([b - a for a, b in pairs if a is not None and b is not None])
        first, second = (metrics[name] for metrics in whole)
        if ends is not None and first is not None and second is not None:
            found[name] = Difference(first, second, ends)
    return found


def _pck(
    annotations: Annotations, both: Sequence[Rows], samples: Sequence[np.ndarray]
) -> dict[str, Difference]:
    """PCK and PCK_limbs; empty where it is not known which pose is whose."""
    labelled = annotations.labelled()
    matched = [rows_in_boxes(labelled, rows) for rows in both]
    if any(each is None for each in matched):
        return {}
    counts = [count_pose_joints(labelled, each) for each in matched if each is not None]
    place = {image_id: index for index, image_id in enumerate(annotations.images)}
    where = np.asarray([place[person.image_id] for person in labelled.persons])
    chosen = {"PCK": list(range(annotations.skeleton.num_joints)), "PCK_limbs": list(counts[0].limbs)}
    found = {}
    for name, joints in chosen.items():
        sums = [_by_picture(each, joints, where, len(place)) for each in counts]
        first, second = (each.value(joints) for each in counts)
        differences = [
            (sums[1][0][sample].sum() - sums[0][0][sample].sum()) / total
            for sample in samples
            if (total := sums[0][1][sample].sum())
        ]
        ends = percentiles(differences)
        if ends is not None and first is not None and second is not None:
            found[name] = Difference(first, second, ends)
    return found


def rows_in_boxes(labelled: Annotations, rows: Rows) -> list[Mapping[str, Any]] | None:
    """The result made in the box of each labelled person, as PCK takes them.

    None where PCK is not known: nobody is labelled, the skeleton has no torso, a person has no pose, or a
    pose is nobody's.
    """
    persons = labelled.persons
    if not persons or not has_torso(labelled.skeleton):
        return None
    waiting = defaultdict(list)
    for index, person in enumerate(persons):
        waiting[person.image_id].append(index)
    found = {}
    for row in rows:
        box = row.get("box")
        if as_numbers(box, 4) is None:
            return None
        own = [
            index
            for index in waiting[row["image_id"]]
            if np.abs(persons[index].box - np.asarray(box, np.float64)).max() <= BOX_TOLERANCE
        ]
        if not own:
            return None
        waiting[row["image_id"]].remove(own[0])
        found[own[0]] = row
    return None if any(waiting.values()) else [found[index] for index in range(len(persons))]


def _by_picture(
    counts: JointCounts, joints: Sequence[int], where: np.ndarray, pictures: int
) -> tuple[np.ndarray, np.ndarray]:
    """(pictures,) joints that are right, and joints that count."""
    correct, counted = np.zeros(pictures), np.zeros(pictures)
    np.add.at(correct, where, counts.correct[:, joints].sum(1))
    np.add.at(counted, where, counts.counted[:, joints].sum(1))
    return correct, counted
