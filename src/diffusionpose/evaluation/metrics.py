"""Metrics of poses: AP by object keypoint similarity, PCK, AI Challenger's score; rescoring and OKS-NMS."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from diffusionpose.data.annotations import BOX_SHARE, Annotations, Person, annotations_in
from diffusionpose.errors import InputError
from diffusionpose.json_files import LARGEST, as_number, as_numbers, read_json
from diffusionpose.poses import VISIBLE_SCORE, pose_score
from diffusionpose.skeletons import AIC, CROWDPOSE, Skeleton

Row = dict[str, Any]
Rows = Sequence[Mapping[str, Any]]

# Results: COCO keypoint results, a list of {"image_id", "keypoints": [x, y, score, ...], "score"}


def read_results(path: str | Path) -> list[Row]:
    """The entries of a results file: COCO keypoint results, or AI Challenger's native predictions.

    Raises:
        InputError: the file cannot be read, or is no list of poses.
    """
    content = read_json(path)
    if not isinstance(content, list):
        raise InputError(
            f"{path}: not a list of poses; give COCO results, such as the keypoints.json of an evaluation"
        )
    if content and isinstance(content[0], dict) and "keypoint_annotations" in content[0]:
        return _aic_rows(path, content)
    return content


def _aic_rows(path: str | Path, content: list[Any]) -> list[Row]:
    """AI Challenger's predictions have neither scores nor names of joints: all score 1."""
    rows = []
    for index, record in enumerate(content):
        people = record.get("keypoint_annotations") if isinstance(record, dict) else None
        if not isinstance(people, dict):
            raise InputError(f"{path}: entry {index} has no 'keypoint_annotations'; mend or remove it")
        for numbers in people.values():
            row = {"image_id": record.get("image_id"), "keypoints": numbers, "score": 1.0}
            rows.append({**row, "joints": list(AIC.joints)})
    return rows


def match_results(
    annotations: Annotations | str | Path,
    results: Sequence[Any],
    skeleton: Skeleton | None = None,
    source: str | Path = "results",
) -> tuple[Annotations, list[Row]]:
    """Results checked, and annotations and results with the joints that they share, in the file's order.

    Args:
        annotations: the truth, or its file.
        results: entries ``image_id``, ``keypoints`` (flat x, y, score triplets) and ``score``. Their joints
            are those of ``joints`` (names) in an entry, else of ``skeleton``, else the annotations' in their
            order.
        skeleton: of the results; of the annotations, too, where their file names no joints.
        source: what messages call the results.

    Returns:
        The truth, and the results as rows of finite numbers with the truth's image ids; other keys stay.

    Raises:
        InputError: an entry of an image that the annotations do not have, with another number of joints,
            without a key, or with a number that is not finite; or no joint in common.
    """
    truth = read_truth(annotations, skeleton)
    named = {_names(entry, skeleton) for entry in results if isinstance(entry, dict)} - {None}
    shared = [j for j in truth.skeleton.joints if all(j in names for names in named if names is not None)]
    if not shared:
        raise InputError(f"{source}: its joints and those of {truth.path} have no name in common")
    joints = truth.skeleton.joints
    rows = []
    for position, entry in enumerate(results):
        try:
            rows.append(_checked(truth, entry, _names(entry, skeleton) or joints, shared))
        except ValueError as error:
            raise InputError(f"{source}: entry {position} {error}") from error
    return truth.to_skeleton(truth.skeleton.select(shared)), rows


def read_truth(annotations: Annotations | str | Path, skeleton: Skeleton | None) -> Annotations:
    """Annotations, or those of a file, with its own joints; of ``skeleton`` only where it names none."""
    if isinstance(annotations, Annotations):
        return annotations
    try:
        return annotations_in(annotations, None)
    except InputError:
        if skeleton is None:
            raise
        return annotations_in(annotations, skeleton)


def _names(entry: Any, skeleton: Skeleton | None) -> tuple[str, ...] | None:
    """The names of the joints of an entry; None where it has the annotations'."""
    names = entry.get("joints") if isinstance(entry, dict) else None
    if isinstance(names, list) and names and all(isinstance(name, str) for name in names):
        return tuple(names)
    return None if skeleton is None else skeleton.joints


