"""Files written in one stroke, and places held."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from diffusionpose import errors as files
from diffusionpose.errors import InputError, atomically, file_digest, locked, write_together


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


@pytest.mark.skipif(sys.platform == "win32", reason="Windows knows no umask")
@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o027, 0o640)])
def test_the_umask_says_who_may_read(tmp_path: Path, umask: int, mode: int) -> None:
    def for_the_owner_alone(part: Path) -> None:
        part.unlink(missing_ok=True)
        part.touch(0o600)

    before = os.umask(umask)
    try:
        atomically(tmp_path / "a.txt", for_the_owner_alone)
        atomically(tmp_path / "b", lambda part: save_file({"a": np.zeros(2)}, part))
    finally:
        os.umask(before)
    assert [(tmp_path / name).stat().st_mode & 0o777 for name in ("a.txt", "b")] == [mode, mode]


def test_nothing_shows_before_it_is_whole(tmp_path: Path) -> None:
    def look(part: Path) -> None:
        part.write_text("new")
        assert not (tmp_path / "a.txt").exists()

    atomically(tmp_path / "a.txt", look)
    assert (tmp_path / "a.txt").exists()


OTHER = """
import sys
from pathlib import Path
from diffusionpose.errors import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def other(lock: Path) -> subprocess.Popen[str]:
    """Another process that tries the lock and holds it until its input ends."""
    command = [sys.executable, "-c", OTHER, str(lock)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)


def test_a_place_that_is_held_is_refused_to_another_process(tmp_path: Path) -> None:
    with locked(tmp_path):
        _, error = other(tmp_path).communicate()
    assert "another program is at work" in error


def test_a_killed_process_lets_go(tmp_path: Path) -> None:
    holder = other(tmp_path)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(InputError, match="another program is at work"), locked(tmp_path):
        pass
    holder.kill()
    holder.wait()
    with locked(tmp_path):
        pass


def test_what_a_killed_process_left_is_swept_and_what_a_running_one_writes_stays(tmp_path: Path) -> None:
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    left = tmp_path / f".diffusionpose-{done.pid}-00.part"
    own = tmp_path / f".diffusionpose-{os.getpid()}-00.part"
    foreign = tmp_path / "a.part"
    for file in (left, own, foreign):
        file.touch()
    with locked(tmp_path):
        assert [file.exists() for file in (left, own, foreign)] == [False, True, True]


def test_a_link_planted_at_the_temporary_name_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    victim = tmp_path / "victim"
    victim.write_text("untouched")
    monkeypatch.setattr(files.secrets, "token_hex", lambda _: "00")
    (tmp_path / f".diffusionpose-{os.getpid()}-00.part").symlink_to(victim)
    with pytest.raises(FileExistsError):
        atomically(tmp_path / "a.txt", lambda part: part.write_text("new"))
    assert victim.read_text() == "untouched"


def test_the_longest_name_that_a_file_may_have_can_be_written(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 255)
    atomically(path, lambda part: part.write_text("new"))
    assert path.read_text() == "new"


def test_files_of_one_thing_change_together_or_not_at_all(tmp_path: Path) -> None:
    def full(part: Path) -> None:
        part.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    paths = tmp_path / "a", tmp_path / "b"
    write_together(dict.fromkeys(paths, b"old"))
    with pytest.raises(InputError, match=r"b\.part: cannot be written .No space left"):
        write_together(dict(zip(paths, (b"new", full), strict=True)))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a": b"old", "b": b"old"}


def test_onnxruntime_keeps_no_record_of_what_is_done(tmp_path: Path) -> None:
    """Its telemetry, which is on by default, keeps a device's id and what is to be sent below the home."""
    code = (
        "from diffusionpose.runtime.people import BundledPeopleFinder; BundledPeopleFinder();"
        "import os; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    )
    places = {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path)}
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    ended = subprocess.run(
        [sys.executable, "-c", code], env=environment | places, capture_output=True, text=True, check=True
    )
    assert ended.stdout == "1\n"
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_known_by_the_sha_256_of_its_content(tmp_path: Path) -> None:
    """The first example of FIPS 180-2, "abc"."""
    (tmp_path / "a").write_bytes(b"abc")
    assert file_digest(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    with pytest.raises(FileNotFoundError):
        file_digest(tmp_path / "b")
