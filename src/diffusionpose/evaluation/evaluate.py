"""A model, the mean pose, or results of any origin measured on a data set, on true or detected boxes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from diffusionpose.data.annotations import Annotations, Person, annotations_in, read_boxes
from diffusionpose.data.pictures import Pictures, find_pictures
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
    pick_joints,
    rescore,
)
from diffusionpose.geometry import DECODE_METHODS, Crop, HeatmapCodec, Start
from diffusionpose.poses import Confidence, Pose
from diffusionpose.runtime.estimator import as_batch, keypoints_in_looks, looks
from diffusionpose.runtime.networks import Network, Steps, TorchNetwork
from diffusionpose.skeletons import AIC, Skeleton

if TYPE_CHECKING:
    from diffusionpose.models.pose_model import PoseModel

INPUT_SIZE = (192, 256)  # of the crop whose area OKS-NMS goes by, for poses without a network
AHEAD = 64  # pictures
Cut = tuple[
    int, list[np.ndarray] | str
]  # index of a person; its crops (h, w, 3), one a look, or why there is none


@dataclass(frozen=True)
class Inference:
    """How poses are made and how the work is done; only the first four change the poses.

    Raises:
        InputError: an unknown decoder, or a number below its least.
    """

    decode: str = "dark"  # one of DECODE_METHODS
    flip: bool = True  # average with the mirrored picture
    steps: Steps | None = None  # of the diffusion; None for the model's own number
    rotation_test: bool = False  # look at unsure persons turned as well
    batch_size: int = 32  # persons per pass through the network
    workers: int = 0  # threads that read pictures ahead
    device: str | None = None  # a PoseModel is put there; None leaves it where it is
    progress: Callable[[int, int], None] | None = None  # called with persons done and in all

    def __post_init__(self) -> None:
        if self.decode not in DECODE_METHODS:
            raise InputError(f"decode: {self.decode!r} is not one of {', '.join(DECODE_METHODS)}")
        for name, least in {"steps": 0, "batch_size": 1, "workers": 0}.items():
            number = getattr(self, name)
            if number not in (None, "auto") and number < least:
                raise InputError(f"{name}: {number} must be {least} or more")


def predict_persons(
    model: Network | PoseModel,
    persons: Annotations,
    images: str | Path,
    inference: Inference,
    starts: np.ndarray | None = None,
) -> tuple[list[Row | None], list[str]]:
    """For each person of a data set a row of :func:`result_row` or None, and a message for every failure.

    A picture that is missing or cannot be read, and heatmaps that are not finite, cost the persons
    concerned; the rest is done. ``starts`` (n, J, 3) are poses to refine, one of each person: x, y in image
    pixels, and 0 for a joint that is not given.

    Raises:
        InputError: none of the pictures of the folder ``images`` is there.
    """
    network = model if isinstance(model, Network) else TorchNetwork(model, inference.device)
    found = find_pictures(persons, images, persons_only=True)
    if persons.persons and len(found.missing) == len(found.paths):
        raise InputError(f"{images}: none of the pictures of {persons.path} is there; give their folder")
    failures = [f"{Path(images) / name}: no such file" for name in found.missing.values()]
    rows: list[Row | None] = [None] * len(persons.persons)
    there = [i for i, person in enumerate(persons.persons) if person.image_id not in found.missing]
    if network.sees_neighbours:
        there.sort(key=lambda index: str(persons.persons[index].image_id))
    # persons of one picture that follow each other share its reading
    groups = [list(group) for _, group in groupby(there, key=lambda index: persons.persons[index].image_id)]
    cut = partial(_cut, network.codec, inference.rotation_test, persons, found)
    done = len(rows) - len(there)
    for batch in _batches(cut, groups, inference, network.sees_neighbours):
        good = [(index, crop) for index, crop in batch if not isinstance(crop, str)]
        failures += [crop for _, crop in batch if isinstance(crop, str)]
        for index, pose in _poses(network, persons, good, inference, starts):
            person = persons.persons[index]
            if isinstance(pose, str):
                failures.append(f"{found.paths[person.image_id]}: {pose}")
            else:
                rows[index] = result_row(persons, person, network.skeleton, *pose)
        done += len(batch)
        if inference.progress is not None:
            inference.progress(done, len(rows))
    # the persons of one picture fail alike
    return rows, list(dict.fromkeys(failures))


def _batches(
    cut: Callable[[list[int]], list[Cut]], groups: list[list[int]], inference: Inference, whole: bool
) -> Iterator[list[Cut]]:
    """Crops of persons, ``batch_size`` at a time, or more to have pictures ``whole``; threads cut ahead."""
    with ThreadPoolExecutor(max(inference.workers, 1)) as pool:
        parts = (groups[start : start + AHEAD] for start in range(0, len(groups), AHEAD))
        pictures = (crops for part in parts for crops in pool.map(cut, part))
        batch: list[Cut] = []
        for group in pictures if whole else ([crop] for crops in pictures for crop in crops):
            batch += group
            if len(batch) >= inference.batch_size:
                yield batch
                batch = []
        if batch:
            yield batch


def _cut(
    codec: HeatmapCodec,
    rotation_test: bool,
    persons: Annotations,
    pictures: Pictures,
    group: Sequence[int],
) -> list[Cut]:
    """The crops of each person of a picture."""
    record = persons.images[persons.persons[group[0]].image_id]
    try:
        image = pictures.read(record)
    except InputError as error:
        return [(index, str(error)) for index in group]
    boxes = np.stack([persons.persons[index].box for index in group])
    crops = looks(codec, boxes, rotation_test)
    return [(index, [look.cut(image, place) for look in crops]) for place, index in enumerate(group)]


def _poses(
    network: Network,
    persons: Annotations,
    crops: Sequence[tuple[int, Any]],
    inference: Inference,
    starts: np.ndarray | None,
) -> Iterator[tuple[int, tuple[np.ndarray, np.ndarray, Confidence | None] | str]]:
    """Keypoints, scores and confidence of each crop of a batch, or why there are none."""
    if not crops:
        return
    indices = [index for index, _ in crops]
    boxes = np.stack([persons.persons[index].box for index in indices])
    pictures = [persons.persons[index].image_id for index in indices]
    records = [persons.images[picture] for picture in pictures]
    sizes = np.array([(record.width or np.inf, record.height or np.inf) for record in records])
    places = looks(network.codec, boxes, inference.rotation_test)
    images = [as_batch(each) for each in zip(*(cut for _, cut in crops), strict=True)]
    start = None if starts is None else Start(starts[indices, :, :2], starts[indices, :, 2])
    options: dict[str, Any] = {"decode": inference.decode, "flip": inference.flip, "steps": inference.steps}
    try:
        found = keypoints_in_looks(
            network, images, places, boxes, sizes, pictures=pictures, start=start, **options
        )
    except InputError as error:
        if len(indices) == 1:
            yield indices[0], str(error)
        else:  # a number that is not finite in the heatmaps of at least one person: find out whose
            several = len(set(pictures)) > 1
            for _, part in groupby(zip(pictures if several else indices, crops, strict=True), lambda x: x[0]):
                yield from _poses(network, persons, [crop for _, crop in part], inference, starts)
        return
    yield from zip(indices, zip(*found, strict=True), strict=True)


def result_row(
    annotations: Annotations,
    person: Person,
    skeleton: Skeleton,
    keypoints: np.ndarray,
    scores: np.ndarray,
    confidence: Confidence | None = None,
) -> Row:
    """A pose as an entry of COCO results, with ``file_name`` and ``box`` (x0, y0, x1, y1); not rounded.

    There is no ``bbox``: evaluators would take the area of an unmatched pose from it, and AP_M and AP_L would
    differ from those of COCO results.

    Args:
        annotations: name the picture.
        person: whose box.
        skeleton: of the pose.
        keypoints: (J, 2) image pixels, finite; else InputError.
        scores: (J,).
        confidence: of a calibrated model.
    """
    pose = Pose(skeleton, keypoints, scores, person.box, person.score)
    triplets = np.column_stack([pose.keypoints, pose.scores]).astype(float)
    return {
        "image_id": person.image_id,
        "category_id": 1,
        "keypoints": triplets.ravel().tolist(),
        "score": float(pose.score),
        "box": pose.rounded_box,
        "file_name": annotations.images[person.image_id].file_name,
        **(confidence.to_dict() if confidence else {}),
    }


# The mean pose: the same keypoints in every box, what a model must at least beat


def learn_mean_pose(annotations: Annotations) -> np.ndarray:
    """(J, 2) mean place of every labelled joint in its box: x / width, y / height from the upper left corner.

    A joint that is never labelled stands in the middle. InputError where no person has a labelled joint.
    """
    persons = annotations.labelled().persons
    if not persons:
        raise InputError(f"{annotations.path}: no person with a labelled joint to learn a mean pose from")
    boxes = np.stack([person.box for person in persons]).astype(np.float64)[:, None]
    keypoints = np.stack([person.keypoints for person in persons])
    hidden = np.stack([person.visible for person in persons]) == 0
    relative = (keypoints - boxes[..., :2]) / (boxes[..., 2:] - boxes[..., :2])
    mean: np.ndarray = np.ma.array(relative, mask=np.dstack([hidden, hidden])).mean(axis=0).filled(0.5)
    return mean


def predict_mean_pose(mean_pose: np.ndarray, annotations: Annotations) -> list[Row]:
    """The mean pose of :func:`learn_mean_pose` in the box of every person; keypoint scores are 1."""
    rows = []
    for person in annotations.persons:
        keypoints = person.box[:2] + mean_pose * (person.box[2:] - person.box[:2])
        rows.append(result_row(annotations, person, annotations.skeleton, keypoints, np.ones(len(keypoints))))
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
        options: decode, flip, steps and the others of :class:`Inference`.

    Raises:
        InputError: a file that cannot be used, no joint in common, or no picture to be found. What
            concerns single pictures goes to ``Report.failures`` instead, and the rest is done.
    """
    inference = Inference(**options)
    truth, notes = _shared(annotations_in(annotations, skeleton), model.skeleton)
    missing = bool(notes)
    if not truth.labelled().persons:
        raise InputError(f"{truth.path}: no person with a labelled joint to measure poses on")
    if isinstance(boxes, (str, Path)):
        boxes = read_boxes(boxes, truth)
    persons = truth.labelled() if boxes is None else boxes
    network = model if isinstance(model, Network) else TorchNetwork(model, inference.device)
    rows, failures = predict_persons(network, persons, images, inference)
    joints = truth.skeleton.joints
    picked = [row and pick_joints(row, network.skeleton.joints, joints) for row in rows]
    codec = network.codec
    report = score_results(truth, persons, picked, codec.input_size, codec.unbiased, boxes is not None)
    settings = {"decode": inference.decode, "flip": inference.flip, "steps": inference.steps}
    settings |= {"rotation_test": True} if inference.rotation_test else {}
    lost = truth.dropped if boxes is None else [*truth.dropped, *persons.dropped]
    notes += [*truth.doubts, *find_pictures(persons, images, persons_only=True).notes]
    return replace(report, settings=settings, failures=[*lost, *failures], notes=notes, partial=missing)


