"""Two methods on the same pictures: differences, intervals, curves."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from diffusionpose.errors import InputError
from diffusionpose.evaluation.compare import Difference, bootstrap_pck, compare_results
from diffusionpose.evaluation.evaluate import score_results
from diffusionpose.evaluation.metrics import JointCounts, average_precision
from diffusionpose.skeletons import CROWDPOSE


@pytest.fixture
def annotations(make_annotations):
    return make_annotations(images=40, persons=1)


@pytest.fixture
def spoilt(annotations, rows_of):
    """The true poses, all joints of the persons of some pictures away by a share of the box."""

    def make(shares):
        rows = rows_of(annotations)
        for row in rows:
            triplets = np.reshape(row["keypoints"], (-1, 3))
            triplets[:, 0] += 150 * shares[row["image_id"] % len(shares)]
            row["keypoints"] = triplets.ravel().tolist()
        return rows

    return make


def test_values_are_those_of_the_evaluation(annotations, spoilt):
    first, second = spoilt([0.05, 0.3, 0.1]), spoilt([0.05, 0.2])
    found = compare_results(annotations, first, second, rounds=10)
    for rows, name in ((first, "first"), (second, "second")):
        metrics = score_results(annotations, annotations, rows).metrics
        for metric, difference in found.items():
            assert getattr(difference, name) == pytest.approx(metrics[metric]), metric
    assert set(found) == {"AP", "AP50", "AP75", "AR", "PCK", "PCK_limbs"}


def test_draws_of_a_crowdpose_file_go_by_its_own_area(annotations, spoilt):
    """It is 0.53 of the box's whatever the file says, of all pictures and of those drawn."""
    images = {image_id: replace(one, crowd_index=0.1) for image_id, one in annotations.images.items()}
    persons = [replace(person, area=person.area / 40) for person in annotations.persons]
    crowded = replace(annotations, images=images, persons=persons)
    for metric, one in compare_results(crowded, spoilt([0.05, 0.1]), spoilt([0.02]), rounds=30).items():
        assert one.interval[0] <= one.value <= one.interval[1], metric


def test_equal_results_have_no_difference(annotations, spoilt):
    rows = spoilt([0.02, 0.1, 0.3])
    for difference in compare_results(annotations, rows, rows, rounds=10).values():
        assert difference.interval == (0, 0)
        assert not difference.clear


def test_pictures_that_are_hard_for_both_do_not_blur_a_small_lead(annotations, spoilt):
    """Half of the pictures fail in both, so AP itself is known to +-0.15; the lead is far better known."""
    first, second = spoilt([0.04, 2.0]), spoilt([0.03, 2.0])
    lead = compare_results(annotations, first, second, rounds=60)["AP"]
    assert lead.clear
    assert lead.interval[0] > 0
    assert lead.interval[1] - lead.interval[0] < 0.5 * 0.3
    back = compare_results(annotations, second, first, rounds=60)["AP"]
    assert back.interval == pytest.approx((-lead.interval[1], -lead.interval[0]))


def test_pck_interval_against_the_closed_form(make_annotations, rows_of):
    """The second has one picture in four right where the first has none: a binomial share."""
    annotations = make_annotations(images=100, persons=1)
    wrong, right = rows_of(annotations), rows_of(annotations)
    for rows, kept in ((wrong, 0), (right, 25)):
        for row in rows[kept:]:
            row["keypoints"] = (np.asarray(row["keypoints"]) + 1000).tolist()
    persons = annotations.persons
    torso = np.linalg.norm(persons[0].keypoints[5] - persons[0].keypoints[12])
    assert torso < 1000 / 0.2
    pck = compare_results(annotations, wrong, right, rounds=100)["PCK"]
    half = 1.96 * np.sqrt(0.25 * 0.75 / 100)
    assert pck.value == pytest.approx(0.25, abs=0.02)
    assert pck.interval == pytest.approx((pck.value - half, pck.value + half), abs=0.02)


def test_without_knowing_whose_pose_it_is_there_is_no_pck(annotations, spoilt):
    rows = spoilt([0.05])
    nameless = [{name: value for name, value in row.items() if name != "box"} for row in rows]
    elsewhere = [{**row, "box": [0, 0, 10, 10]} for row in rows]
    for other in (nameless, elsewhere, rows[1:]):
        assert set(compare_results(annotations, rows, other, rounds=2)) == {"AP", "AP50", "AP75", "AR"}


def test_results_of_other_pictures_are_refused(annotations, spoilt):
    strange = [{**row, "image_id": 1000} for row in spoilt([0.1])]
    with pytest.raises(InputError, match="1000"):
        compare_results(annotations, strange, strange)


def test_nobody_to_compare(annotations):
    assert compare_results(replace(annotations, persons=[]), [], [], rounds=2) == {}
    assert average_precision(replace(annotations, persons=[]), [])["AP"] is None


def test_clear():
    assert Difference(0.5, 0.6, (0.05, 0.15)).clear
    assert Difference(0.6, 0.5, (-0.15, -0.05)).clear
    assert not Difference(0.5, 0.6, (-0.01, 0.2)).clear


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
    assert bootstrap_pck(counts(right)) == bootstrap_pck(counts(right))
