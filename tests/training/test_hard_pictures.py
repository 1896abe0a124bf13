"""The rule by which pictures are hard, and how their heatmaps are drawn."""

from types import SimpleNamespace

import numpy as np
import pytest

from diffusionpose.skeletons import COCO
from diffusionpose.training.hard_pictures import POWER, hardest, overlay, person_errors


def test_hard_is_the_worst_fifth_by_the_mean_over_models():
    generator = np.random.default_rng(0)
    errors = generator.random((2, 50))
    eligible = np.ones(50, bool)
    found, count = hardest(errors, eligible)
    assert count == 50
    assert len(found) == 10
    mean = errors.mean(0)
    assert set(found) == set(np.argsort(mean)[-10:])
    assert list(mean[found]) == sorted(mean[found], reverse=True)


def test_hard_favours_no_model():
    errors = np.random.default_rng(1).random((2, 33))
    assert np.array_equal(hardest(errors, np.ones(33, bool))[0], hardest(errors[::-1], np.ones(33, bool))[0])


def test_persons_without_a_pose_or_with_few_labels_are_not_shown():
    errors = np.array([[9.0, 1, 2, 3, np.nan], [9.0, 1, 2, 3, 4]])
    found, count = hardest(errors, np.array([False, True, True, True, True]))
    assert found.tolist() == [3]
    assert count == 3


def test_the_error_is_the_mean_distance_in_units_of_the_box():
    truth = np.zeros((17, 2))
    visible = np.array([1, 2] + 15 * [0])
    person = SimpleNamespace(keypoints=truth, visible=visible, box=np.array([0.0, 0, 20, 5]))
    keypoints = np.full((17, 3), 99.0)
    keypoints[0, :2], keypoints[1, :2] = (3, 4), (0, 1)
    row = {"keypoints": keypoints.ravel().tolist()}
    errors = person_errors(SimpleNamespace(skeleton=COCO), [person, person], [row, None])
    assert errors[0] == pytest.approx((5 + 1) / 2 / 10)
    assert np.isnan(errors[1])


def test_an_overlay_has_the_colour_of_its_joint_and_the_height_as_opacity():
    heatmaps = np.zeros((3, 4, 5))
    heatmaps[1, 2, 3], heatmaps[0, 0, 0], heatmaps[2, 0, 0] = 0.5, 0.8, 0.8
    heatmaps[0, 1, 0], heatmaps[2, 1, 1] = 0.1, 0.1
    drawn = overlay(heatmaps)
    assert drawn.shape == (4, 5, 4)
    first, second, third = drawn[1, 0, :3], drawn[2, 3, :3], drawn[1, 1, :3]
    assert len({tuple(color) for color in (first, second, third)}) == 3
    assert drawn[0, 0, :3] == pytest.approx((first + third) / 2)
    assert drawn[2, 3, 3] / drawn[0, 0, 3] == pytest.approx((0.5 / 0.8) ** POWER)
    assert drawn[3, 3, 3] == 0
