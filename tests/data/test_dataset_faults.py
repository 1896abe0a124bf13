"""Pictures that are missing, damaged or of another size: said once, and the rest still comes."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torch.utils.data import DataLoader

from diffusionpose.data.annotations import Annotations, ImageRecord, Person
from diffusionpose.data.dataset import Augmentation, PersonDataset
from diffusionpose.errors import InputError
from diffusionpose.skeletons import COCO, Skeleton

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


def test_missing_pictures_are_an_error_or_left_out(tmp_path: Path) -> None:
    annotations = three_pictures(tmp_path)
    (tmp_path / "1.jpg").unlink()
    with pytest.raises(InputError, match=r"1 of the 3 pictures listed in .*three\.json .*first: 1\.jpg"):
        PersonDataset(annotations, tmp_path, SIZE)
    dataset = PersonDataset(annotations, tmp_path, SIZE, skip_missing=True)
    assert dataset.failures == [f"{tmp_path / '1.jpg'}: no such file"]
    assert [int(dataset[i]["image"].max()) for i in range(len(dataset))] == [0, 160]
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
