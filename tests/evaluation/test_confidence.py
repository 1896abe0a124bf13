"""Calibrated confidence: measured on poses whose faults are known, and fitted on persons that are drawn."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from diffusionpose.calibration import ANSWERS, FEATURES, Calibration, sigmoid
from diffusionpose.evaluation.confidence import (
    Sample,
    fit_calibration,
    measure_confidence,
    plot_reliability,
)
from diffusionpose.poses import ABSENT, HIDDEN, REGION, VISIBLE
from diffusionpose.skeletons import COCO

J, F = COCO.num_joints, len(FEATURES)
AREA = 0.53 * 150 * 300


def rows_apart(annotations, share, **confidence):
    """Results with every joint to the right of its place: ``share`` of where its similarity is 0.5."""
    reach = share * 2 * np.asarray(COCO.sigmas) * np.sqrt(2 * np.log(2) * AREA)
    rows = []
    for person in annotations.persons:
        moved = person.keypoints + np.column_stack([reach, np.zeros(J)])
        keypoints = np.column_stack([moved, np.ones(J)]).ravel().tolist()
        said = {"probabilities": 0.5, "visibility": VISIBLE, "covariances": [1.0, 0, 1], **confidence}
        rows.append(
            {"image_id": person.image_id, "keypoints": keypoints, "score": 1.0, "expected_oks": 0.4}
            | {key: [value] * J for key, value in said.items()}
        )
    return rows


@pytest.mark.parametrize(("share", "right"), [(0.99, 1), (1.01, 0)])
def test_a_joint_is_right_up_to_a_similarity_of_one_half(make_annotations, share, right):
    annotations = make_annotations()
    report = measure_confidence(annotations, rows_apart(annotations, share, probabilities=0.8))
    assert report.metrics["ECE"] == pytest.approx(abs(right - 0.8))
    assert report.bins == [(pytest.approx(0.8), right, 6 * J)]
    assert report.metrics["OKS_error"] == pytest.approx(abs(0.5 ** (share**2) - 0.4), abs=1e-3)


def test_the_error_of_calibration_is_that_of_the_bins_and_not_of_single_joints(make_annotations):
    annotations = make_annotations(images=10, persons=1)
    rows = [*rows_apart(annotations, 0.5)[:7], *rows_apart(annotations, 2)[7:]]
    assert measure_confidence(annotations, rows).metrics["ECE"] == pytest.approx(0.2)  # said 0.5, true 0.7
    for row, said in zip(rows, [0.95] * 7 + [0.05] * 3, strict=True):
        row["probabilities"] = [said] * J
    assert measure_confidence(annotations, rows).metrics["ECE"] == pytest.approx(0.05)
    figure = plot_reliability(measure_confidence(annotations, rows))
    assert list(figure.axes[0].lines[1].get_ydata()) == [0, 1]


def test_the_region_is_an_ellipse(make_annotations):
    annotations = make_annotations()
    nose = (
        2 * COCO.sigmas[0] * np.sqrt(2 * np.log(2) * AREA)
    )  # joints are moved to the right by this and more
    wide = rows_apart(annotations, 1, covariances=[(1.01 * nose) ** 2 / REGION, 0, 1.0])
    tall = rows_apart(annotations, 1, covariances=[1.0, 0, (1.01 * nose) ** 2 / REGION])
    fitting = sum(np.asarray(COCO.sigmas) <= COCO.sigmas[0]) / J
    assert measure_confidence(annotations, wide).metrics["region_90"] == pytest.approx(fitting)
    assert measure_confidence(annotations, tall).metrics["region_90"] == 0


def test_every_kind_of_visibility_counts_alike(make_annotations):
    annotations = make_annotations()
    rows = rows_apart(annotations, 0)
    assert measure_confidence(annotations, rows).metrics["visibility_accuracy"] is None  # all are visible
    flags = np.array([ABSENT, HIDDEN, *[VISIBLE] * (J - 2)])
    persons = [replace(person, visible=flags) for person in annotations.persons]
    labelled = replace(annotations, persons=persons)
    assert measure_confidence(labelled, rows).metrics["visibility_accuracy"] == pytest.approx(1 / 3)


def test_results_without_confidence_have_none_to_measure(make_annotations, rows_of):
    annotations = make_annotations()
    assert measure_confidence(annotations, rows_of(annotations)) is None
    assert measure_confidence(annotations, [None] * len(annotations.persons)) is None


def draw_sample(persons: int, seed: int) -> Sample:
    """Persons whose first feature decides what is right and seen, the second how far off joints are."""
    generator = np.random.default_rng(seed)
    features = generator.normal(size=(persons, J, F))
    easy, far = features[..., 0], features[..., 1]
    right = generator.random((persons, J)) < sigmoid(2 * easy + np.linspace(-2, 2, J))
    visible = np.where(easy < -1, ABSENT, np.where(far > 1, HIDDEN, VISIBLE))
    distance = np.exp(far + 0.5 * generator.normal(size=(persons, J)))
    return Sample(5 * features + 3, right.astype(float), distance, visible, np.ones(persons, bool))


def test_what_is_fitted_on_some_persons_is_true_of_others():
    fitted, others = fit_calibration(draw_sample(150, 0), COCO.joints, {}), draw_sample(300, 1)
    standard = (others.features - fitted.mean) / fitted.deviation
    answers = fitted.weights[:, None, :, 0] + np.einsum("njf,ajf->anj", standard, fitted.weights[:, :, 1:])
    right, _, absent, hidden, visible, reach = answers
    for joint in (0, 8, 16):  # rarely, mostly and nearly always right: each joint has its own constant
        own = others.visible[:, joint] > 0
        true = sigmoid(2 * (others.features[own, joint, 0] - 3) / 5 + joint / 4 - 2)
        assert sigmoid(right[own, joint]).mean() == pytest.approx(true.mean(), abs=0.1)
    labelled = others.visible > 0
    assert (others.distance <= np.exp(reach))[labelled].mean() == pytest.approx(0.9, abs=0.03)
    near = others.features[..., 1] < 3
    assert (others.distance <= np.exp(reach))[labelled & near].mean() == pytest.approx(0.9, abs=0.05)
    flags = (np.stack([absent, hidden, visible], -1) - fitted.priors).argmax(-1)
    assert np.mean([(flags[others.visible == flag] == flag).mean() for flag in (0, 1, 2)]) > 0.85


def test_a_kind_of_joint_that_the_sample_has_not_is_never_told():
    sample = draw_sample(100, 0)
    seen = replace(sample, visible=np.where(sample.visible == 0, VISIBLE, sample.visible))
    fitted = fit_calibration(seen, COCO.joints, {})
    again = Calibration.from_dict(fitted.to_dict(), COCO, "again")  # refuses what is not finite
    standard = (sample.features - again.mean) / again.deviation
    answers = again.weights[:, None, :, 0] + np.einsum("njf,ajf->anj", standard, again.weights[:, :, 1:])
    kinds = (np.moveaxis(answers[2:5], 0, -1) - again.priors).argmax(-1)
    assert not (kinds == 0).any()


def test_sets_without_hidden_joints_say_nothing_about_visibility():
    both = draw_sample(100, 0)
    blind = replace(both, visible=np.full_like(both.visible, VISIBLE), flagged=np.zeros(100, bool))
    alone, joined = (fit_calibration(sample, COCO.joints, {}) for sample in (both, both + blind))
    assert joined.priors == pytest.approx(alone.priors)
    fitted = slice(ANSWERS.index("absent"), ANSWERS.index("visible") + 1)
    constants = [each.weights[fitted, :, 0] for each in (alone, joined)]
    assert constants[1] == pytest.approx(constants[0], abs=0.3)
