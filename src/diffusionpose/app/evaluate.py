"""``diffusionpose evaluate``: a model, or the mean pose, measured on an annotated data set."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro
from tyro.conf import FlagCreatePairsOff

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
    from diffusionpose.runtime.networks import Network

MAX_WORKERS = 8
OWN_BOXES = "(default: the annotated boxes)"
EACH_CORE = f"(default: one for each core, up to {MAX_WORKERS})"


@dataclass(frozen=True)
class EvaluateCommand:
    """Measure a model on an annotated data set.

    Prints AP, AR and, where they apply, CrowdPose's easy / medium / hard, AI Challenger's score and PCK
    at 0.2 of the torso, each beside the source of the boxes, and writes OUTPUT/metrics.json and
    OUTPUT/keypoints.json (COCO results, file_name and box added). Pictures that cannot be used
    are reported, the rest is measured, and the exit status is 1.
    """

    images: Folder
    """Folder that the file names of the annotations are relative to."""
    annotations: File
    """COCO-style JSON, or AI Challenger's own."""
    output: Output
    weights: Weights = None
    mean_pose: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")] = None
    """Measure the mean pose of these training annotations in the place of a model."""
    boxes: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint=OWN_BOXES)] = None
    """Detected person boxes: a COCO detection list."""
    detector: Annotated[str | None, tyro.conf.arg(metavar="NAME", help_behavior_hint=OWN_BOXES)] = None
    """Look for the persons with this one (as of predict), and keep its boxes as OUTPUT/detections.json."""
    skeleton: Joints = None
    """Joints of the annotation file: coco, crowdpose, aic or a YAML file."""
    match_joints: FlagCreatePairsOff[bool] = False
    """Accept a model of other joints, and measure those whose names it shares with the annotations."""
    steps: Steps = None
    decode: Decode = "dark"
    flip: Flip = True
    device: Device = "auto"
    batch_size: BatchSize = None
    workers: Annotated[int | None, tyro.conf.arg(metavar="N", help_behavior_hint=EACH_CORE)] = None
    """Processes that read pictures; 0 reads them in this one."""

    def run(self) -> int:
        """Measure, print, write; 0 if every picture and box could be used."""
        if self.mean_pose and (self.weights or self.boxes or self.detector):
            say("evaluate: --mean-pose goes with neither --weights nor --boxes nor --detector")
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
        write_json(self.output / "keypoints.json", report.results)
        write_json(self.output / "metrics.json", metrics)
        print(report.table())
        print(f"{self.output / 'metrics.json'}, {self.output / 'keypoints.json'}")
        for failure in report.failures:
            say(failure)
        return 1 if report.failures else 0

    def _name(self) -> str:
        return f"mean pose of {self.mean_pose}" if self.mean_pose else self.weights or "bundled"

    def _measure(self, skeleton: Skeleton | None) -> Report:
        from diffusionpose.data.annotations import read_annotations
        from diffusionpose.evaluation.evaluate import evaluate, evaluate_mean_pose
        from diffusionpose.runtime.networks import load_network

        if self.mean_pose:
            return evaluate_mean_pose(self.mean_pose, self.annotations, skeleton)
        truth = read_annotations(self.annotations, skeleton)
        wanted = None if self.match_joints else truth.skeleton
        model = load_network(self.weights, self.device, wanted)
        model.check(self.flip, self.steps)
        boxes, failures = self._boxes(truth, model)
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        report = evaluate(
            model,
            truth,
            self.images,
            boxes,
            decode=self.decode,
            flip=self.flip,
            steps=self.steps,
            batch_size=self.batch_size or model.batch_size,
            workers=min(cores, MAX_WORKERS) if self.workers is None else self.workers,
            progress=partial(show_progress, what="persons") if sys.stderr.isatty() else None,
        )
        source = f"detector {self.detector}" if self.detector else report.box_source
        return replace(report, failures=[*failures, *report.failures], box_source=source)

    def _boxes(self, truth: Annotations, model: Network) -> tuple[Path | None, list[str]]:
        """The file with the boxes, None for the annotated ones, and pictures that cannot be read."""
        if not self.detector:
            return self.boxes, []
        from diffusionpose.app.options import LEAST_SCORE, write_detections
        from diffusionpose.runtime.estimator import make_detector

        detector = make_detector(self.detector, self.device, min_score=LEAST_SCORE, tell=say)
        path = self.output / "detections.json"
        return path, write_detections(detector, truth, self.images, path)
