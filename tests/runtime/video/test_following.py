import numpy as np
import pytest

pytest.importorskip("trackers")
from diffusionpose.poses import Pose
from diffusionpose.runtime.video.following import Following, box_of
from diffusionpose.skeletons import get_skeleton

SKELETON = get_skeleton("crowdpose")
SHAPE = np.random.default_rng(0).uniform(0, 1, (14, 2)) * (40, 100)
SHAPE[0], SHAPE[1] = (0, 0), (40, 100)


def pose(x: float, y: float, score: float = 0.9) -> Pose:
    return Pose(SKELETON, SHAPE + (x, y), np.full(14, score), np.array([x, y, x + 40, y + 100]), score)


def detected(*places: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    boxes = np.array([(x, y, x + 40, y + 100) for x, y in places], np.float32).reshape(-1, 4)
    return boxes, np.full(len(boxes), 0.9, np.float32)


def test_boxes_follow_the_poses_between_detections() -> None:
    following = Following(smooth=False)
    x = 20.0
    for index in range(30):
        places = following.place(index / 25, detected((x, 30)) if index == 0 else None, (400, 200))
        (place,) = places
        assert place.id == 1
        assert (place.box[:2] <= (x, 30)).all()
        assert (place.box[2:] >= (x + 40, 130)).all(), "the whole person is inside"
        assert (place.box[2:] - place.box[:2] <= (65, 125)).all(), "and not much else"
        assert (place.last is None) == (index == 0)
        following.settle(index / 25, places, [pose(x, 30)])
        x += 5


def test_a_person_who_is_not_seen_any_more_is_not_followed() -> None:
    following = Following(smooth=False)
    places = following.place(0.0, detected((20, 30), (200, 30)), (400, 200))
    following.settle(0.0, places, [pose(20, 30), pose(200, 30, 0.1)])
    assert [place.id for place in following.place(0.04, None, (400, 200))] == [1]


def test_who_leaves_the_picture_is_gone() -> None:
    following = Following(smooth=False)
    places = following.place(0.0, detected((370, 30)), (400, 200))
    following.settle(0.0, places, [pose(450, 30)])
    assert following.place(0.04, None, (400, 200)) == []


def test_keypoints_are_smoothed_for_each_person_alone() -> None:
    plain, smooth = Following(smooth=False), Following()
    shifts = np.random.default_rng(2).normal(0, 2, (20, 2))
    answers = {False: [], True: []}
    for index, (a, b) in enumerate(shifts):
        order = [(50 + a, 30), (200 + b, 30)] if index % 2 else [(200 + b, 30), (50 + a, 30)]
        for following, kept in ((plain, answers[False]), (smooth, answers[True])):
            places = following.place(index / 25, detected((50, 30), (200, 30)), (400, 200))
            at = {1: order[0] if index % 2 else order[1], 2: order[1] if index % 2 else order[0]}
            persons = following.settle(index / 25, places, [pose(*at[place.id]) for place in places])
            kept.append([person.pose.keypoints[0, 0] for person in persons])
    jitter = {key: np.diff(np.array(value), axis=0).std(axis=0) for key, value in answers.items()}
    assert (jitter[True] < 0.7 * jitter[False]).all()
    assert np.abs(np.array(answers[True]) - (50, 200)).max() < 6, "no person's filter moves another"


def test_filters_of_those_who_left_are_given_back() -> None:
    following = Following()
    for index in range(40):
        time = 3.0 * index
        places = following.place(time, detected((60 * (index % 5), 30)), (400, 200))
        following.settle(time, places, [pose(60 * (index % 5), 30)])
    assert len(following._filters) == 1


def test_the_box_of_a_pose_needs_joints_that_are_seen() -> None:
    box = box_of(pose(10, 20))
    assert np.allclose(box, (10 - 10, 20 - 10, 50 + 10, 120 + 10))
    assert box_of(pose(10, 20, 0.1)) is None
    one_spot = Pose(SKELETON, np.full((14, 2), 30.0), np.ones(14), np.array([0, 0, 40, 40]), 1.0)
    assert box_of(one_spot) is None
