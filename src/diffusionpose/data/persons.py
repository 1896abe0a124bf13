"""What an annotation file says: pictures, and the persons in them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from diffusionpose.errors import InputError
from diffusionpose.skeletons import Skeleton


@dataclass(frozen=True)
class ImageRecord:
    """A picture of an annotation file.

    Attributes:
        id: as the file has it; a string in AI Challenger's native files.
        file_name: below the image folder.
        width, height: pixels; 0 where the file does not say.
        crowd_index: CrowdPose's crowdIndex in [0, 1], else None.
    """

    id: int | str
    file_name: str
    width: int
    height: int
    crowd_index: float | None = None


@dataclass(frozen=True, eq=False)
class Person:
    """A person in a picture.

    Attributes:
        image_id: the picture.
        id: of the annotation.
        box: (4,) float32, x0, y0, x1, y1 in image pixels, inside the picture.
        keypoints: (J, 2) float32 image pixels.
        visible: (J,) int64: 0 not labelled, 1 labelled but hidden, 2 labelled and seen.
        area: of the person, square pixels, as OKS wants it.
        score: of the box; 1 for an annotated one.
        is_crowd: the box is round a group.
    """

    image_id: int | str
    id: int | str
    box: np.ndarray
    keypoints: np.ndarray
    visible: np.ndarray
    area: float
    score: float = 1.0
    is_crowd: bool = False


@dataclass(frozen=True, eq=False)
class Annotations:
    """The persons of a data set.

    Attributes:
        path: of the file they come from.
        skeleton: names the joints.
        images: by id, in the file's order.
        persons: in the file's order.
        box_source: where the boxes come from, for reports.
        dropped: a message for every box that had no area inside its picture and was left out.
    """

    path: Path
    skeleton: Skeleton
    images: dict[int | str, ImageRecord]
    persons: list[Person]
    box_source: str = "ground truth"
    dropped: list[str] = field(default_factory=list)

    def to_skeleton(self, skeleton: Skeleton) -> Annotations:
        """The same persons with another skeleton's joints, matched by name; others are unlabelled.

        Raises:
            InputError: the two skeletons share no joint.
        """
        if skeleton == self.skeleton:
            return self
        pairs = [
            (i, self.skeleton.index(j)) for i, j in enumerate(skeleton.joints) if j in self.skeleton.joints
        ]
        if not pairs:
            raise InputError(
                f"{self.path}: its joints ({self.skeleton.name}) and those of the skeleton {skeleton.name!r} "
                "have no name in common; choose the skeleton that fits the file"
            )
        new, old = (list(indices) for indices in zip(*pairs, strict=True))
        persons = []
        for person in self.persons:
            keypoints = np.zeros((skeleton.num_joints, 2), np.float32)
            visible = np.zeros(skeleton.num_joints, np.int64)
            keypoints[new], visible[new] = person.keypoints[old], person.visible[old]
            persons.append(replace(person, keypoints=keypoints, visible=visible))
        return replace(self, skeleton=skeleton, persons=persons)

    def labelled(self) -> Annotations:
        """Only persons with a labelled joint, no crowds: for training, and to evaluate on true boxes."""
        persons = [person for person in self.persons if not person.is_crowd and person.visible.any()]
        return replace(self, persons=persons)


def boxes_inside(boxes: np.ndarray, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Boxes clipped to their pictures.

    Args:
        boxes: (n, 4) x, y, width, height.
        sizes: (n, 2) width and height of each one's picture; 0 where unknown, then nothing is clipped.

    Returns:
        (n, 4) float32 xyxy, and (n,) bool: whether any area is left.
    """
    corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1).astype(np.float64)
    limits = np.where(sizes > 0, sizes, np.inf)
    known = np.concatenate([np.where(sizes > 0, 0, -np.inf)] * 2, axis=1)
    corners = np.clip(corners, known, np.concatenate([limits, limits], axis=1)).astype(np.float32)
    usable = np.all(np.isfinite(corners), axis=1) & np.all(corners[:, 2:] > corners[:, :2], axis=1)
    return corners, usable
