"""``diffusionpose compare``: two results on the same pictures, and whether their difference is clear."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from diffusionpose.app.options import File, Joints, make_folder, say, show_progress, write_by, write_json
from diffusionpose.errors import InputError
from diffusionpose.json_files import printable
from diffusionpose.skeletons import get_skeleton

if TYPE_CHECKING:
    from diffusionpose.data.annotations import Annotations
    from diffusionpose.evaluation.compare import Difference
    from diffusionpose.evaluation.metrics import Rows

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
    """Joints of the results, where they are not the annotation file's: coco, crowdpose, aic or YAML."""
    rounds: int = 200
    """Draws of pictures; each costs two evaluations."""
    seed: int = 0
    """Of the draws."""
    output: Annotated[Path | None, tyro.conf.arg(metavar="DIR", help_behavior_hint="")] = None
    """Folder for comparison.json, and comparison.png: AP by strictness, PCK by distance and by joint."""

    def run(self) -> int:
        """Compare, print, write; 0."""
        if self.rounds < 1:
            raise InputError(f"--rounds {self.rounds}: must be 1 or more")
        if self.output is not None:
            make_folder(self.output)
        from diffusionpose.evaluation.compare import compare_results, match_both
        from diffusionpose.evaluation.metrics import read_results, read_truth

        skeleton = get_skeleton(self.skeleton) if self.skeleton else None
        everything = read_truth(self.annotations, skeleton)
        truth, first, second = match_both(
            everything,
            read_results(self.first),
            read_results(self.second),
            skeleton,
            (str(self.first), str(self.second)),
        )
        for message in [*truth.dropped, *truth.doubts]:
            say(message)
        if truth.skeleton.num_joints < everything.skeleton.num_joints:
            joints = ", ".join(truth.skeleton.joints)
            say(f"measured on the {truth.skeleton.num_joints} joints that all have: {joints}")
        found = compare_results(
            truth,
            first,
            second,
            rounds=self.rounds,
            seed=self.seed,
            progress=partial(show_progress, what="draws") if sys.stderr.isatty() else None,
        )
        if not found:
            raise InputError(f"{self.annotations}: no labelled person to compare the poses of")
        print(f"first   {self.first}\nsecond  {self.second}")
        print(table(found))
        if self.output is not None:
            write_json(self.output / "comparison.json", self._entries(found))
            print(self.output / "comparison.json")
            self._plot(self.output / "comparison.png", truth, (first, second))
        return 0

    def _plot(self, path: Path, truth: Annotations, both: Sequence[Rows]) -> None:
        from diffusionpose.evaluation.compare import accuracy_curves, plot_comparison

        curves = [accuracy_curves(truth, rows) for rows in both]
        figure = plot_comparison(*zip(told_apart(self.first, self.second), curves, strict=True))
        write_by(path, lambda part: figure.savefig(part, dpi=140, format="png"))
        print(path)

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


def told_apart(first: Path, second: Path) -> tuple[str, str]:
    """Short names of two files: the last parts of their paths in which they differ.

    ``runs/a/val/keypoints.json`` and ``runs/b/val/keypoints.json`` are a and b.
    """
    backwards = (reversed(path.with_suffix("").parts) for path in (first, second))
    pairs = zip(*backwards, strict=False)
    names = next(((one, other) for one, other in pairs if one != other), ("first", "second"))
    first_name, second_name = (printable(name)[:60] for name in names)
    return first_name, second_name


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
