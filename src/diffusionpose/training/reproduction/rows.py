"""Measurements gathered into the rows of a report: means over seeds beside the paper's numbers."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from diffusionpose.training.reproduction.job import Job
from diffusionpose.training.studies import Planned, Study

Measured = tuple[Planned, Job, Mapping[int, Mapping[str, Any]]]
METRICS = ("AP", "AR", "PCK", "PCK_limbs")


def gather(study: Study, measured: Sequence[Measured], failed: Mapping[str, str]) -> list[dict[str, Any]]:
    """A dict for every row of the study, in the paper's order.

    Args:
        study: which rows there are.
        measured: every planned training with the results of its job by number of steps.
        failed: why a job failed, by its name.

    Returns:
        "label", "paper" {AP, AR} in percent, "runs" by name, "AP", "AR", "PCK", "PCK_limbs" each with
        "values" (one a seed, fractions of 1), "mean", "spread" (sample standard deviation, None for one
        seed) and "intervals_95" (one a seed), and cost and time; "failure" where something is missing.
    """
    if study.kind == "steps":
        return [
            _row(str(steps), study.paper_steps.get(steps, (None, None)), measured, steps, failed)
            for steps in study.steps
        ]
    rows = []
    for variant in study.variants:
        own = [each for each in measured if each[0].variant == variant]
        steps = 1
        rows.append(_row(variant.label, (variant.paper_ap, variant.paper_ar), own, steps, failed))
    return rows


def _row(
    label: str,
    paper: tuple[float | None, float | None],
    measured: Sequence[Measured],
    steps: int,
    failed: Mapping[str, str],
) -> dict[str, Any]:
    found = [results[steps] for _, _, results in measured if steps in results]
    missing = [job.name for _, job, results in measured if steps not in results]
    row: dict[str, Any] = {
        "label": label,
        "paper": dict(zip(("AP", "AR"), paper, strict=True)),
        "steps": steps,
        "options": dict(measured[0][0].settings.options),
        "runs": [
            {"name": job.name, "seed": planned.seed, "result": results.get(steps)}
            for planned, job, results in measured
        ],
        **{name: _over_seeds(name, found) for name in METRICS},
        **_cost(found),
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


def _cost(found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    if not found:
        return {"parameters": None, "multiply_adds": None, "training_seconds": None}
    return {
        "parameters": found[0]["parameters"],
        "multiply_adds": found[0]["multiply_adds"],
        "training_seconds": statistics.fmean(result["training"]["seconds"] for result in found),
        "evaluation_seconds": statistics.fmean(result["evaluation_seconds"] for result in found),
    }
