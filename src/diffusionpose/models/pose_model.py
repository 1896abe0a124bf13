"""PoseModel: what every model here is, seen from outside.

A model gets uint8 crops and gives heatmaps; ``loss`` is what training minimises, ``estimate`` is
keypoints in image pixels, flip test included. Training, evaluation and inference know only this.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from diffusionpose.errors import InputError
from diffusionpose.geometry import Crop, HeatmapCodec, Start, flip_images
from diffusionpose.models.encoders import Encoder
from diffusionpose.skeletons import Skeleton


class PoseModel(nn.Module):
    """Encoder, skeleton and codec; subclasses add what lies between feature and heatmaps.

    Attributes:
        encoder: E, one feature map from a picture.
        skeleton: names the heatmaps.
        codec: how heatmaps stand for keypoints.
        config: name, skeleton and options by which ``create_model`` makes the model again.
        default_steps: diffusion steps it makes unless told otherwise; None for a model that takes none.
        takes_start: whether it can start from given keypoints.
    """

    default_steps: int | None = None
    takes_start: bool = False
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
    def takes_steps(self) -> bool:
        """Whether it is a diffusion model."""
        return self.default_steps is not None

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

    def draw_noise(self, count: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Random numbers that the loss of ``count`` persons needs, by name, each (count, ..)."""
        return {}

    def loss(
        self, images: Tensor, keypoints: Tensor, visible: Tensor, noise: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        """Training losses of a batch.

        Args:
            images: (b, 3, H, W) RGB uint8 crops.
            keypoints: (b, j, 2) input pixels.
            visible: (b, j), 1 where a joint is labelled; others do not count.
            noise: from :meth:`draw_noise`.

        Returns:
            Scalars by name; ``"loss"`` is the one to minimise, the others its parts.
        """
        raise NotImplementedError

    def trajectory(
        self, images: Tensor, steps: int | None = None, start: Start | None = None
    ) -> list[Tensor]:
        """The heatmaps of every step; of one that makes no steps, its answer alone.

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

    def heatmaps(
        self, images: Tensor, flip: bool = True, start: Start | None = None, steps: int | None = None
    ) -> Tensor:
        """Heatmaps, with ``flip`` the mean of the picture's and its mirror image's in one batch of 2 b.

        A ``start``, in input pixels, is mirrored with the picture.
        """
        if start is not None:
            self.check_options(start=True)
        if not flip:
            return self(images, steps, start).float()
        mirrored = start and start.with_mirrored(self.skeleton.flip_order, self.input_size[0])
        return self.mean_of_mirrored(self(torch.cat([images, flip_images(images)]), steps, mirrored).float())

    def mean_of_mirrored(self, both: Tensor) -> Tensor:
        """(2 b, j, h, w) heatmaps of pictures and then of their mirror images -> their mean, (b, j, h, w)."""
        return self.codec.mean_of_mirrored(both, self.skeleton.flip_order)

    def check_options(self, flip: bool = True, steps: int | None = None, start: bool = False) -> None:
        """See before any work whether the model can run so.

        Args:
            flip: as of :meth:`heatmaps`.
            steps: of its forward; None for the model's own number.
            start: whether it will be given keypoints to start from.

        Raises:
            InputError: the model takes no steps or no start, or the number is negative.
        """
        if start and not self.takes_start:
            raise InputError(
                f"start: {self.config['name']} is no diffusion model and cannot start from keypoints; "
                "take a diffusion model"
            )
        if steps is None:
            return
        if not self.takes_steps:
            raise InputError(
                f"steps: {self.config['name']} is no diffusion model and takes none; leave it out"
            )
        if steps < 0:
            raise InputError(f"steps: {steps} must be 0 (the coarse heatmaps) or more")

    @torch.no_grad()
    def estimate(
        self,
        images: Tensor,
        crop: Crop,
        decode: str = "dark",
        flip: bool = True,
        start: Start | None = None,
        steps: int | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Keypoints of persons.

        Args:
            images: (b, 3, H, W) RGB uint8 crops.
            crop: where they were cut, b crops.
            decode: one of ``DECODE_METHODS``.
            flip: average with the mirror image.
            start: keypoints in image pixels to start from; only for diffusion models.
            steps: diffusion steps; None for the model's own number.

        Returns:
            keypoints (b, j, 2) in image pixels, scores (b, j).

        Raises:
            InputError: a start for a model that takes none, or heatmaps that are not finite.
        """
        if start is not None:
            start = start.to(images.device).in_crop(crop.to(images.device))
        y, scores = self.codec.decode(self.heatmaps(images, flip, start, steps), decode)
        return crop.to(y.device).heatmap_to_image(y, self.heatmap_size), scores

    def save_pretrained(self, folder: str | Path, **card: Any) -> None:
        """Weights, config.json and model card in a folder: :func:`~diffusionpose.models.checkpoints.save_folder`."""
        from diffusionpose.models.checkpoints import save_folder

        save_folder(self, folder, **card)

    def push_to_hub(self, repository: str, **options: Any) -> str:
        """The same in a hub repository: :func:`~diffusionpose.models.checkpoints.push`; the commit's address."""
        from diffusionpose.models.checkpoints import push

        return push(self, repository, **options)

    @classmethod
    def from_pretrained(cls, weights: str | Path | None = None, **options: Any) -> Self:
        """A trained model: ``load_model`` of a folder, a file, a bundled model's name or a hub id.

        Args:
            weights, options: as of :func:`~diffusionpose.models.checkpoints.load_model`.

        Raises:
            InputError: as there, or a model that is none of this class.
        """
        from diffusionpose.models.checkpoints import load_model

        model = load_model(weights, **options)
        if not isinstance(model, cls):
            raise InputError(f"{weights}: is no {cls.__name__} but a {type(model).__name__}; load it as such")
        return model


def heatmap_loss(estimated: Tensor, truth: Tensor, visible: Tensor) -> Tensor:
    """Mean squared error over (b, j, h, w); joints with visible (b, j) = 0 count as no error."""
    return ((estimated.float() - truth).square() * visible[:, :, None, None]).mean()


# Heatmap models: an encoder and a head. HRNet and SimpleBaseline, the yardsticks, are such


class HeatmapModel(PoseModel):
    """head(E(x)) trained on Gaussian heatmaps (Xiao et al., ECCV 2018).

    Args:
        encoder: E.
        head: from the encoder's feature to (b, j, h, w) heatmaps of the codec's size.
        skeleton: J joints.
        codec: sizes and geometry of the heatmaps.
    """

    def __init__(self, encoder: Encoder, head: nn.Module, skeleton: Skeleton, codec: HeatmapCodec) -> None:
        super().__init__(encoder, skeleton, codec)
        self.head = head

    def trajectory(
        self, images: Tensor, steps: int | None = None, start: Start | None = None
    ) -> list[Tensor]:
        """As :meth:`PoseModel.trajectory`: one entry."""
        return [self.head(self.encoder(self.normalise(images)))]

    def loss(
        self, images: Tensor, keypoints: Tensor, visible: Tensor, noise: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        """As :meth:`PoseModel.loss`: one squared error."""
        hm_0 = self.codec.draw(self.codec.to_heatmap(keypoints))
        return {"loss": heatmap_loss(self(images), hm_0, visible)}


def nearly_zero(conv: nn.Conv2d) -> nn.Conv2d:
    """The same convolution, begun so that the first heatmaps are nearly empty, as the truth is."""
    nn.init.normal_(conv.weight, std=1e-3)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    return conv


def coarse_head(channels: int, joints: int) -> nn.Conv2d:
    """HRNet's head and the paper's conv (Eq. 10): a 1x1 convolution that begins near zero."""
    return nearly_zero(nn.Conv2d(channels, joints, 1))
