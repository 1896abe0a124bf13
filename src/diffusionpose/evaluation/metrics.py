"""Metrics of poses: AP by object keypoint similarity, PCK, AI Challenger's score; rescoring and OKS-NMS."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from diffusionpose.data.annotations import Annotations, EntryError, Finding, read_truth
from diffusionpose.errors import InputError, needs_extra
from diffusionpose.json_files import LARGEST, as_list, as_number, as_numbers, is_json, read_json
from diffusionpose.poses import BOX_SHARE, keypoint_similarity, pose_score
from diffusionpose.skeletons import AIC, CROWDPOSE, Skeleton

Row = dict[str, Any]
Rows = Sequence[Mapping[str, Any]]
Metrics = dict[str, float | None]

COCO_METRICS = ("AP", "AP50", "AP75", "AP_M", "AP_L", "AR", "AR50", "AR75", "AR_M", "AR_L")
# Ranges of crowdIndex: get_type_result of crowdposetools' cocoeval.py
CROWD_METRICS = {"AP_easy": (0.0, 0.2), "AP_medium": (0.2, 0.8), "AP_hard": (0.8, np.inf)}
OF_JOINTS = ("probabilities", "visibility", "covariances")  # confidence in a result, an entry a joint
SAME_PERSON = 0.9  # HRNet's oks_thre
TORSO_DIAGONALS = (("left_shoulder", "right_hip"), ("right_shoulder", "left_hip"))
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
    if not (content and isinstance(content[0], dict) and "keypoint_annotations" in content[0]):
        return content
    rows = []
    for index, record in enumerate(content):
        people = record.get("keypoint_annotations") if isinstance(record, dict) else None
        if not isinstance(people, dict):
            raise InputError(f"{path}: entry {index} has no 'keypoint_annotations'; mend or remove it")
        for keypoints in people.values():  # without scores and names of joints
            row = {"image_id": record.get("image_id"), "keypoints": keypoints, "score": 1.0}
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
        The truth, and the results as rows of finite numbers with the truth's image ids; what JSON can hold of
        other keys stays. An entry that cannot be used is left out, and is in the truth's ``findings``: of an
        image that the annotations do not have, with another number of joints, without a key, or with a
        number that is not finite.

    Raises:
        InputError: there are entries, and none can be used; or no joint in common.
    """
    truth = read_truth(annotations, skeleton)
    own = truth.skeleton.joints if skeleton is None else skeleton.joints
    checked, findings = [], []
    for position, entry in enumerate(results):
        try:
            checked.append(_checked(truth, entry, own))
        except EntryError as error:
            check, what, cure = error.args
            findings.append(Finding(check, "error", str(source), f"entry {position} {what}", cure))
    truth = replace(truth, findings=[*truth.findings, *findings])
    if findings and not checked:
        raise InputError(truth.dropped[-1])
    every = {names for _, names in checked}
    shared = [joint for joint in truth.skeleton.joints if all(joint in names for names in every)]
    if not shared:
        raise InputError(f"{source}: its joints and those of {truth.path} have no name in common")
    rows = [pick_joints(row, names, shared) for row, names in checked]
    return truth.to_skeleton(truth.skeleton.select(shared)), rows


def _checked(truth: Annotations, entry: Any, own: tuple[str, ...]) -> tuple[Row, tuple[str, ...]]:
    """An entry as a row, and the names of its joints, ``own`` where it gives none."""
    if not isinstance(entry, dict):
        raise EntryError("not an entry", f"is {entry!r:.60}", "every entry is an object in braces")
    if missing := {"image_id", "keypoints", "score"} - set(entry):
        raise EntryError("missing key", f"has no {', '.join(sorted(missing))}", "give every entry these")
    image_id = truth.find_image(entry["image_id"])
    if image_id is None:
        what = f"is of image {entry['image_id']!r:.60}, which {truth.path} does not list"
        raise EntryError("unlisted image", what, "give the annotations that the results were made for")
    joints = as_list(entry.get("joints"))
    names = tuple(joints) if joints and all(isinstance(name, str) for name in joints) else own
    if len(set(names)) < len(names):
        raise EntryError("joints", "names a joint twice in 'joints'", "name each once")
    given = entry["keypoints"]
    count = len(given) if isinstance(given, (list, np.ndarray)) else 0
    if count != 3 * len(names):
        what = f"has {count} numbers in 'keypoints', the {len(names)} joints need {3 * len(names)}"
        cure = "x, y, score each; --skeleton names the joints of results of other joints"
        raise EntryError("keypoint count", what, cure)
    keypoints = as_numbers(list(given))
    if keypoints is None or not (abs(keypoints) < LARGEST).all():
        raise EntryError("keypoints", "holds a keypoint that is not finite, no number or huge", "mend it")
    score = as_number(entry["score"])
    if score is None:
        what = f"has {entry['score']!r:.60} as 'score', which is not finite or no number"
        raise EntryError("score", what, "mend it")
    others = {
        key: value for key, value in entry.items() if key not in ("joints", "keypoints") and is_json(value)
    }
    for key in OF_JOINTS:
        if key in others and (not isinstance(others[key], list) or len(others[key]) != len(names)):
            del others[key]  # another tool's, which means something else
    return {**others, "image_id": image_id, "score": score, "keypoints": keypoints}, names


