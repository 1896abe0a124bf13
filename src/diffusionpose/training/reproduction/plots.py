"""The plots of a report: the paper's numbers in a panel of their own beside ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import nan
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffusionpose.evaluation.plots import BLUE, GREY, ORANGE, PURPLE, panels
from diffusionpose.training.reproduction.written import write_file
from diffusionpose.training.studies import Study

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

OURS, ALSO, PAPER = BLUE, ORANGE, PURPLE
GIGA = 1e9
ASIDE = 0.06  # of the distance between two rows


def plot_table(study: Study, rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Points for every row: ours (AP, AR; below it PCK with its intervals) and the paper's AP and AR.

    Args:
        study: names the axis.
        rows: of ``rows.gather``.
        path: of the PNG.

    Raises:
        InputError: the file cannot be written.
    """
    figure, (ours, pck, paper) = panels(3)
    places = list(range(len(rows)))
    _accuracies(ours, pck, rows)
    for name, color, marker in (("AP", PAPER, "o"), ("AR", GREY, "s")):
        values = [nan if row["paper"][name] is None else row["paper"][name] for row in rows]
        paper.plot(places, values, marker=marker, color=color, label=name)
    for axes, title in (
        (ours, "ours: AP and AR"),
        (pck, "ours: PCK at 0.2 torso"),
        (paper, "paper: COCO val2017"),
    ):
        axes.set_xlim(-0.4, len(rows) - 0.6)
        _label(axes, title, study.column, [_wrapped(row["label"]) for row in rows])
    figure.suptitle(study.title, fontsize=14)
    _save(figure, rows, path)


def plot_steps(study: Study, rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """AP, PCK and multiply-adds over the number of diffusion steps, as Figure 4.

    Args:
        study: names the axis.
        rows: of ``rows.gather``.
        path: of the PNG.

    Raises:
        InputError: the file cannot be written.
    """
    figure, (accuracy, pck, cost) = panels(3)
    _accuracies(accuracy, pck, rows)
    known = [(place, row["multiply_adds"] / GIGA) for place, row in enumerate(rows) if row["multiply_adds"]]
    if known:
        places, costs = zip(*known, strict=True)
        cost.bar(places, costs, color=OURS, width=0.6)
    for axes, title in ((accuracy, "AP and AR"), (pck, "PCK at 0.2 torso"), (cost, "cost of one person")):
        _label(axes, title, "diffusion steps (0: coarse heatmaps)", [row["label"] for row in rows])
    cost.set_ylabel("multiply-adds, G")
    paper = "paper: 75.4 AP with 1 step, 0.1 to 0.2 AP more with further steps"
    figure.suptitle(f"{study.title} ({paper})", fontsize=13)
    _save(figure, rows, path)


def _accuracies(accuracy: Axes, pck: Axes, rows: Sequence[Mapping[str, Any]]) -> None:
    """The two panels of our own accuracies that every plot has."""
    for axes, blue, orange in ((accuracy, "AP", "AR"), (pck, "PCK", "PCK_limbs")):
        _points(axes, rows, blue, OURS, "o")
        _points(axes, rows, orange, ALSO, "s")
    accuracy.set_ylabel("per cent")


def _label(axes: Axes, title: str, column: str, labels: Sequence[str]) -> None:
    """Title, horizontal axis with a label for every row, and a legend where there is something to tell."""
    axes.set_title(title)
    axes.set_xlabel(column)
    axes.set_xticks(range(len(labels)), labels)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False)


def _points(axes: Axes, rows: Sequence[Mapping[str, Any]], name: str, color: str, marker: str) -> None:
    """A metric of every row that has it, with its spread over seeds or its interval over persons."""
    aside = ASIDE if color == ALSO else -ASIDE  # so that the bars of two metrics can be told apart
    places = [place + aside for place, row in enumerate(rows) if row[name] is not None]
    found = [row[name] for row in rows if row[name] is not None]
    if not found:
        return
    values = [100 * each["mean"] for each in found]
    axes.plot(places, values, color=color, marker=marker, label=name.replace("_", ", "))
    ends = [_ends(each) for each in found]
    if any(high > low for low, high in ends):
        low = [max(value - end[0], 0) for value, end in zip(values, ends, strict=True)]
        high = [max(end[1] - value, 0) for value, end in zip(values, ends, strict=True)]
        axes.errorbar(places, values, yerr=[low, high], color=color, capsize=4, linestyle="none")
    for each, place in zip(found, places, strict=True):
        if len(each["values"]) > 1:
            seeds = [100 * value for value in each["values"] if value is not None]
            axes.plot([place] * len(seeds), seeds, ".", color=color, alpha=0.5)


def _ends(numbers: Mapping[str, Any]) -> tuple[float, float]:
    """In percent: mean -+ spread over seeds, else the interval over persons, else nothing."""
    mean, spread = 100 * numbers["mean"], numbers["spread"]
    if spread is not None:
        return mean - 100 * spread, mean + 100 * spread
    between = numbers["intervals_95"][0]
    return (100 * between[0], 100 * between[1]) if between else (mean, mean)


def _bars(rows: Sequence[Mapping[str, Any]]) -> str:
    """What the bars of a plot mean."""
    spread = any(row["AP"] is not None and row["AP"]["spread"] is not None for row in rows)
    return (
        "bars: standard deviation over seeds"
        if spread
        else "bars: 95 % bootstrap interval over persons, one seed"
    )


def _wrapped(label: str) -> str:
    return label.replace(", ", ",\n").replace(" (", "\n(")


def _save(figure: Figure, rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    figure.supxlabel(_bars(rows), fontsize=10, color=GREY)
    write_file(path, lambda part: figure.savefig(part, dpi=140, format="png"))
