"""SC-CA: spatial-channel cross-attention (Eq. 8), A(Q, K, V) = A_c(Q, K, V) + A_s(Q, K, V).

The two attentions are DaViT's (Ding et al., ECCV 2022): attention between channels inside groups
of channels, and multi-head attention between positions inside windows. Here the query comes from
one feature map and key and value from another.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

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
