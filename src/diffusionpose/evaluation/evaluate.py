"""A model, the mean pose, or results of any origin measured on a data set, on true or detected boxes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from diffusionpose.data.annotations import Annotations, Person, annotations_in, read_boxes, read_truth
from diffusionpose.data.pictures import find_pictures
from diffusionpose.errors import InputError
from diffusionpose.evaluation.compare import Interval, bootstrap_pck, rows_in_boxes
from diffusionpose.evaluation.confidence import ConfidenceReport, measure_confidence
from diffusionpose.evaluation.metrics import (
    JointCounts,
    Metrics,
    Row,
    aic_score,
    average_precision,
    count_pose_joints,
    has_torso,
    match_results,
    oks_nms,
    rescore,
)
from diffusionpose.geometry import Crop
from diffusionpose.poses import Pose
from diffusionpose.runtime.estimator import PoseEstimator, Request, in_order
from diffusionpose.runtime.networks import Network
from diffusionpose.skeletons import AIC, Skeleton

if TYPE_CHECKING:
    from diffusionpose.models.pose_model import PoseModel

INPUT_SIZE = (192, 256)  # of the crop whose area OKS-NMS goes by, for poses without a network


def predict_persons(
    estimator: PoseEstimator,
    persons: Annotations,
    images: str | Path,
    starts: np.ndarray | None = None,
    workers: int | None = 0,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[list[Row | None], list[str]]:
    """For each person of a data set a row of :func:`result_row` or None, and a message for every failure.

    A picture that is missing or cannot be read, and heatmaps that are not finite, cost the persons
    concerned; the rest is done.

    Args:
        estimator: its joints are those of the rows.
        persons: with boxes.
        images: folder of their pictures; InputError where none of these is there.
        starts: (n, J, 3) poses to refine, one of each person: x, y in image pixels, and 0 for a joint that is
            not given.
        workers: threads that read pictures ahead; None for one a core, up to 8.
        progress: called with persons done and in all.
    """
    if workers is not None and workers < 0:
        raise InputError(f"workers: {workers} must be 0 or more")
    found = find_pictures(persons, images, persons_only=True)
    if persons.persons and len(found.missing) == len(found.paths):
        raise InputError(f"{images}: none of the pictures of {persons.path} is there; give their folder")
    failures = [f"{Path(images) / name}: no such file" for name in found.missing.values()]
    rows: list[Row | None] = [None] * len(persons.persons)
    there = [i for i, person in enumerate(persons.persons) if person.image_id not in found.missing]
    if estimator.network.sees_neighbours:
        there.sort(key=lambda index: str(persons.persons[index].image_id))

    def read(group: list[int]) -> Request:
        """Persons of one picture; the failure where it cannot be read."""
        people = [persons.persons[index] for index in group]
        boxes, scores = np.stack([one.box for one in people]), np.array([one.score for one in people])
        try:
            image = found.read(persons.images[people[0].image_id])
        except InputError as error:
            return Request(np.zeros((0, 0, 3), np.uint8), boxes[:0], scores[:0], (group, str(error)))
        return Request(image, boxes, scores, (group, None), None if starts is None else starts[group])

    # persons of one picture that follow each other share its reading
    groups = (list(group) for _, group in groupby(there, key=lambda index: persons.persons[index].image_id))
    done = len(rows) - len(there)
    with closing(in_order(read, groups, threads=workers)) as requests:
        for request, poses in estimator.outcomes(requests):
            group, failure = request.source
            failures += [failure] if failure else []
            for index, pose in zip(group, poses, strict=failure is None):
                person = persons.persons[index]
                if isinstance(pose, InputError):
                    failures.append(f"{found.paths[person.image_id]}: {pose}")
                else:
                    rows[index] = result_row(persons, person, pose)
            done += len(group)
            if progress is not None:
                progress(done, len(rows))
    # the persons of one picture fail alike
    return rows, list(dict.fromkeys(failures))


def result_row(annotations: Annotations, person: Person, pose: Pose) -> Row:
    """The pose of a person as an entry of COCO results, with ``file_name`` and ``box`` (x0, y0, x1, y1).

    The score is that of the person's box; nothing is rounded but the box. There is no ``bbox``: evaluators
    would take the area of an unmatched pose from it, and AP_M and AP_L would differ from those of COCO
    results. ``annotations`` name the picture.
    """
    triplets = np.column_stack([pose.keypoints, pose.scores]).astype(float)
    return {
        "image_id": person.image_id,
        "category_id": 1,
        "keypoints": triplets.ravel().tolist(),
        "score": float(person.score),
        "box": pose.rounded_box,
        "file_name": annotations.images[person.image_id].file_name,
        **(pose.confidence.to_dict() if pose.confidence else {}),
    }


# The mean pose: the same keypoints in every box, what a model must at least beat


def learn_mean_pose(annotations: Annotations) -> np.ndarray:
    """(J, 2) mean place of every labelled joint in its box: x / width, y / height from the upper left corner.

    A joint that is never labelled stands in the middle. InputError where no person has a labelled joint.
    """
    labelled = annotations.labelled()
    if not labelled.persons:
        raise InputError(f"{annotations.path}: no person with a labelled joint to learn a mean pose from")
    boxes, hidden = labelled.boxes.astype(np.float64)[:, None], labelled.visible == 0
    relative = (labelled.keypoints - boxes[..., :2]) / (boxes[..., 2:] - boxes[..., :2])
    mean: np.ndarray = np.ma.array(relative, mask=np.dstack([hidden, hidden])).mean(axis=0).filled(0.5)
    return mean


def predict_mean_pose(mean_pose: np.ndarray, annotations: Annotations) -> list[Row]:
    """The mean pose of :func:`learn_mean_pose` in the box of every person; keypoint scores are 1."""
    rows = []
    for person in annotations.persons:
        keypoints = person.box[:2] + mean_pose * (person.box[2:] - person.box[:2])
        pose = Pose(annotations.skeleton, keypoints, np.ones(len(keypoints)), person.box, 1.0)
        rows.append(result_row(annotations, person, pose))
    return rows


@dataclass(frozen=True, eq=False)
class Report:
    """What an evaluation found."""

    metrics: Metrics  # by name, in [0, 1]; None where nothing falls into a metric's range
    results: list[Row]  # COCO keypoint results, rescored, after OKS-NMS, not rounded
    box_source: str  # where the boxes come from; belongs beside every number
    skeleton: Skeleton  # the joints of the results
    settings: dict[str, Any] = field(default_factory=dict)  # decode, flip and steps of a model
    counts: dict[str, int] = field(default_factory=dict)  # images, boxes, poses, boxes without a pose
    failures: list[str] = field(default_factory=list)  # a message for everything that could not be done
    notes: list[str] = field(default_factory=list)  # joints not measured, numbers that may be meant otherwise
    joints: JointCounts | None = None  # of PCK; None with detected boxes or without a torso in the skeleton
    confidence: ConfidenceReport | None = None  # of a calibrated model on true boxes
    partial: bool = False  # the results have not all joints of the annotation file

    def rows(self) -> list[Row]:
        """``results`` as keypoints.json has them: to 0.001 pixels, and the joints' names if they are not all.

        COCO's rule is that results have the joints of the annotation file in its order.
        """
        names = {"joints": list(self.skeleton.joints)} if self.partial else {}
        short = [[round(float(number), 3) for number in row["keypoints"]] for row in self.results]
        return [{**row, "keypoints": k, **names} for row, k in zip(self.results, short, strict=True)]

    @cached_property
    def intervals(self) -> dict[str, Interval | None]:
        """95 % bootstrap intervals over persons, of PCK and PCK_limbs."""
        if self.joints is None:
            return {}
        limbs = bootstrap_pck(self.joints, self.joints.skeleton.limb_joints)
        return {"PCK": bootstrap_pck(self.joints), "PCK_limbs": limbs}

    def to_dict(self) -> dict[str, Any]:
        """What metrics.json holds: the metrics at the top level, valid JSON (null for None)."""
        found: dict[str, Any] = {
            **self.metrics,
            "box_source": self.box_source,
            "joints": list(self.skeleton.joints),
            "settings": self.settings,
            "counts": self.counts,
            "failures": self.failures,
        }
        if self.joints is not None:
            found |= {"PCK_per_joint": self.joints.per_joint(), "intervals_95": self.intervals}
        if self.confidence is not None:
            found["reliability"] = self.confidence.bins
        return found

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
    model: Network | PoseModel,
    annotations: Annotations | str | Path,
    images: str | Path,
    boxes: Annotations | str | Path | None = None,
    skeleton: Skeleton | None = None,
    workers: int | None = 0,
    progress: Callable[[int, int], None] | None = None,
    **options: Any,
) -> Report:
    """Measure a model.

    The score of a pose is that of its box (1 for a true one) times the mean score of its keypoints above 0.2,
    and near-copies are dropped by OKS-NMS at 0.9, for true boxes as for detected ones (HRNet's protocol, and
    mmpose's). PCK is measured with true boxes only: it needs to know who is who.

    Args:
        model: any network or pose model. Joints are matched by name; measured are those that model and
            annotations share.
        annotations: the truth, or its file.
        images: folder of the pictures.
        boxes: detected boxes or their file; None for the true boxes of the labelled persons.
        skeleton: of the annotation file, where its joint names do not tell, or the joints of it to measure.
        workers, progress: as of :func:`predict_persons`.
        options: decode, flip, steps and others of :class:`~diffusionpose.runtime.estimator.PoseEstimator`; a
            PoseModel stays on its device unless ``device`` names another.

    Raises:
        InputError: an option or file that cannot be used, no joint in common, or no picture to be found.
            What concerns single pictures goes to ``Report.failures`` instead, and the rest is done.
    """
    truth, notes = _shared(annotations_in(annotations, skeleton), model.skeleton)
    missing = bool(notes)
    if not truth.labelled().persons:
        raise InputError(f"{truth.path}: no person with a labelled joint to measure poses on")
    if isinstance(boxes, (str, Path)):
        boxes = read_boxes(boxes, truth)
    persons = truth.labelled() if boxes is None else boxes
    estimator = PoseEstimator(model, skeleton=truth.skeleton, **{"device": None, **options})
    rows, failures = predict_persons(estimator, persons, images, workers=workers, progress=progress)
    codec = estimator.network.codec
    report = score_results(truth, persons, rows, codec.input_size, codec.unbiased, boxes is not None)
    settings: dict[str, Any] = {name: getattr(estimator, name) for name in ("decode", "flip", "steps")}
    settings |= {"rotation_test": True} if estimator.rotation_test else {}
    lost = truth.dropped if boxes is None else [*truth.dropped, *persons.dropped]
    notes += [*truth.doubts, *find_pictures(persons, images, persons_only=True).notes]
    return replace(report, settings=settings, failures=[*lost, *failures], notes=notes, partial=missing)


def _shared(truth: Annotations, skeleton: Skeleton) -> tuple[Annotations, list[str]]:
    """The truth with those of its joints that a model has, in the file's order; a note if it has not all."""
    joints = [joint for joint in truth.skeleton.joints if joint in skeleton.joints]
    if not joints:
        raise InputError(
            f"{truth.path}: its joints ({truth.skeleton.name}) and the model's ({skeleton.name}) have "
            "no name in common; give a model of these joints"
        )
    return truth.to_skeleton(truth.skeleton.select(joints)), _of_part(truth, joints, "the model has")


def _of_part(truth: Annotations, joints: Sequence[str], who_has: str) -> list[str]:
    """A note where not all joints of the truth are measured."""
    missing = [joint for joint in truth.skeleton.joints if joint not in joints]
    if not missing:
        return []
    return [
        f"{truth.path}: measured on the {len(joints)} of its {truth.skeleton.num_joints} joints that "
        f"{who_has}, not on {', '.join(missing)}: numbers of other joints cannot be compared with these"
    ]


def evaluate_mean_pose(
    train: Annotations | str | Path, annotations: Annotations | str | Path, skeleton: Skeleton | None = None
) -> Report:
    """Measure the mean pose of a training set on the true boxes of another: the least a model must beat.

    ``skeleton`` says whose joints to take from both; by default those of ``annotations``, the truth.

    Raises:
        InputError: a file that cannot be used, or no joint in common.
    """
    truth = annotations_in(annotations, skeleton)
    persons = truth.labelled()
    mean_pose = learn_mean_pose(annotations_in(train, truth.skeleton))
    report = score_results(truth, persons, predict_mean_pose(mean_pose, persons))
    return replace(report, failures=truth.dropped, notes=truth.doubts)


def evaluate_results(
    results: Sequence[Any],
    annotations: Annotations | str | Path,
    skeleton: Skeleton | None = None,
    source: str = "results",
) -> Report:
    """Measure results of whatever origin as they are: nothing is rescored, nothing suppressed.

    Arguments and errors as of :func:`~diffusionpose.evaluation.metrics.match_results`.
    """
    whole = read_truth(annotations, skeleton)
    truth, rows = match_results(whole, results, skeleton, source)
    labelled = truth.labelled()
    matched = rows_in_boxes(labelled, rows)
    joints = None if matched is None else count_pose_joints(labelled, matched)
    counts = {"images": len(truth.images), "poses": len(rows)}
    report = _report(truth, rows, f"those of {source}", counts, joints)
    part = _of_part(whole, truth.skeleton.joints, f"{source} has")
    return replace(report, failures=truth.dropped, notes=[*part, *truth.doubts], partial=bool(part))


def score_results(
    truth: Annotations,
    persons: Annotations,
    rows: Sequence[Row | None],
    input_size: tuple[int, int] = INPUT_SIZE,
    unbiased: bool = False,
    detected: bool = False,
) -> Report:
    """Metrics of poses, of whatever origin.

    Args:
        truth: all annotated persons, also unlabelled ones and crowds.
        persons, rows: those whose poses were sought, ``truth.labelled()`` or the detected boxes; and for each
            its result with the score of its box, or None if there is none.
        input_size, unbiased: of the crops, whose area OKS-NMS takes for the person's, as HRNet does.
        detected: the boxes are a detector's, so that it is not known who is who.
    """
    with_pose = [index for index, row in enumerate(rows) if row is not None]
    results = rescore([row for row in rows if row is not None])
    crops = Crop.from_boxes(persons.boxes[with_pose], input_size, unbiased=unbiased)
    areas = crops.scale.prod(axis=1).tolist()
    results = oks_nms(results, truth.skeleton.sigmas, areas=areas)
    known = not detected and has_torso(truth.skeleton)
    joints = count_pose_joints(persons, rows) if known else None
    counts = {
        "images": len(truth.images),
        "boxes": len(persons.persons),
        "poses": len(results),
        "boxes without a pose": len(rows) - len(with_pose),
    }
    report = _report(truth, results, persons.box_source, counts, joints)
    confidence = None if detected else measure_confidence(persons, rows)
    metrics = {**report.metrics, **(confidence.metrics if confidence else {})}
    return replace(report, metrics=metrics, confidence=confidence)


def _report(
    truth: Annotations, rows: list[Row], boxes: str, counts: dict[str, int], joints: JointCounts | None
) -> Report:
    metrics = average_precision(truth, rows)
    if joints is not None:
        metrics |= {"PCK": joints.value(), "PCK_limbs": joints.value(joints.skeleton.limb_joints)}
    if set(truth.skeleton.joints) == set(AIC.joints):
        metrics["AIC_score"] = aic_score(truth, rows)
    return Report(metrics, rows, boxes, truth.skeleton, counts=counts, joints=joints)
