"""AP against pycocotools and the official tools, PCK, AI Challenger, rescoring and suppression."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import re
import time
from dataclasses import replace

import numpy as np
import pytest

from diffusionpose.data.annotations import Annotations, ImageRecord, read_annotations
from diffusionpose.errors import InputError
from diffusionpose.evaluation.evaluate import evaluate_results
from diffusionpose.evaluation.metrics import (
    COCO_METRICS,
    average_precision,
    count_joints,
    match_results,
    oks_nms,
    read_results,
    rescore,
    torso_lengths,
)
from diffusionpose.evaluation.metrics import aic_score as score_by_aic
from diffusionpose.skeletons import AIC, COCO, CROWDPOSE, Skeleton


def coco_metrics(annotations, results, skeleton=None):
    return average_precision(*match_results(annotations, results, skeleton))


def aic_score(annotations, results):
    return score_by_aic(*match_results(annotations, results))


def pck(*arguments, **options):
    counts = count_joints(*arguments, **options)
    return {
        "PCK": counts.value(),
        "PCK_limbs": counts.value(counts.skeleton.limb_joints),
        "per_joint": counts.per_joint(),
        "persons": persons_of(counts),
    }


def persons_of(counts):
    """How many persons count: those with a torso length."""
    return int(counts.counted.any(1).sum())


def by_pycocotools(truth, rows, sigmas=COCO.sigmas, images=None):
    from pycocotools.coco import COCO as Index
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        index = Index()
        index.dataset = copy.deepcopy(truth)
        index.createIndex()
        evaluation = COCOeval(index, index.loadRes(copy.deepcopy(rows)), "keypoints")
        evaluation.params.kpt_oks_sigmas = np.asarray(sigmas)
        if images is not None:
            evaluation.params.imgIds = images
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return dict(zip(COCO_METRICS, evaluation.stats, strict=True))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_equals_pycocotools_on_coco(data_dir, random_rows, seed):
    path = data_dir / "formats" / "coco" / "person_keypoints_val2017_2213.json"
    truth = json.loads(path.read_text())
    rows = random_rows(truth, seed)
    ours = coco_metrics(path, rows)
    assert 0.1 < ours["AP"] < 0.9
    assert ours == pytest.approx(by_pycocotools(truth, rows), abs=1e-6)


def with_box_areas(truth):
    """As crowdposetools' computeOks and mmpose's use_area=False have it."""
    for annotation in truth["annotations"]:
        annotation["area"] = 0.53 * annotation["bbox"][2] * annotation["bbox"][3]
    return truth


def test_crowdpose_val_equals_the_official_tool(data_dir, random_rows, tmp_path):
    """pycocotools with the tool's areas and its ranges: get_type_result(first=0.2, second=0.8).

    On every third picture, since pycocotools goes through them four times.
    """
    truth = json.loads((data_dir / "formats" / "crowdpose" / "crowdpose_val.json").read_text())
    truth["images"] = truth["images"][::3]
    kept = {image["id"] for image in truth["images"]}
    truth["annotations"] = [each for each in truth["annotations"] if each["image_id"] in kept]
    path = tmp_path / "crowdpose_val.json"
    path.write_text(json.dumps(truth))
    truth = with_box_areas(truth)
    rows = random_rows(truth, 0)
    ours = coco_metrics(path, rows)
    expected = by_pycocotools(truth, rows, CROWDPOSE.sigmas)
    assert {name: ours[name] for name in COCO_METRICS} == pytest.approx(expected, abs=1e-6)
    for name, low, high in (
        ("AP_easy", 0, 0.2),
        ("AP_medium", 0.2, 0.8),
        ("AP_hard", 0.8, np.inf),
    ):
        images = [image["id"] for image in truth["images"] if low <= image["crowdIndex"] < high]
        expected = by_pycocotools(truth, rows, CROWDPOSE.sigmas, images)["AP"]
        assert ours[name] == pytest.approx(expected, abs=1e-6)
    assert len({ours["AP_easy"], ours["AP_medium"], ours["AP_hard"]}) == 3


def test_crowdpose_files_count_persons_by_their_limb_joints(data_dir):
    truth = json.loads((data_dir / "formats" / "crowdpose" / "crowdpose_val.json").read_text())
    for annotation in truth["annotations"]:
        assert annotation["num_keypoints"] == np.count_nonzero(annotation["keypoints"][2:36:3])


def test_the_truth_scores_one_on_lspet14_and_a_shifted_truth_less(data_dir, rows_of):
    annotations = read_annotations(data_dir / "lspet14" / "annotations" / "lspet14_val.json")
    rows = rows_of(annotations)
    perfect = coco_metrics(annotations, rows)
    assert {perfect[name] for name in ("AP", "AP50", "AP75", "AR")} == {1.0}
    for row in rows:
        row["keypoints"] = (np.reshape(row["keypoints"], (-1, 3)) + [8, 0, 0]).ravel().tolist()
    shifted = coco_metrics(annotations, rows)
    assert shifted["AP"] < shifted["AP50"]
    assert shifted["AP"] < 1


def test_own_skeleton_and_text_ids(make_annotations, rows_of):
    horse = Skeleton("horse", ("nose", "tail"), ((0, 1),), (), (0.05, 0.1))
    annotations = make_annotations(images=2, skeleton=horse)
    named = replace(
        annotations,
        images={f"picture {key}": record for key, record in annotations.images.items()},
        persons=[replace(p, image_id=f"picture {p.image_id}") for p in annotations.persons],
    )
    rows = rows_of(named)
    assert coco_metrics(named, rows)["AP"] == pytest.approx(1)
    # one of two joints off by d = 2 sigma sqrt(area): OKS (1 + exp(-1/2)) / 2 = 0.803, right up to 0.80
    for row in rows:
        row["keypoints"][0] += 2 * 0.05 * np.sqrt(30000)
    metrics = coco_metrics(named, rows)
    assert metrics["AP"] == pytest.approx(7 / 10)
    assert metrics["AP75"] == pytest.approx(1)


def test_annotations_are_matched_to_the_results_joints(make_annotations, rows_of):
    annotations = make_annotations()
    rows = rows_of(annotations.to_skeleton(CROWDPOSE))
    assert coco_metrics(annotations, rows, CROWDPOSE)["AP"] == pytest.approx(1)
    with pytest.raises(InputError, match=r"42 numbers in .* the 17 joints"):
        coco_metrics(annotations, rows)


def test_crowds_and_unlabelled_persons_neither_count_nor_cost(make_annotations, rows_of):
    annotations = make_annotations(images=2, persons=2)
    rows = rows_of(annotations)
    first, second, third, fourth = annotations.persons
    changed = replace(
        annotations,
        persons=[first, replace(second, is_crowd=True), third, replace(fourth, visible=fourth.visible * 0)],
    )
    assert coco_metrics(changed, rows)["AP"] == pytest.approx(1)  # their poses are no false ones
    assert coco_metrics(changed, [rows[0], rows[2]])["AR"] == pytest.approx(1)  # they are not missed


def test_no_results_give_zeros(make_annotations):
    metrics = coco_metrics(make_annotations(), [])
    assert metrics["AP"] == metrics["AP50"] == metrics["AR"] == metrics["AP_L"] == 0.0


def test_ranges_without_persons_give_none(make_annotations, rows_of):
    annotations = make_annotations(crowd_indices=[0.0, 0.05, 0.8])
    metrics = coco_metrics(annotations, rows_of(annotations))
    assert metrics["AP_M"] is None  # all areas are above 96^2
    assert metrics["AP_medium"] is None
    assert metrics["AP_easy"] == metrics["AP_hard"] == pytest.approx(1)
    nobody = coco_metrics(replace(annotations, persons=[]), [])
    assert set(nobody.values()) == {None}


def test_crowd_ranges_begin_at_their_lower_ends(make_annotations, rows_of):
    annotations = make_annotations(images=3, crowd_indices=[0.1999, 0.2, 0.8])
    rows = [row for row in rows_of(annotations) if row["image_id"] == 1]
    metrics = coco_metrics(annotations, rows)
    assert (metrics["AP_easy"], metrics["AP_medium"], metrics["AP_hard"]) == pytest.approx((0, 1, 0))


def test_quiet_and_without_a_trace_on_its_arguments(make_annotations, rows_of, capfd):
    annotations = make_annotations()
    rows = rows_of(annotations)
    before = copy.deepcopy(rows)
    coco_metrics(annotations, rows)
    assert capfd.readouterr() == ("", "")
    assert rows == before


def test_a_bbox_in_the_results_changes_nothing(make_annotations, rows_of):
    annotations = make_annotations(images=1, persons=1)
    (row,) = rows_of(annotations)
    far = {**row, "score": 2.0, "keypoints": [1000.0, 1000.0, 1.0] * 17}
    without = coco_metrics(annotations, [row, far])
    small = [{**one, "bbox": [0, 0, 5, 5]} for one in (row, far)]
    assert coco_metrics(annotations, small) == without


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_id": 99}, "99.*made.json does not list"),
        ({"keypoints": [0.0] * 42}, "42 numbers.*17"),
        ({"keypoints": [np.nan] * 51}, "not finite"),
        ({"keypoints": ["a"] * 51}, "no number"),
        ({"keypoints": 5}, "0 numbers"),
        ({"image_id": [1]}, "does not list"),
        ({"score": np.inf}, "not finite"),
        ({"score": None}, "no score"),
        ({"joints": ["nose"] * 17}, "twice"),
    ],
)
def test_unusable_results_are_left_out_and_told(make_annotations, rows_of, change, message):
    annotations = make_annotations()
    rows = rows_of(annotations)
    good = [row for index, row in enumerate(rows) if index != 1]
    rows[1] = {key: value for key, value in {**rows[1], **change}.items() if value is not None}
    truth, kept = match_results(annotations, rows, source="res.json")
    assert kept == match_results(annotations, good)[1]
    (told,) = truth.dropped
    assert re.search(f"^res.json: entry 1 .*{message}", told)
    with pytest.raises(InputError, match=f"entry 0 .*{message}"):
        match_results(annotations, rows[1:2])


def test_a_report_on_some_of_the_joints_says_so_and_names_them(make_annotations, rows_of):
    annotations = make_annotations()
    arms = COCO.select(["left_elbow", "left_wrist"])
    report = evaluate_results(rows_of(annotations.to_skeleton(arms)), annotations, arms, "arms.json")
    assert "measured on the 2 of its 17 joints that arms.json has" in report.notes[0]
    again = evaluate_results(report.rows(), annotations)
    assert again.metrics == report.metrics


def test_what_other_tools_add_to_results_does_no_harm(make_annotations, rows_of):
    annotations = make_annotations()
    own = {"visibility": 1.0, "probabilities": [0.5] * 3, "bbox": [np.nan] * 4, "by": "them"}
    _, kept = match_results(annotations, [{**row, **own} for row in rows_of(annotations)])
    assert kept == [{**row, "by": "them"} for row in match_results(annotations, rows_of(annotations))[1]]


def test_pictures_are_known_by_their_names_as_well(make_annotations, rows_of):
    annotations = make_annotations()
    named = [
        {**row, "image_id": annotations.images[row["image_id"]].file_name} for row in rows_of(annotations)
    ]
    assert match_results(annotations, named)[1] == match_results(annotations, rows_of(annotations))[1]


def test_null_scores_are_named(make_annotations, rows_of):
    annotations = make_annotations()
    rows = [{**row, "score": None} for row in rows_of(annotations)]
    with pytest.raises(InputError, match="entry 0 has None as 'score'"):
        coco_metrics(annotations, rows)


def test_ai_challenger_area_is_the_boxs_whatever_the_file_says(data_dir, random_rows, tmp_path):
    """mmpose's use_area=False, by which its zoo rows and Table 4 are measured."""
    truth = json.loads((data_dir / "formats" / "aic" / "test_aic.json").read_text())
    truth["annotations"] = [{**annotation, "iscrowd": 0} for annotation in truth["annotations"]]
    rows = random_rows(truth, 3)
    expected = by_pycocotools(with_box_areas(copy.deepcopy(truth)), rows, AIC.sigmas)
    for area in (None, 10.0):
        for annotation in truth["annotations"]:
            annotation["area"] = area
        path = tmp_path / "aic.json"
        path.write_text(json.dumps(truth))
        ours = coco_metrics(path, rows)
        assert {name: -1 if ours[name] is None else ours[name] for name in COCO_METRICS} == pytest.approx(
            expected
        )


