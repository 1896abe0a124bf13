"""Writing what a command leaves behind: whole files or none, and an error that names the cure."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from diffusionpose.errors import InputError
from diffusionpose.files import atomically, make_writable


def say(message: str) -> None:
    """A message to the user, on stderr."""
    print(f"diffusionpose: {message}", file=sys.stderr)


def show_progress(done: int, total: int, what: str) -> None:
    """``done of total what`` on stderr, over the line before."""
    print(f"{done} of {total} {what}", end="\r" if done < total else "\n", file=sys.stderr, flush=True)


def make_folder(folder: Path) -> None:
    """Make sure that files can be written to a folder, before any long work.

    Raises:
        InputError: it can neither be made nor written to.
    """
    try:
        make_writable(folder)
    except OSError as error:
        raise InputError(
            f"--output {folder}: no folder that can be written to ({error.strerror}); name another"
        ) from error


def write_file(path: Path, content: bytes) -> None:
    """Write a file in one stroke: whoever reads it sees the old one or the new one, never a part.

    Raises:
        InputError: it cannot be written, as on a full disk.
    """
    write_by(path, lambda part: part.write_bytes(content))


def write_by(path: Path, write: Callable[[Path], object]) -> None:
    """As :func:`write_file`, of what ``write`` puts into the file it is given.

    Raises:
        InputError: it cannot be written.
    """
    try:
        atomically(path, write)
    except OSError as error:
        raise InputError(
            f"{path}: cannot be written ({error.strerror}); make room, or name another --output"
        ) from error


def write_json(path: Path, content: Any) -> None:
    """Write JSON in one stroke; a list gets one line for each entry.

    Raises:
        InputError: it cannot be written.
    """
    if isinstance(content, list):
        write_json_list(path, content)
    else:
        write_file(path, (json.dumps(content, indent=2, allow_nan=False) + "\n").encode())


def write_json_list(path: Path, entries: Iterable[Any]) -> int:
    """Write a JSON list, one line for each entry, which are asked for one by one; how many there were.

    Raises:
        InputError: it cannot be written.
    """
    count = 0

    def write(part: Path) -> None:
        nonlocal count
        with part.open("w", encoding="ascii") as file:
            file.write("[\n")
            for count, entry in enumerate(entries, start=1):
                file.write(("" if count == 1 else ",\n") + json.dumps(entry, allow_nan=False))
            file.write("\n]\n")

    write_by(path, write)
    return count
