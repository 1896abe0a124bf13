import contextlib
import copy
import io
import json
from dataclasses import replace

import numpy as np
import pytest

from diffusionpose.data.annotations import read_annotations
from diffusionpose.errors import InputError
from diffusionpose.evaluation.metrics import COCO_METRICS, coco_metrics
from diffusionpose.skeletons import AIC, COCO, CROWDPOSE, Skeleton


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


def test_crowdpose_val_equals_the_official_tool(data_dir, random_rows):
    """pycocotools with the tool's areas and its ranges: get_type_result(first=0.2, second=0.8)."""
    path = data_dir / "formats" / "crowdpose" / "crowdpose_val.json"
    truth = with_box_areas(json.loads(path.read_text()))
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
    ],
)
def test_unusable_results_are_refused(make_annotations, rows_of, change, message):
    annotations = make_annotations()
    rows = rows_of(annotations)
    rows[1] = {key: value for key, value in {**rows[1], **change}.items() if value is not None}
    with pytest.raises(InputError, match=message) as caught:
        coco_metrics(annotations, rows)
    assert "entry 1" in str(caught.value)


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
    with pytest.raises(InputError, match="entry 1"):  # without names it would have the file's
        coco_metrics(annotations, rows)
