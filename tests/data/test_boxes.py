"""Person boxes from a file in the format of the 56.4-AP detections."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from diffusionpose.data.annotations import Annotations, ImageRecord, read_boxes
from diffusionpose.errors import InputError
from diffusionpose.skeletons import COCO


@pytest.fixture
def annotations() -> Annotations:
    images: dict[int | str, ImageRecord] = {i: ImageRecord(i, f"{i}.jpg", 100, 80) for i in (1, 2)}
    return Annotations(Path("val.json"), COCO, images, [])


def detection(**changes: Any) -> dict[str, Any]:
    return {"image_id": 1, "category_id": 1, "bbox": [10.0, 20.0, 30.0, 40.0], "score": 0.9} | changes


def write(folder: Path, content: Any) -> Path:
    (folder / "boxes.json").write_text(json.dumps(content))
    return folder / "boxes.json"


def test_boxes_become_unlabelled_persons(annotations: Annotations, tmp_path: Path) -> None:
    content = [detection(), detection(image_id=2, score=0.4), detection(category_id=3)]
    found = read_boxes(write(tmp_path, content), annotations)
    assert found.box_source == "detections boxes.json"
    assert [(p.image_id, p.score) for p in found.persons] == [(1, 0.9), (2, 0.4)]
    assert found.persons[0].box.tolist() == [10, 20, 40, 60]
    assert found.persons[0].keypoints.shape == (17, 2)
    assert not found.persons[0].visible.any()
    assert found.images is annotations.images


def test_unusable_boxes_are_dropped_and_said(annotations: Annotations, tmp_path: Path) -> None:
    boxes = ([-10, -10, 30, 30], [200, 10, 5, 5], [5, 5, 0, 9])
    found = read_boxes(write(tmp_path, [detection(bbox=box) for box in boxes]), annotations)
    assert [p.box.tolist() for p in found.persons] == [[-10, -10, 20, 20]]
    (told,) = found.dropped
    assert "1.jpg: box 1 [200, 10, 205, 15] is outside the 100x80 picture" in told
    assert "1.jpg: box 2 [5, 5, 5, 14] has no area" in told


def test_boxes_of_other_pictures_do_not_matter_unless_they_are_all(
    annotations: Annotations, tmp_path: Path
) -> None:
    found = read_boxes(write(tmp_path, [detection(), detection(image_id=77)]), annotations)
    assert (len(found.persons), found.dropped) == (1, [])
    with pytest.raises(InputError, match=r"none of its 1 boxes is of a picture in val\.json"):
        read_boxes(write(tmp_path, [detection(image_id=77)]), annotations)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ({"annotations": []}, "lists no 'images'"),
        ([detection(bbox=[1, 2, 3])], "it must be four numbers"),
        (
            [detection(category_id=0)],
            "none of its 1 boxes is of a person: a person has category_id 1, these have 0",
        ),
    ],
)
def test_faults_are_named(annotations: Annotations, content: Any, complaint: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=rf"boxes\.json: .*{complaint}"):
        read_boxes(write(tmp_path, content), annotations)


def test_pictures_are_known_by_name_too_and_a_missing_score_is_1(
    annotations: Annotations, tmp_path: Path
) -> None:
    entries = [
        detection(image_id="1"),
        detection(image_id=9, file_name="x/2.jpg", score=None),
        detection(score="high"),
    ]
    found = read_boxes(write(tmp_path, entries), annotations)
    assert [(p.image_id, p.score) for p in found.persons] == [(1, 0.9), (2, 1.0)]
    assert "entry 2 has 'high' as 'score'" in found.dropped[0]
    found = read_boxes(write(tmp_path, {"D:\\x\\2.jpg": [[1, 2, 3, 4]]}), annotations)
    assert [p.image_id for p in found.persons] == [2]


def test_names_whose_folders_contradict_are_two_pictures(annotations: Annotations, tmp_path: Path) -> None:
    records = annotations.images
    named = replace(records[1], file_name="C:\\a\\1.jpg"), replace(records[2], file_name="video1/2.jpg")
    annotations = replace(annotations, images={record.id: record for record in named})
    box = [1, 2, 3, 4]
    found = read_boxes(write(tmp_path, {"1.jpg": [box], "b/video1/2.jpg": [box]}), annotations)
    assert [p.image_id for p in found.persons] == [1, 2]
    with pytest.raises(InputError, match="none of its 1 boxes is of a picture"):
        read_boxes(write(tmp_path, {"video2/2.jpg": [box]}), annotations)


def test_numbers_and_flags_of_other_types(annotations: Annotations, tmp_path: Path) -> None:
    entries = [detection(image_id=2.0, category_id=1.0, iscrowd="0"), detection(category_id=None)]
    entries.append(detection(iscrowd="1"))
    found = read_boxes(write(tmp_path, entries), annotations)
    assert [p.image_id for p in found.persons] == [2, 1]


def test_no_boxes_give_no_persons(annotations: Annotations, tmp_path: Path) -> None:
    assert read_boxes(write(tmp_path, []), annotations).persons == []


@pytest.mark.parametrize(
    ("truth", "boxes", "count"),
    [
        ("coco/test_coco.json", "coco/test_coco_det_AP_H_56.json", 118),
        ("crowdpose/test_crowdpose.json", "crowdpose/test_crowdpose_det_AP_40.json", 6),
    ],
)
def test_the_format_of_published_detections(truth: str, boxes: str, count: int, data_dir: Path) -> None:
    from diffusionpose.data.annotations import read_annotations

    annotations = read_annotations(data_dir / "formats" / truth)
    found = read_boxes(data_dir / "formats" / boxes, annotations)
    assert (len(found.persons), found.dropped) == (count, [])
    # a detector of this quality finds every large annotated person
    for person in annotations.labelled().persons:
        if person.area > 96**2:
            rivals = np.stack([p.box for p in found.persons if p.image_id == person.image_id])
            assert iou(person.box, rivals).max() > 0.5


def iou(box: np.ndarray, others: np.ndarray) -> np.ndarray:
    low, high = np.maximum(box[:2], others[:, :2]), np.minimum(box[2:], others[:, 2:])
    shared = np.prod(np.clip(high - low, 0, None), axis=1)
    areas = [np.prod(b[..., 2:] - b[..., :2], axis=-1) for b in (box, others)]
    return shared / (areas[0] + areas[1] - shared)
