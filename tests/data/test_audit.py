"""What is said of a label: from built evidence, and from a network whose heatmaps are known."""

from dataclasses import replace

import numpy as np
import pytest

from diffusionpose.data.annotations import Person
from diffusionpose.data.audit import CROSSED, Evidence, look, rank
from diffusionpose.geometry import HeatmapCodec
from diffusionpose.runtime.networks import Network
from diffusionpose.skeletons import CROWDPOSE

ORDER = list(CROWDPOSE.flip_order)
WRIST, ANKLE = (CROWDPOSE.index(name) for name in ("left_wrist", "right_ankle"))
BOX = np.array([0, 0, 100, 200], np.float32)


def person(seed: int = 0, image_id: int = 1, at: float = 0) -> Person:
    """Standing, facing the camera: the left side is on the right of the picture."""
    places = {
        "head": 5,
        "neck": 30,
        "shoulder": 40,
        "elbow": 75,
        "wrist": 110,
        "hip": 100,
        "knee": 145,
        "ankle": 190,
    }
    out = {"shoulder": 25, "elbow": 40, "wrist": 50, "hip": 22, "knee": 24, "ankle": 28}
    keypoints = []
    for joint in CROWDPOSE.joints:
        side, _, part = joint.rpartition("_")
        keypoints.append((50 + at + {"left": 1, "right": -1, "": 0}[side] * out.get(part, 0), places[part]))
    scattered = np.array(keypoints) + np.random.default_rng(seed).uniform(-3, 3, (14, 2))
    return Person(image_id, seed, BOX, scattered.astype(np.float32), np.full(14, 2), 0.5 * 100 * 200)


def evidence(truth: Person, label: Person, score: float = 0.9) -> Evidence:
    """Of a model that finds the truth."""
    apart = np.linalg.norm(truth.keypoints - label.keypoints, axis=1)
    return Evidence(truth.keypoints, np.full(14, score), score * (1 - np.exp(-((apart / 10) ** 2))))


def ranked(labels: list[Person], truths: list[Person], scores: dict[int, float] | None = None):
    scores = scores or {}
    found = [
        evidence(truth, label, scores.get(row, 0.9))
        for row, (truth, label) in enumerate(zip(truths, labels, strict=True))
    ]
    return rank(labels, found, CROWDPOSE)


def spoilt(truth: Person, fault: str) -> Person:
    keypoints, visible = truth.keypoints.copy(), truth.visible.copy()
    if fault == "all sides":
        keypoints = keypoints[ORDER]
    elif fault == "one pair":
        keypoints[[WRIST, ORDER[WRIST]]] = keypoints[[ORDER[WRIST], WRIST]]
    elif fault == "misplaced joint":
        keypoints[ANKLE] = [250, 250]
    elif fault == "missing joint":
        keypoints[ANKLE], visible[ANKLE] = 0, 0
    elif fault == "wrong person":
        keypoints = keypoints + [200, 0]
    return replace(truth, keypoints=keypoints.astype(np.float32), visible=visible)


@pytest.mark.parametrize(
    ("fault", "named", "joints"),
    [
        ("all sides", "sides exchanged", [joint for joint in range(14) if ORDER[joint] != joint]),
        ("one pair", "sides exchanged", sorted([WRIST, ORDER[WRIST]])),
        ("misplaced joint", "misplaced joint", [ANKLE]),
        ("missing joint", "missing joint", [ANKLE]),
        ("wrong person", "wrong person", list(range(14))),
    ],
)
def test_a_fault_is_first_has_its_name_and_its_correction(fault, named, joints):
    truths = [person(seed, image_id=seed) for seed in range(30)]
    labels = [spoilt(truth, fault if row == 7 else "") for row, truth in enumerate(truths)]
    first, *others = ranked(labels, truths)
    assert (first.row, first.fault) == (7, named)
    assert first.doubt > 0.3 > max(other.doubt for other in others) + 0.2
    assert sorted(first.correction) == joints
    corrected = np.column_stack([labels[7].keypoints, labels[7].visible])
    for joint, numbers in first.correction.items():
        corrected[joint] = numbers
    assert np.allclose(corrected, np.column_stack([truths[7].keypoints, truths[7].visible]), atol=0.06)