def _checked(truth: Annotations, entry: Any, names: Sequence[str], shared: Sequence[str]) -> Row:
    """An entry with the shared joints alone; ValueError says what is wrong with it."""
    if not isinstance(entry, dict):
        raise ValueError(f"is {entry!r:.60}, not an object with keys")
    missing = {"image_id", "keypoints", "score"} - set(entry)
    if missing:
        raise ValueError(f"has no {', '.join(sorted(missing))}")
    image_id = truth.find_image(entry["image_id"])
    if image_id is None:
        raise ValueError(
            f"is of image {entry['image_id']!r:.60}, which {truth.path} does not list; "
            "give the annotations that the results were made for"
        )
    given = entry["keypoints"]
    count = len(given) if isinstance(given, (list, np.ndarray)) else 0
    if count != 3 * len(names):
        raise ValueError(
            f"has {count} numbers in 'keypoints', the {len(names)} joints of the skeleton need "
            f"{3 * len(names)}: x, y, score each; --skeleton names the joints of results of other joints"
        )
    keypoints = as_numbers(list(given))
    if keypoints is None or not (abs(keypoints) < LARGEST).all():
        raise ValueError("holds a keypoint that is not finite, no number or huge")
    score = as_number(entry["score"])
    if score is None:
        raise ValueError(f"has {entry['score']!r:.60} as 'score', which is not finite or no number")
    places = [names.index(joint) for joint in shared]
    row = {**entry, "image_id": image_id, "score": score}
    row.pop("joints", None)
    return {**row, "keypoints": keypoints.reshape(-1, 3)[places].ravel().tolist()}


def pick_joints(row: Mapping[str, Any], old: Skeleton, new: Skeleton) -> Row:
    """A row with the joints of another skeleton, all of which it has."""
    if old.joints == new.joints:
        return dict(row)
    places = [old.index(joint) for joint in new.joints]
    return {**row, "keypoints": np.reshape(row["keypoints"], (-1, 3))[places].ravel().tolist()}


def rounded(row: Mapping[str, Any]) -> Row:
    """A row as files have it: keypoints to a thousandth of a pixel."""
    return {**row, "keypoints": [round(float(number), 3) for number in row["keypoints"]]}


# Scores and suppression of poses, as HRNet does it: two boxes on one person give two nearly equal poses

SAME_PERSON = 0.9  # HRNet's oks_thre


def rescore(results: Rows, threshold: float = VISIBLE_SCORE) -> list[Row]:
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
    results: Rows,
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
        keypoints = np.stack([np.reshape(results[index]["keypoints"], (-1, 3))[:, :2] for index in indices])
        similarity = pairwise_oks(keypoints, np.asarray([areas[index] for index in indices]), sigmas)
        chosen: list[int] = []
        scores = np.asarray([results[index]["score"] for index in indices])
        for candidate in np.argsort(-scores, kind="stable"):
            if not chosen or similarity[candidate, chosen].max() <= threshold:
                chosen.append(int(candidate))
        kept += [indices[position] for position in chosen]
    return [dict(results[index]) for index in sorted(kept)]


# OKS AP and AR by faster-coco-eval, for COCO, CrowdPose, AI Challenger and skeletons of your own

COCO_METRICS = ("AP", "AP50", "AP75", "AP_M", "AP_L", "AR", "AR50", "AR75", "AR_M", "AR_L")
CROWD_METRICS = ("AP_easy", "AP_medium", "AP_hard")
# Upper ends of the easy and of the medium range of crowdIndex: get_type_result of crowdposetools' cocoeval.py
CROWD_BOUNDS = (0.2, 0.8)

Metrics = dict[str, float | None]


