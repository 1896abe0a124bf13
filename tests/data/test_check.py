"""One fault put into a good file: the check that is meant for it finds it once, and no other speaks up."""

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from diffusionpose.data.annotations import read_annotations
from diffusionpose.data.check import CheckReport, SetToCheck, check_sets
from diffusionpose.errors import InputError
from diffusionpose.skeletons import COCO, CROWDPOSE, Skeleton

Content = dict[str, Any]


@pytest.fixture
def content(synthetic_set: tuple[Path, Path]) -> Content:
    return json.loads(synthetic_set[1].read_text())


@pytest.fixture
def check(tmp_path: Path) -> Callable[..., CheckReport]:
    """The report on some content, without pictures."""

    def call(content: Any, skeleton: Skeleton | None = None) -> CheckReport:
        path = tmp_path / "persons.json"
        path.write_text(json.dumps(content))
        return check_sets([SetToCheck(path)], skeleton)

    return call


def told(report: CheckReport) -> Counter[tuple[str, str]]:
    return Counter((finding.check, finding.severity) for finding in report.findings)


def first(content: Content) -> Any:
    return content["annotations"][0]


def set_key(key: str, value: Any, which: str = "annotations") -> Callable[[Content], None]:
    def change(content: Content) -> None:
        content[which][0][key] = value

    return change


def drop_key(key: str, which: str = "annotations") -> Callable[[Content], None]:
    def change(content: Content) -> None:
        del content[which][0][key]

    return change


def set_keypoint(*values: Any) -> Callable[[Content], None]:
    """Into the first labelled joint of the first person."""

    def change(content: Content) -> None:
        numbers = first(content)["keypoints"]
        joint = next(j for j in range(17) if numbers[3 * j + 2] > 0)
        numbers[3 * joint : 3 * joint + 3] = values

    return change


def short_keypoints(content: Content) -> None:
    first(content)["keypoints"].pop()


def far_keypoint(content: Content) -> None:
    """Beside a box made small in the corner that is furthest from the person."""
    box = first(content)["bbox"]
    left = 0 if box[0] + box[2] / 2 > 160 else 310
    first(content).update(bbox=[left, 0, 9, 9], area=50)


def reaching_box(content: Content) -> None:
    box = first(content)["bbox"]
    box[2] = 320 - box[0] + 5


def second_image_of_one_id(content: Content) -> None:
    content["images"].append(content["images"][-1] | {"file_name": "other.jpg"})


def image_again(content: Content) -> None:
    content["images"].append(content["images"][-1])


def file_again(content: Content) -> None:
    content["images"].append(content["images"][-1] | {"id": 99})


def other_joints(content: Content) -> None:
    content["categories"].append({"id": 2, "name": "dog", "keypoints": ["nose", "tail"]})


def same_annotation_id(content: Content) -> None:
    content["annotations"][1]["id"] = first(content)["id"]


def person_again(content: Content) -> None:
    content["annotations"].append(first(content) | {"id": 999})


def no_entry(content: Content) -> None:
    content["annotations"].append("person")


def no_joints(content: Content) -> None:
    first(content).update(keypoints=[0] * 51, num_keypoints=0)


def unlabelled_joint(content: Content) -> None:
    for person in content["annotations"]:
        person["keypoints"][3 * 4 : 3 * 5] = [0, 0, 0]
        person["num_keypoints"] = sum(v > 0 for v in person["keypoints"][2::3])


