import numpy as np
import pytest
import torch

from diffusionpose.app.web.handlers import (
    GAP,
    Options,
    analyse,
    confidence_table,
    heatmap_view,
    lay_heat,
    shrink,
    step_captions,
    step_view,
)
from diffusionpose.models.zoo import create_model
from diffusionpose.poses import Pose
from diffusionpose.skeletons import COCO, CROWDPOSE


@pytest.fixture(scope="module", params=[False, True], ids=["biased", "unbiased"])
def person(request, picture):
    torch.manual_seed(0)
    tiny = create_model("diffusionpose_tiny", "crowdpose", input_size=(48, 64), unbiased=request.param).eval()
    boxes = np.array([[10, 5, 60, 80]], np.float32)
    (found,) = analyse(tiny, picture, boxes, np.ones(1, np.float32), Options(2, True))
    return found


def spot(person, joint, x, y):
    """The person with one heatmap that is 1 at one pixel and 0 elsewhere."""
    person.heatmaps[:] = 0
    person.heatmaps[-1, joint, y, x] = 255
    return person


@pytest.mark.parametrize("scale", [1, 3])
def test_a_heatmap_glows_where_its_point_is_in_the_picture(person, picture, scale):
    spot(person, 4, 5, 9)
    (there,) = person.crop.heatmap_to_image(torch.tensor([[[5.0, 9.0]]]), (12, 16))[0].numpy()
    preview = np.zeros((scale * 90, scale * 120, 3), np.uint8)
    shown = heatmap_view(preview, scale, person, 4).sum(2).astype(float)
    y, x = np.indices(shown.shape)
    centre = np.array([(x * shown).sum(), (y * shown).sum()]) / shown.sum()
    # pixel p of a picture covers p - 0.5 to p + 0.5; the heatmap's pixels are about 6 wide here
    assert np.abs((centre + 0.5) / scale - 0.5 - there).max() < 0.25
    assert (heatmap_view(preview, scale, person, None) == heatmap_view(preview, scale, person, 4)).all()
    assert heatmap_view(preview, scale, person, 3).sum() == 0


def test_heat_over_a_picture():
    image = np.full((2, 2, 3), 200, np.uint8)
    cold, hot = lay_heat(image, np.zeros((2, 2))), lay_heat(image, np.ones((2, 2)))
    assert (cold == 90).all()
    assert (hot == lay_heat(0 * image, np.ones((2, 2)))).all(), "the peak hides what is below"


def test_a_step_is_its_heat_and_its_skeleton(person):
    height, width = person.view.shape[:2]
    spot(person, 2, 3, 8)
    view = step_view(person, 2, threshold=-1)
    assert view.shape == (height, 2 * width + GAP, 3)
    left, right = view[:, :width], view[:, width + GAP :]
    (there,) = person.crop.heatmap_to_input(torch.tensor([[[3.0, 8.0]]]), (12, 16))[0].numpy()
    heat = (left.astype(int) - lay_heat(person.view, np.zeros((height, width)))).sum(2)
    glow = np.unravel_index(heat.argmax(), heat.shape)
    assert np.abs(np.array(glow[::-1]) - there).max() <= 1
    assert (right != person.view).any()
    points = person.crop.image_to_input(torch.tensor(person.steps[2].keypoints)[None])[0].numpy()
    inside = ((points > 2) & (points < np.array([width, height]) - 3)).all(1)
    assert inside.any()
    for x, y in points[inside].round().astype(int):
        assert (right[y - 2 : y + 3, x - 2 : x + 3] != person.view[y - 2 : y + 3, x - 2 : x + 3]).any()
    assert (step_view(person, 2, threshold=2)[:, width + GAP :] == person.view).all()


def test_captions_say_how_far_joints_moved(person):
    coarse, first, second = step_captions(person)
    assert coarse == "Coarse heatmaps"
    moved = np.hypot(*(person.steps[2].keypoints - person.steps[1].keypoints).T).mean()
    assert first.startswith("Step 1 of 2: ")
    assert second == f"Step 2 of 2: {moved:.1f} px moved"


@pytest.mark.parametrize(
    ("size", "wanted"), [((400, 1000), (80, 200)), ((1000, 400), (200, 80)), ((9, 7), (9, 7))]
)
def test_shrinking_keeps_the_shape(size, wanted):
    assert shrink(np.zeros((*size, 3), np.uint8), 200).shape == (*wanted, 3)


def test_the_table_has_a_bar_for_every_joint():
    scores = np.linspace(-0.1, 1.2, 14)
    html = confidence_table(Pose(CROWDPOSE, np.zeros((14, 2)), scores, np.zeros(4), 0.5), 0.3)
    assert html.count("<tr") == 14
    assert html.count('class="pale"') == (scores < 0.3).sum()
    assert "left shoulder" in html
    assert "width:0.0%" in html
    assert "width:100.0%" in html
    assert "10 of 14 joints drawn" in html


def test_names_of_joints_are_no_html():
    names = ("<b>x</b>", *COCO.joints[1:])
    skeleton = type(COCO)("own", names, COCO.limbs, COCO.pairs, COCO.sigmas)
    html = confidence_table(Pose(skeleton, np.zeros((17, 2)), np.ones(17), np.zeros(4), 1), 0.2)
    assert "<b>" not in html
    assert "&lt;b&gt;" in html
