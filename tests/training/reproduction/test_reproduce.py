"""A study from start to end: files, sharing, resuming, failing rows, other data."""

import json
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from PIL import Image

from diffusionpose.errors import InputError
from diffusionpose.evaluation.evaluate import evaluate, evaluate_mean_pose
from diffusionpose.models.checkpoints import load_model
from diffusionpose.training.reproduce import Data, reproduce
from diffusionpose.training.studies import STUDIES, Variant

RUN = "runs/diffusionpose-seed0"


def numbers(report: Path):
    """What a report measured, without times."""
    rows = json.loads(report.read_text())["rows"]
    return [{name: row[name] for name in ("label", "AP", "AR", "PCK", "PCK_limbs")} for row in rows]


@pytest.fixture(scope="module")
def finished(ask, tmp_path_factory) -> Path:
    """Two trainings of three epochs that nothing interrupted."""
    output = tmp_path_factory.mktemp("finished")
    said = []
    outcome = reproduce(ask(output), said.append)
    assert outcome.failures == []
    assert outcome.files == [output / f"table7.{kind}" for kind in ("md", "json", "png")]
    assert sum("begins" in line for line in said) == 2
    epochs = [line for line in said if " epoch " in line]
    assert len(epochs) == 6
    assert all(line.endswith("of all") and line[0] == "[" for line in epochs)
    return output


@pytest.fixture
def copy(finished, tmp_path) -> Path:
    return shutil.copytree(finished, tmp_path / "copy")


def test_the_numbers_are_those_of_evaluate(finished, images, budget):
    model = load_model(finished / RUN / "model.safetensors")
    how = budget.base
    report = evaluate(model, images.annotations, images.images, decode=how.decode, flip=how.flip, steps=1)
    row = json.loads((finished / "table7.json").read_text())["rows"][0]
    for name in ("AP", "AR", "PCK", "PCK_limbs"):
        assert row[name]["mean"] == pytest.approx(report.metrics[name], abs=1e-9), name
    assert row["PCK"]["intervals_95"][0] == pytest.approx(report.intervals["PCK"])
    mean_pose = evaluate_mean_pose(images.annotations, images.annotations).metrics
    facts = json.loads((finished / "table7.json").read_text())["data"]
    assert facts["mean_pose"]["PCK"] == pytest.approx(mean_pose["PCK"])


def test_the_table_holds_our_numbers_beside_the_papers(finished):
    text = (finished / "table7.md").read_text()
    lines = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("|")]
    assert len({len(line) for line in lines}) == 1, "every row has every column"
    header, _, *rows = [[cell.strip() for cell in line] for line in lines]
    table = [dict(zip(header, row, strict=True)) for row in rows]
    assert [row["zeta, paper"] for row in table] == ["0.05", "1.00", "mean pose of the training set"]
    assert [row["AP, paper"] for row in table] == ["75.4", "70.7", "-"]
    assert [row["AR, paper"] for row in table] == ["80.5", "77.5", "-"]
    found = json.loads((finished / "table7.json").read_text())["rows"]
    for row, one in zip(table, found, strict=False):
        assert float(row["PCK"].split()[0]) == pytest.approx(100 * one["PCK"]["mean"], abs=0.05)
    assert "The paper's numbers and ours are not the same measurement" in text
    assert "the tiny model" in text


def test_the_picture_is_one(finished):
    with Image.open(finished / "table7.png") as image:
        assert min(image.size) > 500
        assert len(image.convert("RGB").getcolors(1 << 24)) > 50


def test_a_second_call_trains_and_measures_nothing(copy, ask):
    before = {path: path.stat().st_mtime_ns for path in copy.glob("runs/**/*") if path.is_file()}
    said, began = [], time.monotonic()
    assert reproduce(ask(copy), said.append).failures == []
    assert said == ["table7: runs to do 0, trained and measured already 2"]
    assert time.monotonic() - began < 20
    assert {path: path.stat().st_mtime_ns for path in copy.glob("runs/**/*") if path.is_file()} == before


def test_a_setting_that_an_older_version_did_not_know_has_its_default(copy, ask):
    for file in (copy / "reproduce.json", *copy.glob("runs/*/evaluation/*.json")):
        entries = json.loads(file.read_text())
        del entries["key"]["budget" if file.name == "reproduce.json" else "settings"]["sync_batchnorm"]
        file.write_text(json.dumps(entries))
    said = []
    reproduce(ask(copy), said.append)
    assert said == ["table7: runs to do 0, trained and measured already 2"]
    entries = json.loads((copy / "reproduce.json").read_text())
    del entries["key"]["budget"]["ema_decay"]  # 0.99 here, 0 by default
    (copy / "reproduce.json").write_text(json.dumps(entries))
    with pytest.raises(InputError, match="other budget"):
        reproduce(ask(copy), pytest.fail)


