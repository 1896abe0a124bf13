from collections.abc import Iterator
from fractions import Fraction
from types import SimpleNamespace

import av
import numpy as np
import pytest

from diffusionpose.errors import InputError
from diffusionpose.runtime.video.reading import LiveVideo, is_live

from .conftest import squares


class Device:
    """In the place of a camera: uneven times that begin anywhere, and no end."""

    def __init__(self, lost_after: int | None = None) -> None:
        self.streams = SimpleNamespace(video=[SimpleNamespace(average_rate=Fraction(15))])
        self.lost_after = lost_after
        self.closed = False

    def decode(self, video: int) -> Iterator[av.VideoFrame]:
        index = 0
        while index != self.lost_after:
            frame = av.VideoFrame.from_ndarray(squares(index, (30, 40, 4, 1)), format="rgb24")
            frame.pts = 777_000 + 70_000 * index + index % 2 * 5000
            frame.time_base = Fraction(1, 1_000_000)
            yield frame
            index += 1
        raise av.error.EOFError(-541478725, "End of file")

    def close(self) -> None:
        self.closed = True


def test_frames_have_the_cameras_times() -> None:
    with LiveVideo("0", container=(device := Device()), max_frames=6) as camera:
        frames = list(camera)
    assert camera.live
    assert camera.facts.rate == 15
    assert device.closed
    assert [frame.index for frame in frames] == list(range(6))
    assert [frame.time for frame in frames] == pytest.approx([0.07 * i + i % 2 * 0.005 for i in range(6)])
    assert all(frame.time == float(frame.pts * camera.facts.tick) for frame in frames)
    assert (frames[2].image == squares(2, (30, 40, 4, 1))).all()


def test_it_ends_when_it_is_told() -> None:
    camera, count = LiveVideo("0", container=Device()), 0
    for frame in camera:
        count += 1
        if frame.index == 4:
            camera.stop()
    assert count == 5
    assert camera.problems == []


def test_a_lost_camera_is_a_problem_not_a_crash() -> None:
    camera = LiveVideo("0", container=Device(lost_after=3))
    assert len(list(camera)) == 3
    assert "was lost after 3 frames" in camera.problems[0]


def test_names_of_cameras() -> None:
    assert all(
        is_live(name)
        for name in ("0", "12", "/dev/video0", "video=Integrated Camera", "rtsp://u:p@h/1", "http://h/a.mp4")
    )
    assert not any(is_live(name) for name in ("clip.mp4", "0.mp4", "/dev/sda", "./0", ""))


def test_a_camera_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"camera /dev/video97: cannot be opened"):
        LiveVideo("/dev/video97")
    monkeypatch.setattr("sys.platform", "win32")
    with pytest.raises(InputError, match="give video=NAME"):
        LiveVideo("0")


def test_frames_of_one_instant_are_kept_apart() -> None:
    device = Device()
    device.decode = lambda video: iter(  # type: ignore[method-assign]
        [av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), np.uint8), format="rgb24") for _ in range(4)]
    )
    pts = [frame.pts for frame in LiveVideo("0", container=device)]
    assert pts == sorted(set(pts))
