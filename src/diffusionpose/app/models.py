"""``diffusionpose models``: what there is to train and to use, and what it costs.

The costs are counted once and kept in ``models/costs.json``, so that the list needs neither torch nor time;
``--recount`` counts them again.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import cache
from itertools import takewhile
from pathlib import Path
from typing import Any

import diffusionpose
from diffusionpose.app.options import say
from diffusionpose.bundled import FOLDER, bundled_models
from diffusionpose.errors import atomically
from diffusionpose.models.publications import publication_of
from diffusionpose.skeletons import AIC, COCO, CROWDPOSE, Skeleton, get_skeleton
from diffusionpose.training.recipes import NOT_YET, RECIPES, TABLES, TableRow, get_recipe, row_of

COSTS = Path(diffusionpose.__file__).parent / "models" / "costs.json"
HEADER = "{:46}    input  joints  params  mult-adds   its own publication   paper (Table 2)"
NOTES = """
Own publications count multiply-adds in their own ways (docs/tables.md), ours are what the network
computes. Give a recipe to `diffusionpose train`, a bundled model to --weights."""


@dataclass(frozen=True)
class Row:
    """A model or recipe and its cost.

    Attributes:
        kind: "recipe", "model", "bundled", or "not yet" for a row of the paper without a recipe.
        name: as the command line takes it.
        input_size: (width, height), pixels.
        joints: how many heatmaps.
        parameters: in millions; None where there is no model.
        multiply_adds: in billions, of one person: one pass, one diffusion step, no flip test.
        own_parameters, own_multiply_adds: what the method's own publication states, and ``own_counting``
            how it counts (``diffusionpose.models.costs``).
        paper_parameters, paper_multiply_adds: what Table 2 prints, in the same units.
    """

    kind: str
    name: str
    input_size: tuple[int, int]
    joints: int
    parameters: float | None = None
    multiply_adds: float | None = None
    own_parameters: float | None = None
    own_multiply_adds: float | None = None
    own_counting: str | None = None
    paper_parameters: float | None = None
    paper_multiply_adds: float | None = None


@dataclass(frozen=True)
class ModelsCommand:
    """List every recipe, model and bundled model: parameters and multiply-adds, beside those that the
    method's own publication and Table 2 of the DiffusionPose paper state.

    Multiply-adds are those of one person: one pass through the network with one diffusion step and
    without the flip test, which doubles them.
    """

    json: bool = False
    """Print a JSON list instead of the table."""
    markdown: bool = False
    """Print Tables 2, 3 and 4 of the paper in Markdown instead, its accuracies and our costs side by side."""
    recount: bool = False
    """Count all costs again (minutes; needs PyTorch) and write them into the package. For its developers."""

    def run(self) -> int:
        """Print; 0, or 2 if two forms are asked for at once."""
        if self.json and self.markdown:
            say("models: --json and --markdown are two forms of the list; give one of them")
            return 2
        if self.recount:
            recount()
        if self.markdown:
            print("\n".join(markdown()).rstrip())
        elif self.json:
            print(json.dumps([asdict(row) for row in rows()], indent=2))
        else:
            kind = ""
            for row in rows():
                if row.kind != kind:
                    print(("\n" if kind else "") + HEADER.format(row.kind.upper()))
                kind = row.kind
                print(_line(row))
            print(NOTES)
        return 0


def rows() -> Iterator[Row]:
    """Recipes, rows of the paper without one, models with their default options, bundled models."""
    for name in RECIPES:
        recipe = get_recipe(name)
        options = {**recipe.options, "input_size": recipe.input_size}
        yield _row("recipe", name, recipe.model, get_skeleton(recipe.skeleton), options)
    yield from _rows_without_a_recipe()
    for name in _stored()["models"]:
        yield _row("model", name, name, COCO, {"input_size": (192, 256)})
    for name in bundled_models():
        config = _bundled_config(name)
        yield _row("bundled", name, config["name"], Skeleton.from_dict(config["skeleton"]), config["options"])


def _rows_without_a_recipe() -> Iterator[Row]:
    skeletons = {2: COCO, 3: CROWDPOSE, 4: AIC}
    for number, table in TABLES.items():
        for row in table:
            if row.recipe is None:
                yield Row(
                    "not yet",
                    f"{row.method} on {row.backbone}, Table {number}",
                    row.input_size,
                    skeletons[number].num_joints,
                    paper_parameters=row.parameters,
                    paper_multiply_adds=row.multiply_adds,
                )


def _bundled_config(name: str) -> dict[str, Any]:
    """How a bundled model was made: the head of its safetensors file, which needs no library to read."""
    with (FOLDER / f"{name}.safetensors").open("rb") as file:
        head = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    config: dict[str, Any] = json.loads(head["__metadata__"]["diffusionpose"])
    return config


def _row(kind: str, name: str, model: str, skeleton: Skeleton, options: dict[str, Any]) -> Row:
    width, height = options["input_size"]
    joints = skeleton.num_joints
    parameters, multiply_adds = _cost(cost_key(model, joints, options))
    row = Row(kind, name, (width, height), joints, parameters, multiply_adds)
    if (own := publication_of(model, (width, height))) and joints == COCO.num_joints:
        row = replace(
            row,
            own_parameters=own.parameters,
            own_multiply_adds=own.multiply_adds,
            own_counting=own.counting,
        )
    if (paper := row_of(name)) is not None:
        row = replace(row, paper_parameters=paper.parameters, paper_multiply_adds=paper.multiply_adds)
    return row


# --- costs ---

# neither the geometry of crops and targets nor what happens in training alone changes what a network computes
FREE = ("unbiased", "quantise", "dropout", "zeta", "own_start", "mistakes")
FREE_OF_ENCODER = ("drop_path_rate", "frozen")


def cost_key(model: str, joints: int, options: dict[str, Any]) -> str:
    """By which a cost is stored: the model, its number of joints, and the options that cost something."""
    costly = {name: value for name, value in {"stride": 4, **options}.items() if name not in FREE}
    encoder = {n: v for n, v in costly.pop("encoder", {}).items() if n not in FREE_OF_ENCODER}
    return json.dumps([model, joints, costly | ({"encoder": encoder} if encoder else {})], sort_keys=True)


@cache
def _stored() -> dict[str, Any]:
    stored: dict[str, Any] = json.loads(COSTS.read_text(encoding="utf-8"))
    return stored


def _cost(key: str) -> tuple[float, float]:
    """Million parameters and giga multiply-adds; counted where they are not stored."""
    stored = _stored()["costs"].get(key)
    return tuple(stored) if stored else count(key)


@cache
def count(key: str) -> tuple[float, float]:
    """Count a cost, on the meta device: shapes without numbers."""
    import torch

    from diffusionpose.models.costs import count_multiply_adds, count_parameters
    from diffusionpose.models.zoo import create_model

    model_name, joints, options = json.loads(key)
    names = tuple(f"joint {i}" for i in range(joints))
    skeleton = Skeleton("any", names, ((0, 1),), (), (0.1,) * joints)
    with torch.device("meta"):
        model = create_model(model_name, skeleton, **options)
        # a frozen part costs as much as any other
        parameters = count_parameters(model.requires_grad_(True))
        return round(parameters / 1e6, 2), round(count_multiply_adds(model) / 1e9, 2)


def recount() -> None:
    """Count every cost of the list and write ``costs.json``."""
    from diffusionpose.models.zoo import MODELS

    content: dict[str, Any] = {"models": list(MODELS), "costs": {}}
    _stored.cache_clear()
    keys = {cost_key(name, COCO.num_joints, {"input_size": (192, 256)}) for name in MODELS}
    for name in RECIPES:
        recipe = get_recipe(name)
        options = {**recipe.options, "input_size": recipe.input_size}
        keys.add(cost_key(recipe.model, get_skeleton(recipe.skeleton).num_joints, options))
    for name in bundled_models():
        config = _bundled_config(name)
        keys.add(cost_key(config["name"], len(config["skeleton"]["joints"]), config["options"]))
    for key in sorted(keys):
        content["costs"][key] = count(key)
        say(f"{key}: {content['costs'][key]}")
    lines = json.dumps(content, indent=0)
    atomically(COSTS, lambda part: part.write_text(lines + "\n", encoding="utf-8"))


def _line(row: Row) -> str:
    width, height = row.input_size
    ours = _cost_text(row.parameters, row.multiply_adds, 1)
    own = _cost_text(row.own_parameters, row.own_multiply_adds, 1)
    paper = _cost_text(row.paper_parameters, row.paper_multiply_adds, 0)
    return f"{row.name:46}{f'{height}x{width}':>9}{row.joints:>8}{ours:>20}{own:>20}{paper:>16}".rstrip()


def _cost_text(parameters: float | None, multiply_adds: float | None, digits: int) -> str:
    """Such as ``38.9 M     13.8 G``; nothing where there is no number."""
    if parameters is None:
        return ""
    if multiply_adds is None:
        return f"{parameters:.{digits}f} M{'-':>9}  "
    more = 1 if multiply_adds < 1 else 0
    return f"{parameters:.{digits}f} M{multiply_adds:9.{digits + more}f} G"


# --- Tables 2, 3 and 4 of the paper in Markdown, its numbers beside ours: what docs/tables.md holds ---

TITLES = {
    2: "Table 2: COCO val2017, person boxes of the 56.4 AP detector",
    3: "Table 3: CrowdPose, true boxes",
    4: "Table 4: AI Challenger validation, true boxes",
}
NOT_MEASURED = "not measured"


def markdown() -> Iterator[str]:
    """The lines of the three tables."""
    costs = {row.name: row for row in takewhile(lambda row: row.kind == "recipe", rows())}
    nothing = Row("not yet", "", (0, 0), 0)
    for number, table in TABLES.items():
        names = list(max(table, key=lambda row: len(row.accuracy)).accuracy)
        heads = ["method", "backbone", "input", "parameters, M", "multiply-adds, G"]
        heads += [f"{name}, paper" for name in names] + ["AP, ours", "recipe"]
        yield from (f"## {TITLES[number]}", "")
        yield f"| {' | '.join(heads)} |"
        yield f"| {' | '.join(['---'] * len(heads))} |"
        for row in table:
            cells = _cells(row, names, costs.get(row.recipe or "", nothing), with_paper=number == 2)
            yield f"| {' | '.join(cells)} |"
        yield ""


def _cells(row: TableRow, names: list[str], cost: Row, with_paper: bool) -> list[str]:
    """The cells of a row; ``with_paper`` where the paper's table has costs."""
    width, height = row.input_size
    cells = [row.method, row.backbone, f"{height}x{width}"]
    for mine, theirs, printed in (
        (cost.parameters, cost.own_parameters, row.parameters),
        (cost.multiply_adds, cost.own_multiply_adds, row.multiply_adds),
    ):
        numbers = [_number(mine, ".1f"), _number(theirs, ".1f")]
        cells.append(" / ".join([*numbers, _number(printed, "d")] if with_paper else numbers))
    cells += [_number(row.accuracy.get(name), ".1f") for name in names]
    return [*cells, NOT_MEASURED if row.recipe else NOT_YET, f"`{row.recipe}`" if row.recipe else "-"]


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
