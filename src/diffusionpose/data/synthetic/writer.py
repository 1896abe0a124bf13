"""Pictures of synthetic people, written as a data set in COCO's format."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from diffusionpose.data.synthetic.canvas import Canvas, paint_thing, random_ground
from diffusionpose.data.synthetic.people import (
    PARTS,
    Person,
    paint_person,
    parts_of_joint,
    random_person,
)
from diffusionpose.errors import InputError
from diffusionpose.skeletons import COCO, Skeleton

JPEG_QUALITY = 90
LEAST_SEEN = 0.25  # a person of whom less is seen has no labelled keypoints


def write_synthetic(
    folder: str | Path,
    count: int,
    seed: int = 0,
    skeleton: Skeleton = COCO,
    size: tuple[int, int] = (320, 240),
    most_people: int = 3,
) -> tuple[Path, Path]:
    """Write ``count`` pictures of synthetic people with COCO annotations.

    Args:
        folder: gets ``images/`` and ``annotations.json``.
        count: of pictures.
        seed: the same seed gives the same files; picture i does not depend on ``count``.
        skeleton: COCO, CROWDPOSE, AIC, or any whose joint names are among theirs.
        size: (width, height) of the pictures.
        most_people: each picture has one to so many.

    Returns:
        The image folder and the annotation file.

    Raises:
        InputError: the skeleton has a joint that the figure has not, or the folder cannot be written.
    """
    folder = Path(folder)
    people: list[dict[str, Any]] = []
    try:
        (folder / "images").mkdir(parents=True, exist_ok=True)
        for number in range(1, count + 1):
            picture, found = draw_picture(seed, number, skeleton, size, most_people)
            (folder / "images" / _file_name(number)).write_bytes(_jpeg(picture))
            people += [{"image_id": number} | person for person in found]
        content = _coco_content(count, people, skeleton, size)
        (folder / "annotations.json").write_text(json.dumps(content))
    except OSError as error:
        raise InputError(f"{folder}: cannot be written ({error.strerror}); choose another folder") from error
    return folder / "images", folder / "annotations.json"


def _jpeg(picture: np.ndarray) -> bytes:
    import cv2

    _, encoded = cv2.imencode(".jpg", picture[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    return encoded.tobytes()


def _file_name(number: int) -> str:
    return f"{number:06d}.jpg"


def _coco_content(
    count: int, people: list[dict[str, Any]], skeleton: Skeleton, size: tuple[int, int]
) -> dict[str, Any]:
    size_entries = {"width": size[0], "height": size[1]}
    fixed = {"category_id": 1, "iscrowd": 0}
    limbs = [[a + 1, b + 1] for a, b in skeleton.limbs]  # COCO counts joints from 1
    return {
        "images": [{"id": n, "file_name": _file_name(n)} | size_entries for n in range(1, count + 1)],
        "annotations": [{"id": n} | fixed | person for n, person in enumerate(people, start=1)],
        "categories": [
            {"id": 1, "name": "person", "keypoints": list(skeleton.joints), "skeleton": limbs},
        ],
    }


def draw_picture(
    seed: int, number: int, skeleton: Skeleton, size: tuple[int, int], most_people: int = 3
) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """Picture ``number`` of a seed, (H, W, 3) uint8 RGB, and its persons as COCO annotations without ids.

    Raises:
        InputError: the skeleton has a joint that the figure has not.
    """
    generator = np.random.default_rng((seed, number))
    light = np.array([generator.uniform(-0.8, 0.8), generator.uniform(-0.9, 0.1), 1.0])
    canvas = Canvas(random_ground(generator, size), light)
    people, drawn = [], []
    count = int(generator.integers(1, most_people + 1))
    for number_of_person in range(count):
        person = _placed(generator, size, (number_of_person + 0.5) / count)
        before = canvas.owner.copy()
        canvas.owner.fill(0)
        paint_person(canvas, person, number_of_person)
        drawn.append(canvas.owner > 0)
        canvas.owner[:] = np.where(drawn[-1], canvas.owner, before)
        people.append(person)
        if generator.random() < 0.35:
            paint_thing(canvas, generator)
    annotations = [
        _annotation(canvas, person, i, mask, skeleton)
        for i, (person, mask) in enumerate(zip(people, drawn, strict=True))
        if mask.any()
    ]
    return _photographed(canvas.pixels, generator), annotations


def _placed(generator: np.random.Generator, size: tuple[int, int], place: float) -> Person:
    """Somebody near the share ``place`` of the picture's width; some reach over its border."""
    width, height = size
    tall = height * (
        generator.uniform(0.5, 0.95) if generator.random() < 0.85 else generator.uniform(0.95, 1.6)
    )
    x = width * (place + generator.normal(0, 0.09))
    y = height * np.clip(generator.normal(0.52, 0.07), 0.3, 0.8) + 0.15 * max(0.0, tall - height)
    return random_person(generator, np.array([x, y]), tall)


def _annotation(
    canvas: Canvas, person: Person, number: int, drawn: np.ndarray, skeleton: Skeleton
) -> dict[str, Any]:
    """bbox: all that would be seen of the person if nothing stood before it; area: what is seen."""
    columns, rows = np.flatnonzero(drawn.any(axis=0)), np.flatnonzero(drawn.any(axis=1))
    first = number * len(PARTS) + 1
    seen = int(np.count_nonzero((canvas.owner >= first) & (canvas.owner < first + len(PARTS))))
    triplets = np.array([_labelled(canvas, person, joint, first) for joint in skeleton.joints])
    if seen < LEAST_SEEN * np.count_nonzero(drawn):
        triplets[:] = 0
    x, y = int(columns[0]), int(rows[0])
    return {
        "bbox": [x, y, int(columns[-1]) + 1 - x, int(rows[-1]) + 1 - y],
        "area": max(seen, 1),
        "keypoints": [round(value, 2) for value in triplets.ravel().tolist()],
        "num_keypoints": int(np.count_nonzero(triplets[:, 2])),
    }


def _labelled(canvas: Canvas, person: Person, joint: str, first: int) -> tuple[float, float, int]:
    """x, y and 2 if the joint is seen, 1 if something is in front of it, 0 if it is outside."""
    if joint not in person.figure.points:
        raise InputError(f"the synthetic figure has no joint {joint!r}; use a skeleton like COCO's")
    x, y = person.pixel(joint)
    height, width = canvas.owner.shape
    column, row = round(float(x)), round(float(y))
    if not (0 <= column < width and 0 <= row < height):
        return 0.0, 0.0, 0
    parts = {first + PARTS.index(part) for part in parts_of_joint(joint)}
    faces_away = joint in ("nose", "left_eye", "right_eye", "left_ear", "right_ear") and (
        person.figure.points[joint][2] < person.figure.points["head_centre"][2]
    )
    # the edge of a limb may round to the pixel beside it
    near = canvas.owner[max(0, row - 1) : row + 2, max(0, column - 1) : column + 2]
    return float(x), float(y), 2 if parts & set(near.ravel().tolist()) and not faces_away else 1


def _photographed(pixels: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """uint8, with a camera's blur, contrast and noise."""
    import cv2

    if generator.random() < 0.6:
        pixels = cv2.GaussianBlur(pixels, (0, 0), generator.uniform(0.4, 0.9))
    contrast, brightness = generator.uniform(0.75, 1.1), generator.uniform(-15, 25)
    strength = int(generator.integers(1, 14))
    noise = generator.integers(-strength, strength + 1, pixels.shape, dtype=np.int8)
    pixels *= contrast
    pixels += noise
    return (pixels + brightness).clip(0, 255).astype(np.uint8)
