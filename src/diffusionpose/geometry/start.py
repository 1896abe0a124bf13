"""Start: keypoints from elsewhere, at which the reverse process begins in the place of coarse heatmaps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from diffusionpose.errors import InputError
from diffusionpose.geometry.crops import Crop
from diffusionpose.geometry.flips import flip_keypoints


@dataclass(frozen=True, eq=False)
class Start:
    """Keypoints of b persons, as another model, an earlier picture or a hand gives them.

    Attributes:
        keypoints: (b, j, 2), pixels of the image or of the input, as the function that takes it says.
            Those of joints that are not given do not count.
        scores: (b, j) how sure each is; above 0 where a joint is given, 0 where it is not.

    Raises:
        InputError: arrays that do not belong together, a score that is negative or no number, or a given
            joint whose keypoint is not finite.
    """

    keypoints: Tensor
    scores: Tensor

    def __post_init__(self) -> None:
        if self.keypoints.shape != (*self.scores.shape, 2) or self.scores.ndim != 2:
            raise InputError(
                f"start: keypoints of shape {tuple(self.keypoints.shape)} with scores of shape "
                f"{tuple(self.scores.shape)}; give (persons, joints, 2) and (persons, joints)"
            )
        if not (self.scores >= 0).all():
            raise InputError("start: a score is negative or no number; give 0 for a joint that is not given")
        if not self.keypoints[self.given].isfinite().all():
            raise InputError("start: a keypoint is not finite; give its joint the score 0, or mend it")

    @property
    def given(self) -> Tensor:
        """(b, j) bool: which joints are given."""
        return self.scores > 0

    def to(self, device: torch.device | str) -> Start:
        """The same on another device."""
        return Start(self.keypoints.to(device), self.scores.to(device))

    def in_crop(self, crop: Crop) -> Start:
        """From image pixels to input pixels of b crops."""
        return replace(self, keypoints=crop.image_to_input(self.keypoints))

    def with_mirrored(self, flip_order: Sequence[int], width: int) -> Start:
        """2 b persons: these, then those of the mirrored picture.

        Args:
            flip_order: ``Skeleton.flip_order``.
            width: of the picture, in the pixels of the keypoints.
        """
        keypoints, scores = flip_keypoints(self.keypoints, self.scores, flip_order, width)
        return Start(torch.cat([self.keypoints, keypoints]), torch.cat([self.scores, scores]))
