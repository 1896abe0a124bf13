"""What the tab for clips shows next, without a server."""

import sys

import pytest
import torch

from diffusionpose import PoseEstimator, create_model
from diffusionpose.app.web import clip as clip_tab
from diffusionpose.app.web.clip import Progress
from diffusionpose.app.web.files import Limits
from diffusionpose.app.web.handlers import Handlers

gradio = pytest.importorskip("gradio")


@pytest.fixture
def handlers(tmp_path):
    torch.manual_seed(0)
    model = create_model("diffusionpose_tiny", "crowdpose", input_size=(48, 64))
    return Handlers(PoseEstimator(model, device="cpu"), Limits(), "dark", tmp_path / "results")


def test_a_bar_grows_until_the_video_is_there(clip, handlers, monkeypatch):
    monkeypatch.setattr(clip_tab, "SHOWN_EVERY", 0)
    first, *between, last = clip_tab.answers(handlers, str(clip(4)), 1, False, True)
    assert "<progress>" in first["clip_bar"]
    assert [part["clip_bar"] for part in between] == [clip_tab.bar(Progress(done, 4)) for done in range(1, 5)]
    assert 'value="3" max="4"' in between[2]["clip_bar"]
    assert "4 frames, 1 person." in last["clip_notice"]
    assert "No detector looks for persons" in last["clip_notice"]
    assert last["clip_video"].endswith("clip.mp4")
    assert last["clip_lines"].endswith("clip.jsonl")
    assert last["clip_bar"] == ""


def test_nothing_of_the_clip_before_stays(clip, handlers):
    def seen(parts):
        return parts["clip_waiting"]["visible"], parts["clip_results"]["visible"]

    first, *_, last = clip_tab.answers(handlers, str(clip(2)), 1, False, True)
    assert (seen(first), seen(last)) == ((True, False), (False, True))
    for path, words in ((str(clip(2)), "Now follow the people"), (None, "Drop a video")):
        parts = clip_tab.loaded(path)
        assert words in parts["clip_notice"]
        assert (parts["clip_bar"], seen(parts)) == ("", (True, False))


def test_few_answers_are_sent(clip, handlers, monkeypatch):
    monkeypatch.setattr(clip_tab, "SHOWN_EVERY", 1e9)
    monkeypatch.setattr(clip_tab.time, "monotonic", lambda: 1e9)
    assert len(list(clip_tab.answers(handlers, str(clip(9)), 1, False, True))) == 3


def test_what_is_wrong_is_said(handlers, tmp_path):
    (tmp_path / "<b>.mp4").write_text("no video")
    *_, last = clip_tab.answers(handlers, str(tmp_path / "<b>.mp4"), 1, False, True)
    assert 'role="alert"' in last["clip_notice"]
    assert "&lt;b&gt;.mp4: is no video that can be read" in last["clip_notice"]
    assert last["clip_bar"] == ""
    (only,) = clip_tab.answers(handlers, None, 1, False, True)
    assert "There is no video yet" in only["clip_notice"]
    (only,) = clip_tab.answers(handlers, str(tmp_path / "gone.mp4"), 1, False, True)
    assert "load it again" in only["clip_notice"]


@pytest.mark.parametrize("missing", ["av", "trackers", None])
def test_without_the_extra_the_tab_says_so(handlers, monkeypatch, missing):
    from diffusionpose.app.web.page import build_page

    if missing:
        monkeypatch.setitem(sys.modules, missing, None)
    parts = list(build_page(handlers).blocks.values())
    labels = [part.value for part in parts if isinstance(part, gradio.Button)]
    lines = [
        part.value for part in parts if isinstance(part, gradio.HTML) and "install it" in str(part.value)
    ]
    assert "Find poses" in labels, "pictures do not need it"
    assert ("Follow the people" in labels) == (missing is None)
    assert [f"video needs {missing}; install it" in line for line in lines] == [True] * (missing is not None)
