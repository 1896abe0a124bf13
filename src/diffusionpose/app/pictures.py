"""Which pictures a command was given, and what each is called in its output."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffusionpose.app.output import say
from diffusionpose.errors import InputError

if TYPE_CHECKING:
    from diffusionpose.inference.detectors import BoxesFromFile
    from diffusionpose.poses import Pose


@dataclass(frozen=True)
class Picture:
    """A picture to find poses in.

    Attributes:
        path: the file.
        file_name: what results call it: its name, or its path where another has the same name.
        drawn: name of the PNG that is drawn of it, unlike every other's.
        image_id: its number in results, unlike every other's.
    """

    path: Path
    file_name: str
    drawn: str
    image_id: int

    def rows(self, poses: Sequence[Pose]) -> list[dict[str, Any]]:
        """Its poses as keypoints.json has them: COCO results, with ``box``, ``file_name`` and ``drawn``."""
        more = {"file_name": self.file_name, "drawn": self.drawn}
        return [{**pose.to_coco_result(self.image_id), "box": pose.rounded_box, **more} for pose in poses]


def find_pictures(
    given: Sequence[Path], known_id: Callable[[Path], int | None]
) -> tuple[list[Picture], list[str]]:
    """The pictures among files and folders, each once.

    Of a folder its pictures are taken, sorted by name, not those of its sub-folders. The drawing of
    ``a/x.jpg`` is ``x.png``, and that of a second ``b/x.jpg`` is ``x_2.png``. A picture's number is
    the one that ``known_id`` tells; else the one its name ends in (``000000000785.jpg`` is 785); else,
    and where another has it already, the smallest that is free.

    Returns:
        the pictures, and a message for every folder that has none.
    """
    from diffusionpose.data.images import PICTURE_SUFFIXES

    paths: dict[str, Path] = {}  # by absolute path, so that none comes twice
    problems = []
    for path in given:
        inside = list(_of_folder(path, PICTURE_SUFFIXES)) if path.is_dir() else [path]
        if not inside:
            kinds = " ".join(sorted(PICTURE_SUFFIXES))
            problems.append(f"{path}: no pictures in this folder (looked for {kinds}); name another")
        paths.update((os.path.abspath(file), file) for file in inside)
    files = list(paths.values())
    names = Counter(file.name for file in files)
    ids = _numbers(files, known_id)
    pictures = [
        Picture(file, file.name if names[file.name] == 1 else file.as_posix(), drawn, image_id)
        for file, drawn, image_id in zip(files, _drawn_names(files), ids, strict=True)
    ]
    return pictures, problems


def _of_folder(folder: Path, suffixes: Set[str]) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in suffixes and not path.name.startswith(".") and path.is_file():
            yield path


def _drawn_names(files: Sequence[Path]) -> Iterator[str]:
    """<stem>.png, made different where stems are the same, upper and lower case taken as one."""
    stems = {file.stem.lower() for file in files}
    taken: set[str] = set()
    for file in files:
        stem, copy = file.stem, 1
        while stem.lower() in taken or (copy > 1 and stem.lower() in stems):
            copy += 1
            stem = f"{file.stem}_{copy}"
        taken.add(stem.lower())
        yield f"{stem}.png"


def _numbers(files: Sequence[Path], known_id: Callable[[Path], int | None]) -> list[int]:
    """A different number for each file: known ones first, then those in names, then free ones."""
    known = [known_id(file) for file in files]
    digits = [re.search(r"\d+$", file.stem) for file in files]
    named = [int(match.group()) if match else None for match in digits]
    ids: list[int | None] = [None] * len(files)
    taken: set[int] = set()
    for wishes in (known, named):
        for index, wish in enumerate(wishes):
            if ids[index] is None and wish is not None and wish not in taken:
                ids[index] = wish
                taken.add(wish)
    free = (number for number in range(1, len(files) + len(taken) + 1) if number not in taken)
    return [next(free) if image_id is None else image_id for image_id in ids]


def check_boxes(boxes: BoxesFromFile, pictures: list[Picture]) -> None:
    """Tell of pictures without boxes.

    Raises:
        InputError: no picture has boxes, or two pictures have the same ones.
    """
    owners: dict[str, Path] = {}
    without = []
    for picture in pictures:
        key = boxes.key(picture.path)
        if key is None:
            without.append(picture.path)
        elif key in owners:
            raise InputError(
                f"{boxes.path}: its entry {key!r} fits both {owners[key]} and {picture.path}; "
                "name pictures there by folder and name"
            )
        else:
            owners[key] = picture.path
    if pictures and not owners:
        raise InputError(
            f"{boxes.path}: knows none of the pictures given; do its names or image ids fit them?"
        )
    if without:
        say(f"{boxes.path} has no boxes for {len(without)} of {len(pictures)} pictures, {without[0]} first")
