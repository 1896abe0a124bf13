"""The paper's ablations (section 4.4): trains what is missing, measures, writes OUTPUT/STUDY.md, .json, .png.

Each training is a ``diffusionpose train`` in a process of its own, so that one that fails or is killed for
its memory leaves the others alone; what is trained and measured already is left as it is.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from diffusionpose import errors
from diffusionpose.data.annotations import Annotations, read_annotations
from diffusionpose.data.dataset import PersonDataset
from diffusionpose.errors import InputError, atomically, make_writable
from diffusionpose.evaluation.evaluate import Inference, evaluate, evaluate_mean_pose, predict_persons
from diffusionpose.models.checkpoints import load_model
from diffusionpose.models.costs import count_multiply_adds, count_parameters
from diffusionpose.models.pose_model import PoseModel
from diffusionpose.skeletons import SKELETONS, get_skeleton
from diffusionpose.training import figures
from diffusionpose.training.data import read_persons, worker_count
from diffusionpose.training.folder import RunFolder, writing
from diffusionpose.training.processes import PARENT
from diffusionpose.training.report import markdown, report_row
from diffusionpose.training.settings import ImageSet, Machine, TrainingSettings
from diffusionpose.training.studies import Budget, Study, Variant

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PACKAGES = ("diffusionpose", "torch", "torchvision", "timm", "numpy", "faster-coco-eval")
COCO_VAL_PICTURES = 5000  # of val2017
Say = Callable[[str], None]


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
            "training annotations": [_digest(each.annotations) for each in self.train],
            "validation annotations": _digest(self.val.annotations),
            "boxes": _digest(self.boxes),
            "encoder weights": _digest(self.encoder_weights),
            "weights": _digest(self.weights),
        }


@dataclass(frozen=True)
class Request:
    """What is asked for.

    Attributes:
        study: which table or figure.
        budget: what is spent on a training.
        data: sets, boxes, weights.
        output: folder of all studies of these data and this budget.
        skeleton: name or YAML file; None for that of the training annotations.
        seeds: trainings of each variant, with seeds 0, 1, ...
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
    """How it ended: the files that were written, and what could not be done, in words."""

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
    study, output = request.study, request.output
    facts = settle(request)
    runs = plan(request, facts["skeleton"])
    missing = [run for run in runs if not run.finished]
    ready = len(runs) - len(missing)
    say(f"{study.name}: runs to do {len(missing)}, trained and measured already {ready}")
    failed = _train_and_measure(missing, request, say)
    failures = [f"{name}: {message}" for name, message in failed.items()]
    for run in runs:
        for result in run.results().values():
            left_out = (*result["failures"], *result["training"]["failures"])
            failures += [f"{run.name}: {message}" for message in left_out]

    entries = report_entries(request, facts, runs, failed)
    files = [output / f"{study.name}.{kind}" for kind in ("md", "json", "png")]
    if study.kind == "pictures":
        before = _read_json(files[1]).get("pictures")
        entries["pictures"] = hard_pictures(request, runs, files[2], before)
        if entries["pictures"] is None:
            failures, files = [*failures, f"{study.name}: not drawn, since a model is missing"], files[:2]
    else:
        write_figure(files[2], figures.plot(study, entries["rows"]))
    write_file(files[0], markdown(study, entries))
    write_json(files[1], entries)
    return Outcome(files, list(dict.fromkeys(failures)))


# What holds for a whole output folder: its data and budget, and the mean pose every model must beat


def settle(request: Request) -> dict[str, Any]:
    """The facts of an output folder: read from its ``reproduce.json``, or found out and written there.

    Returns:
        "skeleton", "joints", "boxes", "mean_pose" (metrics), "train" and "val" (file names and counts).

    Raises:
        InputError: the folder holds studies of other data or another budget, or cannot be written to,
            or a file cannot be used.
    """
    output, budget = request.output, request.budget
    try:
        make_writable(output)
    except OSError as error:
        raise InputError(
            f"--output {output}: no folder that can be written to ({error.strerror}); name another"
        ) from error
    file = output / "reproduce.json"
    key = {"budget": budget.base.to_dict(), "baseline": budget.baseline, **request.data.digests()}
    if not file.exists():
        facts = _find_facts(request.data, request.skeleton)
        write_json(file, {"key": key, "budget": budget.name, "facts": facts})
        return facts
    try:
        entries = json.loads(file.read_text())
        before, facts = entries["key"], entries["facts"]
        before["budget"] = TrainingSettings.from_dict(before["budget"]).to_dict()
        skeleton = facts["skeleton"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{file}: cannot be read, so what lies in this folder cannot be trusted; give another "
            "--output, or delete this file if data and budget are still the same"
        ) from error
    differing = [name for name in key if before.get(name) != key[name]]
    if request.skeleton not in (None, skeleton):
        differing.append("skeleton")
    if differing:
        raise InputError(
            f"{file}: this folder holds studies with other {', '.join(differing)}; "
            "give the same ones to go on, or another --output"
        )
    return facts


