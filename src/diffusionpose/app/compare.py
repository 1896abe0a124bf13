"""``diffusionpose compare``: two results on the same pictures, and whether their difference is clear."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from diffusionpose.app.options import File, Joints
from diffusionpose.app.output import make_folder, show_progress, write_json
from diffusionpose.errors import InputError
from diffusionpose.skeletons import get_skeleton

if TYPE_CHECKING:
    from diffusionpose.evaluation.comparison import Difference

Results = Annotated[Path, tyro.conf.arg(metavar="RESULTS.json")]


@dataclass(frozen=True)
class CompareCommand:
    """Compare two methods on the same pictures.

    FIRST and SECOND are COCO keypoint results of whatever origin, such as the keypoints.json that
    `diffusionpose evaluate` writes. Prints AP, AR and, where both have a pose in every annotated box, PCK
    (at 0.2 of the torso), with the difference (second - first) and its 95 % interval over draws of
    pictures, the same for both (a paired bootstrap). An interval that leaves 0 out is a clear difference
    as far as the pictures go; how far another training would move it, only other seeds can tell.
    """

    first: tyro.conf.Positional[Results]
    """The yardstick."""
    second: tyro.conf.Positional[Results]
    """What is compared with it."""
    annotations: File
    """The truth: COCO-style JSON, or AI Challenger's own."""
    skeleton: Joints = None
    """Joints of the annotation file: coco, crowdpose, aic or a YAML file."""
    rounds: int = 200
    """Draws of pictures; each costs two evaluations."""
    seed: int = 0
    """Of the draws."""
    output: Annotated[Path | None, tyro.conf.arg(metavar="DIR", help_behavior_hint="")] = None
    """Folder for comparison.json; made if it is not there."""

    def run(self) -> int:
        """Compare, print, write; 0."""
        if self.rounds < 1:
            raise InputError(f"--rounds {self.rounds}: must be 1 or more")
        if self.output is not None:
            make_folder(self.output)
        from diffusionpose.data.annotations import read_annotations
        from diffusionpose.evaluation.comparison import compare_results

        truth = read_annotations(self.annotations, get_skeleton(self.skeleton) if self.skeleton else None)
        found = compare_results(
            truth,
            _read(self.first),
            _read(self.second),
            rounds=self.rounds,
            seed=self.seed,
            progress=partial(show_progress, what="draws") if sys.stderr.isatty() else None,
        )
        if not found:
            raise InputError(f"{self.annotations}: no labelled person to compare the poses of")
        print(f"first   {self.first}\nsecond  {self.second}\n{table(found)}")
        if self.output is not None:
            write_json(self.output / "comparison.json", self._entries(found))
            print(self.output / "comparison.json")
        return 0

    def _entries(self, found: dict[str, Difference]) -> dict[str, Any]:
        return {
            "first": str(self.first),
            "second": str(self.second),
            "annotations": str(self.annotations),
            "rounds": self.rounds,
            "seed": self.seed,
            "metrics": {
                name: {
                    "first": each.first,
                    "second": each.second,
                    "difference": each.value,
                    "interval_95": each.interval,
                }
                for name, each in found.items()
            },
        }


def table(found: dict[str, Difference]) -> str:
    """One line for each metric."""
    width = max(map(len, found))
    lines = [f"{'metric':<{width}}   first  second  difference   95 % of the difference"]
    for name, each in found.items():
        low, high = each.interval
        better = "second" if each.value > 0 else "first"
        verdict = f"{better} is better" if each.clear else "not clear"
        lines.append(
            f"{name:<{width}}  {each.first:6.4f}  {each.second:6.4f}     {each.value:+.4f}   "
            f"{low:+.4f} to {high:+.4f}   {verdict}"
        )
    return "\n".join(lines)


def _read(path: Path) -> list[dict[str, Any]]:
    from diffusionpose.data.json_files import entries_with, read_json

    content = read_json(path)
    if not isinstance(content, list):
        raise InputError(
            f"{path}: not a list of poses; give COCO results, such as the keypoints.json of an evaluation"
        )
    return entries_with(path, "results", content, ("image_id", "keypoints", "score"))
