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

from diffusionpose.app import predict as picture_job
from diffusionpose.poses import Pose, read_csv
from diffusionpose.runtime.estimator import Request

Run = Callable[..., tuple[int, str, str]]
COUNT = 11
SLOWLY = """
import sys, time
from diffusionpose.app import cli, picture_job
draw = picture_job.DrawPicture.__call__
def slowly(self, request, poses):
    time.sleep(0.2)
    draw(self, request, poses)
picture_job.DrawPicture.__call__ = slowly
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
def words(folder: Path, tiny_weights: Path) -> list[object]:
    more = ["--weights", tiny_weights, "--device", "cpu", "--batch-size", 4, "--detector", "whole"]
    return ["predict", folder, *more, "--output"]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the pictures that are drawn, in this process."""
    names: list[str] = []
    draw = picture_job.DrawPicture.__call__

    def noted(self: picture_job.DrawPicture, request: Request, poses: list[Pose]) -> None:
        draw(self, request, poses)
        names.append(request.source.picture.path.name)

    monkeypatch.setattr(picture_job.DrawPicture, "__call__", noted)
    return names


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def entries(output: Path) -> int:
    file = output / "progress.jsonl"
    return file.read_bytes().count(b"\n") - 1 if file.exists() else 0


def unfinished(output: Path, keep: int) -> None:
    """A finished run's folder as it was when ``keep`` pictures were done, where its journal was kept."""
    lines = (output / "progress.jsonl").read_bytes().splitlines(keepends=True)
    (output / "progress.jsonl").write_bytes(b"".join(lines[: keep + 1]))
    (output / "keypoints.json").unlink()


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
    assert contents(killed) == contents(whole)
    assert sorted(contents(whole)) == [*(f"{index:02}.png" for index in range(COUNT)), "keypoints.json"]


def test_an_unreadable_picture_is_tried_again_with_its_group(
    run: Run, words: list[object], folder: Path, tmp_path: Path, drawn: list[str]
) -> None:
    out, good = tmp_path / "out", (folder / "05.png").read_bytes()
    (folder / "05.png").write_bytes(good[:500])
    for _ in range(2):
        drawn.clear()
        status, _, err = run(*words, out)
        assert status == 1
        assert "05.png: damaged or cut short" in err
        assert f"tries the pictures again that could not be read; to begin anew, remove {out}" in err
        assert len(json.loads((out / "keypoints.json").read_text())) == COUNT - 1
    assert drawn == ["04.png", "06.png", "07.png"]
    drawn.clear()
    (folder / "05.png").write_bytes(good)
    assert run(*words, out)[0] == 0
    assert drawn == ["04.png", "05.png", "06.png", "07.png"]
    assert not (out / "progress.jsonl").exists()
    assert run(*words, tmp_path / "whole")[0] == 0
    assert contents(out) == contents(tmp_path / "whole")


def test_what_changed_or_lost_its_drawing_is_done_again(
    run: Run, words: list[object], folder: Path, tmp_path: Path, drawn: list[str]
) -> None:
    out = tmp_path / "out"
    (folder / "zz.png").write_bytes(b"no picture: keeps the journal")
    assert run(*words, out)[0] == 1
    unfinished(out, keep=10)
    Image.open(folder / "08.png").save(folder / "01.png")
    (out / "07.png").unlink()
    drawn.clear()
    assert run(*words, out)[0] == 1
    assert drawn == [f"{index:02}.png" for index in [*range(8), 10]]
    first = {row["file_name"]: row["keypoints"] for row in json.loads((out / "keypoints.json").read_text())}
    assert np.allclose(first["01.png"], first["08.png"], atol=2e-3)
    assert len(first) == COUNT


@pytest.mark.parametrize(
    ("change", "name"),
    [(["--steps", 2], "steps"), (["--no-flip"], "flip"), (["--draw-boxes"], "draw_boxes"), ([], "pictures")],
)
def test_a_journal_of_another_job_is_refused(
    run: Run, words: list[object], folder: Path, tmp_path: Path, change: list[object], name: str
) -> None:
    out = tmp_path / "out"
    (folder / "05.png").write_bytes(b"no picture: keeps the journal")
    assert run(*words, out)[0] == 1
    before = contents(out)
    if not change:
        (folder / "00.png").rename(folder / "new.png")
    status, _, err = run(*words, out, *change)
    assert status == 1
    assert f"{out / 'progress.jsonl'}: is of a job with other settings or inputs ({name});" in err
    assert "name another --output, or remove it" in err
    assert contents(out) == before


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
    assert contents(out) == whole


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

    def stopped(self: picture_job.DrawPicture, request: Request, poses: list[Pose]) -> None:
        if request.source.number == 5:
            raise KeyboardInterrupt
        draw(self, request, poses)

    draw = picture_job.DrawPicture.__call__
    with monkeypatch.context() as patch:
        patch.setattr(picture_job.DrawPicture, "__call__", stopped)
        status, _, err = run(*words, out)
    assert status == 130
    assert "5 of 11 pictures are done; the same command goes on from there" in err
    monkeypatch.setenv("RAY_worker_niceness", "0")  # Ray's own 15 starves a worker where others compute
    monkeypatch.chdir(tmp_path)
    words = ["predict", folder.name, *words[2:]]  # paths that only this process understands
    status, _, err = run(*words, "out", "--engine", "ray", "--workers", 1)
    assert status == 0, err
    assert contents(out) == contents(tmp_path / "whole")
