"""Annotation files of every format, and every fault of theirs that the reader must name."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from diffusionpose.data.annotations import annotations_in, read_annotations
from diffusionpose.data.pictures import find_pictures
from diffusionpose.errors import InputError
from diffusionpose.skeletons import AIC, COCO, CROWDPOSE, Skeleton

Content = dict[str, Any]


def coco_content(skeleton: Skeleton = COCO) -> Content:
    """Two pictures, two persons; joint j of person p lies at (10 p + j, 20 p + j)."""
    people = [
        {
            "id": 7 + p,
            "image_id": 1 + p,
            "category_id": 1,
            "iscrowd": 0,
            "bbox": [10, 20, 30, 40],
            "area": 600.0,
            "keypoints": [v for j in range(skeleton.num_joints) for v in (10 * p + j, 20 * p + j, 2)],
        }
        for p in range(2)
    ]
    images = [{"id": i, "file_name": f"{i}.jpg", "width": 100, "height": 80} for i in (1, 2)]
    categories = [{"id": 1, "name": "person", "keypoints": list(skeleton.joints)}]
    return {"images": images, "annotations": people, "categories": categories}


def write(folder: Path, content: Any) -> Path:
    path = folder / "persons.json"
    path.write_text(json.dumps(content))
    return path


def test_coco(tmp_path: Path) -> None:
    annotations = read_annotations(write(tmp_path, coco_content()))
    assert annotations.skeleton is COCO
    assert annotations.images[2].file_name == "2.jpg"
    assert annotations.box_source == "ground truth"
    person = annotations.persons[1]
    assert (person.image_id, person.id, person.area, person.score) == (2, 8, 600.0, 1.0)
    np.testing.assert_array_equal(person.box, np.float32([10, 20, 40, 60]))
    np.testing.assert_array_equal(person.keypoints[3], np.float32([13, 23]))
    assert person.visible.tolist() == [2] * 17


def test_forms_of_other_tools(tmp_path: Path) -> None:
    """Joints as objects, sides by a capital at the end, flags as text, empty boxes."""
    content = coco_content()
    names = ["nose", "hipL", "hipR"]
    content["categories"][0]["keypoints"] = [{"name": name} for name in names]
    for person, crowd in zip(content["annotations"], ("0", "1"), strict=True):
        person |= {"keypoints": person["keypoints"][:9], "iscrowd": crowd, "bbox": []}
    annotations = read_annotations(write(tmp_path, content))
    assert (annotations.skeleton.joints, annotations.skeleton.pairs) == (("nose", "hipl", "hipr"), ((1, 2),))
    assert [(person.is_crowd, person.has_box) for person in annotations.persons] == [
        (False, True),
        (True, True),
    ]
    assert [f.check for f in annotations.findings] == ["sigma taken", "missing box", "missing box"]


def test_what_is_ambiguous_is_told(tmp_path: Path) -> None:
    content = coco_content()
    content["categories"].append({"id": 1, "name": "car"})
    content["annotations"][0]["iscrowd"] = "maybe"
    annotations = read_annotations(write(tmp_path, content))
    assert {f.check for f in annotations.findings} == {"category id twice", "crowd flag"}
    assert not annotations.persons[0].is_crowd


def test_one_file_is_not_taken_for_two_pictures(tmp_path: Path) -> None:
    content = coco_content()
    for image, name in zip(content["images"], ("video1/1.jpg", "video2/1.jpg"), strict=True):
        image["file_name"] = name
    (tmp_path / "1.jpg").touch()
    annotations = read_annotations(write(tmp_path, content))
    assert find_pictures(annotations, tmp_path).missing == {1: "video1/1.jpg", 2: "video2/1.jpg"}
    content["images"][1]["file_name"] = "video2/2.jpg"
    annotations = read_annotations(write(tmp_path, content))
    assert find_pictures(annotations, tmp_path).paths[1] == tmp_path / "1.jpg"


def test_joints_keep_the_order_of_the_file_whatever_their_spelling(tmp_path: Path) -> None:
    content = coco_content()
    names = content["categories"][0]["keypoints"]
    content["categories"][0]["keypoints"] = [name.replace("_", " ").title() for name in reversed(names)]
    annotations = read_annotations(write(tmp_path, content))
    assert annotations.skeleton == COCO.select(list(reversed(COCO.joints)))
    np.testing.assert_array_equal(annotations.persons[0].keypoints[:, 0], np.arange(17))
    mapped = annotations.to_skeleton(COCO).persons[0]
    np.testing.assert_array_equal(mapped.keypoints[:, 0], np.arange(16, -1, -1))
    assert read_annotations(write(tmp_path, content), COCO).skeleton == annotations.skeleton


def test_a_skeleton_of_your_own(tmp_path: Path) -> None:
    arrow = Skeleton("arrow", ("tip", "tail"), ((0, 1),), (), (0.07, 0.07))
    content = coco_content(arrow)
    path = write(tmp_path, content)
    assert read_annotations(path, arrow).persons[1].keypoints.tolist() == [[10, 20], [11, 21]]
    assert read_annotations(path, arrow).skeleton == arrow
    content["categories"] = []
    assert len(read_annotations(write(tmp_path, content), arrow).persons) == 2


@pytest.mark.parametrize("first", [0, 1])
def test_joints_and_limbs_of_the_file_make_its_skeleton(tmp_path: Path, first: int) -> None:
    names = ["Left Wing", "Right Wing", "nose", "tail"]
    content = coco_content(Skeleton("bird", tuple("abcd"), (), (), (0.1,) * 4))
    limbs = [[first, 2 + first], [1 + first, 2 + first], [2 + first, 3 + first], [2 + first, 9]]
    content["categories"] = [{"id": 1, "name": "bird", "keypoints": names, "skeleton": limbs}]
    annotations = read_annotations(write(tmp_path, content))
    skeleton = annotations.skeleton
    assert skeleton.joints == ("left_wing", "right_wing", "nose", "tail")
    assert skeleton.limbs == ((0, 2), (1, 2), (2, 3))
    assert skeleton.pairs == ((0, 1),)
    assert skeleton.sigmas == (0.05, 0.05, 0.026, 0.05)  # the nose is COCO's
    assert {finding.check for finding in annotations.findings} == {"sigma taken", "limbs"}
    assert "3 joints of its own" in annotations.doubts[1]


def test_a_category_of_other_joints_is_left_out_and_counted(tmp_path: Path) -> None:
    content = coco_content()
    content["categories"].insert(0, {"id": 2, "name": "dog", "keypoints": ["nose", "tail"]})
    dogs = [content["annotations"][0] | {"id": i, "category_id": 2, "keypoints": [1] * 6} for i in (20, 21)]
    content["annotations"] += dogs
    annotations = read_annotations(write(tmp_path, content))
    assert [person.id for person in annotations.persons] == [7, 8]
    assert "2 annotations of 1 categories with other joints than 'person'" in annotations.dropped[0]
    bone = Skeleton("dog", ("nose", "tail"), (), (), (0.1, 0.1))
    assert [p.id for p in read_annotations(write(tmp_path, content), bone).persons] == [20, 21]


def test_ids_as_text_and_as_numbers_are_the_same(tmp_path: Path) -> None:
    content = coco_content()
    for annotation in content["annotations"]:
        annotation["category_id"], annotation["image_id"] = "1", str(annotation["image_id"])
    annotations = read_annotations(write(tmp_path, content))
    assert [person.image_id for person in annotations.persons] == [1, 2]
    assert annotations.find_image("2") == annotations.find_image(2.0) == 2
    assert annotations.find_image([2]) is annotations.find_image(None) is annotations.find_image(3) is None
    assert [finding.check for finding in annotations.findings] == ["ids as text"]
    assert annotations.dropped == []


def test_what_can_be_used_of_odd_entries_is_used(tmp_path: Path) -> None:
    """CVAT exports persons without keypoints, other tools without boxes or sizes, or nulls for no joint."""
    content = coco_content()
    first, second = content["annotations"]
    content["annotations"] = [
        {**first, "id": 1, "keypoints": []},
        {key: value for key, value in {**first, "id": 2}.items() if key != "keypoints"},
        {key: value for key, value in {**second, "id": 3}.items() if key != "bbox"},
        {**second, "id": 4, "keypoints": [None, None, 0, *second["keypoints"][3:]]},
        {**second, "id": 5, "area": "big"},
    ]
    del content["images"][1]["width"]
    annotations = read_annotations(write(tmp_path, content))
    assert annotations.dropped == []
    assert [int(person.visible.sum()) for person in annotations.persons] == [0, 0, 34, 32, 34]
    np.testing.assert_allclose(annotations.persons[2].box, [8.4, 18.4, 27.6, 37.6])
    assert annotations.persons[4].area == pytest.approx(0.53 * 30 * 40)
    assert annotations.images[2].width == 0
    assert {finding.check for finding in annotations.findings} == {"missing box", "area number"}


def test_a_skeleton_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, coco_content(AIC))
    assert read_annotations(path).skeleton is AIC
    with pytest.raises(InputError, match="not those of the skeleton 'crowdpose'"):
        read_annotations(path, CROWDPOSE)  # 14 joints as well: only the names tell


def test_a_file_is_matched_to_a_skeleton_as_annotations_are(tmp_path: Path) -> None:
    path = write(tmp_path, coco_content(AIC))
    own = read_annotations(path)
    assert annotations_in(path, None).skeleton is AIC
    for given in (path, own):
        matched = annotations_in(given, CROWDPOSE)
        assert matched.skeleton is CROWDPOSE
        left, tip = CROWDPOSE.index("left_wrist"), AIC.index("left_wrist")
        assert matched.persons[1].keypoints[left].tolist() == [10 + tip, 20 + tip]
    arrow = Skeleton("arrow", ("tip", "tail"), ((0, 1),), (), (0.05, 0.05))
    path = write(tmp_path, coco_content(arrow))
    assert annotations_in(path, arrow).persons[1].keypoints.tolist() == [[10, 20], [11, 21]]
    named = annotations_in(path, Skeleton("own", ("head", "foot"), (), (), (0.05, 0.05)))  # by place
    assert named.skeleton.joints == ("head", "foot")
    path.write_text("{")
    with pytest.raises(InputError, match="JSON"):
        annotations_in(path, arrow)


def test_area_falls_back_to_the_box(tmp_path: Path) -> None:
    content = coco_content()
    del content["annotations"][0]["area"]
    areas = [p.area for p in read_annotations(write(tmp_path, content)).persons]
    assert areas == pytest.approx([0.53 * 1200, 600])


def test_boxes_are_clipped_and_those_outside_give_no_crop(tmp_path: Path) -> None:
    content = coco_content()
    boxes = [[-5, -5, 20, 20], [90, 70, 30, 30], [5, 5, 0, 10], [100, 5, 10, 10], [20, 20, -4, 9]]
    boxes.append([float("nan"), 1, 2, 3])
    content["annotations"] = [content["annotations"][0] | {"bbox": box} for box in boxes]
    annotations = read_annotations(write(tmp_path, content))
    usable = annotations.labelled().persons
    assert [p.box.tolist() for p in usable] == [[0, 0, 15, 15], [90, 70, 100, 80]]
    assert usable[0].xywh.tolist() == [-5, -5, 20, 20]
    assert len(annotations.persons) == 6  # all are still there to be found
    (message,) = annotations.dropped
    assert "persons.json: annotation 7: its box [5, 5, 0, 10] has no area inside 1.jpg" in message
    assert "and 1 more" in message


def test_a_person_without_box_and_labelled_joints_is_no_loss(tmp_path):
    content = coco_content()
    content["annotations"].append({"id": 9, "image_id": 1, "category_id": 1, "bbox": [0, 0, 0, 0],
                                   "num_keypoints": 0, "keypoints": [0] * 51})  # fmt: skip
    found = read_annotations(write(tmp_path, content))
    assert found.dropped == []
    assert "annotation 9: its box [0, 0, 0, 0] has no area" in found.doubts[0]


def test_other_categories_are_left_out(tmp_path: Path) -> None:
    content = coco_content()
    content["categories"].append({"id": 2, "name": "dog"})
    content["annotations"].append({"id": 99, "image_id": 1, "category_id": 2, "bbox": [1, 1, 2, 2]})
    assert [p.id for p in read_annotations(write(tmp_path, content)).persons] == [7, 8]


def test_labelled_leaves_crowds_and_unlabelled_persons_out(tmp_path: Path) -> None:
    content = coco_content()
    content["annotations"] += [
        content["annotations"][0] | {"id": 9, "iscrowd": 1},
        content["annotations"][0] | {"id": 10, "keypoints": [0] * 51},
    ]
    annotations = read_annotations(write(tmp_path, content))
    assert [p.id for p in annotations.persons] == [7, 8, 9, 10]
    assert [p.id for p in annotations.labelled().persons] == [7, 8]


def test_to_skeleton_matches_joints_by_name(tmp_path: Path) -> None:
    coco = read_annotations(write(tmp_path, coco_content()))
    person = coco.to_skeleton(CROWDPOSE).persons[0]
    elbow = CROWDPOSE.index("right_elbow")
    np.testing.assert_array_equal(person.keypoints[elbow], [COCO.index("right_elbow")] * 2)
    assert person.visible.tolist() == [2] * 12 + [0, 0]
    assert person.keypoints[12:].tolist() == [[0, 0], [0, 0]]
    assert coco.to_skeleton(COCO) is coco
    with pytest.raises(InputError, match="no name in common"):
        coco.to_skeleton(Skeleton("dot", ("dot",), (), (), (0.1,)))


def _without(*keys: Any) -> Callable[[Content], None]:
    def change(content: Content) -> None:
        inner: Any = content
        for key in keys[:-1]:
            inner = inner[key]
        del inner[keys[-1]]

    return change


def _set_keypoints(values: Callable[[list[Any]], list[Any]]) -> Callable[[Content], None]:
    def change(content: Content) -> None:
        annotation = content["annotations"][1]
        annotation["keypoints"] = values(annotation["keypoints"])

    return change


def _unknown_image(content: Content) -> None:
    content["annotations"][0]["image_id"] = 12345


def _two_of_one_id(content: Content) -> None:
    content["images"][1]["id"] = 1


def _other_category(content: Content) -> None:
    content["annotations"][0]["category_id"] = 99


def _short_box(content: Content) -> None:
    content["annotations"][0]["bbox"] = [1, 2, 3]


@pytest.mark.parametrize(
    ("fault", "complaint"),
    [
        (_without("images"), "the key 'images' is missing"),
        (_without("annotations"), "the key 'annotations' is missing"),
        (_without("categories"), "which they are with --skeleton"),
    ],
)
def test_files_that_are_none(fault: Callable[[Content], None], complaint: str, tmp_path: Path) -> None:
    content = coco_content()
    fault(content)
    with pytest.raises(InputError, match=rf"persons\.json: .*{complaint}"):
        read_annotations(write(tmp_path, content))


@pytest.mark.parametrize(
    ("fault", "complaint"),
    [
        (_without("images", 1, "file_name"), "with id 2 of 'images' has no key 'file_name'"),
        (_without("images", 1, "id"), "number 1 of 'images' has no key 'id'"),
        (_without("annotations", 1, "image_id"), "annotation 8 has no key 'image_id'"),
        (_set_keypoints(lambda k: k[:-3]), "annotation 8 has 48 keypoint numbers; its 17 joints need 51"),
        (_set_keypoints(lambda k: [float("nan"), *k[1:]]), r"annotation 8 are not finite \(NaN\)"),
        (_set_keypoints(lambda k: [None, *k[1:]]), "annotation 8 are not finite"),
        (_set_keypoints(lambda k: ["left", *k[1:]]), "no number"),
        (_set_keypoints(lambda k: [*k[:-1], 3]), "annotation 8 has a visibility other than 0, 1, 2"),
        (_unknown_image, "annotation 7 is of image 12345; list that image"),
        (_two_of_one_id, "two images have the id 1"),
        (_short_box, "annotation 7 has a bbox that is not four numbers"),
        (_other_category, "annotation 7 is of category 99; list that category"),
    ],
)
def test_entries_that_cannot_be_used_are_named_and_the_rest_is_used(
    fault: Callable[[Content], None], complaint: str, tmp_path: Path
) -> None:
    content = coco_content()
    fault(content)
    annotations = read_annotations(write(tmp_path, content))
    assert re.search(rf"persons\.json: .*{complaint}", "\n".join(annotations.dropped))
    assert len(annotations.persons) == 1
    content["annotations"] = [e for e in content["annotations"] if e["id"] != annotations.persons[0].id]
    with pytest.raises(InputError, match=r"persons\.json: "):  # nothing is left
        read_annotations(write(tmp_path, content))


def test_many_faults_are_counted(tmp_path: Path) -> None:
    content = coco_content()
    content["annotations"] = [content["annotations"][0] | {"id": i, "keypoints": [1]} for i in range(9)]
    with pytest.raises(InputError, match="annotation 2 has 1 keypoint numbers; and 6 more; its 17 joints"):
        read_annotations(write(tmp_path, content))


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('{"images": [', "not a JSON file"),
        ("\x00\xff", "not a JSON file"),
        ("3", "neither"),
        ("", "not a JSON"),
    ],
)
def test_no_json(text: str, complaint: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(text, encoding="latin-1")
    with pytest.raises(InputError, match=rf"a\.json: {complaint}"):
        read_annotations(tmp_path / "a.json")
    with pytest.raises(InputError, match=r"b\.json: no such file"):
        read_annotations(tmp_path / "b.json")


def test_a_results_file_is_recognised(tmp_path: Path) -> None:
    path = write(tmp_path, [{"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.5}])
    with pytest.raises(InputError, match="--boxes"):
        read_annotations(path)


def test_a_pipe_or_a_device_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.json")
    for path in (tmp_path / "pipe.json", Path("/dev/zero"), tmp_path):
        with pytest.raises(InputError, match="not a file"):
            read_annotations(path)


def test_file_names_of_another_machine(tmp_path: Path) -> None:
    content = coco_content()
    content["images"] = [
        {"id": 1, "file_name": "C:\\data\\set\\1.jpg", "width": 9, "height": 9},
        {"id": 2, "file_name": "/home/them/set/2.jpg", "width": 9, "height": 9},
        {"id": 3, "file_name": "sub\\3.jpg", "width": 9, "height": 9},
        {"id": 4, "file_name": "x" * 300 + ".jpg", "width": 9, "height": 9},
        {"id": 5, "file_name": "a\x00b.jpg", "width": 9, "height": 9},
    ]
    annotations = read_annotations(write(tmp_path, content))
    (tmp_path / "sub").mkdir()
    for name in ("1.jpg", "2.jpg", "sub/3.jpg"):
        (tmp_path / name).touch()
    found = find_pictures(annotations, tmp_path)
    assert [found.paths[i] for i in (1, 2, 3)] == [
        tmp_path / name for name in ("1.jpg", "2.jpg", "sub/3.jpg")
    ]
    assert list(found.missing) == [4, 5]
    assert "3 file names are of another machine" in found.notes[0]
    assert list(find_pictures(annotations, tmp_path, persons_only=True).paths) == [1, 2]


# Official annotation files of every format are read whole.


@pytest.mark.parametrize(
    ("file", "skeleton", "images", "persons", "labelled"),
    [
        ("lspet14/annotations/lspet14_train.json", CROWDPOSE, 7682, 7682, 7682),
        ("lspet14/annotations/lspet14_val.json", CROWDPOSE, 977, 977, 977),
        ("coco_subset/annotations/person_keypoints_train2017.json", COCO, 103, 383, 282),
        ("coco_subset/annotations/person_keypoints_val2017.json", COCO, 76, 231, 195),
        ("formats/coco/test_coco.json", COCO, 4, 14, 12),
        (
            "formats/coco/person_keypoints_val2017_2213.json",
            COCO,
            538,
            2213,
            1354,
        ),  # images listed repeatedly
        ("formats/crowdpose/crowdpose_val.json", CROWDPOSE, 2000, 8527, 7962),
        ("formats/aic/test_aic.json", AIC, 3, 9, 9),
        ("formats/aic_native/keypoint_annotations_example.json", AIC, 1000, 2761, 2761),
        ("formats/ochuman/test_ochuman.json", COCO, 3, 5, 5),
    ],
)
def test_official_files(
    file: str, skeleton: Skeleton, images: int, persons: int, labelled: int, data_dir: Path
) -> None:
    annotations = read_annotations(data_dir / file)
    assert annotations.skeleton is skeleton
    assert annotations.dropped == []
    assert (len(annotations.images), len(annotations.persons)) == (images, persons)
    assert len(annotations.labelled().persons) == labelled


def test_crowd_index_and_area_of_crowdpose(data_dir: Path) -> None:
    annotations = read_annotations(data_dir / "formats/crowdpose/crowdpose_val.json")
    assert annotations.images[114203].crowd_index == 0.76
    first = annotations.persons[0]
    assert first.area == pytest.approx(0.53 * 129.44 * 271.82)
    assert first.keypoints[0].tolist() == [181, 164]


# AI Challenger's native format: flags, boxes, faults, and agreement with its COCO form.


def native_entry() -> Content:
    flags = [1, 2, 3] + [1] * 11
    keypoints = [v for j, flag in enumerate(flags) for v in (10 + j, 20 + j, flag)]
    return {
        "image_id": "abc",
        "keypoint_annotations": {"human1": keypoints},
        "human_annotations": {"human1": [1, 2, 31, 42]},
    }


def test_aic_native(tmp_path: Path) -> None:
    annotations = read_annotations(write(tmp_path, [native_entry()]))
    assert annotations.skeleton is AIC
    record = annotations.images["abc"]
    assert (record.file_name, record.width, record.height) == ("abc.jpg", 0, 0)
    (person,) = annotations.persons
    assert person.visible.tolist() == [2, 1, 0] + [2] * 11
    assert person.box.tolist() == [1, 2, 31, 42]
    assert person.area == pytest.approx(0.53 * 1200)
    np.testing.assert_array_equal(person.keypoints[13], [23, 33])


def _human(change: Callable[[list[Any]], list[Any]]) -> Callable[[Content], None]:
    def fault(entry: Content) -> None:
        entry["keypoint_annotations"]["human1"] = change(entry["keypoint_annotations"]["human1"])

    return fault


@pytest.mark.parametrize(
    ("fault", "complaint"),
    [
        (_without("human_annotations"), "human_annotations are no objects"),
        (_without("human_annotations", "human1"), "image abc, human1 has keypoints but no box"),
        (_human(lambda k: k[:-3]), "39 keypoint numbers"),
        (_human(lambda k: [float("nan"), *k[1:]]), "NaN"),
        (_human(lambda k: [*k[:-1], 7]), "a visibility other than 1, 2, 3"),
    ],
)
def test_faults_of_native_files(fault: Callable[[Content], None], complaint: str, tmp_path: Path) -> None:
    entry = native_entry()
    fault(entry)
    with pytest.raises(InputError, match=rf"persons\.json: .*{complaint}"):
        read_annotations(write(tmp_path, [entry]))
    with pytest.raises(InputError, match="skeleton is 'aic'"):
        read_annotations(write(tmp_path, [native_entry()]), COCO)


def test_both_forms_of_ai_challenger_agree(data_dir: Path) -> None:
    coco_form = read_annotations(data_dir / "formats/aic/test_aic.json")
    native = read_annotations(data_dir / "formats/aic_native/keypoint_annotations_example.json")
    compared = 0
    for person in coco_form.persons:
        name = Path(coco_form.images[person.image_id].file_name).stem
        for twin in native.persons:
            if twin.image_id == name and np.abs(twin.box - person.box).max() < 3:
                labelled = (person.visible > 0) & (twin.visible > 0)
                assert labelled.any()
                np.testing.assert_array_equal(person.keypoints[labelled], twin.keypoints[labelled])
                compared += 1
    assert compared >= 6