def test_where_the_model_sees_nothing_there_is_no_person():
    truths = [person(seed, image_id=seed) for seed in range(5)]
    first, second, *_ = ranked(truths, truths, {3: 0.1})
    assert (first.row, first.fault, first.correction) == (3, "no person", None)
    assert first.doubt > 5 * second.doubt


def test_a_joint_that_the_file_often_leaves_out_is_not_missing():
    truths = [person(seed, image_id=seed) for seed in range(30)]
    once = ranked(
        [spoilt(truth, "missing joint" if row < 1 else "") for row, truth in enumerate(truths)], truths
    )
    often = ranked([spoilt(truth, "missing joint") for truth in truths], truths)
    assert often[0].doubt < 0.2 * once[0].doubt


def test_the_pose_of_a_neighbour_with_a_label_is_no_fault():
    """The model took the other person in the crop; alone in the picture the label is doubted."""
    one, other = person(1), person(2, at=130)
    both = ranked([one, other], [other, other])
    apart = ranked([one, replace(other, image_id=2)], [other, other])
    assert max(each.doubt for each in both) < 0.01
    assert (apart[0].row, apart[0].fault) == (0, "wrong person")


class Drawn(Network):
    """Sees joint j at a fixed place of the crop, and where a start gives it."""

    name, skeleton, codec, steps, any_steps, takes_start = (
        "drawn", CROWDPOSE, HeatmapCodec((96, 128), unbiased=True), 1, True, True
    )  # fmt: skip

    def heatmaps(self, images, steps=None, start=None):
        self.check(steps=steps, start=start is not None)
        mirrored = np.arange(len(images)) >= len(images) // 2
        places = np.tile(np.column_stack([np.arange(14) + 5.0, 2 * np.arange(14)]), (len(images), 1, 1))
        places[mirrored] = places[mirrored][:, ORDER]
        places[mirrored, :, 0] = self.codec.size[0] - 1 - places[mirrored, :, 0]
        maps = self.codec.draw(places.astype(np.float32))
        if start is None:
            return [maps]
        return [np.maximum(maps, 0.5 * self.codec.reverse(maps, 0, start, None)[0])]


def test_looking_measures_the_heatmap_at_the_label():
    """The crop is the picture: a box of 0.8 of it, in its middle."""
    image, skeleton = np.zeros((128, 96, 3), np.uint8), CROWDPOSE.select(CROWDPOSE.joints[::-1])
    network, size = Drawn(), np.array([95, 127])
    places = (np.column_stack([np.arange(14) + 5.0, 2 * np.arange(14)]) / (23, 31) * size)[::-1]
    keypoints = ((places / size - 0.5) * (96, 128) + (48, 64)).astype(np.float32)
    keypoints[0] += [0, -1000]  # outside the crop
    keypoints[1] += [-40, -60]
    label = Person(1, 1, np.array([9.6, 12.8, 86.4, 115.2], np.float32), keypoints, np.full(14, 2), 5000.0)
    (one,) = look(network, image, [label], skeleton)
    assert np.allclose(one.keypoints[2:], keypoints[2:], atol=0.3)
    assert np.allclose(one.scores, 1, atol=0.02)
    assert one.doubts[0] == pytest.approx(1, abs=0.05)
    assert one.doubts[1] == pytest.approx(0.5, abs=0.15)
    assert np.allclose(one.doubts[2:], 0, atol=0.05)
    again = Evidence.from_rows(one.rows())
    assert np.allclose(again.doubts, one.doubts, atol=1e-3)
    assert np.allclose(again.keypoints, one.keypoints, atol=1e-3)


def test_what_the_geometry_of_a_label_suspects_is_doubted_more():
    truths = [person(seed, image_id=seed) for seed in range(9)]
    truths[4] = spoilt(truths[4], "one pair")  # which the model sees as it is labelled
    first, second, *_ = ranked(truths, truths)
    assert first.row == 4
    assert first.doubt == pytest.approx(second.doubt + CROSSED, abs=0.02)
