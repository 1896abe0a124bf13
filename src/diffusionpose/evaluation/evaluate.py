"""A model measured on a data set, with true or with detected boxes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from diffusionpose.data.annotations import Annotations, annotations_in
from diffusionpose.data.dataset import PersonDataset
from diffusionpose.data.detections import read_boxes
from diffusionpose.errors import InputError
from diffusionpose.evaluation.aic import aic_score
from diffusionpose.evaluation.ap import Metrics, coco_metrics, crowdposetools_metrics
from diffusionpose.evaluation.intervals import Interval, bootstrap_pck
from diffusionpose.evaluation.mean_pose import learn_mean_pose, predict_mean_pose
from diffusionpose.evaluation.nms import oks_nms, rescore
from diffusionpose.evaluation.pck import JointCounts, count_pose_joints, has_torso
from diffusionpose.evaluation.results import Inference, Row, predict_persons
from diffusionpose.geometry.crops import Crop
from diffusionpose.models.pose_model import PoseModel
from diffusionpose.skeletons import AIC, CROWDPOSE, Skeleton

CROWDPOSETOOLS_KEYS = ("AP", "AP50", "AP75", "AR", "AP_easy", "AP_medium", "AP_hard")


@dataclass(frozen=True, eq=False)
class Report:
    """What an evaluation found.

    Attributes:
        metrics: by name, in [0, 1]; None where nothing falls into a metric's range.
        results: COCO keypoint results, rescored, after OKS-NMS where boxes were detected.
        box_source: where the boxes come from; belongs beside every number.
        settings: decode, flip and steps of a model; empty for other results.
        counts: images, boxes, poses, boxes without a pose.
        failures: a message for everything that could not be done.
        joints: which joints PCK counts; None with detected boxes or without a torso in the skeleton.
    """

    metrics: Metrics
    results: list[Row]
    box_source: str
    settings: dict[str, Any] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    joints: JointCounts | None = None

    @cached_property
    def intervals(self) -> dict[str, Interval | None]:
        """95 % bootstrap intervals over persons, of PCK and PCK_limbs."""
        if self.joints is None:
            return {}
        return {
            "PCK": bootstrap_pck(self.joints),
            "PCK_limbs": bootstrap_pck(self.joints, self.joints.limbs),
        }

    def to_dict(self) -> dict[str, Any]:
        """What metrics.json holds: the metrics at the top level, valid JSON (null for None)."""
        more: dict[str, Any] = {}
        if self.joints is not None:
            more = {"PCK_per_joint": self.joints.per_joint(), "intervals_95": self.intervals}
        return {
            **self.metrics,
            "box_source": self.box_source,
            "settings": self.settings,
            "counts": self.counts,
            **more,
            "failures": self.failures,
        }

    def table(self) -> str:
        """One line for each metric, the box source beside every number, and PCK's 95 % intervals."""
        width = max(map(len, self.metrics))
        settings = ", ".join(f"{name} {value}" for name, value in self.settings.items() if value is not None)
        counts = ", ".join(f"{number} {name}" for name, number in self.counts.items())
        lines = [f"{'metric':<{width}}   value   boxes"]
        for name, value in self.metrics.items():
            number = "     -" if value is None else f"{value:6.4f}"
            ends = self.intervals.get(name)
            between = f"   95 %: {ends[0]:.4f} to {ends[1]:.4f}" if ends else ""
            lines.append(f"{name:<{width}}  {number}   {self.box_source}{between}")
        return "\n".join([*lines, *filter(None, (settings, counts))])


def evaluate(
    model: PoseModel,
    annotations: Annotations | str | Path,
    images: str | Path,
    boxes: Annotations | str | Path | None = None,
    skeleton: Skeleton | None = None,
    **options: Any,
) -> Report:
    """Measure a model.

    With true boxes the score of a pose is the mean score of its keypoints above 0.2; with detected
    boxes that is multiplied by the score of the box, and near-copies are dropped by OKS-NMS at 0.9
    (HRNet's protocol). PCK is measured with true boxes only: it needs to know who is who.

    Args:
        model: any pose model; annotations of other joints are matched to its skeleton by name.
        annotations: the truth, or its file.
        images: folder of the pictures.
        boxes: detected boxes or their file; None for the true boxes of the labelled persons.
        skeleton: of the annotation file, where its joint names do not tell.
        options: decode, flip, steps, batch_size, workers, device, progress of :class:`Inference`.

    Raises:
        InputError: a file that cannot be used, no joint in common, or no picture to be found. What
            concerns single pictures goes to ``Report.failures`` instead, and the rest is done.
    """
    how = Inference(**options)
    truth = annotations_in(annotations, skeleton).to_skeleton(model.skeleton)
    if boxes is None:
        persons = truth.labelled()
    else:
        given = boxes if isinstance(boxes, Annotations) else read_boxes(boxes, truth)
        persons = given.to_skeleton(model.skeleton)
    rows, failures = _aligned_rows(model, persons, images, how)
    report = score_results(truth, persons, rows, None if boxes is None else _crop_areas(persons, model))
    dropped = truth.dropped if boxes is None else [*truth.dropped, *persons.dropped]
    settings = {"decode": how.decode, "flip": how.flip, "steps": how.steps}
    return replace(report, settings=settings, failures=[*dropped, *failures])


