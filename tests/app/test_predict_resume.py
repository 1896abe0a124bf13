"""A folder run that is stopped goes on, and ends with the very files of a run that was not."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffusionpose.app import predict
from diffusionpose.poses import Pose, read_csv
from diffusionpose.runtime.estimator import Request

Run = Callable[..., tuple[int, str, str]]
COUNT = 11
SLOWLY = """
import sys, time
from diffusionpose.app import cli, predict
draw = predict.draw_picture
def slowly(*what):
    time.sleep(0.2)
    draw(*what)
predict.draw_picture = slowly
sys.exit(cli.main(sys.argv[1:]))
"""


@pytest.fixture
def folder(tmp_path: Path, picture: np.ndarray) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    for index in range(COUNT):
        Image.fromarray(np.roll(picture, 9 * index, axis=1)).save(folder / f"{index:02}.png")
    return folder


@pytest.fixture
def words(folder: Path, light_weights: Path) -> list[object]:
    more = ["--weights", light_weights, "--device", "cpu", "--batch-size", 4, "--detector", "whole"]
    return ["predict", folder, *more, "--output"]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the pictures that are drawn, in this process."""
    names: list[str] = []
    draw = predict.draw_picture

    def noted(folder: Path, box_score: float, looks: object, request: Request, poses: list[Pose]) -> None:
        draw(folder, box_score, looks, request, poses)
        names.append(request.source.path.name)

    monkeypatch.setattr(predict, "draw_picture", noted)
    return names


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("[!.]*")}  # a lock is left


def entries(output: Path) -> int:
    file = output / "progress.jsonl"
    return file.read_bytes().count(b"\n") - 1 if file.exists() else 0


def same(folder: Path, other: Path) -> bool:
    """Poses within 0.01 pixels, and the same drawings."""
    results = [json.loads((each / "keypoints.json").read_text()) for each in (folder, other)]
    numbers = [np.array([row.pop("keypoints") + [row.pop("score")] for row in rows]) for rows in results]
    drawings = [{path.name for path in each.glob("*.png")} for each in (folder, other)]
    return (
        results[0] == results[1]
        and drawings[0] == drawings[1]
        and np.abs(numbers[0] - numbers[1]).max() < 0.01
    )


def test_a_killed_run_ends_with_the_files_of_one_that_was_not(
    run: Run, words: list[object], tmp_path: Path, drawn: list[str]
) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    process = subprocess.Popen([sys.executable, "-c", SLOWLY, *map(str, words), str(killed)])
    deadline = time.monotonic() + 300
    while entries(killed) < 6 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    done = entries(killed)
    assert 6 <= done < COUNT
    assert not (killed / "keypoints.json").exists()
    status, out, err = run(*words, killed)
    assert status == 0
    assert f"{done} of 11 pictures are done" in err
    assert "11 of 11 pictures, 11 poses" in out
    assert drawn == [f"{index:02}.png" for index in range(done, COUNT)], "the rest, each once"
    assert run(*words, whole)[0] == 0
    assert same(killed, whole)
    assert sorted(contents(whole)) == [*(f"{index:02}.png" for index in range(COUNT)), "keypoints.json"]


def test_an_unreadable_picture_is_tried_again_and_no_other(
    run: Run, words: list[object], folder: Path, tmp_path: Path, drawn: list[str]
) -> None:
    out, good = tmp_path / "out", (folder / "05.png").read_bytes()
    (folder / "05.png").write_bytes(good[:500])
    for _ in range(2):
        status, _, err = run(*words, out)
        assert status == 1
        assert "05.png: damaged or cut short" in err
        assert f"tries the pictures again that could not be read; to begin anew, remove {out}" in err
        assert len(json.loads((out / "keypoints.json").read_text())) == COUNT - 1
    assert len(drawn) == COUNT - 1
    drawn.clear()
    (folder / "05.png").write_bytes(good)
    assert run(*words, out)[0] == 0
    assert drawn == ["05.png"]
    assert not (out / "progress.jsonl").exists()
    assert run(*words, tmp_path / "whole")[0] == 0
    assert same(out, tmp_path / "whole")


def test_pictures_and_settings_may_change(
    run: Run, words: list[object], folder: Path, tmp_path: Path, drawn: list[str]
) -> None:
    out = tmp_path / "out"
    (folder / "bad.png").write_bytes(b"no picture: keeps the journal")
    assert run(*words, out)[0] == 1
    drawn.clear()
    (folder / "00.png").rename(folder / "new.png")  # removed and added
    Image.open(folder / "08.png").save(folder / "01.png")  # changed
    (out / "07.png").unlink()  # lost
    assert run(*words, out)[0] == 1
    assert drawn == ["01.png", "07.png", "new.png"]
    rows = json.loads((out / "keypoints.json").read_text())
    assert [row["file_name"] for row in rows] == [*(f"{i:02}.png" for i in range(1, COUNT)), "new.png"]
    first = {row["file_name"]: row["keypoints"] for row in rows}
    assert np.allclose(first["01.png"], first["08.png"], atol=2e-3)
    drawn.clear()
    assert run(*words, out, "--no-flip")[0] == 1
    assert len(drawn) == COUNT, "other settings: none is done"
    (folder / "bad.png").unlink()
    drawn.clear()
    assert run(*words, out, "--no-flip")[0] == 0
    assert drawn == []


