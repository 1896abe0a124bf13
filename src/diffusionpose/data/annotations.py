"""Annotation files: COCO, CrowdPose, AI Challenger (both forms), and your own in COCO's format."""

from __future__ import annotations

from pathlib import Path

from diffusionpose.data.aic_native import listing_from_aic
from diffusionpose.data.coco_format import listing_from_coco
from diffusionpose.data.faults import Faults, RefuseFaults
from diffusionpose.data.json_files import read_json
from diffusionpose.data.listing import Listing
from diffusionpose.data.persons import Annotations, ImageRecord, Person
from diffusionpose.errors import InputError
from diffusionpose.skeletons import Skeleton

__all__ = ["Annotations", "ImageRecord", "Person", "annotations_in", "read_annotations", "read_listing"]


def read_annotations(path: str | Path, skeleton: Skeleton | None = None) -> Annotations:
    """The persons of an annotation file.

    Boxes are clipped to their pictures; persons whose box has no area left are dropped, with a
    message in ``Annotations.dropped``. A person without ``area`` gets the box's (CrowdPose).

    Args:
        path: a COCO-style dict with any joints, or AI Challenger's native list.
        skeleton: of the file. By default the known one whose joint names the file's category lists,
            in any order.

    Raises:
        InputError: the file is not JSON, lacks a key, lists an annotation of an unknown image, has a
            wrong number of keypoints or one that is not finite, or its skeleton is not known.
    """
    return read_listing(path, skeleton, RefuseFaults(Path(path))).annotations()


def annotations_in(annotations: Annotations | str | Path, skeleton: Skeleton | None) -> Annotations:
    """Annotations, or those of a file, with the joints of a skeleton, matched by name.

    Args:
        annotations: the persons, or their file.
        skeleton: None for their own. A file whose joint names are those of no known skeleton counts as of
            this one.

    Raises:
        InputError: as :func:`read_annotations`, or the two skeletons share no joint.
    """
    if isinstance(annotations, Annotations):
        found = annotations
    else:
        try:
            found = read_annotations(annotations)
        except InputError:
            if skeleton is None:
                raise
            found = read_annotations(annotations, skeleton)
    return found if skeleton is None else found.to_skeleton(skeleton)


def read_listing(path: str | Path, skeleton: Skeleton | None, faults: Faults) -> Listing:
    """What an annotation file lists, unchanged; every entry that cannot be used goes to ``faults``.

    Raises:
        InputError: nothing of the file can be used: not JSON, no lists of images and annotations, a
            file of results, or a skeleton that is not known.
    """
    path = Path(path)
    content = read_json(path)
    if isinstance(content, dict):
        return listing_from_coco(path, content, skeleton, faults)
    if isinstance(content, list):
        if content and isinstance(content[0], dict) and "score" in content[0]:
            raise InputError(f"{path}: a file of boxes or results, not of annotations; boxes go to --boxes")
        return listing_from_aic(path, content, skeleton, faults)
    raise InputError(f"{path}: neither a COCO dict nor an AI Challenger list of annotations")
