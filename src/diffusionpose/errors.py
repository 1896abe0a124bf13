"""What the user has to mend (:class:`InputError`), optional packages, files written whole or not at all."""

import hashlib
import os
import secrets
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any


class InputError(ValueError):
    """Something given by the user cannot be used.

    The message names the file or option at fault and the cure. The command line prints it as one
    line and exits with status 1; in Python it is an ordinary ``ValueError``.
    """


class UsageError(InputError):
    """Options of a command that do not go together; the exit status is 2, as where they do not parse."""


def first_line(error: Exception) -> str:
    """What an error of a library says, on one line; its class where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def install(extra: str) -> str:
    """The command that installs an extra, by its name in pyproject.toml."""
    return f"pip install 'diffusionpose[{extra}]'"


@contextmanager
def needs_extra(extra: str, need: str) -> Iterator[None]:
    """The block imports what an extra brings; where it cannot be imported, InputError says how to install it.

    Args:
        extra: its name in pyproject.toml.
        need: how the message begins: "ONNX files need onnxruntime".
    """
    try:
        yield
    except ImportError as error:
        raise InputError(f"{need} ({error}); install it: {install(extra)}") from error


def import_onnxruntime() -> Any:
    """The package onnxruntime, which is kept from sending to its makers what is done with it.

    Its official builds do so by default (its Privacy.md). Who sets ORT_DISABLE_TELEMETRY decides. InputError
    where it is not installed.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # read once, when the package is imported first
    with needs_extra("export", "ONNX files need onnxruntime"):
        import onnxruntime
    return onnxruntime


def make_writable(folder: Path) -> None:
    """Make a folder where it is not there, and try that a file can be written to it; else OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    tempfile.TemporaryFile(dir=folder).close()


def atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` fill a temporary file in the folder of ``path``, then move it there.

    Neither a kill nor a full disk leaves half a file at ``path``, and what was there before stays until
    then. The file's mode follows the umask, also where a library writes for the owner alone (safetensors
    does). What a kill leaves is removed by :func:`sweep`; what ``write`` raises is passed on.
    """
    temporary = path.with_name(f".diffusionpose-{os.getpid()}-{secrets.token_hex(4)}.part")
    try:
        # exclusive: a link that somebody planted at this name is not followed
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        mode = temporary.stat().st_mode
        write(temporary)
        temporary.chmod(mode)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_file(path: Path, content: bytes | Callable[[Path], object]) -> None:
    """Write bytes, or what a function fills the file with, in one stroke (:func:`atomically`).

    Raises:
        InputError: it cannot be written, as on a full disk.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        atomically(path, content if callable(content) else lambda part: part.write_bytes(content))
    except (OSError, RuntimeError) as error:  # torch.save raises RuntimeError on a full disk
        reason = getattr(error, "strerror", None) or error
        raise InputError(
            f"{path}: cannot be written ({reason}); make room and run it again, or name another --output"
        ) from error


def write_together(contents: Mapping[Path, bytes | Callable[[Path], object]]) -> None:
    """Write files of one thing, as of :func:`write_file`: none takes its place before all are whole."""
    parts = {path: path.with_name(f".{path.name}.part") for path in contents}
    try:
        for path, part in parts.items():
            write_file(part, contents[path])
        for path, part in parts.items():
            os.replace(part, path)
    finally:
        for part in parts.values():
            part.unlink(missing_ok=True)


def sweep(folder: Path) -> None:
    """Remove the temporary files that killed processes left in a folder."""
    for part in folder.glob(".diffusionpose-*.part"):
        process = part.name.split("-")[1]
        if process.isdigit() and not _is_running(int(process)):
            with suppress(OSError):
                part.unlink()


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except OSError as error:
        return not isinstance(error, ProcessLookupError)  # any other: it is somebody else's
    return True


def file_digest(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def locked(place: Path) -> Iterator[None]:
    """Keep other programs away from a folder or a file while the block runs, and sweep its folder first.

    The lock goes with the process, however it ends; its file may stay behind. Where the file system knows no
    locks (some network ones), nothing keeps others out.

    Raises:
        InputError: another program has it.
        OSError: the file of the lock cannot be made.
    """
    import filelock  # here, since most commands lock nothing

    file = place / ".lock" if place.is_dir() else place.with_name(f".{place.name}.lock")
    try:
        with filelock.FileLock(file, blocking=False):
            sweep(file.parent)
            yield
    except filelock.Timeout as error:
        raise InputError(
            f"{place}: another program is at work on this; wait for it, stop it, or name another --output"
        ) from error
