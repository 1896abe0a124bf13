"""Opening every picture of a data set once: is it whole, and what is it like."""

from __future__ import annotations

import hashlib
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from diffusionpose.data.images import read_recorded_image
from diffusionpose.errors import InputError

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
        fault = "unreadable" if request.path.exists() else "missing"
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


def _file_digest(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError:  # said already by the reader of pictures
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
