"""Videos as a source of frames, by PyAV: files, cameras and network streams."""

import heapq
import re
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self

import numpy as np

from diffusionpose.errors import InputError, install, needs_extra

PACKAGES = ("av", "trackers")  # of the extra "video"
USUAL_RATE = Fraction(30)  # frames/s where a file says nothing, or nonsense
HIGHEST_RATE = 1000
STATED_LENGTHS = ("mp4", "matroska", "avi", "flv")  # formats whose header states the length; others guess it
RESTART = 1  # seconds back, from which on time stamps begin anew
TOLERANCE = 0.5  # seconds that a header may be wrong by
# Formats that hold all their pictures; playlists and the like name further files, which FFmpeg would open
CLOSED = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,flv,ogg,asf"
LIVE_TICK = Fraction(1, 10_000)  # seconds
PATIENCE = 15.0  # seconds for a network's first answer, and without any further
# How FFmpeg calls the system's cameras, and what it calls camera number {}
SYSTEMS = {"linux": ("v4l2", "/dev/video{}"), "darwin": ("avfoundation", "{}"), "win32": ("dshow", None)}
LIVE = re.compile(r"\d+|/dev/video\d+|video=.+|(rtsps?|rtmps?|https?|udp|srt|rtp)://.+")


def import_extra(name: str) -> Any:
    """A package of the extra, "av" or "trackers"; InputError says how to install it where it is missing."""
    with needs_extra("video", f"video needs {name}"):
        return import_module(name)


def check_extra() -> None:
    """See whether the extra is installed, without the seconds that importing it takes; else InputError."""
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        raise InputError(f"video needs {' and '.join(missing)}; install it: {install('video')}")


@dataclass(frozen=True, eq=False)
class Frame:
    """One picture of a video."""

    index: int  # its place in the video, 0 for the first; a frame that cannot be decoded leaves a gap
    time: float  # seconds since the first frame
    pts: int  # time stamp in the ticks of the source, larger than that of the frame before
    image: np.ndarray  # (H, W, 3) uint8 RGB, upright
    packets: tuple[Any, ...] = ()  # PyAV packets of sound that lie before this frame in the file


@dataclass(frozen=True)
class Facts:
    """What a copy of a video keeps beside the pictures."""

    tick: Fraction  # seconds of one tick of ``Frame.pts``
    rate: Fraction  # frames per second, the average
    frames: int | None = None  # how many there are by the header; None where it does not say
    sound: tuple[Any, ...] = ()  # PyAV streams whose packets the frames carry
    pixel_aspect: Fraction = Fraction(1)  # width of a pixel as a share of its height, upright


class VideoSource(ABC):
    """A file, a camera or a stream: what can be copied with its poses drawn; to be closed."""

    live = False  # it cannot be read again, and ends when :meth:`stop` tells it to
    facts: Facts  # known before the first frame, but a file's pixel_aspect with it

    def __init__(self, name: str, container: Any, max_frames: int | None = None) -> None:
        self.name = name
        self.max_frames = max_frames
        self.rest: list[Any] = []  # packets of sound behind the last frame, once the frames are through
        self.problems: list[str] = []  # what was wrong, once the frames are through
        self._av = import_extra("av")
        self._container = container
        self._stopped = False

    @abstractmethod
    def __iter__(self) -> Iterator[Frame]:
        """The frames, once, one at a time; nothing is kept of those before."""

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


def open_video(name: str, max_frames: int | None = None) -> VideoSource:
    """The file, camera or stream that a name means; InputError where it cannot be opened."""
    if is_live(name) and not Path(name).is_file():
        return LiveVideo(name, max_frames)
    return VideoFile(Path(name), max_frames)


def is_live(name: str) -> bool:
    """Whether a name means a camera (a number, /dev/video0, Windows' video=NAME) or a stream (rtsp://...)."""
    return LIVE.fullmatch(name) is not None


