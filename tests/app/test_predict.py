import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from diffusionpose import PoseEstimator
from diffusionpose.app import predict
from diffusionpose.inference import drawing

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def predicted(run: Run, tiny_weights: Path, tmp_path: Path) -> Callable[..., tuple[int, str, list[dict]]]:
    """``predict WORDS --output out`` with the tiny model: status, stderr, entries of the JSON."""

    def call(*words: object) -> tuple[int, str, list[dict]]:
        output = tmp_path / "out"
        status, _, err = run(
            "predict", *words, "--output", output, "--weights", tiny_weights, "--device", "cpu"
        )
        file = output / "keypoints.json"
        return status, err, json.loads(file.read_text()) if file.exists() else []

    return call


Predicted = Callable[..., tuple[int, str, list[dict]]]


def test_one_picture_gives_a_drawing_and_a_result(
    run: Run, tiny_weights: Path, photo: Path, tmp_path: Path, pixels: np.ndarray
) -> None:
    status, out, err = run("predict", photo, "--output", tmp_path / "new" / "out", "--weights", tiny_weights)
    assert status == 0
    assert err == "diffusionpose: no --boxes given: taking each whole picture as one person\n"
    assert "1 of 1 pictures, 1 poses" in out
    assert "keypoints.json" in out
    folder = tmp_path / "new" / "out"
    assert sorted(path.name for path in folder.iterdir()) == ["keypoints.json", "photo.png"]
    assert cv2.imread(str(folder / "photo.png")).shape == pixels.shape
    (row,) = json.loads((folder / "keypoints.json").read_text())
    assert set(row) == {"image_id", "category_id", "keypoints", "score", "box", "file_name", "drawn"}
    assert (row["image_id"], row["category_id"], row["file_name"]) == (1, 1, "photo.png")
    assert row["box"] == [0, 0, 120, 90]
    pose = PoseEstimator.from_pretrained(tiny_weights, device="cpu")(photo)[0]
    keypoints = np.reshape(row["keypoints"], (14, 3))
    assert np.allclose(keypoints[:, :2], pose.keypoints, atol=2e-3)
    assert np.allclose(keypoints[:, 2], pose.scores, atol=2e-3)


def test_poses_are_drawn_where_they_are(
    predicted: Predicted, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pixels: np.ndarray
) -> None:
    predicted(photo)
    plain = cv2.imread(str(tmp_path / "out" / "photo.png"))[:, :, ::-1]
    assert (plain == pixels).all(), "random weights are not sure of any joint"
    monkeypatch.setattr(drawing.draw_poses, "__defaults__", (-1.0, False))
    predicted(photo)
    drawn = cv2.imread(str(tmp_path / "out" / "photo.png"))[:, :, ::-1]
    assert (drawn != pixels).any()


