"""Samples: keypoints stay on the picture, randomness is (seed, epoch, index), faults are reported."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from diffusionpose.data.annotations import Annotations, ImageRecord, Person, read_annotations
from diffusionpose.data.augmentation import Augmentation, CropChange, half_body_box
from diffusionpose.data.dataset import JointDataset, PersonDataset, Sample, crops_of
from diffusionpose.data.pose_errors import PoseErrors
from diffusionpose.errors import InputError
from diffusionpose.geometry import PADDING
from diffusionpose.skeletons import COCO, CROWDPOSE, Skeleton

SIZE = (96, 128)
# 14 colours far apart, to find each joint again in the crop; all bright, since edges blend with black
COLOURS = np.array([c for c in itertools.product((0, 125, 255), repeat=3) if max(c) == 255][:14])
TURNED = Augmentation(half_body=0.0)


@pytest.fixture
def dotted(tmp_path: Path) -> PersonDataset:
    """One picture, 220 x 300, with a dot of its own colour at each of the 14 keypoints."""
    y, x = np.mgrid[0:300, 0:220]
    picture = np.zeros((300, 220, 3), np.uint8)
    keypoints = np.array([[50 + 40 * (j % 4), 50 + 62 * (j // 4)] for j in range(14)], np.float32)
    keypoints += np.random.default_rng(0).uniform(-8, 8, keypoints.shape).astype(np.float32)
    for (u, v), colour in zip(keypoints, COLOURS, strict=True):
        picture[np.hypot(x - u, y - v) < 7] = colour
    Image.fromarray(picture).save(tmp_path / "dots.png")
    person = Person(1, 1, np.float32([20, 20, 200, 280]), keypoints, np.full(14, 2), 1000.0)
    record = ImageRecord(1, "dots.png", 220, 300)
    return PersonDataset(Annotations(Path("dots.json"), CROWDPOSE, {1: record}, [person]), tmp_path, SIZE)


def found_dots(image: torch.Tensor) -> np.ndarray:
    """(14, 2) centre of the pixels of each colour; NaN where there are too few."""
    pixels = image.permute(1, 2, 0).numpy().astype(int)
    centres = np.full((14, 2), np.nan)
    for j, colour in enumerate(COLOURS):
        rows, columns = np.nonzero(np.abs(pixels - colour).max(axis=2) < 30)
        if len(rows) >= 8:
            centres[j] = columns.mean(), rows.mean()
    return centres


@pytest.mark.parametrize("unbiased", [False, True])
def test_keypoints_follow_the_picture(dotted: PersonDataset, unbiased: bool) -> None:
    dataset = PersonDataset(dotted.annotations, dotted.images, SIZE, unbiased, TURNED, seed=3)
    person, seen = dataset.persons[0], 0
    for epoch in range(40):
        dataset.set_epoch(epoch)
        sample = dataset[0]
        keypoints, dots = sample["keypoints"].numpy(), found_dots(sample["image"])
        if TURNED.draw(person, CROWDPOSE, np.random.default_rng((3, epoch, 0))).mirrored:
            dots = dots[list(CROWDPOSE.flip_order)]  # the right wrist's dot is labelled left wrist
        # dots cut by the border have their centre elsewhere
        whole = ((keypoints > 6) & (keypoints < np.array(SIZE) - 7)).all(axis=1)
        assert (sample["visible"].numpy()[whole] == 1).all()
        found = whole & np.isfinite(dots).all(axis=1)
        assert np.abs(dots - keypoints)[found].max() < 0.7
        seen += found.sum()
    assert seen > 250


def test_mirroring_swaps_left_and_right(dotted: PersonDataset) -> None:
    still = Augmentation(scale=0, rotation=0, rotation_probability=0, flip=0, half_body=0)
    plain = PersonDataset(dotted.annotations, dotted.images, SIZE, augmentation=still)[0]
    mirrored = PersonDataset(dotted.annotations, dotted.images, SIZE, augmentation=replace(still, flip=1))[0]
    assert torch.equal(mirrored["image"], plain["image"].flip(2))
    left, right = CROWDPOSE.index("left_knee"), CROWDPOSE.index("right_knee")
    x, y = plain["keypoints"][left].tolist()
    assert mirrored["keypoints"][right].tolist() == pytest.approx([SIZE[0] - 1 - x, y])
    neck = CROWDPOSE.index("neck")
    assert mirrored["keypoints"][neck, 1] == plain["keypoints"][neck, 1]


def test_joints_whose_gaussian_does_not_reach_into_the_crop_are_not_visible(dotted: PersonDataset) -> None:
    close = replace(dotted.annotations.persons[0], box=np.float32([70, 100, 140, 180]))
    dataset = PersonDataset(replace(dotted.annotations, persons=[close]), dotted.images, SIZE)
    sample = dataset[0]
    reach = 3 * SIZE[1] / 32  # 3 sigma: as far as the Gaussian of a joint beyond the edge reaches in
    limit = torch.tensor(SIZE) - 1 + reach
    near = ((sample["keypoints"] >= -reach) & (sample["keypoints"] <= limit)).all(dim=1)
    inside = ((sample["keypoints"] >= 0) & (sample["keypoints"] < torch.tensor(SIZE))).all(dim=1)
    assert 0 < inside.sum() < near.sum() < 14
    assert torch.equal(sample["visible"], near.float())


def test_hidden_joints_count_and_unlabelled_ones_do_not(dotted: PersonDataset) -> None:
    visible = np.array([0, 1, 2] + [2] * 11)
    person = replace(dotted.annotations.persons[0], visible=visible)
    dataset = PersonDataset(replace(dotted.annotations, persons=[person]), dotted.images, SIZE)
    assert dataset[0]["visible"].tolist() == [0.0] + [1.0] * 13


@pytest.mark.parametrize("unbiased", [False, True])
def test_starts_are_the_keypoints_with_errors(dotted: PersonDataset, unbiased: bool) -> None:
    dataset = PersonDataset(dotted.annotations, dotted.images, SIZE, unbiased, TURNED, seed=3)
    plain = dataset[0]
    assert "start" not in plain
    dataset.errors = PoseErrors(dataset.annotations)
    off = []
    for epoch in range(20):
        dataset.set_epoch(epoch)
        sample = dataset[0]
        assert torch.equal(sample["start"], dataset[0]["start"])
        off.append((sample["start"] - sample["keypoints"]).norm(dim=1))
    dataset.set_epoch(0)
    for name, value in plain.items():
        assert torch.equal(dataset[0][name], value), "errors must not shift other randomness"
    off = torch.stack(off)
    # most joints are good, mirrored and turned as the picture is; some are far off
    assert off.median() < 6
    assert off.max() > 12


@pytest.mark.parametrize("unbiased", [False, True])
def test_crops_lead_back_to_the_picture(dotted: PersonDataset, unbiased: bool) -> None:
    dataset = PersonDataset(dotted.annotations, dotted.images, SIZE, unbiased, replace(TURNED, flip=0.0))
    batch = next(iter(DataLoader(dataset, batch_size=1)))
    assert batch["angle"] != 0
    crops = crops_of(batch, SIZE, unbiased)
    back = crops.input_to_image(batch["keypoints"])
    assert np.abs(back[0].numpy() - dataset.persons[0].keypoints).max() < 1e-3


# Randomness


def synthetic(synthetic_set: tuple[Path, Path], seed: int = 0) -> PersonDataset:
    images, path = synthetic_set
    return PersonDataset(
        read_annotations(path).labelled(), images, SIZE, augmentation=Augmentation(), seed=seed
    )


def equal(a: Sample, b: Sample) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def test_samples_depend_on_seed_epoch_and_index_alone(synthetic_set: tuple[Path, Path]) -> None:
    dataset, twin = synthetic(synthetic_set), synthetic(synthetic_set)
    dataset.set_epoch(4)
    torch.manual_seed(1)
    forwards = [dataset[i] for i in range(6)]
    np.random.seed(5)  # noqa: NPY002  global state must not matter
    twin.set_epoch(4)
    for i in reversed(range(6)):
        assert equal(twin[i], forwards[i])
    twin.set_epoch(5)
    assert not equal(twin[0], forwards[0])
    twin.set_epoch(4)
    assert equal(twin[0], forwards[0])
    assert not equal(synthetic(synthetic_set, seed=1)[0], synthetic(synthetic_set)[0])


@pytest.mark.usefixtures("fresh_processes")
@pytest.mark.parametrize("persistent", [False, True])
def test_workers_give_the_samples_of_one_process(synthetic_set: tuple[Path, Path], persistent: bool) -> None:
    dataset = synthetic(synthetic_set)
    loader = DataLoader(dataset, batch_size=5, num_workers=2, persistent_workers=persistent)
    for epoch in (0, 1):
        dataset.set_epoch(epoch)  # workers that live on must see it
        images = torch.cat([batch["image"] for batch in loader])
        expected = torch.stack([dataset[i]["image"] for i in range(len(dataset))])
        assert torch.equal(images, expected)


# Joint training


def test_data_sets_of_different_folders_and_skeletons_join(
    dotted: PersonDataset, synthetic_set: tuple[Path, Path]
) -> None:
    images, path = synthetic_set
    mapped = read_annotations(path).to_skeleton(CROWDPOSE).labelled()
    second = PersonDataset(mapped, images, SIZE, augmentation=Augmentation())
    joint = JointDataset([dotted, second, dotted])
    assert len(joint) == len(second) + 2
    assert equal(joint[0], dotted[0])
    assert [int(joint[i]["index"]) for i in (0, 3, len(joint) - 1)] == [0, 3, len(joint) - 1]
    own = {"index": torch.tensor(2), "picture": joint[3]["picture"] - 1}  # as its own set numbers them
    assert equal({**joint[3], **own}, second.sample(2, draw=3))
    joint.set_epoch(9)
    assert equal({**joint[3], **own}, second.sample(2, draw=3))
    batch = next(iter(DataLoader(joint, batch_size=len(joint))))
    assert batch["keypoints"].shape == (len(joint), 14, 2)
    assert batch["visible"][1:-1, 12:].sum() == 0  # COCO labels neither head nor neck
    assert batch["visible"][0, 12:].sum() == 2


# Real pictures


def test_real_sets_train_jointly(data_dir: Path) -> None:
    lspet = read_annotations(data_dir / "lspet14/annotations/lspet14_val.json").labelled()
    coco = read_annotations(data_dir / "coco_subset/annotations/person_keypoints_val2017.json")
    folders = [data_dir / "lspet14/images", data_dir / "coco_subset/images/val2017"]
    parts = [
        PersonDataset(
            annotations.to_skeleton(CROWDPOSE).labelled(), folder, SIZE, augmentation=Augmentation()
        )
        for annotations, folder in zip((lspet, coco), folders, strict=True)
    ]
    joint = JointDataset(parts)
    assert len(parts[0]) == 977
    picked = [joint[i] for i in range(0, len(joint), 40)]
    assert not any(int(sample["broken"]) for sample in picked)
    shares = [float(sample["visible"].mean()) for sample in picked]
    assert 0.4 < np.mean(shares) < 0.95
    assert all(float(sample["image"].float().std()) > 5 for sample in picked)
    for sample in picked:
        near = sample["keypoints"][sample["visible"] > 0]
        assert (near >= -12).all()
        assert (near < torch.tensor(SIZE) + 12).all()


# Pictures that are missing, damaged or of another size: said once, and the rest still comes.


SIZE = (96, 128)


def three_pictures(folder: Path, skeleton: Skeleton = COCO) -> Annotations:
    images, persons = {}, []
    joints = skeleton.num_joints
    for i in range(3):
        Image.fromarray(np.full((50, 40, 3), 80 * i, np.uint8)).save(folder / f"{i}.jpg")
        images[i] = ImageRecord(i, f"{i}.jpg", 40, 50)
        box = np.float32([5, 5, 30, 40])
        persons.append(Person(i, i, box, np.full((joints, 2), 15, np.float32), np.full(joints, 2), 500.0))
    return Annotations(folder / "three.json", skeleton, images, persons)


def test_missing_pictures_are_an_error(tmp_path: Path) -> None:
    annotations = three_pictures(tmp_path)
    (tmp_path / "1.jpg").unlink()
    with pytest.raises(InputError, match=r"1 of the 3 pictures listed in .*three\.json .*first: 1\.jpg"):
        PersonDataset(annotations, tmp_path, SIZE)
    with pytest.raises(InputError, match=r"3 of the 3 .*first: 0\.jpg, 1\.jpg, 2\.jpg"):
        PersonDataset(annotations, tmp_path / "nowhere", SIZE)


def test_pictures_without_persons_may_be_missing(tmp_path: Path) -> None:
    annotations = three_pictures(tmp_path)
    (tmp_path / "1.jpg").unlink()
    persons = [person for person in annotations.persons if person.image_id != 1]
    assert len(PersonDataset(replace(annotations, persons=persons), tmp_path, SIZE)) == 2


def test_a_broken_picture_is_flagged_and_the_rest_comes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    annotations = three_pictures(tmp_path)
    (tmp_path / "1.jpg").write_bytes((tmp_path / "1.jpg").read_bytes()[:200])
    dataset = PersonDataset(annotations, tmp_path, SIZE, augmentation=Augmentation())
    (batch,) = DataLoader(dataset, batch_size=3)
    assert batch["broken"].tolist() == [0, 1, 0]
    assert batch["visible"][1].sum() == 0
    assert batch["visible"][[0, 2]].sum() > 0
    assert "1.jpg: " in caplog.text
    assert dataset.failure(1).startswith(f"{tmp_path / '1.jpg'}: ")
    assert dataset.failure(0) == ""


def test_a_picture_of_another_size_than_recorded_is_broken(tmp_path: Path) -> None:
    annotations = three_pictures(tmp_path)
    Image.new("RGB", (80, 100)).save(tmp_path / "2.jpg")
    dataset = PersonDataset(annotations, tmp_path, SIZE)
    assert int(dataset[2]["broken"]) == 1
    assert "80x100" in dataset.failure(2)


# The draw of the augmentation: its ranges and shares are HRNet's, half bodies are halves.


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


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("scale", "a"),
        ("scale", 2.0),
        ("rotation", -3),
        ("flip", True),
        ("half_body", float("nan")),
        ("half_body_padding", 0),
    ],
)
def test_an_augmentation_out_of_range_is_named(name, value):
    with pytest.raises(InputError, match=f"augmentation {name} is .*must be a number"):
        Augmentation(**{name: value})


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