class VideoFile(VideoSource):
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
        super().__init__(str(path), _open(path, None if max_pixels is None else CLOSED), max_frames)
        self._video = self._picture_stream()
        if max_pixels is not None:
            self._limit(max_pixels)
        streams = [stream for stream in self._container.streams.audio if stream.codec_context]
        contexts = [stream.codec_context for stream in streams]
        known = [context.sample_rate and context.layout.nb_channels for context in contexts]
        if not all(known):  # sound that is declared and never comes has no rate
            self.problems.append(f"{self.name}: has sound of which nothing is known; it is left out")
        self._sound = [stream for stream, is_known in zip(streams, known, strict=True) if is_known]
        video, rate = self._video, _rate(self._video)
        frames = video.frames or round((self._container.duration or 0) / 1e6 * rate) or None
        if max_frames is not None:
            frames = min(max_frames, frames or max_frames)
        aspect = Fraction(video.sample_aspect_ratio or 1)
        self.facts = Facts(video.time_base, rate, frames, tuple(self._sound), aspect)
        self._times = {stream: _Increasing(RESTART / stream.time_base) for stream in (video, *self._sound)}
        self._packets: list[Any] = []  # of sound, since the last frame
        self._waiting: list[int] = []  # time stamps of the packets whose frames are not out yet, a heap
        self._errors = 0  # of the decoder, whose places are not passed yet
        self._frame_each = True  # so far, each packet became a frame or was lost after an error
        self._lost_until: int | None = None  # time stamp; frames that come late from before it count as lost
        self._end = 0.0  # seconds, of the packets read so far

    def _picture_stream(self) -> Any:
        cover = self._av.stream.Disposition.attached_pic
        streams = [stream for stream in self._container.streams.video if not stream.disposition & cover]
        if self._container.format.name.endswith("_pipe") or self._container.format.name == "image2":
            raise InputError(f"{self.name}: is a picture, no video; `diffusionpose predict` takes it")
        if not streams:
            raise InputError(f"{self.name}: holds no moving pictures")
        if streams[0].codec_context is None:
            raise InputError(f"{self.name}: its pictures are of a kind that this PyAV cannot decode")
        return streams[0]

    def _limit(self, pixels: int) -> None:
        """Let the decoder refuse larger frames; InputError where the header speaks of such already."""
        context = self._video.codec_context
        if context.width * context.height > pixels:
            raise InputError(
                f"{self.name}: {context.width} x {context.height} pixels is more than "
                f"{pixels / 1e6:g} million; scale it down"
            )
        context.options = {**context.options, "max_pixels": str(pixels)}

    def __iter__(self) -> Iterator[Frame]:
        """The frames; InputError where there is none."""
        self._video.thread_type = "AUTO"
        tick = self._video.time_base
        step = max(1, round(1 / (tick * _rate(self._video))))
        count, index, broken, first = 0, 0, 0, None
        for picture in self._decoded():
            if picture is None:
                self._errors += 1
                continue
            lost = self._lost_before(picture.pts)
            if lost is None:
                continue
            index += lost
            broken += lost
            if picture.is_corrupt:
                broken += 1
            else:
                pts = self._times[self._video](picture.pts, step)
                if first is None:
                    first = pts
                    if 45 < abs(picture.rotation) % 180 < 135:  # as upright turns it
                        self.facts = replace(self.facts, pixel_aspect=1 / self.facts.pixel_aspect)
                packets, self._packets = tuple(self._packets), []
                yield Frame(index, float((pts - first) * tick), pts, upright(picture), packets)
                count += 1
                if count == self.max_frames:
                    break
            index += 1
        else:
            self._tell_of_end()
        self.rest, self._packets = self._packets, []
        broken += self._errors
        if broken:
            self.problems.append(f"{self.name}: {broken} broken frame{'s' * (broken > 1)} left out")
        if not count:
            raise InputError(f"{self.name}: holds no frame that can be decoded")

    def _decoded(self) -> Iterator[Any]:
        """The frames that the decoder gives; None for each error."""
        for packet in self._demuxed():
            try:
                yield from self._video.decode(packet)
            except self._av.error.FFmpegError:
                yield None

    def _demuxed(self) -> Iterator[Any]:
        """The packets of the pictures, None at the end; those of the sound are put aside."""
        packets = self._container.demux([self._video, *self._sound])
        while True:
            try:
                packet = next(packets, None)
            except self._av.error.FFmpegError:  # it breaks off here; the decoder still holds some frames
                packet = None
            if packet is None:
                yield None
                return
            if packet.pts is not None:
                self._end = max(self._end, float((packet.pts + (packet.duration or 0)) * packet.time_base))
            if not packet.size:  # the mark of the end, which comes for each stream
                continue
            if packet.stream is self._video:
                pts = packet.dts if packet.pts is None else packet.pts
                if pts is not None and not packet.is_discard:
                    heapq.heappush(self._waiting, pts)
                yield packet
            elif packet.dts is not None:
                step = packet.duration or 1
                shift = self._times[packet.stream](packet.dts, step, step) - packet.dts
                packet.dts += shift
                if packet.pts is not None:
                    packet.pts += shift
                self._packets.append(packet)

    def _lost_before(self, pts: int | None) -> int | None:
        """How many places before the frame at a time are lost frames': packets without a frame, after errors.

        Without an error they are none: in some files not every packet becomes a frame (fields). In others
        all are, also those that a decoder drops in silence until the next key frame. None for a frame that
        was counted as lost already: behind a broken key frame some come too late.
        """
        places = []
        while self._waiting and (pts is None or self._waiting[0] <= pts):
            places.append(heapq.heappop(self._waiting))
        if not places and pts is not None and self._lost_until is not None and pts < self._lost_until:
            return None
        passed = sum(place != pts for place in places)
        if passed and (not self._errors or pts is None):
            self._frame_each, self._lost_until = False, None
        lost = min(self._errors, passed)
        if lost and self._frame_each:
            lost, self._lost_until = passed, pts
        self._errors = max(0, self._errors - passed)
        return lost

    def _tell_of_end(self) -> None:
        """Note where the file is shorter than its header says."""
        container = self._container
        end = max(0.0, self._end - (container.start_time or 0) / 1e6)
        stated = (container.duration or 0) / 1e6
        if container.format.name == "avi":  # of which PyAV tells the length that is there, not the stated one
            stated = max(stated, float(self._video.frames / self.facts.rate))
        if any(name in container.format.name for name in STATED_LENGTHS) and end < stated - TOLERANCE:
            self.problems.append(
                f"{self.name}: is cut short: {end:.1f} s are there, {stated:.1f} s by its header"
            )


