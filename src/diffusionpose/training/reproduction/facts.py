"""What holds for a whole output folder: its data and budget, and the mean pose every model must beat."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from diffusionpose.data.annotations import Annotations, read_annotations
from diffusionpose.errors import InputError
from diffusionpose.files import make_writable
from diffusionpose.skeletons import SKELETONS, get_skeleton
from diffusionpose.training.reproduction.job import Data, complete_settings
from diffusionpose.training.reproduction.written import write_json
from diffusionpose.training.studies import Budget


def settle(output: Path, data: Data, budget: Budget, skeleton: str | None) -> dict[str, Any]:
    """The facts of an output folder: read from it, or found out and written to it.

    Args:
        output: of the studies.
        data: sets, boxes, encoder weights.
        budget: of every training.
        skeleton: as the user gave it; None takes that of the first training file.

    Returns:
        "skeleton", "train" and "val" (file names, pictures, persons), "mean_pose" (metrics).

    Raises:
        InputError: the folder holds studies of other data or another budget, or cannot be written to,
            or a file cannot be used.
    """
    _prepare(output)
    file = output / "reproduce.json"
    key = {
        "budget": budget.base.to_dict(),
        "baseline": budget.baseline,
        **data.digests(),
    }
    if file.exists():
        return _same(file, key, skeleton)
    found = _find_out(data, skeleton)
    write_json(file, {"key": key, "budget": budget.name, "facts": found})
    return found


def _prepare(output: Path) -> None:
    try:
        make_writable(output)
    except OSError as error:
        raise InputError(
            f"--output {output}: no folder that can be written to ({error.strerror}); name another"
        ) from error


def _same(file: Path, key: dict[str, Any], skeleton: str | None) -> dict[str, Any]:
    """The facts of a file whose key is ``key``; InputError for another."""
    try:
        entries = json.loads(file.read_text())
        before, found = entries["key"], entries["facts"]
        before["budget"] = complete_settings(before["budget"])
    except (OSError, ValueError, KeyError, TypeError, InputError) as error:
        raise InputError(
            f"{file}: cannot be read, so what lies in this folder cannot be trusted; give another "
            "--output, or delete this file if data and budget are still the same"
        ) from error
    differing = [name for name in key if before.get(name) != json.loads(json.dumps(key[name]))]
    if skeleton not in (None, found["skeleton"]):
        differing.append("skeleton")
    if differing:
        raise InputError(
            f"{file}: this folder holds studies with other {', '.join(differing)}; "
            "give the same ones to go on, or another --output"
        )
    return found


def _find_out(data: Data, skeleton: str | None) -> dict[str, Any]:
    from diffusionpose.evaluation.evaluate import evaluate_mean_pose
    from diffusionpose.training.data import read_persons

    name = skeleton or _skeleton_of(data.train[0].annotations)
    chosen = get_skeleton(name)
    train = [read_persons(each, chosen) for each in data.train]
    val = read_persons(data.val, chosen)
    together = replace(train[0], persons=[person for each in train for person in each.persons])
    return {
        "skeleton": name,
        "joints": chosen.num_joints,
        "train": [_counts(each) for each in train],
        "val": _counts(val),
        "boxes": "ground truth" if data.boxes is None else f"detections {data.boxes.name}",
        "mean_pose": evaluate_mean_pose(together, val, chosen).metrics,
    }


def _skeleton_of(path: Path) -> str:
    skeleton = read_annotations(path).skeleton
    if skeleton.name not in SKELETONS:
        raise InputError(f"{path}: its skeleton is not a known one; give --skeleton FILE.yaml")
    return skeleton.name


def _counts(annotations: Annotations) -> dict[str, Any]:
    persons = len(annotations.labelled().persons)
    return {"file": str(annotations.path), "pictures": len(annotations.images), "persons": persons}
