"""The persons of a video as JSON lines, one for each frame, written as they are found."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from fractions import Fraction
from functools import partial
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import numpy as np

from diffusionpose.errors import InputError
from diffusionpose.journal import Journal
from diffusionpose.runtime import drawing
from diffusionpose.runtime.estimator import in_order
from diffusionpose.runtime.video.following import Person
from diffusionpose.runtime.video.posing import VideoPoses
from diffusionpose.runtime.video.reading import Facts, Frame, VideoSource, import_extra


class FrameLines:
    """A file of JSON lines.

    A line that the file has already, from an interrupted run, stays as it is; from the first line that
    differs on, the file is written anew.

    Args:
        path: of the file.

    Raises:
        InputError: it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.touch()
            self._file = path.open("r+b")
        except OSError as error:
            raise self._trouble(error) from error
        self._written = 0  # bytes that are right
        self._old = True  # whether there may be lines of an earlier run behind them

    def write(self, frame: Frame, persons: Sequence[Person]) -> None:
        """Add a line; it survives a kill of this process at once.

        Raises:
            InputError: the disk is full.
        """
        line = frame_line(frame, persons)
        try:
            if self._old and self._file.readline() != line:
                self._cut()
            if not self._old:
                self._file.write(line)
                self._file.flush()
        except OSError as error:
            raise self._trouble(error) from error
        self._written += len(line)

    def finish(self) -> None:
        """Cut off what an earlier run left behind the last line."""
        self._cut()

    def close(self) -> None:
        """Let go of the file; it stays as it is."""
        self._file.close()

    def __enter__(self) -> FrameLines:
        """Itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    def _cut(self) -> None:
        self._old = False
        self._file.seek(self._written)
        self._file.truncate()

    def _trouble(self, error: OSError) -> InputError:
        return InputError(
            f"{self.path}: cannot be written ({error.strerror}); make room, or name another --output"
        )


def frame_line(frame: Frame, persons: Sequence[Person]) -> bytes:
    """``{"frame", "time", "persons": [{"id", "box", "score", "keypoints"}]}``; keypoints flat x, y, score."""
    entry = {
        "frame": frame.index,
        "time": round(frame.time, 6),
        "persons": [
            {
                "id": person.id,
                "box": person.pose.rounded_box,
                "score": round(person.pose.score, 4),
                "keypoints": person.pose.to_coco_result(0)["keypoints"],
            }
            for person in persons
        ],
    }
    return json.dumps(entry, allow_nan=False).encode() + b"\n"


# A drawn copy of a video and its lines: reading ahead, the network, drawing behind, each in its thread

Found = tuple[Frame, list[Person]]
OpenJournal = Callable[[], Journal] | None


def draw_video(
    source: VideoSource, poses: VideoPoses, output: Path, *, boxes: bool = True, journal: OpenJournal = None
) -> Generator[Found]:
    """Write OUT.mp4, the video with its poses drawn, and OUT.jsonl beside it.

    No file is made before the source has given a frame. Close the generator where it is not run to its end:
    the mp4 is discarded then, the lines stay.

    Args:
        source: of the frames, read once.
        poses: finds the persons.
        output: the .mp4 file, in a folder that is there.
        boxes: draw the persons' boxes, too.
        journal: opens what an interrupted run left; removed at the end. None to keep no journal.

    Yields:
        each frame and its persons, once they are on the disk; after the last, the files are finished.

    Raises:
        InputError: a source without frames, a journal of another job, or files that cannot be written.
    """
    with ExitStack() as stack:
        frames = stack.enter_context(_ahead(source))
        first = next(frames, None)
        if first is None:
            raise InputError(f"{source.name}: gives no frame; is it in use elsewhere?")
        kept = stack.enter_context(journal()) if journal else None
        lines = stack.enter_context(FrameLines(output.with_suffix(".jsonl")))
        video = stack.enter_context(VideoWriter(output, source.facts))
        found = poses(chain([first], frames), kept)
        for frame, persons in stack.enter_context(closing(in_order(partial(_draw, video, boxes), found))):
            lines.write(frame, persons)
            yield frame, persons
        video.finish(source.rest)
        lines.finish()
        if kept:
            kept.remove()


def _draw(video: VideoWriter, boxes: bool, found: Found) -> Found:
    """Draw a frame's poses, with their ids, and put it into the mp4."""
    frame, persons = found
    poses, ids = [person.pose for person in persons], [person.id for person in persons]
    video.write(drawing.draw_poses(frame.image, poses, boxes=boxes, ids=ids), frame.pts, frame.packets)
    return found


@contextmanager
def _ahead(source: Iterable[Frame]) -> Iterator[Iterator[Frame]]:
    """The frames of a source, read in a thread a little before they are asked for."""
    frames = iter(source)
    with closing(in_order(lambda _: next(frames, None), repeat(None))) as read:
        yield (frame for frame in iter(partial(next, read), None) if frame is not None)


# Writing an mp4 with PyAV: pictures as H.264, their times and the sound as they were

# The first that this PyAV has, and how good: crf 21 can hardly be told from the original; q 3 likewise. The
# same pictures give the same bytes, so threads are as many on every machine, and x264's share out whole
# frames: two that share a frame's slices do not give the same on a busy machine (by up to 13 of 255). Nor
# does its macroblock tree, which with AVX-512 reads memory that nothing was written to (by up to 30).
ENCODERS = {
    "libx264": {"crf": "21", "preset": "veryfast", "mbtree": "0", "thread_type": "frame", "threads": "4"},
    "libopenh264": {"rc_mode": "quality", "b": "8000000", "threads": "1"},
    "mpeg4": {"qscale": "3", "flags": "+qscale", "global_quality": "354", "threads": "1"},
}
MPEG4_TICK = Fraction(1, 60_000)  # seconds; that standard knows no shorter ones
# Sound that players expect in an mp4 and take as it is; PCM is allowed there, but few play it
COPIED = {"aac", "ac3", "alac", "eac3", "flac", "mp3", "opus"}
SOUND = "aac"  # what becomes of any other
# FFmpeg's number of a colour matrix -> its name in the scaler; any other becomes HDTV's
MATRICES = {1: "itu709", 2: None, 5: "itu601", 6: "itu601"}
HDTV = 1


