"""``diffusionpose models``: what there is to train and to use, and what it costs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import cache
from itertools import takewhile
from typing import Any

from diffusionpose.app.options import say
from diffusionpose.skeletons import AIC, COCO, CROWDPOSE, SKELETONS, Skeleton, get_skeleton
from diffusionpose.training.recipes import NOT_YET, TABLES, TableRow

HEADER = "{:46}    input  joints  params  mult-adds   its own publication   paper (Table 2)"
NOTES = """
Own publications count multiply-adds in their own ways (diffusionpose/models/costs.py), ours are what
the network computes. Give a recipe to `diffusionpose train`, a bundled model to --weights."""


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
    parameters: float | None
    multiply_adds: float | None
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

    def run(self) -> int:
        """Print; 0, or 2 if two forms are asked for at once."""
        if self.json and self.markdown:
            say("models: --json and --markdown are two forms of the list; give one of them")
            return 2
        if self.markdown:
            print("\n".join(markdown()).rstrip())
            return 0
        if self.json:
            print(json.dumps([asdict(row) for row in rows()], indent=2))
            return 0
        kind = ""
        for row in rows():
            if row.kind != kind:
                kind = row.kind
                print(("" if kind == "recipe" else "\n") + HEADER.format(f"{kind.upper()}"))
            print(_line(row), flush=True)
        print(NOTES)
        return 0


def rows() -> Iterator[Row]:
    """Recipes, rows of the paper without one, models with their default options, bundled models."""
    from diffusionpose.bundled import bundled_models
    from diffusionpose.models.checkpoints import load_model
    from diffusionpose.models.zoo import MODELS
    from diffusionpose.training.recipes import RECIPES

    for name, recipe in RECIPES.items():
        options = {**recipe.options, "unbiased": recipe.unbiased, "input_size": recipe.input_size}
        yield _row("recipe", name, recipe.model, get_skeleton(recipe.skeleton), options)
    yield from _not_yet()
    for name in MODELS:
        yield _row("model", name, name, COCO, {"input_size": (192, 256)})
    for name in bundled_models():
        config = load_model(name).config
        yield _row("bundled", name, config["name"], Skeleton.from_dict(config["skeleton"]), config["options"])


def _not_yet() -> Iterator[Row]:
    """Rows of the paper that nothing here trains."""
    from diffusionpose.training.recipes import TABLES

    skeletons = {2: COCO, 3: CROWDPOSE, 4: AIC}
    for number, table in TABLES.items():
        for row in table:
            if row.recipe is None:
                name = f"{row.method} on {row.backbone}, Table {number}"
                yield Row(
                    "not yet",
                    name,
                    row.input_size,
                    skeletons[number].num_joints,
                    None,
                    None,
                    paper_parameters=row.parameters,
                    paper_multiply_adds=row.multiply_adds,
                )


def _row(kind: str, name: str, model: str, skeleton: Skeleton, options: dict[str, Any]) -> Row:
    from diffusionpose.models.costs import publication_of
    from diffusionpose.training.recipes import row_of

    width, height = options["input_size"]
    # limbs, sigmas and the geometry of crops and targets cost nothing: rows that differ so share an answer
    alike = next((known for known in SKELETONS.values() if known.num_joints == skeleton.num_joints), skeleton)
    given = {"stride": 4, **options, "unbiased": False, "quantise": False}
    backbone = {name: value for name, value in given.pop("encoder", {}).items() if name != "drop_path_rate"}
    given |= {"encoder": backbone} if backbone else {}  # drop path costs nothing either, nor drop-out
    given.pop("dropout", None)
    parameters, multiply_adds = _cost(model, alike, json.dumps(given, sort_keys=True))
    row = Row(kind, name, (width, height), skeleton.num_joints, parameters, multiply_adds)
    if (own := publication_of(model, (width, height))) and skeleton.num_joints == COCO.num_joints:
        row = replace(
            row,
            own_parameters=own.parameters,
            own_multiply_adds=own.multiply_adds,
            own_counting=own.counting,
        )
    if (paper := row_of(name)) is not None:
        row = replace(row, paper_parameters=paper.parameters, paper_multiply_adds=paper.multiply_adds)
    return row


@cache
def _cost(model_name: str, skeleton: Skeleton, options: str) -> tuple[float, float]:
    """Million parameters and giga multiply-adds, on the meta device: shapes without numbers, so quick."""
    import torch

    from diffusionpose.models.costs import count_multiply_adds, count_parameters
    from diffusionpose.models.zoo import create_model

    with torch.device("meta"):
        model = create_model(model_name, skeleton, **json.loads(options))
        return round(count_parameters(model) / 1e6, 2), round(count_multiply_adds(model) / 1e9, 2)


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


# Tables 2, 3 and 4 of the paper in Markdown, its numbers beside ours: what docs/tables.md holds

TITLES = {
    2: "Table 2: COCO val2017, person boxes of the 56.4 AP detector",
    3: "Table 3: CrowdPose, true boxes",
    4: "Table 4: AI Challenger validation, true boxes",
}
NOT_MEASURED = "not measured"


def markdown() -> Iterator[str]:
    """The lines of the three tables."""
    costs = {row.name: row for row in takewhile(lambda row: row.kind == "recipe", rows())}
    for number, table in TABLES.items():
        names = list(max(table, key=lambda row: len(row.accuracy)).accuracy)
        costly = number == 2
        heads = ["method", "backbone", "input", "parameters, M", "multiply-adds, G"]
        heads += [f"{name}, paper" for name in names] + ["AP, ours", "recipe"]
        yield from (f"## {TITLES[number]}", "")
        yield _line_tables(heads)
        yield _line_tables(["---"] * len(heads))
        for row in table:
            yield _line_tables(_cells(row, names, costs.get(row.recipe or ""), costly))
        yield ""


def _cells(row: TableRow, names: list[str], cost: Row | None, costly: bool) -> list[str]:
    """The cells of a row; ``costly`` where the paper's table has costs."""
    width, height = row.input_size
    cells = [row.method, row.backbone, f"{height}x{width}"]
    if cost is None:
        ours: tuple[float | None, ...] = (None, None)
        own: tuple[float | None, ...] = (None, None)
    else:
        ours = (cost.parameters, cost.multiply_adds)
        own = (cost.own_parameters, cost.own_multiply_adds)
    paper = (row.parameters, row.multiply_adds)
    for mine, theirs, printed in zip(ours, own, paper, strict=True):
        parts = [_number(mine, ".1f"), _number(theirs, ".1f")] + ([_number(printed, "d")] if costly else [])
        cells.append(" / ".join(parts))
    cells += [_number(row.accuracy.get(name), ".1f") for name in names]
    return [*cells, NOT_MEASURED if row.recipe else NOT_YET, f"`{row.recipe}`" if row.recipe else "-"]


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _line_tables(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"
