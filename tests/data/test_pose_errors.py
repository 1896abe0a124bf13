"""Synthesised errors: where their kinds are defined to be, as often as they should."""

from pathlib import Path

import numpy as np
import pytest

from diffusionpose.data.annotations import Annotations, Person
from diffusionpose.data.pose_errors import KINDS, PoseErrors, error_rates, with_errors
from diffusionpose.skeletons import COCO, CROWDPOSE

AREA = 120.0 * 200.0


def person(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform([0, 0], [120, 200], (14, 2))


def similarity(distance: np.ndarray) -> np.ndarray:
    variance = (2 * np.array(CROWDPOSE.sigmas)) ** 2
    return np.exp(-(distance**2) / (2 * AREA * variance))


def test_every_error_lies_where_its_kind_says():
    generator, seen = np.random.default_rng(1), np.zeros(5, int)
    mirror = list(CROWDPOSE.flip_order)
    for seed in range(60):
        truth, given = person(seed), np.random.default_rng(seed).random(14) < 0.8
        beside = person(100 + seed)
        changed, kinds = with_errors(truth, given, AREA, CROWDPOSE, generator, [(beside, given)])
        assert np.array_equal(changed[~given], truth[~given])
        own = similarity(np.hypot(*(changed - truth).T))
        other = similarity(np.hypot(*(changed - truth[mirror]).T))
        theirs = np.maximum(*(similarity(np.hypot(*(changed - p).T)) for p in (beside, beside[mirror])))
        for joint in np.flatnonzero(given):
            kind = KINDS[kinds[joint]]
            low, high = {"good": (0.85, 1), "jitter": (0.5, 0.85), "miss": (0.1, 0.5)}.get(kind, (0, 1))
            assert low - 1e-6 <= own[joint] <= high + 1e-6
            paired = mirror[joint] != joint and given[mirror[joint]]
            if kind == "inversion":
                assert paired
                assert other[joint] >= max(0.5 - 1e-6, own[joint])
            elif kind == "swap":
                assert given[joint] or given[mirror[joint]]
                assert theirs[joint] >= max(0.5 - 1e-6, own[joint])
            elif kind == "miss" and paired:
                assert other[joint] < 0.5
        seen += np.bincount(kinds[given], minlength=5)
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
    found = np.stack([(kinds == kind).mean(axis=0) for kind in range(5)], axis=1)
    assert np.abs(found - expected).max() < 4 * np.sqrt(0.25 / 400)
    assert abs(found.mean(axis=0) - expected.mean(axis=0)).max() < 0.02


@pytest.mark.parametrize(
    ("joint", "labelled", "rates", "neighbours"),
    [
        ("nose", 17, (0.87, 0.10, 0.02, 0.01, 0), 0),
        ("left_ear", 17, (0.82, 0.15, 0.02, 0.01, 0), 0),
        ("left_shoulder", 17, (0.77, 0.15, 0.05, 0.03, 0), 0),
        ("left_hip", 10, (0.54, 0.25, 0.15, 0.06, 0), 0),
        ("left_ankle", 5, (0.59, 0.15, 0.20, 0.06, 0), 0),
        ("right_wrist", 11, (0.72, 0.15, 0.10, 0.03, 0), 0),
        ("right_wrist", 11, (0.66, 0.15, 0.10, 0.03, 0.06), 2),
        ("right_wrist", 11, (0.57, 0.15, 0.10, 0.03, 0.15), 3),
        ("right_knee", 10, (0.54, 0.15, 0.15, 0.06, 0.10), 1),
        ("nose", 17, (0.86, 0.10, 0.02, 0.01, 0.01), 5),
    ],
)
def test_published_rates(joint, labelled, rates, neighbours):
    assert joint in COCO.joints
    assert np.allclose(error_rates(joint, labelled, neighbours), rates)


def test_a_seed_decides():
    truth, given = person(), np.ones(14, bool)
    once, again, other = (
        with_errors(truth, given, AREA, CROWDPOSE, np.random.default_rng(seed))[0] for seed in (3, 3, 4)
    )
    assert np.array_equal(once, again)
    assert not np.array_equal(once, other)


def test_neighbours_are_those_of_the_picture_whose_boxes_overlap():
    def someone(image_id: int, left: float) -> Person:
        box = np.array([left, 0, left + 120, 200], np.float32)
        keypoints = (person() + [left, 0]).astype(np.float32)
        return Person(image_id, 0, box, keypoints, np.full(14, 2), AREA)

    def swaps(*persons: Person) -> int:
        found = Annotations(Path("file"), CROWDPOSE, {}, list(persons))
        errors, generator = PoseErrors(found), np.random.default_rng(0)
        return sum(int((errors(persons[0], generator)[1] == KINDS.index("swap")).sum()) for _ in range(40))

    first = someone(1, 0)
    assert swaps(first, someone(1, 60)) > 10
    assert swaps(first, someone(1, 121)) == swaps(first, someone(2, 60)) == swaps(first) == 0
