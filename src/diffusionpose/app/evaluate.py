"""``diffusionpose evaluate``: a model, or the mean pose, measured on an annotated data set."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from diffusionpose.app.options import (
    BatchSize,
    Decode,
    Device,
    File,
    Flip,
    Folder,
    Joints,
    Output,
    Steps,
    Weights,
    make_folder,
    say,
    show_progress,
    write_json,
)
from diffusionpose.skeletons import Skeleton, get_skeleton

if TYPE_CHECKING:
    from diffusionpose.data.annotations import Annotations
    from diffusionpose.evaluation.evaluate import Report

MAX_WORKERS = 8
OWN_BOXES = "(default: the annotated boxes)"
EACH_CORE = f"(default: one for each core, up to {MAX_WORKERS})"


@dataclass(frozen=True)
class EvaluateCommand:
    """Measure a model on an annotated data set.

    Prints AP, AR and, where they apply, CrowdPose's easy / medium / hard, AI Challenger's score and PCK
    at 0.2 of the torso, each beside the source of the boxes, and writes OUTPUT/metrics.json and
    OUTPUT/keypoints.json (COCO results in the order of the annotation file's joints, file_name and box
    added). A model of other joints is measured on those whose names it shares with the annotations.
    Pictures and entries that cannot be used are reported, the rest is measured, and the exit status is 1.
    """

    annotations: File
    """COCO-style JSON, or AI Challenger's own."""
    output: Output
    images: Annotated[Folder | None, tyro.conf.arg(metavar="DIR", help_behavior_hint="")] = None
    """Folder that the file names of the annotations are relative to; --results and --mean-pose need none."""
    results: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")] = None
    """Measure these COCO keypoint results, as they are, in the place of a model."""
    weights: Weights = None
    mean_pose: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")] = None
    """Measure the mean pose of these training annotations in the place of a model."""
    boxes: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint=OWN_BOXES)] = None
    """Detected person boxes: a COCO detection list."""
    detector: Annotated[str | None, tyro.conf.arg(metavar="NAME", help_behavior_hint=OWN_BOXES)] = None
    """Look for the persons with this one (as of predict), and keep its boxes as OUTPUT/detections.json."""
    skeleton: Joints = None
    """Joints of the annotation file, or of --results: coco, crowdpose, aic or a YAML file."""
    steps: Steps = None
    decode: Decode = "dark"
    flip: Flip = True
    device: Device = "auto"
    batch_size: BatchSize = None
    workers: Annotated[int | None, tyro.conf.arg(metavar="N", help_behavior_hint=EACH_CORE)] = None
    """Threads that read pictures ahead of the network; 0 reads them in turn."""

    def run(self) -> int:
        """Measure, print, write; 0 if every picture and box could be used."""
        other = [f"--{name}" for name in ("weights", "boxes", "detector") if getattr(self, name)]
        for name in ("mean_pose", "results"):
            if getattr(self, name) and (other or (self.mean_pose and self.results)):
                say(f"evaluate: --{name.replace('_', '-')} goes without {' and '.join(other) or '--results'}")
                return 2
        if not (self.images or self.mean_pose or self.results):
            say("evaluate: --images is missing: the folder that the file names of the annotations start from")
            return 2
        if self.boxes and self.detector:
            say("evaluate: --boxes and --detector exclude each other; leave one out")
            return 2
        if self.detector == "auto":
            say("evaluate: --detector auto may be any; name the one that the numbers shall be of")
            return 2
        make_folder(self.output)
        report = self._measure(None if self.skeleton is None else get_skeleton(self.skeleton))
        metrics = {**report.to_dict(), "model": self._name(), "annotations": str(self.annotations)}
        write_json(self.output / "keypoints.json", report.rows())
        write_json(self.output / "metrics.json", metrics)
        print(report.table())
        print(f"{self.output / 'metrics.json'}, {self.output / 'keypoints.json'}")
        for message in [*report.notes, *report.failures]:
            say(message)
        return 1 if report.failures else 0

    def _name(self) -> str:
        if self.results:
            return str(self.results)
        return f"mean pose of {self.mean_pose}" if self.mean_pose else self.weights or "bundled"

    def _measure(self, skeleton: Skeleton | None) -> Report:
        from diffusionpose.data.annotations import annotations_in
        from diffusionpose.evaluation.evaluate import evaluate, evaluate_mean_pose, evaluate_results
        from diffusionpose.evaluation.metrics import read_results
        from diffusionpose.runtime.networks import load_network

        if self.results:
            return evaluate_results(read_results(self.results), self.annotations, skeleton, str(self.results))
        if self.mean_pose:
            return evaluate_mean_pose(self.mean_pose, self.annotations, skeleton)
        assert self.images is not None
        truth = annotations_in(self.annotations, skeleton)
        network = load_network(self.weights, self.device)
        network.check(self.flip, self.steps)
        boxes, failures = self._boxes(truth)
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        report = evaluate(
            network,
            truth,
            self.images,
            boxes,
            decode=self.decode,
            flip=self.flip,
            steps=self.steps,
            batch_size=self.batch_size or network.batch_size,
            workers=min(cores, MAX_WORKERS) if self.workers is None else self.workers,
            progress=partial(show_progress, what="persons") if sys.stderr.isatty() else None,
        )
        source = f"detector {self.detector}" if self.detector else report.box_source
        return replace(report, failures=[*failures, *report.failures], box_source=source)

    def _boxes(self, truth: Annotations) -> tuple[Path | None, list[str]]:
        """The file with the boxes, None for the annotated ones, and pictures that cannot be read."""
        if not self.detector or self.images is None:
            return self.boxes, []
        from diffusionpose.app.options import LEAST_SCORE, write_detections
        from diffusionpose.runtime.estimator import make_detector

        detector = make_detector(self.detector, self.device, min_score=LEAST_SCORE, tell=say)
        path = self.output / "detections.json"
        return path, write_detections(detector, truth, self.images, path)
