"""The paper's ablations (section 4.4): train what is missing, measure it, write OUTPUT/STUDY.md, .json, .png.

Each training is a ``diffusionpose train`` in a process of its own, so that one that fails or is killed leaves
the others alone. What is measured already is left as it is, unless its model is newer.
"""

import importlib.metadata
import os
import platform
import statistics
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from diffusionpose.data.annotations import read_annotations
from diffusionpose.errors import InputError, file_digest, write_file
from diffusionpose.evaluation.evaluate import evaluate, evaluate_mean_pose
from diffusionpose.json_files import read_json, write_json
from diffusionpose.models.checkpoints import load_model
from diffusionpose.models.costs import count_multiply_adds, count_parameters
from diffusionpose.runtime.networks import cores
from diffusionpose.skeletons import get_skeleton
from diffusionpose.training.data import read_persons, worker_count
from diffusionpose.training.folder import RunFolder
from diffusionpose.training.loop import LEFT_OUT
from diffusionpose.training.processes import PARENT, device_of
from diffusionpose.training.report import METRICS, hard_pictures, markdown, plot
from diffusionpose.training.settings import TrainingSettings
from diffusionpose.training.studies import STUDIES, Request, Row

PACKAGES = ("diffusionpose", "torch", "torchvision", "timm", "numpy", "faster-coco-eval")
Say = Callable[[str], None]


def reproduce(request: Request, say: Say, command: str = "") -> tuple[list[Path], list[str]]:
    """Train what is missing, measure, and write the report.

    Args:
        request: what to do.
        say: takes the lines of progress.
        command: the command line, for the report.

    Returns:
        The files, and messages about what could not be done.

    Raises:
        InputError: something given cannot be used. What fails in one training is among the messages instead.
    """
    study, budget = STUDIES[request.study], request.chosen_budget
    for name in ("seeds", "pictures", "parallel", "threads"):
        if (number := getattr(request, name)) is not None and number < 1:
            raise InputError(f"--{name} is {number}; it must be 1 or more")
    data = check_folder(request)
    runs = [
        Run(request, row, row.settings(budget, data["skeleton"], seed))
        for seed in range(request.seeds)
        for row in study.rows
    ]
    missing: dict[str, list[Run]] = {}
    for run in runs:
        if run.result() is None:
            missing.setdefault(run.name, []).append(run)
    ready = len({run.name for run in runs}) - len(missing)
    say(f"{study.name}: runs to do {len(missing)}, trained and measured already {ready}")
    failed = train_and_measure(list(missing.values()), *shares(request), say)
    failures = [f"{name}: {message}" for name, message in failed.items()]
    for run in runs:
        failures += [f"{run.name}: {message}" for message in (run.result() or {}).get("failures", [])]

    rows = [summary([run for run in runs if run.row == row], failed) for row in study.rows]
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    entries: dict[str, Any] = {
        "study": study.name,
        "budget": {"name": budget.name, "words": budget.words, "base": budget.base.to_dict()},
        "data": data,
        "seeds": request.seeds,
        "persons_per_step": request.devices * budget.base.batch_size,
        "rows": rows,
        "command": command,
        "machine": gpu or f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
    }
    text, table, picture = files = [request.output / f"{study.name}.{kind}" for kind in ("md", "json", "png")]
    if not study.pictures:
        write_file(picture, lambda part: plot(study, rows).savefig(part, dpi=140, format="png"))
    elif any("failure" in row for row in rows):
        failures.append(f"{study.name}: not drawn, since a model is missing")
        files.remove(picture)
    else:
        models = {run.row.label: (run.model(), run.row.steps) for run in runs[: len(rows)]}  # of seed 0
        image, entries["pictures"] = hard_pictures(models, request.val, budget.base.decode, request.pictures)
        write_file(picture, lambda part: image.save(part, format="png"))
    write_file(text, markdown(study, entries).encode())
    write_json(table, entries)
    return files, list(dict.fromkeys(failures))


