"""Heads: from an encoder's feature map to heatmaps, as the methods the paper compares with have them."""

import math

import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.nn import functional as F

from diffusionpose.errors import InputError
from diffusionpose.models.diffusion_pose import StructureGuidedDecoder
from diffusionpose.models.encoders import deconvolutions
from diffusionpose.models.pose_model import coarse_head, nearly_zero


def deconvolution_head(channels: int, joints: int, layers: int = 3, width: int = 256) -> nn.Sequential:
    """SimpleBaseline (Xiao et al., ECCV 2018): doublings by 4x4 deconvolutions, then a 1x1 convolution.

    The feature's stride is 4 x 2 ** ``layers``: 3 layers on a ResNet (stride 32), 2 on a ViT (stride 16).
    """
    return nn.Sequential(*deconvolutions(channels, width, layers), coarse_head(width, joints))


class SimpleDecoder(nn.Module):
    """ViTPose's simple decoder, of stride 16: ReLU, bilinear upsampling by 4, a 3x3 convolution."""

    def __init__(self, channels: int, joints: int) -> None:
        super().__init__()
        self.conv = nearly_zero(nn.Conv2d(channels, joints, 3, padding=1))

    def forward(self, feature: Tensor) -> Tensor:
        """(b, c, h, w) -> (b, j, 4 h, 4 w)."""
        raised = F.interpolate(torch.relu(feature), scale_factor=4.0, mode="bilinear", align_corners=False)
        return self.conv(raised)


class UNetHead(nn.Module):
    """DiffusionPose's decoder with nothing to denoise: of x_fea alone, its heatmaps left empty.

    It shows what a deeper head brings by itself. ``width`` is the decoder's C.
    """

    def __init__(self, channels: int, joints: int, width: int = 128) -> None:
        super().__init__()
        self.joints = joints
        self.decoder = StructureGuidedDecoder(joints, channels, width)

    def forward(self, x_fea: Tensor) -> Tensor:
        """(b, channels, h, w) -> (b, joints, h, w) heatmaps."""
        batch, _, height, width = x_fea.shape
        return self.decoder(x_fea.new_zeros(batch, self.joints, height, width), x_fea)


def sine_positions(size: tuple[int, int], channels: int) -> Tensor:
    """The 2D sine position embedding of TransPose and TokenPose (after DETR, Carion et al., ECCV 2020).

    The first half of the channels is of the row, the second of the column. Rows count from 1 and are
    scaled so that the last one is at 2 pi, columns likewise: the table stretches with the map. In
    each half channels 2i and 2i + 1 are the sine and the cosine of position / 10000^(2i / half).
    A map of ``size`` (width, height) gives (h w, channels); channels must be a multiple of 4.
    """
    if channels % 4:
        raise ValueError(f"{channels} channels are no multiple of 4, as sine positions need")
    width, height = size
    half = channels // 2
    wavelengths = 10000.0 ** (torch.arange(0, half, 2) / half)
    rows, columns = (
        2 * math.pi * torch.arange(1, count + 1)[:, None] / count / wavelengths for count in (height, width)
    )
    rows, columns = (torch.stack([angle.sin(), angle.cos()], 2).flatten(1) for angle in (rows, columns))
    return torch.cat([rows.repeat_interleave(width, 0), columns.repeat(height, 1)], dim=1)


# TokenPose (Li et al., ICCV 2021): one learned token per joint among the tokens of the picture

MLP_RATIO = 3  # hidden channels of the feed-forward networks, in widths
FUSED = 3  # the joint tokens after each third of the layers make the heatmaps (token fusion)


