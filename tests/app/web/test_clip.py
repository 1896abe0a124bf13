"""The tab for clips, without a server."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffusionpose import PoseEstimator
from diffusionpose.app.web import clip as clips
from diffusionpose.app.web.clip import MOST_IN_FRAME, BestPersons, follow, progress_bar
from diffusionpose.app.web.limits import Limits
from diffusionpose.app.web.picture import Handlers
from diffusionpose.errors import InputError
from diffusionpose.runtime.people import FunctionDetector

av = pytest.importorskip("av")
OPTIONS = {"steps": 1, "flip": False, "smooth": True}


@pytest.fixture
def results(tmp_path):
    """Where results go; a folder that is not there yet."""
    return tmp_path / "results"


@pytest.fixture
def run(estimator, results, monkeypatch):
    """``run(path, limits, options)``: the bars of :func:`follow`, one a frame, and what it ends with."""
    monkeypatch.setattr(clips, "SHOWN_EVERY", 0)

    def call(path, limits=None, **options):
        handlers = Handlers(estimator, limits or Limits(), "dark", results)
        *bars, last = follow(handlers, path, **{**OPTIONS, **options})
        return *(parts["clip_bar"] for parts in bars), last

    return call


def decoded(path):
    """The pictures of a video and their times."""
    with av.open(str(path)) as container:
        return [(frame.to_ndarray(format="rgb24"), frame.time) for frame in container.decode(video=0)]


def lines_of(last):
    return [json.loads(line) for line in Path(last["clip_lines"]).read_text().splitlines()]


def test_a_clip_comes_back_with_its_poses(clip, run, results, monkeypatch):
    monkeypatch.setattr(
        "diffusionpose.runtime.drawing.draw_poses", lambda image, poses, **_: np.full_like(image, 200)
    )
    path = clip(7)
    *bars, last = run(path)
    assert bars == [progress_bar(done, 7) for done in range(1, 8)]
    assert "7 frames, 1 person." in last["clip_notice"]
    video = Path(last["clip_video"])
    assert (video.name, Path(last["clip_lines"]).name) == ("clip.mp4", "clip.jsonl")
    assert video.parent.parent == results
    assert [line["frame"] for line in lines_of(last)] == list(range(7))
    assert {person["id"] for line in lines_of(last) for person in line["persons"]} == {1}
    before, after = decoded(path), decoded(video)
    assert [time for _, time in after] == [time for _, time in before]
    assert max(np.abs(image.astype(int) - 200).max() for image, _ in after) < 6, "what was drawn"
    assert last["clip_notice"].count("<p") == 2
    assert "No detector looks for persons, so each whole frame counts as one." in last["clip_notice"]


def test_options_reach_the_network(clip, run):
    found = {}
    for name, options in {
        "plain": {},
        "smooth": {"smooth": True},
        "steps": {"steps": 3},
        "flip": {"flip": True},
    }.items():
        found[name] = lines_of(run(clip(3), **{"smooth": False, **options})[-1])
    assert found["smooth"][0] == found["plain"][0]
    assert found["smooth"][1] != found["plain"][1]
    assert found["steps"] != found["plain"] != found["flip"]
    with pytest.raises(InputError, match="steps: 6 is more than 5"):
        run(clip(3), steps=6)


@pytest.mark.parametrize(("count", "more"), [(4, False), (6, True), (30, True)])
def test_only_the_beginning_is_used(clip, run, monkeypatch, count, more):
    monkeypatch.setattr(clips, "MOST_FRAMES", 5)
    *bars, last = run(clip(count))
    assert len(bars) == len(decoded(last["clip_video"])) == len(lines_of(last)) == min(count, 5)
    assert bars[0] == progress_bar(1, min(count, 5))
    assert ("At most 5 frames of a clip are used." in last["clip_notice"]) == more


def test_a_crowd_is_thinned_to_the_best(clip, results, estimator):
    rng = np.random.default_rng(0)
    boxes = np.stack([np.array([x, y, x + 12, y + 12]) for x in range(0, 80, 16) for y in (0, 16, 32, 48)])
    scores = rng.permutation(len(boxes)).astype(np.float32) / 40 + 0.5
    best = BestPersons(FunctionDetector(lambda image: (boxes.astype(np.float32), scores)))
    kept, sure = best(np.zeros((64, 96, 3), np.uint8))
    assert best.left_out
    assert sorted(sure) == sorted(scores)[-MOST_IN_FRAME:]
    order = [boxes.tolist().index(box) for box in kept.tolist()]
    assert order == sorted(order)
    assert (scores[order] == sure).all()

    crowded = PoseEstimator(estimator.network, detector=best.detector)
    *_, last = follow(Handlers(crowded, Limits(), "dark", results), clip(2), **OPTIONS)
    assert max(len(line["persons"]) for line in lines_of(last)) == MOST_IN_FRAME
    assert f"Of the persons in a frame the best {MOST_IN_FRAME} are used." in last["clip_notice"]
    few = BestPersons(FunctionDetector(lambda image: (boxes[:12], scores[:12])))
    assert len(few(np.zeros((64, 96, 3), np.uint8))[0]) == 12
    assert not few.left_out


def spoilt(path, clip, name):
    """A file that is no clip to be used."""
    whole = clip(8, size=(192, 128)).read_bytes()
    if name == "picture.mp4":
        Image.new("RGB", (90, 60)).save(path, format="png")
    elif name == "sound.mp4":
        with av.open(str(path), "w") as container:
            stream = container.add_stream("aac", rate=16000, layout="mono")
            sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            sound.sample_rate = 16000
            container.mux(stream.encode(sound))
            container.mux(stream.encode(None))
    elif name == "list.ffconcat":  # FFmpeg would open the other file
        path.write_text("ffconcat version 1.0\nfile clip.mp4\n")
        with av.open(str(path)) as container:
            assert container.streams.video
    else:
        contents = {"empty.mp4": b"", "notes.mp4": b"my notes\n" * 99, "cut.mp4": whole[: len(whole) // 2]}
        path.write_bytes(contents.get(name, whole))


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("empty.mp4", "is no video that can be read"),
        ("notes.mp4", "is no video that can be read"),
        ("cut.mp4", "is no video that can be read"),
        ("picture.mp4", "is no video that can be read"),
        ("list.ffconcat", "is no video that can be read"),
        ("sound.mp4", "holds no moving pictures"),
        ("large.mp4", "192 x 128 pixels is more than 0.02 million"),
    ],
)
def test_what_cannot_be_used_is_one_line_and_leaves_nothing(
    tmp_path, clip, run, results, handlers, name, complaint
):
    spoilt(tmp_path / name, clip, name)
    with pytest.raises(InputError) as caught:
        run(tmp_path / name, limits=Limits(megapixels=0.02))
    said = handlers.reason(caught.value)
    assert said.startswith(f"{name}: {complaint}")
    assert str(tmp_path) not in said
    assert "\n" not in said
    assert not list(results.glob("*"))


def test_frames_without_a_picture_are_no_clip(clip, run, results):
    """All that lies between the headers and the index of an AVI file is overwritten."""
    path = clip(4, "noise.avi")
    content = bytearray(path.read_bytes())
    start, end = content.index(b"movi") + 12, content.index(b"idx1")
    content[start:end] = bytes(end - start)
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"noise\.avi: "):
        run(path)
    assert not list(results.glob("*"))


def test_a_clip_that_is_cut_short_gives_what_it_has(clip, run, tmp_path):
    path = clip(50, "cut.avi")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    *bars, last = run(path)
    assert 15 < len(bars) < 35
    assert ">cut.avi: is cut short" in last["clip_notice"]


@pytest.mark.parametrize("most", [0, 2000])
def test_a_full_disk_ends_the_clip_and_not_the_server(clip, handlers, results, most):
    """A limit on the size of files stands for the disk."""
    resource = pytest.importorskip("resource")
    path, before = clip(8, size=(192, 128)), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    try:
        *_, last = clips.run_clip(handlers, str(path), **OPTIONS)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert 'role="alert"' in last["clip_notice"]
    assert "clip." in last["clip_notice"]
    assert "cannot be written (File too large)</p>" in last["clip_notice"]
    assert str(results) not in last["clip_notice"]
    assert not list(results.glob("*"))
    *_, last = clips.run_clip(handlers, str(path), **OPTIONS)
    assert "8 frames" in last["clip_notice"], "once there is room again"


def test_who_leaves_early_leaves_nothing_behind(clip, handlers, results):
    job = follow(handlers, clip(20), **OPTIONS)
    assert next(job) == {"clip_bar": progress_bar(1, 20)}
    assert list(results.glob("*"))
    job.close()
    assert not list(results.glob("*"))


# --- what the tab shows next ---


@pytest.fixture
def handlers(estimator, tmp_path):
    pytest.importorskip("gradio")
    return Handlers(estimator, Limits(), "dark", tmp_path / "results")


def test_a_bar_grows_until_the_video_is_there(clip, handlers, monkeypatch):
    monkeypatch.setattr(clips, "SHOWN_EVERY", 0)
    first, *between, last = clips.run_clip(handlers, str(clip(4)), **OPTIONS)
    assert "<progress>" in first["clip_bar"]
    assert [part["clip_bar"] for part in between] == [progress_bar(done, 4) for done in range(1, 5)]
    assert 'value="3" max="4"' in between[2]["clip_bar"]
    assert "4 frames, 1 person." in last["clip_notice"]
    assert "No detector looks for persons" in last["clip_notice"]
    assert last["clip_video"].endswith("clip.mp4")
    assert last["clip_lines"].endswith("clip.jsonl")
    assert last["clip_bar"] == ""


def test_nothing_of_the_clip_before_stays(clip, handlers):
    def seen(parts):
        return parts["clip_waiting"]["visible"], parts["clip_results"]["visible"]

    first, *_, last = clips.run_clip(handlers, str(clip(2)), **OPTIONS)
    assert (seen(first), seen(last)) == ((True, False), (False, True))
    for path, words in ((str(clip(2)), "Now follow the people"), (None, "Drop a video")):
        parts = clips.load_clip(path)
        assert words in parts["clip_notice"]
        assert (parts["clip_bar"], seen(parts)) == ("", (True, False))


def test_few_answers_are_sent(clip, handlers, monkeypatch):
    monkeypatch.setattr(clips, "SHOWN_EVERY", 1e9)
    monkeypatch.setattr(clips.time, "monotonic", lambda: 1e9)
    assert len(list(clips.run_clip(handlers, str(clip(9)), **OPTIONS))) == 3


def test_what_is_wrong_is_said(handlers, tmp_path):
    (tmp_path / "<b>.mp4").write_text("no video")
    *_, last = clips.run_clip(handlers, str(tmp_path / "<b>.mp4"), **OPTIONS)
    assert 'role="alert"' in last["clip_notice"]
    assert "&lt;b&gt;.mp4: is no video that can be read" in last["clip_notice"]
    assert last["clip_bar"] == ""
    (only,) = clips.run_clip(handlers, None, **OPTIONS)
    assert "There is no video yet" in only["clip_notice"]
    (only,) = clips.run_clip(handlers, str(tmp_path / "gone.mp4"), **OPTIONS)
    assert "load it again" in only["clip_notice"]