MODES: dict[str, tuple[str, Callable[[Image.Image], Image.Image]]] = {
    "grey": ("png", lambda rgb: rgb.convert("L")),
    "grey with alpha": ("png", lambda rgb: rgb.convert("LA")),
    "alpha": ("png", lambda rgb: rgb.convert("RGBA")),
    "palette": ("png", lambda rgb: rgb.quantize(64)),
    "black and white": ("png", lambda rgb: rgb.convert("1")),
    "16 bit": (
        "png",
        lambda rgb: Image.fromarray(np.asarray(rgb.convert("L")).astype(np.uint16) * 257),
    ),
    "cmyk": ("tif", lambda rgb: rgb.convert("CMYK")),
    "jpeg": ("jpg", lambda rgb: rgb),
    "cmyk jpeg": ("jpg", lambda rgb: rgb.convert("CMYK")),
}


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_gives_the_poses_of_its_plain_rgb_version(
    predicted: Predicted, pixels: np.ndarray, tmp_path: Path, mode: str
) -> None:
    suffix, convert = MODES[mode]
    file, plain = tmp_path / f"picture.{suffix}", tmp_path / "plain.png"
    convert(Image.fromarray(pixels)).save(file)
    with Image.open(file) as image:
        rgb = Image.fromarray((np.asarray(image) // 256).astype(np.uint8)) if mode == "16 bit" else image
        rgb.convert("RGB").save(plain)
    status, _, rows = predicted(file, plain)
    assert status == 0
    assert rows[0]["keypoints"] == rows[1]["keypoints"]
    drawn = [
        cv2.imread(str(tmp_path / "out" / name), cv2.IMREAD_UNCHANGED)
        for name in ("picture.png", "plain.png")
    ]
    assert drawn[0].shape == (90, 120, 3)
    assert (drawn[0] == drawn[1]).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_is_turned_as_its_exif_says(
    predicted: Predicted, photo: Path, pixels: np.ndarray, tmp_path: Path, orientation: int
) -> None:
    ways = Image.Transpose
    stored = [None, None, ways.FLIP_LEFT_RIGHT, ways.ROTATE_180, ways.FLIP_TOP_BOTTOM, ways.TRANSPOSE]
    stored += [ways.ROTATE_90, ways.TRANSVERSE, ways.ROTATE_270]  # each undone by its orientation
    image = Image.fromarray(pixels)
    way = stored[orientation]
    image = image if way is None else image.transpose(way)
    image.getexif()[0x0112] = orientation
    image.save(tmp_path / "turned.png", exif=image.getexif())
    status, _, rows = predicted(tmp_path / "turned.png", photo)
    assert status == 0
    assert rows[0]["keypoints"] == rows[1]["keypoints"]
    assert rows[0]["box"] == [0, 0, 120, 90]


def truncated(folder: Path) -> Path:
    path = folder / "truncated.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (99, 99, 3), dtype=np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:2000])
    return path


def written(name: str, content: bytes) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        (folder / name).write_bytes(content)
        return folder / name

    return write


def empty_folder(folder: Path) -> Path:
    (folder / "nothing").mkdir()
    return folder / "nothing"


BAD_PICTURES: dict[str, tuple[Callable[[Path], Path], str]] = {
    "truncated": (truncated, "cut short"),
    "empty": (written("empty.jpg", b""), "empty"),
    "no picture": (written("letter.jpg", b"Dear Sir or Madam, " * 99), "not a picture"),
    "missing": (lambda folder: folder / "missing.jpg", "no such file"),
    "empty folder": (empty_folder, "no pictures in this folder"),
}


@pytest.mark.parametrize("kind", BAD_PICTURES)
def test_a_bad_picture_is_named_and_the_good_ones_are_done(
    predicted: Predicted, photo: Path, tmp_path: Path, kind: str
) -> None:
    make, complaint = BAD_PICTURES[kind]
    bad = make(tmp_path)
    shutil.copy(photo, photo.with_name("after.png"))
    status, err, rows = predicted(photo, bad, photo.with_name("after.png"))
    assert status == 1
    (line,) = [line for line in err.splitlines() if str(bad) in line]
    assert line.startswith("diffusionpose: ")
    assert complaint in line
    assert "1 problem" in err
    assert [row["file_name"] for row in rows] == ["photo.png", "after.png"]
    assert (tmp_path / "out" / "photo.png").exists()
    assert (tmp_path / "out" / "after.png").exists()
    assert not (tmp_path / "out" / f"{bad.stem}.png").exists()


def test_nothing_but_bad_pictures_gives_an_empty_list(predicted: Predicted, tmp_path: Path) -> None:
    status, _, rows = predicted(tmp_path / "missing.jpg")
    assert (status, rows) == (1, [])
    assert (tmp_path / "out" / "keypoints.json").exists()


def test_bad_boxes_are_named_and_the_good_ones_are_done(
    predicted: Predicted, photo: Path, tmp_path: Path
) -> None:
    boxes = tmp_path / "boxes.json"
    good = [[0, 0, 60, 80], [50, 10, 150, 80]]
    bad = [[200, 0, 300, 80], [10, 10, 10, 50]]
    boxes.write_text(json.dumps({"photo.png": [good[0], *bad, good[1]]}))
    status, err, rows = predicted(photo, "--boxes", boxes)
    assert status == 1
    assert "box 1 [200, 0, 300, 80] is outside the 120x90 picture" in err
    assert "box 2 [10, 10, 10, 50] has no area" in err
    assert err.count(str(boxes)) == 2
    assert err.count(str(photo)) == 2
    assert [row["box"] for row in rows] == [good[0], [50, 10, 120, 80]]


def test_boxes_by_number_carry_their_number_and_score(
    predicted: Predicted, photo: Path, tmp_path: Path, pixels: np.ndarray
) -> None:
    named = photo.with_name("000000000785.png")
    photo.rename(named)
    Image.fromarray(pixels).save(photo.with_name("000000000786.png"))
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


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ('{"images": [], "annot', "not a JSON file"),
        ('{"other.png": [[0, 0, 5, 5]]}', "knows none of the pictures"),
        ('[{"image_id": 3}]', "entry 0 has no 'bbox'"),
    ],
)
def test_a_bad_file_of_boxes_ends_the_run(
    predicted: Predicted, photo: Path, tmp_path: Path, content: str, complaint: str
) -> None:
    (tmp_path / "boxes.json").write_text(content)
    status, err, _ = predicted(photo, "--boxes", tmp_path / "boxes.json")
    assert status == 1
    assert str(tmp_path / "boxes.json") in err
    assert complaint in err


