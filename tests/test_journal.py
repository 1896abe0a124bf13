import errno
import json
import subprocess
import sys
from contextlib import closing

import pytest

from diffusionpose.errors import InputError
from diffusionpose.journal import Journal

JOB = {"weights": "abc", "steps": 1}


def test_entries_come_back_in_order_when_opened_again(tmp_path):
    path = tmp_path / "work.jsonl"
    with closing(Journal(path, JOB)) as journal:
        assert list(journal) == []
        journal.append({"picture": "a.jpg"})
        journal.append({"picture": "b.jpg"})
        assert [entry["picture"] for entry in journal] == ["a.jpg", "b.jpg"]
    with closing(Journal(path, JOB)) as journal:
        journal.append({"picture": "c.jpg"})
        assert [entry["picture"] for entry in journal] == ["a.jpg", "b.jpg", "c.jpg"]


@pytest.mark.parametrize("tail", [b'{"picture": "b', b"x" * 200_000, b""])
def test_a_torn_last_line_is_cut_off_and_written_anew(tmp_path, tail):
    path = tmp_path / "work.jsonl"
    with closing(Journal(path, JOB)) as journal:
        journal.append({"picture": "a.jpg"})
    whole = path.read_bytes()
    path.write_bytes(whole + tail)
    with closing(Journal(path, JOB)) as journal:
        assert path.read_bytes() == whole
        journal.append({"picture": "b.jpg"})
    assert [json.loads(line) for line in path.read_text().splitlines()[1:]] == [
        {"picture": "a.jpg"},
        {"picture": "b.jpg"},
    ]


def test_a_header_torn_in_the_middle_starts_the_journal_anew(tmp_path):
    path = tmp_path / "work.jsonl"
    path.write_bytes(b'{"job": {"ste')
    with closing(Journal(path, JOB)) as journal:
        assert list(journal) == []


def test_another_jobs_journal_is_refused_and_left_alone(tmp_path):
    path = tmp_path / "work.jsonl"
    with closing(Journal(path, JOB)) as journal:
        journal.append(1)
    before = path.read_bytes()
    with pytest.raises(InputError, match=r"work\.jsonl.*other settings.*name another --output"):
        Journal(path, JOB | {"steps": 2})
    assert path.read_bytes() == before


def test_the_order_of_the_jobs_keys_does_not_matter(tmp_path):
    path = tmp_path / "work.jsonl"
    Journal(path, {"a": 1, "b": 2}).close()
    Journal(path, {"b": 2, "a": 1}).close()


def test_a_line_damaged_in_the_middle_is_named(tmp_path):
    path = tmp_path / "work.jsonl"
    with closing(Journal(path, JOB)) as journal:
        journal.append(1)
    path.write_bytes(path.read_bytes() + b"gar bage\n2\n")
    with closing(Journal(path, JOB)) as journal, pytest.raises(InputError, match="line 3 is damaged"):
        list(journal)


def test_what_was_appended_survives_a_kill(tmp_path):
    path = tmp_path / "work.jsonl"
    code = (
        "import os, signal, sys; from pathlib import Path; from diffusionpose.journal import Journal\n"
        f"journal = Journal(Path({str(path)!r}), {JOB!r})\n"
        "for i in range(5): journal.append(i)\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    with closing(Journal(path, JOB)) as journal:
        assert list(journal) == [0, 1, 2, 3, 4]


def test_a_full_disk_is_a_clear_message(tmp_path, monkeypatch):
    journal = Journal(tmp_path / "work.jsonl", JOB)

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    class Full:
        closed = True
        write = staticmethod(full)
        seek = truncate = staticmethod(lambda *_: 0)

    journal.close()
    monkeypatch.setattr(journal, "_file", Full())
    with pytest.raises(InputError, match=r"No space left on device.*run it again"):
        journal.append(1)


def test_a_folder_in_its_place_is_a_clear_message(tmp_path):
    with pytest.raises(InputError, match="cannot be read or written"):
        Journal(tmp_path, JOB)


def test_removing_ends_the_job(tmp_path):
    journal = Journal(tmp_path / "work.jsonl", JOB)
    journal.remove()
    assert not (tmp_path / "work.jsonl").exists()


def test_two_programs_at_once_are_kept_apart(tmp_path):
    path = tmp_path / "work.jsonl"
    code = "from pathlib import Path; from diffusionpose.journal import Journal\n"
    code += f"Journal(Path({str(path)!r}), {JOB!r})"
    with closing(Journal(path, JOB)) as journal:
        journal.append(1)
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert (
            f"{path}: another program is at work on this; wait for it, stop it, or name another --output"
            in done.stderr
        )
        assert list(journal) == [1]
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_refusal_names_what_is_different(tmp_path):
    path = tmp_path / "work.jsonl"
    Journal(path, {**JOB, "flip": True}).close()
    with pytest.raises(InputError, match=r"inputs \(steps, extra\); finish that with its own"):
        Journal(path, {**JOB, "flip": True, "steps": 2, "extra": 1})


@pytest.mark.parametrize("content", [b"my own notes", b"a\nb", b"[1]\n", b'{"job": 3}\n', b"\n"])
def test_a_file_that_is_no_journal_is_left_as_it_is(tmp_path, content):
    path = tmp_path / "work.jsonl"
    path.write_bytes(content)
    with pytest.raises(InputError, match="other settings or inputs; finish that"):
        Journal(path, JOB)
    assert path.read_bytes() == content


def test_entries_are_found_by_position_in_any_order(tmp_path):
    path = tmp_path / "work.jsonl"
    with closing(Journal(path, JOB)) as journal:
        positions = [journal.append({"number": number, "text": "é" * number}) for number in range(5)]
    with closing(Journal(path, JOB)) as journal:
        positions.append(journal.append({"number": 5}))
        assert [position for position, _ in journal.positions()] == positions
        assert [entry["number"] for entry in journal.read([positions[i] for i in (3, 5, 0)])] == [3, 5, 0]


def test_a_line_that_the_disk_took_half_of_is_taken_back(tmp_path):
    """A limit on the size of files is a disk that takes a part and then no more."""
    path = tmp_path / "work.jsonl"
    code = (
        "import resource; from contextlib import closing; from pathlib import Path\n"
        "from diffusionpose.journal import Journal\n"
        f"journal = Journal(Path({str(path)!r}), {JOB!r}); journal.append('first')\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "with closing(journal): journal.append('x' * 2000)"
    )
    ended = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert ended.stderr.splitlines()[-1].endswith("make room, then run it again")
    assert path.read_bytes().endswith(b'}\n"first"\n')
