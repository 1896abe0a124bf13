"""A study from start to end: files, sharing, resuming, failing rows, other data; means over seeds."""

import json
import shutil
import signal
import statistics
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
from diffusionpose.training.report import markdown, plot
from diffusionpose.training.reproduce import Run, reproduce, summary
from diffusionpose.training.studies import BUDGETS, STUDIES, Budget, Request, Row

RUN = "runs/diffusionpose-seed0"


@pytest.fixture(scope="module")
def budget(tiny):
    """The tiny model, two epochs of three steps."""
    base = replace(tiny, options={"width": 8}, epochs=2, batch_size=8, val_every=2)
    return Budget("tiny", "the tiny model", base, "tiny", "tiny_unet")


@pytest.fixture(scope="module")
def ask(images, budget):
    """A request for the first and the last row of Table 7, or what is given instead."""
    with pytest.MonkeyPatch.context() as patch:
        table7 = STUDIES["table7"]
        patch.setitem(STUDIES, "table7", replace(table7, rows=(table7.rows[1], table7.rows[4])))
        patch.setitem(BUDGETS, "tiny", budget)

        def request(output, **changes):
            files = {"images": (images.images,), "annotations": (images.annotations,)}
            files |= {"val_images": images.images, "val_annotations": images.annotations}
            usual = {"study": "table7", "budget": "tiny", "accelerator": "cpu", "workers": 0, "parallel": 2}
            return Request(**{**usual, **files, "output": output, **changes})

        yield request


def silent(line):
    pass


def numbers(report: Path):
    """What a report measured, without times."""
    rows = json.loads(report.read_text())["rows"]
    return [{name: row[name] for name in ("label", "AP", "AR", "PCK", "PCK_limbs")} for row in rows]


@pytest.fixture(scope="module")
def studied(ask, tmp_path_factory) -> Path:
    """Two trainings of two epochs that nothing interrupted."""
    output = tmp_path_factory.mktemp("study")
    said = []
    files, failures = reproduce(ask(output), said.append)
    assert failures == []
    assert files == [output / f"table7.{kind}" for kind in ("md", "json", "png")]
    assert sum("begins" in line for line in said) == 2
    epochs = [line for line in said if " epoch " in line]
    assert len(epochs) == 4
    assert all(line[0] == "[" and line.endswith("left") for line in epochs)
    return output


@pytest.fixture
def copy(studied, tmp_path) -> Path:
    return shutil.copytree(studied, tmp_path / "copy")


def test_the_numbers_are_those_of_evaluate(studied, images, budget):
    model = load_model(studied / RUN / "model.safetensors")
    base = budget.base
    report = evaluate(model, images.annotations, images.images, decode=base.decode, flip=base.flip, steps=1)
    row = json.loads((studied / "table7.json").read_text())["rows"][0]
    for name in ("AP", "AR", "PCK", "PCK_limbs"):
        assert row[name]["mean"] == pytest.approx(report.metrics[name], abs=1e-9), name
    assert (row["PCK"]["low"], row["PCK"]["high"]) == pytest.approx(report.intervals["PCK"])
    mean_pose = evaluate_mean_pose(images.annotations, images.annotations).metrics
    facts = json.loads((studied / "table7.json").read_text())["data"]
    assert facts["mean_pose"]["PCK"] == pytest.approx(mean_pose["PCK"])


def test_the_table_holds_our_numbers_beside_the_papers(studied):
    text = (studied / "table7.md").read_text()
    lines = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("|")]
    assert len({len(line) for line in lines}) == 1, "every row has every column"
    header, _, *rows = [[cell.strip() for cell in line] for line in lines]
    table = [dict(zip(header, row, strict=True)) for row in rows]
    assert [row["zeta, paper"] for row in table] == ["0.05", "1.00", "mean pose of the training set"]
    assert [row["AP, paper"] for row in table] == ["75.4", "70.7", "-"]
    assert [row["AR, paper"] for row in table] == ["80.5", "77.5", "-"]
    found = json.loads((studied / "table7.json").read_text())["rows"]
    for row, one in zip(table, found, strict=False):
        assert float(row["PCK"].split()[0]) == pytest.approx(100 * one["PCK"]["mean"], abs=0.05)
    assert "the tiny model, 8 persons a step, boxes: ground truth" in " ".join(text.split())


def test_the_picture_is_one(studied):
    with Image.open(studied / "table7.png") as image:
        assert min(image.size) > 500
        assert len(image.convert("RGB").getcolors(1 << 24)) > 50


def test_a_second_call_trains_and_measures_nothing(copy, ask):
    before = {path: path.stat().st_mtime_ns for path in copy.glob("runs/**/*") if path.is_file()}
    said = []
    assert reproduce(ask(copy), said.append)[1] == []
    assert said == ["table7: runs to do 0, trained and measured already 2"]
    assert {path: path.stat().st_mtime_ns for path in copy.glob("runs/**/*") if path.is_file()} == before