def test_boxes_that_fit_two_pictures_are_refused(predicted: Predicted, photo: Path, tmp_path: Path) -> None:
    other = tmp_path / "two" / "photo.png"
    other.parent.mkdir()
    shutil.copy(photo, other)
    (tmp_path / "boxes.json").write_text('{"photo.png": [[0, 0, 50, 50]]}')
    status, err, _ = predicted(photo, other, "--boxes", tmp_path / "boxes.json")
    assert status == 1
    assert "fits both" in err
    (tmp_path / "boxes.json").write_text(
        '{"in/photo.png": [[0, 0, 50, 50]], "two/photo.png": [[0, 0, 9, 9]]}'
    )
    status, _, rows = predicted(photo, other, "--boxes", tmp_path / "boxes.json")
    assert status == 0
    assert [row["box"][2] for row in rows] == [50, 9]
    assert [row["drawn"] for row in rows] == ["photo.png", "photo_2.png"]
    assert [row["file_name"] for row in rows] == [photo.as_posix(), other.as_posix()]


def half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(
    ("name", "complaint"),
    [("cut.safetensors", "cut short"), ("model.pth", "pickle"), ("nowhere.safetensors", "no such file")],
)
def test_bad_weights_end_the_run(
    run: Run, photo: Path, tiny_weights: Path, tmp_path: Path, name: str, complaint: str
) -> None:
    weights = tmp_path / name
    if name != "nowhere.safetensors":
        shutil.copy(tiny_weights, weights)
        half(weights)
    status, _, err = run("predict", photo, "--output", tmp_path / "out", "--weights", weights)
    assert status == 1
    assert str(weights) in err
    assert complaint in err
    assert err.splitlines()[-1].startswith("diffusionpose: ")


