"""Writing an mp4 with PyAV: pictures as H.264, their times and the sound as they were."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from diffusionpose.errors import InputError
from diffusionpose.inference.video.extra import import_extra
from diffusionpose.inference.video.frames import Facts

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
