import sys
import wave
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import av
import cv2
import numpy as np
import pytest

from diffusionpose.errors import InputError
from diffusionpose.runtime.video.following import Tracks
from diffusionpose.runtime.video.reading import LiveVideo, VideoFile, _Increasing, check_extra, is_live

from .conftest import spoil, squares

Clip = Callable[..., Path]
IMAGES = [squares(index, (30, 40, 4, 1)) for index in range(12)]
OUT_OF_ORDER = {"g": "12", "bf": "2", "threads": "1"}


def test_frames_come_in_order_with_their_times_and_colours(clip: Clip) -> None:
    video = VideoFile(clip(IMAGES))
    frames = list(video)
    assert [frame.index for frame in frames] == list(range(12))
    assert [frame.time for frame in frames] == pytest.approx(np.arange(12) / 25)
    assert (video.facts.rate, video.facts.frames, video.problems) == (25, 12, [])
    for frame, image in zip(frames, IMAGES, strict=True):
        assert np.abs(frame.image.astype(int) - image).mean() < 3


def test_uneven_times_are_the_files_own(clip: Clip) -> None:
    def pts(index: int) -> int:
        return 1000 * index * index + 7

    frames = list(VideoFile(clip(IMAGES, pts=pts, tick=Fraction(1, 90000))))
    assert [frame.time for frame in frames] == pytest.approx([index**2 / 90 for index in range(12)])
    assert all(type(frame.time) is float for frame in frames)


@pytest.mark.parametrize(
    ("matrix", "turns", "mirrored"),
    [  # (a, b, u, c, d, v, x, y, w) of QuickTime: x' = a x + c y, y' = b x + d y, y pointing down
        ([65536, 0, 0, 0, 65536, 0, 0, 0, 1 << 30], 0, False),
        ([0, 65536, 0, -65536, 0, 0, 0, 0, 1 << 30], -1, False),  # (x, y) -> (-y, x): clockwise
        ([-65536, 0, 0, 0, -65536, 0, 0, 0, 1 << 30], 2, False),
        ([0, -65536, 0, 65536, 0, 0, 0, 0, 1 << 30], 1, False),
        ([-65536, 0, 0, 0, 65536, 0, 0, 0, 1 << 30], 0, True),
        ([65536, 0, 0, 0, -65536, 0, 0, 0, 1 << 30], 2, True),
        ([0, 65536, 0, 65536, 0, 0, 0, 0, 1 << 30], 1, True),  # a transposition
        ([0, -65536, 0, -65536, 0, 0, 0, 0, 1 << 30], -1, True),
    ],
)
def test_frames_stand_upright(clip: Clip, matrix: list[int], turns: int, mirrored: bool) -> None:
    """The picture is mirrored left to right first, then turned."""
    video = VideoFile(clip(IMAGES[:2], matrix=matrix, aspect=Fraction(2)))
    frame = next(iter(video))
    expected = np.rot90(IMAGES[0][:, ::-1] if mirrored else IMAGES[0], turns)
    assert frame.image.shape == expected.shape
    assert video.facts.pixel_aspect == (Fraction(1, 2) if turns % 2 else 2)
    assert np.abs(frame.image.astype(int) - expected).mean() < 3


def test_broken_frames_leave_gaps_and_are_counted(clip: Clip) -> None:
    path = clip(IMAGES, "clip.avi", "mjpeg")
    spoil(path, [3, 7])
    video = VideoFile(path)
    frames = list(video)
    assert video.problems == [f"{path}: 2 broken frames left out"]
    left = [index for index in range(12) if index not in (3, 7)]
    assert [frame.index for frame in frames] == left, "they keep their places"
    assert [frame.time for frame in frames] == pytest.approx([index / 25 for index in left])
    assert np.abs(frames[3].image.astype(int) - IMAGES[4]).mean() < 6


def test_a_video_of_broken_frames_only_is_refused(clip: Clip) -> None:
    path = clip(IMAGES, "clip.avi", "mjpeg")
    spoil(path, list(range(12)))
    with pytest.raises(InputError, match=r"clip\.avi: holds no frame that can be decoded"):
        list(VideoFile(path))


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [("clip.avi", "mjpeg", {}), ("clip.mp4", "libx264", {"movflags": "faststart"})],
)
def test_a_file_cut_short_gives_what_it_has(clip: Clip, name: str, codec: str, options: dict) -> None:
    path = clip([squares(i, (10, 40, 2, 1)) for i in range(60)], name, codec, options=options)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    video = VideoFile(path)
    frames = list(video)
    assert 15 < len(frames) < 55
    assert any(f"{name}: is cut short" in problem and "2.4 s by" in problem for problem in video.problems)


