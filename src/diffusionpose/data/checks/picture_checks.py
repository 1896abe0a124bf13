"""Checks of the pictures of a data set: whole, each listed once, none both in training and validation."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from diffusionpose.data.checks.findings import Finding, Severity
from diffusionpose.data.checks.picture_facts import PictureFacts, Request
from diffusionpose.data.listing import Listing

# Bits of 63 in which near-copies may differ; measured in docs/checks.md. Mirror images get fewer.
NEAR, NEAR_MIRRORED = 6, 4
ROWS = 64  # validation pictures compared at a time, to keep memory flat

# What stands at the end of the message of the reader of pictures, as the cure in a finding
FAULTS = {
    "missing": ("missing picture", "check the path"),
    "unreadable": ("unreadable picture", "copy or download it again"),
    "size": ("picture size", "use the picture they belong to"),
}


@dataclass(frozen=True, eq=False)
class Source:
    """A set to check: what its file lists, and the folder of its pictures."""

    listing: Listing
    folder: Path
    validation: bool = False

    def requests(self) -> list[Request]:
        """Its pictures, in the order of the records."""
        return [Request(self.folder / r.file_name, r.width, r.height) for r in self.listing.records]


@dataclass(frozen=True)
class _Copy:
    """A picture of a source, for comparing."""

    file: str
    name: str
    path: Path
    validation: bool
    facts: PictureFacts


def check_pictures(sources: Sequence[Source], facts: dict[Request, PictureFacts]) -> list[Finding]:
    """Pictures that cannot be used, and pictures that are there more than once."""
    copies: dict[tuple[str, str], _Copy] = {}
    found: list[Finding] = []
    for source in sources:
        found += _unusable(source, facts)
        for request, record in zip(source.requests(), source.listing.records, strict=True):
            file, name = str(source.listing.path), record.file_name
            # under the same name in the same file: that is the check of file names
            copy = _Copy(file, name, request.path, source.validation, facts[request])
            copies.setdefault((f"{file} {source.validation}", name), copy)
    leaked: set[bytes] = set()
    for digest, group in _groups(copies.values()):
        found.append(_repeated(group))
        if {copy.validation for copy in group} == {True, False}:
            leaked.add(digest)
    return [*found, *_near_copies(list(copies.values()), leaked)]


def _unusable(source: Source, facts: dict[Request, PictureFacts]) -> Iterator[Finding]:
    labelled = source.listing.labelled()
    used = {number for number, good in zip(source.listing.image_ids, labelled, strict=True) if good}
    told = set()
    for request, record in zip(source.requests(), source.listing.records, strict=True):
        fact = facts[request]
        if not fact.fault or request in told:
            continue
        told.add(request)
        check, cure = FAULTS[fact.fault]
        severity: Severity = "error" if record.id in used else "warning"
        message = fact.message.removesuffix(f"; {cure}")
        if severity == "warning":
            cure = f"{cure}; it has no labelled person"
        yield Finding(check, severity, str(source.listing.path), message, cure, record.file_name)


def _groups(copies: Iterable[_Copy]) -> list[tuple[bytes, list[_Copy]]]:
    """Pictures of the same pixels, or the same file where it cannot be decoded: two and more of each."""
    groups: dict[bytes, list[_Copy]] = {}
    for copy in copies:
        digest = copy.facts.pixel_digest or copy.facts.file_digest
        if digest:
            groups.setdefault(digest, []).append(copy)
    return [(digest, group) for digest, group in groups.items() if len(group) > 1]


def _repeated(group: list[_Copy]) -> Finding:
    """Training and validation share the picture, or one of them has it several times."""
    train = [copy for copy in group if not copy.validation]
    validation = [copy for copy in group if copy.validation]
    leaks = bool(train and validation)
    first, second = (train[0], validation[0]) if leaks else group[:2]
    same = "the same file" if first.facts.file_digest == second.facts.file_digest else "saved anew"
    more = f", {len(group)} times in all" if len(group) > 2 else ""
    message = f"{first.path} and {second.path} have the same pixels ({same}){more}"
    if leaks:
        cure = "remove it from one of the two: the validation knows the answer"
        return Finding("picture in train and val", "error", second.file, message, cure, second.name)
    cure = "keep one, with the annotations of all"
    return Finding("picture listed twice", "warning", second.file, message, cure, second.name)


def _near_copies(copies: list[_Copy], leaked: set[bytes]) -> Iterator[Finding]:
    """For each validation picture the training picture that looks most like it, where that is close."""
    usable = [c for c in copies if c.facts.look is not None and c.facts.pixel_digest not in leaked]
    train = [copy for copy in usable if not copy.validation]
    validation = [copy for copy in usable if copy.validation]
    if not train:
        return
    looks = np.asarray([[c.facts.look, c.facts.mirrored] for c in train], dtype=np.uint64)
    for start in range(0, len(validation), ROWS):
        part = validation[start : start + ROWS]
        wanted = np.asarray([c.facts.look for c in part], dtype=np.uint64)
        bits = np.bitwise_count(wanted[:, None, None] ^ looks)  # (validation, train, plain or mirrored)
        for copy, differing in zip(part, bits, strict=True):
            plain, mirrored = differing.argmin(axis=0)
            if differing[plain, 0] <= NEAR:
                yield _near(copy, train[plain], "", differing[plain, 0])
            elif differing[mirrored, 1] <= NEAR_MIRRORED:
                yield _near(copy, train[mirrored], "the mirror image of ", differing[mirrored, 1])


def _near(copy: _Copy, twin: _Copy, how: str, bits: int) -> Finding:
    message = f"{copy.path} looks like {how}{twin.path} ({bits} of 63 bits differ)"
    cure = "look at both; pictures of one scene belong to one of the two sets"
    return Finding("near-copy in train and val", "warning", copy.file, message, cure, copy.name)
