"""How unlikely a model finds the labels of persons, and what seems wrong with them.

The reverse process starts from the label, whose joints it believes as far as the picture lets it. Where the
heatmap that comes out stays low at the label and high elsewhere, the label is doubtful; where it is low
everywhere, at many labelled joints, nobody may be there. Constants are measured in docs/audit.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from diffusionpose.data.annotations import Person
from diffusionpose.data.check_sides import find_exchanged
from diffusionpose.geometry import Crop, Start, to_numpy
from diffusionpose.poses import BOX_SHARE, keypoint_similarity
from diffusionpose.runtime.estimator import ReverseProcess, as_batch
from diffusionpose.runtime.networks import Network
from diffusionpose.skeletons import Skeleton

Fault = Literal["sides exchanged", "wrong person", "misplaced joint", "missing joint", "no person"]
EMPTY = 0.06  # weight of a joint where the model sees nothing, against one whose label it contradicts
CROSSED = 0.15  # doubt where the geometry of the label alone lets a pair seem exchanged
# A joint that the model sees without a label is the more doubtful the fewer it sees as surely have none
ABOUT, RARE = 0.03, 80  # of the score; power of the share that is labelled
DOUBTFUL = 0.3  # of the largest doubt of a label: joints named with the most doubtful one
ALIKE, ELSEWHERE = 0.5, 0.3  # keypoint similarity from which on, and below which, two places are one or two


@dataclass(frozen=True, eq=False)
class Evidence:
    """What a model says of one label with J joints."""

    keypoints: np.ndarray  # (J, 2) image pixels: where it finds them by itself
    scores: np.ndarray  # (J,) of these
    doubts: (
        np.ndarray
    )  # (J,) in [0, 1]: maximum of the heatmap that started at the label, less its value there

    @classmethod
    def from_rows(cls, rows: Sequence[Sequence[float]]) -> Evidence:
        """Of J rows x, y, score and doubt."""
        numbers = np.array(rows, np.float64)
        return cls(numbers[:, :2], numbers[:, 2], numbers[:, 3])

    def rows(self) -> list[list[float]]:
        """J rows x, y, score and doubt, as JSON can hold them."""
        numbers = np.column_stack([self.keypoints, self.scores, self.doubts]).astype(float)
        return numbers.round(3).tolist()


@dataclass(frozen=True)
class Suspicion:
    """What seems wrong with a label: a guess for every label, the less worth the lower its doubt."""

    row: int  # of the person
    doubt: float  # from 0 to about 1.5
    fault: Fault
    correction: dict[int, list[float]] | None  # x, y, visible of joints; None: no such person


def look(
    network: Network, image: np.ndarray, persons: Sequence[Person], skeleton: Skeleton
) -> Iterator[Evidence]:
    """What a network says of the labels of persons in a picture.

    Args:
        network: with the joints of the skeleton; one without diffusion does not start from the label.
        image: (H, W, 3) uint8 RGB.
        persons: each with a box that has an area.
        skeleton: of the persons.

    Raises:
        InputError: heatmaps that are not finite.
    """
    codec, joints = network.codec, [network.skeleton.index(joint) for joint in skeleton.joints]
    for first in range(0, len(persons), network.batch_size):
        part = persons[first : first + network.batch_size]
        boxes = np.stack([person.box for person in part])
        crops = Crop.from_boxes(boxes, codec.input_size, unbiased=codec.unbiased)
        images = as_batch([crops.cut(image, index) for index in range(len(part))])
        labels = np.zeros((len(part), network.skeleton.num_joints, 3), np.float32)
        labels[:, joints, :2] = [person.keypoints for person in part]
        labels[:, joints, 2] = [person.visible > 0 for person in part]
        start = Start(labels[..., :2], labels[..., 2]).in_crop(crops)
        process = ReverseProcess(network, images, once=network.encodes_once)
        own = from_label = to_numpy(process()[-1])
        if network.takes_start:
            from_label = to_numpy(process(start=start)[-1])
        places, scores = codec.decode(own, "dark")
        keypoints = crops.heatmap_to_image(places, codec.size)
        at, size = np.rint(codec.to_heatmap(start.keypoints)).astype(int), np.array(codec.size)
        inside = ((at >= 0) & (at < size)).all(axis=2)
        x, y = at.clip(0, size - 1).transpose(2, 0, 1)
        there = from_label[(*np.indices(x.shape), y, x)] * inside
        doubts = from_label.max(axis=(2, 3)) - there
        for row in range(len(part)):
            yield Evidence(keypoints[row, joints], scores[row, joints], doubts[row, joints])


def rank(persons: Sequence[Person], evidence: Sequence[Evidence], skeleton: Skeleton) -> list[Suspicion]:
    """The labels of persons, the most doubtful first, each with what seems wrong with it."""
    by_image: dict[object, list[Person]] = {}
    for person in persons:
        by_image.setdefault(person.image_id, []).append(person)
    missing, points = _missing(persons, evidence), np.stack([person.keypoints for person in persons])
    sizes = np.sqrt([max(person.area, 1.0) / BOX_SHARE for person in persons])
    visible = np.stack([person.visible for person in persons])
    crossed = {found.row for found in find_exchanged(points, visible, sizes, skeleton)}
    suspicions = []
    for row, (person, one) in enumerate(zip(persons, evidence, strict=True)):
        others = [other for other in by_image[person.image_id] if other is not person]
        suspicion = _suspicion(row, person, one, missing[row], others, skeleton)
        suspicions.append(replace(suspicion, doubt=suspicion.doubt + CROSSED * (row in crossed)))
    return sorted(suspicions, key=lambda suspicion: -suspicion.doubt)


def _suspicion(
    row: int, person: Person, one: Evidence, missing: np.ndarray, others: Sequence[Person], skeleton: Skeleton
) -> Suspicion:
    seen, order = person.visible > 0, list(skeleton.flip_order)

    def similarity(keypoints: np.ndarray) -> np.ndarray:
        """(J,) of the model's pose to that of a label."""
        return keypoint_similarity(one.keypoints - keypoints, max(person.area, 1.0), skeleton.sigmas)

    straight, mirrored = similarity(person.keypoints), similarity(person.keypoints[order]) * seen[order]
    taken = np.zeros(len(seen))  # how much the model's joints are somebody else's in the picture
    for other in others:
        for side in (np.arange(len(seen)), order):
            there = similarity(other.keypoints[side]) * (other.visible[side] > 0)
            taken = np.maximum(taken, there)
    doubts = np.where(seen, one.doubts.clip(0, 1) ** 2 * (1 - straight) * (1 - taken), 0)
    missing = missing * (1 - taken)
    absence = EMPTY * seen.sum() * (1 - one.scores[seen].mean().clip(0, 1)) ** 5
    doubt, worst = float(doubts.max() + absence + missing.max()), int(doubts.argmax())
    if absence >= max(doubts.max(), missing.max()):
        return Suspicion(row, doubt, "no person", None)
    fault: Fault = "misplaced joint"
    keypoints, visible, joints = one.keypoints, person.visible, doubts >= DOUBTFUL * doubts.max()
    gain = (mirrored - straight) * (seen & seen[order])
    exchanged = gain + gain[order] > ALIKE
    if missing.max() > doubts.max():
        fault, visible, joints = "missing joint", np.full(len(seen), 2), missing >= DOUBTFUL * missing.max()
    elif exchanged[worst]:
        fault, joints = "sides exchanged", exchanged
        keypoints, visible = person.keypoints[order], person.visible[order]
    elif (straight[seen] < ELSEWHERE).mean() > 0.5:
        fault, joints = "wrong person", seen
    numbers = np.column_stack([keypoints, visible]).round(1).tolist()
    return Suspicion(row, doubt, fault, {int(joint): numbers[joint] for joint in np.flatnonzero(joints)})


def _missing(persons: Sequence[Person], evidence: Sequence[Evidence]) -> np.ndarray:
    """(n, J) doubts of what is not labelled: scores there, and how seldom the file leaves such out."""
    scores = np.stack([one.scores for one in evidence])
    unlabelled = np.stack([person.visible for person in persons]) == 0
    both, least = [np.sort(scores, axis=None), np.sort(scores[unlabelled])], scores - ABOUT
    left_out, seen = (len(ranked) - np.searchsorted(ranked, least) for ranked in both[::-1])
    share = (1 + left_out) / (1 + seen)
    return unlabelled * scores.clip(0, 1) ** 3 * (1 - share) ** RARE
