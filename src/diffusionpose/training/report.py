"""The report of a study as text: measurements gathered into rows, the paper's numbers beside ours."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from diffusionpose.training.studies import Study

METRICS = ("AP", "AR", "PCK", "PCK_limbs")


def report_row(
    label: str,
    paper: tuple[float | None, float | None],
    options: Mapping[str, Any],
    results: Mapping[str, Mapping[str, Any] | None],
    failed: Mapping[str, str],
) -> dict[str, Any]:
    """A row: one training, or one for each seed.

    Args:
        label: of the row.
        paper: its AP and AR, percent.
        options: of the model.
        results: measurements by name of the run, one a seed; None where it is missing.
        failed: why a run failed, by its name.

    Returns:
        "AP", "AR", "PCK", "PCK_limbs" each with "values" (one a seed, fractions of 1), "mean", "spread"
        (sample standard deviation, None for one seed) and "intervals_95" (one a seed); the paper's numbers,
        cost and time; "failure" where something is missing.
    """
    found = [result for result in results.values() if result is not None]
    missing = [name for name, result in results.items() if result is None]
    row: dict[str, Any] = {
        "label": label,
        "paper": dict(zip(("AP", "AR"), paper, strict=True)),
        "options": dict(options),
        "runs": [{"name": name, "result": result} for name, result in results.items()],
        **{name: _over_seeds(name, found) for name in METRICS},
        **{name: found[0][name] if found else None for name in ("parameters", "multiply_adds")},
        "training_seconds": _mean([result["training"]["seconds"] for result in found]),
        "evaluation_seconds": _mean([result["evaluation_seconds"] for result in found]),
    }
    if missing:
        row["failure"] = "; ".join(f"{name}: {failed.get(name, 'not done')}" for name in missing)
    return row


def _over_seeds(name: str, found: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    values = [result["metrics"].get(name) for result in found]
    known = [value for value in values if value is not None]
    if not known:
        return None
    return {
        "values": values,
        "mean": statistics.fmean(known),
        "spread": statistics.stdev(known) if len(known) > 1 else None,
        "intervals_95": [result["intervals_95"].get(name) for result in found],
    }


def _mean(values: Sequence[float]) -> float | None:
    return statistics.fmean(values) if values else None


NONE = "-"
DIFFERENT = (
    "**The paper's numbers and ours are not the same measurement.** The paper's: COCO val2017, HRNet-W32 at "
    "256x192, 210 epochs. Ours: {}. Compare how the rows of one column differ, not the columns."
)
SAME = "Ours are measured as the paper's: COCO val2017, HRNet-W32 at 256x192, its recipe, detected boxes."


def markdown(study: Study, entries: Mapping[str, Any]) -> str:
    """The report as text, from what STUDY.json holds."""
    differing, failures = (
        entries["differs_from_the_paper"],
        [row for row in entries["rows"] if "failure" in row],
    )
    parts = [
        f"# {study.title}",
        DIFFERENT.format("; ".join(differing)) if differing else SAME,
        _table(study, entries),
        _explanation(entries),
        *study.notes,
    ]
    if pictures := entries.get("pictures"):
        names = pictures["models"]
        cells = [["picture", *(f"error, {name}" for name in names)], ["---"] * (1 + len(names))]
        for each in pictures["shown"]:
            cells.append([each["file_name"], *(f"{100 * each['errors'][name]:.1f}" for name in names)])
        parts += ["## Which pictures", pictures["rule"], _lines(cells)]
    if failures:
        parts.append("## Not done\n\n" + "\n".join(f"- {row['label']}: {row['failure']}" for row in failures))
    return "\n\n".join([*parts, f"![{study.title}]({study.name}.png)", _origin(entries)]) + "\n"


def _lines(cells: Sequence[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(row) + " |" for row in cells)


def _table(study: Study, entries: Mapping[str, Any]) -> str:
    extra = _extra_column(study, entries)  # heading and cells, or nothing
    names = ["AP", "AR", "PCK", "PCK, limbs", "parameters", "multiply-adds", "AP, paper", "AR, paper"]
    header = [study.column, *extra[:1], *names]
    lines = [header, ["---"] * len(header)]
    for index, row in enumerate(entries["rows"]):
        paper = [row["paper"][name] for name in ("AP", "AR")]
        lines.append(
            [
                row["label"],
                *extra[1 + index : 2 + index],
                *(_value(row[name]) for name in METRICS),
                NONE if row["parameters"] is None else f"{row['parameters'] / 1e6:.3g} M",
                NONE if row["multiply_adds"] is None else f"{row['multiply_adds'] / 1e9:.3g} G",
                *(NONE if value is None else f"{value:.1f}" for value in paper),
            ]
        )
    floor = [entries["data"]["mean_pose"].get(name) for name in METRICS]
    cells = [NONE if value is None else f"{100 * value:.1f}" for value in floor]
    lines.append(["mean pose of the training set", *([NONE] if extra else []), *cells, *[NONE] * 4])
    return _lines(lines)


def _extra_column(study: Study, entries: Mapping[str, Any]) -> list[str]:
    """Heading and cells of what a table needs to say of its rows beyond the paper's label."""
    width, height = entries["budget"]["base"]["input_size"]
    options = [row["options"] for row in entries["rows"]]
    if study.name == "table7":  # one standard deviation of the noise at t = T, of a map of height / 4 rows
        shares = [f"{each['zeta']:g} ({100 / each['zeta'] / (height / 4):.3g} %)" for each in options]
        return ["zeta used (noise / map height)", *shares]
    if study.name == "table6":
        return ["heatmap", *(f"{height // each['stride']}x{width // each['stride']}" for each in options)]
    return []


def _value(numbers: Mapping[str, Any] | None) -> str:
    """A metric in percent: with its spread over seeds, or its 95 % interval over persons."""
    if numbers is None:
        return NONE
    text = f"{100 * numbers['mean']:.1f}"
    if numbers["spread"] is not None:
        return f"{text} ± {100 * numbers['spread']:.1f}"
    between = numbers["intervals_95"][0]
    return f"{text} ({100 * between[0]:.1f} to {100 * between[1]:.1f})" if between else text


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


def _origin(entries: Mapping[str, Any]) -> str:
    train = [f"{each['persons']} persons of {Path(each['file']).name}" for each in entries["data"]["train"]]
    seconds = sum(row["training_seconds"] or 0 for row in entries["rows"])
    machines = [each["gpu"] or f"{each['processor']}, {each['cores']} cores" for each in entries["hardware"]]
    packages = [
        ", ".join(f"{name} {version}" for name, version in each.items()) for each in entries["versions"]
    ]
    return (
        f"Trained on {', '.join(train)}: {seconds / 60:.0f} minutes for one seed of all rows, added up, on "
        f"{'; '.join(machines)}. {'; '.join(packages)}.\n\n```\n{entries['command']}\n```"
    )
