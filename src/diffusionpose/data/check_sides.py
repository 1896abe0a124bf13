"""Left and right exchanged in annotations: what the geometry of a pose, and of a whole file, can tell."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from diffusionpose.skeletons import Skeleton

# A pair of two or more limbs seldom has both shorter by exchange; one limb alone is often just crossed
# (folded arms, crossed legs), so it must become much shorter.
SHORTER, SHORTER_ALONE = 0.9, 0.5
SAVED = 0.2  # of the square root of the box's area: below this the two joints are too near each other
TWISTED = 0.15  # breadth of shoulders and of hips, in torso lengths
EYES, BROAD_SHOULDERS = 0.03, 0.5  # in distances from the shoulders to the eyes
DEVIATIONS = 3.0  # of a fair coin, below one half, for a file


@dataclass(frozen=True)
class Suspicion:
    """A pair of a person that seems exchanged.

    Attributes:
        row: of the person.
        pair: joint indices, (left, right).
        rule: "limbs", "torso" or "face".
        score: the smaller, the more suspicious; comparable within a rule.
    """

    row: int
    pair: tuple[int, int]
    rule: str
    score: float


def find_exchanged(
    points: np.ndarray, visible: np.ndarray, sizes: np.ndarray, skeleton: Skeleton
) -> list[Suspicion]:
    """At most one suspicion of limbs or torso and one of the face for each person, worst first.

    Args:
        points: (n, J, 2) pixels.
        visible: (n, J), 0, 1 or 2; a person of a crowd has none.
        sizes: (n,) pixels, square root of the box's area.
        skeleton: names the joints.
    """
    seen = visible > 0
    most = np.zeros(len(points))  # pixels that exchanging the pair so far would save: it is the likeliest
    worst: dict[int, Suspicion] = {}
    for pair in skeleton.pairs:
        ratio, saved, limbs = _exchange(points, seen, skeleton, pair)
        suspect = (saved > SAVED * sizes) & (ratio < np.where(limbs > 1, SHORTER, SHORTER_ALONE))
        twisted = _twisted(points, seen, skeleton, pair) & (limbs > 1) & (ratio < SHORTER)
        for row in np.flatnonzero((suspect | twisted) & (saved > most)):
            most[row] = saved[row]
            worst[int(row)] = Suspicion(
                int(row), pair, "limbs" if suspect[row] else "torso", float(ratio[row])
            )
    found = [*worst.values(), *_faces(points, visible, skeleton)]
    return sorted(found, key=lambda suspicion: suspicion.score)


def facing_camera(points: np.ndarray, visible: np.ndarray, skeleton: Skeleton) -> tuple[int, int]:
    """How many persons' shoulders face the camera, and of how many that can be told."""
    ends = _indices(skeleton, "shoulder", "hip")
    if ends is None:
        return 0, 0
    told = (visible[:, ends] > 0).all(axis=1)
    shoulders, _ = _breadths(points[told], ends)
    return int(np.count_nonzero(shoulders > 0)), int(np.count_nonzero(told))


def file_exchanged(facing: int, persons: int) -> bool:
    """Whether so few of so many persons facing the camera say that left and right are exchanged."""
    return persons > 0 and facing / persons < 0.5 - DEVIATIONS * 0.5 / np.sqrt(persons)