FAULTS = [
    (no_entry, "not an entry", "error"),
    (drop_key("bbox"), "missing box", "warning"),
    (drop_key("image_id"), "missing key", "error"),
    (set_key("id", [1]), "unusable id", "error"),
    (set_key("id", float("nan")), "unusable id", "error"),
    (set_key("image_id", None), "unusable id", "error"),
    (second_image_of_one_id, "image id twice", "error"),
    (other_joints, "categories", "warning"),
    (set_key("category_id", 7), "category id", "error"),
    (set_key("category_id", "1"), "ids as text", "warning"),
    (set_key("image_id", 4711), "unlisted image", "error"),
    (short_keypoints, "keypoint count", "error"),
    (set_key("keypoints", 5), "keypoint count", "error"),
    (set_keypoint(float("nan"), 5, 2), "keypoint numbers", "error"),
    (set_keypoint("left", 5, 2), "keypoint numbers", "error"),
    (set_keypoint(10**400, 5, 2), "keypoint numbers", "error"),
    (set_keypoint(1e300, 5, 2), "keypoint numbers", "error"),
    (set_key("bbox", [1, 2, 10**400, 5]), "box numbers", "error"),
    (set_key("bbox", [1, 2, float("inf"), 5]), "box numbers", "error"),
    (set_key("area", 10**400), "area number", "warning"),
    (set_key("area", 10**6), "area and box differ", "warning"),
    (set_key("num_keypoints", 99), "num_keypoints", "warning"),
    (person_again, "person annotated twice", "warning"),
    (set_keypoint(100, 100, 3), "visibility", "error"),
    (set_key("bbox", [1, 2, 3]), "box numbers", "error"),
    (set_key("area", "big"), "area number", "warning"),
    (same_annotation_id, "annotation id twice", "error"),
    (set_key("bbox", [10, 10, 0, 50]), "box without area", "error"),
    (set_key("bbox", [10, 10, -30, 50]), "box without area", "error"),
    (set_key("bbox", [900, 10, 30, 50]), "box without area", "error"),
    (set_key("bbox", [10, float("nan"), 30, 50]), "box without area", "error"),
    (set_key("width", "wide", "images"), "image size", "warning"),
    (set_key("area", -3), "negative area", "error"),
    (set_keypoint(0, 0, 2), "labelled at (0, 0)", "error"),
    (set_key("area", 0), "zero area", "warning"),
    (image_again, "image listed again", "warning"),
    (file_again, "file under two ids", "warning"),
    (reaching_box, "box outside picture", "warning"),
    (set_keypoint(-30, 100, 2), "keypoint outside picture", "warning"),
    (far_keypoint, "keypoint far from box", "warning"),
    (no_joints, "person without joints", "warning"),
    (unlabelled_joint, "joint never labelled", "warning"),
]


@pytest.mark.parametrize(("fault", "name", "severity"), FAULTS, ids=lambda v: v if isinstance(v, str) else "")
def test_each_fault_is_found_once(
    fault: Callable[[Content], None],
    name: str,
    severity: str,
    content: Content,
    check: Callable[..., CheckReport],
) -> None:
    before = told(check(content))
    assert {severity for _, severity in before} <= {"warning"}
    fault(content)
    report = check(content)
    after = told(report)
    assert after - before == {(name, severity): 1}
    assert not before - after
    (finding,) = (f for f in report.findings if f.check == name)
    assert finding.message
    assert finding.cure
    assert report.errors == (1 if severity == "error" else 0)


@pytest.mark.parametrize(("fault", "name", "severity"), FAULTS, ids=lambda v: v if isinstance(v, str) else "")
def test_the_other_entries_are_read(
    fault: Callable[[Content], None], name: str, severity: str, content: Content, tmp_path: Path
) -> None:
    """Training and evaluation go on, and say what is left out."""
    fault(content)
    (tmp_path / "persons.json").write_text(json.dumps(content))
    annotations = read_annotations(tmp_path / "persons.json")
    assert len(annotations.persons) >= len(content["annotations"]) - 1
    told = [finding.check for finding in annotations.findings]
    assert told in ([], [name])


@pytest.mark.parametrize("which", [("bbox", "keypoints"), ("bbox",), ("keypoints",)])
def test_normalised_numbers(
    which: tuple[str, ...], content: Content, check: Callable[..., CheckReport]
) -> None:
    sides = {"bbox": (320, 240), "keypoints": (320, 240, 1)}  # of the pictures
    for person in content["annotations"]:
        for key in which:
            person[key] = [v / sides[key][i % len(sides[key])] for i, v in enumerate(person[key])]
        del person["area"]
    assert told(check(content)) == {("normalised numbers", "error"): 1}


def test_boxes_given_as_corners(content: Content, check: Callable[..., CheckReport]) -> None:
    for person in content["annotations"]:
        x, y, width, height = person["bbox"]
        person["bbox"] = [x, y, x + width, y + height]
    assert told(check(content))[("boxes as corners", "error")] == 1


def test_joints_without_their_mirror_image(content: Content, check: Callable[..., CheckReport]) -> None:
    before = told(check(content))
    after = told(check(content, replace(COCO, pairs=COCO.pairs[1:])))
    assert after - before == {("joint without mirror", "warning"): 1}


def test_all_faults_of_a_file_are_told(content: Content, check: Callable[..., CheckReport]) -> None:
    people = content["annotations"]
    before = told(check(content))
    people[0]["keypoints"] = [1, 2]
    people[1]["keypoints"][0] = float("nan")
    people[2]["keypoints"] = people[2]["keypoints"][:-2]
    people[3]["bbox"] = [5, 5, 0, 0]
    after = told(check(content))
    expected = {
        ("keypoint count", "error"): 2,
        ("keypoint numbers", "error"): 1,
        ("box without area", "error"): 1,
    }
    assert after - before == expected


