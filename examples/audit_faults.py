"""Measure `diffusionpose data audit`: put faults into labels, and see how many of them it lists first.

python examples/audit_faults.py ANNOTATIONS.json IMAGES [PERSONS]   # so many, drawn with seed 0; else all
"""

import math
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from diffusionpose.data.annotations import Annotations, Person, read_annotations
from diffusionpose.data.audit import Evidence, look, rank
from diffusionpose.data.pictures import find_pictures
from diffusionpose.runtime.networks import Network, load_network
from diffusionpose.skeletons import Skeleton

KINDS = ("sides exchanged", "limb exchanged", "wrong person", "misplaced joint", "missing joint", "no person")
SHARE = 0.05  # of the persons get a fault
LEAST_JOINTS = 6  # labelled, of a person that gets one
FAR = 0.1  # keypoint similarity: an exchanged or misplaced joint is less alike to its true place
MOST_OVERLAP = 0.1  # of a box without a person with any person's, as a share of the smaller one
TRIES, DRAWS = 200, 200
GOOD = "as it is"
NAMES = {"limb exchanged": "sides exchanged"}  # what the audit calls it, where otherwise

Label = tuple[np.ndarray, np.ndarray, np.ndarray]  # keypoints (J, 2), visible (J,), box (4,) xyxy


def faulty(
    kind: str, person: Person, others: list[Person], size: tuple[int, int], skeleton: Skeleton,
    generator: np.random.Generator,
) -> Label | None:  # fmt: skip
    """A person's label with one fault of a kind; None where it cannot have that.

    Args:
        others: the other persons of the picture; of a picture without, any others.
        size: (width, height) of the picture.
    """
    keypoints, visible, box = person.keypoints.copy(), person.visible.copy(), person.box.copy()
    seen, order = visible > 0, np.array(skeleton.flip_order)
    reach = np.array(skeleton.sigmas) * 2 * math.sqrt(-2 * max(person.area, 1.0) * math.log(FAR))
    if kind in ("sides exchanged", "limb exchanged"):
        apart = np.linalg.norm(keypoints - keypoints[order], axis=1)
        far = seen & seen[order] & (apart > reach)
        pairs = [pair for pair in skeleton.pairs if far[pair[0]]]
        if len(pairs) < (3 if kind == "sides exchanged" else 1):
            return None
        pairs = [pairs[generator.integers(len(pairs))]] if kind == "limb exchanged" else list(skeleton.pairs)
        old = np.concatenate([np.array(pairs), np.array(pairs)[:, ::-1]])
        keypoints[old[:, 0]], visible[old[:, 0]] = person.keypoints[old[:, 1]], person.visible[old[:, 1]]
    elif kind == "wrong person":
        others = [other for other in others if (other.visible > 0).sum() >= LEAST_JOINTS]
        if not others:
            return None
        others.sort(key=lambda one: np.hypot(*(one.box[:2] + one.box[2:] - box[:2] - box[2:])))
        other = others[0]
        keypoints, visible = other.keypoints.copy(), other.visible.copy()
        if other.image_id != person.image_id:  # moved into the box
            other = others[generator.integers(len(others))]
            keypoints, visible = other.keypoints.copy(), other.visible.copy()
            scale = (box[2:] - box[:2]) / (other.box[2:] - other.box[:2])
            keypoints = (keypoints - other.box[:2]) * scale + box[:2]
    elif kind == "misplaced joint":
        joint = generator.choice(np.flatnonzero(seen))
        places = generator.uniform(box[:2], box[2:], (TRIES, 2))
        places = places[np.linalg.norm(places - keypoints[joint], axis=1) > reach[joint]]
        if not len(places):
            return None
        keypoints[joint] = places[0]
    elif kind == "missing joint":
        joint = generator.choice(np.flatnonzero(visible == 2)) if (visible == 2).any() else None
        if joint is None:
            return None
        keypoints[joint], visible[joint] = 0, 0
    else:
        wide = box[2:] - box[:2]
        people = np.array([one.box for one in others if one.image_id == person.image_id] + [box])
        for _ in range(TRIES):
            wide = np.minimum(wide, np.array(size)) * 0.99
            corner = generator.uniform([0, 0], np.array(size) - wide)
            low, high = np.maximum(people[:, :2], corner), np.minimum(people[:, 2:], corner + wide)
            common = np.prod(np.maximum(high - low, 0), axis=1)
            smaller = np.minimum(np.prod(people[:, 2:] - people[:, :2], axis=1), np.prod(wide))
            if (common <= MOST_OVERLAP * smaller).all():
                break
        else:
            return None
        keypoints = (keypoints - box[:2]) * (wide / (box[2:] - box[:2])) + corner
        box = np.concatenate([corner, corner + wide])
    keypoints[visible == 0] = 0
    return keypoints, visible, box


