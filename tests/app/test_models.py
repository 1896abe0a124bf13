import json
from collections.abc import Callable
from itertools import islice

import pytest

from diffusionpose.app import models
from diffusionpose.models.zoo import MODELS, create_model
from diffusionpose.training.recipes import RECIPES, TABLES

Run = Callable[..., tuple[int, str, str]]

TABLE_2 = {
    # what this package makes of the paper's rows: million parameters, giga multiply-adds
    "diffusionpose_w32_256x192_coco": (38.9, 13.8),
    "diffusionpose_w32_384x288_coco": (38.9, 31.0),
    "diffusionpose_w48_256x192_coco": (74.0, 22.1),
    "diffusionpose_w48_384x288_coco": (74.0, 49.6),
}


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Costs are made up: counting those of every model takes half a minute."""
    monkeypatch.setattr(models, "_cost", lambda model, skeleton, options: (float(len(model)), 12.345))


@pytest.mark.usefixtures("quick")
def test_every_recipe_and_model_has_a_row() -> None:
    rows = list(models.rows())
    assert [row.name for row in rows if row.kind == "recipe"] == list(RECIPES)
    assert [row.name for row in rows if row.kind == "model"] == list(MODELS)
    assert {row.joints for row in rows} == {14, 17}


def test_table_2_is_reproduced_within_2_percent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("diffusionpose.training.recipes.RECIPES", {name: RECIPES[name] for name in TABLE_2})
    by_name = {row.name: row for row in islice(models.rows(), len(TABLE_2))}  # recipes come first
    for name, (parameters, multiply_adds) in TABLE_2.items():
        assert by_name[name].parameters == pytest.approx(parameters, rel=0.02)
        assert by_name[name].multiply_adds == pytest.approx(multiply_adds, rel=0.02)
        assert by_name[name].paper_parameters == pytest.approx(parameters, abs=1)
        assert by_name[name].paper_multiply_adds == pytest.approx(multiply_adds, abs=1)


@pytest.mark.usefixtures("quick")
def test_rows_of_the_paper_without_a_model_are_listed_as_not_yet(run: Run) -> None:
    rows = {row.name: row for row in models.rows() if row.kind == "not yet"}
    assert list(rows) == [
        "PoseFix on W48 + Res-152, Table 2",
        "OPEC-Net on ResNet-101, Table 3",
        "I2R-Net on HRNet-W48, Table 3",
        "I2R-Net on TransPose-H, Table 3",
    ]
    posefix = rows["PoseFix on W48 + Res-152, Table 2"]
    assert (posefix.parameters, posefix.paper_parameters, posefix.paper_multiply_adds) == (None, 132, 65)
    _, out, _ = run("models")
    assert "NOT YET" in out


def test_costs_counted_without_numbers_equal_those_with() -> None:
    from diffusionpose.models.costs import count_multiply_adds, count_parameters

    model = create_model("diffusionpose_tiny", "crowdpose", input_size=(48, 64))
    counted = models._cost("diffusionpose_tiny", model.skeleton, json.dumps({"input_size": [48, 64]}))
    assert counted == (round(count_parameters(model) / 1e6, 2), round(count_multiply_adds(model) / 1e9, 2))


@pytest.mark.usefixtures("quick")
def test_the_table_shows_ours_the_publications_and_the_papers_numbers(run: Run) -> None:
    status, out, err = run("models")
    assert (status, err) == (0, "")
    lines = {line.split()[0]: " ".join(line.split()[1:]) for line in out.splitlines() if line.strip()}
    assert lines["diffusionpose_w48_384x288_coco"] == "384x288 17 23.0 M 12.3 G 74 M 49 G"
    assert lines["hrformer_b_384x288_coco"] == "384x288 17 10.0 M 12.3 G 43.2 M 26.8 G 43 M 29 G"
    assert lines["vitpose_l_256x192_coco"] == "256x192 17 9.0 M 12.3 G 307.0 M -"
    assert "Table 2" in out


@pytest.mark.usefixtures("quick")
def test_an_own_publications_numbers_are_for_its_17_joints() -> None:
    rows = {row.name: row for row in models.rows() if row.kind == "recipe"}
    assert rows["hrnet_w32_256x192_coco"].own_counting == "hrnet"
    assert rows["hrnet_w32_256x192_crowdpose"].own_parameters is None


def test_drop_path_does_not_change_the_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(models, "_cost", lambda *arguments: seen.append(arguments) or (1.0, 1.0))
    list(models.rows())
    options = [json.loads(text) for name, _, text in seen if name.startswith("vitpose_b")]
    assert all(entry == options[0] for entry in options)


@pytest.mark.usefixtures("quick")
def test_markdown_has_every_row_of_the_paper(run: Run) -> None:
    status, out, _ = run("models", "--markdown")
    assert status == 0
    rows = [line for line in out.splitlines() if line.startswith("| ") and "---" not in line]
    assert len(rows) == 3 + sum(len(table) for table in TABLES.values())
    assert len([row for row in rows if "not yet" in row]) == 4
    (row,) = [row for row in rows if "`hrnet_w32_256x192_coco`" in row]
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[:3] == ["HRNet", "HRNet-W32", "256x192"]
    assert cells[3:5] == ["9.0 / 28.5 / 29", "12.3 / 7.1 / 8"]
    assert cells[5:] == ["74.4", "78.9", "not measured", "`hrnet_w32_256x192_coco`"]


@pytest.mark.usefixtures("quick")
def test_json_has_the_same_rows(run: Run) -> None:
    status, out, _ = run("models", "--json")
    assert status == 0
    entries = json.loads(out)
    assert [entry["name"] for entry in entries] == [row.name for row in models.rows()]
    assert entries[0]["multiply_adds"] == 12.345
    assert entries[0]["paper_parameters"] == 38


def test_two_forms_at_once_exit_with_2(run: Run) -> None:
    status, out, err = run("models", "--json", "--markdown")
    assert (status, out) == (2, "")
    assert "--json and --markdown" in err
