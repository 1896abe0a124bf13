"""The paper's crop augmentation, which is HRNet's: scale, rotation, mirroring, half bodies."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from diffusionpose.data.persons import Person
from diffusionpose.geometry.crops import PADDING
from diffusionpose.skeletons import Skeleton

# HRNet asks for more than 8 labelled joints of COCO's 17 before it cuts a person in half.
HALF_BODY_SHARE = 8 / 17
HALF_BODY_JOINTS = 3  # at least so many labelled joints in the half that stays


@dataclass(frozen=True)
class CropChange:
    """What one draw of the augmentation does to a person's crop.

    Attributes:
        box: (4,) float32 xyxy, image pixels: the person's or that of half the body.
        padding: factor by which the crop is larger than the box.
        zoom: further factor on the crop's size; above 1 the person becomes smaller.
        turn: degrees by which the content turns.
        mirrored: left and right change places.
    """

    box: np.ndarray
    padding: float = PADDING
    zoom: float = 1.0
    turn: float = 0.0
    mirrored: bool = False


@dataclass(frozen=True)
class Augmentation:
    """How much crops vary in training (HRNet's numbers for COCO).

    Attributes:
        scale: standard deviation of the zoom about 1, which is clipped to 1 +- ``scale``.
        rotation: standard deviation of the turn, degrees, clipped to twice that.
        rotation_probability: share of samples that are turned at all.
        flip: share of samples that are mirrored.
        half_body: share of samples, among those with enough labelled joints, cut to the upper or lower body.
        half_body_padding: size of such a crop over the extent of its joints.
    """

    scale: float = 0.35
    rotation: float = 45.0
    rotation_probability: float = 0.6
    flip: float = 0.5
    half_body: float = 0.3
    half_body_padding: float = 1.5

    def draw(self, person: Person, skeleton: Skeleton, generator: np.random.Generator) -> CropChange:
        """One random change of a person's crop; the same generator state gives the same change."""
        # every number is drawn whether needed or not: one option never shifts another's randomness
        half, upper, rotated, flipped = generator.random(4)
        zoom, turn = generator.standard_normal(2)
        box, padding = person.box, PADDING
        if half < self.half_body:
            half_box = half_body_box(person, skeleton, prefer_upper=bool(upper < 0.5))
            if half_box is not None:
                box, padding = half_box, self.half_body_padding
        turn = float(np.clip(turn * self.rotation, -2 * self.rotation, 2 * self.rotation))
        return CropChange(
            box=box,
            padding=padding,
            zoom=float(np.clip(1 + zoom * self.scale, 1 - self.scale, 1 + self.scale)),
            turn=turn if rotated < self.rotation_probability else 0.0,
            mirrored=bool(flipped < self.flip),
        )


def half_body_box(person: Person, skeleton: Skeleton, prefer_upper: bool) -> np.ndarray | None:
    """(4,) extent of the labelled joints of half a body, xyxy in image pixels.

    The preferred half if enough of it is labelled, else the other; None if the person has too few
    labelled joints for either.
    """
    labelled = person.visible > 0
    if labelled.sum() <= HALF_BODY_SHARE * skeleton.num_joints:
        return None
    is_upper = np.isin(np.arange(skeleton.num_joints), skeleton.upper_body)
    halves = [labelled & is_upper, labelled & ~is_upper]
    for half in halves if prefer_upper else reversed(halves):
        if half.sum() >= HALF_BODY_JOINTS:
            points = person.keypoints[half]
            low, high = points.min(axis=0), points.max(axis=0)
            # joints on one spot (annotation errors) would make a crop of nothing
            return np.concatenate([low, high]) if (high - low).max() >= 1 else None
    return None