class VideoWriter:
    """An mp4 that appears at its place when it is whole.

    Until then it is a hidden file beside it, which the next run with the same name writes anew. The same
    pictures, times and sound give the same bytes.

    Args:
        path: of the .mp4 file.
        facts: of the source; its times, colours and sound are kept.

    Raises:
        InputError: it cannot be written.
    """

    def __init__(self, path: Path, facts: Facts) -> None:
        self.path = path
        self.facts = facts
        self._part = path.with_name(f".{path.name}.part")
        self._av = import_extra("av")
        self._container: Any = None
        self._video: Any = None
        self._sound: dict[int, _Sound] = {}

    def write(self, image: np.ndarray, pts: int, packets: Sequence[Any] = ()) -> None:
        """Add a picture, and the sound before it.

        Args:
            image: (H, W, 3) uint8 RGB; all get the size of the first.
            pts: its time in ticks of the source.
            packets: of the source's sound.

        Raises:
            InputError: the disk is full.
        """
        try:
            if self._container is None:
                self._begin(image.shape[1], image.shape[0])
            self._mux_sound(packets)
            frame = self._av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            frame = frame.reformat(
                self._video.width, self._video.height, "yuv420p", dst_colorspace=self._matrix()
            )
            frame.pts, frame.time_base = pts, self.facts.tick
            self._container.mux(self._video.encode(frame))
        except (self._av.error.FFmpegError, OSError) as error:
            raise self._trouble(error) from error

    def finish(self, packets: Sequence[Any] = ()) -> None:
        """Write the rest of the sound and put the file in its place; nothing where no picture came.

        Raises:
            InputError: the disk is full.
        """
        if self._container is None:
            return
        try:
            self._mux_sound(packets)
            self._container.mux(self._video.encode(None))
            for sound in self._sound.values():
                sound.end()
            self._container.close()
            with self._part.open("rb") as file:
                os.fsync(file.fileno())
            os.replace(self._part, self.path)
        except (self._av.error.FFmpegError, OSError) as error:
            raise self._trouble(error) from error
        self._container = None

    def discard(self) -> None:
        """Remove what is not finished."""
        if self._container is not None:
            with suppress(self._av.error.FFmpegError, OSError):  # it goes to waste anyway
                self._container.close()
            self._container = None
            self._part.unlink(missing_ok=True)

    def __enter__(self) -> VideoWriter:
        """Itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Discard what :meth:`finish` did not put in its place."""
        self.discard()

    def _begin(self, width: int, height: int) -> None:
        """Open the file, its streams in the order pictures, sound."""
        encoder = next(name for name in ENCODERS if name in self._av.codecs_available)
        self._container = self._av.open(str(self._part), "w", format="mp4")
        self._video = self._container.add_stream(encoder, rate=self.facts.rate, options=ENCODERS[encoder])
        # H.264 stores colour for 2 x 2 pixels: an odd size loses nothing, it grows by a column or row
        self._video.width, self._video.height = width + width % 2, height + height % 2
        self._video.pix_fmt = "yuv420p"
        coarse = encoder == "mpeg4" and self.facts.tick < MPEG4_TICK
        self._video.codec_context.time_base = MPEG4_TICK if coarse else self.facts.tick
        self._video.codec_context.sample_aspect_ratio = self.facts.pixel_aspect
        for name, value in self._colors().items():
            setattr(self._video.codec_context, name, value)
        for stream in self.facts.sound:
            self._sound[stream.index] = _Sound(self._container, stream)

    def _matrix(self) -> str | None:
        """The scaler's name of the colour matrix of the copy."""
        return MATRICES[self._colors().get("colorspace", 2)]

    def _colors(self) -> dict[str, int]:
        colors = self.facts.colors
        return colors if colors.get("colorspace", 2) in MATRICES else dict.fromkeys(colors, HDTV)

    def _mux_sound(self, packets: Sequence[Any]) -> None:
        for packet in packets:
            self._sound[packet.stream.index].add(packet)

    def _trouble(self, error: Exception) -> InputError:
        reason = getattr(error, "strerror", None) or error
        return InputError(f"{self.path}: cannot be written ({reason}); make room, or name another --output")


class _Sound:
    """One stream of sound: copied where an mp4 may hold its kind, else encoded anew."""

    def __init__(self, container: Any, stream: Any) -> None:
        self.container = container
        self.encoded: Any = None
        name = stream.codec_context.codec.canonical_name
        if name in COPIED and name in container.supported_codecs:
            self.copied = container.add_stream_from_template(stream)
        else:
            context = stream.codec_context
            layout = "mono" if context.layout.nb_channels == 1 else "stereo"  # PCM may not name its own
            self.encoded = container.add_stream(SOUND, rate=context.sample_rate, layout=layout)

    def add(self, packet: Any) -> None:
        if self.encoded is None:
            packet.stream = self.copied
            self.container.mux(packet)
            return
        for frame in packet.decode():
            self.container.mux(self.encoded.encode(frame))

    def end(self) -> None:
        if self.encoded is not None:
            self.container.mux(self.encoded.encode(None))
