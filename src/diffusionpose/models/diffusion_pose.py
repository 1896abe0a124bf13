"""DiffusionPose: the paper's model. ``loss`` is Algorithm 1, ``denoise`` is Algorithm 2.

Symbols are the paper's: x image, x_fea feature, x_c condition, y keypoints, hm heatmaps; an index
0 means truth, t noised.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffusionpose.diffusion import NoiseSchedule, diffuse_keypoints
from diffusionpose.geometry.codec import HeatmapCodec
from diffusionpose.geometry.start import Start
from diffusionpose.models.encoders import Encoder
from diffusionpose.models.heatmap_model import coarse_head
from diffusionpose.models.pose_model import PoseModel, heatmap_loss
from diffusionpose.skeletons import Skeleton

NOISE_STRIDE = 4  # y_0 of Eq. 4 is in pixels of a heatmap of this stride, whatever s is


class DiffusionPose(PoseModel):
    """Heatmaps generated from noised heatmaps under a condition (Qiu et al. 2023, Fig. 2).

    Args:
        encoder: E; its feature is resized to the heatmap where its stride is another.
        condition: makes x_c (``models/condition.py``).
        decoder: D, of hm_t, x_c and t / T (which the paper's D does not look at).
        skeleton: J joints.
        codec: sizes and geometry of the heatmaps; its stride is the paper's s.
        zeta: signal scale of Eq. 4.
        timesteps: T.
    """

    def __init__(
        self,
        encoder: Encoder,
        condition: nn.Module,
        decoder: nn.Module,
        skeleton: Skeleton,
        codec: HeatmapCodec,
        zeta: float = 0.05,
        timesteps: int = 1000,
    ) -> None:
        super().__init__(encoder, skeleton, codec)
        self.conv = coarse_head(encoder.channels, skeleton.num_joints)
        self.condition = condition
        self.decoder = decoder
        self.schedule = NoiseSchedule(timesteps)
        self.zeta = zeta

    def draw_noise(self, count: int, generator: torch.Generator) -> dict[str, Tensor]:
        """t (count,) uniform in 1..T and epsilon (count, j, 2) standard normal."""
        device, joints = generator.device, self.skeleton.num_joints
        t = torch.randint(1, self.schedule.timesteps + 1, (count,), generator=generator, device=device)
        epsilon = torch.randn(count, joints, 2, generator=generator, device=device)
        return {"t": t, "epsilon": epsilon}

    def encode(self, images: Tensor) -> Tensor:
        """x_fea = E(x), at the size of the heatmaps (Fig. 3, High-Resolution SGDD)."""
        x_fea = self.encoder(self.normalise(images))
        height, width = self.heatmap_size[1], self.heatmap_size[0]
        if x_fea.shape[2:] == (height, width):
            return x_fea
        return F.interpolate(x_fea, size=(height, width), mode="bilinear", align_corners=self.unbiased)

    def diffuse(self, y_0: Tensor, t: Tensor, epsilon: Tensor, visible: Tensor) -> Tensor:
        """y_t = q(y_t | y_0, zeta) (Eq. 4), (b, j, 2) heatmap pixels.

        The origin is the crop's centre, so that the farther t, the nearer y_t to noise around it.
        A joint without label has no y_0: it starts from the centre and is noise alone.
        """
        centre = (y_0.new_tensor(self.heatmap_size) - 1) / 2
        unit = NOISE_STRIDE / self.codec.stride
        y = torch.where(visible.bool()[..., None], (y_0 - centre) / unit, 0.0)
        return diffuse_keypoints(y, self.schedule.gamma[t], epsilon, self.zeta) * unit + centre

    def loss(
        self, images: Tensor, keypoints: Tensor, visible: Tensor, noise: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        """Algorithm 1: L1 + L2 of Eq. 11. Arguments as :meth:`PoseModel.loss`.

        Returns:
            "loss" = "decoder" (L1, Eq. 9) + "coarse" (L2, Eq. 10).
        """
        y_0 = self.codec.to_heatmap(keypoints)
        x_fea = self.encode(images)  # line 1
        t, epsilon = noise["t"], noise["epsilon"]  # line 3
        y_t = self.diffuse(y_0, t, epsilon, visible)  # line 4
        hm_t, hm_0 = self.codec.draw(y_t), self.codec.draw(y_0)  # line 5
        x_c = self.condition(x_fea, y_t, visible)  # lines 6 to 8
        l_1 = heatmap_loss(self.decoder(hm_t, x_c, t / self.schedule.timesteps), hm_0, visible)  # line 9
        l_2 = heatmap_loss(self.conv(x_fea), hm_0, visible)  # line 10
        return {"loss": l_1 + l_2, "decoder": l_1, "coarse": l_2}  # line 11

    def denoise(self, images: Tensor, steps: int = 1, start: Start | None = None) -> list[Tensor]:
        """Algorithm 2: the heatmaps hm_T (coarse, Eq. 10), .., hm_0, ``steps`` + 1 in all.

        Args:
            images: (b, 3, H, W) RGB uint8 crops.
            steps: reverse steps; the paper advises 1. None (0) leaves the coarse heatmaps.
            start: keypoints in input pixels that take the place of the coarse ones (:meth:`begin`).
        """
        x_fea = self.encode(images)  # line 1, once for all steps
        coarse, y_t = self.begin(x_fea, start)
        hm = [coarse]  # line 2
        for step in range(steps):  # line 3
            if step > 0:
                y_t, _ = self.codec.decode(hm[-1], "argmax")  # line 4
            x_c = self.condition(x_fea, y_t, torch.ones_like(y_t[..., 0]))  # lines 5 to 7
            t = x_fea.new_full(x_fea.shape[:1], 1 - step / steps)
            hm.append(self.decoder(hm[-1], x_c, t))  # line 8
        return hm

    def begin(self, x_fea: Tensor, start: Start | None) -> tuple[Tensor, Tensor]:
        """hm_T and y_T of Algorithm 2 (line 2, and line 4 of the first step).

        A joint that ``start`` gives is drawn at its keypoint, as Algorithm 1 draws y_t (line 5). The others,
        and all without ``start``, are coarse heatmaps (Eq. 10) and their maxima.

        Returns:
            hm_T (b, j, h, w) and y_T (b, j, 2) heatmap pixels.
        """
        hm = self.conv(x_fea)
        y_t, _ = self.codec.decode(hm, "argmax")
        if start is None:
            return hm, y_t
        given = start.given[..., None]
        y_t = torch.where(given, self.codec.to_heatmap(start.keypoints), y_t)
        return torch.where(given[..., None], self.codec.draw(y_t), hm), y_t

    def forward(self, images: Tensor, steps: int = 1, start: Start | None = None, **options: Any) -> Tensor:
        """Algorithm 2's last heatmaps: (b, 3, H, W) RGB uint8 crops -> (b, j, h, w)."""
        return self.denoise(images, steps, start)[-1]
