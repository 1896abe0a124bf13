"""Tables 2, 3 and 4 of the paper in Markdown, its numbers beside ours: what docs/tables.md holds."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import takewhile

from diffusionpose.app.models import Row, rows
from diffusionpose.training.recipes.tables import NOT_YET, TABLES, TableRow

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
        yield _line(heads)
        yield _line(["---"] * len(heads))
        for row in table:
            yield _line(_cells(row, names, costs.get(row.recipe or ""), costly))
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


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"
