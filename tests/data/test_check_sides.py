"""Left and right exchanged: built poses, and how often real ones are suspected with and without reason.

The bounds on real annotations stand a little beside what was measured; ``docs/checks.md`` lists that.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from diffusionpose.data.annotations import read_annotations
from diffusionpose.data.check_sides import Suspicion, facing_camera, file_exchanged, find_exchanged
from diffusionpose.skeletons import COCO, Skeleton

# Standing, facing the camera: the left side is on the right of the picture.
STANDING = {
    "nose": (100, 40),
    "eye": (106, 34),
    "ear": (114, 38),
    "shoulder": (125, 70),
    "elbow": (135, 110),
    "wrist": (138, 150),
    "hip": (115, 150),
    "knee": (117, 200),
    "ankle": (118, 250),
}
FILES = {
    "lspet14": "lspet14/annotations/lspet14_train.json",
    "crowdpose": "formats/crowdpose/crowdpose_val.json",
    "aic": "formats/aic_native/keypoint_annotations_example.json",
    "coco": "formats/coco/person_keypoints_val2017_2213.json",
}


@dataclass(frozen=True)
class Poses:
    """(n, J, 3) x, y, visible, and (n,) sizes of the boxes."""

    triplets: np.ndarray
    sizes: np.ndarray
    skeleton: Skeleton

    def exchanged(self) -> list[Suspicion]:
        points, visible = self.triplets[:, :, :2], self.triplets[:, :, 2]
        return find_exchanged(points, visible, self.sizes, self.skeleton)

    def facing(self) -> tuple[int, int]:
        return facing_camera(self.triplets[:, :, :2], self.triplets[:, :, 2], self.skeleton)


def listing(poses: Sequence[np.ndarray], skeleton: Skeleton = COCO) -> Poses:
    """(J, 3) x, y, visible each, in boxes of their extent."""
    triplets = np.asarray(poses, dtype=float)
    extent = np.ptp(triplets[:, :, :2], axis=1)
    return Poses(triplets, np.sqrt(extent.prod(axis=1)), skeleton)


def standing(angle: float = 0.0) -> np.ndarray:
    """(17, 3), turned in the picture by some degrees about (100, 150)."""
    points = []
    for joint in COCO.joints:
        side, _, part = joint.rpartition("_")
        x, y = STANDING[part]
        points.append((200 - x if side == "right" else x, y))
    c, s = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    turned = (np.asarray(points, dtype=float) - (100, 150)) @ np.asarray([[c, s], [-s, c]]) + (100, 150)
    return np.concatenate([turned, np.full((17, 1), 2.0)], axis=1)


def exchanged(pose: np.ndarray, *parts: str) -> np.ndarray:
    """With left and right of some parts exchanged."""
    pose = pose.copy()
    for part in parts:
        a, b = COCO.index(f"left_{part}"), COCO.index(f"right_{part}")
        pose[[a, b]] = pose[[b, a]]
    return pose


@pytest.mark.parametrize("angle", [0, 90, 180, 250])
def test_a_good_pose_is_not_suspected_however_turned(angle: float) -> None:
    assert listing([standing(angle)]).exchanged() == []


@pytest.mark.parametrize("angle", [0, 90, 180, 250])
@pytest.mark.parametrize("part", ["eye", "shoulder", "elbow", "hip", "knee"])
def test_one_exchanged_pair_is_found(part: str, angle: float) -> None:
    found = listing([standing(angle), exchanged(standing(angle), part)]).exchanged()
    assert {(suspicion.row, COCO.joints[suspicion.pair[0]]) for suspicion in found} == {(1, f"left_{part}")}


def test_a_whole_person_shows_by_the_face() -> None:
    parts = [part for part in STANDING if part != "nose"]
    (found,) = listing([exchanged(standing(), *parts)]).exchanged()
    assert (found.rule, COCO.joints[found.pair[0]]) == ("face", "left_eye")
    body = [part for part in parts if part not in ("eye", "ear")]
    (found,) = listing([exchanged(standing(), *body)]).exchanged()
    assert (found.rule, COCO.joints[found.pair[0]]) == ("face", "left_shoulder")


def test_hidden_eyes_tell_nothing() -> None:
    pose = exchanged(standing(), "eye", "ear")
    assert [s.rule for s in listing([pose]).exchanged()] == ["face"]
    pose[COCO.index("left_eye"), 2] = 1
    assert listing([pose]).exchanged() == []


def test_a_bowed_head_tells_nothing() -> None:
    """Eyes below the shoulders, their left still on the right."""
    pose = standing()
    for joint in ("nose", "left_eye", "right_eye"):
        pose[COCO.index(joint), 1] += 50
    assert not [s for s in listing([pose]).exchanged() if s.rule == "face"]


def test_unlabelled_joints_are_left_alone() -> None:
    pose = exchanged(standing(), "knee")
    pose[COCO.index("left_knee"), 2] = 0
    assert listing([pose]).exchanged() == []


def test_the_worst_comes_first() -> None:
    found = listing([exchanged(standing(), part) for part in ("knee", "elbow", "eye")]).exchanged()
    assert {s.row for s in found} == {0, 1, 2}
    assert [s.score for s in found] == sorted(s.score for s in found)


def test_a_file_is_suspected_by_three_standard_deviations() -> None:
    assert not file_exchanged(0, 0)
    assert not file_exchanged(36, 100)  # 0.36 > 0.5 - 3 * 0.5 / 10
    assert file_exchanged(34, 100)
    assert file_exchanged(0, 10)
    assert not file_exchanged(0, 8)  # three deviations of so few are more than half
    poses = [standing(a) for a in range(0, 360, 30)]
    assert listing(poses).facing() == (12, 12)
    assert listing([exchanged(p, "shoulder", "hip") for p in poses]).facing() == (0, 12)


@functools.cache
def real(name: str, data_dir: Path) -> Poses:
    annotations = read_annotations(data_dir / FILES[name]).labelled()
    triplets = [np.column_stack([p.keypoints, p.visible]).astype(float) for p in annotations.persons]
    sizes = [np.sqrt(person.xywh[2:].prod()) for person in annotations.persons]
    return Poses(np.asarray(triplets), np.asarray(sizes), annotations.skeleton)


def with_exchanged(good: Poses, parts: Sequence[str]) -> tuple[Poses, np.ndarray]:
    """The poses with these pairs exchanged, and which persons have all of them labelled."""
    triplets, known = good.triplets.copy(), np.ones(len(good.triplets), bool)
    for part in parts:
        pair = [good.skeleton.index(f"{side}_{part}") for side in ("left", "right")]
        triplets[:, pair] = good.triplets[:, pair[::-1]]
        known &= (good.triplets[:, pair, 2] > 0).all(axis=1)
    return replace(good, triplets=triplets), known


@pytest.mark.parametrize(
    ("name", "most"), [("lspet14", 0.006), ("crowdpose", 0.006), ("aic", 0.011), ("coco", 0.013)]
)
def test_false_alarms_on_real_poses_are_few(name: str, most: float, data_dir: Path) -> None:
    good = real(name, data_dir)
    rows = {suspicion.row for suspicion in good.exchanged()}
    assert 0 < len(rows) / len(good.triplets) < most


@pytest.mark.parametrize(
    ("name", "part", "least"),
    [
        ("lspet14", "shoulder", 0.65),
        ("lspet14", "elbow", 0.75),
        ("lspet14", "wrist", 0.46),
        ("lspet14", "hip", 0.54),
        ("lspet14", "knee", 0.48),
        ("lspet14", "ankle", 0.17),
        ("crowdpose", "elbow", 0.76),
        ("crowdpose", "knee", 0.33),
        ("aic", "elbow", 0.78),
        ("coco", "shoulder", 0.70),
        ("coco", "eye", 0.88),
    ],
)
def test_a_pair_exchanged_in_real_poses_is_found_as_often_as_told(
    name: str, part: str, least: float, data_dir: Path
) -> None:
    good = real(name, data_dir)
    bad, known = with_exchanged(good, [part])
    left = good.skeleton.index(f"left_{part}")
    rows = {s.row for s in bad.exchanged() if s.pair[0] == left}
    share = len(rows & set(np.flatnonzero(known).tolist())) / np.count_nonzero(known)
    assert least < share < least + 0.05


@pytest.mark.parametrize("name", FILES)
def test_a_real_file_all_exchanged_is_found(name: str, data_dir: Path) -> None:
    good = real(name, data_dir)
    assert 0.65 < good.facing()[0] / good.facing()[1] < 0.85
    assert not file_exchanged(*good.facing())
    order = list(good.skeleton.flip_order)
    assert file_exchanged(*replace(good, triplets=good.triplets[:, order]).facing())


def test_a_skeleton_without_shoulders_has_only_limbs() -> None:
    names = ("left_front", "right_front", "left_back", "right_back")
    table = Skeleton("table", names, ((0, 2), (1, 3), (0, 1), (2, 3)), ((0, 1), (2, 3)), (0.1,) * 4)
    good = np.asarray([[0, 0, 2], [60, 0, 2], [0, 10, 2], [60, 10, 2]], dtype=float)
    found = listing([good, good[[1, 0, 2, 3]]], table).exchanged()
    assert [(s.row, s.rule) for s in found] == [(1, "limbs")]
    assert listing([good], table).facing() == (0, 0)