def _shared(truth: Annotations, skeleton: Skeleton) -> tuple[Annotations, list[str]]:
    """The truth with those of its joints that a model has, in the file's order; a note if it has not all."""
    joints = [joint for joint in truth.skeleton.joints if joint in skeleton.joints]
    missing = [joint for joint in truth.skeleton.joints if joint not in joints]
    if not missing:
        return truth, []
    if not joints:
        raise InputError(
            f"{truth.path}: its joints ({truth.skeleton.name}) and the model's ({skeleton.name}) have "
            "no name in common; give a model of these joints"
        )
    note = (
        f"{truth.path}: measured on the {len(joints)} of its {truth.skeleton.num_joints} joints that the "
        f"model has, not on {', '.join(missing)}: numbers of other joints cannot be compared with these"
    )
    return truth.to_skeleton(truth.skeleton.select(joints)), [note]


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
    truth, rows = match_results(annotations, results, skeleton, source)
    labelled = truth.labelled()
    matched = rows_in_boxes(labelled, rows)
    joints = None if matched is None else count_pose_joints(labelled, matched)
    counts = {"images": len(truth.images), "poses": len(rows)}
    report = _report(truth, rows, f"those of {source}", counts, joints)
    return replace(report, failures=truth.dropped, notes=truth.doubts)


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
    boxes = np.reshape([persons.persons[index].box for index in with_pose], (-1, 4)).astype(np.float32)
    areas = Crop.from_boxes(boxes, input_size, unbiased=unbiased).scale.prod(axis=1).tolist()
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
