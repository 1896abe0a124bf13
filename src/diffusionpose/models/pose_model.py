"""PoseModel: what every model here is, seen from outside.

A model gets uint8 crops and gives heatmaps (``trajectory``); ``loss`` is what training minimises. The flip
test and the way to keypoints in image pixels are the same for every network: ``runtime/estimator.py``.
"""

from typing import Any

import torch
from torch import Tensor, nn

from diffusionpose.geometry import HeatmapCodec, Start
from diffusionpose.models.encoders import Encoder
from diffusionpose.skeletons import Skeleton

NamedTensors = dict[str, Tensor]  # by name


class PoseModel(nn.Module):
    """Encoder, skeleton and codec; subclasses add what lies between feature and heatmaps.

    Attributes:
        encoder: E, one feature map from a picture.
        skeleton: names the heatmaps.
        codec: how heatmaps stand for keypoints.
        config: name, skeleton and options by which ``create_model`` makes the model again.
        default_steps: diffusion steps it makes unless told otherwise; None for a model that takes none.
        takes_start: whether it can start from given keypoints.
        needs_start: whether it cannot do without.
        learns_from_errors: whether its loss needs poses with errors (``noise["start"]``).
        sees_neighbours: whether its trajectory takes ``neighbours``, and its loss "picture" and "place".
    """

    default_steps: int | None = None
    takes_start: bool = False
    needs_start: bool = False
    learns_from_errors: bool = False
    sees_neighbours: bool = False
    mean: Tensor
    std: Tensor

    def __init__(self, encoder: Encoder, skeleton: Skeleton, codec: HeatmapCodec) -> None:
        super().__init__()
        self.encoder = encoder
        self.skeleton = skeleton
        self.codec = codec
        self.config: dict[str, Any] = {}
        # part of the checkpoint: weights only make sense with the normalisation they were trained on
        self.register_buffer("mean", 255 * torch.tensor(encoder.mean)[:, None, None])
        self.register_buffer("std", 255 * torch.tensor(encoder.std)[:, None, None])

    @property
    def input_size(self) -> tuple[int, int]:
        """(width, height) of the network input, pixels."""
        return self.codec.input_size

    @property
    def heatmap_size(self) -> tuple[int, int]:
        """(width, height) of the heatmaps."""
        return self.codec.size

    @property
    def unbiased(self) -> bool:
        """Whether crops must be cut in UDP geometry."""
        return self.codec.unbiased

    @property
    def device(self) -> torch.device:
        """Where the model is, and crops for it must be."""
        return self.mean.device

    def normalise(self, images: Tensor) -> Tensor:
        """(b, 3, H, W) RGB uint8 -> float, zero mean and unit variance over the pre-training set."""
        return (images - self.mean) / self.std

    def draw_noise(self, count: int, generator: torch.Generator) -> NamedTensors:
        """Random numbers that the loss of ``count`` persons needs, by name, each (count, ..)."""
        return {}

    def loss(self, images: Tensor, keypoints: Tensor, visible: Tensor, noise: NamedTensors) -> NamedTensors:
        """Training losses of a batch.

        Args:
            images: (b, 3, H, W) RGB uint8 crops.
            keypoints: (b, j, 2) input pixels.
            visible: (b, j), 1 where a joint is labelled; others do not count.
            noise: from :meth:`draw_noise`; with ``learns_from_errors`` also "start" (b, j, 2), input pixels:
                the keypoints with errors, meaningless where not visible; with ``sees_neighbours`` "picture"
                (b,) and "place" (b, 4) of ``Neighbours``.

        Returns:
            Scalars by name; ``"loss"`` is the one to minimise, the others its parts.
        """
        raise NotImplementedError

    def trajectory(
        self, images: Tensor, steps: int | None = None, start: Start | None = None
    ) -> list[Tensor]:
        """The heatmaps of every step; of a model that makes no steps, its answer alone.

        Args:
            images: (b, 3, H, W) RGB uint8 crops.
            steps: diffusion steps; None for ``default_steps``, 0 for the coarse heatmaps alone.
            start: keypoints in input pixels in the place of the coarse heatmaps; with ``takes_start``.

        Returns:
            hm_T (coarse), .., hm_0, the answer last; (b, j, h, w) each.
        """
        raise NotImplementedError

    def forward(self, images: Tensor, steps: int | None = None, start: Start | None = None) -> Tensor:
        """The last heatmaps of :meth:`trajectory`."""
        return self.trajectory(images, steps, start)[-1]


class HeatmapModel(PoseModel):
    """head(E(x)) trained on Gaussian heatmaps (Xiao et al., ECCV 2018): HRNet and the other yardsticks.

    ``head`` makes (b, j, h, w) heatmaps of the codec's size from the encoder's feature.
    """

    def __init__(self, encoder: Encoder, head: nn.Module, skeleton: Skeleton, codec: HeatmapCodec) -> None:
        super().__init__(encoder, skeleton, codec)
        self.head = head

    def trajectory(
        self, images: Tensor, steps: int | None = None, start: Start | None = None
    ) -> list[Tensor]:
        """As :meth:`PoseModel.trajectory`: one entry."""
        return [self.head(self.encoder(self.normalise(images)))]

    def loss(self, images: Tensor, keypoints: Tensor, visible: Tensor, noise: NamedTensors) -> NamedTensors:
        """As :meth:`PoseModel.loss`: one squared error."""
        hm_0 = self.codec.draw(self.codec.to_heatmap(keypoints))
        return {"loss": heatmap_loss(self(images), hm_0, visible)}


def heatmap_loss(estimated: Tensor, truth: Tensor, visible: Tensor) -> Tensor:
    """Mean squared error over (b, j, h, w); joints with visible (b, j) = 0 count as no error."""
    return ((estimated.float() - truth).square() * visible[:, :, None, None]).mean()


def nearly_zero(conv: nn.Conv2d) -> nn.Conv2d:
    """The same convolution, begun so that the first heatmaps are nearly empty, as the truth is."""
    nn.init.normal_(conv.weight, std=1e-3)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    return conv


def coarse_head(channels: int, joints: int) -> nn.Conv2d:
    """HRNet's head and the paper's conv (Eq. 10): a 1x1 convolution that begins near zero."""
    return nearly_zero(nn.Conv2d(channels, joints, 1))
