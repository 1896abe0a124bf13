"""Opening every picture of a data set once: is it whole, and what is it like."""

from __future__ import annotations

import hashlib
import os
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from diffusionpose.data.annotations import Listing, read_listing
from diffusionpose.data.check_annotations import (
    Finding,
    KeepFaults,
    Severity,
    check_listing,
    facing_camera,
    file_exchanged,
    find_exchanged,
    person_finding,
)
from diffusionpose.errors import InputError
from diffusionpose.runtime.images import read_recorded_image
from diffusionpose.skeletons import Skeleton

MAX_WORKERS = 8
FEW = 200  # pictures; below, starting processes takes longer than reading
AT_ONCE = 32  # pictures a process takes at a time
FLAT = 2.0  # grey levels of deviation; a picture flatter than this has no look of its own


@dataclass(frozen=True)
class Request:
    """A picture to open, with the (width, height) its annotations were made at; 0 where unknown."""

    path: Path
    width: int
    height: int


@dataclass(frozen=True)
class PictureFacts:
    """What opening a picture found.

    Attributes:
        fault: "" where it can be used; else "missing", "unreadable" or "size" (not that of the record).
        message: what is wrong and the cure.
        file_digest: SHA-256 of the file's bytes; b"" where it cannot be read.
        pixel_digest: SHA-256 of size and RGB pixels; b"" where it cannot be decoded.
        look: :func:`look_of` the picture; None where it cannot be decoded or is of one colour.
        mirrored: the look of its mirror image.
    """

    fault: str = ""
    message: str = ""
    file_digest: bytes = b""
    pixel_digest: bytes = b""
    look: int | None = None
    mirrored: int | None = None


def open_pictures(
    requests: Sequence[Request],
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[Request, PictureFacts]:
    """The facts of every picture, each opened once; some 400 bytes a picture stay in memory.

    Args:
        requests: may repeat.
        workers: processes that decode; None takes one a core, up to ``MAX_WORKERS``, and none for few
            pictures; 0 decodes in this process.
        progress: gets the number done and that of all.
    """
    unique = list(dict.fromkeys(requests))
    if workers is None:
        workers = min(MAX_WORKERS, os.cpu_count() or 1) if len(unique) >= FEW else 0
    facts = {}
    for request, found in zip(unique, _opened(unique, workers), strict=True):
        facts[request] = found
        if progress is not None:
            progress(len(facts), len(unique))
    return facts


def _opened(requests: Sequence[Request], workers: int) -> Iterator[PictureFacts]:
    if workers == 0:
        yield from map(facts_of, requests)
        return
    pool = ProcessPoolExecutor(workers, initializer=_start_worker)
    try:
        yield from pool.map(facts_of, requests, chunksize=AT_ONCE)
    finally:
        pool.shutdown(cancel_futures=True)


def _start_worker() -> None:
    """Each worker is one core's work, and Ctrl-C is for the process that waits for them."""
    import cv2

    cv2.setNumThreads(0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def facts_of(request: Request) -> PictureFacts:
    """Open one picture."""
    fault = message = ""
    image = None
    try:
        image = read_recorded_image(request.path, request.width, request.height)
    except InputError as error:
        message = str(error)
        fault = "unreadable" if _exists(request.path) else "missing"
    if fault == "unreadable" and (request.width, request.height) != (0, 0):
        try:
            image = read_recorded_image(request.path, 0, 0)
            fault = "size"
        except InputError:  # unreadable at any size
            pass
    file_digest = _file_digest(request.path)
    if image is None:
        return PictureFacts(fault, message, file_digest)
    pixels = hashlib.sha256(repr(image.shape).encode() + image.tobytes()).digest()
    look, mirrored = look_of(image)
    return PictureFacts(fault, message, file_digest, pixels, look, mirrored)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a name longer than any file's, or a folder that may not be entered: nobody can tell
        return True


def _file_digest(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except (OSError, ValueError):  # said already by the reader of pictures
        return b""


def look_of(image: np.ndarray) -> tuple[int | None, int | None]:
    """A perceptual hash of 63 bits, and that of the mirror image.

    Each bit says whether one of the 63 lowest frequencies of the picture, in grey at 32 x 32, is above their
    median; so scale, compression, brightness and contrast hardly matter. Mirroring changes the sign of
    the odd horizontal frequencies.

    Args:
        image: (H, W, 3) uint8 RGB.

    Returns:
        Two numbers to compare by the bits they differ in; None and None for a picture of one colour.
    """
    import cv2

    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey, (32, 32), interpolation=cv2.INTER_AREA).astype(np.float32)
    if small.std() < FLAT:
        return None, None
    low = cv2.dct(small)[:8, :8]
    mirrored = low * np.where(np.arange(8) % 2, -1, 1)
    return _bits(low), _bits(mirrored)


def _bits(low: np.ndarray) -> int:
    values = low.ravel()[1:]  # without the mean brightness
    return int.from_bytes(np.packbits(values > np.median(values)).tobytes())


# Checks of the pictures of a data set: whole, each listed once, none both in training and validation

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
    ids = {number for number, good in zip(source.listing.image_ids, labelled, strict=True) if good}
    records = list(zip(source.requests(), source.listing.records, strict=True))
    used = {request for request, record in records if record.id in ids}  # perhaps under another id
    told = set()
    for request, record in records:
        fact = facts[request]
        if not fact.fault or request in told:
            continue
        told.add(request)
        check, cure = FAULTS[fact.fault]
        severity: Severity = "error" if request in used else "warning"
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


# The whole check of a data set: its files, its pictures, training against validation


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
