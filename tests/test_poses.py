"""Pose: checks itself, and turns into other tools' formats."""

import numpy as np
import pytest

from diffusionpose.errors import InputError
from diffusionpose.poses import Pose, to_supervision
from diffusionpose.skeletons import CROWDPOSE


def pose(**changes):
    fields = {
        "skeleton": CROWDPOSE,
        "keypoints": np.arange(28).reshape(14, 2) / 3,
        "scores": np.linspace(0, 1, 14),
        "box": np.array([1, 2, 30, 40]),
        "score": 0.5,
    }
    return Pose(**{**fields, **changes})


def test_coco_result_is_flat_triplets():
    result = pose().to_coco_result(image_id=7)
    assert (result["image_id"], result["category_id"], result["score"]) == (7, 1, 0.5)
    assert result["keypoints"][3:6] == [0.667, 1.0, 0.077]
    assert len(result["keypoints"]) == 42


def test_supervision():
    keypoints = to_supervision([pose(), pose()])
    assert keypoints.xy.shape == (2, 14, 2)
    assert np.allclose(keypoints.keypoint_confidence[1], np.linspace(0, 1, 14))
    assert keypoints.detection_confidence.tolist() == [0.5, 0.5]
    assert keypoints.data["box"].tolist() == [[1, 2, 30, 40]] * 2
    assert keypoints.data["class_name"].tolist() == ["person"] * 2
    assert tuple(keypoints[1].data["joint_names"][0]) == CROWDPOSE.joints
    assert len(keypoints.as_detections()) == 2
    assert len(to_supervision([])) == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"keypoints": np.zeros((17, 2))}, r"keypoints has shape \(17, 2\), the skeleton needs \(14, 2\)"),
        ({"scores": np.full(14, np.nan)}, "scores holds a number that is not finite"),
        ({"box": np.zeros(5)}, r"box has shape \(5,\)"),
    ],
)
def test_a_pose_checks_itself(changes, message):
    with pytest.raises(InputError, match=message):
        pose(**changes)