def test_odd_files_count_as_in_pycocotools(data_dir, random_rows, tmp_path):
    """Area 0, boxes without width or outside the picture, a num_keypoints that does not fit."""
    truth = json.loads((data_dir / "formats" / "coco" / "person_keypoints_val2017_2213.json").read_text())
    rows = random_rows(truth, 5)
    generator = np.random.default_rng(0)
    for annotation in truth["annotations"]:
        change = generator.integers(8)
        if change == 0:
            annotation["area"] = 0
        elif change == 1:
            annotation["bbox"][2] = 0
        elif change == 2:
            annotation["num_keypoints"] = 0
        elif change == 3:
            annotation["num_keypoints"] = 5
        elif change == 4:
            annotation["bbox"][0] = 5000
    path = tmp_path / "odd.json"
    path.write_text(json.dumps(truth))
    assert coco_metrics(path, rows) == pytest.approx(by_pycocotools(truth, rows), abs=1e-6)


def test_ids_as_text_are_the_ids(make_annotations, rows_of):
    annotations = make_annotations()
    rows = [{**row, "image_id": str(row["image_id"])} for row in rows_of(annotations)]
    assert coco_metrics(annotations, rows)["AP"] == pytest.approx(1)


def test_results_are_in_the_order_of_the_file(tmp_path, make_annotations):
    """COCO's rule: whoever writes results writes the joints as the annotation file lists them."""
    names = list(reversed(CROWDPOSE.joints))
    person = make_annotations(images=1, persons=1, skeleton=CROWDPOSE).persons[0]
    keypoints = np.column_stack([person.keypoints, person.visible]).astype(float).ravel().tolist()
    content = {
        "images": [{"id": 1, "file_name": "1.jpg", "width": 600, "height": 400}],
        "categories": [{"id": 1, "name": "person", "keypoints": names}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "bbox": [20, 30, 150, 300], "keypoints": keypoints}
        ],
    }
    path = tmp_path / "file.json"
    path.write_text(json.dumps(content))
    row = {"image_id": 1, "keypoints": keypoints, "score": 1.0}
    assert coco_metrics(path, [row])["AP"] == pytest.approx(1)
    # results that name their joints, and results of a skeleton that is named
    sorted_out = np.reshape(keypoints, (-1, 3))[::-1].ravel().tolist()
    named = {"image_id": 1, "keypoints": sorted_out, "score": 1.0, "joints": list(CROWDPOSE.joints)}
    assert coco_metrics(path, [named])["AP"] == pytest.approx(1)
    assert coco_metrics(path, [{**row, "keypoints": sorted_out}], CROWDPOSE)["AP"] == pytest.approx(1)
    assert coco_metrics(path, [{**row, "keypoints": sorted_out}])["AP"] == 0


