"""The errors of examples/refine_errors.py: where their kinds are defined to be, as often as they should."""

import runpy
from pathlib import Path

import numpy as np
import pytest

from diffusionpose.skeletons import COCO, CROWDPOSE

EXAMPLE = runpy.run_path(str(Path(__file__).parents[1] / "examples" / "refine_errors.py"))
KINDS, error_rates, with_errors = (EXAMPLE[name] for name in ("KINDS", "error_rates", "with_errors"))

AREA = 120.0 * 200.0


def person(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform([0, 0], [120, 200], (14, 2))


def similarity(distance: np.ndarray) -> np.ndarray:
    variance = (2 * np.array(CROWDPOSE.sigmas)) ** 2
    return np.exp(-(distance**2) / (2 * AREA * variance))


def test_every_error_lies_where_its_kind_says():
    generator, seen = np.random.default_rng(1), np.zeros(4, int)
    mirror = list(CROWDPOSE.flip_order)
    for seed in range(60):
        truth, given = person(seed), np.random.default_rng(seed).random(14) < 0.8
        changed, kinds = with_errors(truth, given, AREA, CROWDPOSE, generator)
        assert np.array_equal(changed[~given], truth[~given])
        own = similarity(np.hypot(*(changed - truth).T))
        other = similarity(np.hypot(*(changed - truth[mirror]).T))
        for joint in np.flatnonzero(given):
            kind = KINDS[kinds[joint]]
            low, high = {"good": (0.85, 1), "jitter": (0.5, 0.85), "miss": (0.1, 0.5), "inversion": (0, 1)}[
                kind
            ]
            assert low - 1e-6 <= own[joint] <= high + 1e-6
            paired = mirror[joint] != joint and given[mirror[joint]]
            if kind == "inversion":
                assert paired
                assert other[joint] >= max(0.5 - 1e-6, own[joint])
            elif kind == "miss" and paired:
                assert other[joint] < 0.5
        seen += np.bincount(kinds[given], minlength=4)
    assert (seen > 0).all(), "every kind must occur for the test to mean something"


def test_rates_are_met():
    generator, truth = np.random.default_rng(0), person()
    kinds = np.stack(
        [with_errors(truth, np.ones(14, bool), AREA, CROWDPOSE, generator)[1] for _ in range(400)]
    )
    expected = np.stack([error_rates(joint, 14) for joint in CROWDPOSE.joints])
    # the head and the neck have no mirror joint
    expected[[joint for joint in range(14) if CROWDPOSE.flip_order[joint] == joint], 3] = 0
    expected /= expected.sum(axis=1, keepdims=True)
    found = np.stack([(kinds == kind).mean(axis=0) for kind in range(4)], axis=1)
    assert np.abs(found - expected).max() < 4 * np.sqrt(0.25 / 400)
    assert abs(found.mean(axis=0) - expected.mean(axis=0)).max() < 0.02


@pytest.mark.parametrize(
    ("joint", "labelled", "rates"),
    [
        ("nose", 17, (0.87, 0.10, 0.02, 0.01)),
        ("left_ear", 17, (0.82, 0.15, 0.02, 0.01)),
        ("left_shoulder", 17, (0.77, 0.15, 0.05, 0.03)),
        ("left_hip", 10, (0.54, 0.25, 0.15, 0.06)),
        ("left_ankle", 5, (0.59, 0.15, 0.20, 0.06)),
        ("right_wrist", 11, (0.72, 0.15, 0.10, 0.03)),
    ],
)
def test_published_rates(joint, labelled, rates):
    assert joint in COCO.joints
    assert np.allclose(error_rates(joint, labelled), rates)


def test_a_seed_decides():
    truth, given = person(), np.ones(14, bool)
    once, again, other = (
        with_errors(truth, given, AREA, CROWDPOSE, np.random.default_rng(seed))[0] for seed in (3, 3, 4)
    )
    assert np.array_equal(once, again)
    assert not np.array_equal(once, other)