def pick_joints(row: Mapping[str, Any], names: Sequence[str], wanted: Sequence[str]) -> Row:
    """A row of the joints ``names`` with those of ``wanted`` alone, in their order."""
    places = [names.index(joint) for joint in wanted]
    keypoints = np.reshape(row["keypoints"], (-1, 3))[places].ravel().tolist()
    others = {key: [row[key][place] for place in places] for key in OF_JOINTS if key in row}
    return {**row, **others, "keypoints": keypoints}


# Scores and suppression of poses, as HRNet does it: two boxes on one person give two nearly equal poses


def rescore(results: Rows) -> list[Row]:
    """Copies of results whose ``score``, so far the box's, becomes the pose's: see :func:`pose_score`."""
    return [
        {**row, "score": pose_score(row["score"], np.asarray(row["keypoints"], np.float64)[2::3])}
        for row in results
    ]


def _similarity(
    keypoints: np.ndarray, others: np.ndarray, areas: np.ndarray, sigmas: Sequence[float]
) -> np.ndarray:
    """(n, m, J) keypoint similarities of poses (n, J, 2) and (m, J, 2) for areas that broadcast to (n, m)."""
    return keypoint_similarity(keypoints[:, None] - others[None], areas[..., None], sigmas)


def oks_nms(
    results: Rows, sigmas: Sequence[float], areas: Sequence[float], threshold: float = SAME_PERSON
) -> list[Row]:
    """Results without the poses that repeat a better-scored pose of the same image, in the order given.

    Args:
        results: COCO keypoint results.
        sigmas: (J,), the skeleton's.
        areas: of each result, square pixels; HRNet takes that of the crop (the box padded and brought to the
            input's aspect). The area of a pair is the mean of the two, and all joints count.
        threshold: a pose with OKS above it to a kept pose of higher score is dropped.
    """
    of_image: dict[Any, list[int]] = defaultdict(list)
    for index, result in enumerate(results):
        of_image[result["image_id"]].append(index)
    kept: list[int] = []
    for indices in of_image.values():
        keypoints = np.stack([np.reshape(results[index]["keypoints"], (-1, 3))[:, :2] for index in indices])
        area = np.asarray([areas[index] for index in indices])
        pairs = (area[:, None] + area[None]) / 2 + np.spacing(1)
        oks = _similarity(keypoints, keypoints, pairs, sigmas).mean(-1)
        chosen: list[int] = []
        scores = np.asarray([results[index]["score"] for index in indices])
        for candidate in np.argsort(-scores, kind="stable"):
            if not chosen or oks[candidate, chosen].max() <= threshold:
                chosen.append(int(candidate))
        kept += [indices[position] for position in chosen]
    return [dict(results[index]) for index in sorted(kept)]


# OKS AP and AR by faster-coco-eval, for COCO, CrowdPose, AI Challenger and skeletons of your own


def average_precision(truth: Annotations, rows: Rows, by_crowd: bool = True) -> Metrics:
    """AP and AR of what :func:`match_results` returns; with ``by_crowd`` also those of crowd ranges.

    Equals pycocotools: OKS thresholds 0.50, 0.55 .. 0.95, at most 20 poses per image, area ranges of
    COCO (medium 32^2 to 96^2, large above). Crowd regions and persons whose ``num_keypoints`` is 0 neither
    count nor cost. Where the file has no ``num_keypoints``, labelled joints are counted, of CrowdPose's
    skeleton those of the limbs alone, as in its files.

    OKS takes the area that the annotations give. For CrowdPose (a file with a crowd index) and AI Challenger
    it is 0.53 x width x height of the box whatever the file says: so do mmpose and crowdposetools, whose
    numbers these are but for its rounding. AP_easy, AP_medium, AP_hard are the AP over the images with a
    crowd index in [0, 0.2), [0.2, 0.8) and from 0.8 on.

    Returns:
        ``COCO_METRICS``, and for crowd-indexed annotations ``CROWD_METRICS``. None where no person falls
        into the range; 0 without results.
    """
    evaluation, numbers = _pose_evaluation(truth, rows)
    metrics: Metrics = dict(zip(COCO_METRICS, _run(evaluation, list(numbers.values())), strict=True))
    crowd = {number: truth.images[image_id].crowd_index for image_id, number in numbers.items()}
    if by_crowd and any(index is not None for index in crowd.values()):
        for name, (low, high) in CROWD_METRICS.items():
            chosen = [number for number, index in crowd.items() if index is not None and low <= index < high]
            metrics[name] = _run(evaluation, chosen)[0]
    return metrics


