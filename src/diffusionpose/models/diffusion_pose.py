"""DiffusionPose: the paper's model. ``loss`` is Algorithm 1, ``denoise`` is Algorithm 2.

Symbols are the paper's: x image, x_fea feature, x_c condition, y keypoints, hm heatmaps; an index
0 means truth, t noised.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffusionpose.geometry import HeatmapCodec, Start, keypoint_mask, skeleton_mask
from diffusionpose.models.encoders import Encoder
from diffusionpose.models.pose_model import PoseModel, coarse_head, heatmap_loss, nearly_zero
from diffusionpose.skeletons import Skeleton


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


# SC-CA: spatial-channel cross-attention (Eq. 8), A(Q, K, V) = A_c(Q, K, V) + A_s(Q, K, V)

WINDOW = 7  # positions along each side of a window (DaViT)
GROUP_CHANNELS = 32  # channels of a head, and of a channel group (DaViT)


class CrossAttention(nn.Module):
    """Projections around an attention: what the two kinds below share."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        if channels % groups:
            raise ValueError(f"{channels} channels cannot be split into {groups} equal groups")
        self.groups = groups
        self.query = nn.Linear(channels, channels)
        self.key = nn.Linear(channels, channels)
        self.value = nn.Linear(channels, channels)
        self.out = nn.Linear(channels, channels)

    def _split(self, tokens: Tensor) -> Tensor:
        """(b, n, c) -> (b, groups, n, c / groups)."""
        return tokens.unflatten(2, (self.groups, -1)).transpose(1, 2)

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """(b, n, c) tokens each -> (b, n, c)."""
        q, k, v = self._split(self.query(query)), self._split(self.key(key)), self._split(self.value(value))
        return self.out(self.attend(q, k, v).transpose(1, 2).flatten(2))

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """(b, groups, n, d) each -> (b, groups, n, d)."""
        raise NotImplementedError


class ChannelGroupAttention(CrossAttention):
    """A_c: every channel attends to the channels of its group, over all positions of the picture."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Weights between the channels of a group, (b, groups, d, d)."""
        # the products sum over positions, so their number sets the scale: resolution then does not
        weights = (q.mT @ k * q.shape[2] ** -0.5).softmax(dim=-1)
        return (weights @ v.mT).mT


class WindowAttention(CrossAttention):
    """A_s: every position attends to the positions of its window (multi-head)."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Weights between the positions of a window, (b, heads, n, n)."""
        # written out: windows of 49 positions are too small for fused kernels to pay, on CPU least
        weights = (q @ k.mT * q.shape[3] ** -0.5).softmax(dim=-1)
        return weights @ v


