"""``diffusionpose benchmark``."""

import json
import time

import pytest

from diffusionpose import create_model, save_model
from diffusionpose.app import benchmark, cli


def test_contestants_take_turns_and_have_the_median_of_their_rounds():
    calls, waits = [], iter([9, 0.05, 0.0, 0.001])  # the first is to warm up

    def slow():
        calls.append("slow")
        time.sleep(min(next(waits), 0.05))

    seconds = benchmark.take_turns({"slow": slow, "fast": lambda: calls.append("fast")}, 3)
    assert calls == ["slow", "fast"] * 4
    assert 0.0005 < seconds["slow"] < 0.04
    assert seconds["fast"] < seconds["slow"]


def test_every_part_is_measured_and_written(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(benchmark, "PERSONS", 60)
    weights = (
        tmp_path / "tiny.safetensors"
    )  # with maps of even widths: on some CPUs bf16 is wrong on odd ones
    save_model(create_model("diffusionpose_tiny", "crowdpose", input_size=(64, 64)), weights)
    parts = ["networks", "pictures", "training", "evaluation"]
    words = ["benchmark", "--output", str(tmp_path), "--weights", str(weights), "--rounds", "1"]
    assert cli.main([*words, "--parts", *parts]) == 0
    content = json.loads((tmp_path / "benchmark.json").read_text())
    rows = {part: [row for row in content["rows"] if row["part"] == part] for part in parts}
    assert all(row["value"] > 0 for part in parts for row in rows[part])
    stages = [row["ratio"] for row in rows["pictures"] if row["unit"] == "ms/picture"]
    assert sum(stages) == pytest.approx(1)
    assert rows["pictures"][-1]["ratio"] < 1
    assert {row["what"].rpartition(", ")[2] for row in rows["training"]} == {"float32", "bfloat16"}
    printed, table = capsys.readouterr().out, (tmp_path / "benchmark.md").read_text()
    for row in content["rows"]:
        assert row["what"] in printed
        assert row["what"] in table
    assert content["machine"]["threads"] >= 1


def test_bad_requests_are_answered(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    words = ["benchmark", "--output", str(tmp_path)]
    assert cli.main([*words, "--rounds", "0"]) == 1
    assert cli.main([*words, "--parts", "pictures", "--images", str(tmp_path / "empty")]) == 1
    assert "no pictures" in capsys.readouterr().err
