"""DiffusionPose: the method of the paper from top to bottom, in its order and its symbols.

Qiu et al., "Learning Structure-Guided Diffusion Model for 2D Human Pose Estimation", arXiv 2306.17074.

=============  ==============================================  ============================
symbol         meaning                                         shape
=============  ==============================================  ============================
x, x_fea       image crop; its feature E(x)                    (b, 3, H, W), (b, c, h, w)
y_0, y_t       keypoints, noised keypoints, heatmap pixels     (b, j, 2)
hm_0, hm_t     Gaussian heatmaps phi(y_0), phi(y_t)            (b, j, h, w)
M_kps, M_ske   keypoint mask, skeleton mask                    (b, 1, h, w)
x_kps, x_ske   x_fea under the masks                           (b, c, h, w)
x_c            condition of the decoder                        (b, c or 2 c, h, w)
=============  ==============================================  ============================

phi of Eq. 5 and the reading of keypoints from heatmaps are those of every heatmap model
(``HeatmapCodec`` in ``geometry.py``). What the paper leaves open is decided in docs/open-points.md; what
goes beyond it, such as starts from other keypoints, is in ``models/variants.py``.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffusionpose.geometry import HeatmapCodec, Start, pixel_grid
from diffusionpose.models.encoders import Encoder
from diffusionpose.models.pose_model import NamedTensors, PoseModel, coarse_head, heatmap_loss, nearly_zero
from diffusionpose.skeletons import Skeleton

# Forward diffusion process (section 3.2.1): Eq. 1 to 4


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
        # constants that follow from T: not part of a checkpoint
        self.register_buffer("gamma", gamma.float(), persistent=False)
        self.register_buffer("alpha", alpha.float(), persistent=False)


def diffuse_keypoints(y_0: Tensor, gamma_t: Tensor, epsilon: Tensor, zeta: float) -> Tensor:
    """y_t = sqrt(gamma_t) (zeta y_0) + sqrt(1 - gamma_t) epsilon (Eq. 4), back in the unit of y_0.

    The sum is divided by zeta, so that the noise on a keypoint is sqrt(1 - gamma_t) / zeta: with
    y_0 in heatmap pixels from the crop's centre, zeta = 0.05 means up to 20 pixels, zeta = 1 up to
    one. With zeta = 1 this is Eq. 3. y_0 and epsilon (standard normal) are (b, j, 2), gamma_t (b,).
    """
    signal = gamma_t.sqrt()[:, None, None] * (zeta * y_0)
    noise = (1 - gamma_t).sqrt()[:, None, None] * epsilon
    return (signal + noise) / zeta


# Masks varphi(y_t, delta_kps, delta_ske) = {M_kps, M_ske} (Eq. 5): 1 within delta of a keypoint or a limb,
# 0 elsewhere; one of each for a person, the union over joints or limbs

ROUNDING = 1e-3  # heatmap pixels


def keypoint_mask(y: Tensor, size: tuple[int, int], delta: float, visible: Tensor) -> Tensor:
    """M_kps of Eq. 5: discs of radius ``delta`` around the visible keypoints, (b, 1, h, w) of zeros and ones.

    Args:
        y: (b, j, 2) keypoints, heatmap pixels.
        size: (width, height) of the mask.
        delta: delta_kps, heatmap pixels.
        visible: (b, j); joints that are 0 draw nothing.
    """
    columns, rows = pixel_grid(size, y)
    x_0, y_0 = y[:, :, None, None, :].unbind(-1)
    near = (columns - x_0).square() + (rows - y_0).square() <= delta**2
    return (near & visible.bool()[:, :, None, None]).any(dim=1, keepdim=True).to(y.dtype)


def skeleton_mask(
    y: Tensor, limbs: Sequence[tuple[int, int]], size: tuple[int, int], delta: float, visible: Tensor
) -> Tensor:
    """M_ske of Eq. 5: bands of half width ``delta`` around the limbs whose two joints are visible.

    ``limbs`` are those of the skeleton, ``delta`` is delta_ske; all else as of :func:`keypoint_mask`.
    """
    if not limbs:
        return y.new_zeros(y.shape[0], 1, size[1], size[0])
    first, second = torch.as_tensor(limbs, device=y.device).unbind(1)
    start, along = y[:, first], y[:, second] - y[:, first]
    drawn = visible.bool()[:, first] & visible.bool()[:, second]

    columns, rows = pixel_grid(size, y)
    x_0, y_0 = start[:, :, None, None, :].unbind(-1)
    dx, dy = along[:, :, None, None, :].unbind(-1)
    # nearest point of the limb: its share of the way from start to end, clipped to the limb
    length_squared = (dx.square() + dy.square()).clamp_min(1e-6)
    share = (((columns - x_0) * dx + (rows - y_0) * dy) / length_squared).clamp(0, 1)
    distance_squared = (columns - x_0 - share * dx).square() + (rows - y_0 - share * dy).square()
    # pixels at exactly this distance are frequent: rounding, which differs between runtimes, must not decide
    near = (distance_squared <= (delta + ROUNDING) ** 2) & drawn[:, :, None, None]
    return near.any(dim=1, keepdim=True).to(y.dtype)


# Spatial-channel cross-attention, SC-CA: A(Q, K, V) = A_c(Q, K, V) + A_s(Q, K, V) (Eq. 8), the two attentions
# of DaViT (Ding et al., ECCV 2022)

WINDOW = 7  # positions along each side of a window (DaViT)
GROUP_CHANNELS = 32  # channels of a head, and of a channel group (DaViT)


class CrossAttention(nn.Module):
    """Projections around an attention: what A_c and A_s share."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.groups = groups
        self.query = nn.Linear(channels, channels)
        self.key = nn.Linear(channels, channels)
        self.value = nn.Linear(channels, channels)
        self.out = nn.Linear(channels, channels)


