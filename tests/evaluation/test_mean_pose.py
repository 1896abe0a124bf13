from dataclasses import replace

import numpy as np
import pytest

from diffusionpose.errors import InputError
from diffusionpose.evaluation.evaluate import learn_mean_pose, predict_mean_pose


@pytest.fixture
def two_persons(make_annotations):
    """Boxes of 150 x 300 at (20, 30) and 100 x 100 at (0, 0); joint 0 of both, joint 1 of the second."""
    annotations = make_annotations(images=1, persons=2)
    first, second = annotations.persons
    keypoints, visible = np.zeros((2, 17, 2), np.float32), np.zeros((2, 17), np.int64)
    keypoints[0, 0], visible[0, 0] = [20 + 75, 30 + 30], 1
    keypoints[1, 0], visible[1, 0] = [100, 30], 2
    keypoints[1, 1], visible[1, 1] = [10, 120], 2  # below the box
    box = np.asarray([0, 0, 100, 100], np.float32)
    persons = [
        replace(first, keypoints=keypoints[0], visible=visible[0]),
        replace(second, keypoints=keypoints[1], visible=visible[1], box=box),
    ]
    return replace(annotations, persons=persons)


def test_mean_of_the_labelled_positions_in_the_box(two_persons):
    mean_pose = learn_mean_pose(two_persons)
    assert mean_pose[0] == pytest.approx([0.75, 0.2])
    assert mean_pose[1] == pytest.approx([0.1, 1.2])
    assert mean_pose[2:] == pytest.approx(np.full((15, 2), 0.5))  # never labelled: the middle


def test_prediction_fills_every_box(two_persons):
    mean_pose = learn_mean_pose(two_persons)
    rows = predict_mean_pose(mean_pose, two_persons)
    assert [row["box"] for row in rows] == [[20, 30, 170, 330], [0, 0, 100, 100]]
    assert rows[0]["keypoints"][:3] == pytest.approx([20 + 0.75 * 150, 30 + 0.2 * 300, 1])
    assert rows[1]["keypoints"][:3] == pytest.approx([75, 20, 1])
    assert rows[0]["score"] == 1
    assert rows[0]["file_name"] == "0.png"


def test_needs_a_labelled_person_and_the_same_joints(two_persons):
    with pytest.raises(InputError, match=r"made\.json"):
        learn_mean_pose(replace(two_persons, persons=[]))
    with pytest.raises(InputError, match="17 joints"):
        predict_mean_pose(np.zeros((14, 2)), two_persons)
