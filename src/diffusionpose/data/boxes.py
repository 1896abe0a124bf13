"""The persons of a file of boxes or poses, in the pictures of an annotation file."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np

from diffusionpose.data.annotations import Annotations, Finding, Person
from diffusionpose.errors import InputError
from diffusionpose.runtime.boxes import PeopleFile, usable_boxes

UNKNOWN_SIZE = 10**9  # pixels; of a picture whose annotations do not tell


def read_boxes(path: str | Path, annotations: Annotations) -> Annotations:
    """``annotations`` with the persons of a file, of any form that ``runtime/boxes.py`` reads, for its own.

    A picture is known by its name, else by image_id. Boxes stay as they are, also where they reach over its
    edge, as in HRNet's evaluation; no joint is labelled. What cannot be used is in ``findings``; boxes of
    other pictures are left out, since a detection file is often of more pictures than are looked at.

    Raises:
        InputError: the file cannot be read, none of its boxes is a person's, or all are of other pictures.
    """
    file = PeopleFile(path)
    records = list(annotations.images.values())
    times = Counter(Path(record.file_name).name for record in records)
    named = {Path(r.file_name).name: r for r in records if times[Path(r.file_name).name] == 1}
    named |= {record.file_name: record for record in records}
    numbered = {str(record.id): record for record in records}
    joints = annotations.skeleton.num_joints
    unlabelled = np.zeros((joints, 2), np.float32), np.zeros(joints, np.int64)
    persons, dropped, listed = [], [problem.removeprefix(f"{path}: ") for problem in file.problems], 0
    for person in file.people:
        record = named.get(person.picture) or named.get(Path(person.picture).name)
        record = record or numbered.get(str(person.ids.get("image_id", person.picture)))
        if record is None:
            continue
        listed += 1
        size = record.width or UNKNOWN_SIZE, record.height or UNKNOWN_SIZE
        _, kept, problems = usable_boxes(person.box[None], *size)
        if kept:
            area = float(np.prod(person.box[2:] - person.box[:2]))
            persons.append(Person(record.id, person.index, person.box, *unlabelled, area, score=person.score))
        else:
            dropped.append(f"{record.file_name}: {problems[0].replace('box 0', f'box {person.index}')}")
    if file.people and not listed:
        raise InputError(
            f"{path}: none of its {len(file.people)} boxes is of a picture in {annotations.path}; "
            "give the detections of these pictures"
        )
    findings = [Finding("boxes", "error", str(path), what, "mend them") for what in dropped]
    return replace(
        annotations, persons=persons, box_source=f"detections {Path(path).name}", findings=findings
    )
