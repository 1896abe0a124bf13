"""``diffusionpose compare``: two results on the same pictures, and whether their difference is clear."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from diffusionpose.app.options import AnyFolder, File, Joints, make_folder, progress_of, say
from diffusionpose.data.annotations import read_truth
from diffusionpose.errors import InputError, write_file
from diffusionpose.evaluation.compare import (
    Curves,
    Difference,
    accuracy_curves,
    compare_results,
    match_both,
    plot_comparison,
)
from diffusionpose.evaluation.metrics import read_results
from diffusionpose.json_files import printable, write_json
from diffusionpose.skeletons import get_skeleton

LEGEND = 60  # letters of a path that it has room for


@dataclass(frozen=True)
class CompareCommand:
    """Compare two methods on the same pictures.

    FIRST and SECOND are COCO keypoint results of whatever origin, such as the keypoints.json that
    `diffusionpose evaluate` writes. Prints AP, AR and, where both have a pose in every annotated box, PCK
    (at 0.2 of the torso), with the difference (second - first) and its 95 % interval over draws of
    pictures, the same for both (a paired bootstrap). An interval that leaves 0 out is a clear difference
    as far as the pictures go; how far another training would move it, only other seeds can tell.
    """

    first: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="FIRST.json")]]
    """The yardstick."""
    second: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="SECOND.json")]]
    """What is compared with it."""
    annotations: File
    """The truth: COCO-style JSON, or AI Challenger's own."""
    skeleton: Joints = None
    """Joints of the results, where they are not the annotation file's: coco, crowdpose, aic or YAML."""
    rounds: int = 200
    """Draws of pictures; each costs two evaluations."""
    seed: int = 0
    """Of the draws."""
    output: AnyFolder = None
    """Folder for comparison.json, and comparison.png: AP by strictness, PCK by distance and by joint."""

    def run(self) -> int:
        """Compare, print, write; 0 if every entry could be used."""
        if self.rounds < 1:
            raise InputError(f"--rounds {self.rounds}: must be 1 or more")
        if self.output is not None:
            make_folder(self.output)
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
            progress=progress_of("draws"),
        )
        if not found:
            raise InputError(f"{self.annotations}: no labelled person to compare the poses of")
        print(f"first   {self.first}\nsecond  {self.second}")
        print(table(found))
        if self.output is not None:
            self._write(self.output, found, [accuracy_curves(truth, rows) for rows in (first, second)])
        return 1 if truth.dropped else 0

    def _write(self, folder: Path, found: dict[str, Difference], curves: Sequence[Curves]) -> None:
        given = ("first", "second", "annotations")
        metrics = {
            name: {
                "first": each.first,
                "second": each.second,
                "difference": each.value,
                "interval_95": each.interval,
            }
            for name, each in found.items()
        }
        content = {**{name: str(getattr(self, name)) for name in given}, "rounds": self.rounds}
        write_json(folder / "comparison.json", {**content, "seed": self.seed, "metrics": metrics})
        names = [printable(str(path))[-LEGEND:] for path in (self.first, self.second)]
        figure = plot_comparison(*zip(names, curves, strict=True))
        write_file(folder / "comparison.png", lambda part: figure.savefig(part, dpi=140, format="png"))
        print(folder / "comparison.json", folder / "comparison.png", sep="\n")


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
