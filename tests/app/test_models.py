import json
from collections.abc import Callable
from itertools import islice

import pytest

from diffusionpose.app import models
from diffusionpose.models.zoo import MODELS, create_model
from diffusionpose.training.recipes import RECIPES

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


def test_the_papers_numbers_belong_to_recipes() -> None:
    assert set(models.PAPER) <= set(RECIPES)


def test_costs_counted_without_numbers_equal_those_with() -> None:
    from diffusionpose.models.costs import count_multiply_adds, count_parameters

    model = create_model("diffusionpose_tiny", "crowdpose", input_size=(48, 64))
    counted = models._cost("diffusionpose_tiny", model.skeleton, json.dumps({"input_size": [48, 64]}))
    assert counted == (round(count_parameters(model) / 1e6, 2), round(count_multiply_adds(model) / 1e9, 2))


@pytest.mark.usefixtures("quick")
def test_the_table_shows_both_numbers(run: Run) -> None:
    status, out, err = run("models")
    assert (status, err) == (0, "")
    (line,) = [line for line in out.splitlines() if line.startswith("diffusionpose_w48_384x288_coco")]
    assert " ".join(line.split()[1:]) == "384x288 17 23.0 M 12.3 G 74 M 49 G"
    assert "Table 2" in out


@pytest.mark.usefixtures("quick")
def test_json_has_the_same_rows(run: Run) -> None:
    status, out, _ = run("models", "--json")
    assert status == 0
    entries = json.loads(out)
    assert [entry["name"] for entry in entries] == [row.name for row in models.rows()]
    assert entries[0]["multiply_adds"] == 12.345
    assert entries[0]["paper_parameters"] == 38
