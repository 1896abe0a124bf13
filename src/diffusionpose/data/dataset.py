"""Training and evaluation samples: person crops as uint8, keypoints in pixels of the network input.

Normalisation, heatmaps, noise and masks are made from these on the device, in the batch.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from diffusionpose.data.annotations import Annotations, Person, find_pictures
from diffusionpose.errors import InputError
from diffusionpose.geometry import PADDING, ROWS_PER_SIGMA, Crop, flip_keypoints
from diffusionpose.runtime.images import read_recorded_image
from diffusionpose.skeletons import Skeleton

Sample = dict[str, Tensor]
log = logging.getLogger(__name__)

MISSING_SHOWN = 3
# HRNet asks for more than 8 labelled joints of COCO's 17 before it cuts a person in half.
HALF_BODY_SHARE = 8 / 17
HALF_BODY_JOINTS = 3  # at least so many labelled joints in the half that stays
UPPER_SHARE = 0.691  # its code draws `randn() < 0.5` for the upper half
SIGMAS = 3  # a joint so far outside the crop that its Gaussian is cut there does not count


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
    """How much crops vary in training (HRNet's numbers for COCO)."""

    scale: float = 0.35  # standard deviation of the zoom about 1, clipped to 1 +- scale
    rotation: float = 45.0  # standard deviation of the turn, degrees, clipped to twice that
    rotation_probability: float = 0.6  # share of samples that are turned at all
    flip: float = 0.5  # share of samples that are mirrored
    half_body: float = 0.3  # share, among those with enough labelled joints, cut to half the body
    half_body_padding: float = 1.5  # size of such a crop over the extent of its joints

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


class PersonDataset(Dataset[Sample]):
    """The persons of an annotation file with their pictures.

    A sample is a dict of tensors:

    * image (3, h, w) uint8: RGB crop
    * keypoints (J, 2) float32: pixels of the crop
    * visible (J,) float32: 1 where the joint is labelled and its Gaussian reaches into the crop, else 0
    * center, scale (2,) float32 and angle () float32, degrees: of the crop in the picture, see
      :func:`crops_of`; of a mirrored crop that before mirroring
    * index () int64: of the person in this data set
    * broken () int64: 1 if the picture could not be read: then the crop is black and no joint visible

    Randomness is drawn from (seed, epoch, index) alone: it does not depend on the number of workers
    or processes, or on the order of the samples.

    Args:
        annotations: whose persons, with the model's joints (:meth:`Annotations.to_skeleton`).
        images: folder of the pictures.
        input_size, unbiased: (width, height) of the network input, and UDP geometry of the crops.
        augmentation, seed: None for evaluation.
        skip_missing: leave persons out whose picture does not exist, with a message for every such
            picture in ``failures``; else they are an InputError.
    """

    def __init__(
        self,
        annotations: Annotations,
        images: str | Path,
        input_size: tuple[int, int],
        unbiased: bool = False,
        augmentation: Augmentation | None = None,
        seed: int = 0,
        skip_missing: bool = False,
    ) -> None:
        self.annotations, self.images = annotations, Path(images)
        self.input_size, self.unbiased = input_size, unbiased
        self.augmentation, self.seed = augmentation, seed
        # in shared memory, so that workers which live on see the next epoch
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()

        found = find_pictures(annotations, self.images, persons_only=True)
        if found.missing and not skip_missing:
            shown = ", ".join(list(found.missing.values())[:MISSING_SHOWN])
            raise InputError(
                f"{self.images}: {len(found.missing)} of the {len(annotations.images)} pictures listed in "
                f"{annotations.path} are not there (first: {shown}); give the folder that holds them"
            )
        for message in [*annotations.dropped, *found.notes]:
            log.warning("%s", message)
        self.paths = found.paths
        self.failures = [f"{self.images / name}: no such file" for name in found.missing.values()]
        self.persons = [person for person in annotations.persons if person.image_id not in found.missing]

    def __len__(self) -> int:
        return len(self.persons)

    def __getitem__(self, index: int) -> Sample:
        return self.sample(index, index)

    def set_epoch(self, epoch: int) -> None:
        """Choose the randomness of an epoch; before the data loader's iterator is made."""
        self._epoch.fill_(epoch)

    def sample(self, index: int, draw: int) -> Sample:
        """The sample of person ``index`` with the randomness of number ``draw`` of the epoch."""
        person = self.persons[index]
        change = CropChange(person.box)
        if self.augmentation is not None:
            generator = np.random.default_rng((self.seed, int(self._epoch), draw))
            change = self.augmentation.draw(person, self.annotations.skeleton, generator)
        try:
            image = self.read(person)
        except InputError as error:
            log.warning("%s", error)
            return self._broken(index)
        return self._cut(index, image, change)

    def read(self, person: Person) -> np.ndarray:
        """The picture of a person, (H, W, 3) uint8 RGB; InputError where it cannot be read."""
        record = self.annotations.images[person.image_id]
        return read_recorded_image(self.paths[record.id], record.width, record.height)

    def failure(self, index: int) -> str:
        """Why the sample of a person is ``broken``: the message, or "" if its picture can be read now."""
        try:
            self.read(self.persons[index])
        except InputError as error:
            return str(error)
        return ""

    def _cut(self, index: int, image: np.ndarray, change: CropChange) -> Sample:
        person = self.persons[index]
        width, height = self.input_size
        box = torch.from_numpy(change.box)[None]
        crop = Crop.from_boxes(box, self.input_size, change.padding, self.unbiased)
        crop = crop.changed(torch.tensor([change.zoom]), torch.tensor([change.turn]))
        pixels = torch.from_numpy(crop.cut(image))
        keypoints = crop.image_to_input(torch.from_numpy(person.keypoints)[None])
        visible = torch.from_numpy(person.visible > 0)[None]
        if change.mirrored:
            pixels = pixels.flip(1)
            order = self.annotations.skeleton.flip_order
            keypoints, visible = flip_keypoints(keypoints, visible, order, width)
        reach = SIGMAS * height / ROWS_PER_SIGMA
        limit = keypoints.new_tensor([width - 1 + reach, height - 1 + reach])
        inside = ((keypoints >= -reach) & (keypoints <= limit)).all(dim=2)
        return {
            "image": pixels.permute(2, 0, 1).contiguous(),
            "keypoints": keypoints[0],
            "visible": (visible & inside)[0].float(),
            "center": crop.center[0],
            "scale": crop.scale[0],
            "angle": crop.angle[0],
            "index": torch.tensor(index),
            "broken": torch.tensor(0),
        }

    def _broken(self, index: int) -> Sample:
        blank = np.zeros((1, 1, 3), np.uint8)
        sample = self._cut(index, blank, CropChange(np.array([0, 0, 1, 1], np.float32)))
        zeros = {key: torch.zeros_like(sample[key]) for key in ("keypoints", "visible")}
        return {**sample, **zeros, "broken": torch.tensor(1)}


class JointDataset(Dataset[Sample]):
    """Several data sets as one, for joint training: of one skeleton, input size and geometry, or InputError.

    ``index`` counts through all of them; randomness is drawn from (a set's seed, epoch, that index).
    """

    def __init__(self, parts: Sequence[PersonDataset]) -> None:
        facts = {(part.annotations.skeleton, part.input_size, part.unbiased) for part in parts}
        if len(facts) != 1:
            raise InputError("data sets trained jointly need one skeleton, input size and geometry")
        self.parts = list(parts)
        self.starts = np.cumsum([0] + [len(part) for part in parts])

    def __len__(self) -> int:
        return int(self.starts[-1])

    def __getitem__(self, index: int) -> Sample:
        part = int(np.searchsorted(self.starts, index, side="right")) - 1
        sample = self.parts[part].sample(index - int(self.starts[part]), index)
        return {**sample, "index": torch.tensor(index)}

    def set_epoch(self, epoch: int) -> None:
        """As :meth:`PersonDataset.set_epoch`."""
        for part in self.parts:
            part.set_epoch(epoch)


def crops_of(batch: Mapping[str, Tensor], input_size: tuple[int, int], unbiased: bool = False) -> Crop:
    """The crops of a batch of unmirrored samples: they lead its keypoints back to the pictures."""
    return Crop(batch["center"], batch["scale"], batch["angle"], input_size, unbiased)
