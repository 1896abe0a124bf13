from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from diffusionpose.errors import InputError
from diffusionpose.journal import Journal
from diffusionpose.models.zoo import create_model
from diffusionpose.poses import Confidence, Pose
from diffusionpose.runtime.boxes import PeopleFile
from diffusionpose.runtime.estimator import PoseEstimator
from diffusionpose.runtime.video.following import Following, Person, Tracks, VideoPoses, box_of
from diffusionpose.runtime.video.reading import Frame
from diffusionpose.skeletons import get_skeleton

from .conftest import SquareFinder, squares

pytest.importorskip("trackers")

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
    assert (jitter[True] < 0.75 * jitter[False]).all()
    assert np.abs(np.array(answers[True]) - (50, 200)).max() < 6, "no person's filter moves another"


@pytest.mark.parametrize("bridge", [True, False])
def test_who_is_not_found_for_a_moment_is_expected_and_then_gone(bridge: bool) -> None:
    following, found = Following(bridge=bridge), []
    for index in range(40):
        nobody = index in (20, 21) or index > 28
        places = following.place(index / 25, detected(*[] if nobody else [(20 + 4 * index, 30)]), (400, 200))
        found.append(following.settle(index / 25, places, [pose(20 + 4 * index, 30)] if places else []))
    assert [len(persons) for persons in found[:29]] == ([1] * 29 if bridge else [1] * 20 + [0, 0] + [1] * 7)
    assert {person.id for persons in found for person in persons} == {1}
    for index in (20, 21) if bridge else ():
        (missed,) = found[index]
        assert np.allclose(missed.pose.keypoints, SHAPE + (20 + 4 * index, 30), atol=3)
        assert missed.pose.score < 0.9
    assert not any(found[36:]), "not for long"


def test_nobody_is_expected_where_somebody_else_stands() -> None:
    following = Following()
    following.settle(0.0, following.place(0.0, detected((20, 30)), (400, 200)), [pose(20, 30)])
    following._tracks = Tracks()  # takes who comes for someone new
    following._tracks._next = 2
    persons = following.settle(0.04, following.place(0.04, detected((21, 30)), (400, 200)), [pose(21, 30)])
    assert [person.id for person in persons] == [2]


def test_confidence_outlives_the_journal(tmp_path: Path) -> None:
    finder, spread = SquareFinder(around), np.tile(np.array([[4, 1], [1, 9]], np.float32), (14, 1, 1))
    said = Confidence(np.linspace(0, 1, 14, dtype=np.float32), np.arange(14) % 3, spread, 0.75)
    plain = finder._pose
    finder._pose = lambda image, box: replace(plain(image, box), confidence=said)
    with closing(Journal(tmp_path / "journal", {})) as journal:
        list(VideoPoses(finder, 25)(frames(8), journal))
        for _, persons in VideoPoses(SquareFinder(around), 25)(frames(8), journal):
            for person in persons:
                again = person.pose.confidence
                assert np.allclose(again.right, said.right, atol=1e-4)
                assert (again.visibility == said.visibility).all()
                assert (again.covariances == spread).all()
                assert again.oks == 0.75


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
    astray = replace(pose(10, 20), keypoints=np.concatenate([[(900, 900)], SHAPE[1:] + (10, 20)]))
    assert box_of(astray)[3] > 900
    flags, right = np.array([0, *[2] * 13]), np.array([0.1, *[0.9] * 13])
    absent = replace(astray, confidence=Confidence(right, flags, np.tile(np.eye(2), (14, 1, 1)), 0.8))
    assert box_of(absent)[3] < 150, "a joint that is outside the picture is not where it seems"
    one_spot = Pose(SKELETON, np.full((14, 2), 30.0), np.ones(14), np.array([0, 0, 40, 40]), 1.0)
    assert box_of(one_spot) is None


pytest.importorskip("trackers")


def box(x: float, y: float, width: float = 40, height: float = 100) -> list[float]:
    return [x, y, x + width, y + height]


def test_crossing_persons_keep_their_numbers() -> None:
    tracks = Tracks()
    for index in range(40):
        right, left = box(10 + 6 * index, 50), box(250 - 6 * index, 56)
        order = [right, left] if index % 3 else [left, right]
        numbers = tracks.update(np.array(order), np.array([0.9, 0.8]), index / 25)
        expected = [1, 2] if index % 3 else [2, 1]
        # frame 0 numbers in the order given: the left one, which comes first there, is 1
        assert numbers == [3 - number for number in expected], index


