import math

import numpy as np
import pytest

from diffusionpose.runtime.video import smoothing
from diffusionpose.runtime.video.smoothing import SPEED_CUTOFF, OneEuroFilter

TIMES = [0.0, 0.03, 0.07, 0.1, 0.16, 0.2, 0.25, 0.31]
VALUES = [5.0, 6.0, 9.0, 8.0, 20.0, 21.0, 21.5, 21.0]
SURE = np.ones(1)


def published(times: list[float], values: list[float], min_cutoff: float, beta: float) -> list[float]:
    """Algorithm 1 of Casiez et al. 2012 for one number, line by line."""

    def alpha(rate: float, cutoff: float) -> float:
        tau, te = 1 / (2 * math.pi * cutoff), 1 / rate
        return 1 / (1 + tau / te)

    filtered, hatxprev, dhatxprev, last = [], 0.0, 0.0, 0.0
    for index, (time, x) in enumerate(zip(times, values, strict=True)):
        if index == 0:
            hatx, edx = x, 0.0
        else:
            rate = 1 / (time - last)
            dx = (x - hatxprev) * rate
            edx = alpha(rate, SPEED_CUTOFF) * dx + (1 - alpha(rate, SPEED_CUTOFF)) * dhatxprev
            a = alpha(rate, min_cutoff + beta * abs(edx))
            hatx = a * x + (1 - a) * hatxprev
        filtered.append(hatx)
        hatxprev, dhatxprev, last = hatx, edx, time
    return filtered


def along_x(follow: OneEuroFilter, size: float = 1.0, scores: np.ndarray = SURE) -> list[float]:
    return [
        float(follow(t, np.array([[x, 3.0]]), scores, size)[0, 0]) for t, x in zip(TIMES, VALUES, strict=True)
    ]


@pytest.mark.parametrize(("min_cutoff", "beta"), [(1.0, 0.0), (1.0, 0.05), (3.0, 0.5)])
def test_a_sure_joint_moves_by_the_published_algorithm(
    min_cutoff: float, beta: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(smoothing, "MIN_CUTOFF", min_cutoff)
    monkeypatch.setattr(smoothing, "BETA", beta)
    ours = along_x(OneEuroFilter())
    assert ours == pytest.approx(published(TIMES, VALUES, min_cutoff, beta), abs=1e-12)


def test_near_and_far_are_smoothed_alike() -> None:
    points = np.random.default_rng(0).normal(0, 10, (20, 5, 2)).cumsum(axis=0)
    near, far = OneEuroFilter(), OneEuroFilter()
    for index, now in enumerate(points):
        small = near(index / 25, now, np.ones(5), 100.0)
        large = far(index / 25, now * 7, np.ones(5), 700.0)
        assert np.allclose(small * 7, large)


def test_an_unsure_joint_moves_less() -> None:
    answers = [along_x(OneEuroFilter(), 100.0, np.array([score]))[1] for score in (0.05, 0.25, 0.5, 0.9)]
    assert VALUES[0] < answers[0] < answers[1] < answers[2] == answers[3] < VALUES[1]


def test_a_joint_that_was_out_of_sight_starts_afresh() -> None:
    follow = OneEuroFilter()
    follow(0.0, np.array([[0.0, 0.0], [0.0, 0.0]]), np.array([1.0, 1.0]), 100.0)
    for step in range(1, 8):
        follow(step / 10, np.array([[0.0, 0.0], [0.0, 0.0]]), np.array([1.0, 0.1]), 100.0)
    seen, back = follow(0.8, np.array([[90.0, 0.0], [90.0, 0.0]]), np.array([1.0, 1.0]), 100.0)
    assert back[0] == 90
    assert seen[0] < 89
    whole = follow(2.0, np.array([[7.0, 7.0], [7.0, 7.0]]), np.array([1.0, 1.0]), 100.0)
    assert (whole == 7).all(), "after a gap of the person every joint starts afresh"


def test_rest_is_stiller_and_motion_hardly_late() -> None:
    noise = np.random.default_rng(1).normal(0, 1, (100, 1, 2))
    follow = OneEuroFilter()
    rest = np.array([follow(i / 30, 50 + noise[i], SURE, 200.0)[0] for i in range(100)])
    assert rest[20:].std() < 0.6 * noise[20:].std()
    follow = OneEuroFilter()
    walk = [follow(i / 30, np.array([[200.0 * i / 30, 0.0]]), SURE, 200.0)[0, 0] for i in range(60)]
    assert 200 * 59 / 30 - walk[-1] < 0.03 * 200, "at one size a second, behind by less than 3 % of the size"
