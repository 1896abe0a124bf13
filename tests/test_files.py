"""Files written in one stroke."""

from pathlib import Path

import pytest

from diffusionpose.files import atomically


def test_the_file_holds_what_was_written(tmp_path: Path) -> None:
    atomically(tmp_path / "a.txt", lambda part: part.write_text("new"))
    assert (tmp_path / "a.txt").read_text() == "new"
    assert list(tmp_path.iterdir()) == [tmp_path / "a.txt"]


def test_a_write_that_fails_keeps_the_old_file_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("old")

    def half(part: Path) -> None:
        part.write_text("ne")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        atomically(tmp_path / "a.txt", half)
    assert (tmp_path / "a.txt").read_text() == "old"
    assert list(tmp_path.iterdir()) == [tmp_path / "a.txt"]


def test_nothing_shows_before_it_is_whole(tmp_path: Path) -> None:
    def look(part: Path) -> None:
        part.write_text("new")
        assert not (tmp_path / "a.txt").exists()

    atomically(tmp_path / "a.txt", look)
    assert (tmp_path / "a.txt").exists()
