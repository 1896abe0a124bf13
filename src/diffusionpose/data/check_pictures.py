"""Checks of the pictures of a data set: whole, each listed once, none both in training and validation."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from diffusionpose.data.annotations import Finding
from diffusionpose.errors import InputError
from diffusionpose.runtime.images import exif_orientation, read_recorded_image

MAX_WORKERS = 8
FLAT = 2.0  # grey levels of deviation; a picture flatter than this has no look of its own
# Bits of 63 in which near-copies may differ; measured in docs/checks.md. Mirror images get fewer.
NEAR, NEAR_MIRRORED = 6, 4
ROWS = 64  # validation pictures compared at a time, to keep memory flat

# What stands at the end of the message of the reader of pictures, as the cure in a finding
FAULTS = {
    "missing picture": "check the path",
    "unreadable picture": "copy or download it again",
    "picture size": "use the picture they belong to",
}


class PictureFile(NamedTuple):
    """A picture to open, with the (width, height) its annotations were made at; 0 where unknown."""

    path: Path
    width: int
    height: int


class PictureFacts(NamedTuple):
    """What opening a picture found."""

    fault: str  # a key of FAULTS; "" where the picture can be used
    message: str
    file_digest: bytes  # SHA-256; b"" where it cannot be read
    pixel_digest: bytes = b""  # SHA-256 of size and RGB pixels; b"" where it cannot be decoded
    look: int | None = None  # see look_of; None where it cannot be decoded or is of one colour
    mirrored: int | None = None
    turned: str = ""  # what to say of an EXIF orientation that may not be that of the annotations


class ListedPicture(NamedTuple):
    """A picture of an annotation file; ``used``: labelled persons are in it."""

    source: str  # the annotation file
    name: str
    file: PictureFile
    validation: bool
    used: bool


Copy = tuple[ListedPicture, PictureFacts]


def check_pictures(
    pictures: Sequence[ListedPicture],
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Finding]:
    """Pictures that cannot be used, that may be meant another way up, and that are there more than once.

    Args:
        pictures: of all sets.
        workers: threads that decode; None takes one a core, up to ``MAX_WORKERS``.
        progress: gets the number of pictures opened and that of all.
    """
    facts = open_pictures([picture.file for picture in pictures], workers, progress)
    copies: dict[tuple[str, bool, str], Copy] = {}
    for one in pictures:  # one name twice in one file: that is the check of file names
        copies.setdefault((one.source, one.validation, one.name), (one, facts[one.file]))
    found: list[Finding] = []
    groups: dict[bytes, list[Copy]] = {}
    for one, fact in copies.values():
        found += _faults(one, fact)
        groups.setdefault(fact.pixel_digest or fact.file_digest, []).append((one, fact))
    groups.pop(b"", None)
    found += [_repeated(group) for group in groups.values() if len(group) > 1]
    leaked = {digest for digest, group in groups.items() if len({one.validation for one, _ in group}) > 1}
    usable = [copy for copy in copies.values() if copy[1].pixel_digest not in leaked]
    return [*found, *_near_copies(usable)]


def open_pictures(
    files: Sequence[PictureFile],
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[PictureFile, PictureFacts]:
    """The facts of every picture, each opened once; some 400 bytes a picture stay in memory."""
    unique = list(dict.fromkeys(files))
    facts = {}
    pool = ThreadPoolExecutor(min(MAX_WORKERS, os.cpu_count() or 1) if workers is None else max(workers, 1))
    try:
        for file, found in zip(unique, pool.map(facts_of, unique), strict=True):
            facts[file] = found
            if progress is not None:
                progress(len(facts), len(unique))
    finally:
        pool.shutdown(cancel_futures=True)
    return facts


def facts_of(file: PictureFile) -> PictureFacts:
    """Open one picture."""
    fault = message = ""
    image, digest = None, b""
    try:
        image = read_recorded_image(*file)
    except InputError as error:
        message = str(error)
        fault = "unreadable picture" if os.path.exists(file.path) else "missing picture"
        try:  # another size than recorded?
            image = read_recorded_image(file.path, 0, 0)
            fault = "picture size"
        except InputError:  # unreadable at any size
            pass
    try:
        if os.path.isfile(file.path):  # a pipe or a device may never end
            digest = hashlib.sha256(file.path.read_bytes()).digest()
    except OSError:  # said already by the reader of pictures
        pass
    if image is None:
        return PictureFacts(fault, message, digest)
    pixels = hashlib.sha256(repr(image.shape).encode() + image.tobytes()).digest()
    return PictureFacts(fault, message, digest, pixels, *look_of(image), "" if fault else _turned(file))


def _turned(file: PictureFile) -> str:
    orientation, stored = exif_orientation(file.path)
    if orientation == 1 or not file.width:
        return ""
    if orientation < 5 or stored[0] == stored[1]:
        return f"has the EXIF orientation {orientation}, and the recorded size fits it turned or not"
    if stored == (file.width, file.height):
        return f"has the EXIF orientation {orientation}, and the recorded size is that before turning it"
    return ""


def look_of(image: np.ndarray) -> tuple[int | None, int | None]:
    """A perceptual hash of 63 bits, and that of the mirror image; None and None for a picture of one colour.

    Each bit says whether one of the 63 lowest frequencies of the (H, W, 3) picture, in grey at 32 x 32, is
    above their median; so scale, compression, brightness and contrast hardly matter.
    """
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey, (32, 32), interpolation=cv2.INTER_AREA).astype(np.float32)
    if small.std() < FLAT:
        return None, None
    low = cv2.dct(small)[:8, :8]
    mirrored = low * np.where(np.arange(8) % 2, -1, 1)  # the odd horizontal frequencies change their sign
    bits = (each.ravel()[1:] > np.median(each.ravel()[1:]) for each in (low, mirrored))  # without the mean
    look, twin = (int.from_bytes(np.packbits(each).tobytes()) for each in bits)
    return look, twin


def _faults(one: ListedPicture, facts: PictureFacts) -> Iterator[Finding]:
    if facts.fault:
        cure = FAULTS[facts.fault]
        message = facts.message.removesuffix(f"; {cure}")
        if one.used:
            yield Finding(facts.fault, "error", one.source, message, cure, one.name)
        else:
            cure += "; it has no labelled person"
            yield Finding(facts.fault, "warning", one.source, message, cure, one.name)
    if facts.turned:
        cure = "it is turned where that fits the record; check that its annotations are made so, too"
        message = f"{one.name} {facts.turned}"
        yield Finding("EXIF orientation", "warning", one.source, message, cure, one.name)


def _repeated(group: list[Copy]) -> Finding:
    """Training and validation share the picture, or one of them has it several times."""
    (first, facts), *others = sorted(group, key=lambda copy: copy[0].validation)
    leaks = others[-1][0].validation and not first.validation
    second, twin = next(copy for copy in others if copy[0].validation or not leaks)
    same = "the same file" if facts.file_digest == twin.file_digest else "saved anew"
    more = f", {len(group)} times in all" if len(group) > 2 else ""
    message = f"{first.file.path} and {second.file.path} have the same pixels ({same}){more}"
    if leaks:
        cure = "remove it from one of the two: the validation knows the answer"
        return Finding("picture in train and val", "error", second.source, message, cure, second.name)
    cure = "keep one, with the annotations of all"
    return Finding("picture listed twice", "warning", second.source, message, cure, second.name)


def _near_copies(copies: Sequence[Copy]) -> Iterator[Finding]:
    """For each validation picture the training picture that looks most like it, where that is close."""
    train, validation = (
        [(one, f.look, f.mirrored) for one, f in copies if one.validation == side and f.look is not None]
        for side in (False, True)
    )
    if not train:
        return
    looks = np.asarray([both for _, *both in train], dtype=np.uint64)
    for start in range(0, len(validation), ROWS):
        part = validation[start : start + ROWS]
        wanted = np.asarray([look for _, look, _ in part], dtype=np.uint64)
        bits = np.bitwise_count(wanted[:, None, None] ^ looks)  # (validation, train, plain or mirrored)
        for (one, *_), differing in zip(part, bits, strict=True):
            for kind, most, what in ((0, NEAR, ""), (1, NEAR_MIRRORED, "the mirror image of ")):
                twin = differing[:, kind].argmin()
                if differing[twin, kind] <= most:
                    check, path = "near-copy in train and val", f"{what}{train[twin][0].file.path}"
                    message = f"{one.file.path} looks like {path} ({differing[twin, kind]} of 63 bits differ)"
                    cure = "look at both; pictures of one scene belong to one of the two sets"
                    yield Finding(check, "warning", one.source, message, cure, one.name)
                    break
