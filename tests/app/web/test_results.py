import json
import os
import time

import numpy as np
import pytest
from PIL import Image

from diffusionpose import load_model
from diffusionpose.app.web.files import sweep, swept, write_results
from diffusionpose.app.web.handlers import Options, analyse
from diffusionpose.runtime.drawing import draw_poses
from diffusionpose.runtime.images import read_image


@pytest.mark.parametrize("name", ["photo.png", "trip 0042.png"])
def test_files_are_those_of_predict(run, photo, tiny_weights, persons, tmp_path, name):
    source = photo.rename(photo.parent / name)
    (tmp_path / "boxes.json").write_text(json.dumps({name: persons.tolist()}))
    words = ["--boxes", tmp_path / "boxes.json", "--weights", tiny_weights, "--device", "cpu", "--steps", 2]
    assert run("predict", source, "--output", tmp_path / "out", *words).status == 0
    image = read_image(source)
    found = analyse(load_model(tiny_weights), image, persons, np.ones(2, np.float32), Options(2, True))
    poses = [person.pose for person in found]
    png, rows = write_results(tmp_path / "results", source, draw_poses(image, poses), poses)
    assert json.loads(rows.read_text()) == json.loads((tmp_path / "out" / "keypoints.json").read_text())
    assert png.name == source.name
    assert (np.asarray(Image.open(png)) == np.asarray(Image.open(tmp_path / "out" / png.name))).all()
    again, _ = write_results(tmp_path / "results", source, image, poses)
    assert again.parent != png.parent, "nobody's files take the place of another's"


def test_only_what_is_old_is_swept_away(tmp_path):
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text("x")
        (tmp_path / f"{name}.txt").write_text("x")
    for name in ("old", "old.txt"):
        os.utime(tmp_path / name, (time.time() - 100, time.time() - 100))
    sweep(tmp_path, 50)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "new.txt"]
    sweep(tmp_path / "nowhere", 50)


def test_sweeping_goes_on_by_itself(tmp_path, monkeypatch):
    monkeypatch.setattr("diffusionpose.app.web.files.SWEPT_SECONDS", 0.01)
    monkeypatch.setattr("diffusionpose.app.web.files.KEPT_SECONDS", 0.0)
    (tmp_path / "file").write_text("x")
    with swept(tmp_path):
        until = time.monotonic() + 30
        while any(tmp_path.iterdir()) and time.monotonic() < until:
            time.sleep(0.01)
    assert not any(tmp_path.iterdir())
