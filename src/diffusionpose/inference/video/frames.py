"""What a video is to the rest: frames with times, and the facts that a copy of it keeps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Protocol

import numpy as np


@dataclass(frozen=True, eq=False)
class Frame:
    """One picture of a video.

    Attributes:
        index: 0 for the first; frames that cannot be decoded are not counted.
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
    """A video file, a camera, or whatever a test puts in their place.

    Attributes:
        name: for messages.
        live: it ends when it is told to, and cannot be read again.
        facts: known before the first frame.
        rest: packets of sound behind the last frame, once the frames are through.
        problems: what was wrong with the source, once the frames are through.
    """

    name: str
    live: bool
    facts: Facts
    rest: list[Any]
    problems: list[str]

    def __iter__(self) -> Iterator[Frame]:
        """The frames, one at a time; nothing is kept of those before."""