def _aligned_rows(
    model: PoseModel, persons: Annotations, images: str | Path, how: Inference
) -> tuple[list[Row | None], list[str]]:
    """A row for each of ``persons``, None where there is no pose, and the failures."""
    dataset = PersonDataset(persons, images, model.input_size, model.unbiased, skip_missing=True)
    if persons.persons and not dataset.persons:
        raise InputError(f"{images}: none of the pictures of {persons.path} is there; give their folder")
    rows, failures = predict_persons(model, dataset, how)
    found = {id(person): row for person, row in zip(dataset.persons, rows, strict=True)}
    return [found.get(id(person)) for person in persons.persons], failures


def evaluate_mean_pose(
    train: Annotations | str | Path,
    annotations: Annotations | str | Path,
    skeleton: Skeleton | None = None,
) -> Report:
    """Measure the mean pose of a training set on the true boxes of another: the least a model must beat.

    Args:
        train: persons to learn the mean pose from.
        annotations: the truth.
        skeleton: whose joints to take from both; that of ``annotations`` by default.

    Raises:
        InputError: a file that cannot be used, or no joint in common.
    """
    truth = annotations_in(annotations, skeleton)
    persons = truth.labelled()
    mean_pose = learn_mean_pose(annotations_in(train, truth.skeleton))
    report = score_results(truth, persons, predict_mean_pose(mean_pose, persons))
    return replace(report, failures=list(truth.dropped))


def score_results(
    truth: Annotations,
    persons: Annotations,
    rows: Sequence[Row | None],
    areas: Sequence[float] | None = None,
) -> Report:
    """Metrics of poses, of whatever origin.

    Args:
        truth: all annotated persons, also unlabelled ones and crowds.
        persons: those whose poses were sought: ``truth.labelled()``, or the detected boxes.
        rows: for each of ``persons`` its result with the score of its box, or None if there is none.
        areas: for each of ``persons`` that of its crop, for the OKS-NMS of detected boxes; None where
            boxes are true and nothing is suppressed.
    """
    made = [index for index, row in enumerate(rows) if row is not None]
    results = rescore([row for row in rows if row is not None])
    joints = None
    if areas is not None:
        results = oks_nms(results, truth.skeleton.sigmas, areas=[areas[index] for index in made])
    elif has_torso(truth.skeleton):
        joints = count_pose_joints(persons, rows)
    counts = {
        "images": len(truth.images),
        "boxes": len(persons.persons),
        "poses": len(results),
        "boxes without a pose": len(rows) - len(made),
    }
    metrics = _metrics(truth, results, joints)
    return Report(metrics, results, persons.box_source, counts=counts, joints=joints)


def _metrics(truth: Annotations, results: list[Row], joints: JointCounts | None) -> Metrics:
    metrics = coco_metrics(truth, results)
    if joints is not None:
        metrics |= {name: joints.summary()[name] for name in ("PCK", "PCK_limbs")}
    if truth.skeleton.joints == AIC.joints:
        metrics["AIC_score"] = aic_score(truth, results)
    if truth.skeleton.joints == CROWDPOSE.joints and "AP_easy" in metrics:
        official = crowdposetools_metrics(truth, results)
        metrics |= {f"{name}_crowdposetools": official[name] for name in CROWDPOSETOOLS_KEYS}
    return metrics


def _crop_areas(persons: Annotations, model: PoseModel) -> list[float]:
    """Of every person the area of the crop, which HRNet's OKS-NMS takes for the person's."""
    boxes = np.reshape([person.box for person in persons.persons], (-1, 4))
    crops = Crop.from_boxes(torch.from_numpy(boxes), model.input_size, unbiased=model.unbiased)
    return crops.scale.prod(dim=1).tolist()
