"""Videos as a source of frames, by PyAV: files, cameras and network streams."""

from __future__ import annotations

import heapq
import re
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from fractions import Fraction
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol, Self

import numpy as np

from diffusionpose.errors import InputError, install, needs_extra

PACKAGES = ("av", "trackers")  # of the extra "video"


def import_extra(name: str) -> ModuleType:
    """A package of the extra: "av" or "trackers".

    Raises:
        InputError: it is not installed; the message says how to.
    """
    with needs_extra("video", f"video needs {name}"):
        module = import_module(name)
    return module


def check_extra() -> None:
    """See whether the extra is installed, without the seconds that importing it takes.

    Raises:
        InputError: it is not, or not all of it; the message says how to.
    """
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        raise InputError(f"video needs {' and '.join(missing)}; install it: {install('video')}")


# What a video is to the rest: frames with times, and the facts that a copy of it keeps


@dataclass(frozen=True, eq=False)
class Frame:
    """One picture of a video.

    Attributes:
        index: its place in the video, 0 for the first; a frame that cannot be decoded leaves a gap.
        time: seconds since the first frame.
        pts: time stamp in the ticks of the source, larger than that of the frame before.
        image: (H, W, 3) uint8 RGB, upright.
        packets: PyAV packets of sound that lie before this frame in the file.
    """

    index: int
    time: float
    pts: int
    image: np.ndarray
    packets: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Facts:
    """What a copy of a video keeps beside the pictures.

    Attributes:
        tick: seconds of one tick of ``Frame.pts``.
        rate: frames per second, the average.
        frames: how many there are by the header; None where it does not say.
        sound: PyAV streams whose packets the frames carry.
        pixel_aspect: width of a pixel as a share of its height, upright.
        colors: FFmpeg's numbers for colorspace, color_primaries and color_trc.
    """

    tick: Fraction
    rate: Fraction
    frames: int | None = None
    sound: tuple[Any, ...] = ()
    pixel_aspect: Fraction = Fraction(1)
    colors: dict[str, int] = field(default_factory=dict)


class VideoSource(Protocol):
    """What can be copied with its poses drawn.

    Attributes:
        name: for messages.
        facts: known before the first frame.
        rest: packets of sound behind the last frame, once the frames are through.
        problems: what was wrong with the source, once the frames are through.
    """

    name: str
    facts: Facts
    rest: list[Any]
    problems: list[str]

    def __iter__(self) -> Iterator[Frame]:
        """The frames, one at a time; nothing is kept of those before."""


class OpenedVideo(ABC):
    """A file, a camera or a stream, closed at the end of a ``with`` block.

    Attributes:
        live: it cannot be read again, and ends when :meth:`stop` tells it to.
        name, facts, rest, problems: as of :class:`VideoSource`.
    """

    live = False

    def __init__(self, name: str, container: Any) -> None:
        self.name = name
        self.facts: Facts
        self.rest: list[Any] = []
        self.problems: list[str] = []
        self._container = container
        self._stopped = False

    @abstractmethod
    def __iter__(self) -> Iterator[Frame]:
        """The frames, once."""

    def stop(self) -> None:
        """No further frame of a live one; may be called from a signal's handler."""
        self._stopped = True

    def close(self) -> None:
        """Let go of the file or device."""
        self._container.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_video(name: str, max_frames: int | None = None) -> OpenedVideo:
    """The file, camera or stream that a name means.

    Raises:
        InputError: it cannot be opened.
    """
    if is_live(name) and not Path(name).is_file():
        return LiveVideo(name, max_frames)
    return VideoFile(Path(name), max_frames)


# Reading video files with PyAV, one frame after the other

USUAL_RATE = Fraction(30)  # frames/s where a file says nothing, or nonsense
HIGHEST_RATE = 1000
STATED_LENGTHS = ("mp4", "matroska", "avi", "flv")  # formats whose header states the length; others guess it
RESTART = 1  # seconds back, from which on time stamps begin anew
TOLERANCE = 0.5  # seconds that a header may be wrong by
# Formats that hold all their pictures; playlists and the like name further files, which FFmpeg would open
CLOSED = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,flv,ogg,asf"
COLORS = ("colorspace", "color_primaries", "color_trc")


