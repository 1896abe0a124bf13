"""Many pictures of files: read ahead, in order, one answer for each."""

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffusionpose import InputError, PoseEstimator
from diffusionpose.runtime.estimator import LocalEngine, PictureTask, Request, in_order

BOXES = np.array([[5, 5, 60, 80], [30, 10, 110, 85], [200, 0, 300, 80]], np.float32)


@pytest.fixture(scope="module")
def estimator(tiny_weights: Path) -> PoseEstimator:
    return PoseEstimator.from_pretrained(tiny_weights, device="cpu", detector="whole", batch_size=4)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, picture: np.ndarray) -> list[Path]:
    folder = tmp_path_factory.mktemp("pictures")
    for index in range(10):
        Image.fromarray(np.roll(picture, 9 * index, axis=1)).save(folder / f"{index}.png")
    return sorted(folder.iterdir())


def test_work_is_done_in_order_and_not_too_far_ahead() -> None:
    started: list[int] = []
    answers = in_order(lambda item: started.append(item) or item * 2, range(20), ahead=3)
    assert next(answers) == 0
    assert max(started) <= 3
    assert list(answers) == [2 * item for item in range(1, 20)]


@pytest.mark.parametrize("end", [KeyboardInterrupt, InputError, GeneratorExit])
def test_what_has_not_begun_is_dropped_where_the_work_ends_early(end: type[BaseException]) -> None:
    """The first item is at work for a second more; the others wait behind it."""
    begun: list[int] = []
    ended: list[int] = []
    at_work, go_on = threading.Event(), threading.Event()

    def work(item: int) -> None:
        begun.append(item)
        at_work.set()
        assert go_on.wait(60)
        ended.append(item)

    def items() -> Iterator[int]:
        yield from range(4)
        assert at_work.wait(60)
        threading.Timer(1.0, go_on.set).start()
        raise end

    with pytest.raises(end):
        next(in_order(work, items()))
    assert begun == ended == [0]


def test_an_unreadable_picture_and_a_bad_box_are_told(
    estimator: PoseEstimator, files: list[Path], tmp_path: Path
) -> None:
    (tmp_path / "bad.jpg").write_bytes(b"no picture")
    finished: list[tuple[object, int]] = []

    def finish(request: Request, poses: list[object]) -> None:
        finished.append((request.source, len(poses)))

    tasks = [
        PictureTask(files[0], BOXES, np.array([0.5, 0.25, 1], np.float32), "a"),
        PictureTask(tmp_path / "bad.jpg", source="b"),
        PictureTask(files[1], source="c"),
    ]
    first, bad, last = LocalEngine(estimator, finish).run([tasks])
    assert (len(first.poses), first.failure) == (2, None)
    assert "box 2 [200, 0, 300, 80] is outside the 120x90 picture" in first.problems[0]
    assert (bad.source, bad.poses, bad.problems) == ("b", [], [])
    assert "bad.jpg: not a picture" in str(bad.failure)
    assert last.source == "c"
    assert finished == [("a", 2), ("c", 1)]


def test_what_ends_the_finishing_ends_the_work(estimator: PoseEstimator, files: list[Path]) -> None:
    def full(request: Request, poses: list[object]) -> None:
        if request.source == 2:
            raise InputError("the disk is full")

    tasks = [PictureTask(file, source=index) for index, file in enumerate(files)]
    answers = LocalEngine(estimator, full).run([tasks])
    assert [next(answers).source, next(answers).source] == [0, 1]
    with pytest.raises(InputError, match="full"):
        next(answers)