def test_findings_name_picture_and_person(content: Content, check: Callable[..., CheckReport]) -> None:
    set_keypoint(0, 0, 2)(content)
    (finding,) = (f for f in check(content).findings if f.severity == "error")
    joint = finding.joints[0]
    assert (finding.image, finding.annotation) == ("000001.jpg", 1)
    assert finding.message == f"annotation 1: {joint} labelled at exactly (0, 0)"
    short_keypoints(content)
    (finding,) = (f for f in check(content).findings if f.severity == "error")
    assert (finding.image, finding.annotation) == ("000001.jpg", 1)


def test_joints_of_another_skeleton(content: Content, check: Callable[..., CheckReport]) -> None:
    with pytest.raises(InputError, match="not those of the skeleton 'crowdpose'"):
        check(content, CROWDPOSE)
    own = Skeleton("own", tuple(f"j{j}" for j in range(17)), (), (), (0.1,) * 17)
    content["categories"][0]["keypoints"] = [f"k{j}" for j in range(17)]
    assert told(check(content, own)) == {("joints by place", "warning"): 1}
    assert ("sigma taken", "warning") in told(check(content))


def test_nobody_labelled(content: Content, check: Callable[..., CheckReport]) -> None:
    for person in content["annotations"]:
        person.update(keypoints=[0] * 51, num_keypoints=0)
    assert told(check(content)) == {("nobody labelled", "error"): 1}


def native(**changes: Any) -> list[Content]:
    people = [
        {
            "image_id": name,
            "keypoint_annotations": {"human1": [v for j in range(14) for v in (20 + j, 30 + 2 * j, 1)]},
            "human_annotations": {"human1": [10, 20, 50, 80]},
        }
        for name in ("a", "b")
    ]
    people[0] |= changes
    return people


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"image_id": "b"}, "image id twice"),
        ({"keypoint_annotations": 3}, "not an entry"),
        ({"human_annotations": {}}, "missing key"),
        ({"human_annotations": {"human1": [1, 2, 3]}}, "box numbers"),
        ({"human_annotations": {"human1": [10, 20, float("nan"), 80]}}, "box without area"),
        ({"human_annotations": {"human1": [50, 20, 10, 80]}}, "box without area"),
        ({"keypoint_annotations": {"human1": [1, 2, 1]}}, "keypoint count"),
        ({"keypoint_annotations": {"human1": ["x", *[1] * 41]}}, "keypoint numbers"),
        ({"keypoint_annotations": {"human1": [30, 40, 1] * 13 + [30, 40, 4]}}, "visibility"),
    ],
)
def test_faults_of_native_files(changes: Content, name: str, check: Callable[..., CheckReport]) -> None:
    assert told(check(native())) == {}
    report = check(native(**changes))
    assert told(report) == {(name, "error"): 1}
    assert report.counts[0].persons == (2 if name == "box without area" else 1)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('{"images": [', "not a JSON file"),
        ("3", "neither"),
        ("[]", "lists no persons"),
        ('{"images": [], "annotations": [], "categories": []}', "--skeleton"),
    ],
)
def test_nothing_to_check_is_one_message(text: str, complaint: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(InputError, match=rf"a\.json: .*{complaint}"):
        check_sets([SetToCheck(tmp_path / "a.json")])


def test_an_empty_list_of_annotations(content: Content, check: Callable[..., CheckReport]) -> None:
    content["annotations"] = []
    with pytest.raises(InputError, match="lists no persons"):
        check(content)


@pytest.mark.parametrize(
    ("file", "persons", "errors", "far"),
    [
        ("formats/crowdpose/crowdpose_val.json", 8527, 0, 45),
        ("formats/aic_native/keypoint_annotations_example.json", 2761, 0, 54),
        ("formats/coco/person_keypoints_val2017_2213.json", 2213, 0, 0),
        ("formats/ochuman/test_ochuman.json", 5, 0, 0),
    ],
)
def test_official_files_have_no_errors(
    file: str, persons: int, errors: int, far: int, data_dir: Path
) -> None:
    report = check_sets([SetToCheck(data_dir / file)])
    assert report.counts[0].persons == persons
    assert report.errors == errors
    assert sum(finding.check == "keypoint far from box" for finding in report.findings) == far
