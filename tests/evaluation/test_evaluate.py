"""A model, the mean pose and results measured on a data set."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from diffusionpose.data.annotations import Person
from diffusionpose.errors import InputError
from diffusionpose.evaluation.evaluate import (
    evaluate,
    evaluate_mean_pose,
    evaluate_results,
    learn_mean_pose,
    predict_mean_pose,
    predict_persons,
)
from diffusionpose.geometry import Crop, HeatmapCodec
from diffusionpose.runtime.estimator import PoseEstimator
from diffusionpose.runtime.networks import Network
from diffusionpose.skeletons import AIC, COCO, CROWDPOSE, Skeleton, union

INPUT_SIZE = (48, 64)
NOT_FINITE = 250  # a picture of this brightness makes the model below fail


class PlacedModel(Network):
    """Finds every joint at its fixed place in the crop; its confidence is the brightness of the picture."""

    def __init__(self, skeleton=COCO):
        codec = HeatmapCodec(INPUT_SIZE, stride=1)
        self.name, self.skeleton, self.codec = "placed", skeleton, codec
        self.steps, self.any_steps, self.flip_inside = 1, True, True
        self.calls = []

    def heatmaps(self, images, steps=None, start=None):
        images = torch.as_tensor(images)
        assert images.dtype == torch.uint8
        self.calls.append((len(images), steps))
        middle = images[:, 0, 32, 24].float()
        middle[middle == NOT_FINITE] = torch.nan
        drawn = self.codec.draw(self.codec.to_heatmap(places(self.skeleton)[None]))
        return [drawn / drawn.amax((2, 3), keepdim=True) * (middle / 200)[:, None, None, None]]


def places(skeleton):
    """(J, 2) input pixels."""
    generator = torch.Generator().manual_seed(0)
    return 12 + 28 * torch.rand(skeleton.num_joints, 2, generator=generator)


@pytest.fixture
def placed(make_annotations, tmp_path):
    """Three pictures of brightness 100, 110, 120 with two persons each, who stand where PlacedModel says."""

    def make(skeleton=COCO, **more):
        annotations = make_annotations(skeleton=skeleton, **more)
        for number, record in annotations.images.items():
            Image.new("RGB", (600, 400), (100 + 10 * number,) * 3).save(tmp_path / record.file_name)
        boxes = torch.from_numpy(np.stack([person.box for person in annotations.persons]))
        keypoints = Crop.from_boxes(boxes, INPUT_SIZE).input_to_image(
            places(skeleton).expand(len(boxes), -1, -1)
        )
        persons = [
            replace(person, keypoints=truth)
            for person, truth in zip(annotations.persons, keypoints.numpy(), strict=True)
        ]
        return replace(annotations, persons=persons), tmp_path

    return make


def test_true_boxes(placed):
    annotations, images = placed()
    model = PlacedModel()
    report = evaluate(model, annotations, images, batch_size=4)
    assert report.metrics["AP"] == report.metrics["PCK"] == report.metrics["PCK_limbs"] == pytest.approx(1)
    assert report.metrics["AP_M"] is None
    assert report.box_source == "ground truth"
    assert report.failures == []
    assert [row["image_id"] for row in report.results] == [0, 0, 1, 1, 2, 2]
    assert [row["score"] for row in report.results] == pytest.approx([0.5, 0.5, 0.55, 0.55, 0.6, 0.6])
    assert report.results[1]["box"] == pytest.approx(annotations.persons[1].box.tolist())
    assert report.results[5]["file_name"] == "2.png"
    assert [size for size, _ in model.calls] == [4, 2]


def test_wrong_joints_cost(placed):
    annotations, images = placed()
    first, *others = annotations.persons
    shifted = replace(first, keypoints=first.keypoints + 300)
    report = evaluate(PlacedModel(), replace(annotations, persons=[shifted, *others]), images)
    assert report.metrics["PCK"] == pytest.approx(5 / 6)
    assert report.metrics["AR"] == pytest.approx(5 / 6)


def test_options_reach_the_model_and_the_report(placed):
    annotations, images = placed()
    model = PlacedModel()
    seen = []
    report = evaluate(
        model,
        annotations,
        images,
        decode="quarter",
        steps=3,
        progress=lambda *done: seen.append(done),
    )
    assert model.calls == [(6, 3)]
    assert report.settings == {"decode": "quarter", "flip": True, "steps": 3}
    assert seen == [(2, 6), (4, 6), (6, 6)]
    evaluate(model, annotations, images)
    assert model.calls[1] == (6, None)  # the model's own number of steps
    for wrong in ({"decode": "softmax"}, {"steps": -1}, {"batch size": 0}, {"workers": -1}):
        with pytest.raises(InputError, match=next(iter(wrong))):
            evaluate(model, annotations, images, **{k.replace(" ", "_"): v for k, v in wrong.items()})


def test_batches_and_workers_change_nothing(placed):
    annotations, images = placed()
    one = evaluate(PlacedModel(), annotations, images, batch_size=1)
    two = evaluate(PlacedModel(), annotations, images, batch_size=5, workers=2)
    assert one.results == two.results


def test_unlabelled_persons_and_crowds_are_not_estimated(placed):
    annotations, images = placed()
    first, second, *others = annotations.persons
    changed = [replace(first, is_crowd=True), replace(second, visible=second.visible * 0), *others]
    report = evaluate(PlacedModel(), replace(annotations, persons=changed), images)
    assert len(report.results) == 4
    assert report.metrics["AP"] == pytest.approx(1)


def detected(annotations, boxes):
    """(image id, x0 shift, score) of the first person of each image."""
    persons = []
    for image_id, shift, score in boxes:
        person = next(one for one in annotations.persons if one.image_id == image_id)
        box = person.box + np.asarray([shift, 0, shift, 0], np.float32)
        nothing = np.zeros_like(person.keypoints), np.zeros_like(person.visible)
        persons.append(Person(image_id, len(persons), box, *nothing, 1.0, score=score))
    return replace(annotations, persons=persons, box_source="detections d.json")


def test_detected_boxes_are_rescored_and_suppressed(placed):
    annotations, images = placed()
    boxes = detected(annotations, [(0, 1.0, 0.3), (0, 0.0, 0.8), (1, 0.0, 0.5), (0, 200.0, 0.1)])
    report = evaluate(PlacedModel(), annotations, images, boxes)
    assert [row["score"] for row in report.results] == pytest.approx([0.5 * 0.8, 0.55 * 0.5, 0.5 * 0.1])
    assert report.box_source == "detections d.json"
    assert "PCK" not in report.metrics
    assert 0 < report.metrics["AP"] < 1
    assert report.metrics["AR50"] == pytest.approx(2 / 6)


def test_suppression_goes_by_the_area_of_the_pose_s_own_crop(placed):
    annotations, images = placed()
    (images / "0.png").unlink()
    boxes = detected(annotations, [(0, 0.0, 0.9), (1, 0.0, 0.9), (1, 20.0, 0.5)])
    huge = replace(boxes.persons[0], box=np.asarray([0, 0, 600, 400], np.float32))
    for first in (boxes.persons[0], huge):  # has no pose; were its area taken, 20 px would be near
        report = evaluate(
            PlacedModel(), annotations, images, replace(boxes, persons=[first, *boxes.persons[1:]])
        )
        assert len(report.results) == 2
    wider = [replace(one, box=one.box * 2) for one in boxes.persons[1:]]
    wider[1].box[[0, 2]] -= 20
    report = evaluate(PlacedModel(), annotations, images, replace(boxes, persons=wider))
    assert len(report.results) == 1  # 20 px apart and four times the area


def test_detections_file(placed, tmp_path):
    annotations, images = placed()
    rows = [
        {"image_id": person.image_id, "category_id": 1, "score": 0.9, "bbox": [x0, y0, x1 - x0, y1 - y0]}
        for person in annotations.persons
        for x0, y0, x1, y1 in [person.box.tolist()]
    ]
    path = tmp_path / "boxes.json"
    path.write_text(json.dumps([*rows, {**rows[0], "bbox": [700, 10, 20, 20]}]))
    report = evaluate(PlacedModel(), annotations, images, path)
    assert report.metrics["AP"] == pytest.approx(1)
    assert report.box_source == "detections boxes.json"
    assert len(report.failures) == 1  # outside the picture
    assert "boxes.json" in report.failures[0]


def test_broken_pictures_are_reported_and_the_rest_is_done(placed):
    annotations, images = placed(images=5)
    (images / "0.png").write_bytes((images / "0.png").read_bytes()[:100])
    (images / "1.png").unlink()
    Image.new("RGB", (600, 400), (NOT_FINITE,) * 3).save(images / "3.png")
    report = evaluate(PlacedModel(), annotations, images)
    assert [row["image_id"] for row in report.results] == [2, 2, 4, 4]
    assert len(report.failures) == 3
    for name in ("0.png", "1.png", "3.png"):
        assert sum(name in failure for failure in report.failures) == 1
    assert report.metrics["AR"] == report.metrics["PCK"] == pytest.approx(4 / 10)  # missed, not forgotten
    assert report.counts == {"images": 5, "boxes": 10, "poses": 4, "boxes without a pose": 6}


def test_no_picture_at_all_is_an_error(placed, tmp_path):
    annotations, _ = placed()
    with pytest.raises(InputError, match="nowhere"):
        evaluate(PlacedModel(), annotations, tmp_path / "nowhere")


def test_nobody_to_measure_is_an_error_and_nobody_found_is_not(placed):
    annotations, images = placed()
    with pytest.raises(InputError, match="no person with a labelled joint"):
        evaluate(PlacedModel(), replace(annotations, persons=[]), images)
    empty = replace(annotations, persons=[], box_source="detections none.json")
    assert evaluate(PlacedModel(), annotations, images, empty).metrics["AP"] == 0


def test_annotations_of_other_joints(placed):
    annotations, images = placed()
    report = evaluate(PlacedModel(CROWDPOSE), annotations, images)
    assert len(report.results[0]["keypoints"]) == 3 * 12  # of COCO's 17, in the file's order
    assert report.rows()[0]["joints"] == [joint for joint in COCO.joints if joint in CROWDPOSE.joints]
    assert "12 of its 17 joints" in report.notes[0]
    with pytest.raises(InputError, match="in common"):
        evaluate(PlacedModel(Skeleton("arrow", ("tip",), (), (), (0.1,))), annotations, images)


def test_a_model_of_more_joints_is_measured_on_those_of_the_file_in_its_order(placed):
    annotations, images = placed(skeleton=COCO.select(list(reversed(COCO.joints))))
    both = union(COCO, CROWDPOSE)
    model = PlacedModel(both)
    boxes = np.stack([person.box for person in annotations.persons])
    keypoints = Crop.from_boxes(boxes, INPUT_SIZE).input_to_image(
        places(both).numpy()[None].repeat(len(boxes), 0)
    )
    picked = keypoints[:, [both.index(joint) for joint in annotations.skeleton.joints]]
    persons = [replace(p, keypoints=k) for p, k in zip(annotations.persons, picked, strict=True)]
    report = evaluate(model, replace(annotations, persons=persons), images)
    assert report.metrics["AP"] == report.metrics["PCK"] == pytest.approx(1)
    assert report.notes == []
    assert "joints" not in report.rows()[0]
    np.testing.assert_allclose(
        np.reshape(report.results[0]["keypoints"], (-1, 3))[:, :2], picked[0], atol=0.01
    )


def test_true_boxes_of_one_person_leave_one_pose(placed):
    """HRNet's and mmpose's evaluation suppress near-copies also where boxes are true."""
    annotations, images = placed()
    twice = replace(annotations, persons=[*annotations.persons, annotations.persons[0]])
    report = evaluate(PlacedModel(), twice, images)
    assert report.counts["poses"] == 6
    assert report.counts["boxes"] == 7
    assert report.metrics["PCK"] == pytest.approx(1)  # who is who is known


def test_keypoints_are_rescored_before_they_are_rounded(placed):
    annotations, images = placed()
    report = evaluate(PlacedModel(), annotations, images)
    exact = np.reshape(report.results[0]["keypoints"], (-1, 3))
    written = np.reshape(report.rows()[0]["keypoints"], (-1, 3))
    assert (exact != written).any()
    np.testing.assert_allclose(exact, written, atol=5.1e-4)
    assert report.results[0]["score"] == pytest.approx(exact[:, 2].mean(), abs=1e-9)


def test_results_alone(placed, rows_of):
    annotations, images = placed()
    report = evaluate(PlacedModel(), annotations, images)
    alone = evaluate_results(json.loads(json.dumps(report.rows())), annotations)
    for name in ("AP", "AP50", "AR", "PCK"):
        assert alone.metrics[name] == pytest.approx(report.metrics[name], abs=1e-6)
    assert alone.counts == {"images": 3, "poses": 6}
    nameless = [{key: row[key] for key in ("image_id", "keypoints", "score")} for row in report.rows()]
    assert "PCK" not in evaluate_results(nameless, annotations).metrics
    with pytest.raises(InputError, match=r"mine\.json: entry 0"):
        evaluate_results([{**nameless[0], "score": None}], annotations, source="mine.json")


def test_metrics_that_only_some_data_has(placed):
    annotations, images = placed(skeleton=AIC)
    assert evaluate(PlacedModel(AIC), annotations, images).metrics["AIC_score"] == pytest.approx(1)
    annotations, images = placed(skeleton=CROWDPOSE, crowd_indices=[0.0, 0.5, 1.0])
    metrics = evaluate(PlacedModel(CROWDPOSE), annotations, images).metrics
    assert metrics["AP_easy"] == metrics["AP_hard"] == pytest.approx(1)
    arrow = Skeleton("arrow", ("tip", "end"), (), (), (0.1, 0.1))
    annotations, images = placed(skeleton=arrow)
    metrics = evaluate(PlacedModel(arrow), annotations, images).metrics
    assert metrics["AP"] == pytest.approx(1)
    assert not {"PCK", "AIC_score", "AP_easy"} & set(metrics)


def test_table_has_the_box_source_beside_every_number(placed):
    annotations, images = placed()
    report = evaluate(PlacedModel(), annotations, images, steps=1)
    heading, *lines = report.table().splitlines()
    assert heading.split() == ["metric", "value", "boxes"]
    assert lines[0].split() == ["AP", "1.0000", "ground", "truth"]
    assert lines[3].split() == ["AP_M", "-", "ground", "truth"]
    assert lines[-3].endswith("ground truth   95 %: 1.0000 to 1.0000")
    assert lines[-2:] == [
        "decode dark, flip True, steps 1",
        "3 images, 6 boxes, 6 poses, 0 boxes without a pose",
    ]
    assert len({line.index("ground truth") for line in lines[:-2]}) == 1


def test_metrics_file_content(placed):
    annotations, images = placed()
    content = json.loads(json.dumps(evaluate(PlacedModel(), annotations, images).to_dict(), allow_nan=False))
    assert content["AP"] == pytest.approx(1)
    assert content["AP_M"] is None
    assert content["box_source"] == "ground truth"
    assert content["PCK_per_joint"]["nose"] == 1
    assert content["intervals_95"] == {"PCK": [1, 1], "PCK_limbs": [1, 1]}
    assert {"AP50", "AP75", "AP_L", "AR", "PCK", "PCK_limbs", "settings", "counts", "failures"} <= set(
        content
    )


def test_results_and_failures_of_a_data_set(placed):
    annotations, images = placed()
    (images / "1.png").write_bytes(b"no picture")
    rows, failures = predict_persons(PoseEstimator(PlacedModel(), batch_size=2), annotations, images)
    assert [row and row["image_id"] for row in rows] == [0, 0, None, None, 2, 2]
    assert [row["score"] for row in rows if row] == [1] * 4  # of the boxes
    assert len(failures) == 1
    assert "1.png" in failures[0]


def test_mean_pose_of_the_same_persons_in_equal_boxes(placed):
    annotations, _ = placed()  # all stand alike in their boxes
    report = evaluate_mean_pose(annotations, annotations)
    assert report.metrics["AP"] == report.metrics["PCK"] == pytest.approx(1)
    assert evaluate_mean_pose(annotations, annotations, CROWDPOSE).metrics["AP"] == pytest.approx(1)
    assert len(report.results) == 6


def test_mean_pose_on_lspet14_val(data_dir):
    """0.0524 comes from the definition written as a loop over the two files."""
    folder = data_dir / "lspet14" / "annotations"
    report = evaluate_mean_pose(folder / "lspet14_train.json", folder / "lspet14_val.json")
    assert report.counts["poses"] == 977
    assert report.metrics["PCK_limbs"] == pytest.approx(0.05235, abs=2e-4)
    assert report.metrics["AP"] < 0.01


@pytest.fixture
def two_persons(make_annotations):
    """Boxes of 150 x 300 at (20, 30) and 100 x 100 at (0, 0); joint 0 of both, joint 1 of the second."""
    annotations = make_annotations(images=1, persons=2)
    first, second = annotations.persons
    keypoints, visible = np.zeros((2, 17, 2), np.float32), np.zeros((2, 17), np.int64)
    keypoints[0, 0], visible[0, 0] = [20 + 75, 30 + 30], 1
    keypoints[1, 0], visible[1, 0] = [100, 30], 2
    keypoints[1, 1], visible[1, 1] = [10, 120], 2  # below the box
    box = np.asarray([0, 0, 100, 100], np.float32)
    persons = [
        replace(first, keypoints=keypoints[0], visible=visible[0]),
        replace(second, keypoints=keypoints[1], visible=visible[1], box=box),
    ]
    return replace(annotations, persons=persons)


def test_mean_of_the_labelled_positions_in_the_box(two_persons):
    mean_pose = learn_mean_pose(two_persons)
    assert mean_pose[0] == pytest.approx([0.75, 0.2])
    assert mean_pose[1] == pytest.approx([0.1, 1.2])
    assert mean_pose[2:] == pytest.approx(np.full((15, 2), 0.5))  # never labelled: the middle


def test_prediction_fills_every_box(two_persons):
    mean_pose = learn_mean_pose(two_persons)
    rows = predict_mean_pose(mean_pose, two_persons)
    assert [row["box"] for row in rows] == [[20, 30, 170, 330], [0, 0, 100, 100]]
    assert rows[0]["keypoints"][:3] == pytest.approx([20 + 0.75 * 150, 30 + 0.2 * 300, 1])
    assert rows[1]["keypoints"][:3] == pytest.approx([75, 20, 1])
    assert rows[0]["score"] == 1
    assert rows[0]["file_name"] == "0.png"


def test_a_mean_pose_needs_a_labelled_person(two_persons):
    with pytest.raises(InputError, match=r"made\.json"):
        learn_mean_pose(replace(two_persons, persons=[]))
