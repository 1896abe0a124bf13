"""Poses given to the estimator to start from."""

import numpy as np
import pytest
import torch

from diffusionpose import InputError, PoseEstimator, create_model
from diffusionpose.poses import Pose
from diffusionpose.runtime.estimator import Request
from diffusionpose.skeletons import CROWDPOSE

BOXES = np.array([[5, 5, 60, 80], [30, 10, 110, 85], [-20, -20, 40, 60]], np.float32)


@pytest.fixture(scope="module")
def estimator(lively) -> PoseEstimator:
    return PoseEstimator(lively(input_size=(48, 64)), device="cpu", batch_size=4)


def clicks(count: int = 3, given: float = 1.0) -> np.ndarray:
    generator = np.random.default_rng(0)
    points = BOXES[:count, None, :2] + generator.random((count, 14, 2)) * (
        BOXES[:count, None, 2:] - BOXES[:count, None, :2]
    )
    return np.concatenate([points, generator.random((count, 14, 1)) < given], axis=2).astype(np.float32)


def points(poses: list[Pose]) -> np.ndarray:
    return np.stack([pose.keypoints for pose in poses])


def test_a_start_moves_the_poses_and_one_without_joints_does_not(estimator, picture):
    without = points(estimator(picture, BOXES))
    assert np.abs(points(estimator(picture, BOXES, clicks())) - without).max() > 1
    assert np.allclose(points(estimator(picture, BOXES, clicks(given=0.0))), without, atol=1e-3)


def test_poses_arrays_and_lists_of_them_are_the_same_start(estimator, picture):
    array = clicks()
    poses = [Pose(CROWDPOSE, p[:, :2], p[:, 2], box, 1.0) for p, box in zip(array, BOXES, strict=True)]
    expected = points(estimator(picture, BOXES, array))
    for start in (poses, array.tolist(), array.reshape(3, -1).tolist()):
        assert np.array_equal(points(estimator(picture, BOXES, start)), expected)
    assert np.array_equal(points(estimator(picture, start=poses)), expected)  # with their boxes
    many = estimator([picture, picture], [BOXES, BOXES], [array, None])
    assert np.allclose(points(many[0]), expected, atol=1e-3)
    assert np.allclose(points(many[1]), points(estimator(picture, BOXES)), atol=1e-3)


def test_an_array_without_boxes_is_looked_for_around_its_given_joints(estimator, picture):
    array = clicks(1)
    array[0, 0] = [-5000, 0, 0]  # not given
    low, high = array[0, 1:, :2].min(axis=0), array[0, 1:, :2].max(axis=0)
    (pose,) = estimator(picture, start=array)
    assert np.allclose(pose.box, [*(low - 0.1 * (high - low)), *(high + 0.1 * (high - low))], atol=1e-3)


def test_persons_with_and_without_a_start_share_a_batch(estimator, picture):
    requests = [
        Request(picture, BOXES[:2], np.ones(2), start=clicks(2)),
        Request(picture, BOXES, np.ones(3)),
    ]
    (_, first), (_, second) = estimator.stream(requests)
    assert np.allclose(points(first), points(estimator(picture, BOXES[:2], clicks(2))), atol=1e-3)
    assert np.allclose(points(second), points(estimator(picture, BOXES)), atol=1e-3)


@pytest.mark.parametrize(
    ("start", "message"),
    [
        (clicks(2), "3 boxes, but a start for 2"),
        (clicks()[:, :13], r"13 joints a person, but the model has 14 \(crowdpose\)"),
        (["a", "b", "c"], "no list of poses or of x, y, score triplets"),
        (Pose(CROWDPOSE, clicks()[0, :, :2], clicks()[0, :, 2], BOXES[0], 1.0), "no list of poses"),
        (np.where(np.arange(3) == 2, -1, clicks()), "a score is negative"),
        (np.where(np.arange(3) == 0, np.nan, clicks()), "a keypoint is not finite"),
    ],
)
def test_what_is_no_start(estimator, picture, start, message):
    with pytest.raises(InputError, match=f"picture 0: .*{message}"):
        estimator(picture, BOXES, start)


def test_no_joint_no_box_and_no_list(estimator, picture):
    with pytest.raises(InputError, match="no joint of person 0 is given, and no box"):
        estimator(picture, start=clicks(1, given=0.0))
    with pytest.raises(InputError, match="2 pictures but start for 1"):
        estimator([picture, picture], start=[None])
    assert estimator(picture, start=[]) == []


def test_models_that_cannot_start_elsewhere_say_so(picture, tiny_onnx):
    heatmap_model = PoseEstimator(create_model("tiny", CROWDPOSE), device="cpu", detector="whole")
    with pytest.raises(InputError, match="start: tiny is no diffusion model"):
        heatmap_model(picture, BOXES, clicks())
    with pytest.raises(InputError, match=r"start: .*tiny\.onnx was exported to start from its own"):
        PoseEstimator.from_pretrained(tiny_onnx, device="cpu", detector="whole")(picture, BOXES, clicks())
    with pytest.raises(InputError, match="start: tiny is no"):  # also where nothing was checked beforehand
        list(heatmap_model.stream([Request(picture, BOXES, np.ones(3), start=clicks())]))


def test_the_mirrored_half_starts_from_the_mirrored_poses(lively, picture):
    """The flip test of the mirror image, mirrored back, is that of the picture."""
    from diffusionpose.geometry import Start
    from diffusionpose.runtime.estimator import ReverseProcess
    from diffusionpose.runtime.networks import TorchNetwork

    model = lively(input_size=(48, 64), unbiased=True)
    images = torch.randint(
        0, 256, (2, 3, 64, 48), generator=torch.Generator().manual_seed(0), dtype=torch.uint8
    )
    start = Start(torch.rand(2, 14, 2, generator=torch.Generator().manual_seed(1)) * 48, torch.ones(2, 14))
    both = start.with_mirrored(CROWDPOSE.flip_order, 48)
    mirrored = Start(both.keypoints[2:], both.scores[2:])
    network, order = TorchNetwork(model, "cpu"), list(CROWDPOSE.flip_order)
    straight = ReverseProcess(network, images)(start=start)[-1]
    back = ReverseProcess(network, images.flip(-1))(start=mirrored)[-1][:, order].flip(-1)
    other = ReverseProcess(network, images.flip(-1))(start=start)[-1][:, order].flip(-1)
    assert torch.allclose(straight, back, atol=1e-4)
    assert not torch.allclose(straight, other, atol=1e-2)
