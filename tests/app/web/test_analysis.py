"""What the page shows is what the estimator finds, and every step is a run with so many steps."""

import numpy as np
import pytest
import torch

from diffusionpose import PoseEstimator, create_model, load_model
from diffusionpose.app.web.handlers import MOST_PERSONS, Options, analyse
from diffusionpose.errors import InputError

ONES = np.ones(2, np.float32)


def model(name: str, **options: object) -> torch.nn.Module:
    torch.manual_seed(3)
    made = create_model(name, "crowdpose", input_size=(48, 64), **options).eval()
    for parameter in made.parameters():
        if parameter.ndim == 4:
            parameter.data.mul_(1.5)  # heatmaps that are not nearly empty
    return made


@pytest.mark.parametrize("flip", [True, False])
@pytest.mark.parametrize("steps", [None, 0, 3])
@pytest.mark.parametrize("unbiased", [True, False])
def test_the_answer_is_the_estimators(picture, persons, flip, steps, unbiased):
    tiny = model("diffusionpose_tiny", unbiased=unbiased)
    found = analyse(tiny, picture, persons, ONES, Options(steps, flip), batch=1)
    poses = PoseEstimator(tiny, device="cpu", steps=steps, flip=flip)(picture, persons)
    assert [len(person.steps) for person in found] == [2 if steps is None else steps + 1] * 2
    for person, pose in zip(found, poses, strict=True):
        assert np.abs(person.pose.keypoints - pose.keypoints).max() < 1e-3
        assert np.abs(person.pose.scores - pose.scores).max() < 1e-5
        assert person.pose.score == pytest.approx(pose.score, abs=1e-5)
        assert (person.pose.box == pose.box).all()


def test_the_first_step_is_the_coarse_pose_and_steps_differ(picture, persons):
    tiny = model("diffusionpose_tiny")
    found = analyse(tiny, picture, persons, ONES, Options(2, True))
    coarse = PoseEstimator(tiny, device="cpu", steps=0)(picture, persons)
    for person, pose in zip(found, coarse, strict=True):
        assert np.abs(person.steps[0].keypoints - pose.keypoints).max() < 1e-3
    assert np.abs(found[0].steps[0].keypoints - found[0].pose.keypoints).max() > 1


def test_heatmaps_have_their_maximum_where_the_joint_is(picture, persons):
    tiny = model("tiny")
    (person,) = analyse(tiny, picture, persons[:1], ONES[:1], Options(None, False, "argmax"))
    assert person.heatmaps.shape == (1, 14, 16, 12)
    height, width = person.heatmaps.shape[2:]
    at = person.heatmaps[0].reshape(14, -1).argmax(1)
    points = torch.tensor(np.stack([at % width, at // width], 1), dtype=torch.float32)
    there = person.crop.heatmap_to_image(points[None], (width, height))[0].numpy()
    sure = person.pose.scores > 0.01
    assert sure.any()
    peaks = person.heatmaps[0].reshape(14, -1).max(1)
    alone = (person.heatmaps[0].reshape(14, -1) == peaks[:, None]).sum(1) == 1
    assert (sure & alone).any()
    assert np.abs(there - person.pose.keypoints)[sure & alone].max() < 1e-3
    assert np.abs(peaks / 255 - person.pose.scores.clip(0, 1)).max() <= 0.5 / 255 + 1e-6


def test_an_onnx_file_has_one_step(picture, persons, tiny_onnx):
    onnx = load_model(tiny_onnx)
    found = analyse(onnx, picture, persons, ONES, Options(None, True))
    poses = PoseEstimator(onnx, device="cpu")(picture, persons)
    for person, pose in zip(found, poses, strict=True):
        assert len(person.steps) == 1
        assert np.abs(person.pose.keypoints - pose.keypoints).max() < 1e-3


@pytest.mark.parametrize(
    ("boxes", "options", "complaint"),
    [
        (np.zeros((0, 4)), Options(), "No person is marked"),
        (np.tile([0.0, 0, 9, 9], (MOST_PERSONS + 1, 1)), Options(), "at most 12"),
        (np.array([[0.0, 0, 9, 9], [200, 0, 210, 9]]), Options(), r"Box 2 \[200, 0, 210, 9\] is outside"),
        (np.array([[5.0, 5, 5, 9]]), Options(), "Box 1 .* no area"),
        (np.array([[0.0, 0, 9, 9]]), Options(steps=6), "steps: 6 is more than 5"),
        (np.array([[0.0, 0, 9, 9]]), Options(steps=-1), "steps: -1"),
    ],
)
def test_what_cannot_be_done_is_said(picture, boxes, options, complaint):
    scores = np.ones(len(boxes), np.float32)
    with pytest.raises(InputError, match=complaint):
        analyse(model("diffusionpose_tiny"), picture, boxes, scores, options)
