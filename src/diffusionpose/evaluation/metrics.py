"""Scores and suppression of persons found in detected boxes, as HRNet does it.

Two boxes on one person give two nearly equal poses. The score of a pose is first made of the box's
score and its keypoints' scores (:func:`rescore`), then near-copies of a better pose are dropped by
object keypoint similarity (:func:`oks_nms`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from diffusionpose.data.annotations import Annotations, Person, annotations_in
from diffusionpose.errors import InputError
from diffusionpose.poses import VISIBLE_SCORE, pose_score
from diffusionpose.runtime.json_files import entries_with, read_json
from diffusionpose.skeletons import AIC, CROWDPOSE, Skeleton

SAME_PERSON = 0.9  # HRNet's oks_thre

Row = dict[str, Any]


def rescore(results: Sequence[Mapping[str, Any]], threshold: float = VISIBLE_SCORE) -> list[Row]:
    """Results whose ``score`` (so far the box's) is multiplied by the mean score of their sure keypoints.

    Args:
        results: COCO keypoint results; ``keypoints`` flat x, y, score triplets.
        threshold: only keypoints with a score above it enter the mean; a pose without any scores 0.

    Returns:
        Copies of the results, in the same order.
    """
    rows = []
    for result in results:
        scores = np.asarray(result["keypoints"], dtype=np.float64)[2::3]
        rows.append({**result, "score": pose_score(result["score"], scores, threshold)})
    return rows


def pairwise_oks(keypoints: np.ndarray, areas: np.ndarray, sigmas: Sequence[float]) -> np.ndarray:
    """Similarity of every pose with every other, the area of a pair being the mean of the two.

    Args:
        keypoints: (n, J, 2), image pixels.
        areas: (n,), square pixels.
        sigmas: (J,), COCO convention.

    Returns:
        (n, n), 1 where two poses are equal. All joints count, whatever their scores.
    """
    distance = ((keypoints[:, None] - keypoints[None]) ** 2).sum(-1)
    area = (areas[:, None] + areas[None]) / 2 + np.spacing(1)
    variance = (2 * np.asarray(sigmas)) ** 2
    similarity: np.ndarray = np.exp(-distance / (2 * variance * area[..., None])).mean(-1)
    return similarity


def oks_nms(
    results: Sequence[Mapping[str, Any]],
    sigmas: Sequence[float],
    threshold: float = SAME_PERSON,
    areas: Sequence[float] | None = None,
) -> list[Row]:
    """Results without the poses that repeat a better-scored pose of the same image.

    Args:
        results: COCO keypoint results with ``box`` (x0, y0, x1, y1) unless ``areas`` is given.
        sigmas: (J,), the skeleton's.
        threshold: a pose with OKS above it to a kept pose of higher score is dropped.
        areas: one area for each result. HRNet takes that of the crop (the box padded and brought to
            the input's aspect); without it the area of ``box`` is taken.

    Returns:
        Copies of the kept results, in the order given.
    """
    if areas is None:
        areas = [(x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in (result["box"] for result in results)]
    of_image: dict[Any, list[int]] = defaultdict(list)
    for index, result in enumerate(results):
        of_image[result["image_id"]].append(index)
    kept: list[int] = []
    for indices in of_image.values():
        keypoints = np.stack([_coordinates(results[index]) for index in indices])
        similarity = pairwise_oks(keypoints, np.asarray([areas[index] for index in indices]), sigmas)
        scores = np.asarray([results[index]["score"] for index in indices])
        kept += [indices[position] for position in _suppress(similarity, scores, threshold)]
    return [dict(results[index]) for index in sorted(kept)]


def _coordinates(result: Mapping[str, Any]) -> np.ndarray:
    return np.asarray(result["keypoints"], dtype=np.float64).reshape(-1, 3)[:, :2]


def _suppress(similarity: np.ndarray, scores: np.ndarray, threshold: float) -> list[int]:
    """Greedy choice from the best score down; (n, n) similarity, (n,) scores."""
    kept: list[int] = []
    for candidate in np.argsort(-scores, kind="stable"):
        if not kept or similarity[candidate, kept].max() <= threshold:
            kept.append(int(candidate))
    return kept


# OKS AP and AR by faster-coco-eval, for COCO, CrowdPose and skeletons of your own

COCO_METRICS = ("AP", "AP50", "AP75", "AP_M", "AP_L", "AR", "AR50", "AR75", "AR_M", "AR_L")
CROWD_METRICS = ("AP_easy", "AP_medium", "AP_hard")
# Upper ends of the easy and of the medium range of crowdIndex (Li et al. 2019, section 5.1).
CROWD_BOUNDS = (0.1, 0.8)
# What crowdposetools does instead: area = 0.53 x box, and easy up to a crowdIndex of 0.2.
CROWDPOSETOOLS_AREA = 0.53
CROWDPOSETOOLS_BOUNDS = (0.2, 0.8)

Metrics = dict[str, float | None]


def coco_metrics(
    annotations: Annotations | str | Path,
    results: Sequence[Mapping[str, Any]],
    skeleton: Skeleton | None = None,
) -> Metrics:
    """AP and AR of COCO keypoint results.

    Equals pycocotools: OKS thresholds 0.50, 0.55 .. 0.95, at most 20 poses per image, area ranges of
    COCO (medium 32^2 to 96^2, large above). Crowd regions and persons without labelled joints neither
    count nor cost. As in CrowdPose's files a person counts as labelled only by a limb joint if the
    skeleton is CrowdPose's (its ``num_keypoints`` leaves out head and neck).

    OKS takes the area that the annotations give, or width x height of the box where they give none.
    For annotations with a crowd index, AP_easy, AP_medium and AP_hard are the AP over the images with
    an index in [0, 0.1), [0.1, 0.8) and from 0.8 on, as in the CrowdPose paper.
    :func:`crowdposetools_metrics` gives the numbers of the official tool, which differ.

    Args:
        annotations: all persons, also unlabelled ones, or the file with them.
        results: ``image_id``, ``keypoints`` (flat x, y, score triplets) and ``score`` for each pose.
        skeleton: joints and sigmas of the results; the annotations' own by default. Annotations of
            other joints are matched to it by name.

    Returns:
        AP, AP50, AP75, AP_M, AP_L, AR, AR50, AR75, AR_M, AR_L and for crowd-indexed annotations
        AP_easy, AP_medium, AP_hard. None where no person falls into the range; 0 without results.

    Raises:
        InputError: a result for an image that the annotations do not have, with another number of
            joints, without a key, or with a number that is not finite.
    """
    return _metrics(annotations_in(annotations, skeleton), results, CROWD_BOUNDS, area=None)


def ap_by_threshold(
    annotations: Annotations | str | Path,
    results: Sequence[Mapping[str, Any]],
    skeleton: Skeleton | None = None,
) -> dict[float, float]:
    """AP at each of COCO's OKS thresholds, 0.50, 0.55 .. 0.95; AP is their mean.

    Arguments and errors as :func:`coco_metrics`. Empty where no person counts.
    """
    annotations = annotations_in(annotations, skeleton)
    numbers = _image_numbers(annotations)
    evaluation = _evaluation(annotations, _checked(annotations, results, numbers), numbers, area=None)
    if _run(evaluation, list(numbers.values()))[0] is None:
        return {}
    precision = evaluation.eval["precision"][:, :, 0, 0, -1]  # (thresholds, recalls), all sizes of person
    thresholds = evaluation.params.iouThrs
    return {round(float(at), 2): float(mean) for at, mean in zip(thresholds, precision.mean(1), strict=True)}


def crowdposetools_metrics(
    annotations: Annotations | str | Path, results: Sequence[Mapping[str, Any]]
) -> Metrics:
    """AP as CrowdPose's own tool computes it, for comparison with published CrowdPose numbers.

    Two things differ from :func:`coco_metrics`: the area of a person in OKS is 0.53 x width x height
    of the box, and easy, medium, hard are images with a crowdIndex in [0, 0.2), [0.2, 0.8), from 0.8
    on (crowdposetools/cocoeval.py, ``computeOks`` and ``get_type_result(first=0.2, second=0.8)``).
    The tool also rounds the latter three to four digits; here nothing is rounded.

    Arguments, returned keys and errors as :func:`coco_metrics`.
    """
    return _metrics(annotations_in(annotations, None), results, CROWDPOSETOOLS_BOUNDS, CROWDPOSETOOLS_AREA)


def _metrics(
    annotations: Annotations,
    results: Sequence[Mapping[str, Any]],
    bounds: tuple[float, float],
    area: float | None,
) -> Metrics:
    numbers = _image_numbers(annotations)
    evaluation = _evaluation(annotations, _checked(annotations, results, numbers), numbers, area)
    metrics = dict(zip(COCO_METRICS, _run(evaluation, list(numbers.values())), strict=True))
    crowd = {number: annotations.images[image_id].crowd_index for image_id, number in numbers.items()}
    if any(index is not None for index in crowd.values()):
        for name, low, high in zip(CROWD_METRICS, (0.0, *bounds), (*bounds, np.inf), strict=True):
            chosen = [number for number, index in crowd.items() if index is not None and low <= index < high]
            metrics[name] = _run(evaluation, chosen)[0]
    return metrics


def _image_numbers(annotations: Annotations) -> dict[Any, int]:
    """Image id -> 1, 2, ..: the evaluator wants whole numbers, AI Challenger's ids are text.

    In the order of the ids, since poses of equal score are ranked by their image.
    """
    ids = list(annotations.images)
    ordered = sorted(ids) if all(isinstance(one, int) for one in ids) else sorted(ids, key=str)
    return {image_id: number for number, image_id in enumerate(ordered, start=1)}


def _checked(
    annotations: Annotations, results: Sequence[Mapping[str, Any]], numbers: Mapping[Any, int]
) -> list[dict[str, Any]]:
    """Results as the evaluator takes them.

    Only the keys it needs: from a ``bbox`` it would take the area that decides whether an unmatched
    pose falls into the range of AP_M or AP_L, where COCO takes the extent of the keypoints.
    """
    joints = annotations.skeleton.num_joints
    rows = []
    for position, result in enumerate(results):
        missing = {"image_id", "keypoints", "score"} - set(result)
        if missing:
            raise InputError(f"results: entry {position} has no {', '.join(sorted(missing))}")
        if result["image_id"] not in numbers:
            raise InputError(
                f"results: entry {position} is of image {result['image_id']!r}, which {annotations.path} "
                "does not list; give the annotations that the results were made for"
            )
        if len(result["keypoints"]) != 3 * joints:
            raise InputError(
                f"results: entry {position} has {len(result['keypoints'])} numbers in 'keypoints', "
                f"skeleton {annotations.skeleton.name!r} needs {joints} x, y, score triplets"
            )
        keypoints = np.asarray(result["keypoints"], dtype=np.float64)
        if not (np.isfinite(keypoints).all() and np.isfinite(result["score"])):
            raise InputError(f"results: entry {position} holds a number that is not finite")
        rows.append(
            {
                "image_id": numbers[result["image_id"]],
                "category_id": 1,
                "keypoints": keypoints.tolist(),
                "score": float(result["score"]),
            }
        )
    return rows


def _evaluation(
    annotations: Annotations, rows: list[dict[str, Any]], numbers: Mapping[Any, int], area: float | None
) -> Any:
    """A faster-coco-eval evaluation of ``rows``; persons are numbered from 1, as it demands."""
    from faster_coco_eval import COCO, COCOeval_faster

    counts = _counting_joints(annotations.skeleton)
    truth = COCO(
        {
            "images": [{"id": number} for number in numbers.values()],
            "annotations": [
                {"id": number, "image_id": numbers[person.image_id], **_coco_person(person, counts, area)}
                for number, person in enumerate(annotations.persons, start=1)
            ],
            "categories": [{"id": 1, "name": "person"}],
        }
    )
    evaluation = COCOeval_faster(
        truth, truth.loadRes(rows), iouType="keypoints", kpt_oks_sigmas=list(annotations.skeleton.sigmas)
    )
    evaluation.params.catIds = [1]
    return evaluation


def _counting_joints(skeleton: Skeleton) -> list[int]:
    """Joints of which one must be labelled for a person to count; see :func:`coco_metrics`."""
    ignored = {"head", "neck"} if skeleton.joints == CROWDPOSE.joints else set()
    return [index for index, joint in enumerate(skeleton.joints) if joint not in ignored]


def _coco_person(person: Person, counts: list[int], area: float | None) -> dict[str, Any]:
    x0, y0, x1, y1 = person.box.tolist()
    keypoints = np.column_stack([person.keypoints, person.visible]).astype(np.float64)
    return {
        "category_id": 1,
        "iscrowd": int(person.is_crowd),
        "bbox": [x0, y0, x1 - x0, y1 - y0],
        "area": float(person.area) if area is None else area * (x1 - x0) * (y1 - y0),
        "keypoints": keypoints.ravel().tolist(),
        "num_keypoints": int((person.visible[counts] > 0).sum()),
    }


def _run(evaluation: Any, image_numbers: list[int]) -> list[float | None]:
    """The ten numbers of COCO over some images, in the order of ``COCO_METRICS``."""
    evaluation.params.imgIds = image_numbers
    evaluation.run()
    return [None if value < 0 else float(value) for value in evaluation.all_stats]


# PCK: the share of labelled joints predicted within a part of the person's torso length

TORSO_DIAGONALS = (("left_shoulder", "right_hip"), ("right_shoulder", "left_hip"))
LIMB_PARTS = ("shoulder", "elbow", "wrist", "hip", "knee", "ankle")
LIMB_JOINTS = tuple(f"{side}_{part}" for side in ("left", "right") for part in LIMB_PARTS)


@dataclass(frozen=True, eq=False)
class JointCounts:
    """Which joints of which persons count, and which of them are right.

    Attributes:
        skeleton: names the joints.
        correct: (n, J) bool; right and counted.
        counted: (n, J) bool; labelled, on a person whose torso is known.
    """

    skeleton: Skeleton
    correct: np.ndarray
    counted: np.ndarray

    @property
    def persons(self) -> int:
        """How many persons count: those with a torso length."""
        return int(self.counted.any(1).sum())

    def value(self, joints: Sequence[int] | None = None) -> float | None:
        """Share of right joints among the counted ones of all persons; None where none counts."""
        chosen = slice(None) if joints is None else list(joints)
        total = int(self.counted[:, chosen].sum())
        return float(self.correct[:, chosen].sum() / total) if total else None

    @property
    def limbs(self) -> tuple[int, ...]:
        """Indices of the 12 joints from shoulders to wrists and hips to ankles."""
        return limb_joints(self.skeleton)

    def per_joint(self) -> dict[str, float | None]:
        """PCK of every joint by its name; None for a joint never labelled."""
        return {joint: self.value([index]) for index, joint in enumerate(self.skeleton.joints)}

    def summary(self) -> dict[str, Any]:
        """What :func:`pck` returns."""
        return {
            "PCK": self.value(),
            "PCK_limbs": self.value(self.limbs),
            "per_joint": self.per_joint(),
            "persons": self.persons,
        }


def has_torso(skeleton: Skeleton) -> bool:
    """Whether the skeleton has the shoulders and hips that PCK measures the torso by."""
    return all(joint in skeleton.joints for diagonal in TORSO_DIAGONALS for joint in diagonal)


def limb_joints(skeleton: Skeleton) -> tuple[int, ...]:
    """Indices of those of the 12 limb joints that the skeleton has."""
    return tuple(index for index, joint in enumerate(skeleton.joints) if joint in LIMB_JOINTS)


def torso_lengths(truth: np.ndarray, visible: np.ndarray, skeleton: Skeleton) -> np.ndarray:
    """(n,) the longer labelled diagonal of left shoulder - right hip and right shoulder - left hip.

    Args:
        truth: (n, J, 2) true keypoints.
        visible: (n, J), above 0 where labelled.

    Returns:
        Lengths in the unit of ``truth``; NaN for a person without a labelled diagonal.
    """
    lengths = []
    for shoulder, hip in TORSO_DIAGONALS:
        a, b = skeleton.index(shoulder), skeleton.index(hip)
        length = np.linalg.norm(truth[:, a] - truth[:, b], axis=-1)
        labelled = (visible[:, a] > 0) & (visible[:, b] > 0)
        lengths.append(np.where(labelled, length, np.nan))
    return np.fmax(*lengths)


def count_joints(
    keypoints: np.ndarray,
    truth: np.ndarray,
    visible: np.ndarray,
    skeleton: Skeleton,
    threshold: float = 0.2,
) -> JointCounts:
    """Which joints of n persons PCK counts and finds right; see :func:`pck` for arguments and errors."""
    joints = skeleton.num_joints
    shapes = (np.shape(keypoints), np.shape(truth), (*np.shape(visible), 2))
    if len(set(shapes)) != 1 or shapes[0][1:] != (joints, 2):
        raise InputError(f"PCK needs (n, {joints}, 2), (n, {joints}, 2) and (n, {joints}); got {shapes}")
    truth = np.asarray(truth, dtype=np.float64)
    torso = torso_lengths(truth, np.asarray(visible), skeleton)[:, None]
    counted = (np.asarray(visible) > 0) & (torso > 0)
    distance = np.linalg.norm(np.asarray(keypoints, dtype=np.float64) - truth, axis=-1)
    return JointCounts(skeleton, counted & (distance <= threshold * torso), counted)


def count_pose_joints(
    persons: Annotations, rows: Sequence[Mapping[str, Any] | None], threshold: float = 0.2
) -> JointCounts:
    """The same of COCO results, one for each of ``persons``; without a pose all joints are wrong."""
    joints = persons.skeleton.num_joints
    nowhere = np.full((joints, 2), np.nan)
    keypoints = [nowhere if row is None else np.reshape(row["keypoints"], (joints, 3))[:, :2] for row in rows]
    return count_joints(
        np.reshape(keypoints, (-1, joints, 2)),
        np.reshape([person.keypoints for person in persons.persons], (-1, joints, 2)),
        np.reshape([person.visible for person in persons.persons], (-1, joints)),
        persons.skeleton,
        threshold,
    )


def pck(
    keypoints: np.ndarray,
    truth: np.ndarray,
    visible: np.ndarray,
    skeleton: Skeleton,
    threshold: float = 0.2,
) -> dict[str, Any]:
    """PCK of n persons: the share of joints at a distance of at most ``threshold`` times the torso.

    All joints of all persons are pooled. Persons without a labelled torso diagonal (or one of length
    0) are left out; a NaN prediction (no pose was found) counts as wrong.

    Args:
        keypoints: (n, J, 2) predicted.
        truth: (n, J, 2) true keypoints, same unit.
        visible: (n, J), above 0 where a joint is labelled.
        skeleton: J joints, among them shoulders and hips.
        threshold: share of the torso length.

    Returns:
        ``PCK`` over all labelled joints, ``PCK_limbs`` over the 12 limb joints, ``per_joint`` by name
        (None where nothing counts) and ``persons``, the number of persons counted.

    Raises:
        InputError: shapes that do not agree, or a skeleton without shoulders and hips.
    """
    return count_joints(keypoints, truth, visible, skeleton, threshold).summary()


# The score of the AI Challenger 2017 keypoint contest, which is not COCO's AP

THRESHOLDS = np.linspace(0.5, 0.95, 10)


def aic_score(annotations: Annotations, results: Sequence[Mapping[str, Any]]) -> float:
    """The official score: how many true persons have a prediction close to them.

    The OKS of a true person and a prediction is the mean, over the joints that are in the picture
    and not hidden (flag 1 in the native file, ``visible`` 2 here), of exp(-d^2 / (2 area (2 sigma)^2))
    with the area of the box plus 1. Every true person takes its best prediction; predictions are not
    used up and their scores play no part. The score is the mean over the thresholds 0.50, 0.55 .. 0.95
    of the persons with an OKS above it, divided by the sum over images of the larger of true and
    predicted persons: superfluous predictions cost. An image without predictions counts its persons
    as missed; a prediction for an image without annotations does not count.

    Args:
        annotations: joints of the AI Challenger skeleton, native or COCO form.
        results: ``image_id`` and ``keypoints`` (flat x, y, anything triplets) for each person.

    Returns:
        Score in [0, 1]; 0 where there are neither persons nor predictions.

    Raises:
        InputError: another skeleton, or a result without 14 keypoints.
    """
    if annotations.skeleton.joints != AIC.joints:
        raise InputError(
            f"{annotations.path}: the AI Challenger score needs its {AIC.num_joints} joints, "
            f"these annotations have those of {annotations.skeleton.name!r}"
        )
    found = _keypoints_by_image(results)
    persons: dict[Any, list[Person]] = {image_id: [] for image_id in annotations.images}
    for person in annotations.persons:
        persons[person.image_id].append(person)
    total = sum(max(len(true), len(found[image_id])) for image_id, true in persons.items())
    both = [(true, found[image_id]) for image_id, true in persons.items() if true and found[image_id]]
    best = [_oks(true, np.stack(predicted)).max(1) for true, predicted in both]
    if not best:
        return 0.0
    above = np.concatenate(best)[:, None] > THRESHOLDS
    return float(above.sum(0).mean() / total)


def _keypoints_by_image(results: Sequence[Mapping[str, Any]]) -> defaultdict[Any, list[np.ndarray]]:
    """(14, 2) of every predicted person."""
    found: defaultdict[Any, list[np.ndarray]] = defaultdict(list)
    for result in results:
        found[result["image_id"]].append(_triplets(result["keypoints"], "the results")[:, :2])
    return found


def read_aic_predictions(path: str | Path) -> list[dict[str, Any]]:
    """The persons of a native AI Challenger predictions file as COCO keypoint results.

    The file is a list of ``{"image_id": .., "keypoint_annotations": {"human1": [x, y, flag, ..]}}``.
    It states no scores, so every person has score 1.

    Raises:
        InputError: the file cannot be read, is not JSON, or an entry is not of this form.
    """
    keys = ("image_id", "keypoint_annotations")
    return [
        {
            "image_id": record["image_id"],
            "category_id": 1,
            "keypoints": _triplets(numbers, f"{path}: image {record['image_id']}, {human}").ravel().tolist(),
            "score": 1.0,
        }
        for record in entries_with(Path(path), "predictions", read_json(path), keys)
        for human, numbers in record["keypoint_annotations"].items()
    ]


def _triplets(numbers: Any, where: str) -> np.ndarray:
    try:
        keypoints = np.asarray(numbers, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{where}: 'keypoints' holds something that is no number ({error})") from error
    if keypoints.shape != (3 * AIC.num_joints,) or not np.isfinite(keypoints).all():
        raise InputError(
            f"{where}: {keypoints.size} numbers for a person, or one that is not finite; "
            f"AI Challenger needs {AIC.num_joints} finite x, y, flag triplets"
        )
    return keypoints.reshape(-1, 3)


def _oks(persons: Sequence[Person], keypoints: np.ndarray) -> np.ndarray:
    """(persons, predictions) OKS of one image; 0 for a person without a joint of flag 1."""
    truth = np.stack([person.keypoints for person in persons]).astype(np.float64)
    counted = np.stack([person.visible for person in persons]) == 2
    boxes = np.stack([person.box for person in persons]).astype(np.float64)
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]) + 1
    distance = ((truth[:, None] - keypoints[None]) ** 2).sum(-1)
    variance = (2 * np.asarray(AIC.sigmas)) ** 2
    similarity = np.exp(-distance / (2 * variance * area[:, None, None])) * counted[:, None]
    oks: np.ndarray = similarity.sum(-1) / np.maximum(counted.sum(1), 1)[:, None]
    return oks
