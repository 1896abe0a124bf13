"""Several whole poses of one person: where the reverse process is begun, and what its answers are worth.

A joint that the model is unsure of may be at another place altogether: on the other side of the body, or on
another person. Each hypothesis has some joints there, clamped in every step of the reverse process; the
others follow. Constants are chosen on training persons (docs/hypotheses.md).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle, islice
from numbers import Integral

import numpy as np

from diffusionpose.errors import InputError
from diffusionpose.geometry import Array, Crop, HeatmapCodec, Start, to_numpy
from diffusionpose.poses import BOX_SHARE, keypoint_similarity
from diffusionpose.runtime.networks import Network
from diffusionpose.skeletons import Skeleton

MOST = 64  # hypotheses of a person
APART = 3  # sigmas of a Gaussian: two peaks are two
PLAIN, FAINT, LIMB = 0.5, 0.2, 0.15  # heights from which on a second peak counts, as shares of the first
LIMBS = [
    [f"{side}_{part}" for part in limb]
    for limb in (("elbow", "wrist"), ("knee", "ankle"))
    for side in ("left", "right")
]
EXCHANGED = (("hip", "knee", "ankle"), ("",), ("elbow", "wrist"))  # how the names of joints end
SPREADS = (0.1, 0.2, 0.05)  # of noise round the pose, in units of the square root of the box's area
SAME = 0.95  # OKS from which on two poses are one
# Of the weights: how fast they fall with a pose's mean height in the coarse heatmaps, and the logarithm of
# how much likelier the answer is than an alternative of the same height
SHARPNESS, ANSWER = 15.0, 1.5


def check_count(count: int) -> None:
    """InputError where so many hypotheses cannot be had."""
    if not (isinstance(count, Integral) and 1 <= count <= MOST):
        raise InputError(f"hypotheses: {count} must be a whole number from 1, the answer alone, to {MOST}")


def starts(
    coarse: np.ndarray, pose: np.ndarray, unit: float, skeleton: Skeleton, codec: HeatmapCodec
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Endlessly many poses (J, 2) to start from, heatmap pixels, and which of their joints stay there (J,).

    First the second peaks (all plain ones, all, those of one arm or leg), then the sides exchanged (legs, the
    whole body, arms), then noise round the pose, in which no joint stays.

    Args:
        coarse: (J, h, w) heatmaps.
        pose: (J, 2) the answer, heatmap pixels.
        unit: square root of the area of the person's box, heatmap pixels.
    """
    first, heights = codec.decode(coarse[None], "argmax")
    beyond = np.where(codec.draw(first) > np.exp(-(APART**2) / 2), 0, coarse)
    (second,), lower = codec.decode(beyond, "argmax")
    share, names = (lower / np.maximum(heights, 1e-6))[0], np.array(skeleton.joints)
    changes = [(second, share > least) for least in (PLAIN, FAINT)]
    changes += [(second, (share > LIMB) & np.isin(names, limb)) for limb in LIMBS]
    paired = np.array(skeleton.flip_order) != np.arange(len(names))
    for parts in EXCHANGED:
        own = paired & np.array([name.endswith(parts) for name in skeleton.joints])
        changes.append((pose[list(skeleton.flip_order)], own))
    for place, stays in changes:
        if stays.any():
            yield np.where(stays[:, None], place, pose), stays
    generator = np.random.default_rng(0)
    for spread in cycle(SPREADS):
        yield pose + generator.normal(0, spread * unit, pose.shape), np.zeros(len(pose), bool)


@dataclass(frozen=True, eq=False)
class Hypothesis:
    """One of the poses that a person may have."""

    keypoints: np.ndarray  # (J, 2) image pixels
    scores: np.ndarray  # (J,)
    weight: float  # those of a person sum to 1


def hypotheses(  # noqa: PLR0913  # what the answer was made of, each by its name
    network: Network,
    features: tuple[Array, Array],
    coarse: np.ndarray,
    answer: tuple[np.ndarray, np.ndarray],
    boxes: np.ndarray,
    crops: Crop,
    count: int,
    *,
    decode: str,
    steps: int | None,
    start: Start | None,
) -> list[list[Hypothesis]]:
    """At most ``count`` of each of b persons, each other than those before it; the first is the answer.

    Args:
        network: that encodes once.
        features: x_fea and coarse heatmaps of the crops, without mirror images.
        coarse: (b, J, h, w) in which second peaks are looked for.
        answer: keypoints (b, J, 2) in image pixels, and scores (b, J).
        boxes: (b, 4) of the persons.
        crops: where they were cut.
        decode, steps: as of the answer.
        start: as of the answer; joints that are fixed in it, in image pixels, are so in all hypotheses.
    """
    codec, skeleton = network.codec, network.skeleton
    extent = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    units = np.sqrt(extent) * codec.size[0] / crops.scale[:, 0]
    fixed = np.zeros(coarse.shape[:2], bool) if start is None or start.fixed is None else start.fixed
    own = codec.to_heatmap(crops.image_to_input(answer[0]))
    each = [
        list(islice(starts(*person, skeleton, codec), count - 1))
        for person in zip(coarse, own, units, strict=True)
    ]
    places, scores = [own], [answer[1]]
    for row in range(count - 1):
        begun = np.where(fixed[..., None], own, np.stack([one[row][0] for one in each])).astype(np.float32)
        stays = np.stack([one[row][1] for one in each])
        stays_too = stays | fixed
        clamped = Start(crops.heatmap_to_input(begun, codec.size), np.ones_like(begun[..., 0]), stays_too)
        y, sure = codec.decode(network.reverse(*features, steps, clamped)[-1], decode)
        places.append(np.where(stays_too[..., None], begun, to_numpy(y)))
        # of a joint that was put somewhere, what the coarse heatmap has there
        scores.append(np.where(stays & ~fixed, _heights(coarse, begun), to_numpy(sure)))
    found = []
    for person in range(len(coarse)):
        poses = np.stack([place[person] for place in places])
        points = crops[person].heatmap_to_image(poses.reshape(1, -1, 2), codec.size).reshape(poses.shape)
        points[0] = answer[0][person]
        kept = distinct(points, BOX_SHARE * float(extent[person]), np.array(skeleton.sigmas))
        heights = _heights(np.broadcast_to(coarse[person], (len(kept), *coarse.shape[1:])), poses[kept]).mean(
            1
        )
        logits = SHARPNESS * heights + ANSWER * (np.array(kept) == 0)
        shares = np.exp(logits - logits.max())
        weights = (shares / shares.sum()).tolist()
        found.append(
            [
                Hypothesis(points[index], scores[index][person], weight)
                for index, weight in zip(kept, weights, strict=True)
            ]
        )
    return found


def distinct(poses: np.ndarray, area: float, sigmas: np.ndarray) -> list[int]:
    """Which of (k, J, 2) poses are other than those before them, by OKS with the person's ``area``."""
    kept: list[int] = []
    for index, pose in enumerate(poses):
        oks = keypoint_similarity(poses[kept] - pose, area, sigmas).mean(-1)
        if (oks < SAME).all():
            kept.append(index)
    return kept


def _heights(heatmaps: np.ndarray, places: np.ndarray) -> np.ndarray:
    """(n, J) of (n, J, h, w) heatmaps at (n, J, 2) places in heatmap pixels; the edge goes on outside."""
    height, width = heatmaps.shape[2:]
    x, y = np.rint(places).astype(int).clip(0, [width - 1, height - 1]).transpose(2, 0, 1)
    heights: np.ndarray = heatmaps[(*np.indices(x.shape), y, x)]
    return heights
