"""Packs: samples as from the pictures, written whole or not at all, and every fault told in one message."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from diffusionpose.data import pack
from diffusionpose.data.annotations import Annotations, read_annotations
from diffusionpose.data.augmentation import Augmentation
from diffusionpose.data.dataset import PersonDataset
from diffusionpose.data.pack import PackOptions, pack_persons
from diffusionpose.errors import InputError
from diffusionpose.skeletons import CROWDPOSE

Set = tuple[Path, Path]


@pytest.fixture(scope="module")
def packed(synthetic_set: Set, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(synthetic_set, tmp_path_factory.mktemp("packs") / "raw")


@pytest.fixture
def copy(packed: Path, tmp_path: Path) -> Path:
    """A pack to spoil."""
    return Path(shutil.copytree(packed, tmp_path / "copy"))


def make(pictures: Set, output: Path, options: PackOptions | None = None) -> Path:
    images, annotations = pictures
    pack_persons(read_annotations(annotations), images, output, options or PackOptions(), workers=1)
    return output


def dataset(
    pictures: Set, size: tuple[int, int] = (192, 256), augmentation: Augmentation | None = None
) -> PersonDataset:
    images, path = pictures
    annotations = read_annotations(path).to_skeleton(CROWDPOSE).labelled()
    return PersonDataset(annotations, images, size, True, augmentation or Augmentation(), seed=3)


def of_pack(folder: Path) -> Set:
    return folder, folder / "annotations.json"


@pytest.mark.parametrize(
    ("options", "levels"),
    [
        (PackOptions(), 0.5),
        (PackOptions(jpeg=95), 2.5),
        (PackOptions(input_size=(48, 64)), 4.0),  # persons are larger: scaled down
    ],
)
def test_samples_are_those_of_the_pictures(
    synthetic_set: Set, tmp_path: Path, options: PackOptions, levels: float
) -> None:
    folder = make(synthetic_set, tmp_path / "pack", options)
    straight, packed = (dataset(one, options.input_size) for one in (synthetic_set, of_pack(folder)))
    assert len(packed) == len(straight) > 12
    differences = []
    for epoch in range(6):
        for data in (straight, packed):
            data.set_epoch(epoch)
        for index in range(len(straight)):
            ours, theirs = packed[index], straight[index]
            assert (ours["visible"] == theirs["visible"]).all()
            seen = ours["visible"] > 0
            assert np.allclose(ours["keypoints"][seen], theirs["keypoints"][seen], atol=0.01)
            assert (ours["angle"], ours["index"]) == (theirs["angle"], theirs["index"])
            differences.append(np.abs(ours["image"].numpy().astype(int) - theirs["image"].numpy()).mean())
    assert np.mean(differences) < levels
    assert max(differences) < 4 * levels  # none shows less of the picture


def test_a_pack_holds_what_evaluation_needs(synthetic_set: Set, packed: Path) -> None:
    before, after = (read_annotations(path).labelled() for path in (synthetic_set[1], of_pack(packed)[1]))
    assert before.skeleton == after.skeleton
    for one, other in zip(before.persons, after.persons, strict=True):
        assert (one.id, one.num_keypoints) == (other.id, other.num_keypoints)
        assert one.area == pytest.approx(other.area)  # none is scaled at this size
        assert one.box[2:] - one.box[:2] == pytest.approx(other.box[2:] - other.box[:2], abs=1e-3)
        assert before.images[one.image_id].file_name == after.images[other.image_id].file_name


def test_the_same_again_does_nothing_and_something_else_is_refused(synthetic_set: Set, packed: Path) -> None:
    before = {file: file.stat().st_mtime_ns for file in packed.iterdir()}
    make(synthetic_set, packed)
    assert before == {file: file.stat().st_mtime_ns for file in packed.iterdir()}
    with pytest.raises(InputError, match="holds another pack"):
        make(synthetic_set, packed, PackOptions(jpeg=90))


def test_an_interrupted_run_is_not_used_and_done_over(
    synthetic_set: Set, packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut, done = pack.cut_person, []

    def stop(*arguments: object) -> object:
        done.append(1)
        if len(done) > 8:
            raise KeyboardInterrupt
        return cut(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(pack, "cut_person", stop)
        patch.setattr(pack, "SHARD", 100_000)
        patch.setattr(pack, "AHEAD", 1)
        with pytest.raises(KeyboardInterrupt):
            make(synthetic_set, tmp_path)
    assert list(tmp_path.glob("shard-*.bin"))
    with pytest.raises(InputError, match=r"annotations\.json: no such file"):
        dataset(of_pack(tmp_path))
    make(synthetic_set, tmp_path)
    names = {"shard-000.bin", "pack.json", "annotations.json"}
    assert {file.name for file in tmp_path.iterdir()} - {".lock"} == names
    assert all((tmp_path / name).read_bytes() == (packed / name).read_bytes() for name in names)


def test_several_shards_hold_the_same(
    synthetic_set: Set, packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pack, "SHARD", 100_000)
    make(synthetic_set, tmp_path)
    assert len(list(tmp_path.glob("shard-*.bin"))) > 3
    one, other = dataset(of_pack(packed)), dataset(of_pack(tmp_path))
    assert all((one[index]["image"] == other[index]["image"]).all() for index in range(len(one)))


def test_a_picture_that_cannot_be_read_costs_its_persons_alone(
    synthetic_set: Set, packed: Path, tmp_path: Path
) -> None:
    images = Path(shutil.copytree(synthetic_set[0], tmp_path / "images"))
    broken = images / "000002.jpg"
    broken.write_bytes(broken.read_bytes()[:2000])
    annotations = read_annotations(synthetic_set[1])
    report = pack_persons(annotations, images, tmp_path / "pack", PackOptions())
    (message,) = report.left_out
    assert message.startswith(f"{broken}: damaged or cut short")
    lost = [person.id for person in annotations.labelled().persons if person.image_id == 2]
    kept = [person.id for person in dataset(of_pack(tmp_path / "pack")).persons]
    assert kept == [person.id for person in dataset(of_pack(packed)).persons if person.id not in lost]


def test_a_missing_picture_is_told_before_any_work(synthetic_set: Set, tmp_path: Path) -> None:
    images = Path(shutil.copytree(synthetic_set[0], tmp_path / "images"))
    (images / "000003.jpg").unlink()
    with pytest.raises(InputError, match=r"1 of the 12 .*000003\.jpg"):
        make((images, synthetic_set[1]), tmp_path / "pack")
    assert not list((tmp_path / "pack").glob("*"))


@pytest.mark.parametrize(
    ("name", "spoil", "complaint"),
    [
        ("shard-000.bin", lambda content: content[: len(content) // 2], "bytes are there"),
        ("pack.json", lambda content: content.replace(b'"version": 1', b'"version": 9'), "of version 9"),
        ("pack.json", lambda content: content[:200], "not a JSON file, or cut short"),
        ("pack.json", lambda content: b'{"version": 1, "shards": []}', "damaged"),
        ("annotations.json", lambda content: content.replace(b'"area": ', b'"area": 1'), "as it was packed"),
    ],
)
def test_what_is_damaged_is_one_message(copy: Path, name: str, spoil, complaint: str) -> None:
    (copy / name).write_bytes(spoil((copy / name).read_bytes()))
    with pytest.raises(InputError, match=complaint) as told:
        dataset(of_pack(copy))
    assert str(copy / name) in str(told.value)


def test_a_damaged_jpeg_is_a_broken_sample(synthetic_set: Set, tmp_path: Path) -> None:
    folder = make(synthetic_set, tmp_path, PackOptions(jpeg=80))
    shard, _, length = json.loads((folder / "pack.json").read_text())["places"][0]
    content = bytearray((folder / "shard-000.bin").read_bytes())
    content[:length] = bytes(length)
    (folder / "shard-000.bin").write_bytes(content)
    data = dataset(of_pack(folder))
    assert (shard, int(data[0]["broken"]), int(data[1]["broken"])) == (0, 1, 0)
    assert "damaged in" in data.failure(0)


def test_packed_pixels_and_annotations_go_together(synthetic_set: Set, packed: Path) -> None:
    for pair in ((packed, synthetic_set[1]), (synthetic_set[0], packed / "annotations.json")):
        with pytest.raises(InputError, match=rf"give --images {packed}"):
            dataset(pair)
    with pytest.raises(InputError, match="packed already"):
        make(of_pack(packed), packed.parent / "again")


def test_a_training_that_needs_a_wider_margin_is_refused(packed: Path) -> None:
    for size in ((256, 256), (240, 320)):
        with pytest.raises(InputError, match=f"--input-size {size[0]} {size[1]}"):
            dataset(of_pack(packed), size)
    with pytest.raises(InputError, match=r"pack it again with --scale 0\.5"):
        dataset(of_pack(packed), augmentation=Augmentation(scale=0.5))
    with pytest.raises(InputError, match=r"half_body_padding 1\.5"):
        dataset(of_pack(packed), augmentation=Augmentation(half_body_padding=2.0))
    dataset(of_pack(packed), (96, 128), Augmentation(scale=0.2, rotation=90.0))


@pytest.mark.parametrize("wrong", [{"input_size": (16, 16)}, {"scale": 1.0}, {"jpeg": 0}])
def test_options_out_of_range(wrong: dict[str, object]) -> None:
    with pytest.raises(InputError, match="--"):
        replace(PackOptions(), **wrong)


def test_nobody_labelled_is_an_empty_pack(synthetic_set: Set, tmp_path: Path) -> None:
    annotations: Annotations = replace(read_annotations(synthetic_set[1]), persons=[])
    report = pack_persons(annotations, synthetic_set[0], tmp_path, PackOptions())
    assert (report.persons, report.size) == (0, 0)
