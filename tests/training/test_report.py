"""The rule by which pictures are hard, and how their heatmaps are drawn."""

from types import SimpleNamespace

import numpy as np
import pytest

from diffusionpose.training.report import hardest, person_errors


def test_hard_is_the_worst_fifth_by_the_mean_over_models():
    errors = np.random.default_rng(0).random((2, 50))
    found, mean = hardest(errors), errors.mean(0)
    assert len(found) == 10
    assert set(found) == set(np.argsort(mean)[-10:])
    assert list(mean[found]) == sorted(mean[found], reverse=True)
    assert np.array_equal(found, hardest(errors[::-1])), "it favours no model"


def test_persons_without_a_pose_are_not_shown():
    errors = np.array([[1.0, 2, 3, np.nan], [1.0, 2, 3, 4]])
    assert hardest(errors).tolist() == [2]


def test_the_error_is_the_mean_distance_in_units_of_the_box():
    truth = np.zeros((17, 2))
    visible = np.array([1, 2] + 15 * [0])
    person = SimpleNamespace(keypoints=truth, visible=visible, box=np.array([0.0, 0, 20, 5]))
    keypoints = np.full((17, 3), 99.0)
    keypoints[0, :2], keypoints[1, :2] = (3, 4), (0, 1)
    row = {"keypoints": keypoints.ravel().tolist()}
    errors = person_errors(SimpleNamespace(persons=[person, person]), [row, None])
    assert errors[0] == pytest.approx((5 + 1) / 2 / 10)
    assert np.isnan(errors[1])