def ap_by_threshold(truth: Annotations, rows: Rows) -> dict[float, float]:
    """AP at each of COCO's OKS thresholds, 0.50 to 0.95; AP is their mean. Empty where no person counts."""
    evaluation, numbers = _pose_evaluation(truth, rows)
    if _run(evaluation, list(numbers.values()))[0] is None:
        return {}
    precision = evaluation.eval["precision"][:, :, 0, 0, -1]  # (thresholds, recalls), all sizes of person
    thresholds = evaluation.params.iouThrs
    return {round(float(at), 2): float(mean) for at, mean in zip(thresholds, precision.mean(1), strict=True)}


def coco_evaluation(images: int, truth: list[Row], found: list[Row], **options: Any) -> Any:
    """A faster-coco-eval evaluation, with options of its ``COCOeval_faster``.

    Annotations and results need no ``id`` and ``category_id``; their images are numbered from 1.
    """
    with needs_extra("train", "AP needs faster-coco-eval"):
        from faster_coco_eval import COCO, COCOeval_faster

    index = COCO(
        {
            "images": [{"id": number} for number in range(1, images + 1)],
            "annotations": [{"id": n, "category_id": 1, **one} for n, one in enumerate(truth, start=1)],
            "categories": [{"id": 1, "name": "person"}],
        }
    )
    results = index.loadRes([{"category_id": 1, **one} for one in found])
    evaluation = COCOeval_faster(index, results, **options)
    evaluation.params.catIds = [1]
    return evaluation


def _pose_evaluation(truth: Annotations, rows: Rows) -> tuple[Any, dict[Any, int]]:
    """The evaluation, and its numbers of the images, since AI Challenger's ids are text.

    They go in the order of the ids: poses of equal score are ranked by their image.
    """
    ids = list(truth.images)
    ordered = sorted(ids) if all(isinstance(one, int) for one in ids) else sorted(ids, key=str)
    numbers = {image_id: number for number, image_id in enumerate(ordered, start=1)}
    crowded = any(record.crowd_index is not None for record in truth.images.values())
    by_box = crowded or truth.skeleton.name == AIC.name
    limbs_alone = set(truth.skeleton.joints) == set(CROWDPOSE.joints)
    counted = [not (limbs_alone and joint in ("head", "neck")) for joint in truth.skeleton.joints]
    persons = []
    for person in truth.persons:
        box = np.nan_to_num(person.xywh)
        labelled = int((person.visible[counted] > 0).sum())
        keypoints = np.column_stack([person.keypoints, person.visible]).astype(np.float64)
        persons.append(
            {
                "image_id": numbers[person.image_id],
                "iscrowd": int(person.is_crowd),
                "bbox": box.tolist(),
                "area": BOX_SHARE * float(box[2] * box[3]) if by_box else float(person.area),
                "keypoints": keypoints.ravel().tolist(),
                "num_keypoints": labelled if person.num_keypoints is None else person.num_keypoints,
            }
        )
    # Only these keys: from a bbox the evaluator would take the area that decides whether an unmatched pose
    # falls into the range of AP_M or AP_L, where COCO takes the extent of the keypoints.
    poses = [
        {
            "image_id": numbers[row["image_id"]],
            "keypoints": [float(number) for number in row["keypoints"]],
            "score": float(row["score"]),
        }
        for row in rows
    ]
    options = {"iouType": "keypoints", "kpt_oks_sigmas": list(truth.skeleton.sigmas)}
    return coco_evaluation(len(numbers), persons, poses, **options), numbers


def _run(evaluation: Any, image_numbers: list[int]) -> list[float | None]:
    """The ten numbers of COCO over some images, in the order of ``COCO_METRICS``."""
    evaluation.params.imgIds = image_numbers
    evaluation.run()
    return [None if value < 0 else float(value) for value in evaluation.all_stats]


