"""AP of person boxes: by COCO's rules, where crowds and persons without joints do not count."""

from __future__ import annotations

import numpy as np
import pytest

from diffusionpose.evaluation.people import matched, people_metrics

TRUTH = np.array([[0, 0, 100, 200], [200, 0, 300, 200]], np.float32)
CROWD = np.array([[400, 0, 600, 200]], np.float32)
NONE = np.zeros((0, 4), np.float32)


def test_all_found_is_one_and_boxes_in_a_crowd_cost_nothing() -> None:
    boxes = np.concatenate([TRUTH, [[410, 10, 450, 90], [420, 0, 470, 100]]]).astype(np.float32)
    scores = np.array([0.9, 0.3, 0.8, 0.7], np.float32)
    metrics = people_metrics({1: (boxes, scores)}, {1: TRUTH}, {1: CROWD})
    assert metrics == pytest.approx({"AP": 1.0, "AP50": 1.0, "AP75": 1.0, "AR50": 1.0})
    without = people_metrics({1: (boxes, scores)}, {1: TRUTH}, {1: NONE})
    assert without["AP50"] < 0.8


def test_a_picture_in_which_nobody_is_found_counts() -> None:
    found = {1: (TRUTH[:1], np.ones(1, np.float32)), 2: (NONE, np.zeros(0, np.float32))}
    metrics = people_metrics(found, {1: TRUTH[:1], 2: TRUTH[:1]}, {})
    assert metrics["AR50"] == pytest.approx(0.5)
    assert people_metrics({2: found[2]}, {2: TRUTH}, {}) == dict.fromkeys(metrics, 0.0)


def test_matching_is_greedy_each_person_once() -> None:
    boxes = np.array([[0, 0, 100, 190], [0, 0, 100, 200], [700, 0, 800, 9], [420, 0, 700, 200]], np.float32)
    hit, counts = matched(boxes, TRUTH, CROWD)
    assert hit.tolist() == [True, False, False, False]
    assert counts.tolist() == [True, True, True, False]
    assert matched(NONE, TRUTH, CROWD)[0].shape == (0,)
    assert not matched(boxes, NONE, NONE)[0].any()
