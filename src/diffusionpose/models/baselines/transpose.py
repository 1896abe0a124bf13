"""TransPose (Yang et al., ICCV 2021): a transformer encoder over every position of a feature map."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from diffusionpose.models.baselines.sine_positions import sine_positions
from diffusionpose.models.heatmap_model import coarse_head


class EncoderLayer(nn.Module):
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
        self.layers = nn.ModuleList(EncoderLayer(width, heads, feedforward, dropout) for _ in range(depth))
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