# PCK: the share of labelled joints predicted within a part of the person's torso length


@dataclass(frozen=True, eq=False)
class JointCounts:
    """Which joints of which persons count, and which of them are right."""

    skeleton: Skeleton
    correct: np.ndarray  # (n, J) bool; right and counted
    counted: np.ndarray  # (n, J) bool; labelled, on a person whose torso is known

    def value(self, joints: Sequence[int] | None = None) -> float | None:
        """PCK: share of right joints among the counted ones of all persons; None where none counts."""
        chosen = slice(None) if joints is None else list(joints)
        total = int(self.counted[:, chosen].sum())
        return float(self.correct[:, chosen].sum() / total) if total else None

    def per_joint(self) -> dict[str, float | None]:
        """PCK of every joint by its name; None for a joint never labelled."""
        return {joint: self.value([index]) for index, joint in enumerate(self.skeleton.joints)}


def has_torso(skeleton: Skeleton) -> bool:
    """Whether the skeleton has the shoulders and hips that PCK measures the torso by."""
    return all(joint in skeleton.joints for diagonal in TORSO_DIAGONALS for joint in diagonal)


def torso_lengths(truth: np.ndarray, visible: np.ndarray, skeleton: Skeleton) -> np.ndarray:
    """(n,) the longer of the labelled diagonals from shoulder to hip; NaN where neither is labelled.

    ``truth`` (n, J, 2) and ``visible`` (n, J), above 0 where labelled, are of the J joints of the skeleton.
    """
    lengths = []
    for shoulder, hip in TORSO_DIAGONALS:
        a, b = skeleton.index(shoulder), skeleton.index(hip)
        labelled = (visible[:, a] > 0) & (visible[:, b] > 0)
        lengths.append(np.where(labelled, np.linalg.norm(truth[:, a] - truth[:, b], axis=-1), np.nan))
    return np.fmax(*lengths)


def count_joints(
    keypoints: np.ndarray, truth: np.ndarray, visible: np.ndarray, skeleton: Skeleton, threshold: float = 0.2
) -> JointCounts:
    """Which joints of n persons lie within ``threshold`` times the torso of their true places.

    Persons without a labelled torso diagonal (or one of length 0) are left out; a NaN prediction (no pose was
    found) counts as wrong.

    Args:
        keypoints, truth: (n, J, 2), same unit.
        visible: (n, J), above 0 where a joint is labelled.
        skeleton: J joints, among them shoulders and hips; else InputError.
        threshold: share of the torso length.
    """
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
    points = np.reshape(keypoints, (-1, joints, 2))
    return count_joints(points, persons.keypoints, persons.visible, persons.skeleton, threshold)


# The score of the AI Challenger 2017 keypoint contest, which is not COCO's AP


def aic_score(truth: Annotations, rows: Rows) -> float:
    """The official score, in [0, 1], of what :func:`match_results` returns.

    The OKS of a true person and a prediction is the mean, over the joints that are in the picture
    and not hidden (flag 1 in the native file, ``visible`` 2 here), of exp(-d^2 / (2 area (2 sigma)^2))
    with the area of the box plus 1. Every true person takes its best prediction; predictions are not
    used up and their scores play no part. The score is the mean over the thresholds 0.50, 0.55 .. 0.95
    of the persons with an OKS above it, divided by the sum over images of the larger of true and
    predicted persons: superfluous predictions cost. An image without predictions counts its persons
    as missed.
    """
    found: dict[Any, list[np.ndarray]] = defaultdict(list)
    for row in rows:
        found[row["image_id"]].append(np.reshape(row["keypoints"], (-1, 3))[:, :2])
    total = sum(max(len(true), len(found[image_id])) for image_id, true in truth.by_image.items())
    best: list[float] = []
    for image_id, true in truth.by_image.items():
        if true and found[image_id]:
            keypoints = np.stack([person.keypoints for person in true]).astype(np.float64)
            counted = np.stack([person.visible for person in true]) == 2
            areas = np.asarray([person.xywh[2] * person.xywh[3] + 1 for person in true])[:, None]
            similarity = _similarity(keypoints, np.stack(found[image_id]), areas, truth.skeleton.sigmas)
            oks = (similarity * counted[:, None]).sum(-1) / np.maximum(counted.sum(1), 1)[:, None]
            best += oks.max(1).tolist()
    above = np.asarray(best)[:, None] > np.linspace(0.5, 0.95, 10)
    return float(above.sum(0).mean() / total) if best else 0.0