def test_results_of_some_of_the_joints(make_annotations, rows_of):
    annotations = make_annotations()
    arms = COCO.select(["left_elbow", "left_wrist", "nose"])
    rows = rows_of(annotations.to_skeleton(arms))
    assert coco_metrics(annotations, rows, arms)["AP"] == pytest.approx(1)
    rows[0]["joints"] = ["left_elbow", "left_wrist", "tail"]
    truth, kept = match_results(annotations, rows)
    assert len(kept) == 1
    assert truth.skeleton.joints == ("left_elbow", "left_wrist")
    assert "entry 1 has 9 numbers" in truth.dropped[0]  # without names it would have the file's


def test_example_predictions_score_as_the_official_script_says(data_dir):
    folder = data_dir / "formats" / "aic_native"
    start = time.process_time()
    annotations = read_annotations(folder / "keypoint_annotations_example.json")
    predictions = read_results(folder / "keypoint_predictions_example.json")  # of more pictures
    predictions = [row for row in predictions if annotations.find_image(row["image_id"]) is not None]
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
    assert aic_score(annotations, []) == 0
    assert aic_score(replace(annotations, images={}, persons=[]), []) == 0


def test_a_prediction_serves_every_person_it_is_close_to(one_person, rows_of):
    twice = replace(one_person, persons=one_person.persons * 2)
    assert aic_score(twice, rows_of(one_person)) == pytest.approx(1)


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


