"""Training and evaluation samples: person crops as uint8, keypoints in pixels of the network input.

Normalisation, heatmaps, noise and masks are made from these on the device, in the batch.
"""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from diffusionpose.data.annotations import Annotations, Person
from diffusionpose.data.augmentation import Augmentation, CropChange
from diffusionpose.data.pictures import find_pictures
from diffusionpose.data.pose_errors import PoseErrors
from diffusionpose.errors import InputError
from diffusionpose.geometry import ROWS_PER_SIGMA, Crop, flip_keypoints
from diffusionpose.json_files import Id

Sample = dict[str, Tensor]
log = logging.getLogger(__name__)

SIGMAS = 3  # a joint so far outside the crop that its Gaussian is cut there does not count


class PersonDataset(Dataset[Sample]):
    """The persons of an annotation file with their pictures.

    A sample is a dict of tensors:

    * image (3, h, w) uint8: RGB crop
    * keypoints (J, 2) float32: pixels of the crop
    * visible (J,) float32: 1 where the joint is labelled and its Gaussian reaches into the crop, else 0
    * center, scale (2,) float32 and angle () float32, degrees: of the crop in the picture, see
      :func:`crops_of`; of a mirrored crop that before mirroring
    * index () int64: of the person in this data set
    * picture () int64: of the first person of the same picture; place (4,) float32: the box, shares of the
      picture's width and height, mirrored where the crop is
    * broken () int64: 1 if the picture could not be read: then the crop is black and no joint visible
    * start (J, 2) float32, where ``errors`` are set: the keypoints with errors, pixels of the crop

    Randomness is drawn from (seed, epoch, index) alone: it does not depend on the number of workers
    or processes, or on the order of the samples.

    Args:
        annotations: whose persons, with the model's joints (:meth:`Annotations.to_skeleton`).
        images: folder of the pictures.
        input_size, unbiased: (width, height) of the network input, and UDP geometry of the crops.
        augmentation, seed: None for evaluation.

    Attributes:
        errors: makes each sample's start; None for samples without.
        alike: whether all persons of a picture are changed by the same randomness.
    """

    errors: PoseErrors | None = None
    alike = False

    def __init__(
        self,
        annotations: Annotations,
        images: str | Path,
        input_size: tuple[int, int],
        unbiased: bool = False,
        augmentation: Augmentation | None = None,
        seed: int = 0,
    ) -> None:
        self.annotations, self.images = annotations, Path(images)
        self.input_size, self.unbiased = input_size, unbiased
        self.augmentation, self.seed = augmentation, seed
        # in shared memory, so that workers which live on see the next epoch
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()

        found = self.pictures = find_pictures(annotations, self.images, persons_only=True)
        found.require_all(annotations)
        if augmentation is not None:
            found.require_margin(input_size, augmentation)
        for message in [*annotations.dropped, *found.notes]:
            log.warning("%s", message)
        self.persons = annotations.persons
        first: dict[Id, int] = {}
        self.first_of_picture = [first.setdefault(p.image_id, i) for i, p in enumerate(self.persons)]

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
        draw = draw - index + self.first_of_picture[index] if self.alike else draw
        change, points = CropChange(person.box), [person.keypoints]
        if self.augmentation is not None:
            generator = np.random.default_rng((self.seed, int(self._epoch), draw))
            change = self.augmentation.draw(person, self.annotations.skeleton, generator)
        if self.errors is not None:
            generator = np.random.default_rng((self.seed, int(self._epoch), draw, 1))
            points.append(self.errors(person, generator)[0].astype(np.float32))
        try:
            image = self.read(person)
        except InputError as error:
            log.warning("%s", error)
            return self._broken(index, points)
        return self._cut(index, image, change, points)

    def read(self, person: Person) -> np.ndarray:
        """The picture of a person, (H, W, 3) uint8 RGB; InputError where it cannot be read."""
        return self.pictures.read(self.annotations.images[person.image_id])

    def failure(self, index: int) -> str:
        """Why the sample of a person is ``broken``: the message, or "" if its picture can be read now."""
        try:
            self.read(self.persons[index])
        except InputError as error:
            return str(error)
        return ""

    def _cut(self, index: int, image: np.ndarray, change: CropChange, points: list[np.ndarray]) -> Sample:
        person = self.persons[index]
        width, height = self.input_size
        # in NumPy: PyTorch's many small operations would take longer than the cutting
        crop = Crop.from_boxes(change.box[None], self.input_size, change.padding, self.unbiased)
        crop = crop.changed(np.array([change.zoom], np.float32), np.array([change.turn], np.float32))
        pixels = crop.cut(image)
        keypoints, visible = crop.image_to_input(np.stack(points)), person.visible[None] > 0
        if change.mirrored:
            pixels = pixels[:, ::-1]
            order = self.annotations.skeleton.flip_order
            keypoints, visible = flip_keypoints(keypoints, visible, order, width)
        reach = SIGMAS * height / ROWS_PER_SIGMA
        limit = np.array(self.input_size) - 1 + reach
        place = person.box / np.tile(np.array(image.shape[1::-1], np.float32), 2)
        if change.mirrored:
            place[[0, 2]] = 1 - place[[2, 0]]
        inside = ((keypoints[:1] >= -reach) & (keypoints[:1] <= limit)).all(axis=2)
        return {
            "image": torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1))),
            "keypoints": torch.from_numpy(keypoints[0]),
            "visible": torch.from_numpy((visible & inside)[0].astype(np.float32)),
            "center": torch.from_numpy(crop.center[0]),
            "scale": torch.from_numpy(crop.scale[0]),
            "angle": torch.tensor(float(crop.angle[0])),
            "index": torch.tensor(index),
            "picture": torch.tensor(self.first_of_picture[index]),
            "place": torch.from_numpy(place.astype(np.float32)),
            "broken": torch.tensor(0),
            **({"start": torch.from_numpy(keypoints[1])} if len(points) > 1 else {}),
        }

    def _broken(self, index: int, points: list[np.ndarray]) -> Sample:
        blank = np.zeros((1, 1, 3), np.uint8)
        sample = self._cut(index, blank, CropChange(np.array([0, 0, 1, 1], np.float32)), points)
        zeros = {key: torch.zeros_like(sample[key]) for key in ("keypoints", "visible")}
        return {**sample, **zeros, "broken": torch.tensor(1)}


class JointDataset(Dataset[Sample]):
    """Several data sets as one, for joint training: of one skeleton, input size and geometry.

    ``index`` counts through all of them; randomness is drawn from (a set's seed, epoch, that index).
    """

    def __init__(self, parts: Sequence[PersonDataset]) -> None:
        self.parts = list(parts)
        self.starts = np.cumsum([0] + [len(part) for part in parts])

    def __len__(self) -> int:
        return int(self.starts[-1])

    def __getitem__(self, index: int) -> Sample:
        part = int(np.searchsorted(self.starts, index, side="right")) - 1
        start = int(self.starts[part])
        sample = self.parts[part].sample(index - start, index)
        return {**sample, "index": torch.tensor(index), "picture": sample["picture"] + start}

    def set_epoch(self, epoch: int) -> None:
        """As :meth:`PersonDataset.set_epoch`."""
        for part in self.parts:
            part.set_epoch(epoch)


def crops_of(batch: Mapping[str, Tensor], input_size: tuple[int, int], unbiased: bool = False) -> Crop:
    """The crops of a batch of unmirrored samples: they lead its keypoints back to the pictures."""
    return Crop(batch["center"], batch["scale"], batch["angle"], input_size, unbiased)
