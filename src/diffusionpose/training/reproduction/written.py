"""Writing what a study leaves behind: whole files or none."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from diffusionpose.files import atomically
from diffusionpose.training.folder import writing


def write_file(path: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` fill a file, in one stroke, and make its folder where it is not there.

    Raises:
        InputError: it cannot be written.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        atomically(path, write)


def write_json(path: Path, entries: Any) -> None:
    """Write JSON; InputError where it cannot be written."""
    text = json.dumps(entries, indent=2, allow_nan=False) + "\n"
    write_file(path, lambda part: part.write_text(text))
