"""Measure `diffusionpose refine`: make poses with PoseFix's errors from true ones, and score results files.

python examples/refine_errors.py make ANNOTATIONS.json RESULTS.json    # seeded; one pose for each person
python examples/refine_errors.py score ANNOTATIONS.json RESULTS.json   # AP and PCK, every person's own pose
python examples/refine_errors.py table ANNOTATIONS.json IMAGES WEIGHTS..   # AP, PCK of starts, refined

WEIGHTS are as of `--weights`, "bundled" for the bundled model. Starts are PoseFix's errors and what each of
the models that need none finds by itself.
"""

import json
import sys
from pathlib import Path

import numpy as np

from diffusionpose.data.annotations import Annotations, read_annotations
from diffusionpose.data.pose_errors import KINDS, PoseErrors
from diffusionpose.evaluation.evaluate import predict_persons, result_row, score_results
from diffusionpose.evaluation.metrics import Row
from diffusionpose.poses import Pose
from diffusionpose.runtime.estimator import PoseEstimator
from diffusionpose.runtime.networks import Network, load_network


def make(truth: Annotations, output: Path, seed: int = 0) -> None:
    """Write a results file: each labelled person with errors, its unlabelled joints with score 0."""
    generator, persons = np.random.default_rng(seed), truth.labelled()
    errors, rows, done = PoseErrors(persons), [], []
    for person in persons.persons:
        given = person.visible > 0
        keypoints, kinds = errors(person, generator)
        rows.append(
            result_row(
                truth, person, Pose(truth.skeleton, keypoints, given.astype(np.float32), person.box, 1.0)
            )
        )
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


def table(truth: Annotations, images: str, weights: list[str]) -> None:
    """Print a row for each start and a column for each model that refines it, in Markdown."""
    networks = {Path(name).name: load_network(None if name == "bundled" else name) for name in weights}
    persons, joints, generator = truth.labelled(), truth.skeleton.joints, np.random.default_rng(0)

    def poses(network: Network, start: np.ndarray | None = None) -> list[Row | None]:
        estimator = PoseEstimator(network, skeleton=truth.skeleton)
        return predict_persons(estimator, persons, images, start)[0]

    def cell(rows: list[Row | None]) -> str:
        report = score_results(truth, persons, [row and {**row, "score": 1.0} for row in rows])
        low, high = report.intervals["PCK"] or (0, 0)
        found = [100 * (report.metrics[name] or 0) for name in ("AP", "PCK")]
        return f"{found[0]:.1f}, {found[1]:.1f} ({100 * low:.1f} to {100 * high:.1f})"

    errors, rows = PoseErrors(persons), []
    for person in persons.persons:
        keypoints, _ = errors(person, generator)
        pose = Pose(truth.skeleton, keypoints, (person.visible > 0).astype(float), person.box, 1.0)
        rows.append(result_row(truth, person, pose))
    starts: dict[str, list[Row | None]] = {"errors as PoseFix's": [*rows]}
    for name, network in networks.items():
        if not network.needs_start:
            starts[f"poses of {name}"] = poses(network)
    refiners = {name: network for name, network in networks.items() if network.takes_start}
    print("| start | itself |", " | ".join(f"refined by {name}" for name in refiners), "|")
    print("|---|---|" + "---|" * len(refiners))
    for name, rows in starts.items():
        nobody = [0.0] * 3 * len(joints)
        start = np.array([row["keypoints"] if row else nobody for row in rows], np.float32)
        start = start.reshape(len(rows), -1, 3).clip(min=0)
        cells = [cell(rows), *(cell(poses(network, start)) for network in refiners.values())]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    what, annotations, *rest = sys.argv[1:]
    if what == "table":
        table(read_annotations(annotations), rest[0], rest[1:])
    else:
        {"make": make, "score": score}[what](read_annotations(annotations), Path(rest[0]))
