import json
from pathlib import Path

import numpy as np
import pytest

from diffusionpose import InputError, Pose
from diffusionpose.poses import pose_rows, write_csv
from diffusionpose.runtime.boxes import PeopleFile, listed_pictures, to_openpose, usable_boxes
from diffusionpose.skeletons import COCO, CROWDPOSE


def people_file(folder: Path, content: object) -> PeopleFile:
    path = folder / "file.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return PeopleFile(path)


def test_a_detection_file_is_matched_by_number_or_name(tmp_path: Path) -> None:
    found = people_file(
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
    found = people_file(tmp_path, [{"image_id": "054d9ce9", "bbox": [0, 0, 4, 4], "score": 1}])
    assert len(found.of(Path("054d9ce9.jpg"))[0]) == 1
    assert found.image_id(Path("054d9ce9.jpg")) is None


@pytest.mark.parametrize(
    ("text", "fits", "fits_not"),
    [
        ("alice_1", ("alice_1.jpg", "trip/alice_01.jpg"), ("carol_1.jpg", "1.jpg", "malice_1.jpg")),
        ("trip/alice_1", ("trip/alice_1.jpg",), ("alice_1.jpg", "trip/carol_1.jpg")),
        ("000012", ("12.jpg", "clip_012.jpg"), ("13.jpg",)),
    ],
)
def test_a_text_id_means_another_name_by_its_number_only_where_that_is_all_that_differs(
    tmp_path: Path, text: str, fits: tuple[str, ...], fits_not: tuple[str, ...]
) -> None:
    for content in ({text: [[0, 0, 4, 4]]}, [{"image_id": text, "bbox": [0, 0, 4, 4]}]):
        found = people_file(tmp_path, content)
        assert [found.key(Path("/x") / name) for name in (*fits, *fits_not)] == [
            *[text] * len(fits),
            *[None] * len(fits_not),
        ]


def test_a_name_means_more_than_a_number(tmp_path: Path) -> None:
    boxes = {"D:\\data\\x_12.jpg": [[0, 0, 1, 1]], "12": [[0, 0, 2, 2]], "a_12": [[0, 0, 3, 3]]}
    found = people_file(tmp_path, boxes)
    names = ("x_12.jpg", "y_12.jpg", "a_12.jpg")
    assert [found.of(Path("/here") / name)[0][0, 2] for name in names] == [1, 2, 3]


def test_an_annotation_file_gives_its_persons(tmp_path: Path) -> None:
    found = people_file(
        tmp_path,
        {
            "images": [{"id": 7, "file_name": "a.jpg"}, {"id": 8, "file_name": "b.jpg"}],
            "categories": [{"id": 3, "name": "person"}, {"id": 1, "name": "bicycle"}],
            "annotations": [
                {"image_id": "7", "category_id": 3, "bbox": [1, 1, 2, 2]},
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
    found = people_file(tmp_path, {"a.jpg": [[1, 2, 30, 40], [5, 6, 7, 8]], "b.jpg": []})
    assert found.of(Path("x/a.jpg"))[0].tolist() == [[1, 2, 30, 40], [5, 6, 7, 8]]
    assert found.of(Path("b.jpg"))[0].shape == (0, 4)


def test_the_longest_ending_of_the_path_wins(tmp_path: Path) -> None:
    found = people_file(tmp_path, {"a.jpg": [[0, 0, 1, 1]], "two/a.jpg": [[0, 0, 2, 2]]})
    assert found.of(Path("one/a.jpg"))[0][0, 2] == 1
    assert found.of(Path("two/a.jpg"))[0][0, 2] == 2


def test_a_whole_path_is_known(tmp_path: Path) -> None:
    picture = tmp_path / "x" / "a.jpg"
    found = people_file(tmp_path, {str(picture): [[0, 0, 1, 1]], "a.jpg": [[0, 0, 2, 2]]})
    assert found.of(picture)[0].tolist() == [[0, 0, 1, 1]]
    assert found.of(tmp_path / "y" / "a.jpg")[0].tolist() == [[0, 0, 2, 2]]


def test_a_link_is_known_by_its_own_name(tmp_path: Path) -> None:
    (tmp_path / "blob").write_bytes(b"")
    (tmp_path / "a.jpg").symlink_to(tmp_path / "blob")
    assert len(people_file(tmp_path, {"a.jpg": [[0, 0, 1, 1]]}).of(tmp_path / "a.jpg")[0]) == 1


BOX = {"image_id": 1, "bbox": [0, 0, 4, 4], "score": 0.5}


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ('[{"image_id": 1, "bb', "not a JSON file"),
        ("3", "holds no boxes and no poses; give COCO"),
        ({"annotations": [BOX]}, "lists no 'images'"),
        ({"images": [{"id": 1}], "annotations": [BOX]}, "image 0 has no 'id' and 'file_name'"),
        ({"images": {}, "annotations": []}, "lists no 'images'"),
        ({"images": [], "annotations": 5}, "'annotations' are not a list"),
        ({"people": 5}, "no file of OpenPose"),
        (
            [{**BOX, "category_id": 0}] * 3,
            "none of its 3 boxes is of a person: a person has category_id 1, these have 0",
        ),
        ([{**BOX, "bbox": [0.1, 0.1, 0.5, 0.8]}], "between 0 and 1, as shares of the picture; give pixels"),
    ],
)
def test_a_broken_file_is_named_with_its_fault(tmp_path: Path, content: object, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint) as caught:
        people_file(tmp_path, content)
    assert "file.json" in str(caught.value)


@pytest.mark.parametrize(
    ("entry", "complaint"),
    [
        (3, "entry 0 is 3, not an object"),
        ({"bbox": [0, 0, 4, 4]}, "entry 0 has no 'image_id'"),
        ({**BOX, "image_id": [1]}, r"entry 0 has \[1\] as 'image_id'"),
        ({**BOX, "image_id": float("inf")}, "entry 0 has inf as 'image_id'"),
        ({"image_id": 1}, "entry 0 has no 'bbox'"),
        ({**BOX, "bbox": [0, 0, 4]}, "four numbers"),
        ({**BOX, "bbox": "0 0 4 4"}, "four numbers"),
        ({**BOX, "bbox": [0, 0, True, 4]}, "four numbers"),
        ({**BOX, "bbox": [0, 0, 10**400, 4]}, "four numbers"),
        ({**BOX, "bbox": [0, 0, 1e9, 4]}, "not finite or too large"),
        ({**BOX, "score": "high"}, "has 'high' as 'score'; it must be a finite number"),
        ({**BOX, "score": float("nan")}, "must be a finite number"),
        ({**BOX, "keypoints": ["a"] * 9}, "give numbers"),
        ({**BOX, "keypoints": [1, 2]}, "give numbers"),
        ({**BOX, "keypoints": [float("nan"), 1, 1] * 3}, "a given joint that is not finite"),
        ({**BOX, "keypoints": [1, 1, float("nan")] * 3}, "a given joint that is not finite"),
        ({**BOX, "keypoints": [1e39, 1, 1] * 3}, "a given joint that is not finite"),
        ({"image_id": 1, "keypoints": [0] * 9}, "neither a given joint nor a box"),
    ],
)
def test_an_entry_that_cannot_be_used_costs_no_other(tmp_path: Path, entry: object, complaint: str) -> None:
    with pytest.raises(InputError, match=rf"file\.json: .*{complaint}"):
        people_file(tmp_path, [entry])
    found = people_file(tmp_path, [BOX, entry, BOX])
    assert [person.index for person in found.people] == [0, 2]
    (problem,) = found.problems
    assert "file.json: entry 1 " in problem


@pytest.mark.parametrize("boxes", [{"x": 1}, [[0, 0, 1]], [[0, 0, 1, "a"]]])
def test_a_mapping_with_other_things_than_boxes(tmp_path: Path, boxes: object) -> None:
    found = people_file(tmp_path, {"a.jpg": boxes, "b.jpg": [[1, 2, 3, 4, 0.5]]})
    assert len(found.problems) == 1
    assert "'a.jpg'" in found.problems[0]
    assert "box 1 " not in found.problems[0]
    assert found.people[0].index == 0
    assert found.of(Path("b.jpg"))[1] == [0.5]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere\.json"):
        PeopleFile(tmp_path / "nowhere.json")


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
    assert "has no area" in usable_boxes(np.array([[0, 0, 1e-40, 1e-40]]), 50, 40)[2][0]


def test_the_published_detections_are_read(data_dir: Path) -> None:
    found = PeopleFile(data_dir / "formats/coco/test_coco_det_AP_H_56.json")
    counts = {p.name: len(found.of(p)[0]) for p in sorted((data_dir / "formats/coco").glob("*.jpg"))}
    assert counts == {
        "000000000785.jpg": 22,
        "000000040083.jpg": 26,
        "000000196141.jpg": 33,
        "000000197388.jpg": 37,
    }


GOOD = {"image_id": 7, "keypoints": [10, 20, 0.9, 30, 60, 2, -9999, 0, 0]}


def test_keypoints_bring_a_box_and_may_lack_joints_and_scores(tmp_path: Path) -> None:
    entries = [
        GOOD,
        {**GOOD, "bbox": [1, 2, 30, 60], "score": 0.25, "id": 5},
        {**GOOD, "bbox": [1, 2, 30, 40], "box": [0, 0, 50, 60]},
        {**GOOD, "keypoints": [1, 1, 0, 2, 2, -0.1, 3, 3, 0], "box": [0, 0, 5, 6], "score": None},
    ]
    found = people_file(tmp_path, entries)
    assert found.problems == []
    assert [person.score for person in found.people] == [1, 0.25, 1, 1]
    # without a box: the extent of the two given joints, 20 by 40, and a tenth on every side
    expected = [[8, 16, 32, 64], [1, 2, 31, 62], [0, 0, 50, 60], [0, 0, 5, 6]]
    assert np.allclose([person.box for person in found.people], expected)
    assert found.people[1].ids == {"image_id": 7, "id": 5}
    first, last = found.people[0].keypoints, found.people[3].keypoints
    assert first is not None
    assert last is not None
    assert np.allclose(first, [[10, 20, 0.9], [30, 60, 2], [0, 0, 0]])
    assert not last.any(), "negative scores are of joints that are not given"


def test_the_number_of_joints_must_be_the_skeletons(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"entry 0 has 3 joints .* model has 14; give weights of this skeleton"
    ):
        people_file(tmp_path, [GOOD]).keypoints_for(CROWDPOSE)
    with pytest.raises(InputError, match="entry 0 has no 'keypoints', but a box alone"):
        people_file(tmp_path, [BOX]).keypoints_for(CROWDPOSE)


def test_entries_that_name_their_joints_go_by_the_names(tmp_path: Path) -> None:
    hip, knee = [10, 20, 0.5], [30, 60, 0.25]
    entries = [
        {"image_id": 7, "keypoints": knee + hip, "joints": ["left_knee", "left_hip"]},
        {"image_id": 7, "keypoints": hip + [1, 1, 1], "joints": ["left_hip", "tail"]},
        {"image_id": 7, "keypoints": hip, "joints": ["tail"]},
        {"image_id": 7, "keypoints": hip, "joints": ["left_hip", "left_knee"]},
        GOOD,
        BOX,
    ]
    found = people_file(tmp_path, entries)
    first, second = found.keypoints_for(COCO)
    for person, places in ((first, {"left_hip": hip, "left_knee": knee}), (second, {"left_hip": hip})):
        expected = np.zeros((17, 3))
        for joint, place in places.items():
            expected[COCO.index(joint)] = place
        assert np.array_equal(person.keypoints, expected)  # type: ignore[arg-type]
    told = ("entry 3 has 1 joints", "entry 2 has no joint of", "entry 4 has 3 joints", "entry 5 has no 'key")
    assert [part in problem for part, problem in zip(told, found.problems, strict=True)] == [True] * 4


def test_alphapose_gives_sizes_and_names_as_image_ids(tmp_path: Path) -> None:
    """Its "box" is x, y, width, height, told by its "idx"."""
    entry = {"image_id": "000001.jpg", "keypoints": [212, 153, 0.9, 250, 190, 0.9, 140, 97, 0.9],
             "score": 2.5, "box": [130, 88, 140, 139], "idx": [0.0]}  # fmt: skip
    found = people_file(tmp_path, [entry])
    assert found.of(Path("pictures/000001.jpg"))[0].tolist() == [[130, 88, 270, 227]]
    found = people_file(tmp_path, [{**entry, "image_id": "000001"}])
    assert found.of(Path("pictures/000001.jpg"))[0].tolist() == [[130, 88, 270, 227]]


def test_poses_go_to_openpose_and_come_back(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    poses = [
        Pose(
            COCO,
            random.uniform(0, 200, (17, 2)).round(2),
            random.uniform(0.1, 1, 17).round(2),
            [0, 0, 9, 9],
            1.0,
        )
        for _ in range(2)
    ]
    folder = tmp_path / "openpose"
    folder.mkdir()
    (folder / "clip_000000000012_keypoints.json").write_text(json.dumps(to_openpose(poses)))
    (folder / "clip_000000000013_keypoints.json").write_text(json.dumps(to_openpose([])))
    found = PeopleFile(folder)
    for person, pose in zip(found.keypoints_for(COCO), poses, strict=True):
        assert np.allclose(person.keypoints, np.column_stack([pose.keypoints, pose.scores]), atol=1e-3)
    assert found.key(Path("clip_000000000012.png")) == "clip_000000000012"
    boxes = found.frame(12)
    assert boxes is not None
    assert len(boxes[0]) == 2
    nobody = found.frame(13)
    assert nobody is not None
    assert len(nobody[0]) == 0
    assert found.frame(14) is None
    neck = found.people[0].keypoints[1, :2]  # type: ignore[index]
    shoulders = poses[0].keypoints[[COCO.index("left_shoulder"), COCO.index("right_shoulder")]]
    assert np.allclose(neck, shoulders.mean(axis=0), atol=1e-3)


def test_a_csv_of_predict_brings_names_of_joints(tmp_path: Path) -> None:
    pose = Pose(COCO, np.arange(34).reshape(17, 2), np.full(17, 0.5), [0, 0, 40, 40], 0.75)
    write_csv(tmp_path / "keypoints.csv", pose_rows([pose], "a.jpg", 3))
    (person,) = PeopleFile(tmp_path / "keypoints.csv").keypoints_for(CROWDPOSE)
    assert (person.picture, person.score, person.box.tolist()) == ("a.jpg", 0.75, [0, 0, 40, 40])
    assert person.keypoints is not None
    assert person.keypoints[CROWDPOSE.index("left_knee"), :2].tolist() == pose.keypoints[13].tolist()
    assert not person.keypoints[CROWDPOSE.index("neck")].any()


def test_names_of_another_machine(tmp_path: Path) -> None:
    boxes = {
        "D:\\data\\one\\a.jpg": [[0, 0, 1, 1]],
        "D:\\data\\two\\a.jpg": [[0, 0, 2, 2]],
        "trip\\b.jpg": [[0, 0, 3, 3]],
        "/mnt/x/c.jpg": [[0, 0, 4, 4]],
    }
    found = people_file(tmp_path, boxes)
    assert found.of(Path("/here/two/a.jpg"))[0][0, 2] == 2
    assert found.of(Path("/here/trip/b.jpg"))[0][0, 2] == 3
    assert found.of(Path("/here/c.jpg"))[0][0, 2] == 4
    assert found.key(Path("/here/a.jpg")) is None, "it could be either"


def test_pictures_are_matched_once_and_for_all(tmp_path: Path) -> None:
    found = people_file(tmp_path, [{**BOX, "image_id": 12}, {**BOX, "image_id": "dog"}])
    paths = [Path(name) for name in ("a_12.jpg", "b_12.jpg", "dog.png", "cat.png")]
    assert found.match(paths) == ({"image 12": paths[:2], "dog": paths[2:3]}, paths[3:])


def test_frames_of_a_video_by_name_or_number(tmp_path: Path) -> None:
    found = people_file(tmp_path, {"8": [[0, 0, 1, 1]], "0017.jpg": [], "x": [[0, 0, 1, 1]]})
    assert found.frames() == {8, 17}
    assert found.frame(0) is None
    assert people_file(tmp_path, [{**BOX, "image_id": 3}]).frames() == {3}


def test_pictures_of_annotations(tmp_path: Path) -> None:
    images = [
        {"id": 3, "file_name": "x.jpg"},
        {"id": "four", "file_name": "y/z.jpg", "width": 4, "height": 3},
    ]
    path = tmp_path / "names.json"
    path.write_text(json.dumps({"images": images}))
    assert listed_pictures(path) == {3: ("x.jpg", 0, 0), "four": ("y/z.jpg", 4, 3)}
    named = PeopleFile(people_file(tmp_path, [{**BOX, "image_id": 3}, BOX]).path, {"3": "x.jpg"})
    assert [person.picture for person in named.people] == ["x.jpg"]
    assert "entry 1 is of image 1, which 'images' does not list" in named.problems[0]