def test_max_frames_ends_early_and_is_no_problem(clip: Clip) -> None:
    video = VideoFile(clip(IMAGES), max_frames=5)
    assert len(list(video)) == 5
    assert (video.facts.frames, video.problems) == (5, [])


def test_sound_comes_along(clip: Clip) -> None:
    path = clip(IMAGES, sound="aac")
    video = VideoFile(path)
    packets = [packet for frame in video for packet in frame.packets] + video.rest
    with av.open(str(path)) as container:
        expected = [bytes(packet) for packet in container.demux(audio=0) if packet.size]
    assert [bytes(packet) for packet in packets] == expected
    assert len(expected) > 3


def test_what_is_no_video_is_refused(clip: Clip, tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("no video at all\n" * 99)
    (tmp_path / "empty.mp4").touch()
    cv2.imwrite(str(tmp_path / "picture.png"), IMAGES[0])
    with wave.open(str(tmp_path / "sound.wav"), "wb") as sound:
        sound.setparams((1, 2, 8000, 0, "NONE", ""))
        sound.writeframes(bytes(8000))
    whole = clip(IMAGES).read_bytes()
    (tmp_path / "unclosed.mp4").write_bytes(whole[: whole.rindex(b"moov")])
    for name, message in {
        "missing.mp4": "no such file",
        ".": "is a folder",
        "text.mp4": "is no video that can be read",
        "empty.mp4": "is no video that can be read",
        "unclosed.mp4": "lacks its index",
        "picture.png": "`diffusionpose predict` takes it",
        "sound.wav": "holds no moving pictures",
    }.items():
        with pytest.raises(InputError, match=message):
            VideoFile(tmp_path / name)


@pytest.mark.parametrize("name", ["clip.mp4", "clip.mkv", "clip.ts", "clip.h264"])
def test_all_frames_come_where_packets_lack_times(clip: Clip, name: str) -> None:
    """Matroska's first packets have no decoding time, those of a bare stream no time at all."""
    path = clip(IMAGES * 3, name, sound=None if name == "clip.h264" else "aac", coding=OUT_OF_ORDER)
    assert [frame.index for frame in VideoFile(path)] == list(range(36))


@pytest.mark.parametrize("packet", [13, 0, 12])
def test_places_are_kept_where_frames_are_decoded_out_of_order(clip: Clip, packet: int) -> None:
    """Behind a broken key frame, packets 0 and 12, some are dropped in silence, and some come too late."""
    path = clip([squares(index, (30, 40, 2, 1)) for index in range(36)], coding=OUT_OF_ORDER)
    spoil(path, [packet])
    video = VideoFile(path)
    frames = list(video)
    lost = 36 - len(frames)
    assert [round(frame.time * 25) for frame in frames] == [f.index - frames[0].index for f in frames]
    assert (frames[0].index, frames[-1].index) == (0 if packet else 12, 35)
    assert video.problems == [f"{path}: {lost} broken frame{'s' * (lost > 1)} left out"]


def test_times_that_begin_anew_go_on() -> None:
    """As where recordings were joined."""
    increasing = _Increasing(restart=50)
    assert [increasing(pts, 2) for pts in (100, 102, 104, 0, 2, 4, 3, None, 200)] == [
        100, 102, 104, 106, 108, 110, 111, 113, 306,
    ]  # fmt: skip


def test_a_title_of_other_bytes_does_no_harm(clip: Clip) -> None:
    path = clip(IMAGES[:3])
    with av.open(str(path)) as source, av.open(str(path.with_name("titled.mkv")), "w") as copy:
        stream = copy.add_stream_from_template(source.streams.video[0])
        copy.metadata["title"] = "Xaver"
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                copy.mux(packet)
    titled = path.with_name("titled.mkv")
    titled.write_bytes(titled.read_bytes().replace(b"Xaver", b"X\xe4ver"))
    assert len(list(VideoFile(titled))) == 3


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


def test_a_missing_package_is_one_line_with_the_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, use in (("av", lambda: VideoFile(Path(__file__))), ("trackers", lambda: Tracks(25))):
        monkeypatch.setitem(sys.modules, name, None)
        with pytest.raises(InputError) as error:
            use()
        assert str(error.value).startswith(f"video needs {name} (")
        assert str(error.value).endswith("pip install 'diffusionpose[video]'")
        assert "\n" not in str(error.value)


def test_whether_all_is_there_can_be_asked_beforehand(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("av")
    pytest.importorskip("trackers")
    check_extra()
    monkeypatch.setitem(sys.modules, "trackers", None)
    with pytest.raises(InputError, match=r"^video needs trackers; install it: pip install '.*\[video\]'$"):
        check_extra()
