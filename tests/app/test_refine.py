"""``diffusionpose refine``: same list, same order, other keypoints; and what it makes of bad input."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffusionpose import PoseEstimator, create_model, save_model
from diffusionpose.bundled import DEFAULT_MODEL
from diffusionpose.poses import pose_score
from diffusionpose.skeletons import CROWDPOSE

BOX = [5, 5, 100, 80]


@pytest.fixture
def folder(photo: Path, picture: np.ndarray) -> Path:
    """``photo.png`` and, mirrored, ``000000000012.png``."""
    Image.fromarray(picture[:, ::-1].copy()).save(photo.with_name("000000000012.png"))
    return photo.parent


@pytest.fixture
def refined(run, folder: Path, tiny_weights: Path, tmp_path: Path):
    """``refine`` of entries: status, stderr, the entries written."""

    def call(entries: object, *words: object) -> tuple[int, str, list[dict]]:
        (tmp_path / "results.json").write_text(json.dumps(entries))
        weights = () if "--weights" in words else ("--weights", tiny_weights)
        status, _, err = run(
            "refine", tmp_path / "results.json", "--images", folder, "--output", tmp_path / "out",
            "--device", "cpu", *weights, *words,
        )  # fmt: skip
        file = tmp_path / "out" / "keypoints.json"
        return status, err, json.loads(file.read_text()) if file.exists() else []

    return call


def entry(image_id: int = 12, seed: int = 0, **more: object) -> dict:
    generator = np.random.default_rng(seed)
    triplets = np.column_stack([20 + 50 * generator.random((14, 2)), generator.random(14) < 0.8])
    return {
        "image_id": image_id,
        "category_id": 1,
        "keypoints": triplets.ravel().tolist(),
        "score": 0.5,
        **more,
    }


def test_the_same_list_with_the_estimators_poses(refined, folder, tiny_weights):
    entries = [
        entry(12, 0, box=BOX, id=77),
        entry(3, 1, bbox=[5, 5, 95, 75], file_name="photo.png"),
        entry(12, 2, category_id=4),
    ]
    status, err, rows = refined(entries)
    assert (status, err) == (0, "")
    assert [(row["image_id"], row.get("id"), row["category_id"]) for row in rows] == [
        (12, 77, 1),
        (3, None, 1),
        (12, None, 4),
    ]
    assert [row["file_name"] for row in rows] == ["000000000012.png", "photo.png", "000000000012.png"]
    assert [row["box"] for row in rows[:2]] == [BOX, BOX]
    estimator = PoseEstimator.from_pretrained(tiny_weights, device="cpu")
    for given, row in zip(entries, rows, strict=True):
        start = np.reshape(given["keypoints"], (1, 14, 3))
        (pose,) = estimator(folder / row["file_name"], [row["box"]], start)
        written = np.reshape(row["keypoints"], (14, 3))
        assert np.allclose(written[:, :2], pose.keypoints, atol=0.05)  # its box is rounded
        assert row["score"] == pytest.approx(pose_score(given["score"], pose.scores), abs=1e-3)


def test_its_own_output_can_be_refined_again(refined, tmp_path):
    _, _, rows = refined([entry(12, 0, box=BOX), entry(12, 1)])
    status, _, again = refined(rows, "--steps", 2)
    assert status == 0
    assert [(row["box"], row["file_name"]) for row in again] == [
        (row["box"], row["file_name"]) for row in rows
    ]


def test_all_people_of_openposes_files_are_refined(run, folder, tiny_weights, tmp_path):
    """Two in one picture, one in another: 25 joints, of which the model has most."""
    results = tmp_path / "openpose"
    results.mkdir()
    generator = np.random.default_rng(0)
    for name, count in (("000000000012", 2), ("photo", 1)):
        people = [
            {
                "pose_keypoints_2d": np.column_stack([20 + 50 * generator.random((25, 2)), [1] * 25])
                .ravel()
                .tolist()
            }
            for _ in range(count)
        ]
        (results / f"{name}_keypoints.json").write_text(json.dumps({"people": people}))
    status, _, _ = run(
        "refine", results, "--images", folder, "--output", tmp_path / "out", "--device", "cpu",
        "--weights", tiny_weights,
    )  # fmt: skip
    rows = json.loads((tmp_path / "out" / "keypoints.json").read_text())
    assert (status, [row["image_id"] for row in rows]) == (0, ["000000000012", "000000000012", "photo"])


def test_annotations_tell_the_names(refined, tmp_path):
    names = tmp_path / "names.json"
    names.write_text(json.dumps({"images": [{"id": 12, "file_name": "photo.png"}]}))
    status, err, rows = refined([entry(12), entry(13)], "--annotations", names)
    assert status == 1
    assert "entry 1 is of image 13, which 'images' does not list" in err
    assert [row["file_name"] for row in rows] == ["photo.png"]


def test_an_entry_may_name_its_picture_alone(refined):
    by_name = entry(file_name="photo.png", box=BOX)
    del by_name["image_id"]
    status, _, rows = refined([by_name, {**by_name, "image_id": None}, entry(12, box=BOX)])
    assert (status, [row["image_id"] for row in rows]) == (0, ["photo.png", "photo.png", 12])


def test_what_cannot_be_used_is_told_and_the_rest_is_done(refined, folder):
    (folder / "000000000005.jpg").write_bytes(b"Dear Sir or Madam, " * 9)
    entries = [
        entry(99),
        {"image_id": 12},
        entry(12, box=[500, 500, 600, 600]),
        entry(5, box=BOX),
        entry(99, seed=1),
        entry(12, box=BOX, id=1),
        {"image_id": 12, "bbox": BOX},
        entry(12, keypoints=[1, 2, 3] * 17),
    ]
    status, err, rows = refined(entries)
    assert status == 1
    assert [row["id"] for row in rows] == [1]
    for message in (
        "entry 1 has no 'bbox' and no 'keypoints'",
        "image 99: no such picture in",
        "(2 poses)",
        "entry 2: box 0 [500, 500, 600, 600] is outside the 120x90 picture",
        "000000000005.jpg: not a picture",
        "entry 6 has no 'keypoints'",
        "entry 7 has 17 joints",
        "6 problems, listed above; the rest is done",
    ):
        assert message in err


@pytest.mark.parametrize(
    ("entries", "words", "message"),
    [
        ([], (), "an empty list"),
        ([entry(98)], (), "none of the pictures is to be found; the first: image 98"),
        (
            [entry(keypoints=[1, 2, 3] * 17)],
            (),
            "entry 0 has 17 joints (x, y, score each), but the model has 14",
        ),
        ([entry()], ("--steps", 0), "--steps 0: would leave the poses as they are"),
        ([entry()], ("--steps", -1), "steps: -1 must be"),
    ],
)
def test_nothing_to_be_done(refined, entries, words, message):
    status, err, rows = refined(entries, *words)
    assert (status, rows) == (2 if "would leave" in message else 1, [])
    assert message in err
    assert err.count("\n") == 1


def test_models_that_cannot_refine(refined, tiny_onnx, tmp_path):
    save_model(create_model("tiny", CROWDPOSE), tmp_path / "heatmap.safetensors")
    for weights, message in (
        (tmp_path / "heatmap.safetensors", "is no diffusion model and cannot start from keypoints"),
        (tiny_onnx, "was exported to start from its own coarse heatmaps"),
    ):
        status, err, _ = refined([entry()], "--weights", weights)
        assert status == 1
        assert message in err


@pytest.mark.parametrize(
    ("joints", "words", "answered"),
    [(17, (), 17), (14, (), 14), (19, (), 19), (19, ("--skeleton", "coco"), None), (5, (), None)],
)
def test_a_model_of_a_union_refines_poses_of_its_parts(refined, joints, words, answered):
    triplets = np.column_stack([np.linspace(20, 70, 2 * joints).reshape(-1, 2), np.ones(joints)])
    given = {"image_id": 12, "keypoints": triplets.ravel().tolist(), "box": BOX}
    status, err, rows = refined([given], "--weights", DEFAULT_MODEL, "--no-flip", *words)
    if answered is None:
        assert (status, f"{joints} joints" in err) == (1, True)
    else:
        assert (status, len(rows[0]["keypoints"])) == (0, 3 * answered)


def test_the_input_is_not_overwritten(run, folder, tmp_path):
    (tmp_path / "keypoints.json").write_text(json.dumps([entry()]))
    status, _, err = run("refine", tmp_path / "keypoints.json", "--images", folder, "--output", tmp_path)
    assert status == 1
    assert "would be overwritten by the result" in err


def test_posefix_refines_and_does_nothing_else(refined, run, folder, tmp_path):
    weights = tmp_path / "posefix.safetensors"
    save_model(create_model("posefix_tiny", "crowdpose", input_size=(48, 64)), weights)
    entries = [entry(12, 0, box=BOX), entry(3, 1, box=BOX, file_name="photo.png")]
    status, err, rows = refined(entries, "--weights", weights)
    assert (status, err, len(rows)) == (0, "", 2)
    others = [refined([one], "--weights", weights)[2][0] for one in entries]
    for row, other in zip(rows, others, strict=True):
        assert np.allclose(row["keypoints"], other["keypoints"], atol=1e-2)
    status, _, err = run(
        "predict",
        folder / "photo.png",
        "--output",
        tmp_path / "poses",
        "--weights",
        weights,
        "--detector",
        "whole",
    )
    assert status == 1
    assert "posefix.safetensors refines poses: give it some by `diffusionpose refine`" in err


def test_fixed_joints_stay_and_what_cannot_is_told(refined):
    """Three entries; the fixed joint of one lies outside of its picture."""
    good, outside, without = entry(12, 0, box=BOX), entry(12, 1, box=BOX), entry(12, 2, box=BOX)
    for row, (x, y, score) in ((good, (30.125, 40.5, 1)), (outside, (-9, 5, 1)), (without, (0, 0, 0))):
        row["keypoints"][:3] = x, y, score
    status, err, rows = refined([good, outside, without], "--fix", "left_shoulder")
    assert status == 1
    assert "entry 1: left_shoulder at (-9, 5) is outside of the picture" in err
    assert len(rows) == 2
    assert rows[0]["keypoints"][:3] == [30.125, 40.5, 1.0]
    assert np.abs(np.array(rows[0]["keypoints"][3:]) - good["keypoints"][3:]).max() > 1
    status, err, rows = refined([good], "--fix", "given")
    given = np.array(good["keypoints"]).reshape(14, 3)
    kept = np.array(rows[0]["keypoints"]).reshape(14, 3)
    assert status == 0
    assert np.abs(kept - given)[given[:, 2] > 0].max() < 1e-3
    status, err, rows = refined([good], "--fix", "left_hand")
    assert status == 1
    assert "fixed: 'left_hand' is no list of joints, or no joint" in err
