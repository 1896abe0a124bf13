import json
from pathlib import Path

import numpy as np
import pytest

from diffusionpose import InputError
from diffusionpose.runtime.boxes import BoxesFromFile, usable_boxes
from diffusionpose.runtime.people import PersonDetector, WholeImage


def boxes_file(folder: Path, content: object) -> BoxesFromFile:
    path = folder / "boxes.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return BoxesFromFile(path)


def test_the_whole_image_is_one_person() -> None:
    detector: PersonDetector = WholeImage()
    boxes, scores = detector(np.zeros((30, 50, 3), np.uint8))
    assert boxes.tolist() == [[0, 0, 50, 30]]
    assert boxes.dtype == np.float32
    assert scores.tolist() == [1]


def test_a_detection_file_is_matched_by_number_or_name(tmp_path: Path) -> None:
    found = boxes_file(
        tmp_path,
        [
            {"image_id": 785, "category_id": 1, "bbox": [10, 20, 30, 40], "score": 0.9},
            {"image_id": 785, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.5},
            {"image_id": 785, "category_id": 18, "bbox": [0, 0, 9, 9], "score": 0.9},
            {"file_name": "trip/a.jpg", "bbox": [5, 5, 5, 5]},
        ],
    )
    for name in ("000000000785.jpg", "COCO_val2014_000000000785.png", "785.jpg"):
        boxes, scores = found.of(tmp_path / name)
        assert boxes.tolist() == [[10, 20, 40, 60], [1, 2, 4, 6]]
        assert scores == pytest.approx([0.9, 0.5])
        assert found.image_id(Path(name)) == 785
    assert found.of(Path("/somewhere/trip/a.jpg"))[0].tolist() == [[5, 5, 10, 10]]
    for stranger in ("/somewhere/else/a.jpg", "7850.jpg", "785_b.jpg"):
        boxes, scores = found.of(Path(stranger))
        assert boxes.shape == (0, 4)
        assert scores.shape == (0,)
        assert found.key(Path(stranger)) is None


def test_a_text_id_means_the_name(tmp_path: Path) -> None:
    found = boxes_file(tmp_path, [{"image_id": "054d9ce9", "bbox": [0, 0, 4, 4], "score": 1}])
    assert len(found.of(Path("054d9ce9.jpg"))[0]) == 1
    assert found.image_id(Path("054d9ce9.jpg")) is None


def test_an_annotation_file_gives_its_persons(tmp_path: Path) -> None:
    found = boxes_file(
        tmp_path,
        {
            "images": [{"id": 7, "file_name": "a.jpg"}, {"id": 8, "file_name": "b.jpg"}],
            "categories": [{"id": 3, "name": "person"}, {"id": 1, "name": "bicycle"}],
            "annotations": [
                {"image_id": 7, "category_id": 3, "bbox": [1, 1, 2, 2]},
                {"image_id": 7, "category_id": 1, "bbox": [0, 0, 9, 9]},
                {"image_id": 7, "category_id": 3, "bbox": [0, 0, 9, 9], "iscrowd": 1},
            ],
        },
    )
    assert found.of(Path("a.jpg"))[0].tolist() == [[1, 1, 3, 3]]
    assert found.of(Path("b.jpg"))[0].shape == (0, 4)
    assert found.key(Path("b.jpg")) == "b.jpg", "a picture without persons is known all the same"
    assert found.image_id(Path("b.jpg")) == 8


def test_a_mapping_gives_corners(tmp_path: Path) -> None:
    found = boxes_file(tmp_path, {"a.jpg": [[1, 2, 30, 40], [5, 6, 7, 8]], "b.jpg": []})
    assert found.of(Path("x/a.jpg"))[0].tolist() == [[1, 2, 30, 40], [5, 6, 7, 8]]
    assert found.of(Path("b.jpg"))[0].shape == (0, 4)


def test_the_longest_ending_of_the_path_wins(tmp_path: Path) -> None:
    found = boxes_file(tmp_path, {"a.jpg": [[0, 0, 1, 1]], "two/a.jpg": [[0, 0, 2, 2]]})
    assert found.of(Path("one/a.jpg"))[0][0, 2] == 1
    assert found.of(Path("two/a.jpg"))[0][0, 2] == 2


