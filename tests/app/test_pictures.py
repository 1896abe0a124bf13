import os
from pathlib import Path

import pytest

from diffusionpose import InputError
from diffusionpose.app.options import make_folder
from diffusionpose.app.predict import named_pictures
from diffusionpose.errors import write_file
from diffusionpose.json_files import write_json
from diffusionpose.runtime.images import list_pictures, read_image


def touch(folder: Path, *names: str) -> list[Path]:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return [folder / name for name in names]


def find_pictures(given, known_id):
    files, problems, remarks = list_pictures(given)
    return named_pictures(files, known_id), problems + remarks


def test_what_a_folder_holds_beside_its_pictures_is_named(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "b.HEIC", "c.jfif", "sub/d.jpg", "sub/e/f.png", "notes.txt", "empty/x.txt")
    files, problems, remarks = list_pictures([tmp_path])
    assert [file.name for file in files] == ["a.jpg", "c.jfif"]
    assert [problem.split(": ")[0] for problem in problems] == [str(tmp_path / "b.HEIC")]
    (remark,) = remarks
    assert f"{tmp_path / 'sub'}) hold pictures as well; --recursive" in remark
    files, _, remarks = list_pictures([tmp_path], recursive=True)
    assert [file.name for file in files] == ["a.jpg", "c.jfif", "d.jpg", "f.png"]
    assert remarks == []


def test_links_in_a_folder(tmp_path: Path) -> None:
    touch(tmp_path, "far/a.jpg", "here/b.jpg")
    for name, to in (("linked", tmp_path / "far"), ("gone.jpg", "nowhere"), ("loop.jpg", "loop.jpg")):
        (tmp_path / "here" / name).symlink_to(to)
    for recursive in (False, True):
        files, _, (remark,) = list_pictures([tmp_path / "here"], recursive)
        assert [file.name for file in files] == ["b.jpg", "gone.jpg", "loop.jpg"], "to be told when read"
        assert "here/linked) hold pictures as well; they are links: name them" in remark


def test_the_output_is_no_part_of_a_folder_of_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path, "in/a.jpg", "in/out/a.png", "in/outer/b.png")
    monkeypatch.chdir(tmp_path)
    for given, output, names in (
        (Path("in"), tmp_path / "in/out", ["in/a.jpg", "in/outer/b.png"]),
        (tmp_path / "in", Path("in/out/below/that"), ["in/a.jpg", "in/out/a.png", "in/outer/b.png"]),
        (Path("in/out"), Path("in"), ["in/out/a.png"]),
    ):
        files, _, _ = list_pictures([given], recursive=True, output=output)
        assert [file.absolute() for file in files] == [tmp_path / name for name in names]
    (remark,) = list_pictures([Path("in")], output=Path("in/out"))[2]
    assert "(in/outer)" in remark


@pytest.mark.parametrize("name", ["a" * 300 + ".jpg", "loop.jpg", "a\0.jpg"])
def test_a_path_that_cannot_be_looked_at_is_told_when_it_is_read(tmp_path: Path, name: str) -> None:
    if name == "loop.jpg":
        (tmp_path / name).symlink_to(name)
    files, problems, _ = list_pictures([tmp_path / name])
    assert (files, problems) == ([tmp_path / name], [])
    with pytest.raises(InputError, match=r"\.jpg: .*(cannot be read|null byte)"):
        read_image(files[0])


def test_patterns(tmp_path: Path) -> None:
    touch(tmp_path, "x/a.jpg", "y/b.jpg", "y/[1].jpg")
    assert [f.name for f in list_pictures([tmp_path / "*" / "*.jpg"])[0]] == ["a.jpg", "[1].jpg", "b.jpg"]
    assert [f.name for f in list_pictures([tmp_path / "y" / "[1].jpg"])[0]] == ["[1].jpg"]
    files, (problem,), _ = list_pictures([tmp_path / "*.png"])
    assert (files, problem) == ([], f"{tmp_path / '*.png'}: no file fits this pattern; check it")


