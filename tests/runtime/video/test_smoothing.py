"""The Kalman filter against its textbook equations, and on movements that are known."""

import math
from dataclasses import replace

import numpy as np
import pytest

from diffusionpose.poses import Confidence, Pose
from diffusionpose.runtime.video.smoothing import FRICTION, GAP, JITTER, PUSH, START, KalmanFilter
from diffusionpose.skeletons import Skeleton

JOINTS = 5
SKELETON = Skeleton("five", tuple(f"j{joint}" for joint in range(JOINTS)), (), (), (0.1,) * JOINTS)
SIZE = 200.0
NOISE = np.random.default_rng(1).normal(0, 1, (100, JOINTS, 2))


def pose(points: np.ndarray, deviation: float | None = 2.0, score: float = 0.9, size: float = SIZE) -> Pose:
    """All joints at a place (2,), or (J, 2), with a calibrated deviation in pixels."""
    confidence = None
    if deviation is not None:
        spread = np.tile(deviation**2 * np.eye(2, dtype=np.float32), (JOINTS, 1, 1))
        confidence = Confidence(np.full(JOINTS, 0.9), np.full(JOINTS, 2), spread, 0.9)
    points = np.broadcast_to(np.asarray(points, float), (JOINTS, 2))
    return Pose(SKELETON, points, np.full(JOINTS, score), np.array([0, 0, size / 2, size]), score, confidence)


def test_a_joint_moves_by_the_equations_of_the_textbook() -> None:
    """In matrices: x = F x, P = F P F' + Q; K = P H' / (H P H' + R), x += K (z - H x), P -= K H P."""
    times, values = [0.0, 0.03, 0.07, 0.1, 0.16, 0.2], [5.0, 6.0, 9.0, 8.0, 20.0, 21.0]
    noise, h = JITTER * SIZE * 3.0, np.array([[1.0, 0.0]])
    state, p = np.array([[values[0]], [0.0]]), np.diag([noise, (START * SIZE) ** 2])
    follow = KalmanFilter()
    assert follow(times[0], pose((values[0], 3), 3.0)).keypoints[0, 0] == values[0]
    for before, time, value in zip(times, times[1:], values[1:], strict=False):
        dt = time - before
        kept = math.exp(-dt / FRICTION)
        f = np.array([[1.0, FRICTION * (1 - kept)], [0.0, kept]])
        q = (PUSH * SIZE) ** 2 * np.array([[dt**3 / 3, dt**2 / 2], [dt**2 / 2, dt]])
        state, p = f @ state, f @ p @ f.T + q
        gain = p @ h.T / (h @ p @ h.T + noise)
        state, p = state + gain * (value - h @ state), p - gain @ h @ p
        smooth = follow(time, pose((value, 3), 3.0)).keypoints
        assert np.allclose(smooth, (state[0, 0], 3), atol=1e-4)


def test_near_and_far_are_smoothed_alike() -> None:
    near, far = KalmanFilter(), KalmanFilter()
    for index, now in enumerate(NOISE[:20].cumsum(axis=0)):
        small = near(index / 25, pose(now, 2.0)).keypoints
        assert np.allclose(
            7 * small, far(index / 25, pose(7 * now, 14.0, size=7 * SIZE)).keypoints, atol=1e-3
        )


@pytest.mark.parametrize("calibrated", [True, False])
def test_an_unsure_joint_moves_less(calibrated: bool) -> None:
    moved = []
    for doubt in (1.0, 2.0, 4.0):
        given = (2 * doubt, 0.9) if calibrated else (None, 0.9 / doubt)
        follow = KalmanFilter()
        follow(0.0, pose((50, 50), *given))
        moved.append(follow(0.04, pose((60, 50), *given)).keypoints[0, 0])
    assert 50 < moved[2] < moved[1] < moved[0] < 60


def test_a_joint_that_is_not_seen_goes_on_a_little_fades_and_starts_afresh() -> None:
    follow, unseen = KalmanFilter(), np.array([0.9, *[0.1] * (JOINTS - 1)])
    for index in range(15):
        last = follow(index / 25, pose((4 * index, 0)))
    answers = [follow(index / 25, replace(pose((500, 500)), scores=unseen)) for index in range(15, 30)]
    places, scores = (
        np.array([getattr(one, name)[1] for one in answers]) for name in ("keypoints", "scores")
    )
    steps = np.diff(np.concatenate([last.keypoints[:1, 0], places[:8, 0]]))
    assert steps[0] == pytest.approx(4, rel=0.25)
    assert (np.diff(steps) < 0).all(), "slower and slower"
    assert np.allclose(places[:8, 1], 0, atol=1e-3)
    assert (np.diff(scores[:8]) < 0).all()
    assert scores[0] > 0.7
    assert scores[-1] == pytest.approx(0.1)
    back = follow(30 / 25, pose((500, 500)))
    assert np.allclose(back.keypoints[1:], 500), "not drawn there from where it was lost"


def test_a_person_out_of_sight_is_expected_where_they_were_going_and_then_forgotten() -> None:
    follow = KalmanFilter()
    assert follow.predict(0.0) is None
    for index in range(15):
        last = follow(index / 25, pose((4 * index, 0)))
    soon, later = follow.predict(15 / 25), follow.predict(14 / 25 + 0.9 * GAP)
    assert soon.keypoints[0, 0] == pytest.approx(last.keypoints[0, 0] + 4, abs=1)
    assert np.allclose(soon.box - last.box, (soon.keypoints - last.keypoints)[0, [0, 1, 0, 1]], atol=1e-3)
    assert soon.keypoints[0, 0] < later.keypoints[0, 0] < last.keypoints[0, 0] + 4 * 25 * FRICTION
    assert later.scores[0] < soon.scores[0] < 0.9
    assert follow.predict(14 / 25 + 1.1 * GAP) is None
    assert np.allclose(follow(5.0, pose((7, 7))).keypoints, 7), "afresh"


def test_rest_is_stiller_and_motion_hardly_late() -> None:
    follow, times = KalmanFilter(), np.arange(100) / 30
    rest = np.array(
        [follow(time, pose(50 + noise, 8.0)).keypoints for time, noise in zip(times, NOISE, strict=True)]
    )
    assert rest[20:].std() < 0.8 * NOISE[20:].std()
    assert np.diff(rest, 2, axis=0).std() < 0.55 * np.diff(NOISE, 2, axis=0).std()
    follow = KalmanFilter()
    walk = [follow(time, pose((SIZE * time, 0), 8.0)).keypoints[0, 0] for time in times]
    assert SIZE * times[-1] - walk[-1] < 0.01 * SIZE, "at one size a second, late by less than 10 ms"
