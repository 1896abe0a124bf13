import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from diffusionpose import create_model, load_model, save_model
from diffusionpose.data.annotations import read_annotations
from diffusionpose.evaluation.evaluate import evaluate

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def weights(people: tuple[Path, Path], tmp_path: Path) -> Path:
    torch.manual_seed(0)
    model = create_model("diffusionpose_tiny", read_annotations(people[1]).skeleton, input_size=(48, 64))
    save_model(model, tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


@pytest.fixture
def evaluated(
    run: Run, people: tuple[Path, Path], weights: Path, tmp_path: Path
) -> Callable[..., tuple[int, str, str, dict]]:
    """``evaluate`` on the people: status, stdout, stderr, metrics.json."""

    def call(*words: object, model: Path | None = weights) -> tuple[int, str, str, dict]:
        base = [
            "--images",
            people[0],
            "--annotations",
            people[1],
            "--output",
            tmp_path / "out",
            "--workers",
            0,
        ]
        base += ["--device", "cpu"] + ([] if model is None else ["--weights", model])
        ended = run("evaluate", *base, *words)
        file = tmp_path / "out" / "metrics.json"
        return *ended, json.loads(file.read_text()) if file.exists() else {}

    return call


Evaluated = Callable[..., tuple[int, str, str, dict]]


def change(path: Path, edit: Callable[[dict], None]) -> None:
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


def test_the_table_and_the_files_hold_the_metrics(
    evaluated: Evaluated, people: tuple[Path, Path], weights: Path, tmp_path: Path
) -> None:
    status, out, err, metrics = evaluated()
    assert (status, err) == (0, "")
    report = evaluate(load_model(weights), people[1], people[0])
    assert {"AP", "AP50", "AP75", "AR"} <= set(report.metrics)
    for name, value in report.metrics.items():
        assert metrics[name] == (None if value is None else pytest.approx(value, abs=1e-6))
        assert name in out
    assert metrics["box_source"] == "ground truth"
    assert metrics["model"] == str(weights)
    assert "ground truth" in out
    rows = json.loads((tmp_path / "out" / "keypoints.json").read_text())
    assert len(rows) == len(report.results) > 0
    assert {"image_id", "keypoints", "score", "box", "file_name"} <= set(rows[0])


def test_worker_processes_give_the_same(evaluated: Evaluated) -> None:
    plain = evaluated()[3]
    status, _, err, metrics = evaluated("--workers", 2, "--batch-size", 5)
    assert (status, err) == (0, "")
    assert metrics["AP"] == pytest.approx(plain["AP"], abs=1e-6)
    assert metrics["counts"] == plain["counts"]


def test_options_reach_the_evaluation(evaluated: Evaluated, people: tuple[Path, Path]) -> None:
    _, _, _, metrics = evaluated("--steps", 0, "--no-flip", "--decode", "quarter")
    assert metrics["settings"] == {"decode": "quarter", "flip": False, "steps": 0}
    status, _, err, _ = evaluated("--steps", "-1")
    assert (status, "steps" in err) == (1, True)


def test_detected_boxes_are_named_as_the_source(
    evaluated: Evaluated, people: tuple[Path, Path], tmp_path: Path
) -> None:
    persons = json.loads(people[1].read_text())["annotations"]
    detections = [
        {"image_id": p["image_id"], "category_id": 1, "bbox": p["bbox"], "score": 0.5} for p in persons[:3]
    ]
    (tmp_path / "found.json").write_text(json.dumps(detections))
    status, out, _, metrics = evaluated("--boxes", tmp_path / "found.json")
    assert status == 0
    assert metrics["box_source"] == "detections found.json"
    assert "detections found.json" in out
    assert metrics["counts"]["boxes"] == 3
    (tmp_path / "found.json").write_text('[{"image_id": 1, "category_id": 1, "score": 0.5}]')
    status, _, err, _ = evaluated("--boxes", tmp_path / "found.json")
    assert status == 1
    assert "found.json" in err
    assert "'bbox'" in err


def test_the_mean_pose_has_its_row(evaluated: Evaluated, people: tuple[Path, Path]) -> None:
    status, _, err, metrics = evaluated("--mean-pose", people[1], model=None)
    assert (status, err) == (0, "")
    assert (metrics["model"], metrics["PCK"] > 0) == (f"mean pose of {people[1]}", True)


def test_missing_and_broken_pictures_are_named_and_the_rest_is_measured(
    evaluated: Evaluated, people: tuple[Path, Path]
) -> None:
    missing, cut, empty, letter = sorted(people[0].iterdir())[:4]
    missing.unlink()
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 3])
    empty.write_bytes(b"")
    letter.write_text("Dear Sir or Madam")
    for workers in (0, 1):
        status, out, err, metrics = evaluated("--workers", workers)
        assert status == 1
        assert "AP50" in out
        for path, complaint in (
            (missing, "no such file"),
            (cut, "cut short"),
            (empty, "empty"),
            (letter, "not a picture"),
        ):
            (line,) = [line for line in err.splitlines() if str(path) in line]
            assert line.startswith("diffusionpose: ")
            assert complaint in line
        assert len(metrics["failures"]) == 4
        assert metrics["counts"]["poses"] > 0
        assert metrics["counts"]["boxes without a pose"] > 0


