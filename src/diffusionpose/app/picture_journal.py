"""What of a folder run is done already: its journal, by the numbers of the pictures."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from diffusionpose.app.pictures import Picture
from diffusionpose.errors import InputError
from diffusionpose.journal import Journal

JOURNAL = "progress.jsonl"
Entry = dict[str, Any]


class PicturesDone:
    """The pictures of a job that are done, kept in OUTPUT/progress.jsonl until all are.

    An entry says of a picture: its number in the job, its size and time of change when it was read, its
    rows for keypoints.json, the problems with its boxes, and why it could not be read. It counts as done
    while the file is unchanged, could be read, and its drawing is there. Where one of a group is not, the
    whole group is done again, for its pictures went through the network together.

    Args:
        output: the folder.
        job: all that decides the results, but the pictures.
        pictures: all of the job, in its order.
        group: how many pictures go through the network together.

    Raises:
        InputError: the journal there is of another job, damaged, or cannot be written.
    """

    def __init__(self, output: Path, job: Mapping[str, Any], pictures: Sequence[Picture], group: int) -> None:
        self.output, self.pictures, self.group = output, pictures, group
        self._journal = Journal(output / JOURNAL, {**job, "pictures": _digest(pictures)})
        self._positions: dict[int, int] = {}
        self.empty: set[int] = set()  # of those, in which nobody was found
        self.problems: list[str] = []
        try:
            for number in sorted(self._find()):
                self._forget(number)
                self._journal.append({"again": number})
        except InputError:
            self._journal.close()
            raise

    def __len__(self) -> int:
        return len(self._positions)

    def __contains__(self, number: int) -> bool:
        return number in self._positions

    def add(self, number: int, entry: Entry) -> None:
        """Note that a picture is done.

        Raises:
            InputError: the disk is full.
        """
        position = self._journal.append({"picture": number, **entry})
        if entry["failure"] is None:
            self._take(number, position, entry)

    def rows(self) -> Iterator[Entry]:
        """The entries for keypoints.json, in the order of the pictures, read from the disk one by one."""
        for entry in self._journal.read(self._positions[number] for number in sorted(self._positions)):
            yield from entry["rows"]

    def remove(self) -> None:
        """Delete the journal: everything asked for is done."""
        self._journal.remove()

    def __enter__(self) -> PicturesDone:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._journal.close()

    def _find(self) -> set[int]:
        """Read what an earlier run left; the numbers of the groups that must be done again."""
        spoilt: dict[int, None] = {}
        problems: dict[int, list[str]] = {}
        try:
            for position, entry in self._journal.positions():
                if "again" in entry:
                    self._forget(entry["again"])
                    continue
                number = entry["picture"]
                if self._holds(number, entry):
                    self._take(number, position, entry)
                    problems[number] = entry["problems"]
                    spoilt.pop(number, None)
                else:
                    spoilt[number] = None
        except (KeyError, IndexError, TypeError) as error:
            raise InputError(f"{self._journal.path}: damaged; remove it to begin again") from error
        groups = {number // self.group for number in spoilt}
        for number in self._positions:
            if number // self.group not in groups:
                self.problems += problems[number]
        return groups

    def _holds(self, number: int, entry: Entry) -> bool:
        picture = self.pictures[number]
        unchanged = entry["failure"] is None and entry["stamp"] == stamp(picture.path)
        return unchanged and (self.output / picture.drawn).exists()

    def _take(self, number: int, position: int, entry: Entry) -> None:
        self._positions[number] = position
        if not entry["rows"]:
            self.empty.add(number)

    def _forget(self, group: int) -> None:
        for number in range(group * self.group, (group + 1) * self.group):
            self._positions.pop(number, None)
            self.empty.discard(number)


def stamp(path: Path) -> list[int] | None:
    """Size in bytes and time of change in nanoseconds of a file; None where there is none."""
    try:
        facts = path.stat()
    except OSError:
        return None
    return [facts.st_size, facts.st_mtime_ns]


def _digest(pictures: Sequence[Picture]) -> str:
    """Of which pictures there are, and what each is called in the results."""
    digest = hashlib.sha256()
    for picture in pictures:
        facts = os.path.abspath(picture.path), picture.file_name, picture.drawn, picture.image_id
        digest.update(repr(facts).encode() + b"\n")
    return digest.hexdigest()
