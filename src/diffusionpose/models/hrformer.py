"""HRFormer (Yuan et al., NeurIPS 2021): HRNet whose blocks are transformers in small windows."""

from collections.abc import Sequence

import torch
from timm.layers.drop import DropPath
from timm.layers.norm import LayerNorm2d
from timm.models.resnet import Bottleneck
from timm.models.swin_transformer import WindowAttention, window_partition, window_reverse
from torch import Tensor, nn
from torch.nn import functional as F

from diffusionpose.errors import InputError
from diffusionpose.models.encoders import Encoder

WINDOW = 7  # positions along each side of a window
SIDES = (WINDOW, WINDOW)
MLP_RATIO = 4  # hidden channels of the feed-forward networks, in channels of the branch
BLOCKS = 2  # of each branch of a module, and of the stem
MODULES = (1, 4, 2)  # of stages 2, 3 and 4, which have 2, 3 and 4 branches
STEM = 64  # channels
VARIANTS = {"small": (32, 1), "base": (78, 2)}  # channels and heads of the finest branch (Table 1)


def _conv_norm(inside: int, outside: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(inside, outside, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outside))


class LocalWindowAttention(nn.Module):
    """Multi-head attention inside windows, with a learned bias for every difference of places."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.inner = WindowAttention(channels, heads, window_size=WINDOW)

    def forward(self, x: Tensor) -> Tensor:
        """(b, c, h, w) -> (b, c, h, w)."""
        height, width = x.shape[2:]
        down, across = -height % WINDOW, -width % WINDOW
        # Zeros all round, which take part as the authors' do: keys and values are then the biases.
        padded = F.pad(x, (across // 2, across - across // 2, down // 2, down - down // 2))
        windows = window_partition(padded.permute(0, 2, 3, 1), SIDES)
        attended = self.inner(windows.flatten(1, 2)).unflatten(1, SIDES)
        whole = window_reverse(attended, SIDES, padded.shape[2], padded.shape[3]).permute(0, 3, 1, 2)
        return whole[..., down // 2 : down // 2 + height, across // 2 : across // 2 + width]


class Block(nn.Module):
    """Attention in windows, then a feed-forward network whose 3x3 convolution reaches beyond them."""

    def __init__(self, channels: int, heads: int, drop_path: float) -> None:
        super().__init__()
        self.norm1 = LayerNorm2d(channels, eps=1e-6)
        self.attention = LocalWindowAttention(channels, heads)
        self.norm2 = LayerNorm2d(channels, eps=1e-6)
        hidden = MLP_RATIO * channels
        convolutions = (
            nn.Conv2d(channels, hidden, 1),
            nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden),
            nn.Conv2d(hidden, channels, 1),
        )
        self.ffn = nn.Sequential(
            *(part for conv in convolutions for part in (conv, nn.BatchNorm2d(conv.out_channels), nn.GELU()))
        )
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """(b, c, h, w) -> (b, c, h, w)."""
        x = x + self.drop_path(self.attention(self.norm1(x)))
        return x + self.drop_path(self.ffn(self.norm2(x)))


class Fusion(nn.Module):
    """One branch's sum over all branches, brought to its channels and size."""

    def __init__(self, channels: Sequence[int], to: int) -> None:
        super().__init__()
        self.target = to
        self.paths = nn.ModuleList(self._path(channels, j, to) for j in range(len(channels)))

    @staticmethod
    def _path(channels: Sequence[int], j: int, to: int) -> nn.Module:
        if j == to:
            return nn.Identity()
        if j > to:  # enlarged in forward, after the convolution
            return _conv_norm(channels[j], channels[to], 1)
        parts: list[nn.Module] = []
        width = channels[j]
        for _ in range(j + 1, to):
            parts += [_conv_norm(width, width, 3, 2, width), _conv_norm(width, width, 1), nn.ReLU()]
        return nn.Sequential(
            *parts, _conv_norm(width, width, 3, 2, width), _conv_norm(width, channels[to], 1)
        )

    def forward(self, xs: Sequence[Tensor]) -> Tensor:
        """Maps of all branches -> (b, c, h, w) of this one."""
        y = xs[self.target]
        size = y.shape[2:]
        for j, (path, x) in enumerate(zip(self.paths, xs, strict=True)):
            if j < self.target:
                y = y + path(x)
            elif j > self.target:
                y = y + F.interpolate(path(x), size=size, mode="bilinear", align_corners=False)
        return F.relu(y)