def test_a_person_has_a_number_at_once_and_the_next_one_another() -> None:
    tracks = Tracks()
    assert tracks.update(np.array([box(10, 10)]), np.array([0.9]), 0.0) == [1]
    both = np.array([box(200, 10), box(12, 10)])
    assert tracks.update(both, np.array([0.9, 0.9]), 0.04) == [2, 1]
    assert tracks.update(both, np.array([0.9, 0.9]), 0.08) == [2, 1]
    assert tracks.update(np.empty((0, 4)), np.empty(0), 0.12) == []


@pytest.mark.parametrize(("away", "number"), [(0.6, 1), (3.0, 2)])
def test_who_comes_back_soon_is_still_known(away: float, number: int) -> None:
    tracks = Tracks()
    for index in range(10):
        tracks.update(np.array([box(50, 50)]), np.array([0.9]), index / 25)
    tracks.update(np.empty((0, 4)), np.empty(0), 0.4)
    assert tracks.update(np.array([box(52, 50)]), np.array([0.9]), 0.4 + away) == [number]


def test_a_low_score_goes_on_with_a_person_but_starts_none() -> None:
    tracks = Tracks()
    tracks.update(np.array([box(50, 50)]), np.array([0.9]), 0.0)
    tracks.update(np.array([box(50, 50)]), np.array([0.9]), 0.04)
    both = np.array([box(51, 50), box(200, 50)])
    assert tracks.update(both, np.array([0.3, 0.3]), 0.08) == [1, None]


