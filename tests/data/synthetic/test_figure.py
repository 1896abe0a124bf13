"""The figure is a body: limbs keep their lengths, left mirrors right, every joint exists."""

import numpy as np
import pytest

from diffusionpose.data.synthetic.people import (
    FOREARM,
    SHIN,
    SHOULDER,
    SIDES,
    THIGH,
    UPPER_ARM,
    Figure,
    random_figure,
    turn,
)
from diffusionpose.skeletons import AIC, COCO, CROWDPOSE


@pytest.fixture(scope="module")
def figures() -> list[Figure]:
    return [random_figure(np.random.default_rng(seed)) for seed in range(300)]


def test_every_joint_of_the_three_skeletons_exists(figures: list[Figure]) -> None:
    joints = {*COCO.joints, *CROWDPOSE.joints, *AIC.joints}
    assert all(joints <= figure.points.keys() for figure in figures)


def test_limbs_keep_their_lengths(figures: list[Figure]) -> None:
    lengths = {("shoulder", "elbow"): UPPER_ARM, ("elbow", "wrist"): FOREARM}
    lengths |= {("hip", "knee"): THIGH, ("knee", "ankle"): SHIN}
    for figure in figures:
        for side in SIDES:
            for (a, b), length in lengths.items():
                limb = figure.points[f"{side}_{a}"] - figure.points[f"{side}_{b}"]
                assert np.linalg.norm(limb) == pytest.approx(length)
        across = figure.points["left_shoulder"] - figure.points["right_shoulder"]
        assert np.linalg.norm(across) == pytest.approx(2 * SHOULDER)


def test_a_person_who_faces_the_camera_has_its_left_on_the_right_of_the_picture(
    figures: list[Figure],
) -> None:
    facing = 0
    for figure in figures:
        left, right = figure.points["left_shoulder"], figure.points["right_shoulder"]
        upright = figure.torso[1, 1] > 0.8
        if upright and abs(figure.torso[2, 2]) > 0.5:
            facing += 1
            assert (left[0] > right[0]) == (figure.torso[2, 2] > 0)
        eyes, centre = figure.points["left_eye"] + figure.points["right_eye"], figure.points["head_centre"]
        assert (eyes[2] / 2 > centre[2]) == (figure.head[2] @ [0, 0.12 * 0.078, 0.91 * 0.065] > 0)
    assert facing > 100


def test_knees_and_elbows_bend_as_in_people(figures: list[Figure]) -> None:
    for figure in figures:
        for side in SIDES:
            hip, knee, ankle, toe = (figure.points[f"{side}_{n}"] for n in ("hip", "knee", "ankle", "toe"))
            thigh, shin, foot = knee - hip, ankle - knee, toe - ankle
            bend = np.degrees(np.arccos(np.clip(thigh @ shin / (THIGH * SHIN), -1, 1)))
            assert bend <= 150
            # the lower leg folds backwards, away from where the foot points
            if bend > 20:
                assert (shin - thigh) @ foot < 0.5 * np.linalg.norm(shin - thigh) * np.linalg.norm(foot)


def test_poses_and_views_vary(figures: list[Figure]) -> None:
    upright = [figure.points["neck"][1] > 0.15 for figure in figures]
    assert 0.6 < np.mean(upright) < 0.95
    assert 0.35 < np.mean([figure.torso[2, 2] > 0 for figure in figures]) < 0.65
    wrists = np.stack([figure.points["left_wrist"] - figure.points["left_shoulder"] for figure in figures])
    assert wrists.std(axis=0).min() > 0.08


@pytest.mark.parametrize("axis", ["x", "y", "z"])
def test_turns_are_rotations(axis: str) -> None:
    rotation = turn(axis, 33)
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(rotation) == pytest.approx(1)
    np.testing.assert_allclose(turn(axis, -33) @ rotation, np.eye(3), atol=1e-12)
