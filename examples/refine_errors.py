"""Measure `diffusionpose refine`: make poses with PoseFix's errors from true ones, and score results files.

python examples/refine_errors.py make ANNOTATIONS.json RESULTS.json    # seeded; one pose for each person
python examples/refine_errors.py score ANNOTATIONS.json RESULTS.json   # AP and PCK, every person's own pose
"""

import json
import math
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from diffusionpose.data.annotations import Annotations, read_annotations
from diffusionpose.evaluation.evaluate import result_row, score_results
from diffusionpose.skeletons import LOWER_BODY, Skeleton

KINDS = ("good", "jitter", "miss", "inversion")
GOOD, JITTER, MISS, NEVER = 1.0, 0.85, 0.5, 0.1  # ks at which each kind begins, and where the last ends
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


def with_errors(
    keypoints: np.ndarray, given: np.ndarray, area: float, skeleton: Skeleton, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """A pose as an estimator might have given it.

    Args:
        keypoints: (J, 2) true ones, image pixels.
        given: (J,) bool, which are known; the others stay as they are.
        area: of the person, square pixels, as OKS takes it.
        skeleton: names, pairs and sigmas of the joints.
        generator: of the randomness; the same seed gives the same errors.

    Returns:
        keypoints (J, 2) and the index in ``KINDS`` of what was done to each joint, (J,).
    """
    changed, kinds = keypoints.astype(np.float64), np.zeros(len(keypoints), np.int64)
    for joint in np.flatnonzero(given):
        mirror = skeleton.flip_order[joint]
        paired = mirror != joint and bool(given[mirror])
        rates = error_rates(skeleton.joints[joint], int(given.sum()))
        if not paired:
            rates[KINDS.index("inversion")] = 0
        kind = int(generator.choice(len(KINDS), p=rates / rates.sum()))
        reach = _distances(skeleton.sigmas[joint], area)
        away = keypoints[mirror] if paired else None
        place = _place(KINDS[kind], keypoints[joint], away, reach, generator)
        if place is None:
            kind = KINDS.index("good")
            place = _place("good", keypoints[joint], None, reach, generator)
        changed[joint], kinds[joint] = place, kind
    return changed, kinds


def error_rates(joint: str, labelled: int) -> np.ndarray:
    """(4,) rates of ``KINDS`` for a joint of a person with so many labelled joints."""
    words = joint.split("_")
    head = any(word in HEAD for word in words)
    lower = any(word in LOWER_BODY for word in words)
    calm = "nose" in words or (lower and "hip" not in words)
    end = "shoulder" in words or "ankle" in words
    jitter = _row(JITTER_RATES, labelled)["calm" if calm else "hip" if "hip" in words else "other"]
    miss = _row(MISS_RATES, labelled)["head" if head else "end" if end else "other"]
    inversion = INVERSION_RATES["head" if head else "lower" if lower else "other"]
    return np.array([1 - jitter - miss - inversion, jitter, miss, inversion])


def _row(rows: tuple[tuple[float, dict[str, float]], ...], labelled: int) -> dict[str, float]:
    return next(rates for most, rates in rows if labelled <= most)


def _distances(sigma: float, area: float) -> Callable[[float], float]:
    """The distance in pixels at which a joint has a keypoint similarity."""
    return lambda ks: math.sqrt(-2 * area * (2 * sigma) ** 2 * math.log(ks))


def _place(
    kind: str,
    truth: np.ndarray,
    mirror: np.ndarray | None,
    reach: Callable[[float], float],
    generator: np.random.Generator,
) -> np.ndarray | None:
    """(2,) where an error of that kind lies, nearer to its own joint than to the mirror one; or None."""
    near, far = {
        "good": (GOOD, JITTER), "jitter": (JITTER, MISS), "miss": (MISS, NEVER), "inversion": (GOOD, MISS)
    }[kind]  # fmt: skip
    middle, other = (mirror, truth) if kind == "inversion" else (truth, mirror)
    angles = generator.uniform(0, 2 * math.pi, TRIES)
    radii = generator.uniform(reach(near), reach(far), TRIES)
    places = middle + radii[:, None] * np.column_stack([np.cos(angles), np.sin(angles)])
    if other is not None:
        least = np.full(TRIES, reach(MISS)) if kind == "miss" else radii
        places = places[np.hypot(*(places - other).T) > least]
    return places[0] if len(places) else None


def make(truth: Annotations, output: Path, seed: int = 0) -> None:
    """Write a results file: each labelled person with errors, its unlabelled joints with score 0."""
    generator = np.random.default_rng(seed)
    rows, done = [], []
    for person in truth.labelled().persons:
        given = person.visible > 0
        keypoints, kinds = with_errors(person.keypoints, given, person.area, truth.skeleton, generator)
        rows.append(result_row(truth, person, truth.skeleton, keypoints, given.astype(np.float32)))
        done.extend(kinds[given])
    output.write_text(json.dumps(rows))
    shares = np.bincount(done, minlength=len(KINDS)) / len(done)
    print(", ".join(f"{kind} {share:.1%}" for kind, share in zip(KINDS, shares, strict=True)))


def score(truth: Annotations, results: Path) -> None:
    """Print the metrics of a results file that has the labelled persons in their order."""
    persons = truth.labelled()
    rows = json.loads(results.read_text())
    if [row["image_id"] for row in rows] != [person.image_id for person in persons.persons]:
        sys.exit(f"{results}: is not of the labelled persons, each once and in order")
    print(score_results(truth, persons, [{**row, "score": 1.0} for row in rows]).table())


if __name__ == "__main__":
    what, annotations, file = sys.argv[1:]
    {"make": make, "score": score}[what](read_annotations(annotations), Path(file))
