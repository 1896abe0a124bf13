import numpy as np
import pytest

from diffusionpose.inference.drawing import COLORS, draw_poses, part_of
from diffusionpose.poses import Pose
from diffusionpose.skeletons import COCO, CROWDPOSE, SKELETONS, Skeleton

STANDING = np.array(
    [[60, 40], [40, 40], [70, 60], [30, 60], [72, 80], [28, 80], [56, 80], [44, 80], [57, 105], [43, 105]]
    + [[57, 130], [43, 130], [50, 15], [50, 35]],
    np.float32,
)
BOX = np.array([20, 10, 80, 140], np.float32)
GREY = np.full((160, 100, 3), 128, np.uint8)


def standing(scores: float | np.ndarray = 1.0, keypoints: np.ndarray = STANDING) -> Pose:
    return Pose(CROWDPOSE, keypoints, np.broadcast_to(np.float32(scores), 14), BOX, 1.0)


def hue(color: str) -> np.ndarray:
    rgb = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)])
    return rgb


def test_limbs_have_the_colours_of_their_parts() -> None:
    drawn = draw_poses(GREY, [standing()]).astype(int)
    for joints, part in (
        (("left_shoulder", "left_elbow"), "left arm"),
        (("right_elbow", "right_wrist"), "right arm"),
        (("left_knee", "left_ankle"), "left leg"),
        (("right_hip", "right_knee"), "right leg"),
        (("left_shoulder", "left_hip"), "middle"),
        (("head", "neck"), "head"),
    ):
        x, y = STANDING[[CROWDPOSE.index(joint) for joint in joints]].mean(axis=0).round().astype(int)
        nearest = min(COLORS, key=lambda name: np.abs(hue(COLORS[name]) - drawn[y, x]).sum())
        assert nearest == part, (joints, drawn[y, x])


def test_the_given_picture_stays_as_it_is_and_nothing_is_drawn_far_from_the_pose() -> None:
    image = np.random.default_rng(0).integers(0, 256, GREY.shape, dtype=np.uint8)
    before = image.copy()
    drawn = draw_poses(image, [standing()])
    assert (image == before).all()
    assert drawn.shape == image.shape
    assert drawn.dtype == np.uint8
    changed = np.argwhere((drawn != image).any(axis=2))
    assert changed.min(axis=0).tolist() >= [5, 20]
    assert (changed.max(axis=0) <= [140, 82]).all()
    assert (draw_poses(image, []) == image).all()


def test_edges_are_smooth() -> None:
    black = np.zeros((200, 200, 3), np.uint8)
    keypoints = np.full((14, 2), 20, np.float32)
    keypoints[2] = (180, 61.5)  # a slanted limb from the left shoulder to the left elbow
    drawn = draw_poses(black, [standing(np.eye(14)[0] + np.eye(14)[2], keypoints)])
    column = drawn[:, 100].max(axis=1)
    assert column.max() > 200
    assert ((column > 20) & (column < 180)).any(), "no pixel between full colour and none"


def test_unsure_joints_are_hidden_and_middling_ones_faint() -> None:
    def ink(scores: float | np.ndarray, threshold: float = 0.2) -> float:
        return float(np.abs(draw_poses(GREY, [standing(scores)], threshold).astype(int) - 128).sum())

    assert ink(0.19) == 0
    assert ink(0.19, threshold=0.1) > 0
    assert 0 < ink(0.25) < ink(0.45) < ink(0.6) == ink(1.0)
    without_legs = np.ones(14)
    without_legs[8:12] = 0
    drawn = draw_poses(GREY, [standing(without_legs)])
    assert (drawn[95:] == 128).all(), "legs are hidden"
    assert (drawn[:80] != 128).any()


def test_lines_grow_with_the_picture() -> None:
    def share(zoom: int) -> float:
        image = np.zeros((160 * zoom, 100 * zoom, 3), np.uint8)
        pose = Pose(CROWDPOSE, STANDING * zoom, np.ones(14), BOX * zoom, 1.0)
        return float((draw_poses(image, [pose]) > 0).any(axis=2).mean())

    assert share(8) == pytest.approx(share(2), rel=0.25)


def test_poses_at_and_beyond_the_edge_are_drawn_as_far_as_they_show() -> None:
    for shift in ((-50, 0), (0, -100), (60, 20), (500, 500)):
        drawn = draw_poses(GREY, [standing(keypoints=STANDING + np.float32(shift))])
        assert drawn.shape == GREY.shape
    assert (drawn == GREY).all()


def test_boxes_are_drawn_on_request() -> None:
    assert (draw_poses(GREY, [standing(0.0)], boxes=True)[BOX.astype(int)[1], 40] == 255).all()
    assert (draw_poses(GREY, [standing(0.0)]) == GREY).all()


def test_a_tiny_picture_can_be_drawn_on() -> None:
    pose = Pose(COCO, np.ones((17, 2)), np.ones(17), np.array([0, 0, 3, 2]), 1.0)
    assert draw_poses(np.zeros((2, 3, 3), np.uint8), [pose]).shape == (2, 3, 3)


@pytest.mark.parametrize(
    ("joints", "part"),
    [
        (("left_ear", "left_shoulder"), "middle"),
        (("left_hip", "right_hip"), "middle"),
        (("neck", "left_shoulder"), "middle"),
        (("head_top", "neck"), "head"),
        (("right_eye",), "head"),
        (("left_forearm",), "left arm"),
        (("right_big_toe", "right_ankle"), "right leg"),
        (("tail",), "middle"),
    ],
)
def test_parts_are_told_by_name(joints: tuple[str, ...], part: str) -> None:
    assert part_of(*joints) == part


@pytest.mark.parametrize("skeleton", SKELETONS.values(), ids=lambda skeleton: skeleton.name)
def test_mirrored_limbs_have_the_mirrored_colour(skeleton: Skeleton) -> None:
    for limb in skeleton.limbs:
        part = part_of(*(skeleton.joints[joint] for joint in limb))
        mirrored = part_of(*(skeleton.joints[skeleton.flip_order[joint]] for joint in limb))
        swap = {"left": "right", "right": "left"}
        assert mirrored == " ".join(swap.get(word, word) for word in part.split())