def test_an_output_below_a_file_is_refused(run: Run, photo: Path, tiny_weights: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    status, _, err = run("predict", photo, "--output", tmp_path / "file" / "out", "--weights", tiny_weights)
    assert status == 1
    assert str(tmp_path / "file" / "out") in err
    assert "name another" in err


def test_the_given_pictures_and_boxes_are_never_overwritten(
    predicted: Predicted, photo: Path, tmp_path: Path, run: Run, tiny_weights: Path
) -> None:
    before = photo.read_bytes()
    status, _, err = run("predict", photo, "--output", photo.parent, "--weights", tiny_weights)
    assert status == 1
    assert f"{photo}: would be overwritten" in err
    assert photo.read_bytes() == before
    output = tmp_path / "out"
    output.mkdir()
    (output / "keypoints.json").write_text('{"photo.png": []}')
    status, err, _ = predicted(photo, "--boxes", output / "keypoints.json")
    assert status == 1
    assert "keypoints.json: would be overwritten" in err


def test_a_disk_that_fills_up_keeps_what_is_done(
    predicted: Predicted, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(photo, photo.with_name("second.png"))
    write = predict.write_file

    def full(path: Path, content: bytes) -> None:
        if path.name == "second.png":
            raise predict.InputError(f"{path}: cannot be written (No space left on device)")
        write(path, content)

    monkeypatch.setattr(predict, "write_file", full)
    status, err, rows = predicted(photo.parent)
    assert status == 1
    assert "No space left on device" in err
    assert [row["file_name"] for row in rows] == ["photo.png"]


def test_a_stopped_run_keeps_what_is_done(
    predicted: Predicted, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for index in range(12):
        shutil.copy(photo, photo.with_name(f"{index:02}.png"))
    draw = predict._Job._draw

    def stopped(self: predict._Job, answer: tuple) -> list:
        if answer[0].source.path.name == "05.png":
            raise KeyboardInterrupt
        return draw(self, answer)

    monkeypatch.setattr(predict._Job, "_draw", stopped)
    status, err, rows = predicted(photo.parent)
    assert status == 130
    assert "stopped" in err
    assert [row["file_name"] for row in rows] == [f"{index:02}.png" for index in range(5)]


def test_work_is_done_in_order_and_not_too_far_ahead() -> None:
    started: list[int] = []
    answers = predict.in_order(lambda item: started.append(item) or item * 2, range(20), ahead=3)
    assert next(answers) == 0
    assert max(started) <= 3
    assert list(answers) == [2 * item for item in range(1, 20)]


def test_options_change_the_poses(predicted: Predicted, photo: Path) -> None:
    plain = predicted(photo)[2]
    assert predicted(photo, "--steps", 1, "--flip", "--batch-size", 1)[2] == plain
    for options in (["--steps", 0], ["--no-flip"], ["--decode", "argmax"]):
        assert predicted(photo, *options)[2][0]["keypoints"] != plain[0]["keypoints"]


def test_a_device_that_is_not_there_is_refused(
    run: Run, photo: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    words = [
        "predict",
        photo,
        "--output",
        tmp_path / "out",
        "--weights",
        tiny_weights,
        "--device",
        "nonsense",
    ]
    status, _, err = run(*words)
    assert status == 1
    assert "device 'nonsense'" in err


def test_pictures_in_a_folder_are_all_done_in_batches(
    predicted: Predicted, photo: Path, pixels: np.ndarray, tmp_path: Path
) -> None:
    for index in range(11):
        Image.fromarray(np.roll(pixels, 9 * index, axis=1)).save(photo.with_name(f"{index:02}.jpg"))
    boxes = {f"{index:02}.jpg": [[0, 0, 60 + index, 80]] * (index % 4) for index in range(11)}
    (tmp_path / "boxes.json").write_text(json.dumps(boxes))
    together = predicted(photo.parent, "--boxes", tmp_path / "boxes.json", "--batch-size", 4)[2]
    assert len(together) == sum(index % 4 for index in range(11))
    for row in together:
        alone = predicted(photo.with_name(row["file_name"]), "--boxes", tmp_path / "boxes.json")[2][0]
        assert np.allclose(alone["keypoints"], row["keypoints"], atol=2e-3)
    assert len(list((tmp_path / "out").glob("*.png"))) == 12


def test_the_program_itself_reports_and_exits(photo: Path, tiny_weights: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "diffusionpose.app.cli", "predict", str(photo), str(tmp_path / "no.jpg")]
    command += ["--output", str(tmp_path / "out"), "--weights", str(tiny_weights)]
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