def _find_facts(data: Data, skeleton: str | None) -> dict[str, Any]:
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


# One training and its measurements


@dataclass(frozen=True)
class Run:
    """A training of a study, in OUTPUT/runs/NAME.

    Attributes:
        request: it is for.
        variant: the row it is for.
        settings: of the training.
    """

    request: Request
    variant: Variant
    settings: TrainingSettings

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"{self.variant.run}-seed{self.settings.seed}"

    @property
    def folder(self) -> RunFolder:
        """Of the training."""
        return RunFolder(self.request.output / "runs" / self.name)

    @property
    def model_file(self) -> Path:
        """The model after the last epoch: the best one is chosen on the very data it is measured on."""
        return self.folder.newest

    @property
    def steps(self) -> tuple[int, ...]:
        """Numbers of diffusion steps to measure."""
        return self.request.study.steps if self.variant.takes_steps else (1,)

    def result_file(self, steps: int) -> Path:
        """Where the measurement with so many steps lies."""
        return self.folder.path / "evaluation" / f"steps{steps}.json"

    def key(self, steps: int) -> dict[str, Any]:
        """What a measurement depends on; one with another key is stale."""
        return {
            "model": _digest(self.model_file),
            "settings": self.settings.to_dict(),
            "validation annotations": _digest(self.request.data.val.annotations),
            "boxes": _digest(self.request.data.boxes),
            "steps": steps,
        }

    def results(self) -> dict[int, dict[str, Any]]:
        """The measurements that are there, by number of steps."""
        found = {}
        for steps in self.steps:
            try:
                result = json.loads(self.result_file(steps).read_text())
                settings = TrainingSettings.from_dict(result["key"]["settings"]).to_dict()
                if {**result["key"], "settings": settings} == self.key(steps):
                    found[steps] = result
            except (OSError, ValueError, KeyError, TypeError):  # not there, damaged, or of no use any more
                continue
        return found

    @property
    def finished(self) -> bool:
        """Whether every measurement is there."""
        return len(self.results()) == len(self.steps)


def plan(request: Request, skeleton: str) -> list[Run]:
    """All trainings of a study, seed 0 of every variant first."""
    return [
        Run(request, variant, variant.settings(request.budget, skeleton, seed))
        for seed in range(request.seeds)
        for variant in request.study.variants
    ]


def _train_and_measure(runs: Sequence[Run], request: Request, say: Say) -> dict[str, str]:
    """Train runs, some side by side, and measure them one by one; why one failed, by its name."""
    failed: dict[str, str] = {}
    running: list[subprocess.Popen[str]] = []
    with ThreadPoolExecutor(max_workers=request.parallel) as pool:
        try:
            jobs = [
                pool.submit(_train, run, f"[{number}/{len(runs)} {run.name}]", running, say)
                for number, run in enumerate(runs, start=1)
            ]
            for run, job in zip(runs, jobs, strict=True):
                failure, left_out = job.result()
                try:
                    if failure is not None:
                        raise InputError(failure)
                    for steps in set(run.steps) - run.results().keys():
                        measure(run, steps, left_out)
                except InputError as error:
                    failed[run.name] = str(error)
        finally:  # none is left behind, whatever happens
            pool.shutdown(wait=False, cancel_futures=True)
            for process in running:
                process.terminate()
    return failed