class ChannelGroupAttention(CrossAttention):
    """A_c: every channel attends to the channels of its group, over all positions of the map."""

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """(b, c, h, w) each -> (b, c, h, w), by weights between the channels of a group."""
        size = query.shape[2:]
        q, k, v = (
            linear(feature.flatten(2).mT).unflatten(2, (self.groups, -1)).transpose(1, 2)
            for feature, linear in ((query, self.query), (key, self.key), (value, self.value))
        )  # (b, groups, n, d)
        # the products sum over positions, so their number sets the scale: resolution then does not
        weights = (q.mT @ k * q.shape[2] ** -0.5).softmax(dim=-1)
        return self.out((weights @ v.mT).mT.transpose(1, 2).flatten(2)).mT.unflatten(2, size)


class WindowAttention(CrossAttention):
    """A_s: every position attends to the positions of its window (multi-head)."""

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """(b, c, h, w) each -> (b, c, h, w), by weights between the positions of a window."""
        (height, width), side = query.shape[2:], WINDOW
        # no whole number of windows: filled with zeros, which positions off the skeleton hold anyway
        fill = (0, 0, 0, -width % side, 0, -height % side)
        rows, columns = (height + fill[5]) // side, (width + fill[3]) // side
        size = query.shape[1] // self.groups
        q, k, v = (
            linear(F.pad(feature.permute(0, 2, 3, 1), fill))
            .reshape(-1, rows, side, columns, side, self.groups, size)
            .permute(0, 1, 3, 5, 2, 4, 6)
            .reshape(-1, side * side, size)
            for feature, linear in ((query, self.query), (key, self.key), (value, self.value))
        )  # (b rows columns heads, n, d)
        # written out: windows of 49 positions are too small for fused kernels to pay, on CPU least
        weights = (q @ k.mT * size**-0.5).softmax(dim=-1)
        windows = (weights @ v).reshape(-1, rows, columns, self.groups, side, side, size)
        joined = windows.permute(0, 1, 4, 2, 5, 3, 6).reshape(-1, rows * side, columns * side, query.shape[1])
        return self.out(joined[:, :height, :width]).permute(0, 3, 1, 2)


