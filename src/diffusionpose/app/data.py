"""``diffusionpose data``: what is wrong with a data set, found before a long training does."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import FlagCreatePairsOff, arg, subcommand

from diffusionpose.app.options import (
    AnyFile,
    AnyFolder,
    Device,
    File,
    Folder,
    Joints,
    Output,
    counted,
    progress_of,
    refuse,
    say,
    stamp,
)
from diffusionpose.data.annotations import Finding, annotations_in
from diffusionpose.data.check import CheckReport, SetToCheck, check_sets
from diffusionpose.data.pack import PackOptions, pack_persons
from diffusionpose.data.pictures import PACKED_ANNOTATIONS
from diffusionpose.json_files import printable
from diffusionpose.runtime.networks import load_network
from diffusionpose.skeletons import get_skeleton
from diffusionpose.training.settings import image_sets

EXAMPLES = 3
HEADER = f"{'CHECK':28}{'SEVERITY':10}{'COUNT':>6}  EXAMPLES"
INDENT = 46 * " "
Workers = Annotated[int | None, arg(metavar="N", help_behavior_hint="(default: one for each core, up to 8)")]


@dataclass(frozen=True)
class CheckCommand:
    """Look for what is wrong with training and validation data.

    Opens every picture and prints what would make a training fail, lose persons, learn something wrong or
    know the answers (errors; the exit status is then 1), and what is suspicious (warnings; status 0). Several
    training sets are given side by side, as to `diffusionpose train`.
    """

    annotations: tuple[File, ...]
    """Training annotations (COCO form or AI Challenger's own)."""
    images: tuple[Folder, ...] = ()
    """Folder of the training images, one for each annotation file."""
    val_annotations: AnyFile = None
    """Validation annotations."""
    val_images: AnyFolder = None
    """Folder of the validation images."""
    skeleton: Joints = None
    """Joints of the annotation files: coco, crowdpose, aic or a YAML file."""
    no_images: FlagCreatePairsOff[bool] = False
    """Check only the annotation files; no picture is needed."""
    workers: Workers = None
    """Threads that open pictures."""
    json: FlagCreatePairsOff[bool] = False
    """Print every finding as JSON instead of the table."""

    def run(self) -> int:
        """Check, print; 1 if there are errors."""
        half = (self.val_images is None) != (self.val_annotations is None)
        nothing = not self.no_images and not self.images
        refuse(
            (not self.annotations, "data check: --annotations names no file"),
            (nothing, "data check: give --images, or --no-images to check only the annotations"),
            (half and not self.no_images, "data check: --val-images and --val-annotations go together"),
            (self.workers is not None and self.workers < 0, "data check: --workers must be 0 or more"),
        )
        report = check_sets(
            self._sets(),
            None if self.skeleton is None else get_skeleton(self.skeleton),
            self.workers,
            progress_of("pictures"),
        )
        print(json.dumps(_content(report), indent=2) if self.json else _table(report))
        return 1 if report.errors else 0

    def _sets(self) -> list[SetToCheck]:
        if self.no_images:
            sets = [SetToCheck(file) for file in self.annotations]
        else:
            sets = [SetToCheck(x.annotations, x.images) for x in image_sets(self.images, self.annotations)]
        if self.val_annotations is not None:
            folder = None if self.no_images else self.val_images
            sets.append(SetToCheck(self.val_annotations, folder, validation=True))
        return sets


@dataclass(frozen=True)
class AuditCommand:
    """Rank labels by how unlikely a model finds them.

    Writes OUTPUT/audit.html, a page with pictures to look through, the most doubtful label first, with what
    seems wrong (sides exchanged, wrong person, misplaced joint, missing joint, no person), and
    OUTPUT/audit.json, the whole list with a correction for each. Tick what is right, save the list from the
    page, and call it again with --accept. A model knows the labels that it was trained on: take one that
    has not seen these, or --folds (docs/audit.md). An audit that was stopped goes on; where a picture cannot
    be used the others are done, and the exit status is 1.
    """

    annotations: File
    """Annotations in COCO's form, of joints that the model has, or some of them."""
    output: Output
    images: AnyFolder = None
    """Folder of the pictures."""
    accept: AnyFile = None
    """List that the page saved: write OUTPUT/corrected.json, the annotations with these corrections."""
    most: Annotated[int, arg(metavar="N")] = 200
    """Labels on the page; the list has all."""
    folds: Annotated[int | None, arg(metavar="K", help_behavior_hint="")] = None
    """Write OUTPUT/train1.json, .., each without the labels of one fold, to train K models on."""
    weights: Annotated[
        tuple[str, ...], arg(metavar="W...", help_behavior_hint="(default: the bundled model)")
    ] = ()
    """As of other commands; of K models, in the order of their files, each looks at what it has not seen."""
    device: Device = "auto"
    skeleton: Joints = None
    """Joints of the annotations, where the file does not name them."""

    def run(self) -> int:
        """Audit, accept or split; 0 if all could be used."""
        several = [self.images, self.accept, self.folds].count(None) != 2
        refuse(
            (several, "data audit: give --images to audit, --accept to correct, or --folds to split"),
            (self.most < 0, f"data audit: --most {self.most} must be 0 or more"),
        )
        from diffusionpose.app.data_audit import audit, correct, split

        skeleton = None if self.skeleton is None else get_skeleton(self.skeleton)
        if self.accept is not None:
            return correct(self.annotations, self.output, self.accept, skeleton)
        if self.folds is not None:
            return split(self.annotations, self.output, self.folds, skeleton)
        assert self.images is not None
        networks = [load_network(weights, self.device) for weights in self.weights or (None,)]
        known = [stamp(weights) for weights in self.weights]
        return audit(self.annotations, self.images, self.output, networks, skeleton, self.most, known)


@dataclass(frozen=True)
class PackCommand:
    """Cut every labelled person out of its picture, with the margin that augmentation needs.

    Training takes the folder in the place of the pictures and their file: --images OUTPUT --annotations
    OUTPUT/annotations.json. The same command again does an interrupted run over.
    """

    images: Folder
    """Folder of the training images."""
    annotations: File
    """Training annotations (COCO form or AI Challenger's own)."""
    output: Output
    skeleton: Joints = None
    """Joints of the training, where the file has more: coco, crowdpose, aic or a YAML file."""
    input_size: tuple[int, int] = (192, 256)
    """Width and height of the network input; also others of its shape can be trained on."""
    scale: float = 0.35
    """Largest change of a person's size in augmentation."""
    jpeg: Annotated[int | None, arg(metavar="QUALITY", help_behavior_hint="(default: raw pixels)")] = None
    """Keep JPEGs of this quality: a ninth to a quarter of the bytes, slower to read."""
    workers: Workers = None
    """Threads that read pictures."""

    def run(self) -> int:
        """Pack; 0 when all was done, 1 when pictures could not be read."""
        options = PackOptions(self.input_size, self.scale, self.jpeg)
        skeleton = None if self.skeleton is None else get_skeleton(self.skeleton)
        annotations = annotations_in(self.annotations, skeleton)
        for message in annotations.dropped:
            say(message)
        report = pack_persons(
            annotations, self.images, self.output, options, self.workers, progress_of("persons")
        )
        print(f"{self.output / PACKED_ANNOTATIONS}: {counted(report.persons, 'person')}, "
              f"{report.size / 2**20:,.1f} MiB")  # fmt: skip
        for message in [*report.notes, *(f"{message} (left out)" for message in report.left_out)]:
            say(message)
        return 1 if report.left_out or annotations.dropped else 0


@dataclass(frozen=True)
class DataCommand:
    """Look after a data set before training on it."""

    job: Annotated[
        Annotated[CheckCommand, subcommand("check")]
        | Annotated[AuditCommand, subcommand("audit")]
        | Annotated[PackCommand, subcommand("pack")],
        arg(name=""),
    ]

    def run(self) -> int:
        """Do the job; its exit status."""
        return self.job.run()


def _rows(findings: Sequence[Finding]) -> dict[tuple[str, str], list[Finding]]:
    """Findings by severity and check, errors first."""
    rows: dict[tuple[str, str], list[Finding]] = {}
    for finding in sorted(findings, key=lambda f: f.severity):  # "error" comes before "warning"
        rows.setdefault((finding.severity, finding.check), []).append(finding)
    return rows


def _content(report: CheckReport) -> dict[str, Any]:
    rows = _rows(report.findings)
    return {
        "errors": report.errors,
        "warnings": len(report.findings) - report.errors,
        "files": [asdict(count) for count in report.counts],
        "checks": [
            {"check": check, "severity": severity, "count": len(found)}
            for (severity, check), found in rows.items()
        ],
        "findings": [asdict(finding) for found in rows.values() for finding in found],
    }


def _table(report: CheckReport) -> str:
    lines = [
        f"{c.file}: {c.images:,} pictures, {c.persons:,} persons, {c.labelled:,} of them labelled, "
        f"skeleton {c.skeleton}"
        for c in report.counts
    ]
    if report.findings:
        lines.append(HEADER)
    files = [Path(count.file) for count in report.counts]
    alike = len({file.name for file in files}) < len(files)
    shown = {str(file): f"{file if alike else file.name}: " if len(files) > 1 else "" for file in files}
    for (severity, check), found in _rows(report.findings).items():
        examples = []
        for finding in found[:EXAMPLES]:
            image = f"{finding.image}: " if finding.image and finding.image not in finding.message else ""
            examples.append(shown[finding.file] + image + finding.message)
        lines.append(f"{check:28}{severity:10}{len(found):6}  {examples[0]}")
        lines += [INDENT + example for example in [*examples[1:], f"-> {found[0].cure}"]]
    numbers = {"error": report.errors, "warning": len(report.findings) - report.errors}
    summary = ", ".join(
        counted(number, what) if number else f"no {what}s" for what, number in numbers.items()
    )
    return "\n".join([*map(printable, lines), "", summary])
