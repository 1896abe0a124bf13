import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from diffusionpose import PoseEstimator
from diffusionpose.runtime import drawing
from diffusionpose.runtime.boxes import Boxes
from diffusionpose.runtime.people import PersonDetector

Run = Callable[..., tuple[int, str, str]]
Predicted = Callable[..., tuple[int, str, list[dict]]]


def test_one_picture_gives_a_drawing_and_a_result(
    run: Run, tiny_weights: Path, photo: Path, tmp_path: Path, picture: np.ndarray
) -> None:
    words = ("--weights", tiny_weights, "--detector", "whole")
    status, out, err = run("predict", photo, "--output", tmp_path / "new" / "out", *words)
    assert (status, err) == (0, "")
    assert "1 of 1 picture, 1 pose" in out
    assert "keypoints.json" in out
    folder = tmp_path / "new" / "out"
    assert sorted(path.name for path in folder.glob("[!.]*")) == ["keypoints.json", "photo.png"]
    assert cv2.imread(str(folder / "photo.png")).shape == picture.shape
    (row,) = json.loads((folder / "keypoints.json").read_text())
    assert set(row) == {
        "image_id",
        "category_id",
        "keypoints",
        "score",
        "box",
        "joints",
        "file_name",
        "drawn",
    }
    assert (row["image_id"], row["category_id"], row["file_name"]) == (1, 1, "photo.png")
    assert row["box"] == [0, 0, 120, 90]
    assert row["joints"][-2:] == ["head", "neck"]
    pose = PoseEstimator.from_pretrained(tiny_weights, device="cpu", detector="whole")(photo)[0]
    keypoints = np.reshape(row["keypoints"], (14, 3))
    assert np.allclose(keypoints[:, :2], pose.keypoints, atol=2e-3)
    assert np.allclose(keypoints[:, 2], pose.scores, atol=2e-3)


def test_poses_are_drawn_where_they_are(
    predicted: Predicted, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, picture: np.ndarray
) -> None:
    predicted(photo)
    plain = cv2.imread(str(tmp_path / "out" / "photo.png"))[:, :, ::-1]
    assert (plain == picture).all(), "random weights are not sure of any joint"
    monkeypatch.setattr(drawing.draw_poses, "__defaults__", (-1.0,))
    predicted(photo)
    drawn = cv2.imread(str(tmp_path / "out" / "photo.png"))[:, :, ::-1]
    assert (drawn != picture).any()


def test_boxes_by_number_carry_their_number_and_score(
    predicted: Predicted, photo: Path, tmp_path: Path, picture: np.ndarray
) -> None:
    named = photo.with_name("000000000785.png")
    photo.rename(named)
    Image.fromarray(picture).save(photo.with_name("000000000786.png"))
    detections = [
        {"image_id": 785, "category_id": 1, "bbox": [10, 10, 50, 60], "score": score} for score in (0.9, 0.1)
    ]
    (tmp_path / "boxes.json").write_text(json.dumps(detections))
    status, err, rows = predicted(photo.parent, "--boxes", tmp_path / "boxes.json")
    assert status == 0
    assert "no boxes for 1 of 2 pictures" in err
    assert "000000000786.png" in err
    assert [row["image_id"] for row in rows] == [785, 785]
    assert [row["box"] for row in rows] == [[10, 10, 60, 70]] * 2
    assert (tmp_path / "out" / "000000000786.png").exists()


def test_options_change_the_poses(predicted: Predicted, photo: Path) -> None:
    plain = predicted(photo)[2]
    assert predicted(photo, "--steps", 1, "--flip", "--batch-size", 1)[2] == plain
    for options in (["--steps", 0], ["--no-flip"], ["--decode", "argmax"]):
        assert predicted(photo, *options)[2][0]["keypoints"] != plain[0]["keypoints"]


def test_hypotheses_are_in_the_json_beside_the_same_pose(predicted: Predicted, photo: Path) -> None:
    plain, several = (predicted(photo, "--hypotheses", count)[2][0] for count in (1, 4))
    assert "alternatives" not in plain
    assert several["keypoints"] == plain["keypoints"]
    assert 1 <= len(several["alternatives"]) <= 3
    total = several["weight"] + sum(other["weight"] for other in several["alternatives"])
    assert total == pytest.approx(1, abs=1e-3)
    status, err, _ = predicted(photo, "--hypotheses", 0)
    assert status == 1
    assert "hypotheses: 0 must be a whole number from 1, the answer alone, to 64" in err


def test_pictures_in_a_folder_are_all_done_in_batches(
    predicted: Predicted, photo: Path, picture: np.ndarray, tmp_path: Path
) -> None:
    for index in range(11):
        Image.fromarray(np.roll(picture, 9 * index, axis=1)).save(photo.with_name(f"{index:02}.jpg"))
    boxes = {f"{index:02}.jpg": [[0, 0, 60 + index, 80]] * (index % 4) for index in range(11)}
    (tmp_path / "boxes.json").write_text(json.dumps(boxes))
    together = predicted(photo.parent, "--boxes", tmp_path / "boxes.json", "--batch-size", 4)[2]
    assert len(together) == sum(index % 4 for index in range(11))
    for row in together:
        alone = predicted(photo.with_name(row["file_name"]), "--boxes", tmp_path / "boxes.json")[2][0]
        assert np.allclose(alone["keypoints"], row["keypoints"], atol=2e-3)
    assert len(list((tmp_path / "out").glob("*.png"))) == 12