def test_drawings_of_other_settings_are_made_anew(
    run: Run, words: list[object], folder: Path, tmp_path: Path, drawn: list[str]
) -> None:
    out = tmp_path / "out"
    (folder / "bad.png").write_bytes(b"no picture: keeps the journal")
    assert run(*words, out)[0] == 1
    first = contents(out)
    assert run(*words, out, "--draw-boxes")[0] == 1
    assert contents(out)["03.png"] != first["03.png"]
    assert run(*words, out)[0] == 1
    assert contents(out)["03.png"] == first["03.png"]
    assert len(drawn) == 3 * COUNT


def test_a_run_over_a_part_keeps_what_a_larger_one_has_done(
    run: Run, words: list[object], folder: Path, tmp_path: Path, drawn: list[str]
) -> None:
    out, part = tmp_path / "out", [words[0], folder / "03.png", *words[2:]]
    (folder / "bad.png").write_bytes(b"no picture: keeps the journal")
    assert run(*words, out)[0] == 1
    assert run(*part, out)[0] == 0
    (folder / "bad.png").unlink()
    assert run(*words, out)[0] == 0
    assert len(drawn) == COUNT
    assert not (out / "progress.jsonl").exists()


def test_a_typing_error_leaves_nothing_in_the_way(
    run: Run, words: list[object], folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert run("predict", folder / "00.pngg", *words[2:], out)[0] == 1
    assert not (out / "progress.jsonl").exists()
    assert run("predict", folder / "00.png", *words[2:], out)[0] == 0


def test_problems_with_boxes_are_told_again_when_a_run_goes_on(
    run: Run, words: list[object], folder: Path, tmp_path: Path
) -> None:
    out, boxes = tmp_path / "out", tmp_path / "boxes.json"
    boxes.write_text(json.dumps({f"{i:02}.png": [[0, 0, 60, 80], [200, 0, 300, 80]] for i in range(COUNT)}))
    words = [*words[:-3], "--boxes", boxes, "--output", out]
    status, _, err = run(*words)
    assert (status, err.count("is outside the 120x90 picture")) == (1, COUNT)
    assert not (out / "progress.jsonl").exists(), "to try them again would change nothing"
    whole = contents(out)
    picture_9 = (folder / "09.png").read_bytes()
    (folder / "09.png").write_bytes(b"")
    assert run(*words)[0] == 1
    (folder / "09.png").write_bytes(picture_9)
    status, _, err = run(*words)
    assert (status, err.count("is outside the 120x90 picture")) == (1, COUNT)
    assert contents(out).keys() == whole.keys()


def test_the_table_holds_the_very_numbers_of_the_json(run: Run, words: list[object], tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert "keypoints.csv" in run(*words, out, "--csv")[1]
    rows = read_csv(out / "keypoints.csv")
    results = json.loads((out / "keypoints.json").read_text())
    assert len(rows) == 14 * len(results) == 14 * COUNT
    numbers = [row[name] for row in rows for name in ("x", "y", "score")]
    assert numbers == [number for result in results for number in result["keypoints"]]
    assert [row["person_score"] for row in rows[::14]] == [result["score"] for result in results]
    assert [row["file_name"] for row in rows[::14]] == [result["file_name"] for result in results]


def test_workers_need_ray(run: Run, words: list[object], tmp_path: Path) -> None:
    status, _, err = run(*words, tmp_path / "out", "--workers", 2)
    assert status == 2
    assert "--engine ray" in err


def test_ray_goes_on_where_this_process_stopped(
    run: Run, words: list[object], folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ray.data")
    out = tmp_path / "out"
    assert run(*words, tmp_path / "whole")[0] == 0

    def stopped(folder: Path, box_score: float, looks: object, request: Request, poses: list[Pose]) -> None:
        if request.source.path.name == "05.png":
            raise KeyboardInterrupt
        draw(folder, box_score, looks, request, poses)

    draw = predict.draw_picture
    with monkeypatch.context() as patch:
        patch.setattr(predict, "draw_picture", stopped)
        status, _, err = run(*words, out)
    assert status == 130
    assert "5 of 11 pictures are done; the same command goes on from there" in err
    monkeypatch.setenv("RAY_worker_niceness", "0")  # Ray's own 15 starves a worker where others compute
    # in a process of its own, which Ray's core can end; its relative paths are no other process's
    command = [sys.executable, "-m", "diffusionpose", "predict", folder.name, *map(str, words[2:]), "out"]
    command += ["--engine", "ray", "--workers", "1"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert same(out, tmp_path / "whole")
