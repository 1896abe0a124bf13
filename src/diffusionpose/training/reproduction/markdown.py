"""The Markdown of a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from diffusionpose.training.studies import Study

NONE = "-"
DIFFERENT = (
    "**The paper's numbers and ours are not the same measurement.** The paper's: COCO val2017, HRNet-W32 at "
    "256x192, 210 epochs. Ours: {}. Compare how the rows of one column differ, not the columns."
)
SAME = "Ours are measured as the paper's: COCO val2017, HRNet-W32 at 256x192, its recipe, detected boxes."


def write_markdown(study: Study, entries: Mapping[str, Any]) -> str:
    """The report as text.

    Args:
        study: what was varied.
        entries: what the JSON file holds.
    """
    differing = entries["differs_from_the_paper"]
    parts = [
        f"# {study.title}",
        DIFFERENT.format("; ".join(differing)) if differing else SAME,
        _table(study, entries),
        _explanation(entries),
        *study.notes,
    ]
    if study.kind == "pictures" and entries.get("pictures"):
        parts.append(_pictures(entries["pictures"]))
    if failures := [row for row in entries["rows"] if "failure" in row]:
        parts.append("## Not done\n\n" + "\n".join(f"- {row['label']}: {row['failure']}" for row in failures))
    parts += [f"![{study.title}]({study.name}.png)", _origin(entries)]
    return "\n\n".join(parts) + "\n"


def _table(study: Study, entries: Mapping[str, Any]) -> str:
    rows = entries["rows"]
    extra = _extra_column(study, entries)
    header = [study.column, *([extra[0]] if extra else []), "AP", "AR", "PCK", "PCK, limbs"]
    header += ["parameters", "multiply-adds", "AP, paper", "AR, paper"]
    lines = [header, ["---"] * len(header)]
    for index, row in enumerate(rows):
        cells = [row["label"], *([extra[1][index]] if extra else [])]
        cells += [_value(row[name]) for name in ("AP", "AR", "PCK", "PCK_limbs")]
        cells += [_scaled(row["parameters"], 1e6, "M"), _scaled(row["multiply_adds"], 1e9, "G")]
        cells += [
            NONE if row["paper"][name] is None else f"{row['paper'][name]:.1f}" for name in ("AP", "AR")
        ]
        lines.append(cells)
    floor = entries["data"]["mean_pose"]
    cells = ["mean pose of the training set", *([NONE] if extra else [])]
    cells += [_percent(floor.get(name)) for name in ("AP", "AR", "PCK", "PCK_limbs")]
    lines.append([*cells, NONE, NONE, NONE, NONE])
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def _extra_column(study: Study, entries: Mapping[str, Any]) -> tuple[str, Sequence[str]] | None:
    """What a table needs to say of its rows beyond the paper's label."""
    width, height = entries["budget"]["base"]["input_size"]
    options = [row["options"] for row in entries["rows"]]
    if study.name == "table7":
        # one standard deviation of the noise at t = T, of a map of height / 4 rows
        shares = [100 / each["zeta"] / (height / 4) for each in options]
        cells = [f"{each['zeta']:g} ({share:.3g} %)" for each, share in zip(options, shares, strict=True)]
        return "zeta used (noise / map height)", cells
    if study.name == "table6":
        return "heatmap", [f"{height // each['stride']}x{width // each['stride']}" for each in options]
    return None


def _value(numbers: Mapping[str, Any] | None) -> str:
    """A metric in percent: with its spread over seeds, or its 95 % interval over persons."""
    if numbers is None:
        return NONE
    text = f"{100 * numbers['mean']:.1f}"
    if numbers["spread"] is not None:
        return f"{text} ± {100 * numbers['spread']:.1f}"
    between = numbers["intervals_95"][0]
    return f"{text} ({100 * between[0]:.1f} to {100 * between[1]:.1f})" if between else text


def _percent(value: float | None) -> str:
    return NONE if value is None else f"{100 * value:.1f}"


def _scaled(value: float | None, unit: float, letter: str) -> str:
    return NONE if value is None else f"{value / unit:.3g} {letter}"


def _explanation(entries: Mapping[str, Any]) -> str:
    base, seeds = entries["budget"]["base"], entries["seeds"]
    flip = "with" if base["flip"] else "without"
    text = (
        "AP and AR are those of OKS, PCK is at 0.2 of the torso, all in percent; "
        f"boxes: {entries['data']['boxes']}; {base['decode']} decoder, {flip} flip test. Multiply-adds are "
        "of one person, without the flip test. Measured is the model after the last epoch, not the best one. "
    )
    if len(seeds) > 1:
        return text + f"± is the standard deviation over {len(seeds)} trainings (seeds 0 to {seeds[-1]})."
    return text + (
        "In brackets: 95 % bootstrap intervals over the persons measured. One training each (seed 0): how "
        "far another seed would move a number is not known."
    )


def _pictures(pictures: Mapping[str, Any]) -> str:
    lines = [
        "## Which pictures",
        "",
        pictures["rule"],
        "",
        "| picture | " + " | ".join(f"error, {name}" for name in pictures["models"]) + " |",
        "| --- | " + " | ".join("---" for _ in pictures["models"]) + " |",
    ]
    for each in pictures["shown"]:
        errors = " | ".join(f"{100 * each['errors'][name]:.1f}" for name in pictures["models"])
        lines.append(f"| {each['file_name']} | {errors} |")
    return "\n".join(lines)


def _origin(entries: Mapping[str, Any]) -> str:
    data = entries["data"]
    train = ", ".join(f"{each['persons']} persons of {Path(each['file']).name}" for each in data["train"])
    seconds = sum(row["training_seconds"] or 0 for row in entries["rows"])
    machines = "; ".join(
        each["gpu"] or f"{each['processor']}, {each['cores']} cores" for each in entries["hardware"]
    )
    packages = "; ".join(
        ", ".join(f"{name} {version}" for name, version in each.items()) for each in entries["versions"]
    )
    return (
        f"Trained on {train}: {seconds / 60:.0f} minutes for one seed of all rows, added up, on {machines}. "
        f"{packages}.\n\n```\n{entries['command']}\n```"
    )
