"""``diffusionpose models``: every recipe and model, its stored cost, and the truth of the store."""

import json
import subprocess
import sys
from collections.abc import Callable

import pytest

from diffusionpose.app import models
from diffusionpose.models.zoo import MODELS
from diffusionpose.training.recipes import recipes, tables

Run = Callable[..., tuple[int, str, str]]

TABLE_2 = {
    # what this package makes of the paper's rows: million parameters, giga multiply-adds
    "diffusionpose_w32_256x192_coco": (38.9, 13.8),
    "diffusionpose_w32_384x288_coco": (38.9, 31.0),
    "diffusionpose_w48_256x192_coco": (74.0, 22.1),
    "diffusionpose_w48_384x288_coco": (74.0, 49.6),
    "posefix_r152_384x288_coco": (132.3, 65.4),  # with HRNet-W48, whose poses it refines
}


@pytest.fixture(scope="module")
def rows() -> dict[str, models.Row]:
    return {f"{row.kind} {row.name}": row for row in models.rows()}


@pytest.fixture
def no_counting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every cost must be stored: counting all of them takes minutes."""

    def refuse(key: str) -> None:
        raise AssertionError(f"{key} is not in costs.json: run `diffusionpose models --recount`")

    monkeypatch.setattr(models, "count", refuse)


@pytest.mark.usefixtures("no_counting")
def test_every_recipe_and_model_has_a_row_and_a_stored_cost() -> None:
    rows = list(models.rows())
    assert [row.name for row in rows if row.kind == "recipe"] == list(recipes())
    assert [row.name for row in rows if row.kind == "model"] == list(MODELS)
    assert {row.joints for row in rows} == {14, 17, 19}


@pytest.mark.parametrize(
    "name", ["model tiny", "model diffusionpose_movenet", "recipe vitpose_b_256x192_coco"]
)
def test_stored_costs_are_the_truth(rows: dict[str, models.Row], name: str) -> None:
    kind, _, name = name.partition(" ")
    row, recipe = rows[f"{kind} {name}"], recipes().get(name)
    options = {"input_size": row.input_size, **(recipe.options if recipe else {})}
    key = models.cost_key(recipe.model if recipe else name, row.joints, options)
    assert models.count(key) == (row.parameters, row.multiply_adds)


def test_what_is_free_is_not_in_the_key() -> None:
    plain = models.cost_key("vitpose_b", 17, {"input_size": (192, 256)})
    encoder = {"drop_path_rate": 0.3}
    assert (
        models.cost_key("vitpose_b", 17, {"input_size": [192, 256], "unbiased": True, "encoder": encoder})
        == plain
    )
    assert models.cost_key("vitpose_b", 17, {"input_size": (192, 256), "stride": 2}) != plain


def test_the_list_needs_no_torch() -> None:
    code = "import sys; from diffusionpose.app.models import rows; list(rows())"
    subprocess.run([sys.executable, "-c", f"{code}; assert 'torch' not in sys.modules"], check=True)


def test_table_2_is_reproduced_within_2_percent(rows: dict[str, models.Row]) -> None:
    for name, (parameters, multiply_adds) in TABLE_2.items():
        row = rows[f"recipe {name}"]
        assert row.parameters == pytest.approx(parameters, rel=0.02)
        assert row.multiply_adds == pytest.approx(multiply_adds, rel=0.02)
        assert row.paper_parameters == pytest.approx(parameters, abs=1)
        assert row.paper_multiply_adds == pytest.approx(multiply_adds, abs=1)


def test_the_table_shows_ours_the_publications_and_the_papers_numbers(run: Run) -> None:
    status, out, err = run("models")
    assert (status, err) == (0, "")
    lines = {line.split()[0]: " ".join(line.split()[1:]) for line in out.splitlines() if line.strip()}
    assert lines["diffusionpose_w48_384x288_coco"] == "384x288 17 74.0 M 49.4 G 74 M 49 G"
    assert lines["hrformer_b_384x288_coco"] == "384x288 17 43.2 M 30.4 G 43.2 M 26.8 G 43 M 29 G"
    assert lines["vitpose_l_256x192_coco"].endswith("307.0 M -")
    assert "Table 2" in out


def test_an_own_publications_numbers_are_for_its_17_joints(rows: dict[str, models.Row]) -> None:
    assert rows["recipe hrnet_w32_256x192_coco"].own_counting == "hrnet"
    assert rows["recipe hrnet_w32_256x192_crowdpose"].own_parameters is None


def test_markdown_has_every_row_of_the_paper(run: Run) -> None:
    status, out, _ = run("models", "--markdown")
    assert status == 0
    rows = [line for line in out.splitlines() if line.startswith("| ") and "---" not in line]
    assert len(rows) == 3 + sum(len(table) for table in tables().values())
    assert not [row for row in rows if "not yet" in row]
    (row,) = [row for row in rows if "`hrnet_w32_256x192_coco`" in row]
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[:3] == ["HRNet", "HRNet-W32", "256x192"]
    assert cells[3:5] == ["28.5 / 28.5 / 29", "7.7 / 7.1 / 8"]
    assert cells[5:] == ["74.4", "78.9", "not measured", "`hrnet_w32_256x192_coco`"]


def test_json_has_the_same_rows(run: Run) -> None:
    status, out, _ = run("models", "--json")
    assert status == 0
    entries = json.loads(out)
    assert [entry["name"] for entry in entries] == [row.name for row in models.rows()]
    assert entries[0]["paper_parameters"] == 38


def test_two_forms_at_once_exit_with_2(run: Run) -> None:
    status, out, err = run("models", "--json", "--markdown")
    assert (status, out) == (2, "")
    assert "--json and --markdown" in err