def test_a_setting_that_an_older_version_did_not_know_has_its_default(copy, ask):
    file, said = copy / "reproduce.json", []
    entries = json.loads(file.read_text())
    del entries["budget"]["sync_batchnorm"]
    file.write_text(json.dumps(entries))
    reproduce(ask(copy), said.append)
    assert said == ["table7: runs to do 0, trained and measured already 2"]
    del entries["budget"]["ema_decay"]  # 0.99 here, 0 by default
    file.write_text(json.dumps(entries))
    with pytest.raises(InputError, match="other budget"):
        reproduce(ask(copy), pytest.fail)


def test_another_study_shares_the_run(copy, ask):
    """Figure 4 needs more measurements of it, but no training."""
    said = []
    checkpoint = (copy / RUN / "checkpoints" / "last.ckpt").stat().st_mtime_ns
    assert reproduce(ask(copy, study="figure4"), said.append)[1] == []
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
    reproduce(ask(copy), silent)
    first, second = numbers(copy / "table7.json")
    assert first["PCK"] == second["PCK"]


def test_killed_and_started_again_it_ends_in_the_same_numbers(studied, ask, images, budget, tmp_path):
    program = Path(__file__).with_name("killed_study.py")
    words = [json.dumps(budget.base.to_dict()), images.images, images.annotations, tmp_path]
    killed = subprocess.run([sys.executable, program, *map(str, words)], capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert wait_for_the_end_of(str(tmp_path)), "the training outlives whoever started it"
    assert not (tmp_path / RUN / "evaluation").exists()
    said = []
    assert reproduce(ask(tmp_path, study="figure4"), said.append)[1] == []
    epochs = [line.split()[3] for line in said if " epoch " in line]
    assert epochs == ["2/2"]
    model = f"{RUN}/model.safetensors"
    assert (tmp_path / model).read_bytes() == (studied / model).read_bytes()
    assert numbers(tmp_path / "figure4.json")[1]["PCK"] == numbers(studied / "table7.json")[0]["PCK"]


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


def test_a_row_that_fails_is_reported_and_the_others_are_done(copy, ask, monkeypatch):
    broken = Row("5", "diffusionpose-s5", (1.0, 2.0), {"stride": 5})
    study = STUDIES["table7"]
    monkeypatch.setitem(STUDIES, "table7", replace(study, rows=(broken, *study.rows)))
    before = numbers(copy / "table7.json")
    _, (failure,) = reproduce(ask(copy), silent)
    assert failure.startswith("diffusionpose-s5-seed0: ")
    assert "no multiple of heatmap stride 5" in failure
    assert numbers(copy / "table7.json")[1:] == before
    assert "## Not done" in (copy / "table7.md").read_text()
    assert "no multiple of heatmap stride 5" in (copy / "table7.md").read_text()


def test_other_data_or_settings_are_refused_before_any_training(
    copy, ask, budget, images, tmp_path, monkeypatch
):
    shorter = json.loads(images.annotations.read_text())
    shorter["annotations"] = shorter["annotations"][:-1]
    other = tmp_path / "other.json"
    other.write_text(json.dumps(shorter))
    with pytest.raises(InputError, match="other validation annotations"):
        reproduce(ask(copy, val_annotations=other), pytest.fail)
    with pytest.raises(InputError, match="other training annotations"):
        reproduce(ask(copy, annotations=(other,)), pytest.fail)
    with pytest.raises(InputError, match="other skeleton"):
        reproduce(ask(copy, skeleton="crowdpose"), pytest.fail)
    longer = replace(budget, base=replace(budget.base, epochs=3))
    monkeypatch.setitem(BUDGETS, "tiny", longer)
    with pytest.raises(InputError, match=r"reproduce\.json: .* other budget; .* another --output"):
        reproduce(ask(copy), pytest.fail)
    (copy / "reproduce.json").write_text("{")
    with pytest.raises(InputError, match=r"reproduce\.json: not a JSON file"):
        reproduce(ask(copy), pytest.fail)


def test_figure_5_shows_its_pictures_and_says_when_a_model_is_missing(copy, ask):
    request = ask(copy, study="figure5", pictures=2)
    assert reproduce(request, silent)[1] == []
    shown = json.loads((copy / "figure5.json").read_text())["pictures"]["shown"]
    assert len(shown) == 2
    assert ", ".join(shown) in (copy / "figure5.md").read_text()
    with Image.open(copy / "figure5.png") as image:
        assert image.height > image.width > 300
    reproduce(request, silent)
    assert json.loads((copy / "figure5.json").read_text())["pictures"]["shown"] == shown
    (copy / "runs" / "baseline-seed0" / "model.safetensors").write_bytes(b"")
    _, failures = reproduce(request, silent)
    assert any("baseline-seed0" in failure for failure in failures)
    assert "figure5: not drawn, since a model is missing" in failures


# Reports of results that were never measured


def result(ap, pck=None):
    return {
        "AP": ap,
        "AR": ap + 0.1,
        "PCK": pck,
        "intervals_95": {} if pck is None else {"PCK": [pck - 0.02, pck + 0.03]},
        "parameters": 4_000_000,
        "multiply_adds": 140_000_000,
        "training_seconds": 100.0,
    }


FACTS = {
    "skeleton": "crowdpose",
    "boxes": "ground truth",
    "train": {},
    "val": {"val.json": 195},
    "mean_pose": {"AP": 0.001, "AR": 0.01, "PCK": 0.049, "PCK_limbs": None},
}
TINY, TABLE7 = BUDGETS["tiny"], STUDIES["table7"]


@pytest.fixture
def report(ask, tmp_path, monkeypatch):
    """The entries of a study's report from (AP, PCK) or None for every training, seed by seed."""

    def entries(name, values, seeds=1, failed=None):
        monkeypatch.setitem(STUDIES, "table7", TABLE7)
        rows = STUDIES[name].rows
        request = ask(tmp_path, study=name)
        runs = [
            Run(request, row, row.settings(TINY, "crowdpose", seed)) for seed in range(seeds) for row in rows
        ]
        found = dict(zip([run.name for run in runs], values, strict=True)) if name != "figure4" else {}
        monkeypatch.setattr(
            Run,
            "result",
            lambda run: (value := found.get(run.name, values[0])) and result(*value),
        )
        return {
            "budget": {"words": TINY.words, "base": TINY.base.to_dict()},
            "data": FACTS,
            "seeds": seeds,
            "persons_per_step": 32,
            "rows": [summary([run for run in runs if run.row == row], failed or {}) for row in rows],
            "command": "diffusionpose reproduce",
            "machine": "a computer",
            "versions": {},
        }

    return entries


def cells_of(text, label):
    (line,) = (line for line in text.splitlines() if line.startswith(f"| {label} |"))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_mean_and_spread_over_seeds(report):
    entries = report("table6", [(0.10 + 0.01 * k, 0.5) for k in range(8)], seeds=2)
    assert [row["label"] for row in entries["rows"]] == ["8", "4", "2", "1"]
    for k, row in enumerate(entries["rows"]):
        own = [0.10 + 0.01 * k, 0.10 + 0.01 * (k + 4)]
        assert row["AP"]["values"] == pytest.approx(own)
        assert row["AP"]["mean"] == pytest.approx(statistics.fmean(own))
        assert row["AP"]["high"] - row["AP"]["mean"] == pytest.approx(statistics.stdev(own))
        assert "failure" not in row
    text = markdown(STUDIES["table6"], entries)
    assert cells_of(text, "8")[:3] == ["8", "12x8", "12.0 (9.2 to 14.8)"]
    assert "2 trainings" in text


def test_a_row_with_one_of_two_seeds_has_no_spread(report):
    """Its interval over persons cannot be compared with the spreads of the other rows."""
    row = report("table5", [(0.2, 0.4)] * 4 + [None] + [(0.2, 0.4)] * 3, seeds=2)["rows"][0]
    assert row["PCK"]["low"] == row["PCK"]["mean"] == row["PCK"]["high"]
    assert "seed1" in row["failure"]


def test_one_seed_has_intervals_and_no_spread(report):
    text = markdown(STUDIES["table7"], report("table7", [(0.2, 0.4)] * 5))
    assert cells_of(text, "0.05") == [
        "0.05", "0.1333 (31.3 %)", "20.0", "30.0", "40.0 (38.0 to 43.0)", "-",
        "4 M", "0.14 G", "75.4", "80.5",
    ]  # fmt: skip
    assert cells_of(text, "mean pose of the training set")[2:6] == ["0.1", "1.0", "4.9", "-"]
    assert "195 persons of val.json, skeleton crowdpose: MobileNetV2 at 96x64" in " ".join(text.split())


def test_a_missing_measurement_is_a_failure_of_its_row_alone(report):
    entries = report("table5", [(0.2,), None, (0.3,), (0.4,)], failed={"diffusionpose-features-seed0": "no"})
    rows = entries["rows"]
    assert [row.get("failure") for row in rows] == [None, "diffusionpose-features-seed0: no", None, None]
    assert rows[1]["AP"] is None
    assert rows[2]["PCK"] is None
    assert "- features: diffusionpose-features-seed0: no" in markdown(STUDIES["table5"], entries)


@pytest.mark.parametrize(
    ("name", "missing"), [("table5", 1), ("table6", "all"), ("table7", 0), ("figure4", 0), ("figure4", "all")]
)
def test_plots_are_drawn_with_what_there_is(name, missing, report, tmp_path):
    count = 1 if name == "figure4" else len(STUDIES[name].rows) + 3 * (name == "table7")
    values = [(0.2 + 0.02 * k, 0.4) for k in range(count)]
    values = [None] * len(values) if missing == "all" else [None] * missing + values[missing:]
    plot(STUDIES[name], report(name, values)["rows"]).savefig(tmp_path / "plot.png")
    with Image.open(tmp_path / "plot.png") as image:
        assert len(image.convert("RGB").getcolors(1 << 24)) > 20