def test_another_study_shares_the_run(copy, ask):
    """Figure 4 needs more measurements of it, but no training."""
    said = []
    checkpoint = (copy / RUN / "checkpoints" / "last.ckpt").stat().st_mtime_ns
    assert reproduce(ask(copy, study=STUDIES["figure4"]), said.append).failures == []
    assert not any(" epoch " in line for line in said)
    assert (copy / RUN / "checkpoints" / "last.ckpt").stat().st_mtime_ns == checkpoint
    rows = json.loads((copy / "figure4.json").read_text())["rows"]
    assert numbers(copy / "figure4.json")[1]["AP"] == numbers(copy / "table7.json")[0]["AP"]
    costs = [row["multiply_adds"] for row in rows]
    steps = [b - a for a, b in pairwise(costs)]
    assert steps == [steps[0]] * 5, "linear in the number of steps"
    assert steps[0] > 0


def test_a_replaced_model_is_measured_anew(copy, ask):
    other = "runs/diffusionpose-zeta1.00-seed0"
    shutil.copy(copy / other / "model.safetensors", copy / RUN / "model.safetensors")
    reproduce(ask(copy), lambda line: None)
    first, second = numbers(copy / "table7.json")
    assert first["PCK"] == second["PCK"]


def test_killed_and_started_again_it_ends_in_the_same_numbers(finished, ask, images, budget, tmp_path):
    program = Path(__file__).with_name("killed.py")
    words = [json.dumps(budget.base.to_dict()), images.images, images.annotations, tmp_path]
    killed = subprocess.run([sys.executable, program, *map(str, words)], capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert wait_for_the_end_of(str(tmp_path)), "the training outlives whoever started it"
    assert not (tmp_path / RUN / "evaluation").exists()
    said = []
    assert reproduce(ask(tmp_path, study=STUDIES["figure4"]), said.append).failures == []
    epochs = [line.split()[3] for line in said if " epoch " in line]
    assert "1/3" not in epochs
    assert epochs[-1] == "3/3"
    model = f"{RUN}/model.safetensors"
    assert (tmp_path / model).read_bytes() == (finished / model).read_bytes()
    assert numbers(tmp_path / "figure4.json")[1]["PCK"] == numbers(finished / "table7.json")[0]["PCK"]


def wait_for_the_end_of(word: str, seconds: float = 20) -> bool:
    """Whether every process with ``word`` on its command line ends in time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if not any(word.encode() in command_line(process) for process in Path("/proc").glob("[0-9]*")):
            return True
        time.sleep(0.1)
    return False


def command_line(process: Path) -> bytes:
    try:
        return (process / "cmdline").read_bytes()
    except OSError:
        return b""


def test_a_row_that_fails_is_reported_and_the_others_are_done(copy, ask):
    study = ask(copy).study
    broken = Variant("5", "diffusionpose-s5", 1.0, 2.0, stride=5)
    request = ask(copy, study=replace(study, variants=(broken, *study.variants)))
    before = numbers(copy / "table7.json")
    outcome = reproduce(request, lambda line: None)
    (failure,) = outcome.failures
    assert failure.startswith("diffusionpose-s5-seed0: ")
    assert "no multiple of heatmap stride 5" in failure
    assert numbers(copy / "table7.json")[1:] == before
    assert "## Not done" in (copy / "table7.md").read_text()
    assert "no multiple of heatmap stride 5" in (copy / "table7.md").read_text()


def test_other_data_or_settings_are_refused_before_any_training(copy, ask, budget, images, tmp_path):
    longer = replace(budget, base=replace(budget.base, epochs=4))
    with pytest.raises(InputError, match=r"reproduce\.json: .* other budget; .* another --output"):
        reproduce(ask(copy, budget=longer), pytest.fail)
    shorter = json.loads(images.annotations.read_text())
    shorter["annotations"] = shorter["annotations"][:-1]
    (tmp_path / "other.json").write_text(json.dumps(shorter))
    other = replace(images, annotations=tmp_path / "other.json")
    with pytest.raises(InputError, match="other validation annotations"):
        reproduce(ask(copy, data=Data((images,), other)), pytest.fail)
    with pytest.raises(InputError, match="other training annotations"):
        reproduce(ask(copy, data=Data((other,), images)), pytest.fail)
    with pytest.raises(InputError, match="other skeleton"):
        reproduce(ask(copy, skeleton="crowdpose"), pytest.fail)
    (copy / "reproduce.json").write_text("{")
    with pytest.raises(InputError, match="cannot be read"):
        reproduce(ask(copy), pytest.fail)
