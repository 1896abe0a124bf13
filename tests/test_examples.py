"""Every example runs as its first line says, and is short enough to read."""

import json
import re
import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from diffusionpose.bundled import PORTRAIT as PHOTO
from diffusionpose.data.annotations import read_annotations
from diffusionpose.models.checkpoints import save_model
from diffusionpose.models.zoo import create_model
from diffusionpose.skeletons import get_skeleton

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
# decodes with NumPy alone; measurements of the docs
LONGER = {"onnx_pose.py", "refine_errors.py", "audit_faults.py", "crowds_and_hidden.py", "smoothing.py"}
LONGER |= {"audit_folds.py", "hypotheses.py", "clicks.py", "accuracy_and_time.py"}


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """What an example prints, run in this process, which has PyTorch already."""

    def call(example: str, *arguments: object) -> str:
        path = str(ROOT / "examples" / example)
        monkeypatch.setattr(sys, "argv", [path, *map(str, arguments)])
        runpy.run_path(path, run_name="__main__")
        return capsys.readouterr().out

    return call


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_an_example_is_under_25_lines_and_says_how_it_is_called(example):
    lines = example.read_text(encoding="utf-8").splitlines()
    assert len(lines) < 25 or example.name in LONGER
    assert re.search(rf"python (?:examples/)?{example.name}", " ".join(lines[:10]))


def test_first_pose_prints_the_joints_of_the_person(run):
    lines = run("first_pose.py", PHOTO).splitlines()
    assert len(lines) == 19
    assert lines[0].split()[:2] == ["0", "nose"]


def test_several_people_finds_two_poses_in_each_picture(run):
    lines = run("several_people.py", PHOTO, PHOTO).splitlines()
    assert [": person 0," in line for line in lines] == [True, False, True, False]


def test_table_has_the_scores_of_all_pictures_by_joint_the_least_sure_first(run, tmp_path):
    """Against the scores of each picture, as first_pose.py prints them."""
    other = tmp_path / "mirrored.png"
    with Image.open(PHOTO) as photo:
        ImageOps.mirror(photo).save(other)
    scores = {}
    for photo in (PHOTO, other):
        for line in run("first_pose.py", photo).splitlines():
            _, joint, *_, score = line.split()
            scores.setdefault(joint, []).append(float(score))
    rows = [line.split() for line in run("table.py", PHOTO, other).splitlines()[2:]]
    means = [float(mean) for _, mean, _ in rows]
    assert means == sorted(means)
    assert {joint for joint, *_ in rows} == scores.keys()
    for joint, mean, least in rows:
        assert float(mean) == pytest.approx(sum(scores[joint]) / 2, abs=0.0101)
        assert float(least) == pytest.approx(min(scores[joint]), abs=0.0101)


def test_steps_begin_at_the_coarse_pose_and_move_the_joints(run):
    lines = run("steps.py", PHOTO).splitlines()
    moved = [float(line.split()[-7]) for line in lines]
    assert moved[0] == 0
    assert len(moved) == 4
    assert min(moved[1:]) > 0


def test_own_skeleton_trains_and_finds_the_arms(run, tmp_path):
    out = run("own_skeleton.py", tmp_path, 1)
    assert "left_wrist" in out
    assert (tmp_path / "run" / "model.safetensors").is_file()


def test_compare_reports_both_models(run, synthetic_set, tiny_weights):
    images, annotations = synthetic_set
    lines = run("compare.py", images, annotations, tiny_weights, tiny_weights).splitlines()
    assert [line.split(":")[0] for line in lines] == ["AP", "AP50", "AP75", "AR", "PCK", "PCK_limbs"]
    for line in lines:
        one, other = re.findall(r"(0\.\d{3})", line)[:2]
        assert one == other
        assert line.endswith("difference +0.000 to +0.000")


