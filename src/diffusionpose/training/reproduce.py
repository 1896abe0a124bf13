"""Writing what a study leaves behind: whole files or none."""

from __future__ import annotations

import colorsys
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from math import nan
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from diffusionpose import errors as files
from diffusionpose.data.annotations import Annotations, read_annotations
from diffusionpose.data.dataset import PersonDataset
from diffusionpose.errors import InputError, atomically, make_writable
from diffusionpose.evaluation.compare import BLUE, GREY, ORANGE, PURPLE, panels
from diffusionpose.evaluation.evaluate import Inference, Report, Row, evaluate, predict_persons
from diffusionpose.geometry import heatmap_ratio
from diffusionpose.models.checkpoints import load_model
from diffusionpose.models.costs import count_multiply_adds, count_parameters
from diffusionpose.models.diffusion_pose import DiffusionPose
from diffusionpose.models.pose_model import PoseModel
from diffusionpose.skeletons import SKELETONS, Skeleton, get_skeleton
from diffusionpose.training.data import read_persons, worker_count
from diffusionpose.training.folder import RunFolder, writing
from diffusionpose.training.settings import ImageSet, Machine, TrainingSettings
from diffusionpose.training.studies import Budget, Planned, Study, plan

WORKER = "diffusionpose.training.reproduce_worker"  # started as a process of its own


