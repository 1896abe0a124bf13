"""A journal of a long job: what is done is on the disk at once, and a killed job goes on from there."""

import io
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from diffusionpose.errors import InputError, locked


class Journal:
    """JSON lines: the first says which job this is, each further one what was done.

    Opening it finds what an earlier, interrupted job left: whole lines are kept, a torn last one (the
    computer stopped while it was written) is cut off.

    Args:
        path: of the file; made where there is none.
        job: all that decides the job's results, JSON values only. A journal of another job is refused.

    Raises:
        InputError: the file is another job's, another program is at work on it, or it cannot be read or
            written.
    """

    def __init__(self, path: Path, job: Mapping[str, Any]) -> None:
        self.path = path
        self._held = ExitStack()
        header = json.dumps({"job": job}, sort_keys=True).encode() + b"\n"
        try:
            self._held.enter_context(locked(path))
            path.touch()
            with path.open("r+b") as file:
                first = file.readline()
                if not header.startswith(first):
                    raise InputError(
                        f"{path}: is of a job with other settings or inputs{_differences(first, job)}; "
                        "finish that with its own options, name another --output, or remove it"
                    )
                end = len(first) if first == header else 0
                end += sum(len(line) for line in file if line.endswith(b"\n"))
                file.truncate(end)
            self._file = path.open("ab", buffering=0)  # so that nothing waits in memory that the disk refuses
            if not end:
                self._write(header)
        except OSError as error:
            self._held.close()
            raise InputError(
                f"{path}: cannot be read or written ({error.strerror}); name another --output"
            ) from error
        except InputError:
            self._held.close()
            raise

    def __iter__(self) -> Iterator[Any]:
        """The entries so far, in the order they were appended, read one at a time."""
        return (entry for _, entry in self.positions())

    def positions(self) -> Iterator[tuple[int, Any]]:
        """The entries so far, each after its position, by which :meth:`read` finds it again."""
        with self.path.open("rb") as file:
            position = len(file.readline())
            for number, line in enumerate(file, start=2):
                try:
                    yield position, json.loads(line)
                except ValueError as error:
                    raise InputError(f"{self.path}: line {number} is damaged; remove the file") from error
                position += len(line)

    def read(self, positions: Iterable[int]) -> Iterator[Any]:
        """The entries at positions, in that order, one at a time."""
        with self.path.open("rb") as file:
            for position in positions:
                file.seek(position)
                yield json.loads(file.readline())

    def append(self, entry: Any) -> int:
        """Add an entry (JSON values, finite numbers), which survives a kill of this process; its position.

        Raises:
            InputError: it cannot be written, as on a full disk; what was appended before stays.
        """
        line = json.dumps(entry, allow_nan=False).encode() + b"\n"
        try:
            return self._write(line)
        except OSError as error:
            raise InputError(
                f"{self.path}: cannot be written ({error.strerror}); make room, then run it again"
            ) from error

    def _write(self, line: bytes) -> int:
        """Write a line, all of it or nothing; the position where it begins."""
        start = self._file.seek(0, os.SEEK_END)
        try:
            write_whole(self._file, line)
        except OSError:
            self._file.truncate(start)
            raise
        return start

    def close(self) -> None:
        """Bring everything to the disk and let go of the file; appending ends here."""
        if not self._file.closed:
            os.fsync(self._file.fileno())
            self._file.close()
        self._held.close()

    def remove(self) -> None:
        """Close the journal and delete it: the job is done."""
        self._file.close()
        self.path.unlink(missing_ok=True)
        self._held.close()


def write_whole(file: io.FileIO, content: bytes) -> None:
    """Write all of it: a disk that fills up takes a part, and says so (OSError) only at the next call."""
    rest = memoryview(content)
    while rest:
        rest = rest[file.write(rest) :]


def _differences(line: bytes, job: Mapping[str, Any]) -> str:
    """In which entries the job of a first line is another one, in brackets; nothing where it names none."""
    try:
        other = dict(json.loads(line)["job"])
    except (ValueError, TypeError, KeyError):
        return ""
    names = [name for name in {**job, **other} if job.get(name) != other.get(name)]
    return f" ({', '.join(names)})" if names else ""
