"""Every training by name, as data in ``recipes.yaml``: a recipe is its parent with entries replaced.

Beside them Table 2, Table 3 and Table 4 of the paper, row by row, and the recipe of each row. Needs no torch.
"""

import difflib
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from diffusionpose.errors import InputError
from diffusionpose.training.settings import TrainingSettings


@cache
def _file() -> dict[str, Any]:
    import yaml

    content: dict[str, Any] = yaml.safe_load(Path(__file__).with_name("recipes.yaml").read_text("utf-8"))
    return content


@cache
def recipes() -> dict[str, TrainingSettings]:
    """The settings of every recipe, by name."""
    found: dict[str, dict[str, Any]] = {}
    for name, own in _file()["recipes"].items():  # parents stand before their children
        found[name] = {**found.get(own.get("like"), {}), **own, "recipe": name}
        found[name].pop("like", None)
    return {name: TrainingSettings.from_dict(entries) for name, entries in found.items()}


def get_recipe(name: str) -> TrainingSettings:
    """The settings of a recipe.

    Args:
        name: of a recipe, or a JSON file of settings, such as the ``settings.json`` of a run.

    Raises:
        InputError: an unknown name (the nearest ones are told), or a file that holds no settings.
    """
    if name.endswith(".json"):
        try:
            entries = json.loads(Path(name).read_text())
            return TrainingSettings.from_dict(entries.get("settings", entries))
        except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
            raise InputError(f"{name}: no settings of a training ({error}); check the path") from error
    if name not in recipes():
        near = difflib.get_close_matches(name, recipes(), n=3, cutoff=0.3)
        raise InputError(
            f"no recipe {name!r}; nearest: {', '.join(near) or 'none'} ('diffusionpose models' lists all)"
        )
    return recipes()[name]


@dataclass(frozen=True)
class TableRow:
    """A row of the paper, as printed."""

    table: int
    method: str
    backbone: str
    accuracy: dict[str, float]  # percent, by the name of the metric; what the row has of them
    recipe: str  # that trains it
    parameters: int | None = None  # millions; only Table 2 has them
    multiply_adds: int | None = None  # billions, which the paper calls FLOPs
    refined: str | None = None  # recipe of the model whose poses are refined; the row's costs are of both

    @property
    def input_size(self) -> tuple[int, int]:
        """(width, height), pixels."""
        return get_recipe(self.recipe).input_size


@cache
def tables() -> dict[int, list[TableRow]]:
    """Tables 2, 3 and 4, by number."""
    found: dict[int, list[TableRow]] = {}
    for number, table in _file()["tables"].items():
        found[number] = []
        for line in table["rows"].splitlines():
            method, backbone, scores, recipe, *rest = (cell.strip() for cell in line.split("|"))
            named = zip(table["metrics"], scores.split(), strict=True)
            accuracy = {name: float(score) for name, score in named if score != "-"}
            parameters, multiply_adds = map(int, rest[0].split()) if rest else (None, None)
            recipe, *refined = (f"{name}_{table['skeleton']}" for name in (recipe, *rest[1:]))
            row = TableRow(number, method, backbone, accuracy, recipe, parameters, multiply_adds, *refined)
            found[number].append(row)
    return found


def row_of(recipe: str) -> TableRow | None:
    """The row that a recipe trains, None for a recipe of no row."""
    return next((row for rows in tables().values() for row in rows if row.recipe == recipe), None)
