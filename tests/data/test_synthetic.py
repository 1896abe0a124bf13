"""The written set is valid COCO, the same for the same seed, and its labels lie on the people."""

import json
from pathlib import Path

import numpy as np
import pytest

from diffusionpose.data.annotations import read_annotations
from diffusionpose.data.dataset import PersonDataset
from diffusionpose.data.synthetic import (
    FOREARM,
    SHIN,
    SHOULDER,
    SIDES,
    THIGH,
    UPPER_ARM,
    Figure,
    draw_picture,
    random_figure,
    turn,
    write_synthetic,
)
from diffusionpose.errors import InputError
from diffusionpose.runtime.images import read_image
from diffusionpose.skeletons import AIC, COCO, CROWDPOSE, Skeleton


@pytest.mark.parametrize("skeleton", [COCO, CROWDPOSE, AIC])
def test_the_set_is_read_back(skeleton: Skeleton, tmp_path: Path) -> None:
    images, path = write_synthetic(tmp_path, 8, seed=1, skeleton=skeleton)
    annotations = read_annotations(path)
    assert annotations.skeleton is skeleton
    assert annotations.dropped == []
    assert len(list(images.iterdir())) == len(annotations.images) == 8
    dataset = PersonDataset(annotations.labelled(), images, (96, 128))
    assert len(dataset) >= 8
    visible = np.stack([person.visible for person in dataset.persons])
    assert (visible == 2).mean() > 0.4
    assert (visible == 1).mean() > 0.05
    assert all(int(dataset[i]["broken"]) == 0 for i in range(len(dataset)))


def test_pycocotools_reads_it(tmp_path: Path) -> None:
    from pycocotools.coco import COCO as CocoFile
    from pycocotools.cocoeval import COCOeval

    _, path = write_synthetic(tmp_path, 6)
    truth = CocoFile(str(path))
    results = [a | {"score": 1.0} for a in json.loads(path.read_text())["annotations"]]
    evaluation = COCOeval(truth, truth.loadRes(results), "keypoints")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    assert evaluation.stats[0] == pytest.approx(1.0)


def test_the_same_seed_gives_the_same_files(tmp_path: Path) -> None:
    sets = {}
    for name, (count, seed) in {"a": (5, 3), "b": (3, 3), "c": (3, 4)}.items():
        images, path = write_synthetic(tmp_path / name, count, seed)
        people = json.loads(path.read_text())["annotations"]
        sets[name] = (
            [(images / f"{i:06d}.jpg").read_bytes() for i in (1, 2, 3)],
            [person for person in people if person["image_id"] <= 3],
        )
    assert sets["a"] == sets["b"]
    assert sets["b"][0][0] != sets["c"][0][0]


def test_one_figure_serves_every_skeleton() -> None:
    picture, people = draw_picture(0, 5, COCO, (320, 240))
    other, others = draw_picture(0, 5, CROWDPOSE, (320, 240))
    np.testing.assert_array_equal(picture, other)
    for person, twin in zip(people, others, strict=True):
        coco, crowdpose = (np.reshape(p["keypoints"], (-1, 3)) for p in (person, twin))
        knee = "left_knee"
        np.testing.assert_array_equal(coco[COCO.index(knee)], crowdpose[CROWDPOSE.index(knee)])


def test_labels_fit_the_people(tmp_path: Path) -> None:
    images, path = write_synthetic(tmp_path, 30, seed=2)
    content = json.loads(path.read_text())
    counts = np.zeros(4, int)
    for person in content["annotations"]:
        x, y, width, height = person["bbox"]
        triplets = np.reshape(person["keypoints"], (-1, 3))
        labelled = triplets[triplets[:, 2] > 0]
        assert person["num_keypoints"] == len(labelled)
        # joints lie inside limbs, and limbs inside the box
        assert (labelled[:, :2] >= [x - 1, y - 1]).all()
        assert (labelled[:, :2] <= [x + width + 1, y + height + 1]).all()
        assert 0 < person["area"] <= width * height
        assert 0 <= x < x + width <= 320
        assert 0 <= y < y + height <= 240
    for image in content["images"]:
        picture = read_image(images / image["file_name"])
        assert picture.shape == (240, 320, 3)
        assert picture.std() > 10
        counts[sum(a["image_id"] == image["id"] for a in content["annotations"])] += 1
    assert (counts[1:] >= 3).all()


def test_some_joints_are_hidden() -> None:
    hidden = seen = 0
    for number in range(60):
        _, people = draw_picture(7, number, COCO, (320, 240))
        for person in people:
            visible = np.reshape(person["keypoints"], (-1, 3))[:, 2]
            hidden, seen = hidden + (visible == 1).sum(), seen + (visible == 2).sum()
    assert 0.1 < hidden / (hidden + seen) < 0.5


def test_colours_do_not_tell_left_from_right() -> None:
    """Mean colour at seen left joints equals that at the right ones, over many people."""
    sides: dict[str, list[np.ndarray]] = {"left": [], "right": []}
    for number in range(80):
        picture, people = draw_picture(11, number, COCO, (320, 240), most_people=1)
        for person in people:
            triplets = np.reshape(person["keypoints"], (-1, 3))
            for part in ("elbow", "knee"):
                pair = [triplets[COCO.index(f"{side}_{part}")] for side in sides]
                if all(t[2] == 2 for t in pair):
                    for side, (x, y, _) in zip(sides, pair, strict=True):
                        sides[side].append(picture[round(y), round(x)].astype(float))
    left, right = np.stack(sides["left"]), np.stack(sides["right"])
    assert len(left) > 40
    # the same clothes: colours of a pair differ by shading, far less than people differ
    assert np.abs(left - right).mean() < 0.5 * np.abs(left - np.roll(right, 7, axis=0)).mean()


def test_other_sizes_and_numbers_of_people() -> None:
    picture, people = draw_picture(0, 1, COCO, (200, 260), most_people=1)
    assert picture.shape == (260, 200, 3)
    assert len(people) == 1
    assert any(len(draw_picture(0, n, COCO, (320, 240), most_people=5)[1]) > 3 for n in range(10))


def test_faults(tmp_path: Path) -> None:
    horse = Skeleton("horse", ("nose", "tail"), (), (), (0.1, 0.1))
    with pytest.raises(InputError, match="no joint 'tail'"):
        write_synthetic(tmp_path, 1, skeleton=horse)
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be written"):
        write_synthetic(tmp_path / "file", 1)


# The figure is a body: limbs keep their lengths, left mirrors right, every joint exists.


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
        assert (eyes[2] / 2 > centre[2]) == (figure.head[2] @ [0, 0.009, 0.059] > 0)
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
