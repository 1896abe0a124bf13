"""Writing what a command leaves behind: whole files or none, and an error that names the cure."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from diffusionpose.errors import InputError
from diffusionpose.files import atomically, make_writable


def say(message: str) -> None:
    """A message to the user, on stderr."""
    print(f"diffusionpose: {message}", file=sys.stderr)


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
    try:
        atomically(path, lambda part: part.write_bytes(content))
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
        text = "[\n" + ",\n".join(json.dumps(entry, allow_nan=False) for entry in content) + "\n]\n"
    else:
        text = json.dumps(content, indent=2, allow_nan=False) + "\n"
    write_file(path, text.encode())
