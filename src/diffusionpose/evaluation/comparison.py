"""Two methods on the same pictures: their difference, and how far it may be from that of other pictures.

Both are measured on the same draws of pictures (a paired bootstrap), so that a picture that is hard for
both does not blur how they differ: intervals of differences are far narrower than differences of intervals.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from diffusionpose.data.annotations import annotations_in
from diffusionpose.data.persons import Annotations
from diffusionpose.evaluation.ap import coco_metrics
from diffusionpose.evaluation.intervals import Interval, by_image, draws, percentiles, resampled
from diffusionpose.evaluation.pck import JointCounts, count_pose_joints, has_torso
from diffusionpose.skeletons import Skeleton

AP_METRICS = ("AP", "AP50", "AP75", "AR")
BOX_TOLERANCE = 0.02  # pixels; results have their boxes rounded to 0.01

Rows = Sequence[Mapping[str, Any]]
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


def compare_results(
    annotations: Annotations | str | Path,
    first: Rows,
    second: Rows,
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
        skeleton: of the results; the annotations' own by default. Others are matched to it by name.
        rounds: draws of pictures; each costs two evaluations.
        seed: of the draws.
        progress: called with the rounds done and all rounds.

    Raises:
        InputError: results that do not go with the annotations, as of
            :func:`~diffusionpose.evaluation.ap.coco_metrics`.
    """
    annotations = annotations_in(annotations, skeleton)
    both, samples = (first, second), list(draws(len(annotations.images), rounds, seed))
    return {**_ap(annotations, both, samples, progress), **_pck(annotations, both, samples)}


def _ap(
    annotations: Annotations,
    both: Sequence[Rows],
    samples: Sequence[np.ndarray],
    progress: Progress | None,
) -> dict[str, Difference]:
    """What of AP, AP50, AP75 and AR is known."""
    whole = [coco_metrics(annotations, rows) for rows in both]
    sorted_out = [by_image(rows, annotations.persons) for rows in both]
    drawn = []
    for number, sample in enumerate(samples, start=1):
        drawn.append([coco_metrics(*resampled(annotations, *each, sample)) for each in sorted_out])
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
        if not isinstance(box, Sequence) or len(box) != 4:
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