def coco_metrics(
    annotations: Annotations | str | Path, results: Rows, skeleton: Skeleton | None = None
) -> Metrics:
    """AP and AR of COCO keypoint results.

    Equals pycocotools: OKS thresholds 0.50, 0.55 .. 0.95, at most 20 poses per image, area ranges of
    COCO (medium 32^2 to 96^2, large above). Crowd regions and persons whose ``num_keypoints`` is 0 neither
    count nor cost. Where the file has no ``num_keypoints``, labelled joints are counted, of CrowdPose's
    skeleton those of the limbs alone, as in its files.

    OKS takes the area that the annotations give. For CrowdPose (a file with a crowd index) and AI Challenger
    it is 0.53 x width x height of the box whatever the file says: so do crowdposetools, whose numbers these
    are but
    for its rounding, and mmpose. AP_easy, AP_medium, AP_hard are the AP over the images with a crowd index in
    [0, 0.2), [0.2, 0.8) and from 0.8 on.

    Args:
        annotations: all persons, also unlabelled ones, or the file with them.
        results: ``image_id``, ``keypoints`` (flat x, y, score triplets) and ``score`` for each pose.
        skeleton: joints of the results; the annotations' own by default. Joints are matched by name.

    Returns:
        AP, AP50, AP75, AP_M, AP_L, AR, AR50, AR75, AR_M, AR_L and for crowd-indexed annotations
        AP_easy, AP_medium, AP_hard. None where no person falls into the range; 0 without results.

    Raises:
        InputError: as of :func:`match_results`.
    """
    return average_precision(*match_results(annotations, results, skeleton))


def average_precision(truth: Annotations, rows: Rows) -> Metrics:
    """As :func:`coco_metrics`, of rows of :func:`match_results`."""
    numbers = _image_numbers(truth)
    evaluation = _evaluation(truth, rows, numbers)
    metrics = dict(zip(COCO_METRICS, _run(evaluation, list(numbers.values())), strict=True))
    crowd = {number: truth.images[image_id].crowd_index for image_id, number in numbers.items()}
    if any(index is not None for index in crowd.values()):
        for name, low, high in zip(CROWD_METRICS, (0.0, *CROWD_BOUNDS), (*CROWD_BOUNDS, np.inf), strict=True):
            chosen = [number for number, index in crowd.items() if index is not None and low <= index < high]
            metrics[name] = _run(evaluation, chosen)[0]
    return metrics


def ap_by_threshold(truth: Annotations, rows: Rows) -> dict[float, float]:
    """AP at each of COCO's OKS thresholds, 0.50, 0.55 .. 0.95; AP is their mean. Empty where no person
    counts.

    Arguments as :func:`average_precision`.
    """
    numbers = _image_numbers(truth)
    evaluation = _evaluation(truth, rows, numbers)
    if _run(evaluation, list(numbers.values()))[0] is None:
        return {}
    precision = evaluation.eval["precision"][:, :, 0, 0, -1]  # (thresholds, recalls), all sizes of person
    thresholds = evaluation.params.iouThrs
    return {round(float(at), 2): float(mean) for at, mean in zip(thresholds, precision.mean(1), strict=True)}


def _image_numbers(annotations: Annotations) -> dict[Any, int]:
    """Image id -> 1, 2, ..: the evaluator wants whole numbers, AI Challenger's ids are text.

    In the order of the ids, since poses of equal score are ranked by their image.
    """
    ids = list(annotations.images)
    ordered = sorted(ids) if all(isinstance(one, int) for one in ids) else sorted(ids, key=str)
    return {image_id: number for number, image_id in enumerate(ordered, start=1)}


def _evaluation(truth: Annotations, rows: Rows, numbers: Mapping[Any, int]) -> Any:
    """A faster-coco-eval evaluation of ``rows``; persons are numbered from 1, as it demands."""
    from faster_coco_eval import COCO, COCOeval_faster

    by_box = truth.skeleton.name == AIC.name or any(
        record.crowd_index is not None for record in truth.images.values()
    )
    persons = [
        {"id": number, "image_id": numbers[person.image_id], **_coco_person(person, truth.skeleton, by_box)}
        for number, person in enumerate(truth.persons, start=1)
    ]
    index = COCO(
        {
            "images": [{"id": number} for number in numbers.values()],
            "annotations": persons,
            "categories": [{"id": 1, "name": "person"}],
        }
    )
    # Only these keys: from a bbox the evaluator would take the area that decides whether an unmatched pose
    # falls into the range of AP_M or AP_L, where COCO takes the extent of the keypoints.
    poses = [
        {
            "image_id": numbers[row["image_id"]],
            "category_id": 1,
            "keypoints": [float(number) for number in row["keypoints"]],
            "score": float(row["score"]),
        }
        for row in rows
    ]
    sigmas = list(truth.skeleton.sigmas)
    evaluation = COCOeval_faster(index, index.loadRes(poses), iouType="keypoints", kpt_oks_sigmas=sigmas)
    evaluation.params.catIds = [1]
    return evaluation


