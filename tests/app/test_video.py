import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from diffusionpose.app.video import VideoCommand
from diffusionpose.poses import read_csv
from diffusionpose.runtime.video import writing as copying
from diffusionpose.runtime.video.reading import Facts, Frame, VideoSource

av = pytest.importorskip("av")
Run = Callable[..., tuple[int, str, str]]


def scene(index: int, size: tuple[int, int] = (160, 120)) -> np.ndarray:
    """Soft waves that move: cheap to encode, different in each frame."""
    y, x = np.mgrid[: size[1], : size[0]]
    waves = [127 + 120 * np.sin((x * (1 + c) + 2 * y + 6 * index) / 23) for c in range(3)]
    return np.stack(waves, axis=2).astype(np.uint8)


def write_clip(path: Path, count: int, size: tuple[int, int] = (160, 120)) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        sound = container.add_stream("aac", rate=16000, layout="mono")
        for index in range(count):
            frame = av.VideoFrame.from_ndarray(scene(index, size), format="rgb24")
            frame.pts = index
            container.mux(stream.encode(frame))
            noise = np.random.default_rng(index).normal(0, 0.1, (1, 640)).astype(np.float32)
            samples = av.AudioFrame.from_ndarray(noise, format="fltp", layout="mono")
            samples.sample_rate, samples.pts = 16000, 640 * index
            container.mux(sound.encode(samples))
        container.mux(stream.encode(None))
        container.mux(sound.encode(None))
    return path


def content(path: Path) -> tuple[list[bytes], list[float], list[bytes]]:
    """What a video decodes to: pictures, their times, packets of sound."""
    with av.open(str(path)) as container:
        frames = [(frame.to_ndarray().tobytes(), frame.time) for frame in container.decode(video=0)]
    with av.open(str(path)) as container:
        sound = [bytes(packet) for packet in container.demux(audio=0) if packet.size]
    return [image for image, _ in frames], [moment for _, moment in frames], sound


def visible(folder: Path) -> list[str]:
    """Names of the files in a folder; the lock of a finished job may stay there, hidden."""
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


@pytest.fixture
def call(run: Run, light_weights: Path, tmp_path: Path) -> Callable[..., tuple[int, str, str]]:
    """``video WORDS --output out/clip.mp4`` with the light model."""

    def video(*words: object, output: str = "out/clip.mp4") -> tuple[int, str, str]:
        options = ("--weights", light_weights, "--device", "cpu", "--no-flip")
        if "--boxes" not in words:
            options += ("--detector", "whole")
        return run("video", *words, "--output", tmp_path / output, *options)

    return video


