import threading
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from diffusionpose import InputError, PoseEstimator, create_model, load_model
from diffusionpose.geometry import HeatmapCodec
from diffusionpose.poses import Pose
from diffusionpose.runtime import estimator as estimator_module
from diffusionpose.runtime.estimator import Request
from diffusionpose.runtime.networks import Network
from diffusionpose.skeletons import CROWDPOSE

BOXES = np.array([[5, 5, 60, 80], [30, 10, 110, 85], [-20, -20, 40, 60]], np.float32)


@pytest.fixture(scope="module")
def estimator(tiny_weights: Path) -> PoseEstimator:
    return PoseEstimator.from_pretrained(tiny_weights, device="cpu", detector="whole", batch_size=4)


def equal(a: list[Pose], b: list[Pose], tolerance: float = 1e-3) -> bool:
    return len(a) == len(b) and all(
        np.allclose(x.keypoints, y.keypoints, atol=tolerance) and np.allclose(x.scores, y.scores, atol=1e-5)
        for x, y in zip(a, b, strict=True)
    )


def test_every_kind_of_picture_gives_the_same_poses(
    estimator: PoseEstimator, picture: np.ndarray, tmp_path: Path
) -> None:
    file = tmp_path / "picture.png"
    Image.fromarray(picture).save(file)
    poses = estimator(picture)
    assert len(poses) == 1
    assert poses[0].keypoints.shape == (14, 2)
    assert poses[0].box.tolist() == [0, 0, 120, 90]
    content = file.read_bytes()
    for same in (
        *(file, str(file), Image.fromarray(picture), np.asfortranarray(picture)),
        *(content, bytearray(content), memoryview(content)),
    ):
        assert equal(estimator(same), poses, 0)


def test_a_turned_or_grey_pil_image_is_read_as_its_file_would_be(
    estimator: PoseEstimator, picture: np.ndarray
) -> None:
    turned = Image.fromarray(picture).transpose(Image.Transpose.ROTATE_90)
    turned.getexif()[0x0112] = 6  # turn by 270 degrees to see it upright
    assert equal(estimator(turned), estimator(picture), 0)
    grey = Image.fromarray(picture).convert("L")
    assert equal(estimator(grey), estimator(grey.convert("RGB")), 0)


def test_answers_keep_their_type(estimator: PoseEstimator, picture: np.ndarray) -> None:
    assert estimator([]) == []
    assert estimator(picture, boxes=[]) == []
    assert estimator([picture, picture], boxes=[[], BOXES[:1]])[0] == []
    assert [len(poses) for poses in estimator([picture, picture], boxes=[BOXES, None])] == [3, 1]
    assert isinstance(estimator([picture])[0], list)


def test_a_batch_equals_its_items(estimator: PoseEstimator, tiny_weights: Path, picture: np.ndarray) -> None:
    pictures = [picture, picture[:, ::-1], picture[10:70, 20:90], picture]
    boxes = [BOXES, BOXES[:2], None, BOXES[[1, 2, 0, 1, 0]]]
    together = estimator(pictures, boxes)
    assert [len(poses) for poses in together] == [3, 2, 1, 5]
    for image, box, poses in zip(pictures, boxes, together, strict=True):
        assert equal(estimator(image, box), poses)
    one_by_one = PoseEstimator.from_pretrained(tiny_weights, device="cpu", detector="whole", batch_size=1)
    for a, b in zip(one_by_one(pictures, boxes), together, strict=True):
        assert equal(a, b)