class SpatialChannelCrossAttention(nn.Module):
    """A = A_c + A_s (Eq. 8).

    Args:
        channels: of the feature maps.
        window: side of A_s's windows, positions. Maps that are no multiple of it are filled with
            zeros, which is what positions off the skeleton hold anyway.
    """

    def __init__(self, channels: int, window: int = WINDOW) -> None:
        super().__init__()
        groups = max(1, channels // GROUP_CHANNELS)
        while channels % groups:
            groups -= 1
        self.window = window
        self.channel = ChannelGroupAttention(channels, groups)
        self.spatial = WindowAttention(channels, groups)

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """(b, c, h, w) each -> (b, c, h, w)."""
        height, width = query.shape[2:]
        tokens = [_tokens(feature) for feature in (query, key, value)]
        a_c = _feature_map(self.channel(*tokens), height, width)
        a_s = self._windowed(query, key, value)
        return a_c + a_s

    def _windowed(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        (height, width), side = query.shape[2:], self.window
        fill = (0, -width % side, 0, -height % side)
        padded = [F.pad(feature, fill) for feature in (query, key, value)]
        rows, columns = padded[0].shape[2] // side, padded[0].shape[3] // side
        windows = [_tokens(cut_windows(feature, side)) for feature in padded]
        attended = _feature_map(self.spatial(*windows), side, side)
        return join_windows(attended, rows, columns)[..., :height, :width]


def _tokens(feature: Tensor) -> Tensor:
    """(b, c, h, w) -> (b, h w, c)."""
    return feature.flatten(2).mT


def _feature_map(tokens: Tensor, height: int, width: int) -> Tensor:
    """(b, h w, c) -> (b, c, h, w)."""
    return tokens.mT.unflatten(2, (height, width))


def cut_windows(feature: Tensor, side: int) -> Tensor:
    """(b, c, rows side, columns side) -> (b rows columns, c, side, side)."""
    split = feature.unflatten(3, (-1, side)).unflatten(2, (-1, side))
    return split.permute(0, 2, 4, 1, 3, 5).flatten(0, 2)


def join_windows(windows: Tensor, rows: int, columns: int) -> Tensor:
    """The inverse of :func:`cut_windows`."""
    split = windows.unflatten(0, (-1, rows, columns))
    return split.permute(0, 3, 1, 4, 2, 5).flatten(4, 5).flatten(2, 3)


# Conditions x_c of the decoder: Eq. 6 and 7, and the lesser ones of Table 5


class Condition(nn.Module):
    """What the conditions share: ``channels`` of x_c, and the arguments of ``forward``."""

    channels: int

    def forward(self, x_fea: Tensor, y: Tensor, visible: Tensor) -> Tensor:
        """x_fea (b, c, h, w), y (b, j, 2) heatmap pixels, visible (b, j) -> (b, channels, h, w)."""
        raise NotImplementedError


class FeatureCondition(Condition):
    """x_c = x_fea: the features only (Table 5, first row)."""

    def __init__(self, feature_channels: int) -> None:
        super().__init__()
        self.channels = feature_channels

    def forward(self, x_fea: Tensor, y: Tensor, visible: Tensor) -> Tensor:
        """As :meth:`Condition.forward`."""
        return x_fea


class KeypointCondition(Condition):
    """x_c = C(x_fea, x_kps): features and those around the keypoints (Table 5, second row)."""

    def __init__(self, feature_channels: int, delta_kps: float) -> None:
        super().__init__()
        self.channels = 2 * feature_channels
        self.delta_kps = delta_kps

    def forward(self, x_fea: Tensor, y: Tensor, visible: Tensor) -> Tensor:
        """As :meth:`Condition.forward`."""
        x_kps = x_fea * keypoint_mask(y, _size(x_fea), self.delta_kps, visible)
        return torch.cat([x_fea, x_kps], dim=1)


class StructureCondition(Condition):
    """x_c = C(x_kps + A(x_kps, x_ske, x_ske), x_fea) (Eq. 6 and 7; Table 5, third row).

    Args:
        feature_channels: of x_fea.
        limbs: ``Skeleton.limbs``.
        delta_kps: radius of the keypoint mask, heatmap pixels (Eq. 5).
        delta_ske: half width of the skeleton mask, heatmap pixels (Eq. 5).
    """

    def __init__(
        self, feature_channels: int, limbs: Sequence[tuple[int, int]], delta_kps: float, delta_ske: float
    ) -> None:
        super().__init__()
        self.channels = 2 * feature_channels
        self.limbs = tuple(limbs)
        self.delta_kps = delta_kps
        self.delta_ske = delta_ske
        self.attention = SpatialChannelCrossAttention(feature_channels)

    def forward(self, x_fea: Tensor, y: Tensor, visible: Tensor) -> Tensor:
        """As :meth:`Condition.forward`."""
        m_kps = keypoint_mask(y, _size(x_fea), self.delta_kps, visible)
        m_ske = skeleton_mask(y, self.limbs, _size(x_fea), self.delta_ske, visible)
        x_kps, x_ske = x_fea * m_kps, x_fea * m_ske  # Eq. 6
        return torch.cat([x_kps + self.attention(x_kps, x_ske, x_ske), x_fea], dim=1)  # Eq. 7


def _size(feature: Tensor) -> tuple[int, int]:
    return feature.shape[-1], feature.shape[-2]


# SGDD: the structure-guided diffusion decoder D(hm_t, x_c) (Eq. 9, Fig. 3, Table 1)

STAGE_WIDTHS = (1, 2, 2, 2)  # channels of the stages in units of C (Table 1)
BLOCKS = 2  # residual blocks a stage (Table 1)


def _norm(channels: int) -> nn.GroupNorm:
    # Groups, not batches: the decoder sees noised truth in training and coarse heatmaps at
    # inference, so batch statistics of the one would be wrong for the other.
    return nn.GroupNorm(math.gcd(channels, 32) if channels >= 128 else math.gcd(channels, 8), channels)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut (He et al. 2016); starts as the identity."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, padding=1, bias=False)
        self.norm1 = _norm(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm2 = _norm(channels)
        nn.init.zeros_(self.norm2.weight)
        same = in_channels == channels
        self.shortcut = nn.Identity() if same else nn.Conv2d(in_channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(b, in_channels, h, w) -> (b, channels, h, w)."""
        y = F.relu(self.norm1(self.conv1(x)))
        y = self.norm2(self.conv2(y))
        return F.relu(y + self.shortcut(x))


class StructureGuidedDecoder(nn.Module):
    """A U-Net from noised heatmaps and their condition to heatmaps.

    Args:
        joints: J, channels of the heatmaps.
        condition_channels: of x_c.
        width: the paper's C.
        time_input: let D see t as an embedding added to its first feature. The paper's D does not
            (Eq. 9).
    """

    def __init__(
        self, joints: int, condition_channels: int, width: int = 128, time_input: bool = False
    ) -> None:
        super().__init__()
        channels = [width * factor for factor in STAGE_WIDTHS]
        self.stem = nn.Conv2d(joints + condition_channels, channels[0], 3, padding=1)
        self.time = TimeEmbedding(channels[0]) if time_input else None
        self.stages = nn.ModuleList()
        self.downs = nn.ModuleList()
        self.ups = nn.ModuleList()
        for i, width_i in enumerate(channels):
            before = channels[max(i - 1, 0)]
            blocks = [ResidualBlock(before if k == 0 else width_i, width_i) for k in range(BLOCKS)]
            self.stages.append(nn.Sequential(*blocks))
            if i > 0:
                self.downs.append(nn.Conv2d(before, before, 3, stride=2, padding=1))
                self.ups.append(nn.Conv2d(width_i, before, 3, padding=1))
        self.out = nearly_zero(nn.Conv2d(channels[0], joints, 3, padding=1))

    def forward(self, hm_t: Tensor, x_c: Tensor, t: Tensor | None = None) -> Tensor:
        """Estimated heatmaps (Eq. 9).

        Args:
            hm_t: (b, j, h, w) noised heatmaps.
            x_c: (b, condition_channels, h, w).
            t: (b,) noise level t / T in [0, 1], only with ``time_input``.

        Returns:
            (b, j, h, w).
        """
        x = self.stem(torch.cat([hm_t, x_c], dim=1))
        if self.time is not None:
            if t is None:
                raise ValueError("this decoder was made with time_input: give it t")
            x = x + self.time(t)[:, :, None, None]

        skips = []
        for i, stage in enumerate(self.stages):
            x = stage(x if i == 0 else self.downs[i - 1](x))
            skips.append(x)
        x = skips.pop()
        for up in reversed(self.ups):
            skip = skips.pop()
            x = up(F.interpolate(x, size=skip.shape[2:], mode="nearest")) + skip
        return self.out(x)


class TimeEmbedding(nn.Module):
    """Sinusoids of t / T through a small network (Ho et al. 2020)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.waves = channels // 2
        self.net = nn.Sequential(nn.Linear(channels, channels), nn.SiLU(), nn.Linear(channels, channels))

    def forward(self, t: Tensor) -> Tensor:
        """(b,) in [0, 1] -> (b, channels)."""
        waves = self.waves
        frequencies = torch.exp(torch.arange(waves, device=t.device) * (-math.log(1e4) / waves))
        angles = 1000 * t[:, None] * frequencies
        return self.net(torch.cat([angles.sin(), angles.cos()], dim=1))


# DiffusionPose: the paper's model. ``loss`` is Algorithm 1, ``denoise`` is Algorithm 2

NOISE_STRIDE = 4  # y_0 of Eq. 4 is in pixels of a heatmap of this stride, whatever s is


class DiffusionPose(PoseModel):
    """Heatmaps generated from noised heatmaps under a condition (Qiu et al. 2023, Fig. 2).

    Args:
        encoder: E; its feature is resized to the heatmap where its stride is another.
        condition: makes x_c (``models/diffusion_pose.py``).
        decoder: D, of hm_t, x_c and t / T (which the paper's D does not look at).
        skeleton: J joints.
        codec: sizes and geometry of the heatmaps; its stride is the paper's s.
        zeta: signal scale of Eq. 4.
        timesteps: T.
        own_start: share of the training persons that start from the model's own coarse heatmaps in the
            place of noised truth, as all do at inference. The paper has 0.
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
        own_start: float = 0.0,
    ) -> None:
        super().__init__(encoder, skeleton, codec)
        self.conv = coarse_head(encoder.channels, skeleton.num_joints)
        self.condition = condition
        self.decoder = decoder
        self.schedule = NoiseSchedule(timesteps)
        self.zeta = zeta
        self.own_start = own_start

    def draw_noise(self, count: int, generator: torch.Generator) -> dict[str, Tensor]:
        """t (count,) uniform in 1..T, epsilon (count, j, 2) standard normal and, with ``own_start``, who of
        them starts from the own coarse heatmaps (count,).
        """
        device, joints = generator.device, self.skeleton.num_joints
        t = torch.randint(1, self.schedule.timesteps + 1, (count,), generator=generator, device=device)
        epsilon = torch.randn(count, joints, 2, generator=generator, device=device)
        noise = {"t": t, "epsilon": epsilon}
        if self.own_start > 0:
            noise["own"] = torch.rand(count, generator=generator, device=device) < self.own_start
        return noise

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
        coarse, shown = self.conv(x_fea), visible
        if "own" in noise:
            hm_t, y_t, shown = self.own_starts(coarse, hm_t, y_t, visible, noise["own"])
        x_c = self.condition(x_fea, y_t, shown)  # lines 6 to 8
        l_1 = heatmap_loss(self.decoder(hm_t, x_c, t / self.schedule.timesteps), hm_0, visible)  # line 9
        l_2 = heatmap_loss(coarse, hm_0, visible)  # line 10
        return {"loss": l_1 + l_2, "decoder": l_1, "coarse": l_2}  # line 11

    def own_starts(
        self, coarse: Tensor, hm_t: Tensor, y_t: Tensor, visible: Tensor, own: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """hm_t, y_t and the joints that masks show, of the first step of Algorithm 2 for the persons ``own``.

        No gradient goes through them; the coarse heatmaps learn from their own loss (Eq. 10).
        """
        coarse = coarse.detach().float()
        y_own, _ = self.codec.decode(coarse, "argmax")
        return (
            torch.where(own[:, None, None, None], coarse, hm_t),
            torch.where(own[:, None, None], y_own, y_t),
            visible.bool() | own[:, None],
        )

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
