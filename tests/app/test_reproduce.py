"""``diffusionpose reproduce``: one study from flags to files, and bad input."""

import json
import os
from dataclasses import replace

import pytest
import torch

from diffusionpose.app.cli import _parse
from diffusionpose.models.checkpoints import load_model, save_model
from diffusionpose.models.zoo import create_model
from diffusionpose.training.recipes import get_recipe
from diffusionpose.training.reproduce import shares
from diffusionpose.training.studies import BUDGETS, STUDIES, Budget, Request


@pytest.fixture
def words(synthetic_set, tmp_path, monkeypatch):
    """A call with a tiny budget of seconds instead of minutes."""
    base = get_recipe("diffusionpose_tiny_synthetic")
    base = replace(base, precision="32", epochs=1, batch_size=8, options={"width": 8}, input_size=(64, 64))
    monkeypatch.setitem(BUDGETS, "tiny", Budget("tiny", "the tiny model", base, "tiny", "tiny_unet"))
    images, annotations = synthetic_set
    flags = {
        "--images": images,
        "--annotations": annotations,
        "--val-images": images,
        "--val-annotations": annotations,
        "--output": tmp_path / "out",
        "--budget": "tiny",
        "--workers": 0,
        "--accelerator": "cpu",
    }
    return [word for pair in flags.items() for word in pair]


def test_a_study_from_flags_to_files(run, words, tmp_path):
    ended = run("reproduce", "figure4", *words)
    assert (ended.status, ended.err) == (0, "")
    lines = ended.out.splitlines()
    assert lines[0] == "figure4: runs to do 1, trained and measured already 0"
    assert lines[-3:] == [str(tmp_path / "out" / f"figure4.{kind}") for kind in ("md", "json", "png")]
    entries = json.loads((tmp_path / "out" / "figure4.json").read_text())
    assert entries["data"]["skeleton"] == "coco", "that of the annotations"
    assert [row["label"] for row in entries["rows"]] == list("012345")
    assert entries["command"].startswith("diffusionpose")
    again = run("reproduce", "figure4", *words)
    assert again.out.splitlines()[0] == "figure4: runs to do 0, trained and measured already 1"
    assert len(again.out.splitlines()) == 4
    other = run("reproduce", "table7", *words, "--budget", "small")
    assert other.status == 1
    assert "other budget" in other.err


def test_heads_from_a_trained_model(run, words, tmp_path, monkeypatch):
    """Every training starts from it: rate 1e-12 leaves the weights that fit as they are."""
    budget = BUDGETS["tiny"]
    BUDGETS["tiny"] = replace(budget, base=replace(budget.base, learning_rate=1e-12, ema_decay=0.0))
    heads = STUDIES["heads"]
    monkeypatch.setitem(STUDIES, "heads", replace(heads, rows=(heads.rows[0], heads.rows[3])))
    trained = create_model("tiny", "coco", input_size=budget.base.input_size, unbiased=True)
    save_model(trained, tmp_path / "trained.safetensors")
    ended = run("reproduce", "heads", *words, "--weights", tmp_path / "trained.safetensors")
    assert (ended.status, ended.err) == (0, "")
    head = trained.state_dict()["head.weight"]
    for name, entry in (("baseline", "head.weight"), ("diffusionpose", "conv.weight")):
        weights = load_model(tmp_path / "out" / "runs" / f"{name}-seed0" / "model.safetensors").state_dict()
        key = next(key for key in weights if key.startswith("encoder.") and key.endswith("weight"))
        torch.testing.assert_close(weights[key], trained.state_dict()[key], atol=1e-6, rtol=1e-3)
        torch.testing.assert_close(weights[entry], head, atol=1e-6, rtol=1e-3)
    report = json.loads((tmp_path / "out" / "heads.json").read_text())
    assert "started from trained.safetensors" in report["budget"]["words"]
    costs = [row["multiply_adds"] for row in report["rows"]]
    assert costs[0] < costs[1]
    other = run("reproduce", "heads", *words)
    assert other.status == 1
    assert "other weights" in other.err


def test_no_pretrained_reaches_every_training_and_the_report(words):
    command = _parse(["reproduce", "table5", *map(str, words), "--no-pretrained", "--budget", "small"])
    budget = command.chosen_budget
    assert budget.base == replace(BUDGETS["small"].base, pretrained=False)
    assert "random weights" in budget.words
    assert BUDGETS["small"].base.pretrained


def test_a_failing_study_has_status_1_and_says_why(run, words, tmp_path):
    weights = tmp_path / "w.safetensors"
    weights.write_bytes(b"no weights")
    ended = run("reproduce", "figure4", *words, "--encoder-weights", weights)
    assert ended.status == 1
    assert "diffusionpose-seed0: " in ended.err
    assert "w.safetensors" in ended.err
    assert (tmp_path / "out" / "figure4.md").exists()


@pytest.mark.parametrize(
    ("more", "named"),
    [
        (["--images", "a", "b"], "--annotations"),
        (["--annotations", "nowhere.json"], "nowhere.json"),
        (["--val-annotations", "nowhere.json"], "nowhere.json"),
        (["--encoder-weights", "nowhere.safetensors"], "nowhere.safetensors"),
        (["--skeleton", "octopus"], "octopus"),
        (["--seeds", "0"], "--seeds"),
        (["--parallel", "0"], "--parallel"),
        (["--workers", "-1"], "--workers"),
    ],
)
def test_bad_input_is_one_line_that_names_it(run, words, more, named):
    ended = run("reproduce", "table7", *words, *more)
    assert ended.status == 1
    assert named in ended.err
    assert len(ended.err.splitlines()) == 1


@pytest.mark.parametrize(
    ("cores", "given", "expected"),
    [
        (1, {}, (1, 1)),
        (2, {}, (2, 1)),
        (8, {}, (2, 4)),
        (8, {"devices": 2}, (1, 4)),
        (8, {"parallel": 4}, (4, 2)),
        (8, {"threads": 3}, (2, 3)),
    ],
)
def test_cores_are_shared_out_among_trainings_and_threads(cores, given, expected, monkeypatch, tmp_path):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)), raising=False)
    files = ((tmp_path,), (tmp_path,), tmp_path, tmp_path, tmp_path)
    assert shares(Request("table7", *files, accelerator="cpu", **given)) == expected
