"""What an annotation file lists, as it lists it: nothing clipped and nothing left out yet."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from diffusionpose.data.persons import Annotations, ImageRecord, Person, boxes_inside
from diffusionpose.skeletons import Skeleton

LARGEST = 1e9  # px; no picture reaches so far, and float32 still holds its square


@dataclass(frozen=True, eq=False)
class Listing:
    """The n persons of a file, one row each.

    Attributes:
        path: of the file.
        skeleton: names the joints.
        records: the pictures, in the file's order.
        names: (n) how messages call a person, such as "annotation 7".
        ids: (n) of the annotations.
        image_ids: (n) of their pictures, all of them in ``records``.
        boxes: (n, 4) float64 x, y, width, height, pixels.
        triplets: (n, J, 3) float64 x, y, visible (0, 1, 2), in the skeleton's order of joints.
        areas: (n,) float64 square pixels, NaN where the file gives none.
        crowd: (n,) bool, whether the box is round a group.
        joint_names: the file's own names of its joints, normalised, in its order; () where it has none.
        repeated: pictures listed again word for word.
    """

    path: Path
    skeleton: Skeleton
    records: list[ImageRecord]
    names: list[str]
    ids: list[int | str]
    image_ids: list[int | str]
    boxes: np.ndarray
    triplets: np.ndarray
    areas: np.ndarray
    crowd: np.ndarray
    joint_names: tuple[str, ...] = ()
    repeated: list[ImageRecord] = field(default_factory=list)

    @cached_property
    def images(self) -> dict[int | str, ImageRecord]:
        """The pictures by id."""
        return {record.id: record for record in self.records}

    def sizes(self) -> np.ndarray:
        """(n, 2) float64 width and height of each person's picture; 0 where the file gives none."""
        records = [self.images[image_id] for image_id in self.image_ids]
        return np.asarray([(r.width, r.height) for r in records], dtype=np.float64).reshape(-1, 2)

    def labelled(self) -> np.ndarray:
        """(n,) bool: persons to train on, with a labelled joint and no crowd."""
        return np.asarray((self.triplets[:, :, 2] > 0).any(axis=1) & ~self.crowd)

    def annotations(self) -> Annotations:
        """The persons for use: boxes clipped to their pictures, those without area left out."""
        corners, usable = boxes_inside(self.boxes, self.sizes())
        keypoints = self.triplets[:, :, :2].astype(np.float32)
        visible = self.triplets[:, :, 2].astype(np.int64)
        # CrowdPose and the COCO form of AI Challenger give no area: theirs is the box's
        given = np.isfinite(self.areas) & (self.areas != 0)
        areas = np.where(given, self.areas, self.boxes[:, 2] * self.boxes[:, 3])
        persons, dropped = [], []
        for i, image_id in enumerate(self.image_ids):
            if not usable[i]:
                what = without_area(self.boxes[i], self.images[image_id])
                dropped.append(f"{self.path}: {self.names[i]}: {what}")
                continue
            crowd = bool(self.crowd[i])
            area = float(areas[i])
            persons.append(
                Person(image_id, self.ids[i], corners[i], keypoints[i], visible[i], area, is_crowd=crowd)
            )
        return Annotations(self.path, self.skeleton, self.images, persons, dropped=dropped)


def without_area(box: np.ndarray, record: ImageRecord) -> str:
    """What to say of a box, (4,) x, y, width, height, of which nothing lies in its picture."""
    numbers = ", ".join(f"{value:g}" for value in box)
    size = f" ({record.width}x{record.height})" if record.width else ""
    return f"its box [{numbers}] has no area inside {record.file_name}{size}"