def test_persons_of_several_pictures_fill_batches(
    estimator: PoseEstimator, picture: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []
    heatmaps = estimator.network.heatmaps

    def noted(images: np.ndarray, *arguments: object) -> object:
        sizes.append(len(images) // 2)  # with their mirror images
        return heatmaps(images, *arguments)

    monkeypatch.setattr(estimator.network, "heatmaps", noted)
    estimator([picture] * 5, [BOXES, BOXES, BOXES[:0], BOXES, BOXES[:1]])
    assert sizes == [4, 4, 2]


def test_few_large_pictures_wait_for_a_batch(
    estimator: PoseEstimator, picture: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(estimator_module, "HELD_BYTES", 2 * picture.nbytes)
    asked = 0

    def requests() -> object:
        nonlocal asked
        for index in range(9):
            asked += 1
            yield Request(picture, BOXES[:1], np.ones(1, np.float32), index)

    ahead = []
    for request, poses in estimator.stream(requests()):
        assert len(poses) == 1
        ahead.append(asked - request.source)
    assert ahead[0] == 3, "the third picture is one too many to hold"
    assert max(ahead) == 3
    assert len(ahead) == 9


def test_a_box_may_reach_over_the_edge(estimator: PoseEstimator, picture: np.ndarray) -> None:
    (pose,) = estimator(picture, BOXES[2:])
    assert pose.box.tolist() == [-20, -20, 40, 60]
    (clipped,) = estimator(picture, BOXES[2:].clip(0))
    assert not equal([clipped], [pose]), "the crop keeps the size of the whole box"


@pytest.mark.parametrize(
    ("boxes", "complaint"),
    [
        ([[200, 10, 300, 80]], "box 0 .* outside the 120x90 picture"),
        ([[5, 5, 60, 80], [10, 10, 10, 80]], "box 1 .* no area"),
        ([[60, 80, 5, 5]], "no area"),
        ([[5, 5, np.nan, 80]], "finite"),
        ([[5, 5, 60]], r"shape \(1, 3\)"),
        ([5, 5, 60, 80], r"shape \(4,\)"),
        ([["a", 5, 60, 80]], "not numbers"),
    ],
)
def test_a_bad_box_is_named(
    estimator: PoseEstimator, picture: np.ndarray, boxes: object, complaint: str
) -> None:
    with pytest.raises(InputError, match=complaint):
        estimator(picture, boxes)


@pytest.mark.parametrize("shape", [(90, 120), (90, 120, 4), (0, 120, 3)])
def test_an_array_that_is_no_rgb_picture_is_refused(estimator: PoseEstimator, shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="uint8 RGB"):
        estimator(np.zeros(shape, np.uint8))


def test_what_is_no_picture_is_refused(estimator: PoseEstimator, picture: np.ndarray) -> None:
    closed = Image.fromarray(picture)
    closed.close()
    for what in (None, 5, Image.new("RGB", (0, 5)), closed):
        with pytest.raises(InputError, match=r"is no picture|closed"):
            estimator(what, BOXES)


def test_a_float_array_is_refused(estimator: PoseEstimator, picture: np.ndarray) -> None:
    with pytest.raises(InputError, match="float64"):
        estimator(picture / 255.0)


def test_pictures_and_boxes_must_be_as_many(estimator: PoseEstimator, picture: np.ndarray) -> None:
    with pytest.raises(InputError, match="2 pictures but boxes for 1"):
        estimator([picture, picture], [BOXES])


def test_the_detector_is_asked_where_no_boxes_are_given(tiny_weights: Path, picture: np.ndarray) -> None:
    def two(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        assert image.shape == picture.shape
        return BOXES[:2], np.array([0.5, 0.25], np.float32)

    full, low = (
        PoseEstimator.from_pretrained(tiny_weights, device="cpu", detector=detector)(picture, boxes)
        for detector, boxes in ((None, BOXES[:2]), (two, None))
    )
    assert equal(full, low, 0)
    scores = [[pose.score for pose in poses] for poses in (full, low)]
    assert scores[1] == pytest.approx([scores[0][0] * 0.5, scores[0][1] * 0.25])


def test_the_score_is_the_mean_of_sure_joints(picture: np.ndarray) -> None:
    model = create_model("tiny", "crowdpose", input_size=(48, 64)).eval()
    with torch.no_grad():
        model.head.bias[:] = torch.linspace(0, 1.3, 14)  # heatmaps are nearly flat at 0, 0.1, .. 1.3
    pose = PoseEstimator(model, device="cpu", detector="whole")(picture)[0]
    sure = pose.scores[pose.scores > 0.2]
    assert 0 < len(sure) < 14
    assert pose.score == pytest.approx(sure.mean(), abs=1e-6)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"device": "nonsense"}, "device 'nonsense'"),
        ({"decode": "median"}, "argmax, quarter, dark"),
        ({"batch_size": 0}, "batch size"),
        ({"steps": -1}, "steps"),
        ({"steps": "x"}, "steps"),
        ({"steps": 2.5}, "steps"),
        ({"hypotheses": 2.5}, "hypotheses"),
        ({"batch_size": 2.5}, "batch size"),
    ],
)
def test_bad_options_are_refused(tiny_weights: Path, options: dict[str, object], complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        PoseEstimator.from_pretrained(tiny_weights, **{"device": "cpu", **options})


def test_a_model_without_steps_refuses_them(picture: np.ndarray) -> None:
    model = create_model("tiny", "crowdpose", input_size=(48, 64))
    with pytest.raises(InputError, match="no diffusion model"):
        PoseEstimator(model, device="cpu", detector="whole", steps=2)


def test_options_reach_the_model(tiny_weights: Path, picture: np.ndarray) -> None:
    answers = [
        PoseEstimator.from_pretrained(tiny_weights, device="cpu", detector="whole", **options)(picture)
        for options in ({}, {"steps": 0}, {"steps": 3}, {"flip": False}, {"decode": "argmax"})
    ]
    assert equal(
        PoseEstimator.from_pretrained(tiny_weights, device="cpu", detector="whole", steps=1)(picture),
        answers[0],
    )
    for other in answers[1:]:
        assert not equal(other, answers[0])


def test_the_model_is_left_in_evaluation_mode_and_without_gradients(tiny_weights: Path) -> None:
    model = load_model(tiny_weights).train()
    estimator = PoseEstimator(model, device="cpu", detector="whole")
    assert not model.training
    estimator(np.zeros((64, 48, 3), np.uint8))
    assert all(parameter.grad is None for parameter in model.parameters())


def test_one_estimator_serves_several_threads(estimator: PoseEstimator, picture: np.ndarray) -> None:
    pictures = [np.roll(picture, 7 * index, axis=1) for index in range(4)]
    expected = [estimator(image, BOXES) for image in pictures]
    answers: dict[int, list[Pose]] = {}

    def work(index: int) -> None:
        answers[index] = estimator(pictures[index], BOXES)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(equal(answers[index], expected[index]) for index in range(4))


def test_a_trace_ends_in_the_answer_and_has_every_step(tiny_weights: Path, picture: np.ndarray) -> None:
    options = {"device": "cpu", "detector": "whole", "batch_size": 2, "skeleton": "crowdpose"}
    estimator = PoseEstimator.from_pretrained(tiny_weights, steps=2, **options)
    coarse = PoseEstimator.from_pretrained(tiny_weights, steps=0, **options)
    traced = list(estimator.trace(Request(picture, BOXES, np.ones(len(BOXES), np.float32))))
    assert [maps.shape[:2] for _, maps in traced] == [(3, len(estimator.skeleton.joints))] * len(BOXES)
    assert equal([poses[-1] for poses, _ in traced], estimator(picture, BOXES))
    assert equal([poses[0] for poses, _ in traced], coarse(picture, BOXES))


class SpotNetwork(Network):
    """Sees a bright spot, surely where it is in the upper third of the crop."""

    name, skeleton, codec, steps = "spot", CROWDPOSE, HeatmapCodec((96, 128), 4, True), None

    def heatmaps(self, images, steps=None, start=None):
        grey = cv2.GaussianBlur(images.astype(np.float32).mean(axis=1).transpose(1, 2, 0), (0, 0), 3).reshape(
            128, 96, -1
        )
        rows, columns = np.unravel_index(grey.reshape(128 * 96, -1).argmax(axis=0), (128, 96))
        spot = np.stack([columns, rows], axis=1).astype(np.float32)
        maps = self.codec.draw(self.codec.to_heatmap(np.repeat(spot[:, None], 14, axis=1)))
        return [maps * np.where(rows < 128 / 3, 0.9, 0.3)[:, None, None, None].astype(np.float32)]


@pytest.mark.parametrize("spot", [(100, 20), (165, 80), (100, 140), (35, 80)])
def test_the_rotation_test_keeps_the_surest_look(spot: tuple[int, int]) -> None:
    image = np.zeros((160, 200, 3), np.uint8)
    cv2.circle(image, spot, 6, (255, 255, 255), -1)
    plain, looking = (PoseEstimator(SpotNetwork(), flip=False, rotation_test=test) for test in (False, True))
    boxes = np.array([[20, 20, 180, 140]], np.float32)
    (first,), (best,) = plain(image, boxes), looking(image, boxes)
    np.testing.assert_allclose(best.keypoints, np.tile(spot, (14, 1)), atol=3)
    assert best.scores.min() > 0.6
    assert (first.scores.max() > 0.6) == (spot == (100, 20))


def test_the_rotation_test_looks_again_at_unsure_persons_alone(
    tiny_weights: Path, picture: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    boxes = np.array([[5, 5, 60, 80], [30, 10, 110, 85]], np.float32)
    plain, looking = (
        PoseEstimator.from_pretrained(tiny_weights, rotation_test=test) for test in (False, True)
    )
    first = plain(picture, boxes)
    means = [pose.scores[list(pose.skeleton.limb_joints)].mean() for pose in first]
    monkeypatch.setattr(estimator_module, "UNSURE", float(np.mean(means)))
    monkeypatch.setattr(estimator_module, "BETTER", -1e9)  # any further look is taken
    again = [
        not np.allclose(a.keypoints, b.keypoints, atol=0.1)
        for a, b in zip(first, looking(picture, boxes), strict=True)
    ]
    assert again == [mean < np.mean(means) for mean in means]
    start = np.dstack([np.stack([pose.keypoints for pose in first]), np.ones((2, 14, 1))])
    for a, b in zip(plain(picture, boxes, start), looking(picture, boxes, start), strict=True):
        np.testing.assert_allclose(a.keypoints, b.keypoints, atol=1e-3)