def _coco_person(person: Person, skeleton: Skeleton, by_box: bool) -> dict[str, Any]:
    box = np.nan_to_num(person.xywh)
    keypoints = np.column_stack([person.keypoints, person.visible]).astype(np.float64)
    count = person.num_keypoints
    if count is None:
        limbs = set(skeleton.joints) == set(CROWDPOSE.joints)
        counted = [not (limbs and joint in ("head", "neck")) for joint in skeleton.joints]
        count = int((person.visible[counted] > 0).sum())
    return {
        "category_id": 1,
        "iscrowd": int(person.is_crowd),
        "bbox": box.tolist(),
        "area": BOX_SHARE * float(box[2] * box[3]) if by_box else float(person.area),
        "keypoints": keypoints.ravel().tolist(),
        "num_keypoints": count,
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


def aic_score(annotations: Annotations, results: Rows) -> float:
    """The official score: how many true persons have a prediction close to them.

    The OKS of a true person and a prediction is the mean, over the joints that are in the picture
    and not hidden (flag 1 in the native file, ``visible`` 2 here), of exp(-d^2 / (2 area (2 sigma)^2))
    with the area of the box plus 1. Every true person takes its best prediction; predictions are not
    used up and their scores play no part. The score is the mean over the thresholds 0.50, 0.55 .. 0.95
    of the persons with an OKS above it, divided by the sum over images of the larger of true and
    predicted persons: superfluous predictions cost. An image without predictions counts its persons
    as missed.

    Args:
        annotations: joints of the AI Challenger skeleton, native or COCO form.
        results: as of :func:`coco_metrics`; scores do not matter.

    Returns:
        Score in [0, 1]; 0 where there are neither persons nor predictions.

    Raises:
        InputError: another skeleton, or as of :func:`match_results`.
    """
    if set(annotations.skeleton.joints) != set(AIC.joints):
        raise InputError(
            f"{annotations.path}: the AI Challenger score needs its {AIC.num_joints} joints, "
            f"these annotations have those of {annotations.skeleton.name!r}"
        )
    known = [row for row in results if annotations.find_image(row["image_id"]) is not None]
    truth, rows = match_results(annotations, known)
    found: dict[Any, list[np.ndarray]] = defaultdict(list)
    for row in rows:
        found[row["image_id"]].append(np.reshape(row["keypoints"], (-1, 3))[:, :2])
    persons: dict[Any, list[Person]] = {image_id: [] for image_id in truth.images}
    for person in truth.persons:
        persons[person.image_id].append(person)
    total = sum(max(len(true), len(found[image_id])) for image_id, true in persons.items())
    both = [(true, found[image_id]) for image_id, true in persons.items() if true and found[image_id]]
    best = [_aic_oks(true, np.stack(poses), truth.skeleton.sigmas).max(1) for true, poses in both]
    if not best:
        return 0.0
    above = np.concatenate(best)[:, None] > THRESHOLDS
    return float(above.sum(0).mean() / total)


def _aic_oks(persons: Sequence[Person], keypoints: np.ndarray, sigmas: Sequence[float]) -> np.ndarray:
    """(persons, predictions) OKS of one image; 0 for a person without a joint of flag 1."""
    truth = np.stack([person.keypoints for person in persons]).astype(np.float64)
    counted = np.stack([person.visible for person in persons]) == 2
    sizes = np.stack([person.xywh[2:] for person in persons])
    area = sizes[:, 0] * sizes[:, 1] + 1
    distance = ((truth[:, None] - keypoints[None]) ** 2).sum(-1)
    variance = (2 * np.asarray(sigmas)) ** 2
    similarity = np.exp(-distance / (2 * variance * area[:, None, None])) * counted[:, None]
    oks: np.ndarray = similarity.sum(-1) / np.maximum(counted.sum(1), 1)[:, None]
    return oks
