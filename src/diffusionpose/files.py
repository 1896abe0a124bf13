"""Writing files in one stroke: whoever looks sees the old file or the new one, never a part."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path


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