def _train(
    run: Run, prefix: str, running: list[subprocess.Popen[str]], say: Say
) -> tuple[str | None, list[str]]:
    """Train a run, or go on; why it failed, and the messages about pictures that were left out."""
    data, machine = run.request.data, run.request.machine
    recipe = run.request.output / "runs" / f"{run.name}.json"
    write_json(recipe, run.settings.to_dict())
    words: list[Any] = ["train", recipe, "--images", *(each.images for each in data.train)]
    words += ["--annotations", *(each.annotations for each in data.train)]
    words += ["--val-images", data.val.images, "--val-annotations", data.val.annotations]
    words += ["--output", run.folder.path, "--accelerator", machine.accelerator, "--devices", machine.devices]
    options = {
        "--workers": machine.workers, "--weights": data.weights, "--encoder-weights": data.encoder_weights
    }  # fmt: skip
    words += [word for name, value in options.items() if value is not None for word in (name, value)]
    process = subprocess.Popen(
        [sys.executable, "-m", "diffusionpose", *map(str, words)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={
            **os.environ,
            "PYTHONUNBUFFERED": "1",
            "OMP_NUM_THREADS": str(run.request.threads),
            PARENT: str(os.getpid()),
        },
    )
    running.append(process)
    say(f"{prefix} begins")
    lines = []
    assert process.stdout is not None
    for line in filter(None, map(str.rstrip, process.stdout)):
        lines.append(line.removeprefix("diffusionpose: "))
        say(f"{prefix} {line}")
    status = process.wait()
    left_out = [line for line in lines if line.endswith(" (left out of the training)")]
    if status == 0 or (status == 1 and left_out):
        return None, left_out
    message = lines[-1] if lines else "no message"
    return (message if status == 1 else f"ended with status {status}: {message}"), []


def measure(run: Run, steps: int, left_out: Sequence[str] = ()) -> None:
    """Write ``run.result_file(steps)``: metrics, intervals, cost, time.

    Args:
        run: whose training is done.
        steps: diffusion steps; a model without them gives the same for any number.
        left_out: messages about pictures that the training could not read.

    Raises:
        InputError: the model or the data cannot be used.
    """
    began, request, settings = time.monotonic(), run.request, run.settings
    model = load_model(run.model_file, device=device_for(request.machine))
    report = evaluate(
        model,
        read_persons(request.data.val, model.skeleton),
        request.data.val.images,
        request.data.boxes,
        decode=settings.decode,
        flip=settings.flip,
        steps=steps if run.variant.takes_steps else None,
        batch_size=2 * settings.batch_size,
        workers=worker_count(request.machine),
    )
    found, rows = report.to_dict(), run.folder.rows()
    cost = {"steps": steps} if run.variant.takes_steps else {}
    entries = {
        "key": run.key(steps),
        "steps": steps if run.variant.takes_steps else None,
        "metrics": report.metrics,
        "intervals_95": found.get("intervals_95", {}),
        **{name: found[name] for name in ("box_source", "settings", "counts", "failures")},
        "parameters": count_parameters(model),
        "multiply_adds": count_multiply_adds(model, **cost),
        "training": {
            "epochs": len(rows),
            "seconds": round(sum(float(row["seconds"]) for row in rows), 1),  # validation apart
            "loss": float(rows[-1]["loss"]),
            "failures": list(left_out),
        },
        "evaluation_seconds": round(time.monotonic() - began, 1),
        "threads": request.threads,
        "hardware": hardware(),
        "versions": versions(),
    }
    write_json(run.result_file(steps), entries)


def device_for(machine: Machine) -> str:
    """Where to measure a model that was trained on a machine: its first GPU, or the CPU."""
    return "cuda" if torch.cuda.is_available() and machine.accelerator in ("auto", "gpu", "cuda") else "cpu"


def hardware() -> dict[str, Any]:
    """The processor, its cores, and the first GPU."""
    listing = Path("/proc/cpuinfo")
    lines = listing.read_text().splitlines() if listing.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "processor": names[0] if names else platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "system": platform.platform(terse=True),
    }


def versions() -> dict[str, str]:
    """Of Python and of the packages that numbers depend on."""
    return {
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in PACKAGES},
    }


# The report


