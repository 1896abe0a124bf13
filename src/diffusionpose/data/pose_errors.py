"""Poses with the errors that pose estimators make, synthesised from true ones as PoseFix does it.

Moon et al., "PoseFix: Model-agnostic General Human Pose Refinement Network", CVPR 2019; the kinds are those
of Ronchi and Perona, "Benchmarking and Error Diagnosis in Multi-Instance Pose Estimation", ICCV 2017. How far
off a joint is, its keypoint similarity says: ks = exp(-d^2 / (2 area (2 sigma)^2)).
"""

import math
from collections.abc import Sequence

import numpy as np

from diffusionpose.data.annotations import Annotations, Person
from diffusionpose.skeletons import LOWER_BODY, Skeleton

# off by little; by much; at its partner of the other side; at a joint of a neighbour
KINDS = ("good", "jitter", "miss", "inversion", "swap")
GOOD, JITTER, MISS, NEVER = 1.0, 0.85, 0.5, 0.1  # ks at which each kind begins, and where the last ends
RANGES = ((GOOD, JITTER), (JITTER, MISS), (MISS, NEVER), (GOOD, MISS), (GOOD, MISS))  # of the kinds
HEAD = ("nose", "eye", "ear", "head")
TRIES = 500  # places drawn for an error; where none of them fits, the joint is good

# (most labelled joints for which the row holds, rates by part): PoseFix's rates
JITTER_RATES = (
    (10, {"calm": 0.15, "hip": 0.25, "other": 0.20}),
    (math.inf, {"calm": 0.10, "hip": 0.20, "other": 0.15}),
)
MISS_RATES = (
    (5, {"head": 0.15, "end": 0.20, "other": 0.25}),
    (10, {"head": 0.10, "end": 0.13, "other": 0.15}),
    (math.inf, {"head": 0.02, "end": 0.05, "other": 0.10}),
)
INVERSION_RATES = {"head": 0.01, "lower": 0.06, "other": 0.03}
SWAP_RATES = {"head": 0.01, "lower": 0.03, "other": 0.06}
CROWDED_SWAP_RATES = {"head": 0.02, "lower": 0.10, "other": 0.15}


class PoseErrors:
    """Errors for the persons of a set; their neighbours are those of the same picture whose boxes overlap."""

    def __init__(self, annotations: Annotations) -> None:
        self.skeleton, self.persons = annotations.skeleton, annotations.by_image

    def __call__(self, person: Person, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Keypoints (J, 2) in image pixels and kinds (J,), as of :func:`with_errors`."""
        low, high = person.box[:2], person.box[2:]
        near = [
            (other.keypoints, other.visible > 0)
            for other in self.persons[person.image_id]
            if other is not person and (other.box[:2] < high).all() and (other.box[2:] > low).all()
        ]
        given = person.visible > 0
        return with_errors(person.keypoints, given, person.area, self.skeleton, generator, near)


def with_errors(
    keypoints: np.ndarray,
    given: np.ndarray,
    area: float,
    skeleton: Skeleton,
    generator: np.random.Generator,
    neighbours: Sequence[tuple[np.ndarray, np.ndarray]] = (),
) -> tuple[np.ndarray, np.ndarray]:
    """A pose as an estimator might have given it.

    Args:
        keypoints: (J, 2) true ones, image pixels.
        given: (J,) bool, which are known; the others stay as they are.
        area: of the person, square pixels, as OKS takes it.
        skeleton: names, pairs and sigmas of the joints.
        generator: of the randomness; the same seed gives the same errors.
        neighbours: keypoints and given joints of persons beside, for whose joints theirs can be taken.

    Returns:
        keypoints (J, 2) and the index in ``KINDS`` of what was done to each joint, (J,).
    """
    changed, kinds = keypoints.astype(np.float64), np.zeros(len(keypoints), np.int64)
    for joint in map(int, np.flatnonzero(given)):
        mirror = skeleton.flip_order[joint]
        own = [keypoints[joint]]
        if mirror != joint and given[mirror]:
            own.append(keypoints[mirror])
        theirs = [points[k] for points, known in neighbours for k in {joint, mirror} if known[k]]
        rates = error_rates(skeleton.joints[joint], int(given.sum()), len(neighbours) if theirs else 0)
        if len(own) == 1:
            rates[KINDS.index("inversion")] = 0
        reach = area, skeleton.sigmas[joint]
        kind = int(generator.choice(len(KINDS), p=rates / rates.sum()))
        place = _place(kind, own, theirs, reach, generator)
        if place is None:
            kind = KINDS.index("good")
            place = _place(kind, own[:1], [], reach, generator)
        changed[joint], kinds[joint] = place, kind
    return changed, kinds


def error_rates(joint: str, labelled: int, neighbours: int = 0) -> np.ndarray:
    """(5,) rates of ``KINDS`` for a joint of a person with so many labelled joints and neighbours."""
    words = joint.split("_")
    head = any(word in HEAD for word in words)
    lower = any(word in LOWER_BODY for word in words)
    calm = "nose" in words or (lower and "hip" not in words)
    end = "shoulder" in words or "ankle" in words
    part = "head" if head else "lower" if lower else "other"
    jitter_rates, miss_rates = (
        next(rates for most, rates in rows if labelled <= most) for rows in (JITTER_RATES, MISS_RATES)
    )
    jitter = jitter_rates["calm" if calm else "hip" if "hip" in words else "other"]
    miss = miss_rates["head" if head else "end" if end else "other"]
    crowded = labelled <= 10 or (labelled <= 15 and neighbours >= 3)
    swap = (CROWDED_SWAP_RATES if crowded else SWAP_RATES)[part] if neighbours else 0.0
    inversion = INVERSION_RATES[part]
    return np.array([1 - jitter - miss - inversion - swap, jitter, miss, inversion, swap])


def _place(
    kind: int,
    own: list[np.ndarray],
    theirs: list[np.ndarray],
    reach: tuple[float, float],
    generator: np.random.Generator,
) -> np.ndarray | None:
    """(2,) where an error of that kind lies, and nearer to no other joint that it could be; or None.

    ``own`` are the joint and, where it has one, its partner; ``theirs`` those of the neighbours; ``reach``
    is the person's area and the joint's sigma.
    """
    area, sigma = reach
    near, far, missed = (
        math.sqrt(-2 * area * (2 * sigma) ** 2 * math.log(ks)) for ks in (*RANGES[kind], MISS)
    )
    if KINDS[kind] == "swap":
        middle, others = theirs[generator.integers(len(theirs))], own
    else:
        at = int(KINDS[kind] == "inversion")
        middle, others = own[at], own[:at] + own[at + 1 :] + theirs
    angles = generator.uniform(0, 2 * math.pi, TRIES)
    radii = generator.uniform(near, far, TRIES)
    places = middle + radii[:, None] * np.column_stack([np.cos(angles), np.sin(angles)])
    least = np.full(TRIES, missed) if KINDS[kind] == "miss" else radii
    for other in others:
        apart = np.hypot(*(places - other).T) > least
        places, least = places[apart], least[apart]
    return places[0] if len(places) else None
