"""Training of the people finder: it learns, keeps everything, and resumes as if nothing had happened."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from diffusionpose.errors import InputError
from diffusionpose.models.people_finder import PeopleFinder
from diffusionpose.training.people import FinderSettings, Scene, augmented, train_people_finder
from diffusionpose.training.settings import ImageSet

NOBODY = np.zeros((0, 4), np.float32)
TINY = FinderSettings(
    epochs=2,
    batch_size=4,
    canvases=((64, 96), (96, 64)),
    longer_side=(64, 128),
    held_out=4,
    input_size=96,
    width=0.25,
    frozen=2,
    bf16=False,
)


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("start") / "start.safetensors"
    save_file(PeopleFinder(width=0.25).state_dict(), path)
    return path


def silent(line: str) -> None:
    pass


def test_resumed_is_as_uninterrupted(synthetic_set: tuple[Path, Path], start: Path, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    best = train_people_finder(TINY, [ImageSet(*synthetic_set)], start, whole, silent)
    assert best == whole / "best.safetensors"
    (parts).mkdir()

    lines: list[str] = []

    def interrupt(line: str) -> None:
        lines.append(line)
        if line.startswith("epoch 2, step 0"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_people_finder(TINY, [ImageSet(*synthetic_set)], start, parts, interrupt)
    assert not (parts / "epoch_2.safetensors").exists()
    train_people_finder(TINY, [ImageSet(*synthetic_set)], start, parts, lines.append)
    ours, theirs = (load_file(folder / "epoch_2.safetensors") for folder in (parts, whole))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    with (parts / "metrics.csv").open() as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == ["0", "1", "2"]
    first = load_file(start)
    moved = {name for name in first if not torch.equal(first[name], theirs[name])}
    assert moved
    assert not any(name.startswith(("backbone.stem", "backbone.blocks.1.")) for name in moved)  # frozen


def test_other_settings_need_another_folder(
    synthetic_set: tuple[Path, Path], start: Path, tmp_path: Path
) -> None:
    none = replace(TINY, epochs=0)
    train_people_finder(none, [ImageSet(*synthetic_set)], start, tmp_path, silent)
    with pytest.raises(InputError, match="a training with other seed"):
        train_people_finder(replace(none, seed=1), [ImageSet(*synthetic_set)], start, tmp_path, silent)


@pytest.mark.parametrize(
    ("name", "value"), [("held_out", 0), ("batch_size", 0), ("frozen", 18), ("seed", -1)]
)
def test_a_value_out_of_range_names_its_option(name: str, value: int) -> None:
    with pytest.raises(InputError, match="--" + name.replace("_", "-")):
        replace(TINY, **{name: value})


@pytest.mark.parametrize("changes", [{"held_out": 160}, {"batch_size": 9}])
def test_too_few_pictures_for_a_step_are_told_before_anything(
    changes: dict[str, int], synthetic_set: tuple[Path, Path], start: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=r"of 12 pictures held out .*--held-out or --batch-size"):
        train_people_finder(replace(TINY, **changes), [ImageSet(*synthetic_set)], start, tmp_path, silent)
    assert not (tmp_path / "settings.json").exists()


def test_boxes_follow_their_persons_through_the_augmentation() -> None:
    image = np.zeros((100, 150, 3), np.uint8)
    image[20:80, 30:60] = 255
    scene = Scene(Path("none"), np.array([[30, 20, 60, 80]], np.float32), NOBODY)
    seen = 0
    for seed in range(20):
        shown, targets = augmented(scene, image, (96, 64), (48, 200), np.random.default_rng(seed))
        assert shown.shape == (64, 96, 3)
        if not (targets.center == 1).any():
            continue
        y, x = (int(each) for each in np.argwhere(targets.center.numpy() == 1)[0])
        x0, y0, x1, y1 = targets.boxes[:, y, x].numpy()
        bright = shown.max(axis=2) > 200
        rows, columns = np.nonzero(bright)
        assert np.allclose(
            [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1], [x0, y0, x1, y1], atol=2
        )
        seen += 1
    assert seen >= 10


def test_a_person_cut_away_is_neither_learned_nor_unlearned() -> None:
    image = np.zeros((64, 64, 3), np.uint8)
    boxes = np.array([[0, 0, 64, 64]], np.float32)
    for seed in range(5):
        _, targets = augmented(
            Scene(Path("none"), boxes, NOBODY), image, (32, 32), (128, 129), np.random.default_rng(seed)
        )
        assert not (targets.center == 1).any()
        assert not targets.known.any()
