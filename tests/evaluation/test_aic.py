import json
import time
from dataclasses import replace

import numpy as np
import pytest

from diffusionpose.data.annotations import Annotations, ImageRecord, read_annotations
from diffusionpose.errors import InputError
from diffusionpose.evaluation.metrics import aic_score, match_results, read_results
from diffusionpose.skeletons import AIC


def test_example_predictions_score_as_the_official_script_says(data_dir):
    folder = data_dir / "formats" / "aic_native"
    start = time.process_time()
    annotations = read_annotations(folder / "keypoint_annotations_example.json")
    predictions = read_results(folder / "keypoint_predictions_example.json")
    assert aic_score(annotations, predictions) == pytest.approx(0.99674031, abs=1e-6)
    assert time.process_time() - start < 2


def test_coco_form(data_dir, rows_of):
    annotations = read_annotations(data_dir / "formats" / "aic" / "test_aic.json")
    rows = rows_of(annotations)
    assert aic_score(annotations, rows) == pytest.approx(1)
    assert aic_score(annotations, rows[1:]) == pytest.approx(8 / 9)


@pytest.fixture
def one_person(make_annotations):
    return make_annotations(images=1, persons=1, skeleton=AIC)


def moved(rows, joint, distance):
    (row,) = rows
    keypoints = list(row["keypoints"])
    keypoints[3 * joint] += distance
    return [{**row, "keypoints": keypoints}]


def test_oks_by_hand(one_person, rows_of):
    person = one_person.persons[0]
    visible = np.zeros(14, np.int64)
    visible[0] = 2
    annotations = replace(
        one_person, persons=[replace(person, visible=visible, box=np.asarray([0, 0, 2, 2]))]
    )
    rows = rows_of(annotations)
    # OKS 0.72 by the area of the box, 2 x 2, plus 1, not the annotation's: right at 0.50 .. 0.70
    distance = 2 * AIC.sigmas[0] * np.sqrt(-2 * np.log(0.72) * (2 * 2 + 1))
    assert aic_score(annotations, moved(rows, 0, distance)) == pytest.approx(5 / 10)
    assert aic_score(annotations, moved(rows, 1, 500.0)) == 1  # not labelled


def test_hidden_joints_do_not_count(one_person, rows_of):
    visible = np.asarray([1] + [2] * 13)
    annotations = replace(one_person, persons=[replace(one_person.persons[0], visible=visible)])
    assert aic_score(annotations, moved(rows_of(annotations), 0, 500.0)) == pytest.approx(1)
    only_hidden = replace(one_person, persons=[replace(one_person.persons[0], visible=np.ones(14, np.int64))])
    assert aic_score(only_hidden, rows_of(only_hidden)) == 0


def test_missed_and_superfluous_persons_cost(make_annotations, rows_of):
    annotations = make_annotations(images=2, persons=2, skeleton=AIC)
    rows = rows_of(annotations)
    assert aic_score(annotations, rows) == pytest.approx(1)
    assert aic_score(annotations, rows[:2]) == pytest.approx(2 / 4)  # a picture without predictions
    assert aic_score(annotations, [*rows, rows[0]]) == pytest.approx(4 / 5)
    assert aic_score(annotations, [*rows, {**rows[0], "image_id": 77}]) == pytest.approx(1)
    assert aic_score(annotations, []) == 0
    assert aic_score(replace(annotations, images={}, persons=[]), []) == 0


def test_a_prediction_serves_every_person_it_is_close_to(one_person, rows_of):
    twice = replace(one_person, persons=one_person.persons * 2)
    assert aic_score(twice, rows_of(one_person)) == pytest.approx(1)


def test_other_joints_are_refused(make_annotations, rows_of):
    with pytest.raises(InputError, match=r"made\.json.*14 joints"):
        aic_score(make_annotations(), [])
    annotations = make_annotations(skeleton=AIC)
    with pytest.raises(InputError, match="3 numbers"):
        aic_score(annotations, [{"image_id": 0, "keypoints": [1, 2, 1], "score": 1}])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[", "JSON"),
        ("{}", "list"),
        ("[{}]", "image_id"),
        ('[{"image_id": "a"}]', "has no keypoints"),
        (json.dumps([{"image_id": "a", "keypoint_annotations": {"human1": [1, 2]}}]), "2 numbers"),
        (
            json.dumps([{"image_id": "a", "keypoint_annotations": {"human1": ["x"] * 42}}]),
            "no number",
        ),
        (json.dumps([{"image_id": "a", "keypoint_annotations": {"human1": [np.nan] * 42}}]), "not finite"),
    ],
)
def test_broken_predictions_are_refused(tmp_path, content, message):
    path = tmp_path / "predictions.json"
    path.write_text(content)
    annotations = Annotations(path, AIC, {"a": ImageRecord("a", "a.jpg", 0, 0)}, [])
    with pytest.raises(InputError, match=message) as caught:
        match_results(annotations, read_results(path), source=path)
    assert str(path) in str(caught.value)
    with pytest.raises(InputError, match=r"missing\.json"):
        read_results(tmp_path / "missing.json")