SIGMAS = (0.05, 0.1)


def row(x, score, image=1, sure=(0.5, 0.5)):
    keypoints = [x, 0.0, sure[0], x + 10, 20.0, sure[1]]
    return {
        "image_id": image,
        "category_id": 1,
        "keypoints": keypoints,
        "score": score,
    }


def test_rescore_multiplies_by_the_mean_of_sure_keypoints():
    rows = [row(0, 0.5, sure=(0.9, 0.7)), row(0, 0.5, sure=(0.9, 0.2)), row(0, 0.5, sure=(0.1, 0.2))]
    assert [one["score"] for one in rescore(rows)] == pytest.approx([0.4, 0.45, 0.0])
    assert [one["score"] for one in rows] == [0.5] * 3
    assert rescore([]) == []


def nms(rows, threshold=0.9, area=2000):
    return oks_nms(rows, SIGMAS, [area] * len(rows), threshold)


def test_oks_of_two_poses_by_hand():
    keypoints = [[0.0, 0, 1, 0, 0, 1], [3, 4, 1, 0, 0, 1]]
    rows = [
        {"image_id": 1, "keypoints": one, "score": score}
        for one, score in zip(keypoints, (2, 1), strict=True)
    ]
    oks = (np.exp(-25 / (2 * 200 * 0.1**2)) + 1) / 2
    areas = [100.0, 300.0]  # of a pair: 200
    assert len(oks_nms(rows, SIGMAS, areas, oks - 1e-9)) == 1
    assert len(oks_nms(rows, SIGMAS, areas, oks + 1e-9)) == 2


