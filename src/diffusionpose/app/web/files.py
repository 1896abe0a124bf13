"""Files for visitors to take away, and clearing away what they left behind."""

from __future__ import annotations

import secrets
import shutil
import threading
import time
import warnings
from collections.abc import Awaitable, Callable, Iterator, MutableMapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from diffusionpose.app.options import write_file, write_json
from diffusionpose.app.predict import find_pictures
from diffusionpose.errors import InputError
from diffusionpose.poses import Pose
from diffusionpose.runtime.images import FORMATS, read_image

KEPT_SECONDS = 3600  # files of visitors live so long
SWEPT_SECONDS = 600  # and are looked through so often


def write_results(folder: Path, source: Path, drawn: np.ndarray, poses: Sequence[Pose]) -> tuple[Path, Path]:
    """The drawn picture and the poses, named and filled as `diffusionpose predict` does it.

    Args:
        folder: gets a new folder with the two files.
        source: the picture's file.
        drawn: (H, W, 3) uint8 RGB.
        poses: found in it.

    Returns:
        the PNG and the JSON file.

    Raises:
        InputError: they cannot be written.
    """
    (picture,), _ = find_pictures([source], lambda path: None)
    place = folder / secrets.token_urlsafe(12)
    place.mkdir(parents=True)
    write_file(place / picture.drawn, cv2.imencode(".png", drawn[:, :, ::-1])[1].tobytes())
    write_json(place / "keypoints.json", picture.rows(poses))
    return place / picture.drawn, place / "keypoints.json"


def sweep(folder: Path, seconds: float) -> None:
    """Remove what has stood directly in a folder, files and folders, for more than so many seconds."""
    limit = time.time() - seconds
    for path in folder.iterdir() if folder.is_dir() else ():
        try:
            if path.stat().st_mtime < limit:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        except FileNotFoundError:  # somebody else was quicker
            continue


@contextmanager
def swept(folder: Path) -> Iterator[None]:
    """Keep a folder free of old things, from a thread, while the block runs."""
    done = threading.Event()

    def work() -> None:
        while not done.wait(SWEPT_SECONDS):
            sweep(folder, KEPT_SECONDS)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


# What strangers send: measured before it is decoded, so that no file can take much memory

MILLION = 1_000_000
CLOSE = (b"connection", b"close")  # with an answer to half a request: the other half is not waited for
FORM_BYTES = MILLION  # what a request may have besides the file it carries

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


@dataclass(frozen=True)
class Limits:
    """How large a file may be.

    Attributes:
        megabytes: of the file, 10^6 bytes.
        megapixels: of the picture in it, 10^6 pixels.
    """

    megabytes: int = 32
    megapixels: int = 50  # decoded at 3 bytes a pixel, a few times over: half a gigabyte

    @property
    def file_bytes(self) -> int:
        """The largest file, bytes."""
        return self.megabytes * MILLION


def read_upload(path: str | Path, limits: Limits) -> np.ndarray:
    """An uploaded picture as (H, W, 3) uint8 RGB, turned upright.

    Its header is looked at first; a picture with too many pixels is not decoded.

    Raises:
        InputError: not a picture, damaged or too large; the message has the file's name without the folder.
    """
    path = Path(path)
    size = _size_by_header(path)
    if size is None or size[0] * size[1] > limits.megapixels * MILLION:
        shown = "this picture" if size is None else f"{size[0]} x {size[1]} pixels"
        raise InputError(
            f"{path.name}: {shown} is more than {limits.megapixels} million pixels; "
            "scale it down and try again"
        )
    try:
        return read_image(path)
    except InputError as error:  # the visitor does not know our folders
        raise InputError(str(error).replace(str(path), path.name)) from error


def _size_by_header(path: Path) -> tuple[int, int] | None:
    """(width, height) that the header claims; None where Pillow finds it too large, (0, 0) for no picture."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path, formats=FORMATS) as image:
                return image.size
    except Image.DecompressionBombError:
        return None
    except Exception:  # no picture, or a damaged one: read_image says which
        return 0, 0


class BodyLimit:
    """ASGI middleware: a request with a larger body is answered 413, and its body is not read on.

    Args:
        app: the ASGI application behind it.
        limits: a body may be a file of ``limits.file_bytes`` and ``FORM_BYTES`` more.
    """

    def __init__(self, app: Callable[[Message, Receive, Send], Awaitable[None]], limits: Limits) -> None:
        self.app = app
        self.limits = limits
        self.most = limits.file_bytes + FORM_BYTES

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        length = dict(scope["headers"]).get(b"content-length", b"0")
        if length.isdigit() and int(length) > self.most:
            await self._refuse(send)
            return
        read, started, whole = 0, False, scope["method"] in ("GET", "HEAD", "OPTIONS")

        async def counted() -> Message:
            nonlocal read, whole
            message = await receive()
            read += len(message.get("body", b""))
            whole = not message.get("more_body", False)
            if read > self.most:
                raise _TooLarge
            return message

        async def noted(message: Message) -> None:
            nonlocal started
            started = True
            if message["type"] == "http.response.start" and not whole:  # refused by the application itself
                message = {**message, "headers": [*message["headers"], CLOSE]}
            await send(message)

        try:
            await self.app(scope, counted, noted)
        except _TooLarge:
            if not started:
                await self._refuse(send)

    async def _refuse(self, send: Send) -> None:
        text = f"The file is larger than {self.limits.megabytes} MB; please send a smaller one.".encode()
        headers = [
            (b"content-type", b"text/plain"),
            (b"content-length", str(len(text)).encode()),
            CLOSE,
        ]
        await send({"type": "http.response.start", "status": 413, "headers": headers})
        await send({"type": "http.response.body", "body": text})


class _TooLarge(Exception):
    """More bytes came than are allowed."""
