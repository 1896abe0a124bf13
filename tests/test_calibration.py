"""Calibrated confidence: what heatmaps say of it, its file, and where a network finds it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from diffusionpose.calibration import ANSWERS, FEATURES, Calibration, calibration_file, joint_features
from diffusionpose.errors import InputError
from diffusionpose.geometry import Crop, HeatmapCodec
from diffusionpose.json_files import write_json
from diffusionpose.models.checkpoints import load_model, save_model
from diffusionpose.poses import ABSENT, HIDDEN, REGION, VISIBLE
from diffusionpose.runtime.estimator import PoseEstimator
from diffusionpose.runtime.networks import load_network, read_facts
from diffusionpose.skeletons import CROWDPOSE

J, F = CROWDPOSE.num_joints, len(FEATURES)
CODEC = HeatmapCodec((48, 64))
BOXES = np.array([[10, 20, 58, 84]], np.float32)
CROPS = Crop.from_boxes(BOXES, CODEC.input_size)
SIZES = np.array([[200.0, 150.0]])


def calibration(**constants: float) -> Calibration:
    """One that answers for every joint the same, whatever is seen, but is surer of higher maxima."""
    weights = np.zeros((len(ANSWERS), J, 1 + F))
    for name, value in constants.items():
        weights[ANSWERS.index(name), :, 0] = value
    weights[ANSWERS.index("right"), :, 1 + FEATURES.index("height")] = 1
    return Calibration(CROWDPOSE.joints, np.zeros(F), np.ones(F), weights, np.zeros(3), {"persons": 3})


def heatmaps(height: float = 0.8, at: tuple[float, float] = (6, 8)) -> np.ndarray:
    return height * CODEC.draw(np.full((1, J, 2), at, np.float32))


def confidence_of(fitted: Calibration, maps: np.ndarray, **options: object):
    y, _ = CODEC.decode(maps, "dark")
    keypoints = CROPS.heatmap_to_image(y, CODEC.size)
    return fitted.confidence(maps, keypoints, BOXES, SIZES, CROPS, CODEC, **options)[0]


def test_the_answers_are_what_the_weights_say() -> None:
    found = confidence_of(
        calibration(reach=np.log(2.0), absent=-9, hidden=1, visible=-1, similarity=2), heatmaps()
    )
    assert found.right == pytest.approx(0.8, abs=1e-3)  # the logistic function of a logit
    assert (found.visibility == HIDDEN).all()
    assert found.oks == pytest.approx(1 / (1 + np.exp(-2)))
    # a round peak: the 90 % region is a circle of 2 heatmap pixels, of CROPS.scale / w image pixels each
    radius = 2.0 * CROPS.scale[0, 0] / CODEC.size[0]
    assert np.sqrt(REGION * np.linalg.eigvalsh(found.covariances)) == pytest.approx(radius, rel=0.02)


def test_a_long_peak_has_a_long_region_and_the_same_area() -> None:
    across = (heatmaps(0.8, (4, 8)) + heatmaps(0.8, (6, 8)) + heatmaps(0.8, (8, 8))) / 2
    found, round_one = confidence_of(calibration(), across), confidence_of(calibration(), heatmaps())
    xx, yy = found.covariances[0, 0, 0], found.covariances[0, 1, 1]
    assert xx > 1.3 * yy
    assert np.linalg.det(found.covariances) == pytest.approx(np.linalg.det(round_one.covariances), rel=0.01)


def test_joints_without_presence_do_not_count_in_the_expected_oks() -> None:
    fitted = calibration(absent=-9)
    weights = fitted.weights.copy()
    weights[ANSWERS.index("absent"), 0, 0] = 9
    weights[ANSWERS.index("similarity"), :, 0] = [-9, *[9] * (J - 1)]
    found = confidence_of(replace(fitted, weights=weights), heatmaps())
    assert found.visibility[0] == ABSENT
    assert found.oks == pytest.approx(1, abs=1e-3)
    assert confidence_of(replace(fitted, weights=weights), heatmaps(), joints=[0]).oks < 0.01


def test_features_see_a_second_peak_the_edge_of_the_picture_and_a_box_that_is_cut() -> None:
    def features(maps: np.ndarray, boxes: np.ndarray = BOXES) -> dict[str, np.ndarray]:
        crops = Crop.from_boxes(boxes, CODEC.input_size)
        y, _ = CODEC.decode(maps, "dark")
        keypoints = crops.heatmap_to_image(y, CODEC.size)
        found, _ = joint_features(maps, keypoints, boxes, SIZES, crops, CODEC)
        return dict(zip(FEATURES, found[0, 0], strict=True))

    alone = features(heatmaps())
    assert features(np.maximum(heatmaps(), heatmaps(0.6, (2, 2))))["second"] > alone["second"] + 3
    outside = features(heatmaps(at=(1, 8)), BOXES - np.float32([30, 0, 30, 0]))
    assert outside["picture edge"] < 0 < alone["picture edge"]
    assert [alone[f"cut {side}"] for side in ("left", "right")] == [0, 0]
    assert features(heatmaps(), BOXES - np.float32([10, 0, 0, 0]))["cut left"] == 1


def test_a_file_gives_the_same_answers_to_four_digits(tmp_path: Path) -> None:
    generator, fitted = np.random.default_rng(0), calibration()
    fitted = replace(
        fitted, weights=generator.normal(size=fitted.weights.shape), mean=generator.normal(size=F)
    )
    write_json(tmp_path / "c.json", fitted.to_dict())
    again = Calibration.from_dict(json.loads((tmp_path / "c.json").read_text()), CROWDPOSE, "c.json")
    one, other = confidence_of(fitted, heatmaps()), confidence_of(again, heatmaps())
    assert other.right == pytest.approx(one.right, abs=1e-3)
    assert other.oks == pytest.approx(one.oks, abs=1e-3)
    assert again.about == {"persons": 3}


@pytest.mark.parametrize(
    "damage",
    [{"weights": [1.0]}, {"mean": None}, {"joints": ["nose"]}, {"deviation": [0.0] * F}, {"features": []}],
)
def test_a_damaged_file_is_named_with_the_cure(damage: dict[str, object]) -> None:
    with pytest.raises(InputError, match=r"c\.json: no calibration of this model .*diffusionpose calibrate"):
        Calibration.from_dict({**calibration().to_dict(), **damage}, CROWDPOSE, "c.json")


def test_onnxruntime_and_pytorch_say_the_same_of_the_bundled_model() -> None:
    from diffusionpose.bundled import PORTRAIT

    light, torch = PoseEstimator.from_pretrained(device="cpu"), PoseEstimator(load_model(), device="cpu")
    boxes = [[20, 20, 480, 590], [100, 0, 400, 300]]
    for one, other in zip(light(PORTRAIT, boxes), torch(PORTRAIT, boxes), strict=True):
        assert one.confidence is not None
        assert other.confidence is not None
        assert other.confidence.right == pytest.approx(one.confidence.right, abs=2e-3)
        assert (other.confidence.visibility == one.confidence.visibility).mean() > 0.9
        assert other.confidence.oks == pytest.approx(one.confidence.oks, abs=2e-3)
        assert other.confidence.covariances == pytest.approx(one.confidence.covariances, rel=0.02, abs=0.1)
    few = PoseEstimator(light.network, skeleton="crowdpose")
    places = [light.skeleton.joints.index(joint) for joint in few.skeleton.joints]
    whole, part = light(PORTRAIT, boxes)[0].confidence, few(PORTRAIT, boxes)[0].confidence
    assert part.right == pytest.approx(whole.right[places], abs=1e-5)


def test_weights_and_exported_files_carry_it(tiny_weights: Path, tmp_path: Path, picture: np.ndarray) -> None:
    from diffusionpose.models.export import metadata

    weights, copy = tmp_path / "tiny.safetensors", tmp_path / "copy.safetensors"
    weights.write_bytes(tiny_weights.read_bytes())
    assert PoseEstimator.from_pretrained(weights)(picture, [[10, 5, 60, 80]])[0].confidence is None
    write_json(calibration_file(weights), calibration(right=1).to_dict())
    model = load_model(weights)
    save_model(model, copy)
    (pose,) = PoseEstimator.from_pretrained(copy)(picture, [[10, 5, 60, 80]])
    assert pose.confidence is not None
    result = pose.to_coco_result(1)
    assert len(result["probabilities"]) == len(result["visibility"]) == len(result["covariances"]) == J
    facts = read_facts(tmp_path / "x.onnx", json.dumps(metadata(model, 1, False)))
    assert (facts.calibration.weights[0, :, 0] == 1).all()


def test_a_calibration_beside_the_weights_counts_more_than_the_one_inside(
    tiny_weights: Path, tmp_path: Path
) -> None:
    weights = tmp_path / "tiny.safetensors"
    model = load_model(tiny_weights)
    model.config["calibration"] = calibration(right=1).to_dict()
    save_model(model, weights)
    write_json(calibration_file(weights), calibration(right=2).to_dict())
    assert (load_network(weights).calibration.weights[0, :, 0] == 2).all()
    write_json(calibration_file(weights), {"joints": ["nose"]})
    with pytest.raises(InputError, match=r"tiny\.calibration\.json: no calibration of this model"):
        load_network(weights)


def test_visible_is_said_where_it_is_likelier_than_its_share() -> None:
    fitted = calibration(absent=-2, hidden=-3, visible=1)
    assert (confidence_of(fitted, heatmaps()).visibility == VISIBLE).all()
    rare = replace(fitted, priors=np.array([-2.0, -5.0, 2.0]))
    assert (confidence_of(rare, heatmaps()).visibility == HIDDEN).all()
