"""OKS AP and AR by faster-coco-eval, for COCO, CrowdPose and skeletons of your own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from diffusionpose.data.annotations import Annotations, Person, annotations_in
from diffusionpose.errors import InputError
from diffusionpose.skeletons import CROWDPOSE, Skeleton

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
