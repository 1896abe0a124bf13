"""One study from start to end, or from where it stopped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from diffusionpose.training.reproduction.cost import epoch_weight
from diffusionpose.training.reproduction.facts import settle
from diffusionpose.training.reproduction.job import Data, Job
from diffusionpose.training.reproduction.runs import Say, do_all
from diffusionpose.training.settings import Machine
from diffusionpose.training.studies import Budget, Planned, Study, plan


@dataclass(frozen=True)
class Request:
    """What is asked for.

    Attributes:
        study: which table or figure.
        budget: what is spent on a training.
        data: sets, boxes, encoder weights.
        output: folder of all studies of these data and this budget.
        skeleton: name or YAML file; None for that of the training annotations.
        seeds: trainings of each variant.
        machine: of each training.
        parallel: trainings side by side.
        threads: of each training's arithmetic.
        pictures: shown by a study of pictures.
        command: the command line, for the report.
    """

    study: Study
    budget: Budget
    data: Data
    output: Path
    skeleton: str | None = None
    seeds: int = 1
    machine: Machine = field(default_factory=Machine)
    parallel: int = 1
    threads: int = 1
    pictures: int = 6
    command: str = ""


@dataclass(frozen=True)
class Outcome:
    """How it ended.

    Attributes:
        files: that were written.
        failures: what could not be done, in words.
    """

    files: Sequence[Path]
    failures: Sequence[str]


def reproduce(request: Request, say: Say) -> Outcome:
    """Train what is missing, measure, and write OUTPUT/STUDY.md, .json and .png.

    Args:
        request: what is asked for.
        say: takes the lines of progress.

    Raises:
        InputError: something given cannot be used. What fails in one training is reported instead,
            and the others are done.
    """
    from diffusionpose.training.reproduction.report import write_report

    facts = settle(request.output, request.data, request.budget, request.skeleton)
    planned = plan(request.study, request.budget, facts["skeleton"], request.seeds)
    jobs = [_job(request, each) for each in planned]
    failed = _do_missing(jobs, request, say)
    failures = [f"{name}: {text}" for name, text in failed.items()]
    measured = [_results(job) for job in jobs]
    failures += [
        f"{job.name}: {message}"
        for job, results in zip(jobs, measured, strict=True)
        for result in results.values()
        for message in (*result["failures"], *result["training"]["failures"])
    ]
    files, more = write_report(request, facts, list(zip(planned, jobs, measured, strict=True)), failed)
    return Outcome(files, list(dict.fromkeys([*failures, *more])))


def _job(request: Request, planned: Planned) -> Job:
    return Job(
        name=planned.name,
        folder=request.output / "runs" / planned.name,
        settings=planned.settings,
        data=request.data,
        steps=request.study.steps if planned.variant.takes_steps else (1,),
        machine=request.machine,
        threads=request.threads,
    )


def _do_missing(jobs: Sequence[Job], request: Request, say: Say) -> dict[str, str]:
    """Why a job failed, by its name."""
    missing = [job for job in jobs if not job.finished]
    ready = len(jobs) - len(missing)
    say(f"{request.study.name}: runs to do {len(missing)}, trained and measured already {ready}")
    if not missing:
        return {}
    weights = {job.name: epoch_weight(job.settings) for job in missing}
    return do_all(missing, weights, min(request.parallel, len(missing)), say)


def _results(job: Job) -> dict[int, dict[str, Any]]:
    """By number of steps, the measurements that are there."""
    found = {steps: job.result(steps) for steps in job.steps}
    return {steps: result for steps, result in found.items() if result is not None}
