import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffusionpose import InputError
from diffusionpose.app import predict as picture_job
from diffusionpose.poses import Pose
from diffusionpose.runtime.estimator import Request

Run = Callable[..., tuple[int, str, str]]
Predicted = Callable[..., tuple[int, str, list[dict]]]


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


def link_to_itself(folder: Path) -> Path:
    (folder / "loop.jpg").symlink_to("loop.jpg")
    return folder / "loop.jpg"


BAD_PICTURES: dict[str, tuple[Callable[[Path], Path], str]] = {
    "truncated": (truncated, "cut short"),
    "empty": (written("empty.jpg", b""), "empty"),
    "no picture": (written("letter.jpg", b"Dear Sir or Madam, " * 99), "not a picture"),
    "name too long": (lambda folder: folder / ("a" * 300 + ".jpg"), "name too long"),
    "link to itself": (link_to_itself, "cannot be read"),
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
    drawn = sorted(path.name for path in (tmp_path / "out").glob("*.png"))
    assert drawn == ["after.png", "photo.png"]


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
    assert [row["box"] for row in rows] == good
    entries = [("other.png", good[0]), ("photo.png", good[1]), ("photo.png", bad[0])]
    boxes.write_text(json.dumps([{"file_name": name, "box": box} for name, box in entries]))
    status, err, _ = predicted(photo, "--boxes", boxes)
    assert f"{photo}: box 2 [200, 0, 300, 80] is outside the 120x90 picture" in err, "of the file"


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
    photo.rename(photo.with_suffix(".jpg"))  # whose drawing would be a picture more
    status, _, err = run("predict", photo.parent, "--output", photo.parent, "--weights", tiny_weights)
    assert status == 1
    assert f"--output {photo.parent}: is a folder of the pictures" in err
    photo.with_suffix(".jpg").rename(photo)
    output = tmp_path / "out"
    output.mkdir()
    (output / "keypoints.json").write_text('{"photo.png": []}')
    status, err, _ = predicted(photo, "--boxes", output / "keypoints.json")
    assert status == 1
    assert "keypoints.json: would be overwritten" in err


def test_what_lies_beside_a_picture_is_overwritten_only_where_an_earlier_run_wrote_it(
    run: Run, photo: Path, light_weights: Path
) -> None:
    own, picture = photo, photo.with_suffix(".jpg")
    Image.open(photo).save(picture)
    before = own.read_bytes()
    words = [
        "predict",
        picture,
        "--output",
        picture.parent,
        "--weights",
        light_weights,
        "--detector",
        "whole",
    ]
    status, _, err = run(*words)
    assert (status, own.read_bytes()) == (1, before)
    assert f"{own}: lies beside the pictures already" in err
    own.unlink()
    # also where nobody is found, of which no result tells
    assert [run(*words[:-1], "people")[0] for _ in range(2)] == [0, 0]
    assert own.exists()


def test_a_disk_that_fills_up_keeps_what_is_done(
    predicted: Predicted, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(photo, photo.with_name("second.png"))
    write = picture_job.write_file

    def full(path: Path, content: bytes) -> None:
        if path.name == "second.png":
            raise InputError(f"{path}: cannot be written (No space left on device)")
        write(path, content)

    monkeypatch.setattr(picture_job, "write_file", full)
    status, err, rows = predicted(photo.parent)
    assert status == 1
    assert "No space left on device" in err
    assert [row["file_name"] for row in rows] == ["photo.png"]
    monkeypatch.setattr(picture_job, "write_file", write)
    status, err, rows = predicted(photo.parent)
    assert status == 0
    assert "1 of 2 pictures are done" in err
    assert [row["file_name"] for row in rows] == ["photo.png", "second.png"]


def test_a_stopped_run_keeps_what_is_done(
    predicted: Predicted, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for index in range(12):
        shutil.copy(photo, photo.with_name(f"{index:02}.png"))
    draw = picture_job.draw_picture

    def stopped(folder: Path, box_score: float, looks: object, request: Request, poses: list[Pose]) -> None:
        if request.source.path.name == "05.png":
            raise KeyboardInterrupt
        draw(folder, box_score, looks, request, poses)

    monkeypatch.setattr(picture_job, "draw_picture", stopped)
    status, err, rows = predicted(photo.parent)
    assert status == 130
    assert "stopped" in err
    done = [row["drawn"] for row in rows]
    assert done[:5] == [f"{index:02}.png" for index in range(5)]
    assert "05.png" not in done
    drawn = {path.name for path in (tmp_path / "out").glob("*.png")}  # several are drawn at a time
    assert set(done) <= drawn <= {f"{index:02}.png" for index in range(12) if index != 5} | {"photo.png"}


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
