from dataclasses import replace

import numpy as np
import pytest

from diffusionpose.evaluation.compare import bootstrap_ap, bootstrap_pck
from diffusionpose.evaluation.metrics import JointCounts
from diffusionpose.skeletons import CROWDPOSE


def counts(correct):
    correct = np.asarray(correct, bool)
    return JointCounts(CROWDPOSE, correct, np.ones_like(correct))


def test_pck_interval_of_independent_persons_is_the_binomial_one():
    generator = np.random.default_rng(1)
    right = np.repeat(generator.random((400, 1)) < 0.7, 14, axis=1)  # a person is right or wrong as a whole
    found = counts(right)
    low, high = bootstrap_pck(found)
    share = found.value()
    half = 1.96 * np.sqrt(share * (1 - share) / 400)
    assert low == pytest.approx(share - half, abs=0.01)
    assert high == pytest.approx(share + half, abs=0.01)


def test_pck_interval_of_some_joints():
    right = np.zeros((50, 14))
    right[:, :12] = 1
    assert bootstrap_pck(counts(right), joints=range(12)) == (1, 1)
    assert bootstrap_pck(counts(right), joints=[12]) == (0, 0)
    nothing = JointCounts(CROWDPOSE, np.zeros((5, 14), bool), np.zeros((5, 14), bool))
    assert bootstrap_pck(nothing) is None


def test_the_same_seed_gives_the_same_interval():
    right = np.random.default_rng(0).random((100, 14)) < 0.5
    assert bootstrap_pck(counts(right), rounds=50) == bootstrap_pck(counts(right), rounds=50)
    assert bootstrap_pck(counts(right), rounds=50) != bootstrap_pck(counts(right), rounds=50, seed=1)


def test_ap_interval(make_annotations, rows_of):
    annotations = make_annotations(images=20)
    rows = rows_of(annotations)
    assert bootstrap_ap(annotations, rows, rounds=5) == pytest.approx((1, 1))
    low, high = bootstrap_ap(annotations, [row for row in rows if row["image_id"] % 2], rounds=40)
    assert 0 < low < 0.5 < high < 1
    assert bootstrap_ap(replace(annotations, persons=[]), [], rounds=2) is None
    assert bootstrap_ap(replace(annotations, persons=[], images={}), []) is None
