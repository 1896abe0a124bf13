"""A Ray of this machine with one worker, in a process of its own: Ray's core can end the one it lives in."""

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffusionpose import InputError
from diffusionpose.runtime.cluster import Cluster, RayEngine, check_listening, connected

SCRIPT = """
import json, sys
from functools import partial
from pathlib import Path
import numpy as np
from diffusionpose import InputError, PoseEstimator
from diffusionpose.runtime.cluster import RayEngine, connected
from diffusionpose.runtime.estimator import LocalEngine, PictureTask

folder, weights = Path(sys.argv[1]), sys.argv[2]
box = np.array([[5, 5, 60, 80]], np.float32), np.array([0.5], np.float32)
tasks = [PictureTask(folder / f"{i}.png", *(box if i % 2 else ()), source=i) for i in range(7)]
groups = [tasks[:3], tasks[3:6], tasks[6:]]
make = partial(PoseEstimator.from_pretrained, weights, "cpu", batch_size=2, detector="whole")

def finish(full_at, request, poses):
    if request.source == full_at:
        raise InputError("the disk is full")
    (folder / f"{request.source}.txt").write_text(f"{request.image.shape} {len(poses)}")

def shown(answers):
    return sorted(
        (a.source, a.failure, a.problems, [p.keypoints.tolist() for p in a.poses], [p.score for p in a.poses])
        for a in answers
    )

def failure(engine):
    try:
        list(engine.run(groups))
    except InputError as error:
        return str(error)

result = {"local": shown(LocalEngine(make()).run(groups))}
with connected(cpus=1) as cluster:
    result["cluster"] = cluster.cpus, cluster.gpus
    result["ray"] = shown(RayEngine(cluster, make, partial(finish, None)).run(groups))
    result["nothing"] = list(RayEngine(cluster, make).run([]))
    result["full"] = failure(RayEngine(cluster, make, partial(finish, 4)))
    nowhere = partial(PoseEstimator.from_pretrained, folder / "nowhere.safetensors", "cpu")
    result["nowhere"] = failure(RayEngine(cluster, nowhere))
print(json.dumps(result))
"""


def test_a_worker_gives_the_poses_of_this_process_and_tells_what_ends_its_work(
    light_weights: Path, tmp_path: Path, picture: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ray.data")
    monkeypatch.setenv("RAY_worker_niceness", "0")  # Ray's own 15 starves a worker where others compute
    for index in range(7):
        Image.fromarray(np.roll(picture, 9 * index, axis=1)).save(tmp_path / f"{index}.png")
    (tmp_path / "3.png").write_bytes(b"no picture")
    command = [sys.executable, "-c", SCRIPT, str(tmp_path), str(light_weights)]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    result = json.loads(ended.stdout.splitlines()[-1])
    assert result["cluster"] == [1, 0]
    assert result["ray"] == result["local"]
    assert [answer[0] for answer in result["ray"]] == list(range(7))
    assert "3.png: not a picture" in result["ray"][3][1]
    assert sorted(path.stem for path in tmp_path.glob("*.txt")) == ["0", "1", "2", "4", "5", "6"]
    assert (tmp_path / "0.txt").read_text() == "(90, 120, 3) 1"
    assert result["nothing"] == []
    assert result["full"] == "the disk is full"
    assert "nowhere.safetensors: no such file" in result["nowhere"]


def test_more_workers_than_cores_are_refused() -> None:
    pytest.importorskip("ray.data")
    cluster = Cluster(cpus=1, gpus=0)
    with pytest.raises(InputError, match="--workers 2: the Ray cluster has 1 cores; ask for 1 to 1"):
        RayEngine(cluster, object, workers=2)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="--device cuda: the Ray cluster has 0 GPUs; leave it out"):
        RayEngine(cluster, object, gpu=True)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="--workers 9999: this machine has"), connected(cpus=9999):
        pass


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1", "127.0.0.1:99999999"])
def test_where_nobody_listens_is_told_at_once(address: str) -> None:
    begun = time.monotonic()
    with pytest.raises(InputError, match=rf"--ray-address {address}: no Ray cluster \("):
        check_listening(address)
    assert time.monotonic() - begun < 30


def test_without_ray_the_message_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r"pip install 'diffusionpose\[ray\]'"), connected():
        pass
