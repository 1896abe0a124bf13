"""What the page holds, without a server."""

import sys

import pytest

from diffusionpose import PoseEstimator
from diffusionpose.app.web.limits import Limits
from diffusionpose.app.web.page import build_page
from diffusionpose.app.web.picture import Handlers

gradio = pytest.importorskip("gradio")


def parts_of(estimator, tmp_path):
    return list(build_page(Handlers(estimator, Limits(), "dark", tmp_path)).blocks.values())


@pytest.mark.parametrize("missing", ["av", "trackers", None])
def test_without_the_extra_the_tab_says_so(estimator, tmp_path, monkeypatch, missing):
    if missing:
        monkeypatch.setitem(sys.modules, missing, None)
    parts = parts_of(estimator, tmp_path)
    labels = [part.value for part in parts if isinstance(part, gradio.Button)]
    texts = [str(part.value) for part in parts if isinstance(part, gradio.HTML)]
    lines = [text for text in texts if "install it" in text]
    assert "Find poses" in labels, "pictures do not need it"
    assert ("Follow the people" in labels) == (missing is None)
    assert [f"video needs {missing}; install it" in line for line in lines] == [True] * (missing is not None)


@pytest.mark.parametrize(("steps", "visible"), [(1, True), (None, False)])
def test_only_diffusion_models_have_a_slider_of_steps(painter, tmp_path, steps, visible):
    plain = PoseEstimator(painter(steps=steps), detector="whole")
    sliders = [part for part in parts_of(plain, tmp_path) if getattr(part, "label", "") == "Diffusion steps"]
    assert [slider.visible for slider in sliders] == [visible, visible]