def report_entries(
    request: Request, facts: Mapping[str, Any], runs: Sequence[Run], failed: Mapping[str, str]
) -> dict[str, Any]:
    """What STUDY.json holds."""
    study, budget = request.study, request.budget
    wanted: list[tuple[str, tuple[float | None, float | None], Variant, int]]
    if study.kind == "steps":
        wanted = [
            (str(steps), study.paper_steps.get(steps, (None, None)), study.variants[0], steps)
            for steps in study.steps
        ]
    else:
        wanted = [(each.label, (each.paper_ap, each.paper_ar), each, 1) for each in study.variants]
    rows = []
    for label, paper, variant, steps in wanted:
        own = [run for run in runs if run.variant == variant]
        results = {run.name: run.results().get(steps) for run in own}
        rows.append(report_row(label, paper, own[0].settings.options, results, failed))
    found = [result for run in runs for result in run.results().values()]
    return {
        "study": study.name,
        "title": study.title,
        "budget": {"name": budget.name, "words": budget.words, "base": budget.base.to_dict()},
        "differs_from_the_paper": differences(request, facts),
        "data": facts,
        "digests": request.data.digests(),
        "seeds": list(range(request.seeds)),
        "rows": rows,
        "settings": {run.name: run.settings.to_dict() for run in runs},
        "command": request.command,
        "parallel": request.parallel,
        "threads": request.threads,
        **{name: _distinct([result[name] for result in found]) for name in ("hardware", "versions")},
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _distinct(values: Sequence[Any]) -> list[Any]:
    return [value for index, value in enumerate(values) if value not in values[:index]]


def differences(request: Request, facts: Mapping[str, Any]) -> list[str]:
    """In what our numbers differ from the paper's protocol; empty where they can be compared directly."""
    found, val, devices = [], facts["val"], request.machine.devices
    if facts["skeleton"] != "coco" or val["pictures"] != COCO_VAL_PICTURES:
        found.append(
            f"measured on {val['persons']} persons of {Path(val['file']).name} "
            f"({facts['joints']} joints, skeleton {facts['skeleton']})"
        )
    if request.data.boxes is None:
        found.append("annotated boxes, where the paper has those of a detector (56.4 AP)")
    if request.budget.name != "full":
        found.append(request.budget.words)
    if devices != 8:
        persons = devices * request.budget.base.batch_size
        found.append(f"{persons} persons a step, where the paper has 8 GPUs x 32")
    return found


# Figure 5


def hard_pictures(
    request: Request, runs: Sequence[Run], path: Path, before: Any, seed: int = 0
) -> dict[str, Any] | None:
    """Choose, draw and list hard pictures; None where a model is missing.

    Args:
        request: of the study; its first seed's models are shown.
        runs: all of its trainings.
        path: of the PNG.
        before: what this gave the last time; it and the PNG are kept where nothing has changed.
        seed: of the draw among the hard ones.
    """
    first = [run for run in runs if run.settings.seed == 0 and run.results()]
    if len(first) < len(request.study.variants):
        return None
    key = {"pictures": request.pictures, "seed": seed, **{run.name: run.key(1) for run in first}}
    if isinstance(before, dict) and before.get("key") == key and path.exists():
        return before
    settings, val = first[0].settings, request.data.val
    models = {run.variant: load_model(run.model_file, device_for(request.machine)) for run in first}
    names = [variant.run for variant in models]
    some_model = next(iter(models.values()))
    truth = read_persons(val, some_model.skeleton).labelled()
    data = PersonDataset(truth, val.images, some_model.input_size, some_model.unbiased, skip_missing=True)
    options = Inference(
        settings.decode,
        settings.flip,
        batch_size=2 * settings.batch_size,
        workers=worker_count(request.machine),
    )
    persons = replace(truth, persons=data.persons)
    results = [predict_persons(model, persons, val.images, options)[0] for model in models.values()]
    error = np.stack([figures.person_errors(data.annotations, data.persons, rows) for rows in results])
    chosen, rule = figures.choose_hard(data, error, request.pictures, seed)
    samples = [data[index] for index in chosen]
    views = [_views(models, sample["image"], settings.decode) for sample in samples]
    write_figure(path, figures.draw_pictures(request.study.title, truth.skeleton, samples, views))
    shown = [
        {
            "file_name": truth.images[data.persons[index].image_id].file_name,
            "annotation": data.persons[index].id,
            "errors": dict(zip(names, error[:, index].tolist(), strict=True)),
        }
        for index in chosen
    ]
    posed = np.isfinite(error).all(axis=0)
    mean_error = dict(zip(names, error[:, posed].mean(axis=1).tolist(), strict=True)) if posed.any() else {}
    return {"key": key, "rule": rule, "models": names, "mean_error": mean_error, "shown": shown}


def _views(models: Mapping[Variant, PoseModel], image: torch.Tensor, decode: str) -> list[figures.View]:
    """The heatmap baseline's, then DiffusionPose's before and after its step."""
    found = []
    for variant, model in models.items():
        if variant.takes_steps:
            found.append(figures.view(model, "DiffusionPose, coarse\n(0 steps)", image, decode, steps=0))
            found.append(figures.view(model, "DiffusionPose\n(1 step)", image, decode, steps=1))
        else:
            found.append(figures.view(model, "heatmap baseline", image, decode))
    return found


# Files: whole ones or none


def write_file(path: Path, content: str | Callable[[Path], object]) -> None:
    """Write text, or what a function fills the file with, and make its folder where it is not there.

    Raises:
        InputError: it cannot be written.
    """
    write = (lambda part: part.write_text(content)) if isinstance(content, str) else content
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        atomically(path, write)


def write_json(path: Path, entries: Any) -> None:
    """Write JSON; InputError where it cannot be written."""
    write_file(path, json.dumps(entries, indent=2, allow_nan=False) + "\n")


def write_figure(path: Path, figure: Figure) -> None:
    """Write a PNG; InputError where it cannot be written."""
    write_file(path, lambda part: figure.savefig(part, dpi=140, format="png"))


def _read_json(path: Path) -> dict[str, Any]:
    """The entries of an earlier report, empty where there is none that can be read."""
    try:
        entries = json.loads(path.read_text())
        return entries if isinstance(entries, dict) else {}
    except (OSError, ValueError):
        return {}


def _digest(path: Path | None) -> str | None:
    """SHA-256 of a file, None for None; InputError where it cannot be read."""
    if path is None:
        return None
    try:
        stat = path.stat()
        return _known_digest(path, stat.st_mtime_ns, stat.st_size)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check the path") from error


@lru_cache(maxsize=256)
def _known_digest(path: Path, _changed: int, _size: int) -> str:
    return errors.file_digest(path)
