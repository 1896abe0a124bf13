"""Writing files in one stroke: whoever looks sees the old file or the new one, never a part."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path


def make_writable(folder: Path) -> None:
    """Make a folder where it is not there, and try that a file can be written to it.

    Raises:
        OSError: it can neither be made nor written to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tempfile.TemporaryFile(dir=folder).close()


def atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` fill a temporary file beside ``path``, then move it there.

    Neither a kill nor a full disk leaves half a file, and what ``path`` held before stays until then.

    Args:
        path: of the file.
        write: fills the file it is given; whatever it raises is passed on, the temporary file removed.

    Raises:
        OSError: the file cannot be moved or brought to the disk.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        write(temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