class TokenPoseHead(nn.Module):
    """From a feature map to heatmaps, by default as in TokenPose-L/D24.

    Each patch of the feature map becomes a token; one more token stands for each joint. All of them
    go through the transformer, and what has become of the joints' tokens makes the heatmaps.

    Args:
        channels, joints: of the feature map; J.
        size: (width, height) of the feature map and of the heatmaps.
        patch: (width, height) of a patch, feature pixels, which divide the map; the published are (3, 4) for
            256x192 and (4, 6) for 384x288.
        width: channels of a token; a multiple of ``heads``.
        depth: layers; a multiple of 3.
        heads: of the attention.
    """

    positions: Tensor

    def __init__(
        self,
        channels: int,
        joints: int,
        size: tuple[int, int],
        patch: tuple[int, int] = (3, 4),
        width: int = 192,
        depth: int = 24,
        heads: int = 12,
    ) -> None:
        super().__init__()
        if size[0] % patch[0] or size[1] % patch[1]:
            raise InputError(
                f"a feature map {size[0]} wide and {size[1]} high cannot be split into "
                f"patches {patch[0]} wide and {patch[1]} high; choose another input size or patch"
            )
        if depth % FUSED or width % heads:
            raise ValueError(f"depth {depth} must be a multiple of {FUSED}, width {width} of {heads} heads")
        self.patch = patch
        self.size = size
        self.embed = nn.Linear(channels * patch[0] * patch[1], width)
        grid = (size[0] // patch[0], size[1] // patch[1])
        table = torch.cat([torch.zeros(joints, width), sine_positions(grid, width)])
        self.register_buffer("positions", table, persistent=False)
        self.joint_tokens = nn.Parameter(torch.zeros(joints, width))
        self.layers = nn.ModuleList(Block(width, heads, MLP_RATIO, qkv_bias=False) for _ in range(depth))
        self.norm = nn.LayerNorm(FUSED * width)
        self.heatmaps = nn.Linear(FUSED * width, size[0] * size[1])
        nn.init.trunc_normal_(self.joint_tokens, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        # nearly empty heatmaps at first, as with the convolutional heads
        nn.init.normal_(self.heatmaps.weight, std=1e-3)

    def forward(self, feature: Tensor) -> Tensor:
        """(b, c, h, w) -> (b, j, h, w)."""
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
        return heatmaps.unflatten(2, self.size[::-1])

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
        self.drop = nn.Dropout(dropout)
        self.query_key = nn.Linear(width, 2 * width)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)
        self.norm1 = nn.LayerNorm(width)
        self.linear1 = nn.Linear(width, feedforward)
        self.linear2 = nn.Linear(feedforward, width)
        self.norm2 = nn.LayerNorm(width)

    def forward(self, x: Tensor, positions: Tensor, mask: Tensor | None = None) -> Tensor:
        """(b, n, c) tokens and (n, c) positions -> (b, n, c); ``mask`` (b, 1, 1, n): who counts."""
        query, key = self.query_key(x + positions).chunk(2, dim=2)
        q, k, v = (t.unflatten(2, (self.heads, -1)).transpose(1, 2) for t in (query, key, self.value(x)))
        dropout = self.drop.p if self.training else 0.0
        attended = F.scaled_dot_product_attention(q, k, v, mask, dropout)
        x = self.norm1(x + self.drop(self.out(attended.transpose(1, 2).flatten(2))))
        return self.norm2(x + self.drop(self.linear2(self.drop(F.relu(self.linear1(x))))))


class TransPoseHead(nn.Module):
    """From a feature map to heatmaps of its size, by default as in TransPose-H/A6.

    Args:
        channels, joints: of the feature map; J.
        feature_size: (width, height) of the feature map.
        width: d, channels of a token; a multiple of 4 and of ``heads``.
        depth, heads: of the encoder.
        feedforward: h, hidden channels of the feed-forward networks.
        dropout: of attention weights and of both branches, in training; the published is 0.1.
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

    def relate(self, feature: Tensor) -> Tensor:
        """(b, c, h, w) -> (b, width, h, w), every position informed by all others."""
        height, width = feature.shape[2:]
        x = self.reduce(feature).flatten(2).mT
        for layer in self.layers:
            x = layer(x, self.positions)
        return x.mT.unflatten(2, (height, width))

    def forward(self, feature: Tensor) -> Tensor:
        """(b, c, h, w) -> (b, j, h, w)."""
        return self.final(self.relate(feature))
