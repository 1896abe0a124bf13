"""Annotation files: COCO, CrowdPose, AI Challenger (both forms), and your own in COCO's format."""

from __future__ import annotations

from pathlib import Path

from diffusionpose.data.aic_native import annotations_from_aic
from diffusionpose.data.coco_format import annotations_from_coco
from diffusionpose.data.json_files import read_json
from diffusionpose.data.persons import Annotations, ImageRecord, Person
from diffusionpose.errors import InputError
from diffusionpose.skeletons import Skeleton

__all__ = ["Annotations", "ImageRecord", "Person", "read_annotations"]


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
    path = Path(path)
    content = read_json(path)
    if isinstance(content, dict):
        return annotations_from_coco(path, content, skeleton)
    if isinstance(content, list):
        if content and isinstance(content[0], dict) and "score" in content[0]:
            raise InputError(f"{path}: a file of boxes or results, not of annotations; boxes go to --boxes")
        return annotations_from_aic(path, content, skeleton)
    raise InputError(f"{path}: neither a COCO dict nor an AI Challenger list of annotations")
