"""Packing: every labelled person is cut out of its picture once, with the margin that augmentation needs.

Training then decodes no whole picture for one person. A pack is a folder: shards with the pixels, one after
the other; ``pack.json``, which says where each person's are; ``annotations.json`` in COCO's form, where each
person has a picture of its own, all in its pixels. That file comes last: without it, nothing is used.
"""

import hashlib
import json
import math
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from diffusionpose.data.annotations import Annotations, Person, coco_category
from diffusionpose.data.augmentation import Augmentation, half_body_box
from diffusionpose.data.pictures import PACK, PACK_VERSION, PACKED_ANNOTATIONS, PackedPictures, find_pictures
from diffusionpose.errors import InputError, file_digest, locked, write_file
from diffusionpose.geometry import Crop
from diffusionpose.json_files import read_json
from diffusionpose.runtime.estimator import in_order
from diffusionpose.skeletons import Skeleton

SHARD = 256 * 2**20  # bytes after which a new shard begins
EDGE = 2  # pixels beyond a crop that interpolation may look at
AHEAD = 4  # pictures that each thread reads before the first of them is written


@dataclass(frozen=True)
class PackOptions:
    """What a pack is made for; InputError for a number out of range."""

    input_size: tuple[int, int] = (192, 256)  # a larger person is scaled down to what such crops show of it
    scale: float = Augmentation.scale
    jpeg: int | None = None  # quality of JPEG; None: pixels as they are, larger and faster

    def __post_init__(self) -> None:
        if min(self.input_size) < 32 or not 0 <= self.scale < 1:
            raise InputError("--input-size must be 32 or more, --scale from 0 to below 1")
        if self.jpeg is not None and not 1 <= self.jpeg <= 100:
            raise InputError(f"--jpeg {self.jpeg}: a quality from 1 to 100, 95 hardly shows")


@dataclass(frozen=True)
class PackReport:
    """What was packed."""

    persons: int
    size: int  # bytes
    left_out: list[str] = field(default_factory=list)  # messages of pictures that could not be read
    notes: list[str] = field(default_factory=list)  # what to tell about names of pictures


class _Cut(NamedTuple):
    """A person's part of a picture."""

    content: bytes
    size: tuple[int, int]  # (width, height), pixels
    corner: np.ndarray  # (2,) of the part in the picture, pixels
    factor: float  # by which it is scaled


