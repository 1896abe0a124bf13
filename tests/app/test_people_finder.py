"""``diffusionpose evaluate-people`` and ``train-people``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from diffusionpose.app.cli import main


def test_evaluate_people_prints_and_writes(
    synthetic_set: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images, annotations = (str(path) for path in synthetic_set)
    arguments = ["--images", images, "--annotations", annotations, "--output", str(tmp_path)]
    assert main(["evaluate-people", *arguments]) == 0
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert set(metrics) == {"AP", "AP50", "AP75", "AR50", "AP50_given", "precision", "recall"}
    assert all(0 <= value <= 1 for value in metrics.values())
    assert f"{100 * metrics['AP50']:.1f}" in capsys.readouterr().out
    for entry in json.loads((tmp_path / "detections.json").read_text()):
        assert set(entry) == {"image_id", "category_id", "bbox", "score"}


def test_a_picture_that_cannot_be_read_costs_no_other(
    synthetic_set: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = json.loads(synthetic_set[1].read_text())
    content["images"][0]["file_name"] = "gone.jpg"
    content["annotations"][-1]["keypoints"] = [1]
    (tmp_path / "people.json").write_text(json.dumps(content))
    words = ["--images", str(synthetic_set[0]), "--annotations", str(tmp_path / "people.json")]
    assert main(["evaluate-people", *words]) == 1
    out, err = capsys.readouterr()
    assert "AP50" in out
    assert "gone.jpg: no such file" in err
    assert "1 keypoint numbers" in err


def test_train_people_needs_a_folder_for_each_file(
    synthetic_set: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images, annotations = (str(path) for path in synthetic_set)
    sets = ["--images", images, images, "--annotations", annotations]
    command = ["train-people", *sets, "--start", "none.safetensors", "--output", str(tmp_path / "run")]
    assert main(command) == 1
    assert "one folder for each file" in capsys.readouterr().err
