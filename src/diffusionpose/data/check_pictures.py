"""Checks of the pictures of a data set: whole, each listed once, none both in training and validation."""

from __future__ import annotations

import hashlib
import os
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from diffusionpose.data.annotations import Annotations, Finding, Severity
from diffusionpose.errors import InputError
from diffusionpose.json_files import Id
from diffusionpose.runtime.images import exif_orientation, read_recorded_image

MAX_WORKERS = 8
FEW = 200  # pictures; below, starting processes takes longer than reading
AT_ONCE = 32  # pictures a process takes at a time
FLAT = 2.0  # grey levels of deviation; a picture flatter than this has no look of its own
# Bits of 63 in which near-copies may differ; measured in docs/checks.md. Mirror images get fewer.
NEAR, NEAR_MIRRORED = 6, 4
ROWS = 64  # validation pictures compared at a time, to keep memory flat

# What stands at the end of the message of the reader of pictures, as the cure in a finding
FAULTS = {
    "missing": ("missing picture", "check the path"),
    "unreadable": ("unreadable picture", "copy or download it again"),
    "size": ("picture size", "use the picture they belong to"),
}


@dataclass(frozen=True)
class PictureFile:
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
        turned: what to say of its EXIF orientation; "" where there is none, or only one way fits the record.
    """

    fault: str = ""
    message: str = ""
    file_digest: bytes = b""
    pixel_digest: bytes = b""
    look: int | None = None
    mirrored: int | None = None
    turned: str = ""


@dataclass(frozen=True, eq=False)
class SetPictures:
    """The pictures of an annotation file, and where they are by image id."""

    annotations: Annotations
    paths: dict[Id, Path]
    validation: bool = False

    def files(self) -> list[PictureFile]:
        """Its pictures, in the order of the records."""
        records = self.annotations.images.values()
        return [PictureFile(self.paths[r.id], r.width, r.height) for r in records]


def check_pictures(
    sets: Sequence[SetPictures],
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Finding]:
    """Pictures that cannot be used, that may be meant another way up, and that are there more than once.

    Args:
        sets: the pictures of each file.
        workers: processes that decode; None takes one a core, up to ``MAX_WORKERS``, and none for few
            pictures; 0 decodes in this process.
        progress: gets the number of pictures opened and that of all.
    """
    facts = open_pictures([file for one in sets for file in one.files()], workers, progress)
    copies: dict[tuple[str, bool, str], _Copy] = {}
    found: list[Finding] = []
    for one in sets:
        found += _unusable(one, facts)
        for file, record in zip(one.files(), one.annotations.images.values(), strict=True):
            source, name = str(one.annotations.path), record.file_name
            if facts[file].turned:
                cure = "it is turned where that fits the record; check that its annotations are made so, too"
                what = f"{name} {facts[file].turned}"
                found.append(Finding("EXIF orientation", "warning", source, what, cure, name))
            # under the same name in the same file: that is the check of file names
            copy = _Copy(source, name, file.path, one.validation, facts[file])
            copies.setdefault((source, one.validation, name), copy)
    leaked: set[bytes] = set()
    for digest, group in _groups(copies.values()):
        found.append(_repeated(group))
        if {copy.validation for copy in group} == {True, False}:
            leaked.add(digest)
    return [*found, *_near_copies(list(copies.values()), leaked)]


def open_pictures(
    files: Sequence[PictureFile],
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[PictureFile, PictureFacts]:
    """The facts of every picture, each opened once; some 400 bytes a picture stay in memory."""
    unique = list(dict.fromkeys(files))
    if workers is None:
        workers = min(MAX_WORKERS, os.cpu_count() or 1) if len(unique) >= FEW else 0
    facts = {}
    for file, found in zip(unique, _opened(unique, workers), strict=True):
        facts[file] = found
        if progress is not None:
            progress(len(facts), len(unique))
    return facts


def _opened(files: Sequence[PictureFile], workers: int) -> Iterator[PictureFacts]:
    if workers == 0:
        yield from map(facts_of, files)
        return
    pool = ProcessPoolExecutor(workers, initializer=_start_worker)
    try:
        yield from pool.map(facts_of, files, chunksize=AT_ONCE)
    finally:
        pool.shutdown(cancel_futures=True)


def _start_worker() -> None:
    """Each worker is one core's work, and Ctrl-C is for the process that waits for them."""
    import cv2

    cv2.setNumThreads(0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def facts_of(file: PictureFile) -> PictureFacts:
    """Open one picture."""
    fault = message = ""
    image = None
    try:
        image = read_recorded_image(file.path, file.width, file.height)
    except InputError as error:
        message = str(error)
        fault = "unreadable" if _exists(file.path) else "missing"
    if fault == "unreadable" and (file.width, file.height) != (0, 0):
        try:
            image = read_recorded_image(file.path, 0, 0)
            fault = "size"
        except InputError:  # unreadable at any size
            pass
    if image is None:
        return PictureFacts(fault, message, _file_digest(file.path))
    pixels = hashlib.sha256(repr(image.shape).encode() + image.tobytes()).digest()
    look, mirrored = look_of(image)
    turned = "" if fault else _turned(file)
    return PictureFacts(fault, message, _file_digest(file.path), pixels, look, mirrored, turned)


def _turned(file: PictureFile) -> str:
    """What to say of a picture that is stored another way up than it is shown."""
    orientation, stored = exif_orientation(file.path)
    if orientation == 1 or not file.width:
        return ""
    if orientation < 5 or stored[0] == stored[1]:
        return f"has the EXIF orientation {orientation}, and the recorded size fits it turned or not"
    if stored == (file.width, file.height):
        return f"has the EXIF orientation {orientation}, and the recorded size is that before turning it"
    return ""


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # too long a name, or a folder that may not be entered: nobody can tell
        return True


def _file_digest(path: Path) -> bytes:
    try:
        if not path.is_file():  # a pipe or a device may never end
            return b""
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


@dataclass(frozen=True)
class _Copy:
    """A picture of a set, for comparing."""

    file: str
    name: str
    path: Path
    validation: bool
    facts: PictureFacts


def _unusable(one: SetPictures, facts: dict[PictureFile, PictureFacts]) -> Iterator[Finding]:
    ids = {person.image_id for person in one.annotations.labelled().persons}
    records = list(zip(one.files(), one.annotations.images.values(), strict=True))
    used = {file for file, record in records if record.id in ids}  # perhaps under another id
    told = set()
    for file, record in records:
        fact = facts[file]
        if not fact.fault or file in told:
            continue
        told.add(file)
        check, cure = FAULTS[fact.fault]
        severity: Severity = "error" if file in used else "warning"
        message = fact.message.removesuffix(f"; {cure}")
        if severity == "warning":
            cure = f"{cure}; it has no labelled person"
        yield Finding(check, severity, str(one.annotations.path), message, cure, record.file_name)


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


def _near(copy: _Copy, twin: _Copy, mirrored: str, bits: int) -> Finding:
    message = f"{copy.path} looks like {mirrored}{twin.path} ({bits} of 63 bits differ)"
    cure = "look at both; pictures of one scene belong to one of the two sets"
    return Finding("near-copy in train and val", "warning", copy.file, message, cure, copy.name)
