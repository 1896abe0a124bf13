"""Skeletons: the three of the paper as officially defined, and one's own from YAML, faults named."""

import json

import pytest

from diffusionpose.errors import InputError
from diffusionpose.skeletons import AIC, COCO, CROWDPOSE, SKELETONS, Skeleton, get_skeleton

HORSE = """
name: horse
joints:
  nose: {sigma: 0.03}
  right_eye: {sigma: 0.02, mirror: left_eye}
  left_eye: {sigma: 0.02, mirror: right_eye}
limbs: [[nose, left_eye], [nose, right_eye]]
"""


def test_official_sigmas():
    assert [round(10 * s, 2) for s in COCO.sigmas] == [
        *(
            0.26,
            0.25,
            0.25,
            0.35,
            0.35,
            0.79,
            0.79,
            0.72,
            0.72,
            0.62,
            0.62,
            1.07,
            1.07,
            0.87,
            0.87,
            0.89,
            0.89,
        )
    ]
    assert [round(10 * s, 2) for s in CROWDPOSE.sigmas] == [
        *(0.79, 0.79, 0.72, 0.72, 0.62, 0.62, 1.07, 1.07, 0.87, 0.87, 0.89, 0.89, 0.79, 0.79)
    ]
    assert AIC.sigmas[AIC.index("right_hip")] == 0.03909642
    assert AIC.sigmas[AIC.index("neck")] == 0.01236173


@pytest.mark.parametrize("skeleton", SKELETONS.values(), ids=str)
def test_sides_mirror_each_other(skeleton):
    for left, right in skeleton.pairs:
        assert skeleton.joints[left].startswith("left_")
        assert skeleton.joints[right] == skeleton.joints[left].replace("left", "right")
    mirrored = [skeleton.flip_order[i] for i in skeleton.flip_order]
    assert mirrored == list(range(skeleton.num_joints))
    limbs = {frozenset(limb) for limb in skeleton.limbs}
    assert {frozenset(skeleton.flip_order[joint] for joint in limb) for limb in limbs} == limbs


def test_coco_limbs_are_those_of_the_annotation_file(data_dir):
    file = json.loads((data_dir / "coco_subset/annotations/person_keypoints_val2017.json").read_text())
    category = file["categories"][0]
    assert list(COCO.joints) == category["keypoints"]
    official = {frozenset((a - 1, b - 1)) for a, b in category["skeleton"]}
    assert {frozenset(limb) for limb in COCO.limbs} == official


def test_upper_body_ends_above_the_hips():
    assert {COCO.joints[i] for i in COCO.upper_body}.isdisjoint(COCO.joints[11:])
    assert len(COCO.upper_body) == 11


def test_dict_and_back():
    assert Skeleton.from_dict(json.loads(json.dumps(AIC.to_dict()))) == AIC


def test_your_own_from_yaml(tmp_path):
    file = tmp_path / "horse.yaml"
    file.write_text(HORSE)
    horse = get_skeleton(file)
    assert horse.joints == ("nose", "right_eye", "left_eye")
    assert horse.pairs == ((2, 1),)
    assert horse.limbs == ((0, 2), (0, 1))
    assert horse.flip_order == (0, 2, 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("[nose, left_eye]", "[nose, tail]"), "limb .*'tail'.* two names of its joints"),
        (("[nose, left_eye]", "[nose]"), "must be a list of two"),
        (("mirror: right_eye", "mirror: nose"), "not the other way round"),
        (("mirror: left_eye", "mirror: ear"), "mirrors 'ear', which is not"),
        (("{sigma: 0.03}", "{}"), "joint 'nose' has no sigma"),
        (("sigma: 0.03", "sigma: -1"), "above 0"),
        (("nose: {sigma", "nose: [sigma"), "not valid YAML"),
        (("joints:", "points:"), "needs 'joints'"),
    ],
)
def test_faults_in_a_yaml_file_name_the_file_and_the_cure(tmp_path, change, message):
    assert change[0] in HORSE
    file = tmp_path / "horse.yaml"
    file.write_text(HORSE.replace(*change, 1))
    with pytest.raises(InputError, match=message) as caught:
        Skeleton.from_yaml(file)
    assert "horse.yaml" in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"joints": ("a", "a", "b")}, "each listed once"),
        ({"sigmas": (0.1, 0.1)}, "3 joints but 2 sigmas"),
        ({"limbs": ((0, 3),)}, "limb \\(0, 3\\)"),
        ({"pairs": ((0, 1), (1, 2))}, "two left-right pairs"),
    ],
)
def test_a_skeleton_checks_itself(fields, message):
    good = {"name": "x", "joints": ("a", "b", "c"), "limbs": (), "pairs": (), "sigmas": (0.1, 0.1, 0.1)}
    with pytest.raises(InputError, match=message):
        Skeleton(**{**good, **fields})


def test_unknown_name_and_missing_file(tmp_path):
    with pytest.raises(InputError, match="coco, crowdpose, aic or a YAML file"):
        get_skeleton("dog")
    with pytest.raises(InputError, match=r"none.yaml: cannot be read"):
        get_skeleton(tmp_path / "none.yaml")
    with pytest.raises(InputError, match="no joint 'tail'"):
        COCO.index("tail")