class SpatialChannelCrossAttention(nn.Module):
    """A = A_c + A_s (Eq. 8)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        groups = max(1, channels // GROUP_CHANNELS)
        while channels % groups:
            groups -= 1
        self.channel = ChannelGroupAttention(channels, groups)
        self.spatial = WindowAttention(channels, groups)

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """(b, c, h, w) each -> (b, c, h, w)."""
        return self.channel(query, key, value) + self.spatial(query, key, value)


# Conditions x_c of the decoder: Eq. 6 and 7, and the simpler ones of Table 5


class StructureCondition(nn.Module):
    """x_c = C(x_kps + A(x_kps, x_ske, x_ske), x_fea) (Eq. 6 and 7), or a simpler row of Table 5.

    Args:
        feature_channels: c of x_fea.
        limbs: of the skeleton.
        delta_kps, delta_ske: widths of the masks (Eq. 5), heatmap pixels.
        kind: "full", Eq. 7 (third row); "keypoints", C(x_fea, x_kps); "features", x_fea alone.
    """

    def __init__(
        self,
        feature_channels: int,
        limbs: Sequence[tuple[int, int]],
        delta_kps: float,
        delta_ske: float,
        kind: str = "full",
    ) -> None:
        super().__init__()
        self.kind, self.limbs = kind, tuple(limbs)
        self.delta_kps, self.delta_ske = delta_kps, delta_ske
        self.channels = feature_channels if kind == "features" else 2 * feature_channels
        if kind == "full":
            self.attention = SpatialChannelCrossAttention(feature_channels)

    def forward(self, x_fea: Tensor, y: Tensor, visible: Tensor) -> Tensor:
        """x_fea (b, c, h, w), y (b, j, 2) heatmap pixels, visible (b, j) -> (b, channels, h, w)."""
        if self.kind == "features":
            return x_fea
        size = (x_fea.shape[3], x_fea.shape[2])
        m_kps = keypoint_mask(y, size, self.delta_kps, visible)  # Eq. 5
        x_kps = x_fea * m_kps  # Eq. 6
        if self.kind == "keypoints":
            return torch.cat([x_fea, x_kps], dim=1)
        m_ske = skeleton_mask(y, self.limbs, size, self.delta_ske, visible)
        x_ske = x_fea * m_ske
        return torch.cat([x_kps + self.attention(x_kps, x_ske, x_ske), x_fea], dim=1)  # Eq. 7


# SGDD: the structure-guided diffusion decoder D(hm_t, x_c) (Eq. 9, Fig. 3, Table 1)

STAGE_WIDTHS = (1, 2, 2, 2)  # channels of the stages in units of C (Table 1)
BLOCKS = 2  # residual blocks a stage (Table 1)


def _norm(channels: int) -> nn.GroupNorm:
    # Groups, not batches: the decoder sees noised truth in training and coarse heatmaps at
    # inference, so batch statistics of the one would be wrong for the other. 32 groups as usual, 8 where
    # that would leave a group fewer than four channels.
    return nn.GroupNorm(math.gcd(channels, 32 if channels >= 128 else 8), channels)


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
    """A U-Net from noised heatmaps and their condition to heatmaps; ``width`` is the paper's C."""

    def __init__(self, joints: int, condition_channels: int, width: int = 128) -> None:
        super().__init__()
        channels = [width * factor for factor in STAGE_WIDTHS]
        self.stem = nn.Conv2d(joints + condition_channels, channels[0], 3, padding=1)
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

    def forward(self, hm_t: Tensor, x_c: Tensor) -> Tensor:
        """hm_t (b, j, h, w), x_c (b, condition_channels, h, w) -> estimated heatmaps (b, j, h, w) (Eq. 9)."""
        return self.u_net(self.begin(hm_t, x_c))

    def begin(self, hm_t: Tensor, x_c: Tensor) -> Tensor:
        """The stem, of C(hm_t, x_c): (b, C, h, w)."""
        # in two parts: where J + c is no multiple of 16, kernels are half as fast
        of_hm, of_x = self.stem.weight.split([hm_t.shape[1], x_c.shape[1]], dim=1)
        return F.conv2d(hm_t, of_hm, self.stem.bias, padding=1) + F.conv2d(x_c, of_x, padding=1)

    def u_net(self, x: Tensor) -> Tensor:
        """The stages down, and up with skips: (b, C, h, w) -> (b, j, h, w)."""
        skips = []
        for i, stage in enumerate(self.stages):
            x = stage(x if i == 0 else self.downs[i - 1](x))
            skips.append(x)
        x = skips.pop()
        for up in reversed(self.ups):
            skip = skips.pop()
            x = up(F.interpolate(x, size=skip.shape[2:], mode="nearest")) + skip
        return self.out(x)


# The model f_theta: Algorithm 1 trains it, Algorithm 2 uses it

NOISE_STRIDE = 4  # y_0 of Eq. 4 is in pixels of a heatmap of this stride, whatever s is


