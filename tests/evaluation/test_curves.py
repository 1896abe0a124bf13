"""Curves of known poses, and their plot."""

from dataclasses import replace

import numpy as np
import pytest

from diffusionpose.evaluation.compare import PCK_THRESHOLDS, accuracy_curves, plot_comparison
from diffusionpose.evaluation.evaluate import score_results
from diffusionpose.evaluation.metrics import ap_by_threshold, average_precision, torso_lengths


@pytest.fixture
def annotations(make_annotations):
    return make_annotations(images=12, persons=2)


@pytest.fixture
def moved(annotations, rows_of):
    """The true poses, every joint of person p away by 0.032 + 0.04 (p % 12) of the torso."""
    rows = rows_of(annotations)
    for index, (row, person) in enumerate(zip(rows, annotations.persons, strict=True)):
        torso = torso_lengths(person.keypoints[None], person.visible[None], annotations.skeleton)[0]
        triplets = np.reshape(row["keypoints"], (-1, 3))
        triplets[:, 0] += (0.032 + 0.04 * (index % 12)) * torso
        row["keypoints"] = triplets.ravel().tolist()
    return rows


def test_ap_is_the_mean_over_its_thresholds(annotations, moved):
    found = ap_by_threshold(annotations, moved)
    assert list(found) == [0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95]
    metrics = average_precision(annotations, moved)
    assert np.mean(list(found.values())) == pytest.approx(metrics["AP"])
    assert (found[0.5], found[0.75]) == pytest.approx((metrics["AP50"], metrics["AP75"]))
    assert list(found.values()) == sorted(found.values(), reverse=True)
    assert found[0.5] > found[0.95] + 0.2


def test_pck_by_distance_and_by_joint(annotations, moved):
    curves = accuracy_curves(annotations, moved)
    shifts = 0.032 + 0.04 * np.arange(12)
    assert tuple(curves.pck) == PCK_THRESHOLDS
    for at, value in curves.pck.items():
        assert value == pytest.approx((shifts <= at).mean()), at
    metrics = score_results(annotations, annotations, moved).metrics
    assert curves.pck[0.2] == pytest.approx(metrics["PCK"])
    assert set(curves.joints) == set(annotations.skeleton.joints)
    assert list(curves.joints.values()) == pytest.approx([metrics["PCK"]] * 17)


def test_without_boxes_there_is_ap_alone(annotations, moved):
    nameless = [{name: value for name, value in row.items() if name != "box"} for row in moved]
    curves = accuracy_curves(annotations, nameless)
    assert curves.ap == ap_by_threshold(annotations, moved)
    assert (curves.pck, curves.joints) == ({}, {})


def test_nobody_and_nothing_found(annotations):
    nobody = replace(annotations, persons=[])
    assert accuracy_curves(nobody, []).ap == {}
    assert set(ap_by_threshold(annotations, []).values()) == {0.0}


def test_the_plot_shows_the_values(annotations, moved, rows_of):
    perfect = accuracy_curves(annotations, rows_of(annotations))
    figure = plot_comparison(("moved", accuracy_curves(annotations, moved)), ("true", perfect))
    strictness, distance, joints = figure.axes
    assert [text.get_text() for text in strictness.get_legend().get_texts()] == ["moved", "true"]
    assert strictness.lines[1].get_ydata() == pytest.approx(100)
    assert list(distance.lines[0].get_xdata()) == list(PCK_THRESHOLDS)
    assert len(joints.patches) == 2 * annotations.skeleton.num_joints
    assert joints.yaxis_inverted()
    bare = replace(perfect, pck={}, joints={})
    assert len(plot_comparison(("moved", bare), ("true", perfect)).axes) == 1