def test_a_folder_stands_for_its_pictures_in_order(tmp_path: Path) -> None:
    touch(tmp_path, "b.JPG", "a.png", "notes.txt", "._a.png", ".thumbs/d.jpg")
    (tmp_path / "folder.jpg").mkdir()
    pictures, problems = find_pictures([tmp_path], lambda path: None)
    assert [picture.file_name for picture in pictures] == ["a.png", "b.JPG"]
    assert [picture.drawn for picture in pictures] == ["a.png", "b.png"]
    assert [picture.image_id for picture in pictures] == [1, 2]
    assert problems == []


def test_an_empty_folder_is_a_problem_and_the_rest_is_taken(tmp_path: Path) -> None:
    (photo,) = touch(tmp_path, "a.jpg")
    touch(tmp_path, "none/notes.txt")
    pictures, problems = find_pictures([tmp_path / "none", photo], lambda path: None)
    assert len(pictures) == 1
    assert len(problems) == 1
    assert str(tmp_path / "none") in problems[0]
    assert ".jpg" in problems[0]


def test_the_same_picture_twice_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (photo,) = touch(tmp_path, "a.jpg")
    monkeypatch.chdir(tmp_path)
    pictures, _ = find_pictures(
        [photo, tmp_path, Path("a.jpg"), Path("../") / tmp_path.name / "a.jpg"], lambda p: None
    )
    assert len(pictures) == 1


def test_equal_names_are_kept_apart(tmp_path: Path) -> None:
    files = touch(tmp_path, "1/x.jpg", "2/x.jpg", "2/X.png", "2/x_2.jpg", "3/y.jpg")
    pictures, _ = find_pictures(files, lambda path: None)
    drawn = [picture.drawn for picture in pictures]
    assert drawn == ["x.png", "x_3.png", "X_4.png", "x_2.png", "y.png"]
    assert len({name.lower() for name in drawn}) == 5
    names = [picture.file_name for picture in pictures]
    assert names == [files[0].as_posix(), files[1].as_posix(), "X.png", "x_2.jpg", "y.jpg"]


def test_numbers_come_from_the_boxes_the_name_or_what_is_free(tmp_path: Path) -> None:
    names = ["000000000785.jpg", "b.jpg", "im3.jpg", "c.jpg", "other/im3.jpg", "7.jpg"]
    pictures, _ = find_pictures([tmp_path / name for name in names], {tmp_path / "c.jpg": 7}.get)
    assert [picture.image_id for picture in pictures] == [785, 1, 3, 7, 2, 4]


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", [{"a": 1}, {"b": [1, 2]}])
    assert (tmp_path / "a.json").read_text() == '[\n{"a": 1},\n{"b": [1, 2]}\n]\n'
    write_json(tmp_path / "a.json", [])
    assert (tmp_path / "a.json").read_text().split() == ["[", "]"]
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.json", {"a": float("nan")})
    assert (tmp_path / "a.json").read_text().split() == ["[", "]"], "the old file is still there"
    (tmp_path / "taken").mkdir()
    with pytest.raises(InputError, match="taken"):
        write_file(tmp_path / "taken", b"x")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.json", "taken"]


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, "file")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(InputError, match=r"--output .*file.*; name another"):
            make_folder(folder)
    make_folder(tmp_path / "new" / "folder")
    assert list((tmp_path / "new" / "folder").iterdir()) == []


def test_a_sub_folder_that_cannot_be_read_is_told_and_the_rest_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("open", "shut"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.png").touch()
    scan = os.scandir

    def refuse(path: str) -> object:
        if Path(path).name == "shut":
            raise PermissionError(13, "Permission denied", path)
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    files, problems, _ = list_pictures([tmp_path, tmp_path / "shut"], recursive=True)
    assert files == [tmp_path / "open" / "a.png"]
    assert len(problems) == 2
    assert all("shut: cannot be read (Permission denied)" in problem for problem in problems)
