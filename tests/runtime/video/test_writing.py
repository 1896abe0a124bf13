import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from diffusionpose.errors import InputError
from diffusionpose.poses import Pose
from diffusionpose.runtime.video import writing
from diffusionpose.runtime.video.following import Person
from diffusionpose.runtime.video.reading import Facts, Frame, VideoFile
from diffusionpose.runtime.video.writing import VideoWriter, frame_line, line_rows
from diffusionpose.skeletons import CROWDPOSE

from .conftest import spoil, squares

Clip = Callable[..., Path]
IMAGES = [squares(index, (30, 40, 4, 1)) for index in range(12)]
TICK = Fraction(1, 90000)


def copied(path: Path, output: Path, broken: bool = False) -> Path:
    """A video read and written again; whether some of its sound is broken."""
    video = VideoFile(path)
    with closing(VideoWriter(output, video.facts)) as writer:
        for frame in video:
            writer.write(frame.image, frame.pts, frame.packets)
        writer.finish(video.rest)
    assert (writer.broken > 0) == broken
    return output


def written(path: Path, images: list[np.ndarray], facts: Facts) -> list[np.ndarray]:
    with closing(VideoWriter(path, facts)) as writer:
        for index, image in enumerate(images):
            writer.write(image, index)
        writer.finish()
    return [frame.image for frame in VideoFile(path)]


def test_uneven_times_and_pictures_are_kept(clip: Clip, tmp_path: Path) -> None:
    path = clip(IMAGES, pts=lambda index: 1500 * index * index + 333, tick=TICK)
    copy = VideoFile(copied(path, tmp_path / "out.mp4"))
    for ours, theirs in zip(copy, VideoFile(path), strict=True):
        assert ours.time == pytest.approx(theirs.time, abs=1e-9)
        assert np.abs(ours.image.astype(int) - theirs.image).mean() < 3