def test_a_video_gives_a_video_and_a_line_for_each_frame(call: Run, tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", 30)
    status, out, err = call(clip)
    assert (status, err) == (0, "")
    assert "30 frames, 1 person," in out
    assert visible(tmp_path / "out") == ["clip.jsonl", "clip.mp4"]
    pictures, times, sound = content(tmp_path / "out" / "clip.mp4")
    assert (len(pictures), times, sound) == (30, content(clip)[1], content(clip)[2])
    lines = [json.loads(line) for line in (tmp_path / "out" / "clip.jsonl").read_text().splitlines()]
    assert [line["frame"] for line in lines] == list(range(30))
    assert [line["time"] for line in lines] == pytest.approx([index / 25 for index in range(30)])
    for line in lines:
        (person,) = line["persons"]
        assert (person["id"], person["box"], len(person["keypoints"])) == (1, [0, 0, 160, 120], 42)


def test_poses_and_ids_are_drawn(call: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = write_clip(tmp_path / "clip.mp4", 3)
    given = []

    def draw(image: np.ndarray, poses: list, **options: object) -> np.ndarray:
        given.append((len(poses), options))
        return np.full_like(image, 200)

    monkeypatch.setattr("diffusionpose.runtime.drawing.draw_poses", draw)
    assert call(clip)[0] == 0
    assert given == [(1, {"boxes": False, "ids": [1]})] * 3
    with av.open(str(tmp_path / "out" / "clip.mp4")) as container:
        shown = next(container.decode(video=0)).to_ndarray(format="rgb24")
    assert np.abs(shown.astype(int) - 200).max() < 6


def test_options_reach_the_poses(call: Run, tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", 6)
    (tmp_path / "boxes.json").write_text('{"2": [[20, 10, 90, 110]], "4": []}')
    found = {}
    for name, words in {
        "plain": [],
        "rough": ["--no-smooth"],
        "last": ["--no-smooth", "--from-last"],
        "short": ["--max-frames", 4],
        "boxes": ["--boxes", tmp_path / "boxes.json"],
    }.items():
        assert call(clip, *words, output=f"{name}.mp4")[0] == 0
        found[name] = (tmp_path / f"{name}.jsonl").read_text().splitlines()
    assert found["plain"][0] == found["rough"][0]
    assert found["plain"][1] != found["rough"][1]
    assert found["short"] == found["plain"][:4]
    boxes = [[person["box"] for person in json.loads(line)["persons"]] for line in found["boxes"]]
    assert boxes[:3] == [[], [], [[20, 10, 90, 110]]]
    assert boxes[4:] == [[], []]


KILLED = """
import os, sys
from diffusionpose.app import cli
from diffusionpose.app import video
written, left = video._Job._written, int(sys.argv.pop())
def dying(self):
    for frame, persons in written(self):
        if frame.index == left:
            os.kill(os.getpid(), 9)
        yield frame, persons
video._Job._written = dying
sys.exit(cli.main(sys.argv[1:]))
"""


@pytest.mark.parametrize("words", [[], ["--detect-every", "3", "--from-last"]])
def test_a_killed_run_goes_on_and_ends_alike(
    call: Run, tmp_path: Path, light_weights: Path, words: list[str]
) -> None:
    clip = write_clip(tmp_path / "clip.mp4", 26)
    assert call(clip, *words, output="whole.mp4")[0] == 0
    command = [sys.executable, "-c", KILLED, "video", str(clip), "--output", str(tmp_path / "part.mp4")]
    command += ["--weights", str(light_weights), "--device", "cpu", "--no-flip"]
    command += ["--detector", "whole", *words, "13"]
    assert subprocess.run(command, capture_output=True).returncode == -signal.SIGKILL
    assert not (tmp_path / "part.mp4").exists()
    assert len((tmp_path / "part.jsonl").read_bytes().splitlines()) == 14, "what was done is kept"
    assert call(clip, *words, output="part.mp4")[0] == 0
    assert (tmp_path / "part.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert content(tmp_path / "part.mp4") == content(tmp_path / "whole.mp4")
    assert (tmp_path / "part.mp4").read_bytes() == (tmp_path / "whole.mp4").read_bytes()
    left = [path.name for path in tmp_path.iterdir() if path.name.startswith(".")]
    assert all(name.endswith(".lock") for name in left)


def test_a_run_of_other_settings_is_not_mixed_in(
    call: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = write_clip(tmp_path / "clip.mp4", 20)
    with monkeypatch.context() as patch:
        patch.setattr(copying, "_draw", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        assert call(clip)[0] == 130
    status, _, err = call(clip, "--no-smooth")
    assert status == 1
    assert "is of a job with other settings or inputs (smooth); finish that with its own options, " in err
    assert call(clip)[0] == 0


def test_several_videos_and_a_table(call: Run, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    clips = [write_clip(tmp_path / "clip.mp4", 3), write_clip(tmp_path / "other" / "clip.mp4", 2)]
    (tmp_path / "text.mp4").write_text("no video")
    status, out, err = call(*clips, tmp_path / "text.mp4", "--csv", output="out")
    assert status == 1
    assert "text.mp4: is no video" in err
    assert out.count(" person, ") == 2
    names = ["clip.csv", "clip.jsonl", "clip.mp4", "clip_2.csv", "clip_2.jsonl", "clip_2.mp4"]
    assert visible(tmp_path / "out") == names
    lines = [json.loads(line) for line in (tmp_path / "out" / "clip.jsonl").read_text().splitlines()]
    rows = read_csv(tmp_path / "out" / "clip.csv")
    assert len(rows) == 3 * 14
    assert [row["joint"] for row in rows[:14]] == lines[0]["joints"]
    assert {(row["image_id"], row["person"], row["file_name"]) for row in rows} == {
        (frame, 1, "clip.mp4") for frame in range(3)
    }
    assert [n for row in rows[14:28] for n in (row["x"], row["y"], row["score"])] == lines[1]["persons"][0][
        "keypoints"
    ]


def test_no_two_videos_get_one_name() -> None:
    sources = ("a.mp4", "A.mov", "a_2.mp4", "b/a.mp4")
    outputs = VideoCommand(sources, Path("out"))._outputs()
    assert [path.name for path in outputs] == ["a.mp4", "A_3.mp4", "a_2.mp4", "a_4.mp4"]


def test_no_input_is_overwritten(call: Run, tmp_path: Path) -> None:
    clip, boxes = write_clip(tmp_path / "clip.mp4", 2), tmp_path / "boxes.json"
    boxes.write_text('{"0": []}')
    for suffix, given, what in (
        (".csv", boxes, "the file of --boxes"),
        (".jsonl", boxes, "the file of --boxes"),
        (".mp4", clip, "the video itself"),
    ):
        output = tmp_path / f"out{suffix}"
        output.hardlink_to(given)
        status, _, err = call(clip, "--boxes", boxes, "--csv", output="out.mp4")
        assert (status, f"{output}: is {what}; name another" in err) == (1, True)
        output.unlink()


def test_a_videos_table_gives_its_boxes(call: Run, tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", 4)
    assert call(clip, "--csv", "--no-smooth", output="first.mp4")[0] == 0
    words = ("--boxes", tmp_path / "first.csv", "--no-smooth", "--max-frames", 3)
    assert call(clip, *words, output="second.mp4")[::2] == (0, "")
    first, second = ((tmp_path / f"{name}.jsonl").read_text().splitlines() for name in ("first", "second"))
    boxes = [
        [[person["box"] for person in json.loads(line)["persons"]] for line in lines]
        for lines in (first[:3], second)
    ]
    assert boxes[0] == boxes[1] == [[[0, 0, 160, 120]]] * 3


def test_boxes_of_frames_that_are_not_there_are_told(call: Run, tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", 3)
    (tmp_path / "boxes.json").write_text('{"1": [[20, 10, 90, 110]], "7": [[0, 0, 9, 9]]}')
    status, _, err = call(clip, "--boxes", tmp_path / "boxes.json")
    assert (status, "the video has no frame 7 (1 such entries)" in err) == (1, True)
    (tmp_path / "boxes.json").write_text('{"photo.jpg": [[20, 10, 90, 110]]}')
    status, _, err = call(clip, "--boxes", tmp_path / "boxes.json")
    assert (status, "boxes.json: names no frame" in err) == (1, True)


def test_damage_is_reported_and_the_rest_is_done(call: Run, tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", 50)
    avi = tmp_path / "clip.avi"
    silence = av.AudioFrame.from_ndarray(np.full((1, 1024), np.nan, np.float32), "flt", "mono")
    silence.sample_rate, silence.pts = 16000, 0
    with av.open(str(clip)) as source, av.open(str(avi), "w") as copy:
        stream = copy.add_stream("mjpeg", rate=25)
        stream.width, stream.height, stream.pix_fmt = 160, 120, "yuvj420p"
        sound = copy.add_stream("pcm_f32le", rate=16000, layout="mono")
        for frame in source.decode(video=0):
            copy.mux(stream.encode(frame.reformat(format="yuvj420p")))
            if frame.pts == 0:
                copy.mux(sound.encode(silence))
        copy.mux(stream.encode(None))
    avi.write_bytes(avi.read_bytes()[: avi.stat().st_size // 2])
    status, out, err = call(avi)
    assert status == 1
    assert "clip.avi: is cut short" in err
    assert "clip.avi: 1 broken packet of sound left out" in err
    frames = len((tmp_path / "out" / "clip.jsonl").read_text().splitlines())
    assert 15 < frames < 35
    assert f"{frames} frames" in out


@pytest.mark.parametrize(
    ("source", "output", "words", "message"),
    [
        ("text.mp4", "out.mp4", [], "text.mp4: is no video that can be read"),
        ("missing.mp4", "out.mp4", [], "missing.mp4: no such file"),
        ("clip.mp4", "out.avi", [], "out.avi: name an .mp4 file"),
        ("clip.mp4", "folder.mp4", [], "folder.mp4: name an .mp4 file"),
        ("clip.mp4", "clip.mp4", [], "clip.mp4: is the video itself; name another"),
        ("clip.mp4", "text.mp4/out.mp4", [], "no folder that can be written to"),
        ("clip.mp4", "out.mp4", ["--detect-every", 0], "--detect-every 0: must be 1"),
        ("clip.mp4", "out.mp4", ["--max-frames", 0], "--max-frames 0: must be 1"),
        ("clip.mp4", "out.mp4", ["--boxes", "missing.json"], "missing.json"),
        ("/dev/video97", "out.mp4", [], "camera /dev/video97: cannot be opened"),
        (
            "rtsp://127.0.0.1:1/door",
            "out.mp4",
            [],
            "rtsp://127.0.0.1:1/door: cannot be opened (Connection refused)",
        ),
    ],
)
def test_what_cannot_be_done_is_said_at_once(
    call: Run, tmp_path: Path, source: str, output: str, words: list, message: str
) -> None:
    write_clip(tmp_path / "clip.mp4", 2)
    (tmp_path / "text.mp4").write_text("no video\n" * 99)
    (tmp_path / "folder.mp4").mkdir()
    before = sorted(tmp_path.rglob("*"))
    status, out, err = call(source if "://" in source else tmp_path / source, *words, output=output)
    assert (status, out) == (2 if "must be 1" in message else 1, "")
    assert message in err
    assert err.count("\n") <= 2
    assert sorted(tmp_path.rglob("*")) == before, "nothing is left behind"


class FakeCamera(VideoSource):
    """Runs until it is stopped; Ctrl-C comes after the sixth frame."""

    def __init__(self, name: str, max_frames: int | None) -> None:
        super().__init__(name, SimpleNamespace(close=lambda: None))
        self.facts = Facts(Fraction(1, 10_000), Fraction(20))

    live = True

    def __iter__(self) -> Iterator[Frame]:
        index = 0
        while not self._stopped:
            yield Frame(index, index * 0.05, 500 * index, scene(index))
            index += 1
            if index == 6:
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(0.05)  # the handler runs in the main thread, this is read in another
        assert index < 40


def test_a_camera_records_until_ctrl_c(call: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("diffusionpose.runtime.video.reading.LiveVideo", FakeCamera)
    before = signal.getsignal(signal.SIGINT)
    status, out, _ = call("0")
    assert status == 0
    assert signal.getsignal(signal.SIGINT) is before
    lines = (tmp_path / "out" / "clip.jsonl").read_text().splitlines()
    assert len(lines) >= 6
    assert f"{len(lines)} frames" in out
    with av.open(str(tmp_path / "out" / "clip.mp4")) as container:
        times = [frame.time for frame in container.decode(video=0)]
    assert times == pytest.approx([0.05 * index for index in range(len(lines))])
    assert not list((tmp_path / "out").glob(".*")), "a camera cannot be read again: no journal"


MEMORY = """
import resource, sys
from diffusionpose.app import cli
peaks = []
for clip in sys.argv[1:3]:
    words = ["video", clip, "--output", clip + ".out.mp4", "--weights", sys.argv[3], "--device", "cpu"]
    assert cli.main([*words, "--no-flip", "--detector", "whole"]) == 0
    peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
print(*peaks)
"""


def test_memory_does_not_grow_with_the_length(tmp_path: Path, light_weights: Path) -> None:
    """60 further frames of 0.9 MB each; a tenth of the memory is about 20 of them."""
    clips = [write_clip(tmp_path / f"{count}.mp4", count, (640, 480)) for count in (40, 100)]
    command = [sys.executable, "-c", MEMORY, *map(str, clips), str(light_weights)]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    short, long = map(int, ended.stdout.splitlines()[-1].split())
    assert long < 1.1 * short, f"{short / 1024:.0f} MB for 40 frames, {long / 1024:.0f} MB for 100"


def test_the_example_runs(tmp_path: Path) -> None:
    example = Path(__file__).resolve().parents[2] / "examples" / "video.py"
    assert len(example.read_text().splitlines()) < 25
    clip = write_clip(tmp_path / "clip.mp4", 3)
    ended = subprocess.run([sys.executable, example, clip], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
