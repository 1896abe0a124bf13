from dataclasses import replace

import cv2
import numpy as np
import pytest

from diffusionpose import InputError
from diffusionpose.poses import ABSENT, HIDDEN, REGION, VISIBLE, Confidence, Pose
from diffusionpose.runtime.drawing import (
    COLORS,
    PERSON_COLORS,
    STRIP,
    draw_heatmap,
    draw_poses,
    limb_width,
    part_of,
)
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
        return float(
            np.abs(draw_poses(GREY, [standing(scores)], min_score=threshold).astype(int) - 128).sum()
        )

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


def test_a_person_with_a_number_has_its_box_and_label_in_its_colour() -> None:
    wide = np.full((160, 300, 3), 128, np.uint8)
    poses = [Pose(CROWDPOSE, STANDING, np.zeros(14), BOX + (x, 10, x, 10), 0.5) for x in (0, 150)]
    drawn = draw_poses(wide, poses, boxes=True, ids=[3, None])
    assert drawn[100, 20].tolist() == hue(PERSON_COLORS[3]).tolist()
    assert drawn[100, 170].tolist() == [255, 255, 255], "a person without a number is white"
    label = drawn[(draw_poses(wide, poses, boxes=True, ids=[11, None]) != drawn).any(axis=2)]
    assert len(np.unique(label, axis=0)) > 1, "3 and 11 have one colour and are written differently"
    labelled = (draw_poses(wide, poses, boxes=True) != drawn).any(axis=2)
    assert (drawn[labelled] == hue(PERSON_COLORS[3])).all(axis=1).sum() > 20
    assert not labelled[:, 150:].any()
    assert (draw_poses(wide, poses, ids=[3, None]) == wide).all(), (
        "no joints shown, no boxes: no place for it"
    )
    with pytest.raises(InputError, match="2 poses but 1 ids"):
        draw_poses(wide, poses, ids=[1])


def test_scores_and_names_are_written_on_request() -> None:
    wide = np.full((320, 400, 3), 128, np.uint8)
    pose = Pose(CROWDPOSE, STANDING * 2, np.ones(14), BOX * 2, 0.5)
    plain = draw_poses(wide, [pose])
    scored = (draw_poses(wide, [pose], scores=True) != plain).any(axis=2)
    assert scored.any()
    assert np.argwhere(scored)[:, 0].max() < 40, "above the head"
    named = (draw_poses(wide, [pose], names=True) != plain).any(axis=2)
    for x, y in STANDING[[2, 8, 11]] * 2:
        assert named[int(y) - 6 : int(y) + 7, int(x) + 4 : int(x) + 60].any(), "beside its joint"
    hidden = Pose(CROWDPOSE, STANDING * 2, np.zeros(14), BOX * 2, 0.5)
    assert (draw_poses(wide, [hidden], names=True, scores=True) == wide).all()


def test_the_nearer_person_is_drawn_above_whatever_the_order() -> None:
    far = Pose(CROWDPOSE, STANDING, np.ones(14), BOX, 1.0)
    near = Pose(CROWDPOSE, STANDING + (9, 9), np.ones(14), BOX + 9, 1.0)
    drawn = draw_poses(GREY, [far, near])
    assert (drawn == draw_poses(GREY, [near, far])).all()
    alone = draw_poses(GREY, [near])
    x, y = (near.keypoints[[2, 4]].mean(axis=0)).round().astype(int)
    assert (drawn[y, x] == alone[y, x]).all()


def test_strips_leave_no_seam() -> None:
    tall = np.full((3 * STRIP, 200, 3), 128, np.uint8)
    points = np.linspace((50, 20), (150, 3 * STRIP - 20), 14).astype(np.float32)
    pose = Pose(CROWDPOSE, points, np.ones(14), np.array([0, 0, 200, 3 * STRIP]), 1.0)
    whole = draw_poses(tall, [pose])
    shifted = draw_poses(np.roll(tall, 0), [Pose(CROWDPOSE, points + (0, 5), np.ones(14), pose.box, 1.0)])
    assert np.abs(whole[:-5].astype(int) - shifted[5:]).max() <= 1


def test_a_limb_is_as_wide_as_said_and_where_its_joints_are() -> None:
    dark = np.zeros((600, 600, 3), np.uint8)
    points = np.full((14, 2), -500, np.float32)
    points[[0, 2]] = [(100.25, 300), (500.25, 300)]  # left shoulder to left elbow
    pose = Pose(CROWDPOSE, points, np.eye(14)[0] + np.eye(14)[2], np.array([0, 0, 600, 600]), 1.0)
    column = draw_poses(dark, [pose])[:, 300].astype(float)[:, 0] / hue(COLORS["left arm"])[0]
    assert column.sum() == pytest.approx(limb_width(dark, pose), abs=0.3)
    assert (column * np.arange(600)).sum() / column.sum() == pytest.approx(300, abs=0.1)


