"""Means over seeds, missing measurements, and how they are written."""

import statistics
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from diffusionpose.training.reproduce import Data, Job, gather, plot_steps, plot_table, write_markdown
from diffusionpose.training.settings import ImageSet
from diffusionpose.training.studies import BUDGETS, STUDIES, plan

NOWHERE = ImageSet(Path("nowhere"), Path("nowhere.json"))


def result(ap, pck=None):
    return {
        "metrics": {"AP": ap, "AR": ap + 0.1, "PCK": pck},
        "intervals_95": {} if pck is None else {"PCK": [pck - 0.02, pck + 0.03]},
        "parameters": 4_000_000,
        "multiply_adds": 140_000_000,
        "training": {"seconds": 100.0},
        "evaluation_seconds": 5.0,
    }


def measured(study, values, seeds=1):
    """``values`` (AP, PCK) or None for every training of ``plan``, which goes seed by seed."""
    planned = plan(study, BUDGETS["tiny"], "crowdpose", seeds)
    jobs = [Job(each.name, Path(each.name), each.settings, Data((NOWHERE,), NOWHERE)) for each in planned]
    results = [{} if value is None else {1: result(*value)} for value in values]
    return list(zip(planned, jobs, results, strict=True))


def entries(rows, seeds=(0,), differing=("on a stamp",)):
    base = BUDGETS["tiny"].base.to_dict()
    mean_pose = {"AP": 0.001, "AR": 0.01, "PCK": 0.049, "PCK_limbs": None}
    return {
        "rows": rows,
        "seeds": list(seeds),
        "budget": {"base": base},
        "differs_from_the_paper": list(differing),
        "data": {"train": [], "boxes": "ground truth", "mean_pose": mean_pose},
        "hardware": [],
        "versions": [],
        "command": "diffusionpose reproduce",
    }


def cells_of(text, label):
    (line,) = (line for line in text.splitlines() if line.startswith(f"| {label} |"))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_mean_and_spread_over_seeds():
    study = STUDIES["table6"]
    values = [(0.10 + 0.01 * k, 0.5) for k in range(8)]
    rows = gather(study, measured(study, values, seeds=2), {})
    assert [row["label"] for row in rows] == ["8", "4", "2", "1"]
    for k, row in enumerate(rows):
        own = [0.10 + 0.01 * k, 0.10 + 0.01 * (k + 4)]
        assert row["AP"]["values"] == pytest.approx(own)
        assert row["AP"]["mean"] == pytest.approx(statistics.fmean(own))
        assert row["AP"]["spread"] == pytest.approx(statistics.stdev(own))
        assert "failure" not in row
    text = write_markdown(study, entries(rows, seeds=(0, 1)))
    assert cells_of(text, "8")[:3] == ["8", "12x8", "12.0 ± 2.8"]
    assert "2 trainings (seeds 0 to 1)" in text


def test_one_seed_has_intervals_and_no_spread():
    study = STUDIES["table7"]
    rows = gather(study, measured(study, [(0.2, 0.4)] * 5), {})
    text = write_markdown(study, entries(rows))
    assert cells_of(text, "0.05") == [
        "0.05", "0.1333 (31.3 %)", "20.0", "30.0", "40.0 (38.0 to 43.0)", "-",
        "4 M", "0.14 G", "75.4", "80.5",
    ]  # fmt: skip
    assert cells_of(text, "mean pose of the training set")[2:6] == ["0.1", "1.0", "4.9", "-"]


def test_what_differs_from_the_paper_is_said_and_so_is_that_nothing_does():
    study = STUDIES["table7"]
    rows = gather(study, measured(study, [(0.2, 0.4)] * 5), {})
    assert "Ours: on a stamp." in write_markdown(study, entries(rows))
    assert "not the same measurement" in write_markdown(study, entries(rows))
    assert "not the same measurement" not in write_markdown(study, entries(rows, differing=()))


def test_a_missing_measurement_is_a_failure_of_its_row_alone():
    study = STUDIES["table5"]
    rows = gather(
        study, measured(study, [(0.2,), None, (0.3,), (0.4,)]), {"diffusionpose-features-seed0": "no"}
    )
    assert [row.get("failure") for row in rows] == [None, "diffusionpose-features-seed0: no", None, None]
    assert rows[1]["AP"] is None
    assert rows[2]["PCK"] is None
    assert "- features: diffusionpose-features-seed0: no" in write_markdown(study, entries(rows))


@pytest.mark.parametrize("name", ["table5", "table6", "table7", "figure4"])
@pytest.mark.parametrize("missing", [0, 1, "all"])
def test_plots_are_drawn_with_what_there_is(name, missing, tmp_path):
    study = STUDIES[name]
    values = [(0.2 + 0.02 * k, 0.4) for k in range(len(study.variants))]
    values = [None] * len(values) if missing == "all" else [None] * missing + values[missing:]
    rows = gather(study, measured(study, values), {})
    (plot_steps if study.kind == "steps" else plot_table)(study, rows, tmp_path / "plot.png")
    with Image.open(tmp_path / "plot.png") as image:
        assert image.width > 1000
        assert len(image.convert("RGB").getcolors(1 << 24)) > 20


def test_a_plot_depends_on_its_numbers(tmp_path):
    study = replace(STUDIES["table7"], title="t")
    for name, ap in (("a", 0.2), ("b", 0.3), ("c", 0.2)):
        values = [(0.1, 0.4), (ap, 0.4), (0.1, 0.4), (0.1, 0.4), (0.1, 0.4)]
        plot_table(study, gather(study, measured(study, values), {}), tmp_path / f"{name}.png")
    a, b, c = ((tmp_path / f"{name}.png").read_bytes() for name in "abc")
    assert a == c
    assert a != b