class _Increasing:
    """Time stamps of a stream, mended where they do not increase.

    Args:
        restart: ticks; a step back by more means that they begin anew, as where recordings were joined.
    """

    def __init__(self, restart: float) -> None:
        self._restart = restart
        self._last: int | None = None
        self._shift = 0

    def __call__(self, pts: int | None, step: int, least: int = 1) -> int:
        """The time stamp; one step after the last one where there is none, the least where it is before."""
        if self._last is None:
            self._last = pts or 0
        elif pts is None:
            self._last += step
        else:
            if self._last - (pts + self._shift) > self._restart:
                self._shift = self._last + step - pts
            moved = pts + self._shift
            self._last = moved if moved > self._last else self._last + least
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


def _rate(video: Any) -> Fraction:
    rate = video.average_rate or video.guessed_rate
    return Fraction(rate) if rate and 0 < rate <= HIGHEST_RATE else USUAL_RATE


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


class LiveVideo(VideoSource):
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
        super().__init__(f"{what} {name}", container or _open_live(name), max_frames)
        if not self._container.streams.video:
            raise InputError(f"{self.name}: sends no moving pictures")
        self.facts = Facts(LIVE_TICK, _rate(self._container.streams.video[0]), max_frames)

    def __iter__(self) -> Iterator[Frame]:
        """The frames; that it was lost is a problem."""
        index, start, last = 0, None, -1
        try:
            for picture in self._container.decode(video=0):
                if self._stopped or index == self.max_frames:
                    return
                now = float(picture.time or 0.0)
                start = now if start is None else start
                last = max(last + 1, round((now - start) / LIVE_TICK))
                yield Frame(index, float(last * LIVE_TICK), last, upright(picture))
                index += 1
        except self._av.error.FFmpegError as error:
            self.problems.append(f"{self.name}: was lost after {index} frames ({error.strerror})")


def _open_live(name: str) -> Any:
    """A container of PyAV."""
    av = import_extra("av")
    place = name
    options: dict[str, Any] = {"metadata_errors": "replace"}
    if "://" in name:
        what = name
        cure = "does it play elsewhere, is the name whole, with user and password, and can it be reached?"
        options["timeout"] = PATIENCE
        if name.startswith("rtsp"):
            options["options"] = {"rtsp_transport": "tcp"}
    else:
        what, cure = f"camera {name}", "is it plugged in, allowed, and not in use?"
        system, pattern = SYSTEMS.get(sys.platform, SYSTEMS["linux"])
        if name.isdigit() and pattern is None:
            raise InputError(f"camera {name}: Windows knows cameras by name; give video=NAME")
        place = pattern.format(name) if pattern and name.isdigit() else name
        options["format"] = system
    try:
        return av.open(place, **options)
    except (av.error.FFmpegError, OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{what}: cannot be opened ({reason}); {cure}") from error
