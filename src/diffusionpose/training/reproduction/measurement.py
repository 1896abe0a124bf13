"""A trained model measured, and the measurement kept beside it so that it need not be made again."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from diffusionpose.evaluation.evaluate import Report, evaluate
from diffusionpose.models.costs import count_multiply_adds, count_parameters
from diffusionpose.models.diffusion_pose import DiffusionPose
from diffusionpose.models.weights import load_model
from diffusionpose.training.data import read_persons, worker_count
from diffusionpose.training.folder import RunFolder
from diffusionpose.training.reproduction.job import Job
from diffusionpose.training.reproduction.machine import device_for, hardware, versions
from diffusionpose.training.reproduction.written import write_json


def measure(job: Job, steps: int, failures: Sequence[str] = ()) -> None:
    """Write ``job.result_file(steps)``: metrics, intervals, cost, time.

    Args:
        job: whose training is done.
        steps: diffusion steps; a model without them gives the same for any number.
        failures: of the training, to be reported along.

    Raises:
        InputError: the model or the data cannot be used.
    """
    began = time.monotonic()
    model = load_model(job.model_file, device=device_for(job.machine.accelerator))
    truth = read_persons(job.data.val, model.skeleton)
    report = evaluate(
        model,
        truth,
        job.data.val.images,
        job.data.boxes,
        decode=job.settings.decode,
        flip=job.settings.flip,
        steps=steps,
        batch_size=2 * job.settings.batch_size,
        workers=worker_count(job.machine),
    )
    diffusion = isinstance(model, DiffusionPose)
    entries = {
        "key": job.key(steps),
        "steps": steps if diffusion else None,
        **_numbers(report),
        "parameters": count_parameters(model),
        "multiply_adds": count_multiply_adds(model, **({"steps": steps} if diffusion else {})),
        "training": {**_training(job), "failures": list(failures)},
        "evaluation_seconds": round(time.monotonic() - began, 1),
        "threads": job.threads,
        "hardware": hardware(),
        "versions": versions(),
    }
    write_json(job.result_file(steps), entries)


def _numbers(report: Report) -> dict[str, Any]:
    found = report.to_dict()
    names = ("box_source", "settings", "counts", "failures")
    return {
        "metrics": report.metrics,
        "intervals_95": found.get("intervals_95", {}),
        **{name: found[name] for name in names},
    }


def _training(job: Job) -> dict[str, Any]:
    """Epochs, seconds of all sittings (validation apart), and the last epoch's loss."""
    rows = RunFolder(job.folder).rows()
    return {
        "epochs": len(rows),
        "seconds": round(sum(float(row["seconds"]) for row in rows), 1),
        "loss": float(rows[-1]["loss"]),
    }