def write_file(path: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` fill a file, in one stroke, and make its folder where it is not there.

    Raises:
        InputError: it cannot be written.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        atomically(path, write)


def write_json(path: Path, entries: Any) -> None:
    """Write JSON; InputError where it cannot be written."""
    text = json.dumps(entries, indent=2, allow_nan=False) + "\n"
    write_file(path, lambda part: part.write_text(text))


# What a number was measured on: processor, GPU, versions

PACKAGES = ("diffusionpose", "torch", "torchvision", "timm", "lightning", "numpy", "faster-coco-eval")


def hardware() -> dict[str, Any]:
    """The processor, its cores, and the first GPU."""
    import torch

    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "system": platform.platform(terse=True),
    }


def versions() -> dict[str, str]:
    """Of Python and of the packages that numbers depend on."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def device_for(accelerator: str) -> str:
    """Where to measure a model that was trained on ``accelerator``: the first GPU, or the CPU."""
    import torch

    return "cuda" if torch.cuda.is_available() and accelerator in ("auto", "gpu", "cuda") else "cpu"


def _processor() -> str:
    listing = Path("/proc/cpuinfo")
    if listing.exists():
        for line in listing.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


# What an epoch of a training costs, compared with other trainings

# Multiply-adds that take as long as what is not counted (reading pictures, many small layers).
OVERHEAD = 40e6


def epoch_weight(settings: TrainingSettings) -> float:
    """Cost of a person and epoch, in multiply-adds and what takes as long; for the time left only.

    Counted on the meta device: shapes without numbers, which takes a fraction of a second. 1 for a
    model that cannot be made: its training will say why.
    """
    import torch

    from diffusionpose.models.costs import count_multiply_adds
    from diffusionpose.models.zoo import create_model

    try:
        with torch.device("meta"):
            model = create_model(
                settings.model, settings.skeleton, input_size=settings.input_size, **settings.options
            )
            return OVERHEAD + count_multiply_adds(model)
    except (InputError, RuntimeError):
        return OVERHEAD


# What holds for a whole output folder: its data and budget, and the mean pose every model must beat


def settle(output: Path, data: Data, budget: Budget, skeleton: str | None) -> dict[str, Any]:
    """The facts of an output folder: read from it, or found out and written to it.

    Args:
        output: of the studies.
        data: sets, boxes, encoder weights.
        budget: of every training.
        skeleton: as the user gave it; None takes that of the first training file.

    Returns:
        "skeleton", "train" and "val" (file names, pictures, persons), "mean_pose" (metrics).

    Raises:
        InputError: the folder holds studies of other data or another budget, or cannot be written to,
            or a file cannot be used.
    """
    _prepare(output)
    file = output / "reproduce.json"
    key = {
        "budget": budget.base.to_dict(),
        "baseline": budget.baseline,
        **data.digests(),
    }
    if file.exists():
        return _same(file, key, skeleton)
    found = _find_out(data, skeleton)
    write_json(file, {"key": key, "budget": budget.name, "facts": found})
    return found


def _prepare(output: Path) -> None:
    try:
        make_writable(output)
    except OSError as error:
        raise InputError(
            f"--output {output}: no folder that can be written to ({error.strerror}); name another"
        ) from error


def _same(file: Path, key: dict[str, Any], skeleton: str | None) -> dict[str, Any]:
    """The facts of a file whose key is ``key``; InputError for another."""
    try:
        entries = json.loads(file.read_text())
        before, found = entries["key"], entries["facts"]
        before["budget"] = complete_settings(before["budget"])
    except (OSError, ValueError, KeyError, TypeError, InputError) as error:
        raise InputError(
            f"{file}: cannot be read, so what lies in this folder cannot be trusted; give another "
            "--output, or delete this file if data and budget are still the same"
        ) from error
    differing = [name for name in key if before.get(name) != json.loads(json.dumps(key[name]))]
    if skeleton not in (None, found["skeleton"]):
        differing.append("skeleton")
    if differing:
        raise InputError(
            f"{file}: this folder holds studies with other {', '.join(differing)}; "
            "give the same ones to go on, or another --output"
        )
    return found


def _find_out(data: Data, skeleton: str | None) -> dict[str, Any]:
    from diffusionpose.evaluation.evaluate import evaluate_mean_pose
    from diffusionpose.training.data import read_persons

    name = skeleton or _skeleton_of(data.train[0].annotations)
    chosen = get_skeleton(name)
    train = [read_persons(each, chosen) for each in data.train]
    val = read_persons(data.val, chosen)
    together = replace(train[0], persons=[person for each in train for person in each.persons])
    return {
        "skeleton": name,
        "joints": chosen.num_joints,
        "train": [_counts(each) for each in train],
        "val": _counts(val),
        "boxes": "ground truth" if data.boxes is None else f"detections {data.boxes.name}",
        "mean_pose": evaluate_mean_pose(together, val, chosen).metrics,
    }


def _skeleton_of(path: Path) -> str:
    skeleton = read_annotations(path).skeleton
    if skeleton.name not in SKELETONS:
        raise InputError(f"{path}: its skeleton is not a known one; give --skeleton FILE.yaml")
    return skeleton.name


def _counts(annotations: Annotations) -> dict[str, Any]:
    persons = len(annotations.labelled().persons)
    return {"file": str(annotations.path), "pictures": len(annotations.images), "persons": persons}


# A trained model measured, and the measurement kept beside it so that it need not be made again


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


# A job: one training and its measurements, as plain data that crosses from process to process

OPTIONAL_FILES = ("boxes", "encoder_weights", "weights")  # of Data, in its order


@dataclass(frozen=True)
class Data:
    """What all trainings of an output folder learn from and are measured on.

    Attributes:
        train: one or several sets.
        val: measured on.
        boxes: detected person boxes of ``val``; None for the annotated ones.
        encoder_weights: ImageNet weights of the encoder; None lets timm fetch them.
        weights: a trained model that every training starts from instead.
    """

    train: tuple[ImageSet, ...]
    val: ImageSet
    boxes: Path | None = None
    encoder_weights: Path | None = None
    weights: Path | None = None

    def digests(self) -> dict[str, Any]:
        """SHA-256 of every file: what makes two data sets the same."""
        return {
            "training annotations": [file_digest(each.annotations) for each in self.train],
            "validation annotations": file_digest(self.val.annotations),
            "boxes": _digest_of(self.boxes),
            "encoder weights": _digest_of(self.encoder_weights),
            "weights": _digest_of(self.weights),
        }


@dataclass(frozen=True)
class Job:
    """One training and its measurements.

    Attributes:
        name: of the run.
        folder: of the run.
        settings: of the training.
        data: to learn from and to be measured on.
        steps: numbers of diffusion steps to measure.
        machine: of the training.
        threads: of the arithmetic, in the process that trains.
    """

    name: str
    folder: Path
    settings: TrainingSettings
    data: Data
    steps: tuple[int, ...] = (1,)
    machine: Machine = field(default_factory=Machine)
    threads: int = 1

    @property
    def model_file(self) -> Path:
        """The model after the last epoch: the best one is chosen on the very data it is measured on."""
        return self.folder / "model.safetensors"

    def result_file(self, steps: int) -> Path:
        """Where the measurement with so many diffusion steps lies."""
        return self.folder / "evaluation" / f"steps{steps}.json"

    def key(self, steps: int) -> dict[str, Any]:
        """What a measurement depends on; one with another key is stale."""
        data = self.data.digests()
        return {
            "model": file_digest(self.model_file),
            "settings": self.settings.to_dict(),
            "validation annotations": data["validation annotations"],
            "boxes": data["boxes"],
            "steps": steps,
        }

    def result(self, steps: int) -> dict[str, Any] | None:
        """The measurement with so many steps, None where it has still to be made."""
        try:
            found: dict[str, Any] = json.loads(self.result_file(steps).read_text())
            key = {**found["key"], "settings": complete_settings(found["key"]["settings"])}
            return found if key == _as_json(self.key(steps)) else None
        except (OSError, ValueError, KeyError, TypeError, InputError):
            return None

    @property
    def finished(self) -> bool:
        """Whether every measurement is there."""
        return all(self.result(steps) is not None for steps in self.steps)

    def to_json(self) -> str:
        """For the command line of the process that does it."""
        return json.dumps({**asdict(self), "settings": self.settings.to_dict()}, default=str)

    @classmethod
    def from_json(cls, text: str) -> Job:
        """The inverse of :meth:`to_json`."""
        entries = json.loads(text)
        data = entries["data"]
        return cls(
            name=entries["name"],
            folder=Path(entries["folder"]),
            settings=TrainingSettings.from_dict(entries["settings"]),
            data=Data(
                tuple(_image_set(each) for each in data["train"]),
                _image_set(data["val"]),
                *(None if data[name] is None else Path(data[name]) for name in OPTIONAL_FILES),
            ),
            steps=tuple(entries["steps"]),
            machine=Machine(**entries["machine"]),
            threads=entries["threads"],
        )


def _digest_of(path: Path | None) -> str | None:
    return None if path is None else file_digest(path)


def file_digest(path: Path) -> str:
    """SHA-256 of a file; InputError where it cannot be read."""
    try:
        stat = path.stat()
        return _digest(path, stat.st_mtime_ns, stat.st_size)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check the path") from error


@lru_cache(maxsize=256)
def _digest(path: Path, _changed: int, _size: int) -> str:
    return files.file_digest(path)


def complete_settings(before: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as an older version wrote them, with what has been added since at its default.

    Raises:
        InputError: one of them is no setting any more.
        TypeError, KeyError: they are none at all.
    """
    complete: dict[str, Any] = _as_json(TrainingSettings.from_dict(before).to_dict())
    return complete


def _image_set(entries: Mapping[str, str]) -> ImageSet:
    return ImageSet(Path(entries["images"]), Path(entries["annotations"]))


def _as_json(value: Any) -> Any:
    return json.loads(json.dumps(value))


# Measurements gathered into the rows of a report: means over seeds beside the paper's numbers

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


# Jobs done in processes of their own, some side by side, with their lines and the time left

Say = Callable[[str], None]


class Clock:
    """Time left of all jobs, from the pace of the epochs done in this sitting.

    Args:
        jobs: those to be done.
        weights: cost of an epoch of each by its name, in any unit.
        parallel: how many are done at once.
    """

    def __init__(self, jobs: Sequence[Job], weights: Mapping[str, float], parallel: int) -> None:
        self.weights, self.parallel = weights, parallel
        self.epochs_left = {job.name: job.settings.epochs for job in jobs}
        self.since: dict[str, float] = {}
        self.seconds = self.work = 0.0

    def start(self, name: str) -> None:
        """A job begins."""
        self.since[name] = time.monotonic()

    def epoch_done(self, name: str, left: int) -> None:
        """A job has finished an epoch and has ``left`` more to do."""
        now = time.monotonic()
        self.seconds += now - self.since.get(name, now)
        self.work += self.weights[name]
        self.since[name], self.epochs_left[name] = now, left

    def job_done(self, name: str) -> None:
        """Nothing more will come of a job."""
        self.epochs_left[name] = 0

    def left(self) -> str:
        """Time to the end of all trainings, "?" before the first epoch; measurements come on top."""
        if not self.work:
            return "?"
        works = [self.weights[name] * epochs for name, epochs in self.epochs_left.items()]
        # the last ones may leave places idle, so never less than the longest
        ahead = max([sum(works) / self.parallel, *works])
        return str(timedelta(seconds=round(ahead * self.seconds / self.work)))


def do_all(jobs: Sequence[Job], weights: Mapping[str, float], parallel: int, say: Say) -> dict[str, str]:
    """Do jobs; one that fails leaves the others alone.

    Args:
        jobs: to be done, in this order.
        weights: of :class:`Clock`.
        parallel: how many at once.
        say: takes every line of theirs, with the job's number and name before it.

    Returns:
        Why a job failed, by its name.

    Raises:
        KeyboardInterrupt: the jobs have been ended, and can be resumed.
    """
    crew = _Crew(Clock(jobs, weights, parallel), len(jobs), say)
    with ThreadPoolExecutor(max_workers=parallel) as pool, crew:
        answers = [pool.submit(crew.do, *each) for each in enumerate(jobs, start=1)]
        try:
            results = [answer.result() for answer in answers]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return {job.name: text for job, text in zip(jobs, results, strict=True) if text is not None}


class _Crew:
    """The processes at work; none is left behind, whatever happens.

    Args:
        clock: of all jobs.
        total: how many jobs there are.
        say: takes lines.
    """

    def __init__(self, clock: Clock, total: int, say: Say) -> None:
        self.clock, self.total, self.say = clock, total, say
        self.lock = threading.Lock()
        self.running: list[subprocess.Popen[str]] = []

    def do(self, number: int, job: Job) -> str | None:
        """Do a job, in a thread of its own; why it failed, or None."""
        start = f"[{number}/{self.total} {job.name}]"
        with self.lock:
            self.clock.start(job.name)
            process = _start(job)
            self.running.append(process)
            self.say(f"{start} begins")
        last = ""
        for last in _lines(process):
            with self.lock:
                self.say(f"{start} {last}{_time_left(self.clock, job, last)}")
        status = process.wait()
        with self.lock:
            self.clock.job_done(job.name)
        if status == 0:
            return None
        return last if status == 1 and last else f"ended with status {status}: {last or 'no message'}"

    def __enter__(self) -> _Crew:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.running:
            if process.poll() is None:
                process.terminate()
                process.wait()


def _start(job: Job) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": str(job.threads)}
    return subprocess.Popen(
        [sys.executable, "-m", WORKER, job.to_json()],
        stdin=subprocess.PIPE,  # its end tells the worker that this process is gone
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
    )


def _lines(process: subprocess.Popen[str]) -> Iterator[str]:
    assert process.stdout is not None
    for line in process.stdout:
        if line.strip():
            yield line.rstrip()


def _time_left(clock: Clock, job: Job, line: str) -> str:
    """What to add to a line: after "epoch 2/3 ..." the time left of all jobs."""
    if not line.startswith("epoch "):
        return ""
    done, _, epochs = line.split()[1].partition("/")
    clock.epoch_done(job.name, int(epochs) - int(done))
    return f", {clock.left()} of all"


# The Markdown of a report

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


# The plots of a report: the paper's numbers in a panel of their own beside ours

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


# Figure 5 drawn: a column for each picture, a row for each model, joints in their colours

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DIMMED = 0.45  # brightness of the picture below the heatmaps
STRONGEST = 0.95  # opacity of a heatmap at its height of 1
POWER = 0.6  # of the height, so that low heatmaps can be seen too
LEGEND = f"opacity: height of the heatmap to the power of {POWER}, one scale; lines: the pose read from it"
COLUMN = 1.9  # inches


@dataclass(frozen=True, eq=False)
class View:
    """What one model makes of one picture.

    Attributes:
        name: above the picture.
        heatmaps: (J, h, w), of the plain picture, no flip test.
        keypoints: (J, 2) input pixels, decoded from them.
        pixel: (width, height) in input pixels from one heatmap pixel to the next.
    """

    name: str
    heatmaps: np.ndarray
    keypoints: np.ndarray
    pixel: tuple[float, float]


@dataclass(frozen=True, eq=False)
class Shown:
    """A picture of the figure.

    Attributes:
        image: (H, W, 3) uint8 RGB crop.
        truth: (J, 2) input pixels.
        visible: (J,).
        views: one for each model and number of steps.
    """

    image: np.ndarray
    truth: np.ndarray
    visible: np.ndarray
    views: Sequence[View]


def plot_pictures(title: str, skeleton: Skeleton, pictures: Sequence[Shown], path: Path) -> None:
    """Draw the figure: first the truth, then what each model sees and the pose it reads from that.

    Args:
        title: above it.
        skeleton: joints and limbs.
        pictures: with the same views each.
        path: of the PNG.

    Raises:
        InputError: the file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    colors = joint_colors(skeleton.num_joints)
    views = [view.name for view in pictures[0].views] if pictures else []
    height, width = pictures[0].image.shape[:2] if pictures else (4, 3)
    rows, columns = 1 + len(views), max(1, len(pictures))
    size = (COLUMN * columns + 1.4, COLUMN * height / width * rows + 0.9)
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(rows, columns, squeeze=False)
    for column, shown in enumerate(pictures):
        _picture(grid[0, column], shown.image)
        _pose(grid[0, column], skeleton, shown.truth, shown.visible > 0, colors)
        for row, view in enumerate(shown.views, start=1):
            _picture(grid[row, column], shown.image * DIMMED / 255)
            _heatmaps(grid[row, column], view, (width, height), colors)
            _pose(grid[row, column], skeleton, view.keypoints, np.full(len(colors), True), colors)
    for row, name in enumerate(["annotated", *views]):
        grid[row, 0].set_ylabel(name, fontsize=11)
    figure.suptitle(title, fontsize=14)
    figure.supxlabel(LEGEND, fontsize=10, color="#5A5A5A")
    write_file(path, lambda part: figure.savefig(part, dpi=140, format="png"))


def joint_colors(count: int) -> np.ndarray:
    """(count, 3) RGB in [0, 1]: bright, and as far apart in hue as they can be."""
    return np.array([colorsys.hsv_to_rgb(joint / count, 0.85, 1.0) for joint in range(count)])


def overlay(heatmaps: np.ndarray, colors: np.ndarray) -> np.ndarray:
    """Heatmaps (J, h, w) as one RGBA picture (h, w, 4) in [0, 1].

    The colour is the mean of the joints' by the height of their heatmaps, the opacity by the highest.
    """
    weights = np.clip(heatmaps, 0, 1)
    total = weights.sum(axis=0)
    mixed = np.einsum("jhw,jc->hwc", weights, colors) / np.maximum(total, 1e-6)[..., None]
    return np.dstack([np.clip(mixed, 0, 1), STRONGEST * weights.max(axis=0) ** POWER])


def _picture(axes: Axes, image: np.ndarray) -> None:
    axes.imshow(image, interpolation="bicubic")
    axes.set_xticks([])
    axes.set_yticks([])


def _heatmaps(axes: Axes, view: View, size: tuple[int, int], colors: np.ndarray) -> None:
    """Over a picture of ``size`` (width, height), whose limits stay as they are."""
    height, width = view.heatmaps.shape[1:]
    x, y = view.pixel
    axes.imshow(
        overlay(view.heatmaps, colors),
        extent=(-x / 2, (width - 0.5) * x, (height - 0.5) * y, -y / 2),  # pixel i lies at i times pixel
        interpolation="bilinear",
    )
    axes.set_xlim(-0.5, size[0] - 0.5)
    axes.set_ylim(size[1] - 0.5, -0.5)


def _pose(
    axes: Axes, skeleton: Skeleton, keypoints: np.ndarray, drawn: np.ndarray, colors: np.ndarray
) -> None:
    for a, b in skeleton.limbs:
        if drawn[a] and drawn[b]:
            axes.plot(*keypoints[[a, b]].T, color="white", linewidth=1.0, alpha=0.7)
    x, y = keypoints[drawn].T
    axes.scatter(x, y, s=16, c=colors[drawn], edgecolors="black", linewidths=0.5, zorder=3)


# Figure 5's pictures: which persons are hard by a rule that favours no model, and what each model sees

if TYPE_CHECKING:
    pass

HARDEST = 0.2  # share of the persons that count as hard
LABELLED = 0.75  # share of the joints that a person must have labelled to be shown
RULE = (
    "A person's error under a model is the mean distance of its labelled joints from the truth, in per cent "
    "of the root of its box's area. Persons with at least {labelled} of {joints} joints labelled ({eligible} "
    "of {persons}) are ordered by the mean error over both models; of the worst fifth ({hard}), {shown} are "
    "drawn at random (seed {seed})."
)


def show_hard_pictures(
    request: Request,
    measured: Sequence[Measured],
    path: Path,
    before: dict[str, Any] | None = None,
    seed: int = 0,
) -> dict[str, Any] | None:
    """Choose, draw and list the pictures; None where a model is missing.

    Args:
        request: of the study; its first seed's models are shown.
        measured: every planned training with its results.
        path: of the PNG.
        before: what this gave the last time; it and the PNG are kept where nothing has changed.
        seed: of the draw among the hard ones.
    """
    first = [(planned, job) for planned, job, results in measured if planned.seed == 0 and results]
    if len(first) < len(request.study.variants):
        return None
    key = {"pictures": request.pictures, "seed": seed, **{job.name: job.key(1) for _, job in first}}
    if before is not None and before.get("key") == key and path.exists():
        return before
    device = device_for(request.machine.accelerator)
    models = {planned.variant.run: load_model(job.model_file, device) for planned, job in first}
    names, settings = list(models), first[0][1].settings
    data = _data(request, next(iter(models.values())))
    how = Inference(settings.decode, settings.flip, 1, 2 * settings.batch_size, worker_count(request.machine))
    persons = replace(data.annotations, persons=data.persons)
    rows = [predict_persons(model, persons, data.images, how)[0] for model in models.values()]
    errors = np.stack([person_errors(data.annotations, data.persons, each) for each in rows])
    chosen, rule = _choose(data, errors, request.pictures, seed)
    shown = [_view(models, data, index, settings.decode) for index in chosen]
    plot_pictures(request.study.title, data.annotations.skeleton, shown, path)
    return {
        "key": key,
        "rule": rule,
        "models": names,
        "mean_error": dict(zip(names, np.nanmean(errors, axis=1).tolist(), strict=True)),
        "shown": [_entry(data, index, dict(zip(names, errors[:, index], strict=True))) for index in chosen],
    }


def _data(request: Request, model: PoseModel) -> PersonDataset:
    truth = read_persons(request.data.val, model.skeleton).labelled()
    return PersonDataset(truth, request.data.val.images, model.input_size, model.unbiased, skip_missing=True)


def _entry(data: PersonDataset, index: int, errors: Mapping[str, np.floating]) -> dict[str, Any]:
    person = data.persons[index]
    return {
        "file_name": data.annotations.images[person.image_id].file_name,
        "annotation": person.id,
        "errors": {name: float(error) for name, error in errors.items()},
    }


def _choose(data: PersonDataset, errors: np.ndarray, count: int, seed: int) -> tuple[list[int], str]:
    """Which persons are shown, and the rule in words."""
    joints = data.annotations.skeleton.num_joints
    labelled = int(np.ceil(LABELLED * joints))
    counts = np.array([int((person.visible > 0).sum()) for person in data.persons])
    hard, eligible = hardest(errors, counts >= labelled)
    chosen = np.random.default_rng(seed).permutation(hard)[:count].tolist()
    numbers = {"labelled": labelled, "joints": joints, "eligible": eligible, "persons": len(data)}
    return chosen, RULE.format(**numbers, hard=len(hard), shown=len(chosen), seed=seed)


def person_errors(annotations: Annotations, persons: Sequence[Any], rows: Sequence[Row | None]) -> np.ndarray:
    """(n,) mean distance of the labelled joints, in units of the root of the box's area; NaN without a pose.

    Args:
        annotations: name the joints.
        persons: n with their truth, each with a labelled joint.
        rows: their poses, None where there is none.
    """
    joints, errors = annotations.skeleton.num_joints, []
    for person, row in zip(persons, rows, strict=True):
        if row is None:
            errors.append(np.nan)
            continue
        keypoints = np.reshape(row["keypoints"], (joints, 3))[:, :2]
        distance = np.linalg.norm(keypoints - person.keypoints, axis=1)[person.visible > 0]
        size = np.sqrt(np.prod(person.box[2:] - person.box[:2]))
        errors.append(float(distance.mean() / size))
    return np.array(errors)


def hardest(errors: np.ndarray, eligible: np.ndarray) -> tuple[np.ndarray, int]:
    """The worst fifth of the eligible persons by mean error over models, and how many are eligible.

    Args:
        errors: (models, n); a person with a NaN is not eligible.
        eligible: (n,) bool.

    Returns:
        Indices, worst first, and a number.
    """
    mean = errors.mean(axis=0)
    allowed = np.flatnonzero(eligible & np.isfinite(mean))
    order = allowed[np.argsort(-mean[allowed], kind="stable")]
    return order[: int(np.ceil(HARDEST * len(order)))], len(allowed)


@torch.no_grad()
def _view(models: Mapping[str, PoseModel], data: PersonDataset, index: int, decode: str) -> Shown:
    sample = data[index]
    views = []
    for model in models.values():
        images = sample["image"][None].to(model.mean.device)
        for title, options in _looks(model):
            heatmaps = model(images, **options).float().cpu()
            keypoints, _ = model.codec.decode(heatmaps, decode)
            across, down = heatmap_ratio(model.input_size, model.heatmap_size, model.unbiased)
            pixel = (1 / across, 1 / down)
            points = keypoints[0].numpy() * np.array(pixel)
            views.append(View(title, heatmaps[0].numpy(), points, pixel))
    image = sample["image"].permute(1, 2, 0).numpy()
    return Shown(image, sample["keypoints"].numpy(), sample["visible"].numpy(), views)


def _looks(model: PoseModel) -> list[tuple[str, dict[str, Any]]]:
    from diffusionpose.models.diffusion_pose import DiffusionPose

    if isinstance(model, DiffusionPose):
        return [("DiffusionPose, coarse\n(0 steps)", {"steps": 0}), ("DiffusionPose\n(1 step)", {"steps": 1})]
    return [("heatmap baseline", {})]


# The report of a study: OUTPUT/STUDY.md, STUDY.json and STUDY.png

if TYPE_CHECKING:
    pass


def write_report(
    request: Request, facts: Mapping[str, Any], measured: Sequence[Measured], failed: Mapping[str, str]
) -> tuple[list[Path], list[str]]:
    """Write the files of a study from what is there.

    Args:
        request: what was asked for.
        facts: of the output folder.
        measured: every planned training with its results.
        failed: why a job failed, by its name.

    Returns:
        The files, and messages of what could not be drawn.

    Raises:
        InputError: a file cannot be written.
    """
    study, output = request.study, request.output
    rows = gather(study, measured, failed)
    entries = _entries(request, facts, rows, measured)
    files = [output / f"{study.name}.{kind}" for kind in ("md", "json", "png")]
    problems: list[str] = []
    if study.kind == "pictures":
        shown = show_hard_pictures(request, measured, files[2], _pictures_before(files[1]))
        entries["pictures"] = shown
        if shown is None:
            problems, files = ["figure5: not drawn, since a model is missing"], files[:2]
    else:
        plot = plot_steps if study.kind == "steps" else plot_table
        plot(study, rows, files[2])
    text = write_markdown(study, entries)
    write_file(files[0], lambda part: part.write_text(text))
    write_json(files[1], entries)
    return files, problems


def _pictures_before(path: Path) -> dict[str, Any] | None:
    """The pictures that the last report lists, None where there is none that can be read."""
    try:
        pictures: dict[str, Any] | None = json.loads(path.read_text())["pictures"]
        return pictures
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _entries(
    request: Request, facts: Mapping[str, Any], rows: Sequence[Any], measured: Sequence[Measured]
) -> dict[str, Any]:
    budget = request.budget
    return {
        "study": request.study.name,
        "title": request.study.title,
        "budget": {"name": budget.name, "words": budget.words, "base": budget.base.to_dict()},
        "differs_from_the_paper": differences(request, facts),
        "data": facts,
        "digests": request.data.digests(),
        "seeds": list(range(request.seeds)),
        "rows": rows,
        "settings": {planned.name: planned.settings.to_dict() for planned, _, _ in measured},
        "command": request.command,
        "parallel": request.parallel,
        "threads": request.threads,
        "hardware": _distinct(measured, "hardware"),
        "versions": _distinct(measured, "versions"),
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _distinct(measured: Sequence[Measured], name: str) -> list[Any]:
    """What the measurements say about ``name``, each answer once."""
    answers = [result[name] for _, _, results in measured for result in results.values()]
    return [answer for index, answer in enumerate(answers) if answer not in answers[:index]]


COCO_VAL_PICTURES = 5000  # of val2017


def differences(request: Request, facts: Mapping[str, Any]) -> list[str]:
    """In what our numbers differ from the paper's protocol; empty where they can be compared directly."""
    found = []
    val = facts["val"]
    if facts["skeleton"] != "coco" or val["pictures"] != COCO_VAL_PICTURES:
        found.append(
            f"measured on {val['persons']} persons of {Path(val['file']).name} "
            f"({facts['joints']} joints, skeleton {facts['skeleton']})"
        )
    if request.data.boxes is None:
        found.append("annotated boxes, where the paper has those of a detector (56.4 AP)")
    if request.budget.name != "full":
        found.append(request.budget.words)
    if request.machine.devices != 8:
        found.append(
            f"{request.machine.devices * request.budget.base.batch_size} persons a step, "
            "where the paper has 8 GPUs x 32"
        )
    return found


# One study from start to end, or from where it stopped


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
