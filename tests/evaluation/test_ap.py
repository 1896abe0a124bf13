import contextlib
import copy
import io
import json
from dataclasses import replace

import numpy as np
import pytest

from diffusionpose.data.annotations import read_annotations
from diffusionpose.errors import InputError
from diffusionpose.evaluation.metrics import (
    COCO_METRICS,
    CROWDPOSETOOLS_AREA,
    coco_metrics,
    crowdposetools_metrics,
)
from diffusionpose.skeletons import COCO, CROWDPOSE, Skeleton


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


def crowdpose_truth(data_dir, area):
    path = data_dir / "formats" / "crowdpose" / "crowdpose_val.json"
    truth = json.loads(path.read_text())
    for annotation in truth["annotations"]:
        annotation["area"] = area * annotation["bbox"][2] * annotation["bbox"][3]
    return path, truth


@pytest.mark.parametrize(
    ("metrics", "area", "bounds"),
    [(coco_metrics, 1.0, (0.1, 0.8)), (crowdposetools_metrics, CROWDPOSETOOLS_AREA, (0.2, 0.8))],
)
def test_crowdpose_val_equals_pycocotools_with_its_areas_and_ranges(
    data_dir, random_rows, metrics, area, bounds
):
    path, truth = crowdpose_truth(data_dir, area)
    rows = random_rows(truth, 0)
    ours = metrics(path, rows)
    expected = by_pycocotools(truth, rows, CROWDPOSE.sigmas)
    assert {name: ours[name] for name in COCO_METRICS} == pytest.approx(expected, abs=1e-6)
    for name, low, high in (
        ("AP_easy", 0, bounds[0]),
        ("AP_medium", *bounds),
        ("AP_hard", bounds[1], np.inf),
    ):
        images = [image["id"] for image in truth["images"] if low <= image["crowdIndex"] < high]
        expected = by_pycocotools(truth, rows, CROWDPOSE.sigmas, images)["AP"]
        assert ours[name] == pytest.approx(expected, abs=1e-6)
    assert len({ours["AP_easy"], ours["AP_medium"], ours["AP_hard"]}) == 3


def test_crowdpose_files_count_persons_by_their_limb_joints(data_dir):
    _, truth = crowdpose_truth(data_dir, 1.0)
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
    with pytest.raises(InputError, match="needs 17"):
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
    annotations = make_annotations(images=3, crowd_indices=[0.0999, 0.1, 0.8])
    rows = [row for row in rows_of(annotations) if row["image_id"] == 1]
    metrics = coco_metrics(annotations, rows)
    assert (metrics["AP_easy"], metrics["AP_medium"], metrics["AP_hard"]) == pytest.approx((0, 1, 0))
    tool = crowdposetools_metrics(annotations, rows)
    assert tool["AP_medium"] is None  # 0.1 is easy there
    assert 0 < tool["AP_easy"] < 1


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
