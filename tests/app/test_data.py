"""``diffusionpose data check``: table, JSON, exit statuses."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., tuple[int, str, str]]


def test_help(run: Run) -> None:
    for words, named in (
        (["data"], ["check", "audit", "pack"]),
        (["data", "check"], ["--no-images", "--val-annotations"]),
    ):
        status, out, err = run(*words, "--help")
        assert (status, err) == (0, "")
        assert all(name in out for name in named)


def test_a_clean_set(run: Run, people: tuple[Path, Path]) -> None:
    status, out, err = run("data", "check", "--images", people[0], "--annotations", people[1])
    assert (status, err) == (0, "")
    assert f"{people[1]}: 12 pictures, 25 persons, 25 of them labelled, skeleton coco" in out
    assert "no errors" in out


def test_errors_stand_first_with_examples_and_cure(run: Run, people: tuple[Path, Path]) -> None:
    for number in range(1, 6):
        (people[0] / f"{number:06d}.jpg").unlink()
    status, out, err = run("data", "check", "--images", people[0], "--annotations", people[1])
    assert (status, err) == (1, "")
    lines = out.splitlines()
    row = next(i for i, line in enumerate(lines) if line.startswith("missing picture"))
    assert lines[row - 1].split() == ["CHECK", "SEVERITY", "COUNT", "EXAMPLES"]
    assert lines[row].split()[2:4] == ["error", "5"]
    assert lines[row].endswith(f"{people[0] / '000001.jpg'}: no such file")
    assert "000003.jpg" in lines[row + 2]
    assert lines[row + 3].strip() == "-> check the path"
    assert lines[-1].startswith("5 errors, ")


def test_json_holds_every_finding(run: Run, people: tuple[Path, Path]) -> None:
    for number in range(1, 6):
        (people[0] / f"{number:06d}.jpg").unlink()
    words = ["--images", people[0], "--annotations", people[1], "--json"]
    status, out, _ = run("data", "check", *words)
    content = json.loads(out)
    assert status == 1
    assert content["errors"] == 5
    assert content["files"][0]["persons"] == 25
    assert content["checks"][0] == {"check": "missing picture", "severity": "error", "count": 5}
    assert len(content["findings"]) == content["errors"] + content["warnings"]
    missing = [finding["image"] for finding in content["findings"] if finding["check"] == "missing picture"]
    assert missing == [f"{number:06d}.jpg" for number in range(1, 6)]


def test_examples_say_which_file(run: Run, people: tuple[Path, Path], tmp_path: Path) -> None:
    other = tmp_path / "other" / "people.json"
    other.parent.mkdir()
    shutil.copy(people[1], other)
    renamed = shutil.copy(people[1], tmp_path / "more.json")
    (people[0] / "000001.jpg").unlink()
    for second, first in ((other, str(people[1])), (renamed, "people.json")):
        words = ["--images", people[0], people[0], "--annotations", people[1], second]
        _, out, _ = run("data", "check", *words)
        row = next(line for line in out.splitlines() if line.startswith("missing picture"))
        assert f" 2  {first}: {people[0] / '000001.jpg'}: no such file" in row


def test_annotations_alone(run: Run, people: tuple[Path, Path]) -> None:
    shutil.rmtree(people[0])
    assert run("data", "check", "--no-images", "--annotations", people[1], people[1])[0] == 0
    assert (
        run("data", "check", "--no-images", "--annotations", people[1], "--val-annotations", people[1])[0]
        == 0
    )


def test_training_and_validation(run: Run, people: tuple[Path, Path]) -> None:
    words = ["--images", people[0], "--annotations", people[1]]
    status, out, _ = run("data", "check", *words, "--val-images", people[0], "--val-annotations", people[1])
    assert status == 1
    assert "picture in train and val" in out
    assert "12 errors" in out


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--annotations", "a.json"], "give --images, or --no-images"),
        (["--annotations", "a.json", "--images", "i", "--val-images", "v"], "go together"),
        (["--annotations", "a.json", "--images", "i", "--val-annotations", "v"], "go together"),
        (["--annotations", "a.json", "--images", "i", "--workers", "-1"], "--workers"),
        (["--annotations", "--no-images"], "--annotations"),
        (["--no-images"], "--annotations"),
    ],
)
def test_options_that_do_not_go_together_exit_with_2(run: Run, words: list[str], complaint: str) -> None:
    status, out, err = run("data", "check", *words)
    assert (status, out) == (2, "")
    assert complaint in err


@pytest.mark.parametrize(
    ("images", "annotations", "complaint"),
    [
        (["images", "images"], ["people.json"], "give one folder for each file"),
        (["nowhere"], ["people.json"], "no such folder of images"),
        (["images"], ["nowhere.json"], "nowhere.json: no such file"),
        (["images"], ["broken.json"], "broken.json: not a JSON file"),
    ],
)
def test_what_cannot_be_checked_is_one_message(
    run: Run, people: tuple[Path, Path], images: list[str], annotations: list[str], complaint: str
) -> None:
    folder = people[1].parent
    (folder / "broken.json").write_text("{")
    words = ["--images", *(folder / name for name in images)]
    words += ["--annotations", *(folder / name for name in annotations)]
    status, out, err = run("data", "check", *words)
    assert (status, out) == (1, "")
    assert err.startswith("diffusionpose: ")
    assert complaint in err
    assert err.count("\n") == 1


def test_a_skeleton_of_your_own(run: Run, people: tuple[Path, Path]) -> None:
    yaml = people[1].with_name("own.yaml")
    yaml.write_text("joints:\n" + "".join(f"  j{j}: {{sigma: 0.1}}\n" for j in range(17)))
    content = json.loads(people[1].read_text())
    content["categories"][0]["keypoints"] = [f"j{j}" for j in range(17)]
    people[1].write_text(json.dumps(content))
    words = ["--no-images", "--annotations", people[1]]
    assert run("data", "check", *words)[0] == 0  # its own joints, the usual sigmas
    status, out, _ = run("data", "check", *words, "--skeleton", yaml)
    assert status == 0
    assert "skeleton own" in out


def test_packed_people_are_trained_and_validated_like_pictures(
    run: Run, people: tuple[Path, Path], tmp_path: Path
) -> None:
    (people[0] / "000003.jpg").write_bytes(b"")
    pack = tmp_path / "pack"
    words = ["--images", people[0], "--annotations", people[1], "--output", pack, "--input-size", 64, 96]
    status, out, err = run("data", "pack", *words)
    assert (status, out.startswith(f"{pack / 'annotations.json'}: ")) == (1, True)
    assert "000003.jpg: the file is empty" in err
    assert run("data", "pack", *words).status == 1, "what is left out is told again"

    here = ["--images", pack, pack, "--annotations", *[pack / "annotations.json"] * 2, "--shares", 1, 0.5]
    here += ["--val-images", pack, "--val-annotations", pack / "annotations.json", "--output", tmp_path / "r"]
    options = ["--skeleton", "coco", "--epochs", 1, "--workers", 0, "--accelerator", "cpu"]
    status, out, err = run("train", "diffusionpose_tiny_synthetic", *here, *options)
    assert (status, err) == (0, "")
    assert "AP" in out


def test_packed_people_are_not_checked(run: Run, people: tuple[Path, Path], tmp_path: Path) -> None:
    run("data", "pack", "--images", people[0], "--annotations", people[1], "--output", tmp_path / "pack")
    words = ["--images", tmp_path / "pack", "--annotations", tmp_path / "pack" / "annotations.json"]
    status, _, err = run("data", "check", *words)
    assert status == 1
    assert "check the pictures that it was made of" in err
