"""What the page shows next, without a server."""

import numpy as np
import pytest
import torch

from diffusionpose import PoseEstimator, create_model
from diffusionpose.app.web.files import Limits
from diffusionpose.app.web.handlers import ALL_JOINTS, Editor, Handlers

gradio = pytest.importorskip("gradio")


def handlers(folder, name="diffusionpose_tiny", limits=None):
    torch.manual_seed(0)
    model = create_model(name, "crowdpose", input_size=(48, 64))
    return Handlers(PoseEstimator(model, device="cpu", detector="whole"), limits or Limits(), "dark", folder)


@pytest.fixture
def ran(photo, persons, tmp_path):
    """The handlers, the editor and what a run with two persons shows."""
    made = handlers(tmp_path / "results")
    editor = made.load(str(photo), persons)["editor"]
    return made, editor, made.run(editor, 2, False, -1.0)


def test_a_run_shows_everything(ran, picture):
    _, _, parts = ran
    assert parts["person"]["choices"] == [("1", "1"), ("2", "2")] or parts["person"]["choices"] == ["1", "2"]
    assert "2 poses found" in parts["notice"]
    assert parts["overlay"].shape == picture.shape
    assert (parts["overlay"] != picture).any()
    assert [caption.split(":")[0] for _, caption in parts["steps_shown"]] == [
        "Coarse heatmaps", "Step 1 of 2", "Step 2 of 2",
    ]  # fmt: skip
    assert parts["joints"].count("<tr") == 14


def test_who_is_found_is_marked(data_dir, tmp_path):
    estimator = PoseEstimator.from_pretrained(device="cpu", detector="whole")
    parts = Handlers(estimator, Limits(), "dark", tmp_path).load(
        str(data_dir / "media" / "COCO_val2014_000000000241.jpg")
    )
    assert "1 person marked" in str(parts["notice"])
    x0, y0, x1, y1 = parts["editor"].boxes[0]
    width, height = parts["editor"].size
    assert (y1 - y0) > 0.8 * height, "a man who stands in the middle, as high as the picture"
    assert 0.1 * width < x0 < x1 < 0.9 * width


def test_another_person_and_another_joint(ran):
    made, _, parts = ran
    result = parts["result"]
    second = made.choose(result, "2", ALL_JOINTS, -1.0)
    for name in ("joints", "heat"):
        assert np.any(second[name] != parts[name])
    assert (made.choose(result, "1", ALL_JOINTS, -1.0)["heat"] == parts["heat"]).all()
    joint = result.persons[0].pose.skeleton.joints[3]
    assert made.glow(result, "1", joint)["heat"].shape == parts["heat"].shape


def test_another_threshold_draws_again(ran, picture):
    made, _, parts = ran
    nothing = made.redraw(parts["result"], "1", 2.0)
    plain = made.redraw(parts["result"], "1", 3.0)
    assert (nothing["overlay"] == plain["overlay"]).all()
    assert (nothing["overlay"] != parts["overlay"]).any()
    assert 'class="pale"' in nothing["joints"]
    assert nothing["png"] != parts["png"]


def test_a_picture_that_is_gone_is_asked_for_again(ran, photo):
    made, editor, parts = ran
    photo.unlink()
    assert "load it again" in made.run(editor, 1, True, 0.2)["notice"]
    assert "load it again" in made.redraw(parts["result"], "1", 0.5)["notice"]


def test_what_is_wrong_changes_nothing(ran):
    made, editor, _ = ran
    parts = made.change(editor.tapped(9, 9), lambda before: before.tapped(9, 10))
    assert parts.keys() == {"notice"}
    assert "too close" in parts["notice"]
    assert "table" not in made.type_boxes(editor, [[1, 2, 30, 40]])
    assert made.type_boxes(editor, [[1, 2, 30, 40]])["editor"].table() == [[1, 2, 30, 40]]
    emptied = made.change(editor, Editor.emptied)
    assert "No person is marked" in emptied["notice"]
    assert "No person is marked" in made.run(emptied["editor"], 1, True, 0.2)["notice"]


def test_with_a_mistake_in_the_table_nothing_is_run(ran):
    made, editor, _ = ran
    wrong = made.type_boxes(editor, [["abc", 2, 30, 40]])
    assert wrong.keys() == {"editor", "notice"}, "picture and table stay"
    assert 'role="alert"' in wrong["notice"]
    assert made.run(wrong["editor"], 1, False, 0.2) == {"notice": wrong["notice"]}
    for mended in (
        made.type_boxes(wrong["editor"], [[1, 2, 30, 40]]),
        made.change(wrong["editor"], Editor.undone),
    ):
        assert "1 person marked" in mended["notice"]
        assert "1 pose found" in made.run(mended["editor"], 1, False, 0.2)["notice"]
    assert "Drop a picture" in made.type_boxes(None, [])["notice"]


def test_names_of_files_are_no_html(tmp_path):
    (tmp_path / "<b>.png").write_text("x")
    notice = handlers(tmp_path).load(str(tmp_path / "<b>.png"))["notice"]
    assert "&lt;b&gt;.png" in notice
    assert "<b>" not in notice


@pytest.mark.parametrize(("name", "visible"), [("diffusionpose_tiny", True), ("tiny", False)])
def test_only_diffusion_models_have_a_slider_of_steps(tmp_path, name, visible):
    from diffusionpose.app.web.page import build_page

    page = build_page(handlers(tmp_path, name))
    (slider,) = [part for part in page.blocks.values() if getattr(part, "label", "") == "Diffusion steps"]
    assert slider.visible == visible
