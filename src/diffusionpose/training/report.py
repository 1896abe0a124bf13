"""The report of a study: a table and a figure, the paper's numbers beside ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import nan
from typing import TYPE_CHECKING, Any

import numpy as np

from diffusionpose.evaluation.compare import BLUE, GREY, ORANGE, PURPLE, panels
from diffusionpose.training.studies import Study

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

METRICS = ("AP", "AR", "PCK", "PCK_limbs")
PROTOCOLS = """\
**The paper's numbers** are of COCO val2017: HRNet-W32 at 256x192, 210 epochs, 256 persons a step, boxes
of a detector (56.4 AP). **Ours** are of {persons} persons of {file}, skeleton {skeleton}: {words},
{step} persons a step, boxes: {boxes}. Where these differ, compare how the rows of one column differ,
not the columns.

{table}

AP and AR are those of OKS, PCK is at 0.2 of the torso, all in percent; {decode} decoder, {flip} flip
test. Multiply-adds are of one person, without the flip test. Measured is the model after the last
epoch, not the best one. {bars}"""
SEVERAL = "± is the standard deviation over {} trainings (seeds 0, 1, ...)."
ONE = (
    "In brackets: 95 % bootstrap intervals over the persons measured. One training each (seed 0): how far "
    "another seed would move a number is not known."
)


def markdown(study: Study, entries: Mapping[str, Any]) -> str:
    """The report as text, from what STUDY.json holds."""
    rows, data, budget, seeds = (entries[name] for name in ("rows", "data", "budget", "seeds"))
    ((file, persons),) = data["val"].items()
    protocols = PROTOCOLS.format(
        persons=persons,
        file=file,
        skeleton=data["skeleton"],
        words=budget["words"],
        step=entries["persons_per_step"],
        boxes=data["boxes"],
        table=_table(study, entries),
        decode=budget["base"]["decode"],
        flip="with" if budget["base"]["flip"] else "without",
        bars=SEVERAL.format(seeds) if seeds > 1 else ONE,
    )
    parts = [f"# {study.title}", protocols, *study.notes]
    if pictures := entries.get("pictures"):
        parts += [pictures["rule"], f"Pictures: {', '.join(pictures['shown'])}."]
    if failures := [f"- {row['label']}: {row['failure']}" for row in rows if "failure" in row]:
        parts.append("## Not done\n\n" + "\n".join(failures))
    trained = ", ".join(f"{count} persons of {name}" for name, count in data["train"].items())
    minutes = sum(row["training_seconds"] for row in rows) / 60
    versions = ", ".join(f"{name} {version}" for name, version in entries["versions"].items())
    parts += [
        f"![{study.title}]({study.name}.png)",
        f"Trained on {trained}: {minutes:.0f} minutes for one seed of all rows, added up, on "
        f"{entries['machine']}. {versions}.",
        f"```\n{entries['command']}\n```",
    ]
    return "\n\n".join(parts) + "\n"


def _table(study: Study, entries: Mapping[str, Any]) -> str:
    width, height = entries["budget"]["base"]["input_size"]
    heading, more = study.more or ("", None)
    names = ["AP", "AR", "PCK", "PCK, limbs", "parameters", "multiply-adds", "AP, paper", "AR, paper"]
    cells = [[study.column, *([heading] if more else []), *names]]
    for row in entries["rows"]:
        own = [row["label"], *([more(row["options"], height, width)] if more else [])]
        costs = [(row["parameters"], 1e6, "M"), (row["multiply_adds"], 1e9, "G")]
        cells.append(
            [
                *own,
                *(_value(row[name]) for name in METRICS),
                *("-" if cost is None else f"{cost / unit:.3g} {letter}" for cost, unit, letter in costs),
                *("-" if value is None else f"{value:.1f}" for value in row["paper"].values()),
            ]
        )
    floor = [entries["data"]["mean_pose"].get(name) for name in METRICS]
    values = ["-" if value is None else f"{100 * value:.1f}" for value in floor]
    cells.append(["mean pose of the training set", *(["-"] if more else []), *values, *["-"] * 4])
    cells.insert(1, ["---"] * len(cells[0]))
    return "\n".join("| " + " | ".join(row) + " |" for row in cells)


def _value(numbers: Mapping[str, Any] | None) -> str:
    """A metric in percent: with its spread over seeds, or its 95 % interval over persons."""
    if numbers is None:
        return "-"
    text, interval = f"{100 * numbers['mean']:.1f}", numbers["intervals_95"][0]
    if numbers["spread"] is not None:
        return f"{text} ± {100 * numbers['spread']:.1f}"
    return f"{text} ({100 * interval[0]:.1f} to {100 * interval[1]:.1f})" if interval else text


def plot(study: Study, rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Three panels: our AP and AR; our PCK; the paper's AP and AR, or the cost where the steps vary."""
    figure, (accuracy, pck, third) = panels(3)
    for axes, names in ((accuracy, METRICS[:2]), (pck, METRICS[2:])):
        for name, color, marker, aside in zip(names, (BLUE, ORANGE), "os", (-0.06, 0.06), strict=True):
            _points(axes, name, [row[name] for row in rows], color, marker, aside)
    labels = [row["label"].replace(", ", ",\n").replace(" (", "\n(") for row in rows]
    if len({row["steps"] for row in rows}) > 1:
        third.bar(range(len(rows)), [(row["multiply_adds"] or 0) / 1e9 for row in rows], color=BLUE)
    else:
        for name, color, marker in (("AP", PURPLE, "o"), ("AR", GREY, "s")):
            values = [nan if row["paper"][name] is None else row["paper"][name] for row in rows]
            third.plot(range(len(rows)), values, marker=marker, color=color, label=name)
    third_title = "paper: COCO val2017" if third.lines else "multiply-adds of one person, G"
    titles = ("ours: AP and AR, per cent", "ours: PCK at 0.2 torso", third_title)
    for axes, title in zip((accuracy, pck, third), titles, strict=True):
        axes.set(title=title, xlabel=study.column, xlim=(-0.5, len(rows) - 0.5))
        axes.set_xticks(range(len(rows)), labels)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(frameon=False)
    figure.supxlabel(
        "bars: 95 % bootstrap interval over persons, or standard deviation over seeds", fontsize=10
    )
    figure.suptitle(study.title, fontsize=13)
    return figure


def _points(
    axes: Axes, name: str, metric: Sequence[Mapping[str, Any] | None], color: str, marker: str, aside: float
) -> None:
    """A metric of every row that has it, with its spread over seeds or its interval over persons."""
    known = [(place + aside, numbers) for place, numbers in enumerate(metric) if numbers is not None]
    bars: list[tuple[float, float]] = []  # below and above the mean
    for place, numbers in known:
        mean, spread, interval = numbers["mean"], numbers["spread"], numbers["intervals_95"][0]
        low, high = interval or (mean, mean)
        bars.append((mean - low, high - mean) if spread is None else (spread, spread))
        axes.plot([place] * len(numbers["values"]), 100 * np.array(numbers["values"]), ".", color=color)
    if known:
        means = [100 * numbers["mean"] for _, numbers in known]
        looks = {"color": color, "marker": marker, "capsize": 4, "label": name.replace("_", ", ")}
        axes.errorbar([place for place, _ in known], means, yerr=100 * np.abs(bars).T, **looks)
