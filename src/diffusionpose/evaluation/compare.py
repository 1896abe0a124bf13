"""Two methods on the same pictures: bootstrap intervals, accuracy curves, the difference, and its plot."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from diffusionpose.data.annotations import Annotations
from diffusionpose.errors import InputError
from diffusionpose.evaluation.metrics import (
    JointCounts,
    Row,
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

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Interval = tuple[float, float]

PCK_ROUNDS = 2000  # samples of persons
PCK_THRESHOLDS = tuple(round(0.05 * step, 2) for step in range(1, 11))  # of the torso
AP_METRICS = ("AP", "AP50", "AP75", "AR")
BOX_TOLERANCE = 0.02  # pixels; results have their boxes rounded to 0.01

# Intervals: what would be found on other pictures or persons of the kind


def bootstrap_pck(counts: JointCounts, joints: Sequence[int] | None = None) -> Interval | None:
    """95 % interval of PCK over persons drawn with replacement; None where no joint counts.

    Two models measured so are measured on the same samples. ``joints`` are indices, all by default.
    """
    chosen = slice(None) if joints is None else list(joints)
    correct, counted = counts.correct[:, chosen].sum(1), counts.counted[:, chosen].sum(1)
    sums = [(correct[drawn].sum(), counted[drawn].sum()) for drawn in draws(len(counted), PCK_ROUNDS, seed=0)]
    return percentiles([right / total for right, total in sums if total])


def draws(count: int, rounds: int, seed: int) -> Iterator[np.ndarray]:
    """``rounds`` times ``count`` indices below ``count``, drawn with replacement; the same for one seed."""
    generator = np.random.default_rng(seed)
    for _ in range(rounds if count else 0):
        yield generator.integers(count, size=count)


def percentiles(values: Sequence[float]) -> Interval | None:
    """The middle 95 % of values; None of none."""
    if not values:
        return None
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)


# Accuracy by what counts as right, and joint by joint: where one method is better than another


@dataclass(frozen=True)
class Curves:
    """What :func:`accuracy_curves` finds; all values in [0, 1].

    ``pck`` and ``joints`` are empty where it is not known which pose is whose, ``ap`` where no person counts.
    """

    ap: Mapping[float, float]  # by OKS threshold, 0.50 to 0.95
    pck: Mapping[float, float]  # over all joints, by distance as a share of the torso, 0.05 to 0.50
    joints: Mapping[str, float]  # PCK at 0.2 of the torso by joint; those that are labelled


def accuracy_curves(
    annotations: Annotations | str | Path, results: Rows, skeleton: Skeleton | None = None
) -> Curves:
    """AP by OKS threshold, PCK by distance, PCK of every joint.

    Arguments and errors as :func:`~diffusionpose.evaluation.metrics.match_results`; PCK needs a pose in every
    true box and the ``box`` of each, as ``diffusionpose evaluate`` writes them.
    """
    annotations, results = match_results(annotations, results, skeleton)
    ap, labelled = ap_by_threshold(annotations, results), annotations.labelled()
    rows = rows_in_boxes(labelled, results)
    if rows is None:
        return Curves(ap, {}, {})
    counts = {at: count_pose_joints(labelled, rows, at) for at in PCK_THRESHOLDS}
    pck = {at: value for at, each in counts.items() if (value := each.value()) is not None}
    joints = {joint: value for joint, value in counts[0.2].per_joint().items() if value is not None}
    return Curves(ap, pck, joints)


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
        box, there = as_numbers(row.get("box"), 4), waiting[row["image_id"]]
        if box is None:
            return None
        own = next((index for index in there if abs(persons[index].box - box).max() <= BOX_TOLERANCE), None)
        if own is None:
            return None
        there.remove(own)
        found[own] = row
    return None if any(waiting.values()) else [found[index] for index in range(len(persons))]


# Two methods on the same pictures: their difference, and how far it may be from that of other pictures


@dataclass(frozen=True)
class Difference:
    """One metric of two methods, in [0, 1]."""

    first: float
    second: float
    interval: Interval  # 95 % bootstrap interval of second - first

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
    truth, one = match_results(annotations, first, skeleton, names[0])
    twin, other = match_results(annotations, second, skeleton, names[1])
    own, others = truth.skeleton.joints, twin.skeleton.joints
    shared = [joint for joint in own if joint in others]
    truth = replace(truth, findings=list(dict.fromkeys([*truth.findings, *twin.findings])))
    if not shared:
        raise InputError(f"{names[0]} and {names[1]} have no joint in common")
    return (
        truth.to_skeleton(truth.skeleton.select(shared)),
        [pick_joints(row, own, shared) for row in one],
        [pick_joints(row, others, shared) for row in other],
    )


def compare_results(
    annotations: Annotations | str | Path,
    first: Sequence[Any],
    second: Sequence[Any],
    skeleton: Skeleton | None = None,
    rounds: int = 200,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
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
    pairs = [[average_precision(truth, rows) for rows in both]]  # of all pictures, then of each sample
    for number, sample in enumerate(samples, start=1):
        pairs.append([average_precision(*_resampled(truth, rows, sample), by_crowd=False) for rows in both])
        if progress is not None:
            progress(number, len(samples))
    found: dict[str, tuple[tuple[float | None, float | None], list[float]]] = {}  # values, gains by sample
    for name in AP_METRICS:
        values, *drawn = [(one[name], other[name]) for one, other in pairs]
        found[name] = values, [b - a for a, b in drawn if a is not None and b is not None]
    labelled = truth.labelled()
    matched = [rows for each in both if (rows := rows_in_boxes(labelled, each)) is not None]
    if len(matched) == len(both):
        one, other = (count_pose_joints(labelled, rows) for rows in matched)
        place = {image_id: index for index, image_id in enumerate(truth.images)}
        where = [place[person.image_id] for person in labelled.persons]
        for name, joints in {
            "PCK": list(range(truth.skeleton.num_joints)),
            "PCK_limbs": list(truth.skeleton.limb_joints),
        }.items():
            gained, counted = (  # by picture
                np.bincount(where, mask[:, joints].sum(1), len(place))
                for mask in (other.correct.astype(int) - one.correct, one.counted)
            )
            sums = [(gained[sample].sum(), counted[sample].sum()) for sample in samples]
            found[name] = (one.value(joints), other.value(joints)), [a / b for a, b in sums if b]
    differences = {}
    for name, ((a, b), gains) in found.items():
        ends = percentiles(gains)
        if a is not None and b is not None and ends is not None:
            differences[name] = Difference(a, b, ends)
    return differences


def _resampled(truth: Annotations, rows: Rows, drawn: np.ndarray) -> tuple[Annotations, list[Row]]:
    """The pictures of ``drawn``, by index, with their persons and results; one drawn twice is two."""
    ids, of_image = list(truth.images), defaultdict(list)
    for row in rows:
        of_image[row["image_id"]].append(row)
    numbered = [(number, ids[index]) for number, index in enumerate(drawn)]
    sample = replace(
        truth,
        images={number: truth.images[one] for number, one in numbered},
        persons=[replace(p, image_id=number) for number, one in numbered for p in truth.by_image[one]],
    )
    return sample, [{**row, "image_id": number} for number, one in numbered for row in of_image[one]]


# Plots: their look, and that of a comparison of two methods

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

    ``first`` and ``second`` are a name, for the legend, and curves.
    """
    both = (first[1], second[1])
    pck = all(curves.pck for curves in both)
    figure, axes = panels(3 if pck else 1, 4.6, 4.8)
    _lines(axes[0], [curves.ap for curves in both])
    axes[0].set(title="AP by strictness", xlabel="OKS threshold", ylabel="per cent")
    names = [name.replace("$", r"\$") for name, _ in (first, second)]  # between two of them is mathematics
    axes[0].legend(axes[0].lines, names, frameon=False)
    if pck:
        _lines(axes[1], [curves.pck for curves in both])
        axes[1].set(title="PCK by distance", xlabel="distance as a share of the torso", ylabel="per cent")
        joints = list(first[1].joints)  # from the top down
        for side, (curves, (color, _)) in enumerate(zip(both, METHODS, strict=True)):
            places = [index + (side - 0.5) * BAR for index in range(len(joints))]
            axes[2].barh(places, [100 * curves.joints[joint] for joint in joints], height=BAR, color=color)
        axes[2].set_yticks(range(len(joints)), [joint.replace("_", " ") for joint in joints])
        axes[2].invert_yaxis()
        axes[2].grid(visible=False, axis="y")
        axes[2].set(title="PCK at 0.2 of the torso", xlabel="per cent")
    return figure


def _lines(axes: Axes, both: Sequence[Mapping[float, float]]) -> None:
    for values, (color, marker) in zip(both, METHODS, strict=True):
        axes.plot(list(values), [100 * value for value in values.values()], color=color, marker=marker)
    axes.set_ylim(bottom=0)
