import numpy as np
import pytest

from diffusionpose.evaluation.metrics import oks_nms, pairwise_oks, rescore

SIGMAS = (0.05, 0.1)


def row(x, score, image=1, sure=(0.5, 0.5)):
    keypoints = [x, 0.0, sure[0], x + 10, 20.0, sure[1]]
    return {
        "image_id": image,
        "category_id": 1,
        "keypoints": keypoints,
        "score": score,
        "box": [0, 0, 40, 50],
    }


def test_rescore_multiplies_by_the_mean_of_sure_keypoints():
    rows = [row(0, 0.5, sure=(0.9, 0.7)), row(0, 0.5, sure=(0.9, 0.2)), row(0, 0.5, sure=(0.1, 0.2))]
    assert [one["score"] for one in rescore(rows)] == pytest.approx([0.4, 0.45, 0.0])
    assert [one["score"] for one in rows] == [0.5] * 3
    assert rescore([]) == []


def test_pairwise_oks_by_hand():
    keypoints = np.asarray([[[0.0, 0], [0, 0]], [[3, 4], [0, 0]]])
    areas = np.asarray([100.0, 300.0])  # of a pair: 200
    oks = pairwise_oks(keypoints, areas, SIGMAS)
    off = (np.exp(-25 / (2 * 200 * 0.1**2)) + 1) / 2
    assert oks == pytest.approx(np.asarray([[1, off], [off, 1]]))


def test_copies_of_a_better_pose_are_dropped():
    rows = [row(0, 0.3), row(0.1, 0.9), row(100, 0.1), row(0, 0.2, image=2)]
    assert oks_nms(rows, SIGMAS) == rows[1:]


def test_a_pose_at_the_threshold_stays():
    # area 2000, both joints moved by d: OKS = mean over sigma of exp(-d^2 / (2 area (2 sigma)^2))
    def oks(d):
        return np.mean([np.exp(-(d**2) / (2 * 2000 * (2 * s) ** 2)) for s in SIGMAS])

    assert oks(1.5) > 0.9 > oks(3.5)
    assert len(oks_nms([row(0, 1.0), row(1.5, 0.5)], SIGMAS)) == 1
    assert len(oks_nms([row(0, 1.0), row(3.5, 0.5)], SIGMAS)) == 2
    assert len(oks_nms([row(0, 1.0), row(1.5, 0.5)], SIGMAS, threshold=float(oks(1.5)) + 1e-9)) == 2
    assert len(oks_nms([row(0, 1.0), row(3.5, 0.5)], SIGMAS, areas=[20000, 20000])) == 1


def test_a_dropped_pose_drops_no_other():
    rows = [row(0, 0.9), row(2, 0.8), row(4, 0.7)]
    assert len(oks_nms(rows[:2], SIGMAS)) == 1
    assert len(oks_nms(rows[1:], SIGMAS)) == 1
    assert oks_nms(rows, SIGMAS) == [rows[0], rows[2]]


def test_equal_poses_leave_one():
    assert oks_nms([row(0, 0.0)] * 3, SIGMAS) == [row(0, 0.0)]
    assert oks_nms([], SIGMAS) == []
