"""Left and right exchanged in annotations: what the geometry of a pose, and of a whole file, can tell."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from diffusionpose.skeletons import Skeleton

# A pair of two or more limbs seldom has both shorter by exchange; one limb alone is often just crossed
# (folded arms, crossed legs), so it must become much shorter.
SHORTER, SHORTER_ALONE = 0.9, 0.5
SAVED = 0.2  # of the square root of the box's area: below this the two joints are too near each other
TWISTED = 0.15  # breadth of shoulders and of hips, in torso lengths
EYES, BROAD_SHOULDERS = 0.03, 0.5  # in distances from the shoulders to the eyes
DEVIATIONS = 3.0  # of a fair coin, below one half, for a file


class Suspicion(NamedTuple):
    """A pair of joints that seems exchanged."""

    row: int  # of the person
    pair: tuple[int, int]  # joint indices, (left, right)
    rule: str  # "limbs", "torso" or "face"
    score: float  # the smaller, the more suspicious; comparable within a rule


def find_exchanged(
    points: np.ndarray, visible: np.ndarray, sizes: np.ndarray, skeleton: Skeleton
) -> list[Suspicion]:
    """At most one suspicion of limbs or torso and one of the face for each person, worst first.

    Args:
        points, visible: (n, J, 2) pixels; (n, J), 0, 1 or 2, and 0 for a person of a crowd.
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
            rule = "limbs" if suspect[row] else "torso"
            worst[int(row)] = Suspicion(int(row), pair, rule, float(ratio[row]))
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
    """(n,) each: length of a pair's limbs after an exchange over that before, pixels saved, limbs a side."""
    left, right = pair
    before, after = np.zeros(len(points)), np.zeros(len(points))
    limbs = np.zeros(len(points), dtype=np.int64)
    for end in {a + b - left for a, b in skeleton.limbs if left in (a, b)}:
        twin = skeleton.flip_order[end]
        if twin == end or end in pair:  # such a limb is as long after the exchange
            continue
        known = seen[:, [left, right, end, twin]].all(axis=1)
        lengths = np.linalg.norm(
            points[:, [left, right, left, right]] - points[:, [end, twin, twin, end]], axis=2
        )
        before += known * lengths[:, :2].sum(axis=1)
        after += known * lengths[:, 2:].sum(axis=1)
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
    """Visible eyes the wrong way round, or broad shoulders that run the other way than the eyes."""
    ends, torso = _indices(skeleton, "eye", "shoulder"), _indices(skeleton, "shoulder", "hip")
    if ends is None:
        return
    known = (visible[:, ends] > 0).all(axis=1) & (visible[:, ends[:2]] == 2).all(axis=1)
    if torso is not None:  # bowed, with the eyes on the hips' side of the shoulders, they tell nothing
        eyes, shoulders, hips = (points[:, e].mean(axis=1) for e in (ends[:2], torso[:2], torso[2:]))
        bowed = ((eyes - shoulders) * (hips - shoulders)).sum(axis=1) > 0
        known &= ~(bowed & (visible[:, torso] > 0).all(axis=1))
    face, chest = _breadths(points, ends)
    turned, backwards = known & (face < -EYES), known & (face > EYES) & (chest < -BROAD_SHOULDERS)
    for mask, pair, breadth in ((turned, ends[:2], face), (backwards, ends[2:], chest)):
        for row in np.flatnonzero(mask):
            yield Suspicion(int(row), (pair[0], pair[1]), "face", float(breadth[row]))


def _breadths(points: np.ndarray, ends: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """(n,) breadths of an upper and a lower pair across the way between their middles, over its length.

    Above 0 where the person faces the camera, however turned in the picture.
    """
    a, b, c, d = (points[:, joint] for joint in ends)
    up = (a + b - c - d) / 2
    squared = np.maximum((up**2).sum(axis=1), 1e-9)
    upper, lower = ((up[:, 0] * side[:, 1] - up[:, 1] * side[:, 0]) / squared for side in (a - b, c - d))
    return upper, lower


def _indices(skeleton: Skeleton, upper: str, lower: str) -> list[int] | None:
    names = [f"{side}_{part}" for part in (upper, lower) for side in ("left", "right")]
    return [skeleton.index(name) for name in names] if set(names) <= set(skeleton.joints) else None
