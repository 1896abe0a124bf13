"""Smooth keypoints: the One-Euro filter, which also knows how sure each joint is.

Casiez, Roussel and Vogel, "1 Euro Filter", CHI 2012, Algorithm 1: a low-pass filter whose cutoff grows
with the speed of what it follows, so that rest is still and motion is not late. Three things are ours:
speed is measured in sizes of the person, so that one setting fits near and far; a joint that the model is
not sure of moves its filter less; and a joint that was not seen for a while starts afresh.
"""

from __future__ import annotations

import math

import numpy as np

from diffusionpose.poses import VISIBLE_SCORE

MIN_CUTOFF = 3.0  # Hz, at rest; lower is stiller
BETA = 16.0  # Hz of cutoff for each size of the person per second; higher is less late. Both: docs/video.md
SPEED_CUTOFF = 1.0  # Hz, of the speed itself; the paper's value
SURE_SCORE = 0.5  # from this score on a joint moves its filter fully
GAP = 0.5  # seconds without being seen, after which a joint starts afresh


def smoothing_factor(cutoff: np.ndarray | float, period: float) -> np.ndarray | float:
    """alpha = 1 / (1 + tau / T_e), tau = 1 / (2 pi f_c); cutoff f_c in Hz, period T_e in seconds."""
    return 1 / (1 + 1 / (2 * math.pi * cutoff * period))


class OneEuroFilter:
    """Follows the joints of one person."""

    def __init__(self) -> None:
        self.time = -math.inf  # of the last call
        self._seen = np.empty(0)  # (J,) seconds, when each joint was last seen
        self._points = np.empty(0)  # (J, 2) the last answer
        self._speed = np.empty(0)  # (J, 2) sizes per second

    def __call__(self, time: float, points: np.ndarray, scores: np.ndarray, size: float) -> np.ndarray:
        """The smooth place (J, 2) of each joint, float64 pixels.

        Args:
            time: seconds, later than in the call before.
            points: (J, 2) pixels, with (J,) scores.
            scores: how sure the model is of each.
            size: of the person, pixels.
        """
        points = np.asarray(points, np.float64)
        period, visible = time - self.time, scores >= VISIBLE_SCORE
        self.time = time
        if not len(self._points) or period > GAP:
            self._points, self._speed = points, np.zeros_like(points)
            self._seen = np.where(visible, time, -math.inf)
            return points
        fresh = visible & (time - self._seen > GAP)
        weight = np.clip(np.asarray(scores, np.float64) / SURE_SCORE, 0, 1)[:, None]
        speed = (points - self._points) / (period * size)
        moved = self._speed + smoothing_factor(SPEED_CUTOFF, period) * weight * (speed - self._speed)
        cutoff = MIN_CUTOFF + BETA * np.linalg.norm(moved, axis=1, keepdims=True)
        smooth = self._points + smoothing_factor(cutoff, period) * weight * (points - self._points)
        self._speed = np.where(fresh[:, None], 0.0, moved)
        self._points = np.where(fresh[:, None], points, smooth)
        self._seen = np.where(visible, time, self._seen)
        return self._points