class VideoFile(OpenedVideo):
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

    def __init__(self, path: Path, max_frames: int | None = None, *, max_pixels: int | None = None) -> None:
        super().__init__(str(path), _open(path, None if max_pixels is None else CLOSED))
        self.max_frames = max_frames
        self._video = _picture_stream(self.name, self._container)
        if max_pixels is not None:
            _limit(self.name, self._video.codec_context, max_pixels)
        streams = [stream for stream in self._container.streams.audio if stream.codec_context]
        # sound that is declared and never comes has no rate
        self._sound = [
            s for s in streams if s.codec_context.sample_rate and s.codec_context.layout.nb_channels
        ]
        if len(self._sound) < len(streams):
            self.problems.append(f"{self.name}: has sound of which nothing is known; it is left out")
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
        self._times = {stream: _Increasing(RESTART / stream.time_base) for stream in (video, *sound)}
        self._waiting: list[int] = []  # time stamps of the packets whose frames are not out yet, a heap
        self._errors = 0  # of the decoder, whose places are not passed yet
        self._each_is_a_frame = True

    def __iter__(self) -> Iterator[Frame]:
        self.video.thread_type = "AUTO"
        tick = self.video.time_base
        step = max(1, round(1 / (tick * _rate(self.video))))
        index, first = 0, None
        for picture in self._pictures():
            index += self._broken_before(picture.pts)
            if picture.is_corrupt:
                self.broken += 1
            else:
                pts = self._times[self.video](picture.pts, step)
                first = pts if first is None else first
                time = float((pts - first) * tick)
                yield Frame(index, time, pts, upright(picture), tuple(self.take_packets()))
            index += 1

    def take_packets(self) -> list[Any]:
        """The packets of sound since the last call."""
        packets, self._packets = self._packets, []
        return packets

    def _pictures(self) -> Iterator[Any]:
        """The frames that the decoder gives."""
        av = import_extra("av")
        for packet in self._demuxed():
            try:
                yield from self.video.decode(packet)
            except av.error.FFmpegError:
                self.broken += 1
                self._errors += 1

    def _broken_before(self, pts: int | None) -> int:
        """How many places before the frame at a time are lost frames'.

        Packets without a frame are lost ones. But in some files not every packet becomes a frame (fields):
        where that is seen before any error, only as many count as there were errors.
        """
        passed = 0
        while self._waiting and (pts is None or self._waiting[0] <= pts):
            passed += heapq.heappop(self._waiting) != pts
        self._each_is_a_frame &= not passed or self._errors > 0
        lost = passed if self._each_is_a_frame else min(self._errors, passed)
        self._errors = max(0, self._errors - lost)
        return lost

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
                if not packet.is_discard:
                    heapq.heappush(self._waiting, packet.dts if packet.pts is None else packet.pts)
                yield packet
            else:
                shift = self._times[packet.stream](packet.dts, packet.duration or 1) - packet.dts
                packet.dts += shift
                if packet.pts is not None:
                    packet.pts += shift
                self._packets.append(packet)


class _Increasing:
    """Time stamps of a stream, mended where they do not increase.

    Args:
        restart: ticks; a step back by more means that they begin anew, as where recordings were joined.
    """

    def __init__(self, restart: float) -> None:
        self._restart = restart
        self._last: int | None = None
        self._shift = 0

    def __call__(self, pts: int | None, step: int) -> int:
        """The time stamp; one step after the last one where there is none."""
        if self._last is None:
            self._last = pts or 0
        elif pts is None:
            self._last += step
        else:
            if self._last - (pts + self._shift) > self._restart:
                self._shift = self._last + step - pts
            self._last = max(pts + self._shift, self._last + 1)
        return self._last


def _open(path: Path, formats: str | None = None) -> Any:
    """A container of PyAV, of one of the formats."""
    av = import_extra("av")
    if not path.is_file():
        raise InputError(f"{path}: {'is a folder' if path.is_dir() else 'no such file'}; name a video")
    try:
        options = {"format_whitelist": formats} if formats else {}
        return av.open(str(path), metadata_errors="replace", container_options=options)
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
    """(H, W, 3) uint8 RGB of a decoded frame, turned and mirrored as its display matrix wants.

    A player puts pixel (x, y) at (a x + c y, b x + d y); a, b, c, d are entries 0, 1, 3, 4 of the matrix.
    """
    image = picture.to_ndarray(format="rgb24")
    for data in picture.side_data:
        if data.type.name == "DISPLAYMATRIX":
            a, b, _, c, d = np.frombuffer(bytes(data), np.int32)[:5].tolist()
            if abs(b) > abs(a):  # rows become columns
                image, a, d = image.swapaxes(0, 1), c, b
            image = image[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]
    return np.ascontiguousarray(image)


# Cameras and network streams

TICK = Fraction(1, 10_000)  # seconds
PATIENCE = 15.0  # seconds for a network's first answer, and without any further
# How FFmpeg calls the system's cameras, and what it calls camera number {}
SYSTEMS = {
    "linux": ("v4l2", "/dev/video{}"),
    "darwin": ("avfoundation", "{}"),
    "win32": ("dshow", None),
}
LIVE = re.compile(r"\d+|/dev/video\d+|video=.+|(rtsps?|rtmps?|https?|udp|srt|rtp)://.+")


def is_live(name: str) -> bool:
    """Whether a name means a camera (a number, /dev/video0, Windows' video=NAME) or a stream (rtsp://...)."""
    return LIVE.fullmatch(name) is not None


class LiveVideo(OpenedVideo):
    """A camera or a stream, until :meth:`stop`.

    Frames have the times at which they were taken; those that come while the network is busy may be lost.

    Args:
        name: as of :func:`is_live`.
        max_frames: stop after so many; None for no end.
        container: an opened one of PyAV in the place of the camera's, for tests.

    Raises:
        InputError: it cannot be opened, or PyAV is not installed.
    """

    live = True

    def __init__(self, name: str, max_frames: int | None = None, container: Any = None) -> None:
        what = "stream" if "://" in name else "camera"
        super().__init__(f"{what} {name}", _open_live(name) if container is None else container)
        self.max_frames = max_frames
        if not self._container.streams.video:
            raise InputError(f"{self.name}: sends no moving pictures")
        self.facts = Facts(TICK, _rate(self._container.streams.video[0]), max_frames)

    def __iter__(self) -> Iterator[Frame]:
        """The frames; that it was lost is a problem."""
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


def _open_live(name: str) -> Any:
    """A container of PyAV."""
    av = import_extra("av")
    if "://" in name:
        try:
            options = {"rtsp_transport": "tcp"} if name.startswith("rtsp") else {}
            return av.open(name, options=options, timeout=PATIENCE, metadata_errors="replace")
        except (av.error.FFmpegError, OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise InputError(
                f"{name}: cannot be opened ({reason}); does it play elsewhere, is the name with user and "
                "password whole, and may this machine reach it?"
            ) from error
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
