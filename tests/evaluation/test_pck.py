import json

import numpy as np
import pytest

from diffusionpose.data.annotations import read_annotations
from diffusionpose.errors import InputError
from diffusionpose.evaluation.metrics import count_joints, limb_joints, pck, torso_lengths
from diffusionpose.skeletons import AIC, COCO, CROWDPOSE, Skeleton

L_SHOULDER, R_SHOULDER, L_HIP, R_HIP, HEAD = 0, 1, 6, 7, 12


@pytest.fixture
def person():
    """(1, 14, 2) keypoints, (1, 14) visible: diagonals of 100 (left shoulder - right hip) and 60."""
    truth = np.zeros((1, 14, 2))
    truth[0, R_HIP] = [60, 80]
    truth[0, R_SHOULDER] = [0, 10]
    truth[0, L_HIP] = [0, 70]
    return truth, np.full((1, 14), 2)


def test_torso_is_the_longer_labelled_diagonal(person):
    truth, visible = person
    assert torso_lengths(truth, visible, CROWDPOSE).tolist() == [100]
    visible[0, R_HIP] = 0
    assert torso_lengths(truth, visible, CROWDPOSE).tolist() == [60]
    visible[0, R_SHOULDER] = 0
    assert np.isnan(torso_lengths(truth, visible, CROWDPOSE)).all()


def test_joints_within_a_fifth_of_the_torso_are_right(person):
    truth, visible = person
    predicted = truth.copy()
    predicted[0, 2] += [12, 16]  # 20 px: at the threshold
    predicted[0, 3] += [20.01, 0]
    predicted[0, HEAD] += [300, 0]
    predicted[0, 4] = np.nan
    found = pck(predicted, truth, visible, CROWDPOSE)
    assert found["PCK"] == pytest.approx(11 / 14)
    assert found["PCK_limbs"] == pytest.approx(10 / 12)
    assert found["per_joint"]["left_elbow"] == 1
    assert found["per_joint"]["right_elbow"] == 0
    assert found["persons"] == 1
    assert pck(predicted, truth, visible, CROWDPOSE, threshold=0.21)["PCK"] == pytest.approx(12 / 14)
    json.dumps(found, allow_nan=False)


def test_unlabelled_joints_and_persons_without_a_torso_do_not_count(person):
    truth, visible = person
    truth, visible = np.repeat(truth, 3, 0), np.repeat(visible, 3, 0)
    visible[0, 2] = 0
    visible[1, [L_SHOULDER, L_HIP]] = 0  # neither diagonal
    truth[2] = 5.0  # a torso of length 0
    predicted = truth.copy()
    predicted[0, 2] += 500
    predicted[1] += 500
    counts = count_joints(predicted, truth, visible, CROWDPOSE)
    assert counts.persons == 1
    assert counts.counted.sum() == 13
    assert counts.value() == 1


def test_persons_are_pooled_by_joint(person):
    truth, visible = person
    truth, visible = np.repeat(truth, 2, 0), np.repeat(visible, 2, 0)
    visible[1] = 0
    visible[1, [L_SHOULDER, R_HIP]] = 1
    predicted = truth.copy()
    predicted[1] += 500
    assert pck(predicted, truth, visible, CROWDPOSE)["PCK"] == pytest.approx(14 / 16)


def test_nobody_gives_none():
    found = pck(np.zeros((0, 14, 2)), np.zeros((0, 14, 2)), np.zeros((0, 14)), CROWDPOSE)
    assert found["PCK"] is found["PCK_limbs"] is found["per_joint"]["head"] is None
    assert found["persons"] == 0


@pytest.mark.parametrize("skeleton", [COCO, CROWDPOSE, AIC])
def test_twelve_limb_joints_in_every_known_skeleton(skeleton):
    names = {skeleton.joints[index] for index in limb_joints(skeleton)}
    assert len(names) == 12
    assert not names & {"head", "neck", "head_top", "nose", "left_eye"}


def test_refuses_what_it_cannot_measure(person):
    truth, visible = person
    with pytest.raises(InputError, match="needs"):
        pck(truth[:, :13], truth, visible, CROWDPOSE)
    arrow = Skeleton("arrow", ("tip", "end"), (), (), (0.1, 0.1))
    with pytest.raises(InputError, match="left_shoulder"):
        pck(truth[:, :2], truth[:, :2], visible[:, :2], arrow)


def test_lspet14_val_by_a_loop(data_dir):
    """Against the definition written as a loop over persons and joints, on random predictions."""
    annotations = read_annotations(data_dir / "lspet14" / "annotations" / "lspet14_val.json")
    generator = np.random.default_rng(0)
    truth = np.stack([person.keypoints for person in annotations.persons]).astype(float)
    visible = np.stack([person.visible for person in annotations.persons])
    predicted = truth + generator.normal(0, 8, truth.shape)
    right = total = persons = 0
    for k, t, v in zip(predicted, truth, visible, strict=True):
        diagonals = [
            np.hypot(*(t[a] - t[b]))
            for a, b in ((L_SHOULDER, R_HIP), (R_SHOULDER, L_HIP))
            if v[a] > 0 and v[b] > 0
        ]
        if not diagonals:
            continue
        persons += 1
        for joint in range(12):
            if v[joint] > 0:
                total += 1
                right += np.hypot(*(k[joint] - t[joint])) <= 0.2 * max(diagonals)
    found = pck(predicted, truth, visible, annotations.skeleton)
    assert found["PCK_limbs"] == pytest.approx(right / total)
    assert found["persons"] == persons
    assert 0.2 < found["PCK_limbs"] < 0.9
