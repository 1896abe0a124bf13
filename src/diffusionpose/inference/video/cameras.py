"""Cameras as a source of frames, by PyAV."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

from diffusionpose.errors import InputError
from diffusionpose.inference.video.extra import import_extra
from diffusionpose.inference.video.frames import Facts, Frame
from diffusionpose.inference.video.reading import upright

TICK = Fraction(1, 10_000)  # seconds
# How FFmpeg calls the system's cameras, and what it calls camera number {}
SYSTEMS = {
    "linux": ("v4l2", "/dev/video{}"),
    "darwin": ("avfoundation", "{}"),
    "win32": ("dshow", None),
}
CAMERA = re.compile(r"\d+|/dev/video\d+|video=.+")


def is_camera(name: str) -> bool:
    """Whether a name means a camera: a number, /dev/video0, or (Windows) video=NAME."""
    return CAMERA.fullmatch(name) is not None


class Camera:
    """A camera, until :meth:`stop`.

    Frames have the times at which they were taken; those that come while the network is busy are lost.

    Args:
        name: as of :func:`is_camera`.
        max_frames: stop after so many; None for no end.
        device: an opened container in the place of the camera's, for tests.

    Raises:
        InputError: there is no such camera, or PyAV is not installed.
    """

    live = True

    def __init__(self, name: str, max_frames: int | None = None, device: Any = None) -> None:
        self.name = f"camera {name}"
        self.max_frames = max_frames
        self.rest: list[Any] = []
        self.problems: list[str] = []
        self._container = _opened(name) if device is None else device
        video = self._container.streams.video[0]
        self.facts = Facts(TICK, Fraction(video.average_rate or 30), max_frames)
        self._stopped = False

    def __iter__(self) -> Iterator[Frame]:
        """The frames.

        Raises:
            InputError: the camera is lost.
        """
        av = import_extra("av")
        index, start, last = 0, None, -1
        try:
            for picture in self._container.decode(video=0):
                if self._stopped or index == self.max_frames:
                    return
                now = float(picture.time or 0.0)
                start = now if start is None else start
                last = max(last + 1, round((now - start) / TICK))
                yield Frame(index, float(last * TICK), last, upright(picture))
                index += 1
        except av.error.FFmpegError as error:
            self.problems.append(f"{self.name}: was lost after {index} frames ({error.strerror})")

    def stop(self) -> None:
        """No further frame; may be called from a signal's handler."""
        self._stopped = True

    def close(self) -> None:
        """Let go of the camera."""
        self._container.close()

    def __enter__(self) -> Camera:
        """Itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()


def _opened(name: str) -> Any:
    """A container of PyAV."""
    av = import_extra("av")
    system, pattern = SYSTEMS.get(sys.platform, SYSTEMS["linux"])
    if name.isdigit():
        if pattern is None:
            raise InputError(f"camera {name}: Windows knows cameras by name; give video=NAME")
        name = pattern.format(name)
    try:
        return av.open(name, format=system)
    except (av.error.FFmpegError, OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(
            f"camera {name}: cannot be opened ({reason}); is it plugged in, allowed, and not in use?"
        ) from error