class Module(nn.Module):
    """Blocks on every branch, then the exchange between the branches."""

    def __init__(self, channels: Sequence[int], heads: int, drop_paths: Sequence[float], out: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Sequential(*(Block(width, heads * 2**i, rate) for rate in drop_paths))
            for i, width in enumerate(channels)
        )
        self.fusions = nn.ModuleList(Fusion(channels, to) for to in range(out))

    def forward(self, xs: Sequence[Tensor]) -> list[Tensor]:
        """Maps of all branches -> those of the first ``out``."""
        ys = [branch(x) for branch, x in zip(self.branches, xs, strict=True)]
        return [fusion(ys) for fusion in self.fusions]


class HRFormer(nn.Module):
    """Stem, then stages of two, three and four branches, down to the finest branch alone.

    The last module makes only the finest branch, so that every parameter gets a gradient.
    """

    def __init__(self, channels: int, heads: int, drop_path: float) -> None:
        super().__init__()
        width = [channels * 2**i for i in range(len(MODULES) + 1)]
        wide = Bottleneck.expansion * STEM
        self.stem = nn.Sequential(
            *(part for inside in (3, STEM) for part in (_conv_norm(inside, STEM, 3, 2), nn.ReLU())),
            Bottleneck(STEM, STEM, downsample=_conv_norm(STEM, wide, 1)),
            *(Bottleneck(wide, STEM) for _ in range(BLOCKS - 1)),
        )
        self.first = nn.Sequential(_conv_norm(wide, width[0], 3), nn.ReLU())
        self.new_branches = nn.ModuleList(
            nn.Sequential(_conv_norm(wide if i == 0 else width[i], width[i + 1], 3, 2), nn.ReLU())
            for i in range(len(MODULES))
        )
        rates = torch.linspace(0, drop_path, BLOCKS * sum(MODULES), device="cpu").tolist()
        self.stages = nn.ModuleList()
        for branches, count in enumerate(MODULES, start=2):
            modules = []
            for _ in range(count):
                rate, rates = rates[:BLOCKS], rates[BLOCKS:]
                modules.append(Module(width[:branches], heads, rate, branches if rates else 1))
            self.stages.append(nn.Sequential(*modules))
        self.apply(_begin)

    def no_weight_decay(self) -> set[str]:
        """Names of the position biases, which do not shrink in the published training (as timm calls it)."""
        return {name for name, _ in self.named_parameters() if name.endswith("relative_position_bias_table")}

    def forward(self, x: Tensor) -> Tensor:
        """(b, 3, H, W) normalised -> (b, c, H / 4, W / 4)."""
        coarsest = self.stem(x)
        xs = [self.first(coarsest)]
        for new_branch, stage in zip(self.new_branches, self.stages, strict=True):
            xs = stage([*xs, new_branch(coarsest)])
            coarsest = xs[-1]
        return xs[0]


def _begin(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


class HRFormerEncoder(Encoder):
    """HRFormer's high-resolution branch: stride 4; 32 channels (small) or 78 (base).

    Args:
        variant: "small" or "base", the paper's HRFormer-S and -B.
        pretrained: InputError if asked for: there are no weights to download.
        drop_path_rate: stochastic depth of the last block; it grows linearly from 0 at the first. The
            published are 0.1 (S), 0.2 (B at 256x192) and 0.3 (B at 384x288).
    """

    def __init__(self, variant: str = "base", pretrained: bool = False, drop_path_rate: float = 0.0) -> None:
        if pretrained:
            raise InputError("timm has no weights of HRFormer to download; give a file of encoder weights")
        channels, heads = VARIANTS[variant]
        super().__init__(HRFormer(channels, heads, drop_path_rate), channels, stride=4)