def _exchange(
    points: np.ndarray, seen: np.ndarray, skeleton: Skeleton, pair: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What exchanging a pair does to the limbs at it, each (n,).

    Returns:
        Their length after, over that before; pixels saved; number of limbs a side that could be measured.
    """
    left, right = pair
    mirror = skeleton.flip_order
    others = {a + b - left for a, b in skeleton.limbs if left in (a, b)}
    before, after = np.zeros(len(points)), np.zeros(len(points))
    limbs = np.zeros(len(points), dtype=np.int64)
    for end in others:
        twin = mirror[end]
        if twin == end or end in pair:  # such a limb is as long after the exchange
            continue
        known = seen[:, [left, right, end, twin]].all(axis=1)
        before += known * (_distance(points, left, end) + _distance(points, right, twin))
        after += known * (_distance(points, left, twin) + _distance(points, right, end))
        limbs += known
    ratio = np.where(before > 0, after / np.where(before > 0, before, 1.0), np.inf)
    return ratio, before - after, limbs


def _twisted(points: np.ndarray, seen: np.ndarray, skeleton: Skeleton, pair: tuple[int, int]) -> np.ndarray:
    """(n,) bool: the pair is shoulders or hips, and the two run opposite ways."""
    ends = _indices(skeleton, "shoulder", "hip")
    if ends is None or list(pair) not in (ends[:2], ends[2:]):
        return np.zeros(len(points), dtype=bool)
    shoulders, hips = _breadths(points, ends)
    opposite = (shoulders * hips < 0) & (np.minimum(abs(shoulders), abs(hips)) > TWISTED)
    return np.asarray(opposite & seen[:, ends].all(axis=1))


def _faces(points: np.ndarray, visible: np.ndarray, skeleton: Skeleton) -> Iterator[Suspicion]:
    ends = _indices(skeleton, "eye", "shoulder")
    if ends is None:
        return
    seen = visible > 0
    known = seen[:, ends].all(axis=1) & (visible[:, ends[:2]] == 2).all(axis=1)
    known &= ~_bowed(points, seen, skeleton, ends)
    eyes, shoulders = _breadths(points, ends)
    turned = known & (eyes < -EYES)
    backwards = known & (eyes > EYES) & (shoulders < -BROAD_SHOULDERS)
    pairs = (ends[0], ends[1]), (ends[2], ends[3])
    for mask, pair, breadth in ((turned, pairs[0], eyes), (backwards, pairs[1], shoulders)):
        for row in np.flatnonzero(mask):
            yield Suspicion(int(row), pair, "face", float(breadth[row]))


def _bowed(points: np.ndarray, seen: np.ndarray, skeleton: Skeleton, ends: list[int]) -> np.ndarray:
    """(n,) bool: the eyes lie on the hips' side of the shoulders, where the way to them tells nothing."""
    torso = _indices(skeleton, "shoulder", "hip")
    if torso is None:
        return np.zeros(len(points), dtype=bool)
    shoulders = points[:, ends[2:]].mean(axis=1)
    towards_eyes = points[:, ends[:2]].mean(axis=1) - shoulders
    towards_hips = points[:, torso[2:]].mean(axis=1) - shoulders
    same_side = (towards_eyes * towards_hips).sum(axis=1) > 0
    return np.asarray(same_side & seen[:, torso].all(axis=1))


def _breadths(points: np.ndarray, ends: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Breadths of two pairs across the way from the lower's middle to the upper's, over its length.

    Args:
        points: (n, J, 2) pixels.
        ends: left and right of the upper pair, left and right of the lower.

    Returns:
        (n,) each; above 0 where the person faces the camera, however turned in the picture.
    """
    a, b, c, d = (points[:, joint] for joint in ends)
    up = (a + b - c - d) / 2
    squared = np.maximum((up**2).sum(axis=1), 1e-9)

    def across(left: np.ndarray, right: np.ndarray) -> np.ndarray:
        side = left - right
        return np.asarray((up[:, 0] * side[:, 1] - up[:, 1] * side[:, 0]) / squared)

    return across(a, b), across(c, d)


def _indices(skeleton: Skeleton, upper: str, lower: str) -> list[int] | None:
    names = [f"{side}_{part}" for part in (upper, lower) for side in ("left", "right")]
    return [skeleton.index(name) for name in names] if set(names) <= set(skeleton.joints) else None


def _distance(points: np.ndarray, a: int, b: int) -> np.ndarray:
    return np.asarray(np.hypot(*(points[:, a] - points[:, b]).T))