def test_a_whole_path_is_known(tmp_path: Path) -> None:
    picture = tmp_path / "x" / "a.jpg"
    found = boxes_file(tmp_path, {str(picture): [[0, 0, 1, 1]], "a.jpg": [[0, 0, 2, 2]]})
    assert found.of(picture)[0].tolist() == [[0, 0, 1, 1]]
    assert found.of(tmp_path / "y" / "a.jpg")[0].tolist() == [[0, 0, 2, 2]]


def test_a_link_is_known_by_its_own_name(tmp_path: Path) -> None:
    (tmp_path / "blob").write_bytes(b"")
    (tmp_path / "a.jpg").symlink_to(tmp_path / "blob")
    assert len(boxes_file(tmp_path, {"a.jpg": [[0, 0, 1, 1]]}).of(tmp_path / "a.jpg")[0]) == 1


BOX = {"image_id": 1, "bbox": [0, 0, 4, 4], "score": 0.5}


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ('[{"image_id": 1, "bb', "not a JSON file"),
        ("3", "holds no boxes"),
        ([3], "entry 0 is 3"),
        ([BOX, {"bbox": [0, 0, 4, 4]}], "entry 1 has no 'image_id'"),
        ([{"image_id": 1}], "entry 0 has no 'bbox'"),
        ([{**BOX, "bbox": [0, 0, 4]}], "four numbers"),
        ([{**BOX, "bbox": "0 0 4 4"}], "four numbers"),
        ([{**BOX, "bbox": [0, 0, True, 4]}], "four numbers"),
        ([{**BOX, "score": None}], "'score' of entry 0"),
        ({"annotations": [BOX]}, "the file has no 'images'"),
        ({"images": [{"id": 2, "file_name": "a"}], "annotations": [BOX]}, "image 1, which 'images'"),
        ({"images": [{"id": 1}], "annotations": [BOX]}, "image 0 has no 'file_name'"),
        ({"images": {}, "annotations": []}, "not a list"),
        ({"a.jpg": {"x": 1}}, "'a.jpg' needs a list"),
        ({"a.jpg": [[0, 0, 1]]}, "a box of 'a.jpg'"),
    ],
)
def test_a_broken_file_is_named_with_its_fault(tmp_path: Path, content: object, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint) as caught:
        boxes_file(tmp_path, content)
    assert "boxes.json" in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere\.json"):
        BoxesFromFile(tmp_path / "nowhere.json")


def test_usable_boxes_are_kept_as_they_are_and_the_others_explained() -> None:
    given = np.array(
        [[-5, 2, 10, 60], [60, 2, 70, 9], [3, 3, 3, 9], [1, 1, np.inf, 9], [0, 0, 50, 40], [-9, 0, 0, 9]]
    )
    boxes, kept, problems = usable_boxes(given, width=50, height=40)
    assert boxes.tolist() == [[-5, 2, 10, 60], [0, 0, 50, 40]]
    assert boxes.dtype == np.float32
    assert kept == [0, 4]
    assert [problem.split(" [")[0] for problem in problems] == ["box 1", "box 2", "box 3", "box 5"]
    for word, problem in zip(("outside", "area", "finite", "outside"), problems, strict=True):
        assert word in problem
    assert "[60, 2, 70, 9] is outside the 50x40 picture" in problems[0]
    boxes, kept, problems = usable_boxes(np.zeros((0, 4)), 50, 40)
    assert (boxes.shape, kept, problems) == ((0, 4), [], [])


def test_the_published_detections_are_read(data_dir: Path) -> None:
    found = BoxesFromFile(data_dir / "formats/coco/test_coco_det_AP_H_56.json")
    counts = {p.name: len(found.of(p)[0]) for p in sorted((data_dir / "formats/coco").glob("*.jpg"))}
    assert counts == {
        "000000000785.jpg": 22,
        "000000040083.jpg": 26,
        "000000196141.jpg": 33,
        "000000197388.jpg": 37,
    }
