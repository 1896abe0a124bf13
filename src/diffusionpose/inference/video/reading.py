"""Reading video files with PyAV, one frame after the other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from diffusionpose.errors import InputError
from diffusionpose.inference.video.extra import import_extra
from diffusionpose.inference.video.frames import Facts, Frame

USUAL_RATE = Fraction(30)  # frames/s where a file says nothing, or nonsense
HIGHEST_RATE = 1000
STATED_LENGTHS = ("mp4", "matroska", "avi", "flv")  # formats whose header states the length; others guess it
TOLERANCE = 0.5  # seconds that a header may be wrong by
# Formats that hold all their pictures; playlists and the like name further files, which FFmpeg would open
CLOSED = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,flv,ogg,asf"
COLORS = ("colorspace", "color_primaries", "color_trc")


class VideoFile:
    """The frames of a video file, once, in constant memory, upright, with the sound beside them.

    Damaged frames are left out and counted; a file that is cut short gives what it has.

    Args:
        path: of the file.
        max_frames: stop after so many; None for all.
        max_pixels: of a frame in a file from a stranger. A video of larger frames is refused before one is
            decoded, larger frames among smaller ones are broken, and of the formats only those of
            ``CLOSED`` are read. None for a file that is trusted.

    Raises:
        InputError: no such file, no video that can be read, a picture, too many pixels, or PyAV is not
            installed.
    """

    live = False

    def __init__(self, path: Path, max_frames: int | None = None, *, max_pixels: int | None = None) -> None:
        self.name = str(path)
        self.max_frames = max_frames
        self.rest: list[Any] = []
        self.problems: list[str] = []
        self._container = _open(path, None if max_pixels is None else CLOSED)
        self._video = _picture_stream(self.name, self._container)
        if max_pixels is not None:
            _limit(self.name, self._video.codec_context, max_pixels)
        self._sound = [stream for stream in self._container.streams.audio if stream.codec_context]
        self.facts = _facts(self._container, self._video, tuple(self._sound))
        if max_frames is not None:
            self.facts = replace(self.facts, frames=min(max_frames, self.facts.frames or max_frames))

    def __iter__(self) -> Iterator[Frame]:
        """The frames.

        Raises:
            InputError: there is none.
        """
        reader = _Reader(self._container, self._video, self._sound)
        count = 0
        for frame in reader:
            yield frame
            count += 1
            if count == self.max_frames:
                break
        else:
            self._tell_of_end(reader.end)
        self.rest = reader.take_packets()
        if reader.broken:
            s = "s" * (reader.broken > 1)
            self.problems.append(f"{self.name}: {reader.broken} broken frame{s} left out")
        if not count:
            raise InputError(f"{self.name}: holds no frame that can be decoded")

    def close(self) -> None:
        """Let go of the file."""
        self._container.close()

    def __enter__(self) -> VideoFile:
        """Itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    def _tell_of_end(self, end: float) -> None:
        """Note where the file, which ends after so many seconds, is shorter than its header says."""
        container = self._container
        end, stated = max(0.0, end - (container.start_time or 0) / 1e6), (container.duration or 0) / 1e6
        if container.format.name == "avi":  # of which PyAV tells the length that is there, not the stated one
            stated = max(stated, float(self._video.frames / self.facts.rate))
        if any(name in container.format.name for name in STATED_LENGTHS) and end < stated - TOLERANCE:
            self.problems.append(
                f"{self.name}: is cut short: {end:.1f} s are there, {stated:.1f} s by its header"
            )


