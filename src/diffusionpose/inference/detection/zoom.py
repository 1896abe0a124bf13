"""A person found by the pose model itself, for where there is no detector."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from diffusionpose.errors import InputError
from diffusionpose.inference.detectors import Boxes, WholeImage
from diffusionpose.inference.estimator import PoseEstimator
from diffusionpose.models.pose_model import PoseModel
from diffusionpose.poses import Pose, box_around

LOOKS = 3  # a fourth finds the same (measured)
SURE = 0.15  # score of a joint that says where the person is
LEAST_JOINTS = 4  # with fewer it may be anything: the whole picture stays
MARGIN = 0.12  # of the joints' longer extent, on every side
STARTS = (1.0, 0.6)  # first looks, centred, as shares of the picture; the better one counts


class PoseZoom:
    """Finds one person by their pose: in the whole picture first, then ever closer.

    A pose model expects a person who fills the box. Of one who takes up a tenth of the picture it finds
    little, but enough to tell where to look again. A second search begins at the middle of the picture, and
    the one that ends with more joints found is taken. Of several persons one is found.

    Args:
        model: any pose model; DiffusionPose looks with its coarse heatmaps alone.
        device: as of :class:`~diffusionpose.inference.estimator.PoseEstimator`.

    Attributes:
        batch_size: pictures that :meth:`many` looks at together.
        detect_every: in a video it looks at every tenth frame, since it takes as long as six poses,
        finds_one: and not at all while that one person is surely followed.

    Raises:
        InputError: a device that is not there.
    """

    detect_every = 10
    finds_one = True

    def __init__(self, model: PoseModel, device: str = "auto") -> None:
        self._estimator = PoseEstimator(model, device=device, **_quickest(model))
        self.batch_size = self._estimator.batch_size

    def __call__(self, image: np.ndarray) -> Boxes:
        """The box of the person, (1, 4) xyxy, or the whole picture; score 1."""
        return self.many([image])[0]

    def many(self, images: Sequence[np.ndarray]) -> list[Boxes]:
        """That of each picture; they go through the network together."""
        wholes = [WholeImage()(image)[0][0] for image in images]
        searches = [self._search(images, wholes, share) for share in STARTS]
        ends = [max(found, key=lambda end: end[0]) for found in zip(*searches, strict=True)]
        boxes = [
            box if sure >= LEAST_JOINTS else whole for (sure, box), whole in zip(ends, wholes, strict=True)
        ]
        return [(box[None], np.ones(1, np.float32)) for box in boxes]

    def _search(
        self, images: Sequence[np.ndarray], wholes: Sequence[np.ndarray], share: float
    ) -> list[tuple[float, np.ndarray]]:
        """For each picture how sure the last look was, and the box to look at next."""
        boxes = [_middle(whole, share) for whole in wholes]
        poses: list[Pose] = []
        for _ in range(LOOKS):
            poses = [found[0] for found in self._estimator(images, boxes=[box[None] for box in boxes])]
            boxes = [_closer(pose, whole) for pose, whole in zip(poses, wholes, strict=True)]
        return [(_sureness(pose), box) for pose, box in zip(poses, boxes, strict=True)]


def _quickest(model: PoseModel) -> dict[str, Any]:
    """Options by which the model takes the least time: an exported file may hold one kind alone."""
    kinds: list[dict[str, Any]] = [{"flip": False, "steps": 0}, {"flip": False}]
    for options in kinds:
        try:
            model.check_options(**options)
        except InputError:
            continue
        return options
    return {}


def _middle(whole: np.ndarray, share: float) -> np.ndarray:
    """The box's middle part."""
    centre, half = (whole[:2] + whole[2:]) / 2, share * (whole[2:] - whole[:2]) / 2
    return np.concatenate([centre - half, centre + half])


def _closer(pose: Pose, whole: np.ndarray) -> np.ndarray:
    """The box of the joints that are sure, within the picture; the picture where they are too few."""
    sure = pose.keypoints[pose.scores >= SURE]
    if len(sure) < LEAST_JOINTS:
        return whole
    margin = MARGIN * np.ptp(sure, axis=0).max()
    box = box_around(sure, 0) + np.array([-margin, -margin, margin, margin], np.float32)
    box = np.clip(box, 0, np.tile(whole[2:], 2))
    return box if (box[2:] - box[:2] >= 1).all() else whole


def _sureness(pose: Pose) -> float:
    """How many joints are found, and how surely."""
    return float((pose.scores > 2 * SURE).sum() + pose.scores.mean())
