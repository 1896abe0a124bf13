"""Pictures that cannot be used, and pictures that are there twice: each found once, and nothing else."""

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from diffusionpose.data.annotations import Finding
from diffusionpose.data.check import (
    FAULTS,
    KINDS,
    NEAR,
    NEAR_MIRRORED,
    CheckReport,
    PictureFile,
    SetToCheck,
    check_sets,
    facts_of,
    look_of,
    open_pictures,
)
from diffusionpose.data.synthetic import write_synthetic
from diffusionpose.errors import InputError
from diffusionpose.runtime.images import read_image


@dataclass(frozen=True)
class Sets:
    """A training and a validation set that a test may spoil."""

    train: Path
    val: Path

    def first(self, which: str = "train") -> Path:
        return getattr(self, which) / "images" / "000001.jpg"

    def change(self, which: str, change: Callable[[Any], None]) -> None:
        path = getattr(self, which) / "annotations.json"
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))

    def rename(self, which: str, old: str, new: str) -> None:
        """A picture, in the folder and in the file."""
        folder = getattr(self, which) / "images"
        (folder / old).rename(folder / new)

        def write(content: Any) -> None:
            for image in content["images"]:
                if image["file_name"] == old:
                    image["file_name"] = new

        self.change(which, write)

    def check(self, workers: int | None = None) -> CheckReport:
        train = SetToCheck(self.train / "annotations.json", self.train / "images")
        val = SetToCheck(self.val / "annotations.json", self.val / "images", validation=True)
        return check_sets([train, val], workers=workers)

    def found(self) -> list[Finding]:
        """Without the guesses about left and right, which are no matter of pictures."""
        return [finding for finding in self.check().findings if "left/right" not in finding.check]


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sets")
    write_synthetic(folder / "train", 6, seed=0)
    write_synthetic(folder / "val", 3, seed=1)
    return folder


@pytest.fixture
def sets(drawn: Path, tmp_path: Path) -> Sets:
    shutil.copytree(drawn, tmp_path / "sets")
    return Sets(tmp_path / "sets" / "train", tmp_path / "sets" / "val")


def only(sets: Sets, check: str, severity: str) -> Finding:
    (finding,) = sets.found()
    assert (finding.check, finding.severity) == (check, severity)
    return finding


def test_good_sets_have_no_findings(sets: Sets) -> None:
    assert sets.found() == []


def test_a_missing_picture(sets: Sets) -> None:
    sets.first().unlink()
    finding = only(sets, "missing picture", "error")
    assert finding.image == "000001.jpg"
    assert finding.file == str(sets.train / "annotations.json")


def test_a_missing_picture_of_nobody_is_a_warning(sets: Sets) -> None:
    entry = {"id": 99, "file_name": "none.jpg", "width": 5, "height": 5}
    sets.change("val", lambda content: content["images"].append(entry))
    only(sets, "missing picture", "warning")


