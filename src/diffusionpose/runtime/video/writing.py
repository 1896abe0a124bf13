"""What becomes of a video: OUT.mp4 with its poses drawn, OUT.jsonl with a line for each frame, OUT.csv."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from fractions import Fraction
from functools import partial
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import numpy as np

from diffusionpose.errors import InputError
from diffusionpose.journal import Journal, write_whole
from diffusionpose.poses import Row, result_rows
from diffusionpose.runtime import drawing
from diffusionpose.runtime.estimator import in_order
from diffusionpose.runtime.video.following import FrameResult, Person, VideoPoses
from diffusionpose.runtime.video.reading import Facts, Frame, VideoSource, import_extra

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
HDTV = 1  # FFmpeg's number of BT.709, which every copy has, whatever the source's colours


def draw_video(
    source: VideoSource,
    poses: VideoPoses,
    output: Path,
    *,
    boxes: bool = True,
    journal: Callable[[], Journal] | None = None,
) -> Generator[FrameResult]:
    """Write OUT.mp4, the video with its poses drawn, and OUT.jsonl beside it.

    Reading ahead, the network, and drawing behind it work each in its thread. No file is made before the
    source has given a frame. Close the generator where it is not run to its end: the mp4 is discarded then,
    the lines stay.

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
    lines = output.with_suffix(".jsonl")
    with ExitStack() as stack:
        # a queue of its own reads the frames a little before they are asked for
        unread = iter(source)
        ahead = stack.enter_context(closing(in_order(lambda _: next(unread, None), repeat(None))))
        frames: Iterator[Frame] = iter(partial(next, ahead), None)
        first = next(frames, None)
        if first is None:
            raise InputError(f"{source.name}: gives no frame; is it in use elsewhere?")
        kept = stack.enter_context(closing(journal())) if journal else None
        video = stack.enter_context(closing(VideoWriter(output, source.facts)))
        found = poses(chain([first], frames), kept)
        drawn = stack.enter_context(closing(in_order(partial(_draw, video, boxes), found)))
        try:
            file = stack.enter_context(lines.open("wb", buffering=0))  # so that a kill loses no line
        except OSError as error:
            raise _cannot_write(lines, error) from error
        for frame, persons in drawn:
            try:
                write_whole(file, frame_line(frame, persons, poses.skeleton.joints))
            except OSError as error:
                raise _cannot_write(lines, error) from error
            yield frame, persons
        video.finish(source.rest)
        if video.broken:
            packets = f"{video.broken} broken packet{'s' * (video.broken > 1)}"
            source.problems.append(f"{source.name}: {packets} of sound left out")
        if kept:
            kept.remove()


def frame_line(frame: Frame, persons: Sequence[Person], joints: Sequence[str]) -> bytes:
    """``{"frame", "time", "persons": [{"id", "box", "score", "keypoints"}], "joints"}``; flat x, y, score.

    A calibrated pose also has its confidence, as ``Confidence.to_dict`` gives it.
    """
    entry = {
        "frame": frame.index,
        "time": round(frame.time, 6),
        "persons": [
            {
                "id": person.id,
                "box": person.pose.rounded_box,
                "score": round(person.pose.score, 4),
                "keypoints": person.pose.to_coco_result(0)["keypoints"],
                **(person.pose.confidence.to_dict() if person.pose.confidence else {}),
            }
            for person in persons
        ],
        "joints": joints,
    }
    return json.dumps(entry, allow_nan=False).encode() + b"\n"


def line_rows(lines: Path, name: str) -> Iterator[Row]:
    """The rows of a table (``poses.write_csv``) of OUT.jsonl: image_id is the frame, person the number.

    ``name`` is the video's, for the column file_name.
    """
    with lines.open("rb") as file:
        for line in map(json.loads, file):
            results = [{**p, "image_id": line["frame"], "file_name": name} for p in line["persons"]]
            ids = [person["id"] for person in line["persons"]]
            for row in result_rows(results, line["joints"]):
                yield {**row, "person": ids[row["person"]]}


def _draw(video: VideoWriter, boxes: bool, found: FrameResult) -> FrameResult:
    """Draw a frame's poses, with their ids, and put it into the mp4."""
    frame, persons = found
    poses, ids = [person.pose for person in persons], [person.id for person in persons]
    video.write(drawing.draw_poses(frame.image, poses, boxes=boxes, ids=ids), frame.pts, frame.packets)
    return found


def _cannot_write(path: Path, error: Exception) -> InputError:
    reason = getattr(error, "strerror", None) or error
    return InputError(f"{path}: cannot be written ({reason}); make room, or name another --output")


