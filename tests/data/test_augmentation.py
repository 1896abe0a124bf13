"""The draw of the augmentation: its ranges and shares are HRNet's, half bodies are halves."""

from dataclasses import replace

import numpy as np
import pytest

from diffusionpose.data.annotations import Person
from diffusionpose.data.dataset import Augmentation, CropChange, half_body_box
from diffusionpose.geometry import PADDING
from diffusionpose.skeletons import COCO, CROWDPOSE, Skeleton


def standing(skeleton: Skeleton = COCO) -> Person:
    """Upper body in (10..50, 0..50), lower body in (20..40, 60..100)."""
    keypoints = np.zeros((skeleton.num_joints, 2), np.float32)
    upper = list(skeleton.upper_body)
    lower = [j for j in range(skeleton.num_joints) if j not in upper]
    keypoints[upper] = np.linspace([10, 0], [50, 50], len(upper))
    keypoints[lower] = np.linspace([20, 60], [40, 100], len(lower))
    visible = np.full(skeleton.num_joints, 2)
    box = np.float32([5, -5, 55, 105])
    return Person(1, 1, box, keypoints, visible, 5000.0)


def draws(augmentation: Augmentation, person: Person, count: int = 4000) -> list[CropChange]:
    return [augmentation.draw(person, COCO, np.random.default_rng((0, i))) for i in range(count)]


def test_ranges_and_shares() -> None:
    changes = draws(Augmentation(), standing())
    zooms = np.array([c.zoom for c in changes])
    turns = np.array([c.turn for c in changes])
    assert (zooms.min(), zooms.max()) == pytest.approx((0.65, 1.35))
    assert (turns.min(), turns.max()) == (-90, 90)
    # a normal distribution clipped at one deviation has 16 % of its mass at either end
    assert np.mean(zooms > 1.3499) == pytest.approx(0.159, abs=0.02)
    assert np.mean(turns != 0) == pytest.approx(0.6, abs=0.03)
    assert np.mean(np.abs(turns[turns != 0]) < 45) == pytest.approx(0.683, abs=0.03)
    assert np.mean([c.mirrored for c in changes]) == pytest.approx(0.5, abs=0.03)
    # uniform, not normal: randn() < 0.3 would be 62 %
    assert np.mean([c.padding != PADDING for c in changes]) == pytest.approx(0.3, abs=0.03)


def test_everything_off_changes_nothing() -> None:
    person = standing()
    still = Augmentation(scale=0, rotation=0, rotation_probability=0, flip=0, half_body=0)
    for change in draws(still, person, 50):
        assert change == CropChange(person.box)


def test_one_option_does_not_shift_the_randomness_of_another() -> None:
    person = standing()
    with_half, without = (draws(Augmentation(half_body=p), person, 50) for p in (1.0, 0.0))
    assert [(c.zoom, c.turn, c.mirrored) for c in with_half] == [
        (c.zoom, c.turn, c.mirrored) for c in without
    ]


def test_half_bodies_are_the_extent_of_one_half() -> None:
    halves = {tuple(c.box.tolist()) for c in draws(Augmentation(half_body=1.0), standing(), 100)}
    assert halves == {(10, 0, 50, 50), (20, 60, 40, 100)}
    change = Augmentation(half_body=1.0).draw(standing(), COCO, np.random.default_rng(0))
    assert change.padding == 1.5


@pytest.mark.parametrize(("skeleton", "least"), [(COCO, 9), (CROWDPOSE, 7)])
def test_half_bodies_need_half_the_joints(skeleton: Skeleton, least: int) -> None:
    person = standing(skeleton)
    for labelled in range(skeleton.num_joints + 1):
        some = replace(person, visible=np.where(np.arange(skeleton.num_joints) < labelled, 1, 0))
        assert (half_body_box(some, skeleton, prefer_upper=True) is not None) == (labelled >= least)


def test_the_other_half_is_taken_where_one_is_not_labelled() -> None:
    person = standing()
    upper_only = replace(person, visible=np.where(np.isin(np.arange(17), COCO.upper_body), 2, 0))
    box = half_body_box(upper_only, COCO, prefer_upper=False)
    assert box is not None
    assert box.tolist() == [10, 0, 50, 50]


def test_joints_on_one_spot_make_no_half_body() -> None:
    person = standing()
    heap = replace(person, keypoints=np.full((17, 2), 30, np.float32))
    assert half_body_box(heap, COCO, prefer_upper=True) is None