def pack_persons(
    annotations: Annotations,
    images: Path,
    output: Path,
    options: PackOptions,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> PackReport:
    """Pack the labelled persons of a file, in its order; what ``output`` holds already is not packed again.

    Args:
        annotations: whose persons, and the joints that training will know: half a body is cut by them.
        images: folder of the pictures.
        output: folder of the pack.
        workers: threads that read pictures; None for one for each core, up to 8.
        progress: called with the number of persons done, and of all.

    Raises:
        InputError: pictures are missing, the folder holds another pack, is in use or cannot be written to.
    """
    annotations = annotations.labelled()
    pictures = find_pictures(annotations, images, persons_only=True)
    if isinstance(pictures, PackedPictures):
        raise InputError(f"{images}: packed already; pack the pictures that it was made of")
    pictures.require_all(annotations)
    facts = {
        **asdict(options),
        "input_size": list(options.input_size),
        "joints": list(annotations.skeleton.joints),
        "source_sha256": file_digest(annotations.path),
    }
    file = output / PACK
    try:
        output.mkdir(parents=True, exist_ok=True)
        with locked(output):
            if (output / PACKED_ANNOTATIONS).exists():
                return replace(_there(output, facts), notes=pictures.notes)
            for shard in output.glob("shard-*.bin"):
                shard.unlink()  # of a run that was killed
            pack = _Packing(annotations, options, pictures.read)
            shards = pack.write(output, workers, progress)
            text = json.dumps({"info": {"packed": facts}, **pack.annotations()}).encode()
            content = {"version": PACK_VERSION, "options": facts, "shards": shards, "left_out": pack.left_out}
            content["annotations_sha256"] = hashlib.sha256(text).hexdigest()
            content["places"] = pack.places
            write_file(file, json.dumps(content).encode())
            write_file(output / PACKED_ANNOTATIONS, text)
    except OSError as error:
        raise InputError(f"{output}: cannot be written to ({error.strerror}); name another") from error
    return PackReport(len(pack.places), sum(shards.values()), pack.left_out, pictures.notes)


def _there(output: Path, facts: dict[str, Any]) -> PackReport:
    content = read_json(output / PACK)
    if content.get("options") != facts or content.get("version") != PACK_VERSION:
        raise InputError(f"{output}: holds another pack; name another --output, or delete it")
    return PackReport(len(content["places"]), sum(content["shards"].values()), content["left_out"])


class _Packing:
    """One pack in the making: what is known of the persons that are written."""

    def __init__(
        self, annotations: Annotations, options: PackOptions, read: Callable[[Any], np.ndarray]
    ) -> None:
        self.source, self.options, self.read = annotations, options, read
        self.left_out: list[str] = []
        self.cuts: dict[int, _Cut] = {}  # by place in the file, without their content
        self.spans: dict[int, list[int]] = {}  # shard, offset, length in bytes

    def write(
        self, output: Path, workers: int | None, progress: Callable[[int, int], None] | None
    ) -> dict[str, int]:
        """Write the shards; their names and bytes."""
        shards: dict[str, int] = {}
        cuts = self._cut_all(workers)
        left = True

        def fill(part: Path) -> None:
            nonlocal left
            left = False
            with part.open("wb") as file:
                for index, cut in cuts:
                    self.spans[index] = [len(shards), file.tell(), len(cut.content)]
                    self.cuts[index] = cut._replace(content=b"")
                    file.write(cut.content)
                    if progress is not None:
                        progress(len(self.cuts), len(self.source.persons))
                    if file.tell() >= SHARD:
                        left = True
                        return

        while left:
            name = f"shard-{len(shards):03}.bin"
            write_file(output / name, fill)
            shards[name] = (output / name).stat().st_size
        return shards

    def _cut_all(self, workers: int | None) -> Iterator[tuple[int, _Cut]]:
        persons = self.source.persons
        by_picture = sorted(range(len(persons)), key=lambda index: str(persons[index].image_id))
        groups = [list(group) for _, group in groupby(by_picture, lambda index: persons[index].image_id)]
        with closing(in_order(self._cut_picture, groups, AHEAD, workers)) as pictures:
            for found in pictures:
                yield from found

    def _cut_picture(self, group: list[int]) -> list[tuple[int, _Cut]]:
        persons = [self.source.persons[index] for index in group]
        try:
            image = self.read(self.source.images[persons[0].image_id])
        except InputError as error:
            self.left_out.append(str(error))
            return []
        cuts = [cut_person(image, person, self.source.skeleton, self.options) for person in persons]
        return list(zip(group, cuts, strict=True))

    @property
    def places(self) -> list[list[int]]:
        """Shard, offset and length of each person, in the order of the file."""
        return [self.spans[index] for index in sorted(self.spans)]

    def annotations(self) -> dict[str, Any]:
        """The persons as a COCO file; picture n is that of person n."""
        images, people = [], []
        for number, index in enumerate(sorted(self.cuts), start=1):
            person, cut = self.source.persons[index], self.cuts[index]
            record = self.source.images[person.image_id]
            width, height = cut.size
            images.append({"id": number, "file_name": record.file_name, "width": width, "height": height})

            def moved(points: np.ndarray, cut: _Cut = cut) -> np.ndarray:
                return (points.astype(np.float64) - cut.corner + 0.5) * cut.factor - 0.5

            low, high = moved(person.box.reshape(2, 2))
            seen = person.visible > 0
            points = np.where(seen[:, None], moved(person.keypoints), 0)
            people.append({
                "id": person.id, "image_id": number, "category_id": 1, "iscrowd": 0,
                "bbox": [*low.round(4).tolist(), *(high - low).round(4).tolist()],
                "area": person.area * cut.factor**2,
                "num_keypoints": int(seen.sum()) if person.num_keypoints is None else person.num_keypoints,
                "keypoints": np.column_stack([points.round(4), person.visible]).ravel().tolist(),
            })  # fmt: skip
        return {"images": images, "annotations": people, "categories": [coco_category(self.source.skeleton)]}


def cut_person(image: np.ndarray, person: Person, skeleton: Skeleton, options: PackOptions) -> _Cut:
    """All of a picture, (H, W, 3) uint8 RGB, that an augmented crop of a person can show."""
    whole = Crop.from_boxes(person.box[None], options.input_size)
    halves = (half_body_box(person, skeleton, upper) for upper in (True, False))
    crops = [whole] + [
        Crop.from_boxes(half[None], options.input_size, Augmentation.half_body_padding)
        for half in halves
        if half is not None
    ]
    # turned as far as it may be, a crop stays in the circle about it
    reach = np.array([[np.hypot(*crop.scale[0]) / 2 * (1 + options.scale) + EDGE] for crop in crops])
    centers = np.concatenate([crop.center for crop in crops])
    height, width = image.shape[:2]
    left, top = np.clip(np.floor(np.min(centers - reach, axis=0)), 0, [width - 1, height - 1]).astype(int)
    right, bottom = np.clip(np.ceil(np.max(centers + reach, axis=0)), 1, [width, height]).astype(int)
    pixels = image[top:bottom, left:right]
    # the smallest crop of the whole person shows it pixel by pixel
    factor = min(1.0, float(options.input_size[0] / whole.scale[0, 0]) / (1 - options.scale))
    if factor < 1:
        # black around it as beyond the picture, so that boxes end within, and up to a whole pixel
        edge = math.ceil(1 / factor)
        sides = [side + edge for side in pixels.shape[:2]]
        more = [math.ceil(math.ceil(side * factor) / factor) - side for side in sides]
        pixels = cv2.copyMakeBorder(pixels, edge, more[0], edge, more[1], cv2.BORDER_CONSTANT)
        left, top = left - edge, top - edge
        pixels = cv2.resize(pixels, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
    if options.jpeg is None:
        content = pixels.tobytes()
    else:
        quality = [cv2.IMWRITE_JPEG_QUALITY, options.jpeg, cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
                   cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]  # fmt: skip
        content = cv2.imencode(".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), quality)[1].tobytes()
    return _Cut(content, (pixels.shape[1], pixels.shape[0]), np.array([left, top]), factor)
