"""DiffusionPose beyond the paper: starts from other keypoints, and other starts of training.

Every diffusion model of the zoo is a :class:`DiffusionPoseVariant`. With its default options its training is
the paper's ``loss`` and, without a start, its inference the paper's ``denoise`` (``diffusion_pose.py``).
"""

import math
from typing import Any

import torch
from torch import Tensor, nn

from diffusionpose.geometry import Start
from diffusionpose.models.diffusion_pose import DiffusionPose, StructureGuidedDecoder
from diffusionpose.models.pose_model import NamedTensors, heatmap_loss


class TimeEmbedding(nn.Module):
    """Sinusoids of t / T through a small network (Ho et al. 2020)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.waves = channels // 2
        self.net = nn.Sequential(nn.Linear(channels, channels), nn.SiLU(), nn.Linear(channels, channels))

    def forward(self, t: Tensor) -> Tensor:
        """(b,) in [0, 1] -> (b, channels)."""
        frequencies = torch.exp(torch.arange(self.waves, device=t.device) * (-math.log(1e4) / self.waves))
        angles = 1000 * t[:, None] * frequencies
        return self.net(torch.cat([angles.sin(), angles.cos()], dim=1))


class TimedDecoder(StructureGuidedDecoder):
    """A decoder that sees t / T, as an embedding added to its first feature (the paper's does not, Eq. 9)."""

    def __init__(self, joints: int, condition_channels: int, width: int = 128) -> None:
        super().__init__(joints, condition_channels, width)
        self.time = TimeEmbedding(width)

    def forward(self, hm_t: Tensor, x_c: Tensor, t: Tensor | None = None) -> Tensor:
        """As :meth:`StructureGuidedDecoder.forward`, with t / T (b,) in [0, 1]."""
        if t is None:
            raise ValueError("this decoder has time_input: give it t")
        return self.u_net(self.begin(hm_t, x_c) + self.time(t)[:, :, None, None])


class DiffusionPoseVariant(DiffusionPose):
    """DiffusionPose that can start from given keypoints, and be trained in other ways.

    Args:
        paper: arguments of :class:`DiffusionPose`.
        own_start: share of the training persons that start from the model's own coarse heatmaps in the
            place of noised truth, as all do at inference. The paper has 0.
        mistakes: share of the training persons that start from truth with the errors of pose estimators
            (``data/pose_errors.py``) in the place of Gaussian noise (Eq. 4). The paper has 0.
    """

    takes_start = True

    def __init__(self, *paper: Any, own_start: float = 0.0, mistakes: float = 0.0) -> None:
        super().__init__(*paper)
        self.own_start = own_start
        self.mistakes = mistakes
        self.learns_from_errors = mistakes > 0
        self.time_input = isinstance(self.decoder, TimedDecoder)

    def draw_noise(self, count: int, generator: torch.Generator) -> NamedTensors:
        """Beside the paper's: which persons (count,) start from their "own" heatmaps or "mistaken" truth."""
        noise = super().draw_noise(count, generator)
        device = generator.device
        if self.own_start > 0:
            noise["own"] = torch.rand(count, generator=generator, device=device) < self.own_start
        if self.mistakes > 0:
            noise["mistaken"] = torch.rand(count, generator=generator, device=device) < self.mistakes
        return noise

    def loss(self, images: Tensor, keypoints: Tensor, visible: Tensor, noise: NamedTensors) -> NamedTensors:
        """Algorithm 1, its start and its decoder as the options say."""
        if not (self.own_start or self.mistakes or self.time_input):
            return super().loss(images, keypoints, visible, noise)
        y_0 = self.codec.to_heatmap(keypoints)
        x_fea, coarse = self.encode(images)
        t, shown = noise["t"], visible
        y_t = self.diffuse(y_0, t, noise["epsilon"], visible)
        if "mistaken" in noise:
            chosen = noise["mistaken"][:, None] & visible.bool()
            y_t = torch.where(chosen[..., None], self.codec.to_heatmap(noise["start"]), y_t)
        hm_t, hm_0 = self.codec.draw(y_t), self.codec.draw(y_0)
        if "own" in noise:
            # no gradient through the start: the coarse heatmaps learn from their own loss (Eq. 10)
            own, start = noise["own"], coarse.detach().float()
            # when training diverges, the loss shall say so
            y_own, _ = self.codec.decode(start.nan_to_num(), "argmax")
            hm_t = torch.where(own[:, None, None, None], start, hm_t)
            y_t = torch.where(own[:, None, None], y_own, y_t)
            shown = visible.bool() | own[:, None]
        x_c = self.condition(x_fea, y_t, shown)
        share = (t / self.schedule.timesteps,) if self.time_input else ()
        l_1 = heatmap_loss(self.decoder(hm_t, x_c, *share), hm_0, visible)
        l_2 = heatmap_loss(coarse, hm_0, visible)
        return {"loss": l_1 + l_2, "decoder": l_1, "coarse": l_2}

    def step(self, x_fea: Tensor, hm_t: Tensor, y_t: Tensor, t: Tensor | None = None) -> Tensor:
        """As :meth:`DiffusionPose.step`; with ``time_input`` it needs t / T (b,)."""
        if not self.time_input:
            return super().step(x_fea, hm_t, y_t)
        x_c = self.condition(x_fea, y_t, torch.ones_like(y_t[..., 0]))
        return self.decoder(hm_t, x_c, t)

    def reverse(
        self, x_fea: Tensor, coarse: Tensor, steps: int | None = None, start: Start | None = None
    ) -> list[Tensor]:
        """hm_T, .., hm_0 of what :meth:`encode` gives: see :meth:`HeatmapCodec.reverse`."""

        def step(hm_t: Tensor, y_t: Tensor, t: float) -> Tensor:
            return self.step(x_fea, hm_t, y_t, coarse.new_full(coarse.shape[:1], t))

        return self.codec.reverse(coarse, self.default_steps if steps is None else steps, start, step)

    def trajectory(
        self, images: Tensor, steps: int | None = None, start: Start | None = None
    ) -> list[Tensor]:
        """As :meth:`PoseModel.trajectory`: Algorithm 2, from coarse heatmaps or a start."""
        if start is None and not self.time_input:
            return super().trajectory(images, steps)
        return self.reverse(*self.encode(images), steps, start)
