"""Where one method is better: persons that overlap others, and joints that are hidden.

python crowds_and_hidden.py ANNOTATIONS.json FIRST/keypoints.json SECOND/keypoints.json

The two are results of `diffusionpose evaluate` on true boxes. Hidden joints are flagged v = 1, as in COCO.
"""

import sys
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from diffusionpose.data.annotations import Annotations, Person, read_annotations
from diffusionpose.evaluation.compare import BOX_TOLERANCE, Row, compare_results
from diffusionpose.evaluation.metrics import read_results

OVERLAP = 0.1  # IoU with another labelled person's box from which a person counts as one of a crowd


def overlaps(person: Person, others: list[Person]) -> bool:
    """Whether the box of another of these persons overlaps the person's own."""
    for other in others:
        if other is person or other.image_id != person.image_id:
            continue
        low, high = np.maximum(person.box[:2], other.box[:2]), np.minimum(person.box[2:], other.box[2:])
        shared = np.prod(np.maximum(high - low, 0))
        areas = sum(np.prod(one.box[2:] - one.box[:2]) for one in (person, other))
        if shared > OVERLAP * (areas - shared):
            return True
    return False


def parts(truth: Annotations) -> Iterator[tuple[str, Annotations]]:
    """Everybody; persons by whether they overlap others; everybody's visible and hidden joints."""
    persons = truth.labelled().persons
    crowded = [overlaps(person, persons) for person in persons]
    yield "everybody", replace(truth, persons=persons)
    for name, wanted in (("persons that overlap others", True), ("persons by themselves", False)):
        chosen = [person for person, one in zip(persons, crowded, strict=True) if one == wanted]
        yield name, replace(truth, persons=chosen)
    for name, flag in (("visible joints", 2), ("hidden joints", 1)):
        only = [replace(p, visible=np.where(p.visible == flag, flag, 0), num_keypoints=None) for p in persons]
        yield name, replace(truth, persons=[p for p in only if p.visible.any()])


def rows_of(rows: list[Row], persons: list[Person]) -> list[Row]:
    """The results that were made in the boxes of these persons."""
    boxes = {}
    for person in persons:
        boxes.setdefault(person.image_id, []).append(person.box)
    return [
        row
        for row in rows
        if any(np.abs(box - row["box"]).max() <= BOX_TOLERANCE for box in boxes.get(row["image_id"], []))
    ]


truth, *both = read_annotations(sys.argv[1]), *map(read_results, sys.argv[2:4])
for name, part in parts(truth):
    print(f"{name}: {len(part.persons)} persons")
    if not part.persons:
        continue
    results = [rows_of(rows, part.persons) for rows in both]
    for metric, found in compare_results(part, *results, rounds=200).items():
        first, second, low, high = (100 * each for each in (found.first, found.second, *found.interval))
        print(f"  {metric}: {first:.1f} and {second:.1f}, {low:+.1f} to {high:+.1f}")
