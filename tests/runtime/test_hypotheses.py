"""Several poses of one person: alternatives, their weights, and joints that stay."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

from diffusionpose import InputError, PoseEstimator, create_model
from diffusionpose.bundled import DEFAULT_MODEL, PORTRAIT
from diffusionpose.geometry import HeatmapCodec, Start, draw_heatmaps
from diffusionpose.models.checkpoints import load_model
from diffusionpose.runtime.hypotheses import SAME, distinct, starts
from diffusionpose.runtime.networks import Network, TorchNetwork, load_network
from diffusionpose.skeletons import COCO, CROWDPOSE

BOXES = np.array([[5, 5, 60, 80], [30, 10, 110, 85], [-20, -20, 40, 60]], np.float32)
SIGMAS = np.array(CROWDPOSE.sigmas)


def numbers(poses: list) -> np.ndarray:
    return np.stack([np.column_stack([pose.keypoints, pose.scores]) for pose in poses])


@pytest.fixture(scope="module")
def network(lively) -> TorchNetwork:
    return TorchNetwork(lively(input_size=(48, 64)), "cpu")


def test_the_first_is_the_answer_and_weights_sum_to_one(network, picture):
    one, several = PoseEstimator(network), PoseEstimator(network, hypotheses=6)
    alone, found = one(picture, BOXES), several(picture, BOXES)
    assert np.array_equal(numbers(found), numbers(alone))
    assert [pose.score for pose in found] == [pose.score for pose in alone]
    assert all(pose.weight is None and not pose.alternatives for pose in alone)
    for pose in found:
        weights = [each.weight for each in pose.alternatives]
        assert pose.weight + sum(weights) == pytest.approx(1)
        assert weights == sorted(weights, reverse=True)
        assert 1 <= len(pose.alternatives) <= 5
        width, height = pose.box[2:] - pose.box[:2]
        for a, b in itertools.combinations([pose, *pose.alternatives], 2):
            squared = ((a.keypoints - b.keypoints) ** 2).sum(1)
            oks = np.exp(-squared / (2 * 0.53 * width * height * (2 * SIGMAS) ** 2)).mean()
            assert oks < SAME + 1e-4
        row = pose.to_coco_result(1)
        assert [each["weight"] for each in row["alternatives"]] == [round(weight, 4) for weight in weights]
        assert len(row["alternatives"][0]["keypoints"]) == 3 * 14
    assert "alternatives" not in alone[0].to_coco_result(1)


def test_both_engines_have_the_same_hypotheses_of_the_bundled_model():
    eager = TorchNetwork(load_model(DEFAULT_MODEL), "cpu")
    (a,), (b,) = (
        PoseEstimator(each, hypotheses=4)(PORTRAIT, [[-150, -150, 680, 1600]])
        for each in (eager, load_network(None, "cpu"))
    )
    assert len(a.alternatives) == len(b.alternatives)
    assert np.abs(numbers([a, *a.alternatives]) - numbers([b, *b.alternatives])).max() < 0.01
    assert a.weight == pytest.approx(b.weight, abs=1e-3)


def test_fixed_joints_stay_exactly_and_others_move(network, picture):
    estimator = PoseEstimator(network, hypotheses=3)
    before = estimator(picture, BOXES[:2])
    start = numbers(before)
    wrist, ankle = CROWDPOSE.index("left_wrist"), CROWDPOSE.index("right_ankle")
    start[:, :, 2] = 1
    start[:, [wrist, ankle], :2] = [[40.25, 30.5], [50, 60.125]]
    free = estimator(picture, BOXES[:2], start)
    fixed = estimator(picture, BOXES[:2], start, fixed=["left_wrist", "right_ankle"])
    for person, (held, loose) in enumerate(zip(fixed, free, strict=True)):
        for pose in (held, *held.alternatives):
            assert np.abs(pose.keypoints[[wrist, ankle]] - start[person, [wrist, ankle], :2]).max() < 1e-3
        assert np.array_equal(held.keypoints[wrist], start[person, wrist, :2])
        assert np.abs(loose.keypoints[wrist] - start[person, wrist, :2]).max() > 0.5
        others = np.setdiff1d(np.arange(14), [wrist, ankle])
        assert np.abs(held.keypoints[others] - start[person, others, :2]).max() > 0.5
    only = start.copy()
    only[:, np.setdiff1d(np.arange(14), [wrist]), 2] = 0
    (clicked, _) = estimator(picture, BOXES[:2], only, fixed=["given"])
    assert np.array_equal(clicked.keypoints[wrist], only[0, wrist, :2])
    assert not np.array_equal(clicked.keypoints, before[0].keypoints)


def test_later_steps_see_fixed_joints_where_they_are(network):
    """With two steps, what the second makes of the others depends on where the fixed joints were held."""
    images = np.random.default_rng(0).integers(0, 256, (1, 3, 64, 48), np.uint8)
    points = np.full((1, 14, 2), 20, np.float32)
    fixed = np.arange(14)[None] == 3
    loose = network.heatmaps(images, 2, Start(points, np.ones((1, 14), np.float32)))
    held = network.heatmaps(images, 2, Start(points, np.ones((1, 14), np.float32), fixed))
    assert np.array_equal(loose[0].numpy(), held[0].numpy())
    gaussian = network.codec.draw(network.codec.to_heatmap(points))[0, 3]
    for maps in held[1:]:
        assert np.allclose(maps[0, 3].numpy(), gaussian, atol=1e-6)
    others = np.arange(14) != 3
    assert np.array_equal(loose[1][0, others].numpy(), held[1][0, others].numpy())
    assert np.abs(loose[2][0, others].numpy() - held[2][0, others].numpy()).max() > 1e-4


def test_starts_go_to_second_peaks_and_to_the_other_side():
    codec = HeatmapCodec((48, 64), 1)
    generator = np.random.default_rng(0)
    pose, second = generator.uniform(8, 40, (2, 17, 2)).round().astype(np.float32)
    wrist = COCO.index("left_wrist")
    coarse = draw_heatmaps(pose[None], codec.size, codec.sigma)[0]
    second[wrist] = 47 - pose[wrist, 0], 63 - pose[wrist, 1]
    coarse[wrist] += 0.4 * draw_heatmaps(second[None], codec.size, codec.sigma)[0, wrist]
    found = list(itertools.islice(starts(coarse, pose, 30.0, COCO, codec), 8))
    (faint, stays), (_, same) = found[:2]
    assert np.flatnonzero(stays).tolist() == np.flatnonzero(same).tolist() == [wrist]
    assert np.abs(faint[wrist] - second[wrist]).max() <= 1
    assert np.array_equal(np.delete(faint, wrist, 0), np.delete(pose, wrist, 0))
    mirrored = pose[list(COCO.flip_order)]
    assert any(np.array_equal(each, mirrored) for each, _ in found)
    legs, held = found[2]
    assert {COCO.joints[j].split("_")[1] for j in np.flatnonzero(held)} == {"hip", "knee", "ankle"}
    assert np.array_equal(legs[held], mirrored[held])
    assert not found[-1][1].any()  # noise: no joint stays


def test_poses_that_are_alike_are_one():
    pose = np.random.default_rng(0).uniform(0, 100, (14, 2))
    far = pose + 40
    assert distinct(np.stack([pose, pose + 0.1, far, far - 0.1]), 5000.0, SIGMAS) == [0, 2]


@pytest.mark.parametrize("count", [0, -1, 1000])
def test_how_many_there_can_be(network, count):
    with pytest.raises(
        InputError, match=f"hypotheses: {count} must be a whole number from 1, the answer alone, to 64"
    ):
        PoseEstimator(network, hypotheses=count)


class OneGraph(Network):
    """As of a single exported file."""

    name, steps, skeleton, codec = "one.onnx", 1, CROWDPOSE, HeatmapCodec((48, 64))

    def heatmaps(self, images, steps=None, start=None):
        raise NotImplementedError


def test_what_has_one_answer_says_so(network):
    with pytest.raises(InputError, match="hypotheses: tiny is no diffusion model"):
        PoseEstimator(create_model("tiny", CROWDPOSE), device="cpu", hypotheses=2)
    with pytest.raises(InputError, match=r"one\.onnx holds its own start"):
        PoseEstimator(OneGraph(), hypotheses=2)
    for option in ({"rotation_test": True}, {"steps": 0}):
        with pytest.raises(InputError, match="hypotheses: 2 cannot be had with"):
            PoseEstimator(network, hypotheses=2, **option)


def test_joints_that_cannot_be_fixed(network, picture):
    estimator = PoseEstimator(network)
    (pose,) = estimator(picture, BOXES[:1])
    with pytest.raises(InputError, match="fixed: 'left_hand' is no list of joints, or no joint; give"):
        estimator(picture, start=[pose], fixed=["left_hand"])
    with pytest.raises(InputError, match="fixed: 'left_wrist' is no list"):
        estimator(picture, start=[pose], fixed="left_wrist")
    with pytest.raises(InputError, match="fixed: there is no start"):
        estimator(picture, BOXES[:1], fixed=["left_wrist"])
    points = pose.keypoints.copy()
    points[0] = -30, 5
    outside = replace(pose, keypoints=points, scores=np.ones(14, np.float32))
    with pytest.raises(InputError, match=r"picture 0: person 0: left_shoulder at \(-30, 5\) is outside"):
        estimator(picture, start=[outside], fixed=["left_shoulder"])
    assert len(estimator(picture, start=[outside], fixed=["right_hip"])) == 1