def test_crowds_and_hidden_counts_persons_and_joints_by_themselves(run, tmp_path):
    """Two who overlap, of which the first method has one wrong, and one alone with a hidden joint wrong."""
    rng, places = np.random.default_rng(0), [(0, 0), (40, 20), (300, 0)]
    persons, rows = [], ([], [])
    for number, place in enumerate(places, start=1):
        keypoints = np.concatenate([rng.uniform(10, 90, (17, 2)) + place, np.full((17, 1), 2)], axis=1)
        keypoints[0, 2] = 1 if number == 3 else 2
        box = [*place, 100, 100]
        persons.append(
            {"id": number, "image_id": 1, "category_id": 1, "iscrowd": 0, "bbox": box, "area": 5000.0}
            | {"keypoints": keypoints.ravel().tolist(), "num_keypoints": 17}
        )
        for method in (0, 1):
            points = keypoints.copy()
            if method == 0:
                points[:, :2] += 200 * (number == 1)
                points[0, :2] += 200 * (number == 3)
            row = {"image_id": 1, "category_id": 1, "keypoints": points.ravel().tolist(), "score": 1 / number}
            rows[method].append(row | {"box": [*place, place[0] + 100, place[1] + 100]})
    content = {
        "images": [{"id": 1, "file_name": "1.jpg", "width": 500, "height": 300}],
        "annotations": persons,
    }
    category = {"id": 1, "name": "person", "keypoints": list(get_skeleton("coco").joints), "skeleton": []}
    files = [tmp_path / name for name in ("truth.json", "first.json", "second.json")]
    for path, written in zip(files, (content | {"categories": [category]}, *rows), strict=True):
        path.write_text(json.dumps(written))
    parts = re.split(r"^(?=\w)", run("crowds_and_hidden.py", *files), flags=re.MULTILINE)[1:]
    found = {part.split(":")[0]: part for part in parts}
    counts = [int(re.search(r": (\d+) persons", part)[1]) for part in parts]
    assert counts == [3, 2, 1, 3, 1]
    first = {name: float(re.search(r"AP50: ([\d.]+) and 100.0", part)[1]) for name, part in found.items()}
    assert first["persons that overlap others"] < 100
    assert first["persons by themselves"] == 100
    assert first["hidden joints"] == 0


def test_refine_errors_makes_results_that_are_worse_than_the_truth_and_scores_them(
    run, synthetic_set, tmp_path
):
    _, annotations = synthetic_set
    shares = run("refine_errors.py", "make", annotations, tmp_path / "errors.json")
    assert all(float(share.rstrip("%")) <= 100 for share in re.findall(r"[\d.]+%", shares))
    table = run("refine_errors.py", "score", annotations, tmp_path / "errors.json")
    assert 0.1 < float(re.search(r"^AP +([\d.]+)", table, re.MULTILINE)[1]) < 1


def test_refine_errors_has_a_table_of_starts_and_of_what_refines_them(
    run, synthetic_set, tiny_weights, tmp_path
):
    images, annotations = synthetic_set
    weights = [tmp_path / f"{name}.safetensors" for name in ("diffusionpose_tiny", "posefix_tiny")]
    for path in weights:
        save_model(create_model(path.stem, read_annotations(annotations).skeleton), path)
    run("refine_errors.py", "make", annotations, tmp_path / "errors.json")
    itself = run("refine_errors.py", "score", annotations, tmp_path / "errors.json")
    lines = run("refine_errors.py", "table", annotations, images, *weights).splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert cells[0] == ["start", "itself", *(f"refined by {path.name}" for path in weights)]
    assert [row[0] for row in cells[2:]] == ["errors as PoseFix's", "poses of diffusionpose_tiny.safetensors"]
    expected = 100 * float(re.search(r"^AP +([\d.]+)", itself, re.MULTILINE)[1])
    assert float(cells[2][1].split(",")[0]) == pytest.approx(expected, abs=0.06)


def test_audit_faults_measures_precision_and_recall_of_each_kind(run, synthetic_set):
    images, annotations = synthetic_set
    lines = run("audit_faults.py", annotations, images, 2).splitlines()
    assert lines[0].startswith("2 labels, faults in 1, 200 draws")
    assert len(lines) == 7


def test_audit_folds_puts_faults_in_and_counts_those_listed_first(run, monkeypatch, synthetic_set, tmp_path):
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    faulty, audit = tmp_path / "faulty.json", tmp_path / "audit.json"
    run("audit_folds.py", synthetic_set[1], faulty)
    entries = json.loads(faulty.read_text())["annotations"]
    faults = [entry["id"] for entry in entries if "fault" in entry]
    assert len(faults) == round(0.05 * len(entries))
    for first, share in ((faults, "1.00"), ([], "0.00")):
        labels = [*first, *(entry["id"] for entry in entries if "fault" not in entry)]
        audit.write_text(json.dumps({"labels": [{"annotation": label} for label in labels]}))
        assert f"of {len(faults)} ({share})" in run("audit_folds.py", faulty, audit)


def test_accuracy_and_time_has_a_line_for_each_setting(run, synthetic_set, light_weights):
    lines = run("accuracy_and_time.py", *synthetic_set, light_weights).splitlines()
    assert [("'steps': 0" in line, "'flip': False" in line) for line in lines[:2]] == [
        (True, True),
        (True, False),
    ]
    assert len(lines) == 8
    assert all(re.search(r"AP \d+\.\d, \d+ ms$", line) for line in lines)