def check_folder(request: Request) -> dict[str, Any]:
    """The facts about the data; ``reproduce.json`` keeps studies of other data and budgets out of the folder.

    Raises:
        InputError: the folder holds studies of other data or another budget, or a file cannot be used.
    """
    name = request.skeleton or read_annotations(request.train[0].annotations).skeleton.name
    skeleton, budget = get_skeleton(name), request.chosen_budget
    train = [read_persons(each, skeleton) for each in request.train]
    val = read_persons(request.val, skeleton)
    key = {
        "budget": budget.base.to_dict(),
        "baseline": budget.baseline,
        "skeleton": name,
        "training annotations": [_digest(file) for file in request.annotations],
        "validation annotations": _digest(request.val_annotations),
        "boxes": _digest(request.boxes),
        "encoder weights": _digest(request.encoder_weights),
        "weights": _digest(request.weights),
    }
    file = request.output / "reproduce.json"
    if file.exists():
        before = read_json(file)
        before["budget"] = TrainingSettings.from_dict(before["budget"]).to_dict()
        if differing := [entry for entry in key if before.get(entry) != key[entry]]:
            raise InputError(
                f"{file}: this folder holds studies with other {', '.join(differing)}; "
                "give the same ones to go on, or another --output"
            )
    else:
        write_json(file, key)
    persons = [person for each in train for person in each.persons]
    labelled: Counter[str] = Counter()  # files may have one name
    for each in train:
        labelled[each.path.name] += len(each.labelled().persons)
    return {
        "skeleton": name,
        "train": dict(labelled),
        "val": {val.path.name: len(val.labelled().persons)},
        "boxes": "ground truth" if request.boxes is None else f"detections {request.boxes.name}",
        "mean_pose": evaluate_mean_pose(replace(train[0], persons=persons), val, skeleton).metrics,
    }


