"""``diffusionpose models``: what there is to train and to use, and what it costs.

The costs are counted once and kept in ``models/costs.json``, so that the list needs neither torch nor time;
``--recount`` counts them again.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import diffusionpose
from diffusionpose.app.options import refuse, say
from diffusionpose.bundled import FOLDER, bundled_models
from diffusionpose.errors import atomically
from diffusionpose.models.costs import publication_of
from diffusionpose.skeletons import COCO, Skeleton, get_skeleton
from diffusionpose.training.recipes import TableRow, get_recipe, recipes, row_of, tables

COSTS = Path(diffusionpose.__file__).parent / "models" / "costs.json"
HEADER = "{:46}    input  joints  params  mult-adds   its own publication   paper (Table 2)"
NOTES = """
Own publications count multiply-adds in their own ways (docs/tables.md), ours are what the network
computes. posefix_r152's recipe is counted with the model whose poses it refines, as Table 2 does.
Give a recipe to `diffusionpose train`, a bundled model to --weights."""


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
        """Print; 0."""
        both = "models: --json and --markdown are two forms of the list; give one of them"
        refuse((self.json and self.markdown, both))
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


@dataclass(frozen=True)
class Row:
    """A model or recipe and its cost."""

    kind: str  # "recipe", "model" or "bundled"
    name: str  # as the command line takes it
    input_size: tuple[int, int]  # (width, height), pixels
    joints: int  # how many heatmaps
    parameters: float | None = None  # in millions; None where there is no model
    multiply_adds: float | None = None  # in billions, of one person: one pass, one step, no flip test
    own_parameters: float | None = None  # what the method's own publication states
    own_multiply_adds: float | None = None
    own_counting: str | None = None  # how it counts (``diffusionpose.models.costs``)
    paper_parameters: float | None = None  # what Table 2 prints
    paper_multiply_adds: float | None = None


def rows() -> Iterator[Row]:
    """Recipes, models with their default options, bundled models."""
    for name in recipes():
        yield _row("recipe", name, *_recipe(name))
    for name in _stored()["models"]:
        yield _row("model", name, name, COCO.num_joints, {"input_size": (192, 256)})
    for name in bundled_models():
        yield _row("bundled", name, *_bundled(name))


def _recipe(name: str) -> tuple[str, int, dict[str, Any]]:
    """Model, number of joints and options of a recipe."""
    recipe = get_recipe(name)
    options = {**recipe.options, "input_size": recipe.input_size}
    return recipe.model, get_skeleton(recipe.skeleton).num_joints, options


def _bundled(name: str) -> tuple[str, int, dict[str, Any]]:
    """Those of a bundled model, from the head of its safetensors file, which needs no library to read."""
    with (FOLDER / f"{name}.safetensors").open("rb") as file:
        head = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    config = json.loads(head["__metadata__"]["diffusionpose"])
    return config["name"], len(config["skeleton"]["joints"]), config["options"]


def _row(kind: str, name: str, model: str, joints: int, options: dict[str, Any]) -> Row:
    width, height = options["input_size"]
    key = cost_key(model, joints, options)
    facts: dict[str, Any] = {}
    if (own := publication_of(model, (width, height))) and joints == COCO.num_joints:
        facts = {
            "own_parameters": own.parameters,
            "own_multiply_adds": own.multiply_adds,
            "own_counting": own.counting,
        }
    costs = _stored()["costs"].get(key) or count(key)
    if (paper := row_of(name)) is not None:
        facts |= {"paper_parameters": paper.parameters, "paper_multiply_adds": paper.multiply_adds}
        if paper.refined:
            first = _row(kind, paper.refined, *_recipe(paper.refined))
            costs = (costs[0] + (first.parameters or 0), costs[1] + (first.multiply_adds or 0))
    return Row(kind, name, (width, height), joints, *costs, **facts)


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


@cache
def count(key: str) -> tuple[float, float]:
    """Million parameters and giga multiply-adds, counted on the meta device: shapes without numbers."""
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

    _stored.cache_clear()
    models = [(name, COCO.num_joints, {"input_size": (192, 256)}) for name in MODELS]
    models += [*map(_recipe, recipes()), *map(_bundled, bundled_models())]
    costs = {}
    for key in sorted({cost_key(*each) for each in models}):
        costs[key] = count(key)
        say(f"{key}: {costs[key]}")
    lines = json.dumps({"models": list(MODELS), "costs": costs}, indent=0)
    atomically(COSTS, lambda part: part.write_text(lines + "\n", encoding="utf-8"))


# --- the table ---


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
    return f"{parameters:.{digits}f} M{multiply_adds:9.{digits + (multiply_adds < 1)}f} G"


# --- Tables 2, 3 and 4 of the paper in Markdown, its numbers beside ours: what docs/tables.md holds ---

TITLES = {
    2: "Table 2: COCO val2017, person boxes of the 56.4 AP detector",
    3: "Table 3: CrowdPose, true boxes",
    4: "Table 4: AI Challenger validation, true boxes",
}


def markdown() -> Iterator[str]:
    """The lines of the three tables."""
    costs = {row.name: row for row in rows() if row.kind == "recipe"}
    for number, table in tables().items():
        names = list(max(table, key=lambda row: len(row.accuracy)).accuracy)
        heads = ["method", "backbone", "input", "parameters, M", "multiply-adds, G"]
        heads += [f"{name}, paper" for name in names] + ["AP, ours", "recipe"]
        yield from (f"## {TITLES[number]}", "")
        yield f"| {' | '.join(heads)} |"
        yield f"| {' | '.join(['---'] * len(heads))} |"
        for row in table:
            yield f"| {' | '.join(_cells(row, names, costs[row.recipe], with_paper=number == 2))} |"
        yield ""


def _cells(row: TableRow, names: list[str], cost: Row, with_paper: bool) -> list[str]:
    """The cells of a row; ``with_paper`` where the paper's table has costs."""

    def number(value: float | None, form: str = ".1f") -> str:
        return "-" if value is None else format(value, form)

    width, height = row.input_size
    cells = [row.method, row.backbone, f"{height}x{width}"]
    for mine, theirs, printed in (
        (cost.parameters, cost.own_parameters, row.parameters),
        (cost.multiply_adds, cost.own_multiply_adds, row.multiply_adds),
    ):
        printed_too = [number(printed, "d")] if with_paper else []
        cells.append(" / ".join([number(mine), number(theirs), *printed_too]))
    cells += [number(row.accuracy.get(name)) for name in names]
    return [*cells, "not measured", f"`{row.recipe}`"]
