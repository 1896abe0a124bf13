"""The whole check of a data set: its files, its pictures, training against validation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from diffusionpose.data.annotations import read_listing
from diffusionpose.data.checks.annotation_checks import check_listing, person_finding
from diffusionpose.data.checks.findings import Finding, KeepFaults
from diffusionpose.data.checks.left_right import facing_camera, file_exchanged, find_exchanged
from diffusionpose.data.checks.picture_checks import Source, check_pictures
from diffusionpose.data.checks.picture_facts import open_pictures
from diffusionpose.data.listing import Listing
from diffusionpose.errors import InputError
from diffusionpose.skeletons import Skeleton


@dataclass(frozen=True)
class SetToCheck:
    """An annotation file and the folder of its pictures; None leaves the pictures out."""

    annotations: Path
    images: Path | None = None
    validation: bool = False


@dataclass(frozen=True)
class Count:
    """How much a file lists."""

    file: str
    skeleton: str
    images: int
    persons: int
    labelled: int


@dataclass(frozen=True)
class CheckReport:
    """What a check found, and in how much."""

    counts: list[Count]
    findings: list[Finding]

    @property
    def errors(self) -> int:
        """How many findings are errors."""
        return sum(finding.severity == "error" for finding in self.findings)


def check_sets(
    sets: Sequence[SetToCheck],
    skeleton: Skeleton | None = None,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> CheckReport:
    """Everything wrong or suspicious in some training and validation sets.

    Args:
        sets: those that a training would take together.
        skeleton: of the files; by default the known one whose joint names each lists.
        workers: processes that open pictures; see :func:`open_pictures`.
        progress: gets the number of pictures opened and that of all.

    Raises:
        InputError: a file that cannot be read at all, one that lists nothing, a folder that is missing or
            empty, a skeleton that is not known.
    """
    for one in sets:
        if one.images is not None:
            _require_pictures(one.images)
    counts, findings, sources = [], [], []
    for one in sets:
        kept = KeepFaults()
        listing = read_listing(one.annotations, skeleton, kept)
        file = str(one.annotations)
        if not listing.names and not kept.found:
            raise InputError(f"{file}: lists no persons; give a file with annotations")
        findings += kept.findings(file, {record.id: record.file_name for record in listing.records})
        findings += check_listing(listing)
        findings += _left_and_right(listing)
        labelled = int(listing.labelled().sum())
        counts.append(Count(file, listing.skeleton.name, len(listing.records), len(listing.names), labelled))
        if one.images is not None:
            sources.append(Source(listing, one.images, one.validation))
    facts = open_pictures([r for source in sources for r in source.requests()], workers, progress)
    findings += check_pictures(sources, facts)
    return CheckReport(counts, findings)


def _require_pictures(folder: Path) -> None:
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder of images; check --images and --val-images")
    if next(folder.iterdir(), None) is None:
        raise InputError(f"{folder}: an empty folder; give the one that holds the images")


def _left_and_right(listing: Listing) -> list[Finding]:
    """Warnings, the most suspicious persons first."""
    joints = listing.skeleton.joints
    findings = []
    facing, persons = facing_camera(listing)
    if file_exchanged(facing, persons):
        message = f"only {facing} of {persons} persons face the camera by their shoulders"
        cure = "most people do: left and right seem exchanged in the whole file"
        findings.append(Finding("left/right, file", "warning", str(listing.path), message, cure))
    for suspicion in find_exchanged(listing):
        pair = (joints[suspicion.pair[0]], joints[suspicion.pair[1]])
        what = f"{pair[0]} and {pair[1]} may be exchanged"
        check = f"left/right, {suspicion.rule}"
        cure = "look at it: also a twist, crossed limbs or a face turned away"
        findings.append(person_finding(listing, suspicion.row, check, "warning", what, cure, pair))
    return findings
