"""``diffusionpose evaluate``: a model, or the mean pose, measured on an annotated data set."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

import tyro

from diffusionpose.app.options import (
    BOXES_OR_DETECTOR,
    AnyFile,
    AnyFolder,
    File,
    Joints,
    NetworkOptions,
    Output,
    make_folder,
    progress_of,
    refuse,
    say,
)
from diffusionpose.data.annotations import Annotations, annotations_in
from diffusionpose.errors import write_file
from diffusionpose.evaluation.confidence import plot_reliability
from diffusionpose.evaluation.evaluate import Report, evaluate, evaluate_mean_pose, evaluate_results
from diffusionpose.evaluation.metrics import read_results
from diffusionpose.evaluation.people import detections, find_all
from diffusionpose.json_files import write_json
from diffusionpose.runtime.estimator import MOST_THREADS, make_detector
from diffusionpose.runtime.networks import load_network
from diffusionpose.skeletons import Skeleton, get_skeleton

LEAST_SCORE = 0.05  # of a detector's box: AP counts the surest first, so many unsure ones only cost time
OWN_BOXES = "(default: the annotated boxes)"
EACH_CORE = f"(default: one for each core, up to {MOST_THREADS})"


@dataclass(frozen=True)
class EvaluateCommand:
    """Measure a model on an annotated data set.

    Prints AP, AR and, where they apply, CrowdPose's easy / medium / hard, AI Challenger's score and PCK
    at 0.2 of the torso, each beside the source of the boxes, and writes OUTPUT/metrics.json and
    OUTPUT/keypoints.json (COCO results in the order of the annotation file's joints, file_name and box
    added); of a calibrated model also how far its confidence can be trusted, and OUTPUT/reliability.png
    (docs/confidence.md). A model of other joints is measured on those whose names it shares with the
    annotations. Pictures and entries that cannot be used are reported, the rest is measured, and the exit
    status is 1.
    """

    annotations: File
    """COCO-style JSON, or AI Challenger's own."""
    output: Output
    images: AnyFolder = None
    """Folder that the file names of the annotations are relative to; --results and --mean-pose need none."""
    results: AnyFile = None
    """Measure these COCO keypoint results, as they are, in the place of a model."""
    mean_pose: AnyFile = None
    """Measure the mean pose of these training annotations in the place of a model."""
    boxes: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint=OWN_BOXES)] = None
    """Detected person boxes: a COCO detection list."""
    detector: Annotated[str | None, tyro.conf.arg(metavar="NAME", help_behavior_hint=OWN_BOXES)] = None
    """Look for the persons with this one (as of predict), and keep its boxes as OUTPUT/detections.json."""
    skeleton: Joints = None
    """Joints of the annotation file, or of --results: coco, crowdpose, aic or a YAML file."""
    workers: Annotated[int | None, tyro.conf.arg(metavar="N", help_behavior_hint=EACH_CORE)] = None
    """Threads that read pictures ahead of the network; 0 reads them in turn."""
    options: Annotated[NetworkOptions, tyro.conf.arg(name="")] = field(default_factory=NetworkOptions)

    def run(self) -> int:
        """Measure, print, write; 0 if every picture and box could be used."""
        self._check()
        make_folder(self.output)
        report = self._measure(None if self.skeleton is None else get_skeleton(self.skeleton))
        metrics = {**report.to_dict(), "model": self._name(), "annotations": str(self.annotations)}
        write_json(self.output / "keypoints.json", report.rows())
        write_json(self.output / "metrics.json", metrics)
        files = [self.output / "metrics.json", self.output / "keypoints.json"]
        if report.confidence is not None:
            files.append(self.output / "reliability.png")
            figure = plot_reliability(report.confidence)
            write_file(files[-1], lambda part: figure.savefig(part, format="png"))
        print(report.table())
        print(", ".join(map(str, files)))
        for message in [*report.notes, *report.failures]:
            say(message)
        return 1 if report.failures else 0

    def _check(self) -> None:
        """UsageError where the options do not go together."""
        model = {"weights": self.options.weights, "boxes": self.boxes, "detector": self.detector}
        others = " and ".join(f"--{name}" for name, value in model.items() if value)
        instead = "mean-pose" if self.mean_pose else "results" if self.results else ""
        folder = "the folder that the file names of the annotations start from"
        refuse(
            (self.mean_pose and self.results, "evaluate: --mean-pose goes without --results"),
            (instead and others, f"evaluate: --{instead} goes without {others}"),
            (not (self.images or instead), f"evaluate: --images is missing: {folder}"),
            (self.boxes and self.detector, BOXES_OR_DETECTOR),
            (self.detector == "auto", "evaluate: --detector auto may be any; name that of the numbers"),
        )

    def _name(self) -> str:
        if self.results:
            return str(self.results)
        return f"mean pose of {self.mean_pose}" if self.mean_pose else self.options.weights or "bundled"

    def _measure(self, skeleton: Skeleton | None) -> Report:
        if self.results:
            return evaluate_results(read_results(self.results), self.annotations, skeleton, str(self.results))
        if self.mean_pose:
            return evaluate_mean_pose(self.mean_pose, self.annotations, skeleton)
        assert self.images is not None
        truth = annotations_in(self.annotations, skeleton)
        options = self.options
        network = load_network(options.weights, options.device)
        network.check(options.flip, options.steps, start=False)
        boxes, failures = self._find(self.detector, self.images, truth) if self.detector else (self.boxes, [])
        report = evaluate(
            network,
            truth,
            self.images,
            boxes,
            decode=options.decode,
            flip=options.flip,
            steps=options.steps,
            rotation_test=options.rotation_test,
            batch_size=options.batch_size,
            workers=self.workers,
            progress=progress_of("persons"),
        )
        source = f"detector {self.detector}" if self.detector else report.box_source
        return replace(report, failures=[*failures, *report.failures], box_source=source)

    def _find(self, name: str, images: Path, truth: Annotations) -> tuple[Path, list[str]]:
        """Look for the persons in the pictures; the file of their boxes, and pictures that cannot be read."""
        detector = make_detector(name, self.options.device, min_score=LEAST_SCORE, tell=say)
        found, failures = find_all(detector, truth, images, progress_of("pictures"))
        path = self.output / "detections.json"
        write_json(path, detections(found))
        return path, failures
