"""How much crops vary in training: HRNet's augmentation, and what one draw of it does to a crop."""

from dataclasses import dataclass

import numpy as np

from diffusionpose.data.annotations import Person
from diffusionpose.errors import InputError
from diffusionpose.geometry import PADDING
from diffusionpose.skeletons import Skeleton

# HRNet asks for more than 8 labelled joints of COCO's 17 before it cuts a person in half.
HALF_BODY_SHARE = 8 / 17
HALF_BODY_JOINTS = 3  # at least so many labelled joints in the half that stays
UPPER_SHARE = 0.691  # its code draws `randn() < 0.5` for the upper half
RANGES = {"scale": (0, 0.9), "rotation": (0, 180), "half_body_padding": (1, 10)}  # the others are shares


@dataclass(frozen=True)
class CropChange:
    """What one draw of the augmentation does to a person's crop."""

    box: np.ndarray  # (4,) float32 xyxy, image pixels: the person's or that of half the body
    padding: float = PADDING  # factor by which the crop is larger than the box
    zoom: float = 1.0  # further factor on the crop's size; above 1 the person becomes smaller
    turn: float = 0.0  # degrees by which the content turns
    mirrored: bool = False


@dataclass(frozen=True)
class Augmentation:
    """How much crops vary in training (HRNet's numbers for COCO); InputError for a value out of range."""

    scale: float = 0.35  # standard deviation of the zoom about 1, clipped to 1 +- scale
    rotation: float = 45.0  # standard deviation of the turn, degrees, clipped to twice that
    rotation_probability: float = 0.6  # share of samples that are turned at all
    flip: float = 0.5  # share of samples that are mirrored
    half_body: float = 0.3  # share, among those with enough labelled joints, cut to half the body
    half_body_padding: float = 1.5  # size of such a crop over the extent of its joints

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            least, most = RANGES.get(name, (0, 1))
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value <= most:
                raise InputError(
                    f"augmentation {name} is {value!r}; it must be a number from {least} to {most}"
                )

    def draw(self, person: Person, skeleton: Skeleton, generator: np.random.Generator) -> CropChange:
        """One random change of a person's crop; the same generator state gives the same change."""
        # every number is drawn whether needed or not: one option never shifts another's randomness
        half, upper, rotated, flipped = generator.random(4)
        zoom, turn = generator.standard_normal(2)
        box, padding = person.box, PADDING
        if half < self.half_body:
            half_box = half_body_box(person, skeleton, prefer_upper=bool(upper < UPPER_SHARE))
            if half_box is not None:
                box, padding = half_box, self.half_body_padding
        zoom = float(np.clip(1 + zoom * self.scale, 1 - self.scale, 1 + self.scale))
        turn = float(np.clip(turn * self.rotation, -2 * self.rotation, 2 * self.rotation))
        turn = turn if rotated < self.rotation_probability else 0.0
        return CropChange(box, padding, zoom, turn, mirrored=bool(flipped < self.flip))


def half_body_box(person: Person, skeleton: Skeleton, prefer_upper: bool) -> np.ndarray | None:
    """(4,) box of the extent of the labelled joints of half a body, about their mean, xyxy in image pixels.

    The preferred half if enough of it is labelled, else the other; None if neither is.
    """
    labelled = person.visible > 0
    if labelled.sum() <= HALF_BODY_SHARE * skeleton.num_joints:
        return None
    is_upper = np.isin(np.arange(skeleton.num_joints), skeleton.upper_body)
    halves = [labelled & is_upper, labelled & ~is_upper]
    for half in halves if prefer_upper else reversed(halves):
        if half.sum() >= HALF_BODY_JOINTS:
            points = person.keypoints[half]
            extent, middle = np.ptp(points, axis=0), points.mean(axis=0)
            # joints on one spot (annotation errors) would make a crop of nothing
            return np.concatenate([middle - extent / 2, middle + extent / 2]) if extent.max() >= 1 else None
    return None