def spoilt_keypoints(content: dict) -> None:
    content["annotations"][2]["keypoints"][4] = float("nan")


def short_keypoints(content: dict) -> None:
    content["annotations"][2]["keypoints"] = content["annotations"][2]["keypoints"][:-3]


def unknown_image(content: dict) -> None:
    content["annotations"][2]["image_id"] = 987654


@pytest.mark.parametrize(
    ("edit", "complaint"),
    [
        (spoilt_keypoints, "NaN"),
        (short_keypoints, "48 keypoint numbers"),
        (unknown_image, "987654"),
        (lambda content: content["images"][0].pop("file_name"), "'file_name'"),
    ],
)
def test_bad_entries_are_named_and_the_rest_is_measured(
    evaluated: Evaluated, people: tuple[Path, Path], edit: Callable[[dict], None], complaint: str
) -> None:
    change(people[1], edit)
    status, _, err, metrics = evaluated()
    assert status == 1
    assert err.startswith(f"diffusionpose: {people[1]}")
    assert complaint in err
    assert 0 <= metrics["AP"] <= 1
    assert complaint in metrics["failures"][0]


def test_boxes_without_area_are_named_and_the_rest_is_measured(
    evaluated: Evaluated, people: tuple[Path, Path]
) -> None:
    def edit(content: dict) -> None:
        content["annotations"][0]["bbox"][2] = 0
        content["annotations"][1]["bbox"][:2] = [5000, 5000]

    change(people[1], edit)
    status, _, err, metrics = evaluated()
    assert status == 1
    assert len(metrics["failures"]) == 1
    assert err.count("has no area inside") == 2
    assert metrics["counts"]["poses"] > 0


def test_a_model_of_other_joints_is_measured_on_those_that_both_have(
    evaluated: Evaluated, people: tuple[Path, Path], tmp_path: Path
) -> None:
    mine = read_annotations(people[1]).skeleton
    other = tmp_path / "other.safetensors"
    name = "crowdpose" if mine.name == "coco" else "coco"
    save_model(create_model("diffusionpose_tiny", name, input_size=(48, 64)), other)
    status, _, err, metrics = evaluated(model=other)
    assert (status, err.count("\n")) == (0, 1)
    assert f"measured on the 12 of its {mine.num_joints} joints that the model has" in err
    assert metrics["counts"]["poses"] > 0
    assert len(metrics["joints"]) == 12
    entry = json.loads((tmp_path / "out" / "keypoints.json").read_text())[0]
    assert entry["joints"] == metrics["joints"]
    assert len(entry["keypoints"]) == 36


