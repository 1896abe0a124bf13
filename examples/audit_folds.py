"""Measure `diffusionpose data audit --folds`: put faults into a file before models are trained on it.

python examples/audit_folds.py CLEAN.json FAULTY.json            # a fault in 5 % of the persons
python examples/audit_folds.py FAULTY.json AUDIT/audit.json ...  # how many of them each audit lists first
"""

import json
import sys
from collections import Counter
from pathlib import Path

import numpy as np
from audit_faults import KINDS, LEAST_JOINTS, SHARE, faulty, surroundings

from diffusionpose.data.annotations import read_annotations


def put_faults(clean: Path, result: Path, seed: int = 0) -> None:
    """Write the annotations with faults of all kinds; an entry that has one says so in ``fault``."""
    annotations, content = read_annotations(clean).labelled(), json.loads(clean.read_text())
    generator, persons = np.random.default_rng(seed), annotations.persons
    entries = {entry["id"]: entry for entry in content["annotations"]}
    left = round(SHARE * len(persons))
    for row in generator.permutation(len(persons)):
        person, kind = persons[row], KINDS[generator.integers(len(KINDS))]
        if not left or (person.visible > 0).sum() < LEAST_JOINTS:
            continue
        around = surroundings(annotations, person)
        changed = faulty(kind, person, *around, annotations.skeleton, generator)
        if changed is not None:
            keypoints, visible, (x0, y0, x1, y1) = changed
            numbers = np.column_stack([keypoints, visible]).ravel().astype(float).round(1).tolist()
            box = [round(float(number), 1) for number in (x0, y0, x1 - x0, y1 - y0)]
            entries[person.id].update(keypoints=numbers, bbox=box, fault=kind)
            left -= 1
    result.write_text(json.dumps(content))


def score(faulty_file: Path, audit: Path) -> str:
    """How many of as many first labels as there are faults have one, and the share found of each kind."""
    entries = json.loads(faulty_file.read_text())["annotations"]
    faults = {entry["id"]: entry["fault"] for entry in entries if "fault" in entry}
    first = json.loads(audit.read_text())["labels"][: len(faults)]
    found = [faults[label["annotation"]] for label in first if label["annotation"] in faults]
    hits, put = Counter(found), Counter(faults.values())
    shares = ", ".join(f"{kind} {hits[kind]} of {put[kind]}" for kind in KINDS)
    return f"{audit}: {len(found)} of {len(faults)} ({len(found) / len(faults):.2f}): {shares}"


if __name__ == "__main__":
    first, *others = map(Path, sys.argv[1:])
    if others[0].exists():
        print(*(score(first, audit) for audit in others), sep="\n")
    else:
        put_faults(first, others[0])
