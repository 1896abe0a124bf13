"""HeatmapCodec: from keypoints to heatmaps and back, for one input size and one stride."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from diffusionpose.errors import InputError
from diffusionpose.geometry.crops import heatmap_ratio
from diffusionpose.geometry.heatmaps import decode, draw_heatmaps

# Gaussian of HRNet's targets: sigma 2 on a map of 64 rows, 3 on one of 96, and so on with the map
ROWS_PER_SIGMA = 32


@dataclass(frozen=True)
class HeatmapCodec:
    """How a model's heatmaps stand for keypoints.

    Attributes:
        input_size: (width, height) of the network input, pixels.
        stride: input pixels per heatmap pixel, the paper's s.
        unbiased: UDP geometry (see :mod:`diffusionpose.geometry.crops`).
        quantise: draw targets at whole pixels, as HRNet and SimpleBaseline do.
    """

    input_size: tuple[int, int]
    stride: int = 4
    unbiased: bool = False
    quantise: bool = False

    def __post_init__(self) -> None:
        width, height = self.input_size
        if width % self.stride or height % self.stride:
            raise InputError(f"input size {width}x{height} is no multiple of heatmap stride {self.stride}")

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the heatmaps."""
        return self.input_size[0] // self.stride, self.input_size[1] // self.stride

    @property
    def sigma(self) -> float:
        """Sigma of the Gaussians, heatmap pixels."""
        return self.size[1] / ROWS_PER_SIGMA

    def to_heatmap(self, keypoints: Tensor) -> Tensor:
        """(b, j, 2) input pixels -> heatmap pixels."""
        return keypoints * keypoints.new_tensor(heatmap_ratio(self.input_size, self.size, self.unbiased))

    def draw(self, keypoints: Tensor) -> Tensor:
        """phi (Eq. 5): (b, j, 2) heatmap pixels -> (b, j, h, w)."""
        return draw_heatmaps(keypoints, self.size, self.sigma, self.quantise)

    def decode(self, heatmaps: Tensor, method: str) -> tuple[Tensor, Tensor]:
        """(b, j, h, w) -> keypoints (b, j, 2) in heatmap pixels, scores (b, j)."""
        return decode(heatmaps, method, self.sigma)