def test_memory_of_those_who_left_is_given_back() -> None:
    tracks = Tracks()
    for index in range(200):
        x = 300 * (index // 2 % 3)
        tracks.update(np.array([box(x, 50 * (index % 7))]), np.array([0.9]), 3.0 * index)
    assert len(tracks._numbers) <= 2


def test_in_a_time_lapse_persons_are_still_themselves() -> None:
    tracks, boxes = Tracks(), np.array([box(10, 10)])
    score, nobody = np.ones(1), np.zeros((0, 4))
    assert [tracks.update(boxes, score, 2.0 * frame) for frame in range(8)] == [[1]] * 8
    tracks.update(nobody, np.zeros(0), 16.0)
    assert tracks.update(boxes, score, 18.0) == [1], "out of sight in one frame"
    for frame in range(10, 15):
        tracks.update(nobody, np.zeros(0), 2.0 * frame)
    assert tracks.update(boxes, score, 30.0) == [2]


pytest.importorskip("trackers")


PATHS = ((20, 30, 2, 0), (140, 80, -2, 0))


def frames(count: int = 40) -> Iterator[Frame]:
    for index in range(count):
        yield Frame(index, index / 25, index, squares(index, *PATHS))


def around(image: np.ndarray) -> list[list[float]]:
    """A box around each square, found in the upper and the lower half of the picture."""
    boxes = []
    for top in (0, 60):
        rows, columns = np.nonzero(image[top : top + 55, :, 0] > 100)
        rows = rows + top
        boxes.append([columns.min() - 4, rows.min() - 4, columns.max() + 5, rows.max() + 5])
    return boxes


def numbers(found: list[tuple[Frame, list[Person]]]) -> list[Any]:
    return [
        (frame.index, [(p.id, p.pose.keypoints.tolist(), p.pose.box.tolist()) for p in persons])
        for frame, persons in found
    ]


@pytest.mark.parametrize("every", [1, 10])
def test_persons_are_found_and_keep_their_ids(every: int) -> None:
    finder = SquareFinder(around)
    found = list(VideoPoses(finder, 25, detect_every=every, smooth=False)(frames()))
    assert finder.looks == len(range(0, 40, every))
    for frame, persons in found:
        assert [person.id for person in persons] == [1, 2]
        for person, (x, y, dx, dy) in zip(persons, PATHS, strict=True):
            centre = person.pose.keypoints[:4].mean(axis=0)
            assert centre == pytest.approx((x + dx * frame.index, y + dy * frame.index), abs=1)


@pytest.mark.parametrize(("own", "asked", "looks"), [(1, None, 40), (5, None, 8), (5, 2, 20)])
def test_a_detector_may_say_how_often_it_looks(own: int, asked: int | None, looks: int) -> None:
    finder = SquareFinder(around)
    finder.detector.detect_every = own
    found = list(VideoPoses(finder, 25, detect_every=asked)(frames()))
    assert finder.looks == looks
    assert len({person.id for _, persons in found for person in persons}) == 2


def test_persons_of_several_frames_go_through_the_network_together() -> None:
    finder = SquareFinder(around)
    list(islice(VideoPoses(finder, 25)(frames()), 1))
    assert len(finder.seen) == 8
    finder = SquareFinder(around)
    list(islice(VideoPoses(finder, 25, detect_every=2)(frames()), 1))
    assert len(finder.seen) == 1, "where a box comes from the last pose, each frame needs the one before"


@pytest.mark.parametrize("options", [{}, {"detect_every": 5}, {"from_last": True}])
@pytest.mark.parametrize("done", [0, 1, 2, 3])
def test_a_resumed_run_finds_the_same(options: dict[str, Any], done: int, tmp_path: Path) -> None:
    with closing(Journal(tmp_path / "whole", {})) as journal:
        whole = numbers(list(VideoPoses(SquareFinder(around), 25, **options)(frames(), journal)))
    lines = (tmp_path / "whole").read_bytes().splitlines(keepends=True)
    (tmp_path / "part").write_bytes(b"".join(lines[: done + 1]) + lines[done + 1][:20])
    finder = SquareFinder(around)
    with closing(Journal(tmp_path / "part", {})) as journal:
        resumed = numbers(list(VideoPoses(finder, 25, **options)(frames(), journal)))
    assert resumed == whole
    assert len(finder.seen) == 40 - done * (1 if options else 8)
    assert (tmp_path / "part").read_bytes() == (tmp_path / "whole").read_bytes()


def test_a_journal_of_other_frames_is_refused(tmp_path: Path) -> None:
    with closing(Journal(tmp_path / "journal", {})) as journal:
        list(VideoPoses(SquareFinder(around), 25)(frames(8), journal))
        with pytest.raises(InputError, match="is of another video"):
            list(VideoPoses(SquareFinder(around), 25)(frames(5), journal))


def test_boxes_from_a_file_take_the_detectors_place(tmp_path: Path) -> None:
    (tmp_path / "boxes.json").write_text('{"0": [[4, 14, 36, 46]], "10": []}')
    finder = SquareFinder(around)
    found = list(VideoPoses(finder, 25, boxes=PeopleFile(tmp_path / "boxes.json"))(frames(12)))
    assert [len(persons) for _, persons in found] == [1] * 10 + [0] * 2
    assert finder.looks == 0


def test_the_last_pose_is_where_the_next_begins() -> None:
    finder = SquareFinder(around)
    found = list(VideoPoses(finder, 25, from_last=True)(frames(6)))
    first, *others = [request.start for request in finder.seen]
    assert (first == 0).all(), "who is new has no last pose"
    for start, (_, persons) in zip(others, found, strict=False):
        assert np.allclose(start[..., :2], [person.pose.keypoints for person in persons])
        assert (start[..., 2] > 0).all()
    unsure = SquareFinder(around, score=0.1)
    list(VideoPoses(unsure, 25, from_last=True)(frames(6)))
    assert all((request.start == 0).all() for request in unsure.seen), "what was not seen is looked for anew"


def test_a_last_pose_changes_what_the_network_finds(lively: Callable[..., Any], picture: np.ndarray) -> None:
    estimator = PoseEstimator(lively(), device="cpu", flip=False, detector="whole")
    video = [Frame(i, i / 25, i, np.roll(picture, 3 * i, axis=1)) for i in range(3)]
    plain, last = (
        np.array([found[0].pose.keypoints for _, found in poses(video)])
        for poses in (VideoPoses(estimator, 25, smooth=False, from_last=last) for last in (False, True))
    )
    apart = np.abs(plain - last).max(axis=(1, 2))
    assert apart[0] < 0.01, "alone or with others in a pass: the last digits may differ"
    assert apart[1] > 1


def test_no_detections_and_no_frames_are_no_trouble() -> None:
    nobody = SquareFinder(lambda image: np.empty((0, 4)))
    assert [persons for _, persons in VideoPoses(nobody, 25)(frames(9))] == [[]] * 9
    assert list(VideoPoses(nobody, 25)(iter(()))) == []


def test_options_that_make_no_sense_are_refused() -> None:
    with pytest.raises(InputError, match="detect every: 0"):
        VideoPoses(SquareFinder(around), 25, detect_every=0)
    with pytest.raises(InputError, match="tiny is no diffusion model"):
        VideoPoses(PoseEstimator(create_model("tiny", "crowdpose"), device="cpu"), 25, from_last=True)