def surroundings(annotations: Annotations, person: Person) -> tuple[list[Person], tuple[int, int]]:
    """Whom a fault may be taken from, the others of the picture where there are any; the picture's size."""
    others = [one for one in annotations.persons if one is not person]
    record = annotations.images[person.image_id]
    return [one for one in others if one.image_id == person.image_id] or others, (record.width, record.height)


Table = list[
    dict[str, tuple[Person, Evidence]]
]  # of each person, by kind of fault: label, what the model says


def look_at_all(annotations: Annotations, folder: Path, network: Network, seed: int = 1) -> Table:
    """What a network says of the labels of all persons, and of each with one fault of every kind."""
    pictures, persons = find_pictures(annotations, folder, persons_only=True), annotations.persons
    table: Table = []
    for index, person in enumerate(tqdm(persons)):
        record, generator = annotations.images[person.image_id], np.random.default_rng([seed, index])
        around = surroundings(annotations, person)
        labels = {GOOD: person}
        for kind in KINDS if (person.visible > 0).sum() >= LEAST_JOINTS else ():
            changed = faulty(kind, person, *around, annotations.skeleton, generator)
            if changed is not None:
                keypoints, visible, box = changed
                labels[kind] = replace(person, keypoints=keypoints, visible=visible, box=box)
        found = look(network, pictures.read(record), list(labels.values()), annotations.skeleton)
        table.append(dict(zip(labels, zip(labels.values(), found, strict=True), strict=True)))
    return table


def measure(table: Table, skeleton: Skeleton, seed: int = 0) -> str:
    """Precision of as many first labels as have a fault, and recall by kind: the mean of DRAWS draws."""
    generator, count = np.random.default_rng(seed), max(1, round(SHARE * len(table)))
    hits, done, named = Counter(), Counter(), Counter()
    for _ in range(DRAWS):
        faults: dict[int, str] = {}
        for row in generator.permutation(len(table)):
            kind = KINDS[generator.integers(len(KINDS))]
            if kind in table[row] and len(faults) < count:
                faults[int(row)] = kind
        labels = [table[row][faults.get(row, GOOD)] for row in range(len(table))]
        done.update(faults.values())
        for suspicion in rank(*map(list, zip(*labels, strict=True)), skeleton)[:count]:
            if kind := faults.get(suspicion.row):
                hits[kind] += 1
                named[kind] += suspicion.fault == NAMES.get(kind, kind)
    precision = f"precision in the first {count} {hits.total() / done.total():.2f}"
    lines = [f"{len(table)} labels, faults in {count}, {DRAWS} draws: {precision}"]
    for kind in KINDS:
        share, right = hits[kind] / max(done[kind], 1), named[kind] / max(hits[kind], 1)
        lines.append(f"{kind:16} found {share:.2f}, of these named so {right:.2f}")
    return "\n".join(lines)


if __name__ == "__main__":
    truth = read_annotations(sys.argv[1]).labelled()
    chosen = np.random.default_rng(0).permutation(len(truth.persons))[: int((sys.argv[3:] or [10**9])[0])]
    truth = replace(truth, persons=[truth.persons[row] for row in sorted(chosen)])
    print(measure(look_at_all(truth, Path(sys.argv[2]), load_network()), truth.skeleton))
