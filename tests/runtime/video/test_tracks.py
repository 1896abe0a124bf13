import numpy as np
import pytest

pytest.importorskip("trackers")
from diffusionpose.runtime.video.following import Tracks


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