class VideoWriter:
    """An mp4 that appears at its place when it is whole.

    Until then it is a hidden file beside it, which the next run with the same name writes anew. The same
    pictures, times and sound give the same bytes.

    Args:
        path: of the .mp4 file.
        facts: of the source; its times and sound are kept.

    Attributes:
        broken: packets of sound so far that cannot be decoded or encoded, and are left out.
    """

    def __init__(self, path: Path, facts: Facts) -> None:
        self.path = path
        self.facts = facts
        self.broken = 0
        self._part = path.with_name(f".{path.name}.part")
        self._av = import_extra("av")
        self._container: Any = None
        self._failed = False
        self._video: Any = None
        self._sound: dict[int, tuple[Any, bool]] = {}  # by the source's: our stream, whether it is a copy

    def write(self, image: np.ndarray, pts: int, packets: Sequence[Any] = ()) -> None:
        """Add a picture, and the sound before it; InputError where the disk is full.

        Args:
            image: (H, W, 3) uint8 RGB; all get the size of the first.
            pts: its time in ticks of the source.
            packets: of the source's sound.
        """
        if self._failed:
            raise InputError(f"{self.path}: was given up after an error")
        with self._writing():
            if self._container is None:
                self._begin(image.shape[1], image.shape[0])
            self._mux_sound(packets)
            frame = self._av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            frame = frame.reformat(self._video.width, self._video.height, "yuv420p", dst_colorspace="itu709")
            frame.pts, frame.time_base = pts, self.facts.tick
            self._container.mux(self._video.encode(frame))

    def finish(self, packets: Sequence[Any] = ()) -> None:
        """Write the rest of the sound and put the file in its place; nothing where no picture came."""
        if self._container is None or self._failed:
            return
        with self._writing():
            self._mux_sound(packets)
            self._container.mux(self._video.encode(None))
            for sound, is_copied in self._sound.values():
                if not is_copied:
                    self._container.mux(self._encoded(sound))
            self._container.close()
            with self._part.open("rb") as file:
                os.fsync(file.fileno())
            os.replace(self._part, self.path)
        self._container = None

    def close(self) -> None:
        """Remove what :meth:`finish` did not put in its place."""
        if self._container is not None:
            if not self._failed:
                with suppress(self._av.error.FFmpegError, OSError):  # it goes to waste anyway
                    self._container.close()
            self._container = None
            self._part.unlink(missing_ok=True)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """After an error FFmpeg is asked for nothing more: a second try at a header crashes the process."""
        try:
            yield
        except (self._av.error.FFmpegError, OSError) as error:
            self._failed = True
            raise _cannot_write(self.path, error) from error
        except BaseException:
            self._failed = True
            raise

    def _begin(self, width: int, height: int) -> None:
        """Open the file, its streams in the order pictures, sound; InputError for too large pictures."""
        encoder = next(name for name in ENCODERS if name in self._av.codecs_available)
        self._container = self._av.open(str(self._part), "w", format="mp4")
        self._video = self._container.add_stream(encoder, rate=self.facts.rate, options=ENCODERS[encoder])
        # H.264 stores colour for 2 x 2 pixels: an odd size loses nothing, it grows by a column or row
        self._video.width, self._video.height = width + width % 2, height + height % 2
        self._video.pix_fmt = "yuv420p"
        coarse = encoder == "mpeg4" and self.facts.tick < MPEG4_TICK
        self._video.codec_context.time_base = MPEG4_TICK if coarse else self.facts.tick
        self._video.codec_context.sample_aspect_ratio = self.facts.pixel_aspect
        for name in ("colorspace", "color_primaries", "color_trc"):
            setattr(self._video.codec_context, name, HDTV)
        try:
            self._video.codec_context.open()
        except self._av.error.FFmpegError as error:
            size = f"{width} x {height} pixels"
            raise InputError(f"{self.path}: {encoder} takes no pictures of {size}; scale it down") from error
        for stream in self.facts.sound:
            context = stream.codec_context
            if context.codec.canonical_name in COPIED & set(self._container.supported_codecs):
                self._sound[stream.index] = self._container.add_stream_from_template(stream), True
            else:
                layout = "mono" if context.layout.nb_channels == 1 else "stereo"  # PCM may not name its own
                rates = self._av.Codec(SOUND, "w").audio_rates  # for PCM of others it is resampled
                rate = min(rates, key=lambda rate: abs(rate - context.sample_rate))
                sound = self._container.add_stream(SOUND, rate=rate, layout=layout)
                self._sound[stream.index] = sound, False

    def _mux_sound(self, packets: Sequence[Any]) -> None:
        """Copy the sound where an mp4 may hold its kind, else encode it anew."""
        for packet in packets:
            sound, is_copied = self._sound[packet.stream.index]
            if is_copied:
                packet.stream = sound
                self._container.mux(packet)
            else:
                self._container.mux(self._encoded(sound, packet))

    def _encoded(self, sound: Any, packet: Any = None) -> list[Any]:
        """A packet of sound, encoded anew; without one the encoder's rest. Empty where it is broken."""
        try:
            frames = [None] if packet is None else packet.decode()
            return [each for frame in frames for each in sound.encode(frame)]
        except (self._av.error.FFmpegError, ValueError):  # ValueError: its rate or its channels have changed
            self.broken += 1
            return []
