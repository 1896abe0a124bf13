"""TokenPose (Li et al., ICCV 2021): one learned token per joint among the tokens of the picture."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffusionpose.errors import InputError
from diffusionpose.models.baselines.sine_positions import sine_positions

MLP_RATIO = 3  # hidden channels of the feed-forward networks, in widths
FUSED = 3  # the joint tokens after each third of the layers make the heatmaps (token fusion)


class Layer(nn.Module):
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
        self.layers = nn.ModuleList(Layer(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(FUSED * width)
        self.heatmaps = nn.Linear(FUSED * width, heatmap_size[0] * heatmap_size[1])
        self._begin()

    def _begin(self) -> None:
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