@pytest.mark.parametrize("content", [b"", b"no picture", None])
def test_an_unreadable_picture(content: bytes | None, sets: Sets) -> None:
    whole = sets.first().read_bytes()
    sets.first().write_bytes(whole[: len(whole) // 2] if content is None else content)
    finding = only(sets, "unreadable picture", "error")
    assert "000001.jpg" in finding.message


def test_a_picture_of_another_size(sets: Sets) -> None:
    with Image.open(sets.first()) as image:
        image.resize((160, 120)).save(sets.first())
    finding = only(sets, "picture size", "error")
    assert "160x120" in finding.message


def test_a_picture_in_both_sets_under_another_name(sets: Sets) -> None:
    shutil.copy(sets.first(), sets.first("val"))
    sets.rename("val", "000001.jpg", "renamed.jpg")
    finding = only(sets, "picture in train and val", "error")
    assert finding.image == "renamed.jpg"
    assert "the same file" in finding.message


def test_the_same_pixels_saved_anew(sets: Sets) -> None:
    Image.fromarray(read_image(sets.first())).save(sets.first("val").with_suffix(".png"))
    sets.first("val").unlink()
    shutil.move(sets.first("val").with_suffix(".png"), sets.first("val"))  # PNG, whatever its name
    assert "saved anew" in only(sets, "picture in train and val", "error").message


def test_a_broken_picture_in_both_sets_is_the_same_file(sets: Sets) -> None:
    for which in ("train", "val"):
        sets.first(which).write_bytes(b"broken alike")
    checks = [finding.check for finding in sets.found()]
    assert checks == ["unreadable picture", "unreadable picture", "picture in train and val"]


def test_a_picture_twice_in_one_set(sets: Sets) -> None:
    for number in (2, 3):
        shutil.copy(sets.first(), sets.train / "images" / f"00000{number}.jpg")
    finding = only(sets, "picture listed twice", "warning")
    assert "3 times in all" in finding.message


def test_one_file_under_two_ids_is_told_once(sets: Sets) -> None:
    sets.change("train", lambda c: c["images"].append(c["images"][0] | {"id": 77}))
    only(sets, "file under two ids", "warning")


def test_a_missing_picture_of_somebody_under_another_id_is_an_error(sets: Sets) -> None:
    sets.first().unlink()

    def list_another_id_first(content: Any) -> None:
        (first,) = [image for image in content["images"] if image["file_name"] == "000001.jpg"]
        content["images"].insert(0, {**first, "id": 999})

    sets.change("train", list_another_id_first)
    found = {(finding.check, finding.severity) for finding in sets.found()}
    assert found == {("file under two ids", "warning"), ("missing picture", "error")}


@pytest.mark.parametrize(
    ("name", "check", "reason"),
    [
        (300 * "x" + ".jpg", "missing picture", "File name too long"),
        ("a\0b.jpg", "missing picture", "null"),
    ],
)
def test_names_that_no_file_can_have(name: str, check: str, reason: str, sets: Sets) -> None:
    def rename(content: Any) -> None:
        content["images"][0]["file_name"] = name

    sets.change("train", rename)
    assert reason in only(sets, check, "error").message


def test_validating_on_the_training_set(sets: Sets) -> None:
    report = Sets(sets.train, sets.train).check()
    assert [f.check for f in report.findings if f.severity == "error"] == ["picture in train and val"] * 6


def test_two_training_sets_side_by_side(sets: Sets) -> None:
    two = [SetToCheck(folder / "annotations.json", folder / "images") for folder in (sets.train, sets.val)]
    shutil.copy(sets.first(), sets.first("val"))
    report = check_sets(two)
    assert [count.images for count in report.counts] == [6, 3]
    assert [f.check for f in report.findings if "left/right" not in f.check] == ["picture listed twice"]


def smaller(image: Image.Image) -> Image.Image:
    return image.resize((200, 150))


def brighter(image: Image.Image) -> Image.Image:
    return image.point(lambda v: min(255, int(1.1 * v + 10)))


def mirrored(image: Image.Image) -> Image.Image:
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)


@pytest.mark.parametrize("change", [smaller, brighter, mirrored])
def test_a_near_copy_in_both_sets_is_a_warning(
    change: Callable[[Image.Image], Image.Image], sets: Sets
) -> None:
    with Image.open(sets.first()) as image:
        change(image).save(sets.first("val"), quality=70)
    size = {"width": 200, "height": 150} if change is smaller else {}
    sets.change("val", lambda content: content["images"][0].update(size))
    found = [f for f in sets.found() if f.check not in ("keypoint outside picture", "box outside picture")]
    (finding,) = (f for f in found if "box without" not in f.check)
    assert (finding.check, finding.severity) == ("near-copy in train and val", "warning")
    assert ("mirror" in finding.message) == (change is mirrored)


def test_the_look_of_a_picture(picture: np.ndarray) -> None:
    look, mirror = look_of(picture)
    assert look is not None
    assert mirror is not None
    assert look_of(np.ascontiguousarray(picture[:, ::-1])) == (mirror, look)
    assert 0 <= look < 2**64
    assert look.bit_count() == 31  # of 63 numbers those above the median
    assert look_of(np.full((50, 60, 3), 90, np.uint8)) == (None, None)


def test_workers_find_what_one_process_finds(sets: Sets) -> None:
    sets.first().unlink()
    shutil.copy(sets.train / "images" / "000002.jpg", sets.first("val"))
    done: list[tuple[int, int]] = []
    requests = [PictureFile(path, 320, 240) for path in sorted(sets.train.glob("images/*"))]
    alone = open_pictures(requests * 2, workers=0)
    assert open_pictures(requests, 2, lambda *numbers: done.append(numbers)) == alone
    assert done == [(n, 5) for n in range(1, 6)]
    assert sets.check(workers=2) == sets.check(workers=1)


def test_missing_and_empty_folders_are_one_message(sets: Sets, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for folder, complaint in (("nowhere", "no such folder"), ("empty", "an empty folder")):
        with pytest.raises(InputError, match=complaint):
            check_sets([SetToCheck(sets.train / "annotations.json", tmp_path / folder)])


def test_the_docs_list_every_check() -> None:
    root = Path(__file__).parents[2]
    text = (root / "docs" / "checks.md").read_text(encoding="utf-8")
    rows = " ".join(line for line in text.splitlines() if line.startswith("| "))
    code = " ".join(
        path.read_text(encoding="utf-8") for path in (root / "src/diffusionpose/data").glob("*.py")
    )
    named = [*KINDS, *FAULTS, *re.findall(r'(?:Finding|EntryError)\(\s*"([^"]+)"', code)]
    named += re.findall(r'find\(\s*"(?:error|warning)"[^,]*, "([^"]+)"', code)
    assert len(set(named)) >= 35
    assert sorted(name for name in set(named) if name not in rows and name != "boxes") == []


def test_real_sets_share_no_picture(data_dir: Path) -> None:
    folder = data_dir / "coco_subset"
    sets = [
        SetToCheck(
            folder / f"annotations/person_keypoints_{part}2017.json",
            folder / f"images/{part}2017",
            part == "val",
        )
        for part in ("train", "val")
    ]
    report = check_sets(sets)
    assert report.errors == 0
    assert {f.check for f in report.findings} <= {"person without joints", "left/right, limbs"}


def test_near_copies_of_real_pictures(data_dir: Path) -> None:
    """Found in other sizes and qualities; 400 validation pictures against 1,500 others raise no alarm."""
    folder = data_dir / "lspet14"
    names = {}
    for part, count in (("train", 1500), ("val", 400)):
        content = json.loads((folder / f"annotations/lspet14_{part}.json").read_text())
        names[part] = [image["file_name"] for image in content["images"][:count]]
    facts = {
        part: [facts_of(PictureFile(folder / "images" / name, 0, 0)) for name in names[part]]
        for part in names
    }
    train = np.asarray([[f.look, f.mirrored] for f in facts["train"]], dtype=np.uint64)
    looks = np.asarray([f.look for f in facts["val"]], dtype=np.uint64)
    bits = np.bitwise_count(looks[:, None, None] ^ train)
    assert bits[:, :, 0].min() > NEAR
    assert bits[:, :, 1].min() > NEAR_MIRRORED
    for name, fact in list(zip(names["val"], facts["val"], strict=True))[:100]:
        image = Image.fromarray(read_image(folder / "images" / name))
        half = image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX)
        look, _ = look_of(np.asarray(half))
        assert look is not None
        assert fact.look is not None
        assert (look ^ fact.look).bit_count() <= NEAR
