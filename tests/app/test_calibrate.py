"""``diffusionpose calibrate``, and what ``evaluate`` and ``predict`` then say."""

import json
import shutil

import pytest

from diffusionpose.calibration import calibration_file


@pytest.fixture
def weights(tiny_weights, tmp_path):
    """A copy of tiny weights that a calibration may be laid beside."""
    return shutil.copy(tiny_weights, tmp_path / "tiny.safetensors")


def test_a_calibrated_model_says_how_far_it_can_be_trusted(run, weights, synthetic_set, tmp_path):
    images, annotations = synthetic_set
    base = ["--images", images, "--annotations", annotations, "--weights", weights, "--device", "cpu"]
    before = run("evaluate", *base, "--output", tmp_path / "before")
    assert before.status == 0
    file = calibration_file(weights)
    ended = run("calibrate", *base, "--output", file, "--persons", 500)
    assert ended.status == 0, ended.err
    about = json.loads(file.read_text())["about"]
    assert list(about["persons"]) == [annotations.name]
    assert f"{sum(about['persons'].values())} persons" in ended.out
    after = run("evaluate", *base, "--output", tmp_path / "after")
    assert after.status == 0, after.err
    metrics = json.loads((tmp_path / "after" / "metrics.json").read_text())
    assert 0.8 < metrics["region_90"] < 1  # on the very persons it was fitted on
    assert metrics["ECE"] < 0.1
    assert sum(count for *_, count in metrics["reliability"]) > 100
    assert (tmp_path / "after" / "reliability.png").read_bytes().startswith(b"\x89PNG")
    assert "region_90" in after.out
    assert "ECE" not in before.out
    rows = [json.loads((tmp_path / name / "keypoints.json").read_text()) for name in ("before", "after")]
    assert "probabilities" not in rows[0][0]
    assert [row["keypoints"] for row in rows[0]] == [row["keypoints"] for row in rows[1]]
    again = run(
        "evaluate", "--results", tmp_path / "after" / "keypoints.json", *base[2:4], "--output", tmp_path
    )
    assert again.status == 0, again.err


def test_files_of_one_name_are_counted_together(run, synthetic_set, tmp_path):
    images, annotations = synthetic_set
    twice = ["--images", images, images, "--annotations", annotations, annotations]
    ended = run("calibrate", *twice, "--output", tmp_path / "c.json", "--persons", 4, "--device", "cpu")
    assert ended.status == 0, ended.err
    assert "8 persons" in ended.out
    assert json.loads((tmp_path / "c.json").read_text())["about"]["persons"] == {annotations.name: 8}


def test_a_file_without_hidden_joints_alone_is_refused_before_any_work(run, synthetic_set, tmp_path):
    content = json.loads(synthetic_set[1].read_text())
    for person in content["annotations"]:
        person["keypoints"][2::3] = [2 * (flag > 0) for flag in person["keypoints"][2::3]]
    (tmp_path / "people.json").write_text(json.dumps(content))
    words = ["--images", synthetic_set[0], "--output", tmp_path / "c.json", "--device", "cpu"]
    ended = run("calibrate", *words, "--annotations", tmp_path / "people.json")
    assert (ended.status, ended.err.count("\n")) == (1, 1)
    assert "people.json: labels no joint of the model as hidden" in ended.err


def test_folders_and_files_go_in_pairs(run, synthetic_set, tmp_path):
    images, annotations = synthetic_set
    words = ["--annotations", annotations, "--output", tmp_path / "c.json", "--device", "cpu"]
    assert run("calibrate", "--images", images, images, *words).status == 2
    ended = run("calibrate", "--images", images, *words, "--persons", 0)
    assert (ended.status, "--persons 0" in ended.err) == (2, True)
    ended = run("calibrate", "--images", tmp_path, *words)
    assert ended.status == 1
    assert "no picture of" in ended.err or "none of the pictures" in ended.err
    assert not (tmp_path / "c.json").exists()
