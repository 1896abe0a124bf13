"""Measure `diffusionpose refine`: make poses with PoseFix's errors from true ones, and score results files.

python examples/refine_errors.py make ANNOTATIONS.json RESULTS.json    # seeded; one pose for each person
python examples/refine_errors.py score ANNOTATIONS.json RESULTS.json   # AP and PCK, every person's own pose
"""

import json
import sys
from pathlib import Path

import numpy as np

from diffusionpose.data.annotations import Annotations, read_annotations
from diffusionpose.data.pose_errors import KINDS, PoseErrors
from diffusionpose.evaluation.evaluate import result_row, score_results


def make(truth: Annotations, output: Path, seed: int = 0) -> None:
    """Write a results file: each labelled person with errors, its unlabelled joints with score 0."""
    generator, persons = np.random.default_rng(seed), truth.labelled()
    errors, rows, done = PoseErrors(persons), [], []
    for person in persons.persons:
        given = person.visible > 0
        keypoints, kinds = errors(person, generator)
        rows.append(result_row(truth, person, truth.skeleton, keypoints, given.astype(np.float32)))
        done.extend(kinds[given])
    output.write_text(json.dumps(rows))
    shares = np.bincount(done, minlength=len(KINDS)) / len(done)
    print(", ".join(f"{kind} {share:.1%}" for kind, share in zip(KINDS, shares, strict=True)))


def score(truth: Annotations, results: Path) -> None:
    """Print the metrics of a results file that has the labelled persons in their order."""
    persons = truth.labelled()
    rows = json.loads(results.read_text())
    if [row["image_id"] for row in rows] != [person.image_id for person in persons.persons]:
        sys.exit(f"{results}: is not of the labelled persons, each once and in order")
    print(score_results(truth, persons, [{**row, "score": 1.0} for row in rows]).table())


if __name__ == "__main__":
    what, annotations, file = sys.argv[1:]
    {"make": make, "score": score}[what](read_annotations(annotations), Path(file))
