"""The one error that is the user's to mend."""

from __future__ import annotations

import errno
import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


class InputError(ValueError):
    """Something given by the user cannot be used.

    The message names the file or option at fault and the cure. The command line prints it as one
    line and exits with status 1; in Python it is an ordinary ``ValueError``.
    """


# Packages that not every installation has: the extras of this one


def install(extra: str) -> str:
    """The command that installs an extra, by its name in pyproject.toml."""
    return f"pip install 'diffusionpose[{extra}]'"


@contextmanager
def needs_extra(extra: str, need: str) -> Iterator[None]:
    """The block imports what an extra brings.

    Args:
        extra: its name in pyproject.toml.
        need: how the message begins: "ONNX files need onnxruntime".

    Raises:
        InputError: it cannot be imported; the message says why, and how to install it.
    """
    try:
        yield
    except ImportError as error:
        raise InputError(f"{need} ({error}); install it: {install(extra)}") from error


# Writing files in one stroke: whoever looks sees the old file or the new one, never a part

try:
    import fcntl
except ImportError:  # Windows has none: there, nothing keeps two programs apart
    fcntl = None  # type: ignore[assignment]


def make_writable(folder: Path) -> None:
    """Make a folder where it is not there, and try that a file can be written to it.

    Raises:
        OSError: it can neither be made nor written to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tempfile.TemporaryFile(dir=folder).close()


def atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` fill a temporary file beside ``path``, then move it there.

    Neither a kill nor a full disk leaves half a file, and what ``path`` held before stays until then. Who may
    read it is the umask's choice, also where a library writes for the owner alone (safetensors does).

    Args:
        path: of the file.
        write: fills the file it is given; whatever it raises is passed on, the temporary file removed.

    Raises:
        OSError: the file cannot be moved or brought to the disk.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        temporary.touch()
        mode = temporary.stat().st_mode
        write(temporary)
        temporary.chmod(mode)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def file_digest(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal digits.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keep other programs out of a place for as long as the block runs.

    The lock is the process's, not its children's, and goes with it however it ends. Where the system
    (Windows) or the file system (some network ones) knows no such locks, nothing keeps others out.

    Args:
        path: of the lock's file; made for the block. One that a killed program left does no harm.

    Raises:
        BlockingIOError: another process has it.
        OSError: the file cannot be made.
    """
    if fcntl is None:
        yield
        return
    file = _locked_file(path)
    while not _is_at(file, path):  # who had the lock removed its file between our opening and locking it
        file.close()
        file = _locked_file(path)
    with file:
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def _locked_file(path: Path) -> BinaryIO:
    """The file at a path, opened and locked where the file system can; errors as of :func:`locked`."""
    file = path.open("a+b")
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN):
            file.close()
            raise BlockingIOError(*error.args) from error
    return file


def _is_at(file: BinaryIO, path: Path) -> bool:
    """Whether an open file is the one that a path leads to."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
