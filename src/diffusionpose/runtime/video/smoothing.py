"""Smooth keypoints: a Kalman filter for every coordinate, which follows a joint as far as the model is sure.

A joint moves by its speed, which friction and random pushes change (an Ornstein-Uhlenbeck process): out of
sight it goes on a little and stops. The noise of a measurement comes from the calibrated covariance of the
keypoint, else from its score. Lengths are counted in sizes of the person, the longer side of the box, so that
one setting fits near and far.
"""

import math
from dataclasses import replace

import numpy as np

from diffusionpose.poses import VISIBLE_SCORE, Pose

# Constants are measured in docs/video.md
PUSH = 4.0  # sizes / s^1.5: changes of speed; higher is less late, lower is stiller
FRICTION = 0.2  # seconds in which a joint out of sight loses all but 1 / e of its speed
# sizes: the deviation from frame to frame is the geometric mean of this and of the calibrated one, of which
# the larger part is the same in all frames
JITTER = 0.03
UNCALIBRATED = 0.015  # sizes: taken for the calibrated deviation at score 1, else divided by its square
START = 0.5  # sizes / s: deviation of the speed of a new joint
HOLD = 0.2  # seconds in which a joint out of sight loses all but 1 / e of its score
GAP = 0.5  # seconds out of sight after which a person starts afresh


class KalmanFilter:
    """Follows the joints of one person."""

    def __init__(self) -> None:
        self.since = self.time = -math.inf  # of the first pose without a gap, and of the last
        self._pose: Pose | None = None  # the last answer
        self._points = self._speed = np.empty(0)  # (J, 2) pixels, and pixels per second
        self._variances = (np.empty(0),) * 3  # (J, 2) of the place, place with speed, speed

    def predict(self, time: float) -> Pose | None:
        """Where a person is who is not seen at a time, with fading scores; None once that is forgotten."""
        period = time - self.time
        if self._pose is None or period > GAP:
            return None
        points = self._points + FRICTION * (1 - math.exp(-period / FRICTION)) * self._speed
        shift, fading = (points - self._points).mean(axis=0), math.exp(-period / HOLD)
        return Pose(
            self._pose.skeleton,
            points,
            fading * self._pose.scores,
            self._pose.box + np.tile(shift, 2),
            fading * self._pose.score,
        )

    def __call__(self, time: float, pose: Pose) -> Pose:
        """The smooth pose; a joint that is not seen keeps a fading score, and then starts afresh.

        Args:
            time: seconds, later than in the call before.
            pose: as the model finds it.
        """
        size = float((pose.box[2:] - pose.box[:2]).max())
        measured, noise = pose.keypoints.astype(np.float64), _noise(pose, size)
        expected, period = self.predict(time), time - self.time
        if self._pose is None or expected is None:
            self.since, period, zero = time, 0.0, np.zeros_like(measured)
            self._points, self._speed, self._variances = measured, zero, (zero, zero, zero)
            points, fresh, held = measured, np.ones((len(measured), 1), bool), pose.scores
        else:
            points, fresh = expected.keypoints, self._pose.scores[:, None] < VISIBLE_SCORE
            held = expected.scores
        kept = math.exp(-period / FRICTION)
        move, push = FRICTION * (1 - kept), (PUSH * size) ** 2
        speed, (pp, pv, vv) = kept * self._speed, self._variances
        pp = pp + move * (2 * pv + move * vv) + push * period**3 / 3
        pv = kept * (pv + move * vv) + push * period**2 / 2
        vv = kept**2 * vv + push * period
        total = np.where(pose.scores[:, None] >= VISIBLE_SCORE, pp + noise, np.inf)
        gain, rise, off = pp / total, pv / total, measured - points
        self._points = np.where(fresh, measured, points + gain * off)
        self._speed = np.where(fresh, 0.0, speed + rise * off)
        self._variances = (
            np.where(fresh, noise, pp - gain * pp),
            np.where(fresh, 0.0, pv - gain * pv),
            np.where(fresh, (START * size) ** 2, vv - rise * pv),
        )
        self.time = time
        self._pose = replace(pose, keypoints=self._points, scores=np.maximum(pose.scores, held))
        return self._pose


def _noise(pose: Pose, size: float) -> np.ndarray:
    """(J, 2) variances of the keypoints from frame to frame, square pixels."""
    if pose.confidence is not None:
        deviations = np.sqrt(np.diagonal(pose.confidence.covariances, axis1=1, axis2=2).astype(np.float64))
    else:
        of_score = UNCALIBRATED * size / np.maximum(pose.scores, 0.05).astype(np.float64) ** 2
        deviations = np.repeat(of_score[:, None], 2, axis=1)
    noise: np.ndarray = JITTER * size * np.maximum(deviations, 1e-3 * size)
    return noise
