"""The forward diffusion of keypoints: Eq. 1 to 4 of the paper."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class NoiseSchedule(nn.Module):
    """alpha_t and gamma_t for t = 1..T (Eq. 1 and 2).

    ``gamma_t`` falls from nearly 1 to nearly 0 along a squared cosine (Chen et al. 2022, "A
    Generalist Framework for Panoptic Segmentation"; the paper leaves the schedule open).

    Attributes:
        gamma: (T + 1,) with gamma[0] = 1 (no noise), gamma[t] = alpha_1 * .. * alpha_t (Eq. 2).
        alpha: (T + 1,) with alpha[0] = 1, alpha[t] = gamma[t] / gamma[t - 1] (Eq. 1).
    """

    gamma: Tensor
    alpha: Tensor

    def __init__(self, timesteps: int = 1000) -> None:
        super().__init__()
        share = torch.arange(timesteps + 1, dtype=torch.float64) / timesteps
        # offsets keep every alpha_t inside (0, 1): gamma_1 below 1, gamma_T above 0
        gamma = torch.cos((share + 2e-4) / (1 + 2.5e-4) * math.pi / 2).square()
        gamma[0] = 1.0
        alpha = torch.cat([gamma[:1], gamma[1:] / gamma[:-1]])
        self.timesteps = timesteps
        # constants, made anew from T: not part of a checkpoint
        self.register_buffer("gamma", gamma.float(), persistent=False)
        self.register_buffer("alpha", alpha.float(), persistent=False)


def diffuse_keypoints(y_0: Tensor, gamma_t: Tensor, epsilon: Tensor, zeta: float) -> Tensor:
    """y_t = sqrt(gamma_t) (zeta y_0) + sqrt(1 - gamma_t) epsilon (Eq. 4), back in the unit of y_0.

    The sum is divided by zeta, so that the noise on a keypoint is sqrt(1 - gamma_t) / zeta: with
    y_0 in heatmap pixels from the crop's centre, zeta = 0.05 means up to 20 pixels, zeta = 1 up to
    one. With zeta = 1 this is Eq. 3.

    Args:
        y_0: (b, j, 2) keypoints, heatmap pixels from the centre of the crop.
        gamma_t: (b,) from ``NoiseSchedule.gamma``.
        epsilon: (b, j, 2) standard normal noise.
        zeta: signal scale, above 0.

    Returns:
        (b, j, 2), in the unit and from the origin of ``y_0``.
    """
    signal = gamma_t.sqrt()[:, None, None] * (zeta * y_0)
    noise = (1 - gamma_t).sqrt()[:, None, None] * epsilon
    return (signal + noise) / zeta