def test_copies_of_a_better_pose_are_dropped():
    rows = [row(0, 0.3), row(0.1, 0.9), row(100, 0.1), row(0, 0.2, image=2)]
    assert nms(rows) == rows[1:]


def test_a_pose_at_the_threshold_stays():
    # area 2000, both joints moved by d: OKS = mean over sigma of exp(-d^2 / (2 area (2 sigma)^2))
    def oks(d):
        return np.mean([np.exp(-(d**2) / (2 * 2000 * (2 * s) ** 2)) for s in SIGMAS])

    assert oks(1.5) > 0.9 > oks(3.5)
    assert len(nms([row(0, 1.0), row(1.5, 0.5)])) == 1
    assert len(nms([row(0, 1.0), row(3.5, 0.5)])) == 2
    assert len(nms([row(0, 1.0), row(1.5, 0.5)], float(oks(1.5)) + 1e-9)) == 2
    assert len(nms([row(0, 1.0), row(3.5, 0.5)], area=20000)) == 1


def test_a_dropped_pose_drops_no_other():
    rows = [row(0, 0.9), row(2, 0.8), row(4, 0.7)]
    assert len(nms(rows[:2])) == 1
    assert len(nms(rows[1:])) == 1
    assert nms(rows) == [rows[0], rows[2]]


def test_equal_poses_leave_one():
    assert nms([row(0, 0.0)] * 3) == [row(0, 0.0)]
    assert nms([]) == []


L_SHOULDER, R_SHOULDER, L_HIP, R_HIP, HEAD = 0, 1, 6, 7, 12


@pytest.fixture
def person():
    """(1, 14, 2) keypoints, (1, 14) visible: diagonals of 100 (left shoulder - right hip) and 60."""
    truth = np.zeros((1, 14, 2))
    truth[0, R_HIP] = [60, 80]
    truth[0, R_SHOULDER] = [0, 10]
    truth[0, L_HIP] = [0, 70]
    return truth, np.full((1, 14), 2)


def test_torso_is_the_longer_labelled_diagonal(person):
    truth, visible = person
    assert torso_lengths(truth, visible, CROWDPOSE).tolist() == [100]
    visible[0, R_HIP] = 0
    assert torso_lengths(truth, visible, CROWDPOSE).tolist() == [60]
    visible[0, R_SHOULDER] = 0
    assert np.isnan(torso_lengths(truth, visible, CROWDPOSE)).all()