class DiffusionPose(PoseModel):
    """Heatmaps generated from noised heatmaps under a condition (Fig. 2).

    Args:
        encoder: E; its feature is resized to the heatmap where its stride is another.
        condition: makes x_c.
        decoder: D, of hm_t and x_c.
        skeleton: J joints.
        codec: sizes and geometry of the heatmaps; its stride is the paper's s.
        zeta: signal scale of Eq. 4.
        timesteps: T.
    """

    default_steps: int = 1  # the paper's advice

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

    def draw_noise(self, count: int, generator: torch.Generator) -> NamedTensors:
        """t (count,) uniform in 1..T and epsilon (count, j, 2) standard normal."""
        device, joints = generator.device, self.skeleton.num_joints
        t = torch.randint(1, self.schedule.timesteps + 1, (count,), generator=generator, device=device)
        return {"t": t, "epsilon": torch.randn(count, joints, 2, generator=generator, device=device)}

    def diffuse(self, y_0: Tensor, t: Tensor, epsilon: Tensor, visible: Tensor) -> Tensor:
        """y_t = q(y_t | y_0, zeta) (Eq. 4), (b, j, 2) heatmap pixels.

        The origin is the crop's centre, so that the larger t, the nearer y_t to noise around it.
        A joint without label has no y_0: it starts from the centre and is noise alone.
        """
        centre = (y_0.new_tensor(self.heatmap_size) - 1) / 2
        unit = NOISE_STRIDE / self.codec.stride
        y = torch.where(visible.bool()[..., None], (y_0 - centre) / unit, 0.0)
        return diffuse_keypoints(y, self.schedule.gamma[t], epsilon, self.zeta) * unit + centre

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """What does not depend on t, of (b, 3, H, W) RGB uint8 crops.

        Returns:
            x_fea = E(x) at the size of the heatmaps (Fig. 3, High-Resolution SGDD), (b, c, h, w), and the
            coarse heatmaps hm_T = conv(x_fea) (Eq. 10), (b, j, h, w).
        """
        x_fea = self.encoder(self.normalise(images))
        size = (self.heatmap_size[1], self.heatmap_size[0])
        if x_fea.shape[2:] != size:
            x_fea = F.interpolate(x_fea, size=size, mode="bilinear", align_corners=self.unbiased)
        return x_fea, self.conv(x_fea)

    def loss(self, images: Tensor, keypoints: Tensor, visible: Tensor, noise: NamedTensors) -> NamedTensors:
        """Algorithm 1: L1 + L2 of Eq. 11. Arguments as :meth:`PoseModel.loss`.

        Returns:
            "loss" = "decoder" (L1, Eq. 9) + "coarse" (L2, Eq. 10).
        """
        y_0 = self.codec.to_heatmap(keypoints)
        x_fea, coarse = self.encode(images)  # line 1, and the convolution of line 10
        t, epsilon = noise["t"], noise["epsilon"]  # line 3
        y_t = self.diffuse(y_0, t, epsilon, visible)  # line 4
        hm_t, hm_0 = self.codec.draw(y_t), self.codec.draw(y_0)  # line 5
        x_c = self.condition(x_fea, y_t, visible)  # lines 6 to 8
        l_1 = heatmap_loss(self.decoder(hm_t, x_c), hm_0, visible)  # line 9
        l_2 = heatmap_loss(coarse, hm_0, visible)  # line 10
        return {"loss": l_1 + l_2, "decoder": l_1, "coarse": l_2}  # line 11

    def denoise(self, images: Tensor, steps: int = 1) -> list[Tensor]:
        """Algorithm 2: the heatmaps hm_T (coarse, Eq. 10), .., hm_0 of (b, 3, H, W) RGB uint8 crops.

        There are ``steps`` + 1, (b, j, h, w) each. The paper advises one reverse step.
        """
        x_fea, hm_t = self.encode(images)  # lines 1 and 2
        hm = [hm_t]
        for _ in range(steps):  # line 3
            y_t, _ = self.codec.decode(hm_t, "argmax")  # line 4
            hm_t = self.step(x_fea, hm_t, y_t)  # lines 5 to 8
            hm.append(hm_t)
        return hm

    def step(self, x_fea: Tensor, hm_t: Tensor, y_t: Tensor) -> Tensor:
        """Lines 5 to 8 of Algorithm 2: heatmaps hm_t and their keypoints y_t, heatmap pixels -> hm_{t-1}."""
        x_c = self.condition(x_fea, y_t, torch.ones_like(y_t[..., 0]))  # lines 5 to 7
        return self.decoder(hm_t, x_c)  # line 8

    def trajectory(
        self, images: Tensor, steps: int | None = None, start: Start | None = None
    ) -> list[Tensor]:
        """As :meth:`PoseModel.trajectory`: Algorithm 2."""
        return self.denoise(images, self.default_steps if steps is None else steps)
