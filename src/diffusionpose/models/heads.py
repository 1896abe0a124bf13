"""Heads: from an encoder's feature map to heatmaps, as the methods the paper compares with have them."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffusionpose.errors import InputError
from diffusionpose.models.diffusion_pose import StructureGuidedDecoder
from diffusionpose.models.encoders import deconvolutions
from diffusionpose.models.pose_model import coarse_head, nearly_zero


def deconvolution_head(channels: int, joints: int, layers: int = 3, width: int = 256) -> nn.Sequential:
    """SimpleBaseline (Xiao et al., ECCV 2018): ``layers`` doublings by 4x4 deconvolutions, a 1x1 convolution.

    Args:
        channels: of the encoder's feature, whose stride is 4 x 2 ** ``layers``.
        joints: J, channels of the heatmaps.
        layers: 3 on a ResNet (stride 32), 2 on a ViT (stride 16).
        width: channels of the deconvolutions.
    """
    return nn.Sequential(*deconvolutions(channels, width, layers), coarse_head(width, joints))


class SimpleDecoder(nn.Module):
    """ViTPose's simple decoder: ReLU, bilinear upsampling by 4, a 3x3 convolution.

    Args:
        channels: of the encoder's feature, stride 16.
        joints: J, channels of the heatmaps.
    """

    def __init__(self, channels: int, joints: int) -> None:
        super().__init__()
        self.conv = nearly_zero(nn.Conv2d(channels, joints, 3, padding=1))

    def forward(self, feature: Tensor) -> Tensor:
        """(b, c, h, w) -> (b, j, 4 h, 4 w)."""
        raised = F.interpolate(torch.relu(feature), scale_factor=4.0, mode="bilinear", align_corners=False)
        return self.conv(raised)


class UNetHead(nn.Module):
    """DiffusionPose's decoder with nothing to denoise: of x_fea alone, its heatmaps left empty.

    It shows what a deeper head brings by itself.

    Args:
        channels: of x_fea.
        joints: J.
        width: the decoder's C.
    """

    def __init__(self, channels: int, joints: int, width: int = 128) -> None:
        super().__init__()
        self.joints = joints
        self.decoder = StructureGuidedDecoder(joints, channels, width)

    def forward(self, x_fea: Tensor) -> Tensor:
        """(b, channels, h, w) -> (b, joints, h, w) heatmaps."""
        batch, _, height, width = x_fea.shape
        return self.decoder(x_fea.new_zeros(batch, self.joints, height, width), x_fea)


# The 2D sine position embedding of TransPose and TokenPose (after DETR, Carion et al., ECCV 2020)

TEMPERATURE = 10000.0


def sine_positions(size: tuple[int, int], channels: int) -> Tensor:
    """Where each token is, as sines and cosines of its row and of its column.

    The first half of the channels is of the row, the second of the column. Rows count from 1 and are
    scaled so that the last one is at 2 pi, columns likewise: the table stretches with the map. In
    each half channels 2i and 2i + 1 are the sine and the cosine of position / 10000^(2i / half).

    Args:
        size: (width, height) of the map of tokens.
        channels: of a token; a multiple of 4.

    Returns:
        (h w, channels).

    Raises:
        ValueError: channels that cannot be split so.
    """
    if channels % 4:
        raise ValueError(f"{channels} channels are no multiple of 4, as sine positions need")
    width, height = size
    half = channels // 2
    wavelengths = TEMPERATURE ** (torch.arange(0, half, 2) / half)
    rows, columns = (
        2 * math.pi * torch.arange(1, count + 1)[:, None] / count / wavelengths for count in (height, width)
    )
    rows, columns = (torch.stack([angle.sin(), angle.cos()], 2).flatten(1) for angle in (rows, columns))
    table = torch.cat(
        [rows[:, None].expand(height, width, half), columns[None].expand(height, width, half)], dim=2
    )
    return table.flatten(0, 1)


# TokenPose (Li et al., ICCV 2021): one learned token per joint among the tokens of the picture

MLP_RATIO = 3  # hidden channels of the feed-forward networks, in widths
FUSED = 3  # the joint tokens after each third of the layers make the heatmaps (token fusion)


class TokenPoseLayer(nn.Module):
    """Attention and feed-forward, each behind a norm and beside a skip."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, MLP_RATIO * width), nn.GELU(), nn.Linear(MLP_RATIO * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(b, n, c) -> (b, n, c)."""
        q, k, v = self.qkv(self.norm1(x)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(q, k, v)
        x = x + self.out(attended.transpose(1, 2).flatten(2))
        return x + self.mlp(self.norm2(x))


class TokenPoseHead(nn.Module):
    """From a feature map to heatmaps, by default as in TokenPose-L/D24.

    Each patch of the feature map becomes a token; one more token stands for each joint. All of them
    go through the transformer, and what has become of the joints' tokens makes the heatmaps.

    Args:
        channels: of the feature map.
        joints: J.
        feature_size: (width, height) of the feature map.
        heatmap_size: (width, height) of the heatmaps.
        patch: (width, height) of a patch, feature pixels; the published are (3, 4) for 256x192 and
            (4, 6) for 384x288.
        width: channels of a token.
        depth: layers; a multiple of 3.
        heads: of the attention.

    Raises:
        InputError: a feature map that is no whole number of patches.
        ValueError: a depth or width that cannot be divided as above.
    """

    positions: Tensor

    def __init__(
        self,
        channels: int,
        joints: int,
        feature_size: tuple[int, int],
        heatmap_size: tuple[int, int],
        patch: tuple[int, int] = (3, 4),
        width: int = 192,
        depth: int = 24,
        heads: int = 12,
    ) -> None:
        super().__init__()
        if feature_size[0] % patch[0] or feature_size[1] % patch[1]:
            raise InputError(
                f"a feature map {feature_size[0]} wide and {feature_size[1]} high cannot be split into "
                f"patches {patch[0]} wide and {patch[1]} high; choose another input size or patch"
            )
        if depth % FUSED or width % heads:
            raise ValueError(f"depth {depth} must be a multiple of {FUSED}, width {width} of {heads} heads")
        self.patch = patch
        self.heatmap_size = heatmap_size
        self.embed = nn.Linear(channels * patch[0] * patch[1], width)
        grid = (feature_size[0] // patch[0], feature_size[1] // patch[1])
        table = torch.cat([torch.zeros(joints, width), sine_positions(grid, width)])
        self.register_buffer("positions", table, persistent=False)
        self.joint_tokens = nn.Parameter(torch.zeros(joints, width))
        self.layers = nn.ModuleList(TokenPoseLayer(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(FUSED * width)
        self.heatmaps = nn.Linear(FUSED * width, heatmap_size[0] * heatmap_size[1])
        self._initialise()

    def _initialise(self) -> None:
        nn.init.trunc_normal_(self.joint_tokens, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        # nearly empty heatmaps at first, as with the convolutional heads
        nn.init.normal_(self.heatmaps.weight, std=1e-3)

    def forward(self, feature: Tensor) -> Tensor:
        """(b, c, h, w) -> (b, j, heatmap height, heatmap width)."""
        joints = self.joint_tokens.expand(feature.shape[0], -1, -1)
        x = torch.cat([joints, self.embed(self._patches(feature))], dim=1)
        third = len(self.layers) // FUSED
        fused = []
        for i, layer in enumerate(self.layers):
            # Places are told again before each layer but the first of the later thirds, as in the
            # authors' code; joints have none.
            x = layer(x if i and i % third == 0 else x + self.positions)
            if (i + 1) % third == 0:
                fused.append(x[:, : len(self.joint_tokens)])
        heatmaps = self.heatmaps(self.norm(torch.cat(fused, dim=2)))
        return heatmaps.unflatten(2, self.heatmap_size[::-1])

    def _patches(self, feature: Tensor) -> Tensor:
        """(b, c, h, w) -> (b, patches, patch height x patch width x c)."""
        across, down = self.patch
        split = feature.unflatten(3, (-1, across)).unflatten(2, (-1, down))
        return split.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)


# TransPose (Yang et al., ICCV 2021): a transformer encoder over every position of a feature map


class TransPoseLayer(nn.Module):
    """Attention and feed-forward, each followed by a norm; positions go into query and key only."""

    def __init__(self, width: int, heads: int, feedforward: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.query_key = nn.Linear(width, 2 * width)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)
        self.norm1 = nn.LayerNorm(width)
        self.linear1 = nn.Linear(width, feedforward)
        self.linear2 = nn.Linear(feedforward, width)
        self.norm2 = nn.LayerNorm(width)

    def forward(self, x: Tensor, positions: Tensor) -> Tensor:
        """(b, n, c) tokens and (n, c) positions -> (b, n, c)."""
        x = self.norm1(x + self._drop(self._attend(x, positions)))
        hidden = self._drop(F.relu(self.linear1(x)))
        return self.norm2(x + self._drop(self.linear2(hidden)))

    def _attend(self, x: Tensor, positions: Tensor) -> Tensor:
        query, key = self.query_key(x + positions).chunk(2, dim=2)
        q, k, v = (t.unflatten(2, (self.heads, -1)).transpose(1, 2) for t in (query, key, self.value(x)))
        attended = F.scaled_dot_product_attention(q, k, v, dropout_p=self.dropout if self.training else 0.0)
        return self.out(attended.transpose(1, 2).flatten(2))

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, self.training)


class TransPoseHead(nn.Module):
    """From a feature map to heatmaps of its size, by default as in TransPose-H/A6.

    Args:
        channels: of the feature map.
        joints: J.
        feature_size: (width, height) of the feature map; the table of positions is made for it.
        width: d, channels of a token.
        depth: encoder layers.
        heads: of the attention.
        feedforward: h, hidden channels of the feed-forward networks.
        dropout: of attention weights and of both branches, in training; the published is 0.1.

    Raises:
        ValueError: a width that the heads, or the sines of two directions, cannot share.
    """

    positions: Tensor

    def __init__(
        self,
        channels: int,
        joints: int,
        feature_size: tuple[int, int],
        width: int = 96,
        depth: int = 6,
        heads: int = 1,
        feedforward: int = 192,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"{width} channels cannot be shared by {heads} heads")
        self.reduce = nn.Conv2d(channels, width, 1, bias=False)
        self.register_buffer("positions", sine_positions(feature_size, width), persistent=False)
        self.layers = nn.ModuleList(TransPoseLayer(width, heads, feedforward, dropout) for _ in range(depth))
        for parameter in self.layers.parameters():
            if parameter.ndim > 1:
                nn.init.xavier_uniform_(parameter)
        self.final = coarse_head(width, joints)

    def forward(self, feature: Tensor) -> Tensor:
        """(b, c, h, w) -> (b, j, h, w)."""
        height, width = feature.shape[2:]
        x = self.reduce(feature).flatten(2).mT
        for layer in self.layers:
            x = layer(x, self.positions)
        return self.final(x.mT.unflatten(2, (height, width)))
