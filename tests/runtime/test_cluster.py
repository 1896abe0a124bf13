"""A Ray of this machine with one worker: the same bits as in this process, and faults told as there."""

import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffusionpose import InputError, PoseEstimator
from diffusionpose.poses import Pose
from diffusionpose.runtime.cluster import PATIENCE, Cluster, RayEngine, connected
from diffusionpose.runtime.estimator import LocalEngine, PictureTask, Request
from diffusionpose.runtime.ray_driver import _check_listening


def note(folder: Path, full_at: int | None = None) -> Callable[[Request, list[Pose]], None]:
    """Writes a file for each picture, and finds the disk full at one; pickles, as no module has it."""

    def finish(request: Request, poses: list[Pose]) -> None:
        if request.source == full_at:
            raise InputError(f"{folder}: the disk is full")
        (folder / f"{request.source}.txt").write_text(f"{request.image.shape} {len(poses)}")

    return finish


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    pytest.importorskip("ray.data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_worker_niceness", "0")  # Ray's own 15 starves a worker where others compute
        with connected(cpus=1) as started:
            yield started


@pytest.fixture
def groups(tmp_path: Path, picture: np.ndarray) -> list[list[PictureTask]]:
    folder = tmp_path / "in"
    folder.mkdir()
    for index in range(7):
        Image.fromarray(np.roll(picture, 9 * index, axis=1)).save(folder / f"{index}.png")
    (folder / "3.png").write_bytes(b"no picture")
    box = np.array([[5, 5, 60, 80]], np.float32), np.array([0.5], np.float32)
    tasks = [PictureTask(folder / f"{i}.png", *(box if i % 2 else ()), source=i) for i in range(7)]
    return [tasks[:3], tasks[3:6], tasks[6:]]


def test_a_worker_gives_the_bits_of_this_process(
    cluster: Cluster, groups: list[list[PictureTask]], tiny_weights: Path, tmp_path: Path
) -> None:
    assert (cluster.cpus, cluster.gpus) == (1, 0)
    make = partial(PoseEstimator.from_pretrained, tiny_weights, "cpu", batch_size=2)
    expected = {answer.source: answer for answer in LocalEngine(make()).run(groups)}
    answers = {answer.source: answer for answer in RayEngine(cluster, make, note(tmp_path)).run(groups)}
    assert answers.keys() == expected.keys() == set(range(7))
    for source, answer in answers.items():
        same = expected[source]
        assert (answer.failure, answer.problems) == (same.failure, same.problems)
        assert [p.keypoints.tobytes() for p in answer.poses] == [p.keypoints.tobytes() for p in same.poses]
        assert [p.score for p in answer.poses] == [p.score for p in same.poses]
        assert (tmp_path / f"{source}.txt").exists() == (source != 3)
    assert "3.png: not a picture" in str(answers[3].failure)
    assert (tmp_path / "0.txt").read_text() == "(90, 120, 3) 1"
    assert list(RayEngine(cluster, make).run([])) == []


def test_what_ends_a_workers_work_is_told_as_it_is(
    cluster: Cluster, groups: list[list[PictureTask]], tiny_weights: Path, tmp_path: Path
) -> None:
    make = partial(PoseEstimator.from_pretrained, tiny_weights, "cpu")
    with pytest.raises(InputError, match="the disk is full"):
        list(RayEngine(cluster, make, note(tmp_path, full_at=4)).run(groups))
    nowhere = partial(PoseEstimator.from_pretrained, tmp_path / "nowhere.safetensors", "cpu")
    with pytest.raises(InputError, match=r"nowhere\.safetensors: no such file"):
        list(RayEngine(cluster, nowhere).run(groups))


def test_more_workers_than_cores_are_refused(cluster: Cluster) -> None:
    with pytest.raises(InputError, match="--workers 2: the Ray cluster has 1 cores; ask for 1 to 1"):
        RayEngine(cluster, PoseEstimator.from_pretrained, workers=2)
    with pytest.raises(InputError, match="--device cuda: the Ray cluster has 0 GPUs; leave it out"):
        RayEngine(cluster, PoseEstimator.from_pretrained, gpu=True)


def test_a_driver_that_dies_is_told_and_one_that_is_left_ends(
    groups: list[list[PictureTask]], tiny_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ray.data")
    monkeypatch.setenv("RAY_worker_niceness", "0")
    make = partial(PoseEstimator.from_pretrained, tiny_weights, "cpu")
    with connected(cpus=1) as left:
        answers = RayEngine(left, make).run(groups)
        assert next(answers).source in range(7)
        begun = time.monotonic()
    assert left.driver.process.returncode == 0
    assert time.monotonic() - begun < PATIENCE, "it had to be killed"
    with connected(cpus=1) as dead:
        answers = RayEngine(dead, make).run(groups)
        next(answers)
        dead.driver.process.kill()
        with pytest.raises(InputError, match=r"Ray has ended in the middle of the work \(exit status -9"):
            list(answers)


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1", "127.0.0.1:99999999"])
def test_where_nobody_listens_is_told_at_once(address: str) -> None:
    with pytest.raises(InputError, match=rf"--ray-address {address}: no Ray cluster \("):
        _check_listening(address)


def test_no_cluster_is_told_as_one_that_was_asked_for() -> None:
    pytest.importorskip("ray.data")
    begun = time.monotonic()
    refused = pytest.raises(
        InputError, match=r"127\.0\.0\.1:1: no Ray cluster .*is `ray start` running there"
    )
    with refused, connected("127.0.0.1:1"):
        pass
    assert time.monotonic() - begun < 60


def test_without_ray_the_message_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray.cloudpickle", None)
    with pytest.raises(InputError, match=r"pip install 'diffusionpose\[ray\]'"), connected():
        pass