def shares(request: Request) -> tuple[int, int]:
    """How many trainings run side by side, and how many threads each has.

    On two cores two trainings of one thread side by side get more done than one of two threads, which wait
    for each other at every small layer. A GPU has one training at a time.
    """
    alone = request.devices > 1 or device_of(request.machine).type != "cpu"
    parallel = request.parallel or (1 if alone else min(2, cores()))
    return parallel, request.threads or max(1, cores() // (parallel * request.devices))


@dataclass(frozen=True)
class Run:
    """A training of a row, in OUTPUT/runs/NAME, and its measurement there."""

    request: Request
    row: Row
    settings: TrainingSettings

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"{self.row.run}-seed{self.settings.seed}"

    @property
    def folder(self) -> RunFolder:
        """Of the training."""
        return RunFolder(self.request.output / "runs" / self.name)

    @property
    def file(self) -> Path:
        """Of the measurement."""
        return self.folder.path / "evaluation" / f"steps{self.row.steps}.json"

    def result(self) -> dict[str, Any] | None:
        """The measurement; None where there is none, or one of an older model."""
        model, file = self.folder.newest, self.file
        if not (file.exists() and model.exists()) or file.stat().st_mtime_ns < model.stat().st_mtime_ns:
            return None
        result: dict[str, Any] = read_json(file)
        return result

    def is_trained(self) -> bool:
        """Whether all epochs are done, so that there is only the model to measure."""
        epochs = [int(row["epoch"]) + 1 for row in self.folder.rows()]
        return self.folder.newest.exists() and max(epochs, default=0) >= self.settings.epochs

    def model(self) -> Any:
        """The model after the last epoch: the best one was chosen on the very data that it is measured on."""
        return load_model(self.folder.newest, device=str(device_of(self.request.machine)))

    def command(self) -> list[str]:
        """``diffusionpose train`` for it."""
        request, recipe = self.request, self.request.output / "runs" / f"{self.name}.json"
        write_json(recipe, self.settings.to_dict())
        options: dict[str, Sequence[Any]] = {
            "--images": request.images,
            "--annotations": request.annotations,
            "--val-images": [request.val_images],
            "--val-annotations": [request.val_annotations],
            "--output": [self.folder.path],
            "--accelerator": [request.accelerator],
            "--devices": [request.devices],
            "--workers": [request.workers],
            "--weights": [request.weights],
            "--encoder-weights": [request.encoder_weights],
        }
        words = [word for name, values in options.items() if values != [None] for word in (name, *values)]
        return [sys.executable, "-m", "diffusionpose", "train", str(recipe), *map(str, words)]

    def measure(self) -> None:
        """Write what ``diffusionpose evaluate`` writes, and the costs."""
        request, model = self.request, self.model()
        steps = None if model.default_steps is None else self.row.steps
        report = evaluate(
            model,
            read_persons(request.val, model.skeleton),
            request.val_images,
            request.boxes,
            decode=self.settings.decode,
            flip=self.settings.flip,
            steps=steps,
            batch_size=2 * self.settings.batch_size,
            workers=worker_count(request.machine),
        )
        costs = {
            "parameters": count_parameters(model),
            "multiply_adds": count_multiply_adds(model, steps),
            "training_seconds": sum(float(row["seconds"]) for row in self.folder.rows()),  # validation apart
        }
        write_json(self.file, {**report.to_dict(), **costs})


def train_and_measure(
    missing: Sequence[Sequence[Run]], parallel: int, threads: int, say: Say
) -> dict[str, str]:
    """Do what is missing of each training, some side by side; what went wrong, by the name of the run."""
    failed: dict[str, str] = {}
    running: list[subprocess.Popen[str]] = []
    environment = {
        **os.environ,
        "PYTHONUNBUFFERED": "1",
        "OMP_NUM_THREADS": str(threads),
        PARENT: str(os.getpid()),
    }

    def trained(run: Run, prefix: str) -> bool:
        process = subprocess.Popen(
            run.command(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment,
        )
        running.append(process)
        say(f"{prefix} begins")
        lines = ["no message"]
        for line in filter(None, map(str.rstrip, process.stdout or ())):
            lines.append(line.removeprefix("diffusionpose: "))
            say(f"{prefix} {line}")
        status = process.wait()
        if left_out := [line for line in lines if line.endswith(LEFT_OUT)]:
            failed[run.name] = "; ".join(left_out)
        elif status:
            failed[run.name] = lines[-1] if status == 1 else f"ended with status {status}: {lines[-1]}"
            return False
        return True

    def do(number: int, runs: Sequence[Run]) -> None:
        try:
            if runs[0].is_trained() or trained(runs[0], f"[{number}/{len(missing)} {runs[0].name}]"):
                for run in runs:
                    run.measure()
        except InputError as error:
            failed[runs[0].name] = str(error)

    with ThreadPoolExecutor(parallel) as pool:
        try:
            list(pool.map(do, range(1, len(missing) + 1), missing))
        finally:  # none is left behind, whatever happens
            pool.shutdown(wait=False, cancel_futures=True)
            for process in running:
                process.terminate()
    return failed


def summary(runs: Sequence[Run], failed: dict[str, str]) -> dict[str, Any]:
    """A row over all seeds; "low" and "high" of a metric lie the standard deviation from its mean, or are the
    ends of the 95 % interval of one seed. "failure" says why a run is missing."""
    row, results = runs[0].row, {run.name: run.result() for run in runs}
    found = [result for result in results.values() if result is not None]
    entry: dict[str, Any] = {
        "label": row.label,
        "paper": dict(zip(("AP", "AR"), row.paper, strict=True)),
        "steps": row.steps,
        "options": runs[0].settings.options,
        "runs": list(results),
        **{name: found[0][name] if found else None for name in ("parameters", "multiply_adds")},
        "training_seconds": statistics.fmean(each["training_seconds"] for each in found) if found else 0,
    }
    for name in METRICS:
        values = [result[name] for result in found if result.get(name) is not None]
        entry[name] = None
        if values:
            mean, spread = statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0
            low, high = mean - spread, mean + spread
            if len(runs) == 1:
                low, high = found[0].get("intervals_95", {}).get(name) or (mean, mean)
            entry[name] = {"values": values, "mean": mean, "low": low, "high": high}
    if missing := [f"{name}: {failed.get(name, 'not done')}" for name in results if results[name] is None]:
        entry["failure"] = "; ".join(missing)
    return entry


def _digest(path: Path | None) -> str | None:
    try:
        return None if path is None else file_digest(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check the path") from error