# How colours look to the colour-blind, in linear RGB: severity 1 of Machado, Oliveira and Fernandes, "A
# physiologically-based model for simulation of color vision deficiency", 2009.
VISIONS = {
    "full": np.eye(3),
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}


@pytest.mark.parametrize("vision", VISIONS)
def test_left_right_and_middle_differ_for_the_colour_blind(vision: str) -> None:
    rgb = np.array([hue(color) for color in COLORS.values()]) / 255
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    seen = np.clip(linear @ np.transpose(VISIONS[vision]), 0, 1)
    seen = np.where(seen <= 0.0031308, 12.92 * seen, 1.055 * seen ** (1 / 2.4) - 0.055)
    lab = cv2.cvtColor(seen[None].astype(np.float32), cv2.COLOR_RGB2LAB)[0]
    sides = [part.split()[0] if " " in part else "middle" for part in COLORS]
    for one, side in enumerate(sides):
        for two, other in enumerate(sides[:one]):
            distance = float(np.linalg.norm(lab[one] - lab[two]))
            assert distance > (25 if side != other else 15), (list(COLORS)[one], list(COLORS)[two], distance)


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


def sure(**changed: tuple[int, float]) -> Pose:
    """All joints visible, right and within 6 pixels, but for those given: flag and probability."""
    flags, right = np.full(14, VISIBLE), np.ones(14)
    for joint, (flag, probability) in changed.items():
        flags[CROWDPOSE.index(joint)], right[CROWDPOSE.index(joint)] = flag, probability
    confidence = Confidence(right, flags, np.tile(np.eye(2) * 36 / REGION, (14, 1, 1)), 0.9)
    return replace(standing(), confidence=confidence)


def changed_at(one: np.ndarray, other: np.ndarray, x: float, y: float, reach: int) -> bool:
    """Whether two pictures differ within ``reach`` pixels of a place."""
    part = np.s_[int(y) - reach : int(y) + reach + 1, int(x) - reach : int(x) + reach + 1]
    return bool((one[part] != other[part]).any())


def test_a_visible_pose_is_drawn_as_without_confidence() -> None:
    assert (draw_poses(GREY, [sure()]) == draw_poses(GREY, [standing()])).all()


def test_hidden_joints_are_rings_with_dashed_limbs_and_absent_ones_are_left_out() -> None:
    big = cv2.resize(GREY, (1000, 1600))
    scaled = {"keypoints": 10 * STANDING, "box": 10 * BOX}
    plain, hidden, absent, likely = (
        draw_poses(big, [replace(sure(**joints), **scaled)])
        for joints in (
            {},
            {"left_wrist": (HIDDEN, 0.9)},
            {"left_wrist": (ABSENT, 0.1)},
            {"left_wrist": (ABSENT, 0.9)},
        )
    )
    (x, y), elbow = 10 * STANDING[4], 10 * STANDING[2]
    assert (hidden[int(y), int(x)] == 128).all()  # the picture shows through the ring
    assert (plain[int(y), int(x)] != 128).any()
    along = np.linspace(elbow, (x, y), 200)[40:160].astype(int)
    clear = (hidden[along[:, 1], along[:, 0]] == 128).all(axis=1)
    assert 0.2 < clear.mean() < 0.8
    assert not (plain[along[:, 1], along[:, 0]] == 128).all(axis=1).any()
    assert (absent[int(y) - 5 : int(y) + 6, int(x) - 5 : int(x) + 6] == 128).all()
    assert (likely == plain).all()


def test_regions_are_outlines_of_the_covariances() -> None:
    pose = sure()
    plain, drawn = draw_poses(GREY, [pose]), draw_poses(GREY, [pose], regions=True)
    x, y = STANDING[4]  # a wrist, with nobody's limbs above, below or outside of it
    assert changed_at(plain, drawn, x + 6, y, 1)
    assert changed_at(plain, drawn, x, y + 6, 1)
    assert not changed_at(plain, drawn, x + 10, y, 2)
    assert (draw_poses(GREY, [standing()], regions=True) == draw_poses(GREY, [standing()])).all()


def test_heat_over_a_picture() -> None:
    def drawn(image: np.ndarray, heat: np.ndarray) -> np.ndarray:
        return draw_heatmap(image, heat, lambda points, size: points)

    image = np.full((2, 2, 3), 200, np.uint8)
    cold, hot = drawn(image, np.zeros((2, 2))), drawn(image, np.ones((2, 2)))
    assert (cold == 90).all()
    assert (hot == drawn(0 * image, np.ones((2, 2)))).all(), "the peak hides what is below"