class _Reader:
    """Frames of an open container, and what was met on the way."""

    def __init__(self, container: Any, video: Any, sound: list[Any]) -> None:
        self.container = container
        self.video = video
        self.sound = sound
        self.broken = 0
        self.end = 0.0  # seconds, of the packets read so far
        self._packets: list[Any] = []
        self._last: int | None = None

    def __iter__(self) -> Iterator[Frame]:
        self.video.thread_type = "AUTO"
        tick = self.video.time_base
        step = max(1, round(1 / (tick * _rate(self.video))))
        first = None
        for index, picture in enumerate(self._pictures()):
            pts = self._in_order(picture.pts, step)
            first = pts if first is None else first
            yield Frame(index, float((pts - first) * tick), pts, upright(picture), tuple(self.take_packets()))

    def take_packets(self) -> list[Any]:
        """The packets of sound since the last call."""
        packets, self._packets = self._packets, []
        return packets

    def _pictures(self) -> Iterator[Any]:
        """The frames that are whole."""
        av = import_extra("av")
        for packet in self._demuxed():
            try:
                decoded = self.video.decode(packet)
            except av.error.FFmpegError:
                self.broken += 1
                continue
            for picture in decoded:
                if picture.is_corrupt:
                    self.broken += 1
                else:
                    yield picture

    def _demuxed(self) -> Iterator[Any]:
        """The packets of the pictures, None at the end; those of the sound are put aside."""
        av = import_extra("av")
        packets = self.container.demux([self.video, *self.sound])
        while True:
            try:
                packet = next(packets, None)
            except av.error.FFmpegError:  # the file breaks off here; the decoder still holds some frames
                packet = None
            if packet is None:
                yield None
                return
            if packet.pts is not None:
                self.end = max(self.end, float((packet.pts + (packet.duration or 0)) * packet.time_base))
            if packet.dts is None:  # the mark of the end, which comes for each stream
                continue
            if packet.stream is self.video:
                yield packet
            else:
                self._packets.append(packet)

    def _in_order(self, pts: int | None, step: int) -> int:
        """The frame's time stamp, made up where it has none and mended where it does not increase."""
        if self._last is None:
            self._last = pts or 0
        elif pts is None:
            self._last += step
        else:
            self._last = max(pts, self._last + 1)
        return self._last


def _open(path: Path, formats: str | None = None) -> Any:
    """A container of PyAV, of one of the formats."""
    av = import_extra("av")
    if not path.is_file():
        raise InputError(f"{path}: {'is a folder' if path.is_dir() else 'no such file'}; name a video")
    try:
        return av.open(str(path), container_options={"format_whitelist": formats} if formats else {})
    except (av.error.FFmpegError, OSError) as error:
        raise InputError(
            f"{path}: is no video that can be read ({error.strerror}); an mp4 that was not closed after "
            "recording lacks its index and cannot be read either"
        ) from error


def _picture_stream(name: str, container: Any) -> Any:
    """The moving pictures of a container.

    Raises:
        InputError: it has none.
    """
    av = import_extra("av")
    cover = av.stream.Disposition.attached_pic
    streams = [stream for stream in container.streams.video if not stream.disposition & cover]
    if container.format.name.endswith("_pipe") or container.format.name == "image2":
        raise InputError(f"{name}: is a picture, no video; `diffusionpose predict` takes it")
    if not streams:
        raise InputError(f"{name}: holds no moving pictures")
    if streams[0].codec_context is None:
        raise InputError(f"{name}: its pictures are of a kind that this PyAV cannot decode")
    return streams[0]


def _limit(name: str, context: Any, pixels: int) -> None:
    """Let a decoder refuse larger frames.

    Raises:
        InputError: the header speaks of such frames already.
    """
    if context.width * context.height > pixels:
        raise InputError(
            f"{name}: {context.width} x {context.height} pixels is more than {pixels / 1e6:g} million; "
            "scale it down"
        )
    context.options = {**context.options, "max_pixels": str(pixels)}


def _rate(video: Any) -> Fraction:
    rate = video.average_rate or video.guessed_rate
    return Fraction(rate) if rate and 0 < rate <= HIGHEST_RATE else USUAL_RATE


def _facts(container: Any, video: Any, sound: tuple[Any, ...]) -> Facts:
    rate = _rate(video)
    frames = video.frames or None
    if frames is None and container.duration:
        frames = round(container.duration / 1e6 * rate)
    colors = {name: int(getattr(video.codec_context, name)) for name in COLORS}
    return Facts(video.time_base, rate, frames, sound, Fraction(video.sample_aspect_ratio or 1), colors)


def upright(picture: Any) -> np.ndarray:
    """(H, W, 3) uint8 RGB of a decoded frame, turned as its display matrix wants."""
    image = picture.to_ndarray(format="rgb24")
    return np.ascontiguousarray(np.rot90(image, round(picture.rotation / 90)))
