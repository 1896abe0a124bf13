"""The persons of a file of boxes or poses, in the pictures of an annotation file."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np

from diffusionpose.data.annotations import Annotations, Finding, ImageRecord, Person
from diffusionpose.errors import InputError
from diffusionpose.runtime.boxes import ListedPerson, PeopleFile, usable_boxes

UNKNOWN_SIZE = 10**9  # pixels; of a picture whose annotations do not tell


def read_boxes(path: str | Path, annotations: Annotations, min_score: float = 0.0) -> Annotations:
    """The pictures of ``annotations`` with the persons of a file of any form that ``runtime/boxes.py`` reads.

    Boxes stay as they are, also where they reach over the picture's edge, as in HRNet's evaluation.

    Args:
        path: of the file, such as the "56.4 AP" detections.
        annotations: gives pictures and skeleton; its own persons are left behind.
        min_score: boxes below it are ignored.

    Returns:
        Annotations whose persons have zero, unlabelled keypoints. What cannot be used is in ``findings``;
        boxes of pictures that ``annotations`` does not list are left out, since a detection file is often of
        more pictures than are looked at.

    Raises:
        InputError: the file cannot be read, none of its boxes is a person's, or all are of other pictures.
    """
    file = PeopleFile(path)
    record_of = _Records(annotations)
    listed = [(person, record) for person in file.people if (record := record_of(person)) is not None]
    if file.people and not listed:
        raise InputError(
            f"{path}: none of its {len(file.people)} boxes is of a picture in {annotations.path}; "
            "give the detections of these pictures"
        )
    joints = annotations.skeleton.num_joints
    persons, dropped = [], [problem.removeprefix(f"{path}: ") for problem in file.problems]
    for person, record in listed:
        if person.score < min_score:
            continue
        size = record.width or UNKNOWN_SIZE, record.height or UNKNOWN_SIZE
        _, kept, problems = usable_boxes(person.box[None], *size)
        if not kept:
            what = problems[0].replace("box 0", f"box {person.index}")
            dropped.append(f"{record.file_name}: {what}")
            continue
        unlabelled = np.zeros((joints, 2), np.float32), np.zeros(joints, np.int64)
        area = float(np.prod(person.box[2:] - person.box[:2]))
        persons.append(Person(record.id, person.index, person.box, *unlabelled, area, score=person.score))
    findings = [Finding("boxes", "error", str(path), what, "mend them") for what in dropped]
    source = f"detections {Path(path).name}"
    return replace(annotations, persons=persons, box_source=source, findings=findings)


class _Records:
    """Finds the picture of a person: by the name that the file gives, else by its image_id."""

    def __init__(self, annotations: Annotations) -> None:
        records = list(annotations.images.values())
        names = Counter(Path(record.file_name).name for record in records)
        self._named = {Path(r.file_name).name: r for r in records if names[Path(r.file_name).name] == 1}
        self._named |= {record.file_name: record for record in records}
        self._numbered = {str(record.id): record for record in records}

    def __call__(self, person: ListedPerson) -> ImageRecord | None:
        named = self._named.get(person.picture) or self._named.get(Path(person.picture).name)
        return named or self._numbered.get(str(person.ids.get("image_id", person.picture)))
