"""Small clips, made by PyAV itself, and an estimator that finds bright squares."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from diffusionpose.poses import Pose
from diffusionpose.runtime.estimator import Request
from diffusionpose.runtime.people import FunctionDetector
from diffusionpose.skeletons import get_skeleton

av = pytest.importorskip("av")
SIDE = 24  # pixels, of a square
CORNERS = np.array([(0.1, 0.1), (0.9, 0.1), (0.9, 0.9), (0.1, 0.9)])


def squares(index: int, *paths: tuple[float, float, float, float], size: tuple[int, int] = (160, 120)) -> Any:
    """A dark picture with a bright square for each (x, y, dx, dy), the centre in frame 0 and its speed."""
    image = np.full((size[1], size[0], 3), 30, np.uint8)
    for number, (x, y, dx, dy) in enumerate(paths):
        left, top = round(x + dx * index - SIDE / 2), round(y + dy * index - SIDE / 2)
        image[max(0, top) : top + SIDE, max(0, left) : left + SIDE] = 255 - 40 * number
    return image


@pytest.fixture
def clip(tmp_path: Path) -> Callable[..., Path]:
    """``clip(images, name="clip.mp4", codec=.., pts=.., tick=.., sound=.., matrix=.., ...)``."""

    def write(
        images: Iterable[np.ndarray],
        name: str = "clip.mp4",
        codec: str = "libx264",
        pts: Callable[[int], int] = lambda index: index,
        tick: Fraction = Fraction(1, 25),
        sound: str | None = None,
        matrix: list[int] | None = None,
        options: dict[str, str] | None = None,
        coding: Mapping[str, str] = MappingProxyType({"g": "1"}),
        aspect: Fraction = Fraction(1),
        rate: int = 16000,
    ) -> Path:
        path = tmp_path / name
        with av.open(str(path), "w", options=options or {}) as container:
            video = container.add_stream(codec, rate=25, options=dict(coding))
            video.pix_fmt = "yuvj444p" if codec == "mjpeg" else "yuv444p"
            video.codec_context.time_base = tick
            video.codec_context.sample_aspect_ratio = aspect
            if matrix:
                video.set_display_matrix(matrix)
            audio = container.add_stream(sound, rate=rate, layout="mono") if sound else None
            count = 0
            for count, image in enumerate(images, start=1):
                if count == 1:
                    video.width, video.height = image.shape[1::-1]
                frame = av.VideoFrame.from_ndarray(image, format="rgb24")
                frame.pts, frame.time_base = pts(count - 1), tick
                container.mux(video.encode(frame))
            container.mux(video.encode(None))
            if audio:
                container.mux(p for frame in tone(count / 25) for p in audio.encode(frame))
                container.mux(audio.encode(None))
        return path

    return write


def spoil(path: Path, which: Iterable[int], kind: str = "video") -> None:
    """Overwrite some packets of the pictures or of the sound."""
    with av.open(str(path)) as container:
        packets = [(p.pos, p.size) for p in container.demux(**{kind: 0}) if p.size]
    with path.open("r+b") as file:
        for index in which:
            file.seek(packets[index][0])
            file.write(b"\x55" * packets[index][1])  # zeros would be silence


def tone(seconds: float) -> Iterator[Any]:
    """A tone of 440 Hz at 16 kHz."""
    samples = np.sin(np.arange(round(16000 * seconds)) * 2 * np.pi * 440 / 16000)
    frame = av.AudioFrame.from_ndarray((20000 * samples).astype(np.int16)[None], format="s16", layout="mono")
    frame.sample_rate, frame.pts = 16000, 0
    resampler = av.AudioResampler(format="s16", layout="mono", rate=16000, frame_size=1024)
    yield from resampler.resample(frame)
    yield from resampler.resample(None)


class SquareFinder:
    """In the place of a PoseEstimator: four joints in the corners of the square that a box shows."""

    def __init__(self, boxes: Callable[[np.ndarray], np.ndarray], score: float = 0.9) -> None:
        self.skeleton = get_skeleton("crowdpose")
        self.network = SimpleNamespace(check=lambda **_: None)
        self.batch_size = 8
        self.boxes = boxes
        self.score = score
        self.looks = 0  # at how many frames the detector looked
        self.detector = FunctionDetector(self._detected)
        self.seen: list[Request] = []  # all that went through the network

    def _detected(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        self.looks += 1
        boxes = np.asarray(self.boxes(image), np.float32).reshape(-1, 4)
        return boxes, np.ones(len(boxes), np.float32)

    def stream(self, requests: Iterable[Request]) -> Iterator[tuple[Request, list[Pose]]]:
        for request in requests:
            self.seen.append(request)
            yield request, [self._pose(request.image, box) for box in request.boxes]

    def _pose(self, image: np.ndarray, box: np.ndarray) -> Pose:
        padding = (box[2:] - box[:2]) / 4  # a crop shows more than the box, too
        x0, y0 = np.maximum((box[:2] - padding).round().astype(int), 0)
        x1, y1 = (box[2:] + padding).round().astype(int)
        rows, columns = np.nonzero(image[y0:y1, x0:x1, 0] > 100)
        joints = self.skeleton.num_joints
        if not len(rows):
            return Pose(self.skeleton, np.zeros((joints, 2)), np.zeros(joints), box, 0.0)
        corner, size = (columns.min() + x0, rows.min() + y0), (np.ptp(columns), np.ptp(rows))
        points = np.resize(corner + CORNERS * size, (joints, 2))
        return Pose(self.skeleton, points, np.full(joints, self.score), box, self.score)