def test_a_results_file_alone(
    evaluated: Evaluated, run: Run, people: tuple[Path, Path], tmp_path: Path
) -> None:
    metrics = evaluated()[3]
    words = ["--annotations", people[1], "--results", tmp_path / "out" / "keypoints.json"]
    status, out, err = run("evaluate", *words, "--output", tmp_path / "alone")
    assert (status, err) == (0, "")
    alone = json.loads((tmp_path / "alone" / "metrics.json").read_text())
    assert alone["AP"] == pytest.approx(metrics["AP"], abs=1e-3)
    assert alone["PCK"] == pytest.approx(metrics["PCK"])
    assert "keypoints.json" in out
    assert run("evaluate", *words, "--output", tmp_path / "alone", "--weights", "w.onnx")[0] == 2
    assert run("evaluate", "--annotations", people[1], "--output", tmp_path / "alone")[0] == 2


def test_a_skeleton_that_does_not_fit_the_file_is_refused(
    evaluated: Evaluated, people: tuple[Path, Path]
) -> None:
    status, _, err, _ = evaluated("--skeleton", "nonsense")
    assert (status, "coco, crowdpose, aic" in err) == (1, True)
    change(people[1], lambda content: content["categories"][0].update(keypoints=["a", "a"]))
    status, _, err, _ = evaluated()
    assert status == 1
    assert str(people[1]) in err


def test_an_output_below_a_file_is_refused(run: Run, people: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    words = ["--images", people[0], "--annotations", people[1], "--output", tmp_path / "file" / "out"]
    status, _, err = run("evaluate", *words)
    assert (status, str(tmp_path / "file" / "out") in err) == (1, True)


def test_the_program_itself_names_a_broken_picture_once(
    people: tuple[Path, Path], light_weights: Path, tmp_path: Path
) -> None:
    broken = min(people[0].iterdir())
    broken.write_bytes(b"")
    command = [sys.executable, "-m", "diffusionpose.app.cli", "evaluate", "--images", str(people[0])]
    command += ["--annotations", str(people[1]), "--output", str(tmp_path / "out")]
    command += ["--weights", str(light_weights), "--workers", "1"]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 1
    assert ended.stderr.count(str(broken)) == 1
    assert all(line.startswith("diffusionpose: ") for line in ended.stderr.splitlines())


def test_a_detector_gives_the_boxes_and_they_are_kept(
    evaluated: Evaluated, people: tuple[Path, Path], tmp_path: Path
) -> None:
    status, out, _, metrics = evaluated("--detector", "whole")
    assert status == 0
    assert "detector whole" in out
    assert metrics["box_source"] == "detector whole"
    kept = json.loads((tmp_path / "out" / "detections.json").read_text())
    records = read_annotations(people[1]).images
    assert [entry["bbox"] for entry in kept] == [[0, 0, r.width, r.height] for r in records.values()]
    assert {entry["image_id"] for entry in kept} == set(records)
    shutil.move(tmp_path / "out" / "detections.json", tmp_path / "kept.json")
    again = evaluated("--boxes", tmp_path / "kept.json")[3]
    assert again["AP"] == metrics["AP"]


def test_a_picture_that_no_detector_can_read_is_reported(
    evaluated: Evaluated, people: tuple[Path, Path]
) -> None:
    victim = sorted(people[0].iterdir())[0]
    victim.write_bytes(b"no picture")
    status, _, err, metrics = evaluated("--detector", "whole")
    assert status == 1
    assert str(victim) in err
    assert metrics["AP"] is not None


@pytest.mark.parametrize("words", [["--boxes", "b.json", "--detector", "whole"], ["--detector", "auto"]])
def test_which_boxes_are_measured_must_be_clear(evaluated: Evaluated, words: list[str]) -> None:
    status, _, err, metrics = evaluated(*words)
    assert status == 2
    assert "--detector" in err
    assert not metrics