@pytest.mark.parametrize("encoder", ["libx264", "mpeg4"])
@pytest.mark.parametrize("size", [(160, 120), (161, 121)])
def test_any_size_by_any_encoder(
    encoder: str, size: tuple[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "ENCODERS", {encoder: writing.ENCODERS[encoder]})
    images = [squares(index, (30, 40, 4, 1), size=size) for index in range(5)]
    made = written(tmp_path / "out.mp4", images, Facts(Fraction(1, 25), Fraction(25)))
    for ours, image in zip(made, images, strict=True):
        assert ours.shape[:2] == (size[1] + size[1] % 2, size[0] + size[0] % 2)
        difference = np.abs(ours[: size[1], : size[0]].astype(int) - image)
        assert difference.mean() < 4
    with av.open(str(tmp_path / "out.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.pix_fmt) == (
            {"libx264": "h264"}.get(encoder, encoder),
            "yuv420p",
        )


@pytest.mark.parametrize("encoder", ["libx264", "mpeg4"])
def test_the_same_pictures_give_the_same_bytes_on_a_busy_machine(
    encoder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Threads that share a picture's slices do not, nor does x264's macroblock tree on used memory."""
    monkeypatch.setattr(writing, "ENCODERS", {encoder: writing.ENCODERS[encoder]})
    y, x = np.mgrid[:120, :160]
    waves = [np.sin((x + 2 * y + 6 * index) / 23 + np.arange(3)[:, None, None]) for index in range(26)]
    images = [(127 + 120 * wave).astype(np.uint8).transpose(1, 2, 0) for wave in waves]
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2)]
    copies = []
    try:
        for index in range(8):
            used = [np.full(size, 37 * index % 256, np.uint8) for size in range(1000, 200_000, 3000)]
            del used  # what the encoder is given next is not all zeros
            written(tmp_path / "out.mp4", images, Facts(Fraction(1, 25), Fraction(25)))
            copies.append((tmp_path / "out.mp4").read_bytes())
    finally:
        for process in busy:
            process.kill()
            process.wait()
    assert set(copies) == {copies[0]}
    if encoder == "libx264":  # which says in the file how it was set
        stated = dict(re.findall(rb"\b(threads|sliced_threads|mbtree)=(\d+)", copies[0]))
        assert stated == {b"threads": b"4", b"sliced_threads": b"0", b"mbtree": b"0"}, "on any machine"


def test_colours_stay(tmp_path: Path) -> None:
    image = np.empty((64, 96, 3), np.uint8)
    image[:, :32], image[:, 32:64], image[:, 64:] = (200, 40, 40), (40, 200, 40), (40, 40, 200)
    first = written(tmp_path / "out.mp4", [image] * 3, Facts(Fraction(1, 25), Fraction(25)))[0]
    for x in (16, 48, 80):
        assert np.abs(first[32, x].astype(int) - image[32, x]).max() < 8


def test_sound_that_mp4_takes_is_copied(clip: Clip, tmp_path: Path) -> None:
    path = clip(IMAGES * 3, sound="aac")
    copy = copied(path, tmp_path / "out.mp4")
    packets = []
    for file in (path, copy):
        with av.open(str(file)) as container:
            packets.append(
                [(bytes(p), float(p.pts * p.time_base)) for p in container.demux(audio=0) if p.size]
            )
    assert packets[0] == packets[1]
    assert len(packets[0]) > 10


@pytest.mark.parametrize(
    ("sound", "rate", "kept"),
    [
        ("pcm_s16le", 16000, 16000),
        ("adpcm_ima_wav", 16000, 16000),
        ("pcm_s16le", 4000, 7350),  # AAC takes no such rates
        ("pcm_s16le", 192000, 96000),
    ],
)
def test_other_sound_is_encoded_anew(clip: Clip, tmp_path: Path, sound: str, rate: int, kept: int) -> None:
    copy = copied(clip(IMAGES * 3, "clip.avi", "mjpeg", sound=sound, rate=rate), tmp_path / "out.mp4")
    with av.open(str(copy)) as container:
        context = container.streams.audio[0].codec_context
        assert (context.name, context.sample_rate) == ("aac", kept)
        samples = np.concatenate([f.to_ndarray().ravel() for f in container.decode(audio=0)])
    assert len(samples) / kept == pytest.approx(36 / 25, abs=0.15)
    spectrum = np.abs(np.fft.rfft(samples[kept // 8 : kept // 8 + kept].astype(float)))
    assert spectrum[1:].argmax() + 1 == pytest.approx(440, abs=2), "the tone is still the same"


def test_broken_sound_is_left_out(clip: Clip, tmp_path: Path) -> None:
    path = clip(IMAGES * 3, "clip.avi", "mjpeg", sound="mp2")
    spoil(path, [5, 6], "audio")
    copy = copied(path, tmp_path / "out.mp4", broken=True)
    assert len(list(VideoFile(copy))) == 36


@pytest.mark.parametrize(
    ("sound", "rate", "broken"), [("aac", 16000, False), ("mp2", 16000, False), ("mp2", 24000, True)]
)
def test_sound_of_joined_recordings(clip: Clip, tmp_path: Path, sound: str, rate: int, broken: bool) -> None:
    """Their times overlap; what has another rate than before is left out."""
    parts = [clip(IMAGES, f"{r}.ts", sound=sound, rate=r).read_bytes() for r in (16000, rate)]
    (tmp_path / "joined.ts").write_bytes(b"".join(parts))
    copy = copied(tmp_path / "joined.ts", tmp_path / "out.mp4", broken)
    assert len(list(VideoFile(copy))) == 24


def test_pictures_that_no_encoder_takes_are_told_with_their_size(tmp_path: Path) -> None:
    message = r"out\.mp4: libx264 takes no pictures of 20000 x 16 pixels; scale it down"
    with pytest.raises(InputError, match=message):
        written(tmp_path / "out.mp4", [np.zeros((16, 20000, 3), np.uint8)], Facts(TICK, Fraction(25)))
    assert list(tmp_path.iterdir()) == []


def test_the_file_appears_when_it_is_whole_or_not_at_all(tmp_path: Path) -> None:
    with closing(VideoWriter(tmp_path / "out.mp4", Facts(Fraction(1, 25), Fraction(25)))) as writer:
        writer.write(IMAGES[0], 0)
        assert not (tmp_path / "out.mp4").exists()
    assert list(tmp_path.iterdir()) == []
    with closing(VideoWriter(tmp_path / "out.mp4", Facts(Fraction(1, 25), Fraction(25)))) as writer:
        writer.finish()
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    writer = VideoWriter(folder / "out.mp4", Facts(Fraction(1, 25), Fraction(25)))
    shutil.rmtree(folder)

    def write() -> None:
        writer.write(IMAGES[0], 0)
        writer.finish()

    with pytest.raises(InputError, match=r"out\.mp4: cannot be written"):
        write()
    writer.close()


FULL_DISK = """
import resource, signal, sys
from fractions import Fraction
from pathlib import Path
import numpy as np
from diffusionpose.errors import InputError
from diffusionpose.runtime.video.reading import Facts
from diffusionpose.runtime.video.writing import VideoWriter

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)
writer = VideoWriter(Path(sys.argv[1]), Facts(Fraction(1, 25), Fraction(25)))
errors = 0
for index in range(60):
    try:
        writer.write(np.random.default_rng(index).integers(0, 255, (120, 160, 3), np.uint8), index)
    except InputError:
        errors += 1
try:
    writer.finish()
except InputError:
    errors += 1
writer.close()
print(errors)
"""


@pytest.mark.parametrize("room", [0, 4096])
def test_a_full_disk_is_an_error_and_no_crash(tmp_path: Path, room: int) -> None:
    """FFmpeg asked a second time to write a header ends the process."""
    command = [sys.executable, "-c", FULL_DISK, str(tmp_path / "out.mp4"), str(room)]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert int(ended.stdout) > 0
    assert list(tmp_path.iterdir()) == []


POSE = Pose(CROWDPOSE, np.full((14, 2), 1 / 3), np.full(14, 0.5), np.array([0, 1, 2, 3.126]), 0.7)


def test_a_line_says_who_is_where() -> None:
    entry = json.loads(frame_line(Frame(1, 1 / 30, 1, np.empty(0)), [Person(4, POSE)], CROWDPOSE.joints))
    person = {"id": 4, "box": [0, 1, 2, 3.13], "score": 0.7, "keypoints": [0.333, 0.333, 0.5] * 14}
    joints = list(CROWDPOSE.joints)
    assert entry == {"frame": 1, "time": 0.033333, "persons": [person], "joints": joints}


def test_lines_become_a_table(tmp_path: Path) -> None:
    people = [[Person(4, POSE), Person(2, POSE)], [], [Person(2, POSE)]]
    lines = [frame_line(Frame(i, i / 30, i, np.empty(0)), p, CROWDPOSE.joints) for i, p in enumerate(people)]
    (tmp_path / "out.jsonl").write_bytes(b"".join(lines))
    rows = list(line_rows(tmp_path / "out.jsonl", "clip.mp4"))
    assert [(row["image_id"], row["person"]) for row in rows[::14]] == [(0, 4), (0, 2), (2, 2)]
    assert (rows[0]["joint"], rows[0]["x"], rows[0]["person_score"]) == (CROWDPOSE.joints[0], 0.333, 0.7)