def test_the_program_itself_reports_and_exits(photo: Path, light_weights: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "diffusionpose.app.cli", "predict", str(photo), str(tmp_path / "no.jpg")]
    command += ["--output", str(tmp_path / "out"), "--weights", str(light_weights), "--detector", "whole"]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr
    assert "Warning" not in ended.stderr
    assert f"diffusionpose: {tmp_path / 'no.jpg'}: no such file" in ended.stderr
    assert len(json.loads((tmp_path / "out" / "keypoints.json").read_text())) == 1


def test_real_pictures_with_published_boxes(predicted: Predicted, data_dir: Path) -> None:
    folder = data_dir / "formats" / "coco"
    status, _, rows = predicted(folder, "--boxes", folder / "test_coco_det_AP_H_56.json", "--no-flip")
    assert status == 0
    assert len(rows) == 118
    assert {row["image_id"] for row in rows} == {785, 40083, 196141, 197388}
    status, _, rows = predicted(folder, "--boxes", folder / "test_coco.json", "--no-flip")
    assert status == 0
    assert len(rows) == 14


def test_nobody_in_the_picture(run: Run, tiny_weights: Path, tmp_path: Path) -> None:
    Image.fromarray(np.full((120, 160, 3), (90, 140, 230), np.uint8)).save(tmp_path / "sky.png")
    words = ("--weights", tiny_weights, "--output", tmp_path / "out")
    status, out, err = run("predict", tmp_path / "sky.png", *words)
    assert (status, json.loads((tmp_path / "out" / "keypoints.json").read_text())) == (0, [])
    assert "no person found in 1 of 1 pictures" in err
    assert "1 of 1 picture, 0 poses" in out


def test_jpeg_drawings_and_pictures_too_wide(predicted: Predicted, photo: Path, tmp_path: Path) -> None:
    Image.new("RGB", (70_000, 2)).save(photo.with_name("wide.png"))
    status, err, rows = predicted(photo.parent, "--format", "jpg")
    assert status == 1
    assert "wide.png: a side of more than 65500 pixels" in err
    assert [row["drawn"] for row in rows] == ["photo.jpg"]
    assert cv2.imread(str(tmp_path / "out" / "photo.jpg")).shape == (90, 120, 3)


def test_the_joints_that_are_asked_for(run: Run, predicted: Predicted, photo: Path, tmp_path: Path) -> None:
    status, err, _ = predicted(photo, "--skeleton", "coco")
    assert status == 1
    assert "has no nose, left_eye" in err


class TwoPersons(PersonDetector):
    """Finds two persons in every picture, in the second of them nobody."""

    def __init__(self) -> None:
        self.looked = 0

    def __call__(self, image: np.ndarray) -> Boxes:
        self.looked += 1
        if self.looked == 2:
            return np.zeros((0, 4), np.float32), np.zeros(0, np.float32)
        return np.array([[10, 10, 60, 80], [50, 5, 110, 85]], np.float32), np.array([0.9, 0.5], np.float32)


def test_persons_are_those_that_the_detector_finds(
    predicted: Predicted, photo: Path, picture: np.ndarray, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[tuple[object, ...]] = []

    def make_detector(name: str, device: str, *, min_score: float, **_: object) -> TwoPersons:
        asked.append((name, device, min_score))
        return TwoPersons()

    monkeypatch.setattr("diffusionpose.app.options.make_detector", make_detector)
    Image.fromarray(picture[::-1].copy()).save(photo.with_name("second.png"))
    status, err, rows = predicted(photo.parent, "--detector", "some", "--box-score", 0.4, "--draw-boxes")
    assert status == 0
    assert asked == [("some", "cpu", 0.4)]
    assert [row["box"] for row in rows] == [[10, 10, 60, 80], [50, 5, 110, 85]]
    assert {row["file_name"] for row in rows} == {"photo.png"}
    assert (
        err == f"diffusionpose: no person found in 1 of 2 pictures, {photo.with_name('second.png')} first\n"
    )
    drawn = cv2.imread(str(tmp_path / "out" / "photo.png"))
    assert (drawn[40, 10] == 255).all(), "the box"
    assert (drawn[40, 110] == 255).all()


def test_boxes_below_the_least_score_are_not_drawn(predicted: Predicted, photo: Path, tmp_path: Path) -> None:
    (tmp_path / "boxes.json").write_text(
        json.dumps([{"file_name": "photo.png", "bbox": [10, 10, 50, 70], "score": 0.2}])
    )
    for least, white in ((0.3, False), (0.1, True)):
        _, _, rows = predicted(
            photo, "--boxes", tmp_path / "boxes.json", "--draw-boxes", "--box-score", least
        )
        assert len(rows) == 1
        edge = cv2.imread(str(tmp_path / "out" / "photo.png"))[20:70, 10]
        assert bool((edge == 255).all()) == white


def test_a_detector_that_cannot_be_had_ends_the_run(run: Run, photo: Path, tmp_path: Path) -> None:
    for name, cure, lines in (
        ("rtdetr", "--boxes FILE", 2),  # the first says that it is to be downloaded
        ("nonsense", "give auto, people, whole, dfine", 1),
    ):
        status, _, err = run("predict", photo, "--output", tmp_path / "out", "--detector", name)
        assert status == 1
        assert cure in err
        assert err.count("\n") == lines