def test_joints_within_a_fifth_of_the_torso_are_right(person):
    truth, visible = person
    predicted = truth.copy()
    predicted[0, 2] += [12, 16]  # 20 px: at the threshold
    predicted[0, 3] += [20.01, 0]
    predicted[0, HEAD] += [300, 0]
    predicted[0, 4] = np.nan
    found = pck(predicted, truth, visible, CROWDPOSE)
    assert found["PCK"] == pytest.approx(11 / 14)
    assert found["PCK_limbs"] == pytest.approx(10 / 12)
    assert found["per_joint"]["left_elbow"] == 1
    assert found["per_joint"]["right_elbow"] == 0
    assert found["persons"] == 1
    assert pck(predicted, truth, visible, CROWDPOSE, threshold=0.21)["PCK"] == pytest.approx(12 / 14)
    json.dumps(found, allow_nan=False)


def test_unlabelled_joints_and_persons_without_a_torso_do_not_count(person):
    truth, visible = person
    truth, visible = np.repeat(truth, 3, 0), np.repeat(visible, 3, 0)
    visible[0, 2] = 0
    visible[1, [L_SHOULDER, L_HIP]] = 0  # neither diagonal
    truth[2] = 5.0  # a torso of length 0
    predicted = truth.copy()
    predicted[0, 2] += 500
    predicted[1] += 500
    counts = count_joints(predicted, truth, visible, CROWDPOSE)
    assert persons_of(counts) == 1
    assert counts.counted.sum() == 13
    assert counts.value() == 1


def test_persons_are_pooled_by_joint(person):
    truth, visible = person
    truth, visible = np.repeat(truth, 2, 0), np.repeat(visible, 2, 0)
    visible[1] = 0
    visible[1, [L_SHOULDER, R_HIP]] = 1
    predicted = truth.copy()
    predicted[1] += 500
    assert pck(predicted, truth, visible, CROWDPOSE)["PCK"] == pytest.approx(14 / 16)


def test_nobody_gives_none():
    found = pck(np.zeros((0, 14, 2)), np.zeros((0, 14, 2)), np.zeros((0, 14)), CROWDPOSE)
    assert found["PCK"] is found["PCK_limbs"] is found["per_joint"]["head"] is None
    assert found["persons"] == 0


@pytest.mark.parametrize("skeleton", [COCO, CROWDPOSE, AIC])
def test_twelve_limb_joints_in_every_known_skeleton(skeleton):
    names = {skeleton.joints[index] for index in skeleton.limb_joints}
    assert len(names) == 12
    assert not names & {"head", "neck", "head_top", "nose", "left_eye"}


def test_refuses_what_it_cannot_measure(person):
    truth, visible = person
    arrow = Skeleton("arrow", ("tip", "end"), (), (), (0.1, 0.1))
    with pytest.raises(InputError, match="left_shoulder"):
        pck(truth[:, :2], truth[:, :2], visible[:, :2], arrow)


def test_lspet14_val_by_a_loop(data_dir):
    """Against the definition written as a loop over persons and joints, on random predictions."""
    annotations = read_annotations(data_dir / "lspet14" / "annotations" / "lspet14_val.json")
    generator = np.random.default_rng(0)
    truth = np.stack([person.keypoints for person in annotations.persons]).astype(float)
    visible = np.stack([person.visible for person in annotations.persons])
    predicted = truth + generator.normal(0, 8, truth.shape)
    right = total = persons = 0
    for k, t, v in zip(predicted, truth, visible, strict=True):
        diagonals = [
            np.hypot(*(t[a] - t[b]))
            for a, b in ((L_SHOULDER, R_HIP), (R_SHOULDER, L_HIP))
            if v[a] > 0 and v[b] > 0
        ]
        if not diagonals:
            continue
        persons += 1
        for joint in range(12):
            if v[joint] > 0:
                total += 1
                right += np.hypot(*(k[joint] - t[joint])) <= 0.2 * max(diagonals)
    found = pck(predicted, truth, visible, annotations.skeleton)
    assert found["PCK_limbs"] == pytest.approx(right / total)
    assert found["persons"] == persons
    assert 0.2 < found["PCK_limbs"] < 0.9
