"""The pictures of an annotation file: files of a folder, or persons cut out and packed (see ``pack.py``)."""

import os
from collections import Counter
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PureWindowsPath

import cv2
import numpy as np

from diffusionpose.data.annotations import Annotations, ImageRecord
from diffusionpose.data.augmentation import Augmentation
from diffusionpose.errors import InputError, file_digest
from diffusionpose.json_files import Id, read_json
from diffusionpose.runtime.images import read_recorded_image

MISSING_SHOWN = 3
PACK, PACKED_ANNOTATIONS, PACK_VERSION = "pack.json", "annotations.json", 1


@dataclass(frozen=True)
class Pictures:
    """Where the pictures of a file are."""

    folder: Path
    paths: dict[Id, Path]  # by image id; also of those that are not there
    missing: dict[Id, str]  # file names of the pictures that are not in the folder
    notes: list[str]  # what to tell about names that were written on another machine

    def read(self, record: ImageRecord) -> np.ndarray:
        """A picture, (H, W, 3) uint8 RGB; InputError where it cannot be read."""
        return read_recorded_image(self.paths[record.id], record.width, record.height)

    def require_all(self, annotations: Annotations) -> None:
        """InputError, which names the first few, where pictures are missing."""
        if self.missing:
            shown = ", ".join(list(self.missing.values())[:MISSING_SHOWN])
            raise InputError(
                f"{self.folder}: {len(self.missing)} of the {len(annotations.images)} pictures listed in "
                f"{annotations.path} are not there (first: {shown}); give the folder that holds them"
            )

    def require_margin(self, input_size: tuple[int, int], augmentation: Augmentation) -> None:
        """InputError where crops so augmented would reach beyond what was packed, or show it enlarged."""


@dataclass(frozen=True)
class PackedPictures(Pictures):
    """Persons in shards, each of which is mapped into memory once a process."""

    shards: list[Path]
    places: np.ndarray  # (n, 3) int64: shard, offset and length in bytes of the picture with id 1 .. n
    jpeg: bool  # else raw pixels
    input_size: tuple[int, int]
    scale: float  # of ``Augmentation``, for which the margin is wide enough

    def read(self, record: ImageRecord) -> np.ndarray:
        """A person's part of the picture, (H, W, 3) uint8 RGB, not to be written to."""
        shard, offset, length = self.places[int(record.id) - 1]
        content = _mapped(self.shards[shard])[offset : offset + length]
        if not self.jpeg:
            return content.reshape(record.height, record.width, 3)
        pixels = cv2.imdecode(content, cv2.IMREAD_COLOR)
        if pixels is None or pixels.shape[:2] != (record.height, record.width):
            raise InputError(f"{self.paths[record.id]}: damaged in {self.shards[shard]}; pack it again")
        return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)

    def require_margin(self, input_size: tuple[int, int], augmentation: Augmentation) -> None:
        """As of :class:`Pictures`."""
        (width, height), (packed_width, packed_height) = input_size, self.input_size
        if width * packed_height != height * packed_width or width > packed_width:
            raise InputError(
                f"{self.folder}: packed for crops of {packed_width}x{packed_height} or smaller ones of that "
                f"shape, not {width}x{height}; pack it again with --input-size {width} {height}"
            )
        if augmentation.scale > self.scale:
            raise InputError(
                f"{self.folder}: packed for an augmentation of scale {self.scale}, less than "
                f"{augmentation.scale}; pack it again with --scale {augmentation.scale}"
            )
        if augmentation.half_body_padding > Augmentation.half_body_padding:
            raise InputError(f"{self.folder}: packed for half_body_padding {Augmentation.half_body_padding}")


@cache  # outside the class: workers that are spawned map for themselves
def _mapped(shard: Path) -> np.ndarray:
    return np.memmap(shard, np.uint8, "r")


def find_pictures(annotations: Annotations, folder: str | Path, persons_only: bool = False) -> Pictures:
    """Look for the pictures of a file, or for those with persons, in a folder.

    A name with the folder of another machine before it, or with back-slashes, is found by its last part.

    Raises:
        InputError: the folder is a pack of other annotations or one that cannot be used, or the annotations
            are those of a pack and the folder is another.
    """
    folder, found, elsewhere = Path(folder), {}, []
    missing: dict[Id, str] = {}
    if (folder / PACK).is_file() or (annotations.path.parent / PACK).is_file():
        return _open_pack(annotations, folder)
    wanted = {person.image_id for person in annotations.persons} if persons_only else set(annotations.images)
    names = {
        image_id: annotations.images[image_id].file_name for image_id in annotations.images.keys() & wanted
    }
    last_parts = Counter(PureWindowsPath(name).name for name in {*names.values()})
    for image_id in annotations.images:
        if image_id not in names:
            continue
        name = names[image_id]
        places = [folder / name, folder / name.replace("\\", "/")]
        if last_parts[last := PureWindowsPath(name).name] == 1:  # else a file would be two pictures
            places.append(folder / last)
        place = next((place for place in places if os.path.exists(place)), None)
        found[image_id] = place or places[0]
        if place is None:
            missing[image_id] = name
        elif place != places[0]:
            elsewhere.append(name)
    notes = []
    if elsewhere:
        notes.append(
            f"{annotations.path}: {len(elsewhere)} file names are of another machine "
            f"({elsewhere[0]!r:.200}); the pictures of {folder} with the same last part are taken"
        )
    return Pictures(folder, found, missing, notes)


def _open_pack(annotations: Annotations, folder: Path) -> PackedPictures:
    file, again = folder / PACK, "pack it again with 'diffusionpose data pack'"
    if not file.is_file() or annotations.path.resolve() != (folder / PACKED_ANNOTATIONS).resolve():
        packed = folder if file.is_file() else annotations.path.parent
        raise InputError(
            f"{packed}: packed persons go with annotations of their own; give --images {packed} "
            f"--annotations {packed / PACKED_ANNOTATIONS}"
        )
    content = read_json(file)
    try:
        if content["version"] != PACK_VERSION:
            raise InputError(f"{file}: of version {content['version']!r:.20}, not {PACK_VERSION}; {again}")
        shards = [folder / name for name in content["shards"]]
        sizes, facts = list(content["shards"].values()), content["options"]
        places = np.array(content["places"], np.int64).reshape(-1, 3)
        width, height = facts["input_size"]
        pack = PackedPictures(
            folder,
            {image_id: folder / record.file_name for image_id, record in annotations.images.items()},
            {},
            [],
            shards,
            places,
            bool(facts["jpeg"]),
            (width, height),
            float(facts["scale"]),
        )
        same = content["annotations_sha256"] == file_digest(annotations.path)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{file}: damaged ({type(error).__name__}: {error}); {again}") from error
    if not same:
        raise InputError(f"{annotations.path}: not as it was packed; {again}")
    for shard, size in zip(shards, sizes, strict=True):
        there = shard.stat().st_size if shard.is_file() else 0
        if there != size:
            raise InputError(f"{shard}: {there:,} of {size:,} bytes are there; copy it again, or {again}")
    return pack
