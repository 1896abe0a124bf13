"""Calibrated confidence: how far the keypoints of heatmaps can be trusted.

A heatmap's maximum is no probability. :class:`Calibration` turns what is seen of the heatmaps, and of the
place of a joint (``FEATURES``), into statements that can be checked: whether the joint is right, whether it
is visible, how far off it may be. Each is a linear function of the features with weights of its own for
every joint, fitted by ``diffusionpose calibrate`` (evaluation/confidence.py). NumPy and the last heatmaps are
all it needs, so that whatever gives the same heatmaps gives the same confidence.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from diffusionpose.errors import InputError
from diffusionpose.geometry import Array, Crop, HeatmapCodec, to_numpy
from diffusionpose.json_files import read_json
from diffusionpose.poses import REGION, Confidence
from diffusionpose.skeletons import Skeleton

FEATURES = (
    "height", "person", "second", "spread", "skew", "crop edge", "picture edge", "across", "down", "aspect",
    "cut left", "cut top", "cut right", "cut bottom", "size",
)  # fmt: skip
ANSWERS = ("right", "similarity", "absent", "hidden", "visible", "reach")
PEAK = 3  # sigmas round its maximum that belong to a peak
LEAST = 0.01  # of a height; lower ones count as this
CUT = 0.02  # of the box's size: a box so near to the edge of the picture is cut there
FARTHEST = (-3.0, 5.0)  # logarithms of the least and the largest radius of a region, heatmap pixels
ROUND = 4.0  # square heatmap pixels that are added to a peak's covariance, which makes its region rounder


def joint_features(
    heatmaps: np.ndarray,
    keypoints: np.ndarray,
    boxes: np.ndarray,
    sizes: np.ndarray,
    crops: Crop,
    codec: HeatmapCodec,
) -> tuple[np.ndarray, np.ndarray]:
    """What the confidence is told from.

    Args:
        heatmaps: (b, J, h, w) of the last step.
        keypoints: (b, J, 2) of them, image pixels.
        boxes: (b, 4) xyxy of the persons, image pixels.
        sizes: (b, 2) width and height of their pictures, pixels.
        crops, codec: of the heatmaps.

    Returns:
        (b, J, F) ``FEATURES``, and (b, J, 2, 2) the shape of each peak: its covariance, of determinant 1.
    """
    (width, height), (w, h) = np.maximum(boxes[:, 2:] - boxes[:, :2], 1).T, codec.size
    scores, (y, _) = heatmaps.max((2, 3)), codec.decode(heatmaps, "argmax")
    across, down = np.arange(w, dtype=np.float32), np.arange(h, dtype=np.float32)
    dx, dy = across - y[..., :1], down - y[..., 1:]  # (b, J, w), (b, J, h)
    far = dx[..., None, :] ** 2 + dy[..., None] ** 2 > (PEAK * codec.sigma) ** 2
    second = np.where(far, heatmaps, 0).max((2, 3))
    mass = np.clip(heatmaps - 0.1 * scores[..., None, None], 0, None)
    total = mass.sum((2, 3)) + 1e-9
    of_x, of_y = mass.sum(2) / total[..., None], mass.sum(3) / total[..., None]
    x, y_mean = (of_x * dx).sum(-1), (of_y * dy).sum(-1)
    xx, yy = (of_x * dx**2).sum(-1) - x**2, (of_y * dy**2).sum(-1) - y_mean**2
    xy = (dy[..., None, :] @ mass @ dx[..., None])[..., 0, 0] / total - x * y_mean
    unit = crops.scale[:, :1] / w  # image pixels per heatmap pixel
    margins = np.concatenate([keypoints, sizes[:, None] - 1 - keypoints], axis=2).min(2) / unit
    place = (keypoints - boxes[:, None, :2]) / np.stack([width, height], axis=1)[:, None]
    beyond = np.concatenate([boxes[:, :2], sizes - 1 - boxes[:, 2:]], axis=1)
    cut = beyond < CUT * np.stack([width, height, width, height], axis=1) + 1
    of_person = [np.log(height / width), *cut.T, np.log(width * height) / 2]
    columns = [
        _logit(scores),
        np.broadcast_to(_logit(scores.mean(1, keepdims=True)), scores.shape),
        _logit(second / np.maximum(scores, LEAST)),
        np.log(xx + yy + 0.5),
        np.log(np.hypot(x, y_mean) + 0.3),
        np.clip(np.minimum(y, (w - 1, h - 1) - y).min(2), 0, 8),
        np.clip(margins, -4, 8),
        *np.moveaxis(np.clip(place, -0.25, 1.25), 2, 0),
        *(np.broadcast_to(each[:, None], scores.shape) for each in of_person),
    ]
    xx, yy = xx + ROUND, yy + ROUND
    shape = np.stack([xx, xy, xy, yy], -1) / np.sqrt(np.maximum(xx * yy - xy**2, 1e-9))[..., None]
    return np.stack(columns, -1).astype(np.float64), shape.reshape(*scores.shape, 2, 2)


@dataclass(frozen=True, eq=False)
class Calibration:
    """How features become confidence.

    Attributes:
        joints: of the network, by name.
        mean, deviation: (F,) of the features.
        weights: (A, J, 1 + F) of a constant and the standardised features, for each of ``ANSWERS``: logits,
            but for ``reach`` the logarithm of the 90 % region's radius in heatmap pixels.
        priors: (3,) logits of the shares of absent, hidden and visible joints in what it was fitted on.
        about: what it was fitted on, JSON values.
    """

    joints: tuple[str, ...]
    mean: np.ndarray
    deviation: np.ndarray
    weights: np.ndarray
    priors: np.ndarray
    about: dict[str, Any]

    @classmethod
    def from_dict(cls, content: Any, skeleton: Skeleton, name: str | Path) -> Calibration:
        """Of JSON values; InputError, which calls them ``name``, where they are not of this skeleton."""
        count = len(FEATURES)
        shapes = {
            "mean": (count,),
            "deviation": (count,),
            "weights": (len(ANSWERS), skeleton.num_joints, 1 + count),
            "priors": (3,),
        }
        try:
            arrays = {key: np.asarray(content[key], np.float64) for key in shapes}
            for key, array in arrays.items():
                if array.shape != shapes[key] or not np.isfinite(array).all():
                    raise ValueError(f"numbers of {key!r} are missing, too many or not finite")
            if tuple(content["joints"]) != skeleton.joints or tuple(content["features"]) != FEATURES:
                raise ValueError("it is of other joints or features")
            if not (arrays["deviation"] > 0).all():
                raise ValueError("a deviation is not positive")
            return cls(skeleton.joints, **arrays, about=dict(content["about"]))
        except (LookupError, TypeError, ValueError) as error:
            raise InputError(
                f"{name}: no calibration of this model ({error}); remove it, and make one by "
                "`diffusionpose calibrate`"
            ) from error

    def to_dict(self) -> dict[str, Any]:
        """JSON values, to four digits."""
        arrays = {key: getattr(self, key) for key in ("mean", "deviation", "priors", "weights")}
        short = {
            key: np.vectorize(lambda x: float(f"{x:.4g}"))(array).tolist() for key, array in arrays.items()
        }
        return {"about": self.about, "joints": list(self.joints), "features": list(FEATURES), **short}

    def confidence(
        self,
        heatmaps: Array,
        keypoints: np.ndarray,
        boxes: np.ndarray,
        sizes: np.ndarray,
        crops: Crop,
        codec: HeatmapCodec,
        joints: Sequence[int] | None = None,
    ) -> list[Confidence]:
        """Of b persons: arguments as of :func:`joint_features`, and which joints, None for all."""
        features, shapes = joint_features(to_numpy(heatmaps), keypoints, boxes, sizes, crops, codec)
        standard = (features - self.mean) / self.deviation
        answers = self.weights[:, :, 0] + np.einsum("bjf,ajf->baj", standard, self.weights[:, :, 1:])
        chosen = list(range(len(self.joints)) if joints is None else joints)
        right, similarity, absent, hidden, visible, reach = np.moveaxis(answers[:, :, chosen], 1, 0)
        flags = (np.stack([absent, hidden, visible], -1) - self.priors).argmax(-1)
        squared = np.exp(2 * np.clip(reach, *FARTHEST)) / REGION
        covariances = squared[..., None, None] * crops.covariance_to_image(shapes[:, chosen], codec.size)
        # the mean over the joints that a person has, as far as is known
        present = sigmoid(-absent)
        oks = (present * sigmoid(similarity)).sum(1) / present.sum(1)
        rows = zip(sigmoid(right).astype(np.float32), flags, covariances.astype(np.float32), oks, strict=True)
        return [Confidence(p, kinds, spread, float(expected)) for p, kinds, spread, expected in rows]


def calibration_file(weights: Path) -> Path:
    """Where the calibration of weights or an exported folder lies: NAME.calibration.json beside NAME."""
    weights = Path(os.path.abspath(weights))  # so that "." has a name
    name = weights.stem if weights.suffix in (".safetensors", ".onnx", ".xml") else weights.name
    return weights.with_name(f"{name}.calibration.json")


def find_calibration(weights: Path, skeleton: Skeleton) -> Calibration | None:
    """The calibration beside weights; None where there is none, InputError for one of another model."""
    path = calibration_file(weights)
    return Calibration.from_dict(read_json(path), skeleton, path) if path.is_file() else None


def sigmoid(logit: np.ndarray) -> np.ndarray:
    """The probability of a logit."""
    return 1 / (1 + np.exp(-np.clip(logit, -50, 50)))


def _logit(share: np.ndarray) -> np.ndarray:
    share = np.clip(share, LEAST, 1 - LEAST)
    return np.log(share / (1 - share))
