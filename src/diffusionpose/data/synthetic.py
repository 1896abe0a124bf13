"""Synthetic people in COCO's format: pictures for tests and first tries that need no download.

A picture has a textured ground and one to a few figures of tubes, with an ellipsoid as head, in random poses,
clothes and light; now and then a thing stands before them. Points of a figure are in the camera's frame: x
right, y up, z towards the camera, in body heights. Picture i of a seed depends on (seed, i) alone.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.random import Generator

from diffusionpose.errors import InputError
from diffusionpose.skeletons import COCO, Skeleton

JPEG_QUALITY = 90
LEAST_SEEN = 0.25  # a person of whom less is seen has no labelled keypoints

# The body: lengths in body heights
SIDES = {"left": 1.0, "right": -1.0}
TORSO, SHOULDER_HEIGHT, SHOULDER, HIP = 0.29, 0.262, 0.105, 0.058
UPPER_ARM, FOREARM, HAND = 0.165, 0.145, 0.055
THIGH, SHIN, FOOT = 0.245, 0.24, 0.11
HEAD_RADII = np.array([0.055, 0.078, 0.065])  # half width, height and depth
HEAD_ABOVE_NECK = np.array([0.0, 0.118, 0.018])
FACE = {  # on the unit sphere that the head's ellipsoid is made of
    "nose": (0.0, -0.12, 1.12),
    "left_eye": (0.4, 0.12, 0.91),
    "right_eye": (-0.4, 0.12, 0.91),
    "left_ear": (1.0, -0.05, -0.05),
    "right_ear": (-1.0, -0.05, -0.05),
    "head_top": (0.0, 1.05, 0.0),
}
LIMBS = {  # its two ends, and the radius at each
    "upper_arm": ("shoulder", "elbow", 0.031, 0.025),
    "forearm": ("elbow", "wrist", 0.024, 0.017),
    "hand": ("wrist", "hand", 0.019, 0.013),
    "thigh": ("hip", "knee", 0.05, 0.036),
    "shin": ("knee", "ankle", 0.035, 0.022),
    "foot": ("ankle", "toe", 0.025, 0.017),
}
PARTS = ("torso", "skirt", "neck", "head", *(f"{side}_{limb}" for side in SIDES for limb in LIMBS))
THING = -1  # owner of pixels that are neither ground nor person
ARMS = {  # degrees: flexion, abduction and inward turn of the shoulder, flexion of the elbow
    "work": ((10, 80), (0, 35), (0, 70), (40, 135)),
    "raise": ((-10, 30), (90, 170), (-40, 40), (0, 110)),
    "free": ((-45, 165), (0, 90), (-30, 80), (0, 140)),
}

# Colours and light
HAIR_COLOURS = np.array(
    [[25, 20, 18], [60, 40, 28], [110, 75, 45], [190, 150, 90], [120, 50, 25], [170, 170, 170]]
)
SKIN_TONES = np.array(
    [[240, 205, 180], [224, 180, 150], [200, 150, 115], [160, 110, 78], [112, 74, 52], [78, 52, 38]]
)
AMBIENT, DIFFUSE = 0.42, 0.68  # light from everywhere, and from the one direction
CIRCLE = np.stack([f(np.linspace(0, 2 * np.pi, 16, endpoint=False)) for f in (np.cos, np.sin)], axis=1)
SUBPIXEL = 4  # fractional bits of cv2's drawing coordinates


def write_synthetic(
    folder: str | Path,
    count: int,
    seed: int = 0,
    skeleton: Skeleton = COCO,
    size: tuple[int, int] = (320, 240),
    most_people: int = 3,
) -> tuple[Path, Path]:
    """Write pictures of synthetic people with COCO annotations.

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
    content: dict[str, Any] = {
        "images": [
            {"id": number, "file_name": f"{number:06d}.jpg", "width": size[0], "height": size[1]}
            for number in range(1, count + 1)
        ],
        "annotations": [],
        "categories": [
            {
                "id": 1,
                "name": "person",
                "keypoints": list(skeleton.joints),
                "skeleton": [[a + 1, b + 1] for a, b in skeleton.limbs],  # COCO counts joints from 1
            }
        ],
    }
    people = content["annotations"]
    try:
        (folder / "images").mkdir(parents=True, exist_ok=True)
        for image in content["images"]:
            picture, found = draw_picture(seed, image["id"], skeleton, size, most_people)
            _, encoded = cv2.imencode(".jpg", picture[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
            (folder / "images" / image["file_name"]).write_bytes(encoded.tobytes())
            for person in found:
                ids = {"id": len(people) + 1, "image_id": image["id"], "category_id": 1, "iscrowd": 0}
                people.append({**ids, **person})
        (folder / "annotations.json").write_text(json.dumps(content))
    except OSError as error:
        raise InputError(f"{folder}: cannot be written ({error.strerror}); choose another folder") from error
    return folder / "images", folder / "annotations.json"


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
    people: list[tuple[Person, np.ndarray]] = []
    count = int(generator.integers(1, most_people + 1))
    for index in range(count):
        person = _placed_person(generator, size, (index + 0.5) / count)
        before = canvas.owner.copy()
        canvas.owner.fill(0)
        paint_person(canvas, person, index)
        drawn = canvas.owner > 0
        canvas.owner[:] = np.where(drawn, canvas.owner, before)
        people.append((person, drawn))
        if generator.random() < 0.35:
            _paint_thing(canvas, generator)
    annotations = [
        _annotation(canvas, person, index, drawn, skeleton)
        for index, (person, drawn) in enumerate(people)
        if drawn.any()
    ]
    return _photographed(canvas.pixels, generator), annotations


def _placed_person(generator: Generator, size: tuple[int, int], place: float) -> Person:
    """Somebody near the share ``place`` of the picture's width; some reach over its border."""
    width, height = size
    tall = height * generator.uniform(*((0.5, 0.95) if generator.random() < 0.85 else (0.95, 1.6)))
    x = width * (place + generator.normal(0, 0.09))
    y = height * np.clip(generator.normal(0.52, 0.07), 0.3, 0.8) + 0.15 * max(0.0, tall - height)
    return random_person(generator, np.array([x, y]), tall)


def _annotation(
    canvas: Canvas, person: Person, index: int, drawn: np.ndarray, skeleton: Skeleton
) -> dict[str, Any]:
    """bbox: all that would be seen of the person if nothing stood before it; area: what is seen."""
    columns, rows = np.flatnonzero(drawn.any(axis=0)), np.flatnonzero(drawn.any(axis=1))
    first = index * len(PARTS) + 1
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
    depths = {name: point[2] for name, point in person.figure.points.items()}
    turned_away = joint in FACE and joint != "head_top" and depths[joint] < depths["head_centre"]
    # the edge of a limb may round to the pixel beside it
    near = canvas.owner[max(0, row - 1) : row + 2, max(0, column - 1) : column + 2]
    owners = {first + PARTS.index(part) for part in _parts_of(joint)}
    return float(x), float(y), 2 if owners & set(near.ravel().tolist()) and not turned_away else 1


def _parts_of(joint: str) -> set[str]:
    """The parts at whose pixels a joint counts as seen."""
    if joint in FACE or joint == "head":
        return {"head"}
    if joint == "neck":
        return {"neck", "torso", "head"}
    side, name = joint.split("_")
    parts = {f"{side}_{limb}" for limb, (start, end, *_) in LIMBS.items() if name in (start, end)}
    return parts | ({"torso", "skirt"} if name in ("shoulder", "hip") else set())


def _photographed(pixels: np.ndarray, generator: Generator) -> np.ndarray:
    """uint8, with a camera's blur, contrast and noise."""
    if generator.random() < 0.6:
        pixels = cv2.GaussianBlur(pixels, (0, 0), generator.uniform(0.4, 0.9))
    contrast, brightness = generator.uniform(0.75, 1.1), generator.uniform(-15, 25)
    strength = int(generator.integers(1, 14))
    noise = generator.integers(-strength, strength + 1, pixels.shape, dtype=np.int8)
    pixels *= contrast
    pixels += noise
    return (pixels + brightness).clip(0, 255).astype(np.uint8)


# Poses


@dataclass(frozen=True, eq=False)
class Figure:
    """A posed body.

    Attributes:
        points: name -> (3,): all joints of COCO, CrowdPose and AI Challenger, tips of hands and feet.
        head, torso: (3, 3) rotation from its frame (x to its left, y up, z forwards) to the camera's.
    """

    points: dict[str, np.ndarray]
    head: np.ndarray
    torso: np.ndarray


def turn(axis: str, degrees: float) -> np.ndarray:
    """(3, 3) rotation about "x", "y" or "z"."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    if axis == "x":
        return np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
    if axis == "y":
        return np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])


def random_figure(generator: Generator) -> Figure:
    """A figure in a random pose, seen from a random side; most stand upright, some lie or tumble."""

    def bent(axis: str, mean: float, deviation: float, low: float, high: float) -> np.ndarray:
        return turn(axis, float(np.clip(generator.normal(mean, deviation), low, high)))

    upright = generator.random() < 0.88
    roll = generator.normal(0, 9) if upright else generator.uniform(-180, 180)
    pitch = generator.normal(0, 8) if upright else generator.uniform(-50, 50)
    hips = turn("z", roll) @ turn("x", pitch) @ turn("y", generator.uniform(-180, 180))
    torso = hips @ bent("x", 8, 14, -20, 70) @ bent("z", 0, 8, -25, 25) @ bent("y", 0, 12, -40, 40)
    head = torso @ bent("y", 0, 25, -70, 70) @ bent("x", 0, 12, -40, 40) @ bent("z", 0, 8, -30, 30)

    points = {"neck": torso @ [0, TORSO, 0], "pelvis": np.zeros(3)}
    centre = points["head_centre"] = points["neck"] + head @ HEAD_ABOVE_NECK
    points |= {name: centre + head @ (HEAD_RADII * direction) for name, direction in FACE.items()}
    points["head"] = points["head_top"]
    for side, angles in zip(SIDES, _leg_angles(generator), strict=True):
        points |= _leg(side, hips, *angles)
    arms = [_arm_angles(generator) for _ in SIDES]
    if generator.random() < 0.25:
        arms[1] = arms[0]
    for side, angles in zip(SIDES, arms, strict=True):
        points |= _arm(side, torso, *angles)
    return Figure(points, head, torso)


def _leg_angles(generator: Generator) -> list[tuple[float, ...]]:
    """Flexion and abduction of the hip and flexion of the knee of both legs, degrees."""
    normal, uniform = generator.normal, generator.uniform
    kind = generator.choice(["stand", "stride", "sit", "free"], p=[0.35, 0.35, 0.12, 0.18])
    if kind == "stand":
        return [(normal(4, 6), uniform(0, 14), abs(normal(0, 8))) for _ in SIDES]
    if kind == "stride":
        step = generator.choice([-1, 1]) * uniform(10, 60)
        knees = np.clip(abs(normal(0, 30, 2)) + [max(0, -step), max(0, step)], 0, 130)
        return [(hip, uniform(-2, 10), knee) for hip, knee in zip((step, -step), knees, strict=True)]
    if kind == "sit":
        hip, knee = uniform(60, 110), uniform(40, 120)
        return [(hip + normal(0, 8), uniform(0, 30), knee + normal(0, 10)) for _ in SIDES]
    return [(uniform(-25, 110), uniform(-5, 45), uniform(0, 130)) for _ in SIDES]


def _arm_angles(generator: Generator) -> list[float]:
    """As ``ARMS`` has them."""
    normal, uniform = generator.normal, generator.uniform
    kind = str(generator.choice(["hang", *ARMS], p=[0.4, 0.25, 0.15, 0.2]))
    if kind == "hang":
        return [normal(0, 18), uniform(4, 25), uniform(-10, 40), min(abs(normal(0, 30)), 140.0)]
    return [uniform(*ends) for ends in ARMS[kind]]


def _leg(side: str, hips: np.ndarray, flexion: float, abduction: float, knee: float) -> dict[str, np.ndarray]:
    sign = SIDES[side]
    thigh = hips @ turn("z", sign * abduction) @ turn("x", -flexion)
    shin = thigh @ turn("x", knee)
    ways = {
        "hip": hips @ [sign * HIP, 0, 0],
        "knee": thigh @ [0, -THIGH, 0],
        "ankle": shin @ [0, -SHIN, 0],
        "toe": shin @ (FOOT * np.array([0.12 * sign, -0.3, 0.95])),
    }
    return _chained(side, ways)


def _arm(
    side: str, torso: np.ndarray, flexion: float, abduction: float, inward: float, elbow: float
) -> dict[str, np.ndarray]:
    sign = SIDES[side]
    upper = torso @ turn("z", sign * abduction) @ turn("x", -flexion) @ turn("y", -sign * inward)
    fore = upper @ turn("x", -elbow)
    ways = {
        "shoulder": torso @ [sign * SHOULDER, SHOULDER_HEIGHT, 0],
        "elbow": upper @ [0, -UPPER_ARM, 0],
        "wrist": fore @ [0, -FOREARM, 0],
        "hand": fore @ [0, -HAND, 0],
    }
    return _chained(side, ways)


def _chained(side: str, ways: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Points of a limb, each given by the way to it from the one before."""
    places = np.cumsum(list(ways.values()), axis=0)
    return {f"{side}_{name}": place for name, place in zip(ways, places, strict=True)}


# People: a figure dressed and drawn part by part, from the farthest to the nearest


@dataclass(frozen=True, eq=False)
class Cloth:
    """A surface: two colours (3,) in 0..255 and how they mix.

    ``pattern`` is "plain", "bands" (round the limb), "stripes" (along it) or "checks"; ``period`` in pixels.
    """

    colour: np.ndarray
    second: np.ndarray
    pattern: str = "plain"
    period: float = 8.0

    def colours(self, along: np.ndarray, across: np.ndarray) -> np.ndarray:
        """(h, w, 3) at pixels along the limb and -1..1 across it; (1, 1, 3) for a plain cloth."""
        if self.pattern == "plain":
            return self.colour[None, None].astype(np.float32)
        bands = np.sin(along * (2 * np.pi / self.period))
        stripes = np.cos(across * 9)  # even in ``across``: the pattern looks the same on both sides
        mix = {"bands": bands, "stripes": stripes, "checks": bands * stripes}[self.pattern] > 0
        return np.where(mix[:, :, None], self.colour, self.second).astype(np.float32)


@dataclass(frozen=True, eq=False)
class Person:
    """A figure placed in the picture and dressed; the same on its left and right."""

    figure: Figure
    centre: np.ndarray  # (2,) pelvis, pixels
    height: float  # of the body, pixels
    build: float  # factor on all widths
    clothes: dict[str, Cloth]  # by limb, and for torso, skirt, neck
    widths: dict[str, float]  # factor on the width of a clothed limb
    has_skirt: bool
    hair: np.ndarray  # colour
    hairline: float  # hair covers the points of the head's unit sphere with y > hairline + 0.6 z
    beard: bool

    def pixel(self, name: str) -> np.ndarray:
        """(2,) position of a point of the figure, pixels."""
        x, y, _ = self.figure.points[name]
        return self.centre + self.height * np.array([x, -y])

    def circle(self, name: str, radius: float) -> np.ndarray:
        """(3,) x, y, radius in pixels, of a radius in body heights."""
        return np.array([*self.pixel(name), radius * self.height * self.build])


def random_person(generator: Generator, centre: np.ndarray, height: float) -> Person:
    """Someone in a random pose and random clothes."""
    skin = _plain(SKIN_TONES[generator.integers(len(SKIN_TONES))] * generator.uniform(0.9, 1.08))
    shirt, trousers = _random_cloth(generator, height), _random_cloth(generator, height)
    shoes = _plain(generator.uniform(10, 240, 3))
    sleeves, legs = generator.choice(3, p=[0.2, 0.4, 0.4]), generator.choice(3, p=[0.1, 0.3, 0.6])
    if generator.random() < 0.15:  # overall
        trousers = shirt
    clothes = {
        "torso": shirt if generator.random() < 0.93 else skin,
        "skirt": trousers,
        "neck": skin,
        "upper_arm": shirt if sleeves >= 1 else skin,
        "forearm": shirt if sleeves == 2 else skin,
        "hand": skin,
        "thigh": trousers if legs >= 1 else skin,
        "shin": trousers if legs == 2 else skin,
        "foot": shoes if generator.random() < 0.9 else skin,
    }
    loose = generator.uniform(1.0, 1.35, 2)
    widths = dict.fromkeys(LIMBS, 1.0)
    widths |= {limb: loose[0] for limb in ("upper_arm", "forearm") if clothes[limb] is shirt}
    widths |= {limb: loose[1] for limb in ("thigh", "shin") if clothes[limb] is trousers}
    skirt = bool(legs < 2 and generator.random() < 0.4) or bool(legs == 0)
    figure, build = random_figure(generator), generator.uniform(0.88, 1.25)
    hair = HAIR_COLOURS[generator.integers(len(HAIR_COLOURS))] * generator.uniform(0.8, 1.2)
    if generator.random() < 0.12:
        hair = generator.uniform(0, 255, 3)  # a hat
    hairline = 1.7 if generator.random() < 0.07 else generator.uniform(-0.25, 0.15)  # 1.7: bald
    beard = bool(generator.random() < 0.15)
    hair = hair.astype(np.float32)
    return Person(figure, centre, height, build, clothes, widths, skirt, hair, hairline, beard)


def _plain(colour: np.ndarray) -> Cloth:
    colour = np.clip(colour, 0, 255).astype(np.float32)
    return Cloth(colour, colour)


def _random_cloth(generator: Generator, height: float) -> Cloth:
    colours = generator.uniform(5, 250, (2, 3)).astype(np.float32)
    grey = generator.random(2)[:, None]  # most clothes are not of pure colours
    colours += grey * (colours.mean(axis=1, keepdims=True) - colours)
    pattern = generator.choice(["plain", "bands", "stripes", "checks"], p=[0.55, 0.2, 0.12, 0.13])
    return Cloth(colours[0], colours[1], str(pattern), height * generator.uniform(0.025, 0.07))


def paint_person(canvas: Canvas, person: Person, index: int) -> None:
    """Draw a person; the owner of part p's pixels is ``index * len(PARTS) + PARTS.index(p) + 1``."""
    depth = {name: point[2] for name, point in person.figure.points.items()}
    depths = {
        "torso": (depth["neck"] + depth["pelvis"]) / 2,
        "neck": depth["neck"] - 0.03,
        "head": depth["head_centre"],
    }
    if person.has_skirt:
        depths["skirt"] = (depth["left_knee"] + depth["right_knee"]) / 4 + 0.1
    for side in SIDES:
        for limb, (start, end, *_) in LIMBS.items():
            depths[f"{side}_{limb}"] = (depth[f"{side}_{start}"] + depth[f"{side}_{end}"]) / 2
    for part in sorted(depths, key=lambda name: depths[name]):
        owner = index * len(PARTS) + PARTS.index(part) + 1
        if part in TRUNK:
            TRUNK[part](canvas, person, owner)
            continue
        side, limb = part.split("_", 1)
        start, end, first, last = LIMBS[limb]
        wide = person.widths[limb]
        ends = [person.circle(f"{side}_{start}", first * wide), person.circle(f"{side}_{end}", last * wide)]
        canvas.paint_hull(np.stack(ends), person.clothes[limb], owner)


def _paint_torso(canvas: Canvas, person: Person, owner: int) -> None:
    radii = {"shoulder": 0.033, "hip": 0.05}
    sides = [person.circle(f"{side}_{joint}", r) for joint, r in radii.items() for side in SIDES]
    chest, belly = person.circle("neck", 0.07), person.circle("pelvis", 0.06)
    chest[:2] += 0.25 * (belly[:2] - chest[:2])
    axis = np.stack([chest, belly])
    spread = [np.hypot(*(sides[i][:2] - sides[i + 1][:2])) / 2 + sides[i][2] for i in (0, 2)]
    axis[:, 2] = np.maximum(axis[:, 2], spread)
    canvas.paint_hull(np.stack([*sides, chest, belly]), person.clothes["torso"], owner, axis)
    if person.figure.torso[2, 2] > 0.2:  # a neckline: which side of the chest is the front
        throat = np.stack([person.circle("neck", 0.03), person.circle("neck", 0.008)])
        down = person.figure.torso @ np.array([0, -0.07, 0.05])
        throat[1, :2] += person.height * np.array([down[0], -down[1]])
        canvas.paint_hull(throat, person.clothes["neck"], owner)


def _paint_skirt(canvas: Canvas, person: Person, owner: int) -> None:
    hips = [person.circle(f"{side}_hip", 0.05) for side in SIDES]
    hems = [person.circle(f"{side}_knee", 0.05) for side in SIDES]
    for hip, hem in zip(hips, hems, strict=True):
        hem[:2] = hip[:2] + 0.7 * (hem[:2] - hip[:2])
    spread = np.hypot(*(hems[0][:2] - hems[1][:2])) / 2 + hems[0][2]
    axis = np.stack([person.circle("pelvis", 0.1), [*((hems[0] + hems[1]) / 2)[:2], spread]])
    canvas.paint_hull(np.stack([*hips, *hems]), person.clothes["skirt"], owner, axis)


def _paint_neck(canvas: Canvas, person: Person, owner: int) -> None:
    circles = np.stack([person.circle("neck", 0.032), person.circle("head_centre", 0.03)])
    canvas.paint_hull(circles, person.clothes["neck"], owner)


def _paint_head(canvas: Canvas, person: Person, owner: int) -> None:
    """The skull, with ears and nose behind or before it."""
    colour = (person.clothes["neck"].colour * 0.88).astype(np.float32)
    centre, height = person.pixel("head_centre"), person.height
    names = ("left_ear", "right_ear", "nose")
    offsets = {name: person.figure.head @ (HEAD_RADII * FACE[name]) for name in names}
    for before in (False, True):
        if before:
            _paint_skull(canvas, person, owner)
        for name, (right, up, forward) in offsets.items():
            if (forward >= 0) == before:
                x, y = centre + height * 0.97 * np.array([right, -up])
                radius = height * (0.011 if name == "nose" else 0.015)
                bump = np.array([[x, y - radius / 2, radius], [x, y + radius / 2, radius]])
                canvas.paint_hull(bump, Cloth(colour, colour), owner)


def _paint_skull(canvas: Canvas, person: Person, owner: int) -> None:
    centre, height, rotation = person.pixel("head_centre"), person.height, person.figure.head
    reach = height * HEAD_RADII.max()
    region = canvas.region(centre - reach, centre + reach)
    if region is None:
        return
    y, x = np.mgrid[region]
    plane = np.stack([(x - centre[0]) / height, (centre[1] - y) / height], axis=-1)  # y up, body heights
    # The ray (x, y, t) meets the ellipsoid where |q| = 1, q = R^T (x, y, t) / radii: a quadratic in t.
    to_sphere = rotation.T / HEAD_RADII[:, None]
    flat, ray = plane @ to_sphere[:, :2].T, to_sphere[:, 2]
    a, b, c = ray @ ray, flat @ ray, (flat**2).sum(axis=-1) - 1
    root = b**2 - a * c
    nearest = (-b + np.sqrt(np.maximum(root, 0))) / a
    sphere = flat + nearest[..., None] * ray
    normals = (sphere / HEAD_RADII) @ rotation.T
    normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
    light = AMBIENT + DIFFUSE * np.maximum(0, normals @ (canvas.light * (1, -1, 1)))
    # root / sqrt(a) grows by about 1 over the radius: this softens the edge over a pixel
    mask = np.clip(root / a * (height**2) / (2 * height * HEAD_RADII.min()) + 0.5, 0, 1)
    canvas.blend(region, (mask * 255).astype(np.uint8), _face_colours(sphere, person), light, owner)


def _face_colours(sphere: np.ndarray, person: Person) -> np.ndarray:
    """(h, w, 3) colours of points (h, w, 3) on the unit sphere in the head's frame."""
    skin, hair = person.clothes["neck"].colour, person.hair
    x, y, z = np.moveaxis(sphere, -1, 0)
    front, side = z > 0, np.abs(x)
    to_eye = np.hypot(side - FACE["left_eye"][0], 1.2 * (y - FACE["left_eye"][1]))
    colours = np.broadcast_to(skin, sphere.shape).astype(np.float32)
    mouth = front & (np.hypot(x, y + 0.55) < 0.3) & (np.abs(y + 0.55) < 0.09)
    for where, colour in (
        (person.beard & front & (y < -0.38) & (z > 0.2), hair),
        (mouth, skin * (0.62, 0.4, 0.4)),
        (front & (to_eye < 0.2), (235, 235, 230)),
        (front & (to_eye < 0.12), (30, 25, 25)),
        (front & (np.abs(y - 0.4) < 0.055) & (side > 0.18) & (side < 0.62), hair * 0.8),
        (y > person.hairline + 0.6 * z, hair),
    ):
        colours[where] = colour
    return colours


TRUNK = {"torso": _paint_torso, "skirt": _paint_skirt, "neck": _paint_neck, "head": _paint_head}


# The picture under construction


class Canvas:
    """Pixels and who owns each of them.

    Attributes:
        pixels: (H, W, 3) float32 RGB in 0..255.
        owner: (H, W) int32, the number of the part drawn last; 0 is the ground.
        light: (3,) unit vector towards the light; x right, y down, z towards the camera.
    """

    def __init__(self, ground: np.ndarray, light: np.ndarray) -> None:
        self.pixels = ground.astype(np.float32)
        self.owner: np.ndarray = np.zeros(ground.shape[:2], np.int32)
        self.light = light / np.linalg.norm(light)

    def region(self, low: np.ndarray, high: np.ndarray) -> tuple[slice, slice] | None:
        """Rows and columns from (x, y) ``low`` to ``high``, as far as they are in the picture."""
        height, width = self.owner.shape
        x0, y0 = max(0, int(low[0]) - 1), max(0, int(low[1]) - 1)
        x1, y1 = min(width, int(high[0]) + 2), min(height, int(high[1]) + 2)
        return (slice(y0, y1), slice(x0, x1)) if x1 > x0 and y1 > y0 else None

    def paint_hull(
        self, circles: np.ndarray, cloth: Cloth, owner: int, axis: np.ndarray | None = None
    ) -> None:
        """The convex hull of circles, (n, 3) as x, y, radius in pixels, shaded like a tube.

        ``axis`` (2, 3) gives the ends of the tube where they are not the first and last circle.
        """
        outline = (circles[:, None, :2] + circles[:, None, 2:] * CIRCLE).reshape(-1, 2).astype(np.float32)
        region = self.region(outline.min(axis=0), outline.max(axis=0))
        if region is None:
            return
        y, x = (np.arange(each.start, each.stop, dtype=np.float32) for each in region)
        mask = np.zeros((len(y), len(x)), np.uint8)
        hull = cv2.convexHull(outline)[:, 0] - (region[1].start, region[0].start)
        cv2.fillConvexPoly(mask, np.rint(hull * 2**SUBPIXEL).astype(np.int32), 255, cv2.LINE_AA, SUBPIXEL)
        start, end = circles[[0, -1]] if axis is None else axis
        along, across = _in_tube(x[None], y[:, None], start.astype(np.float32), end.astype(np.float32))
        length = float(np.hypot(*(end - start)[:2]))
        direction = _unit(end[:2] - start[:2])
        sideways = float(direction[0] * self.light[1] - direction[1] * self.light[0])
        facing = np.sqrt(1 - np.minimum(across * across, 0.98))
        light = AMBIENT + DIFFUSE * np.maximum(0, across * sideways + facing * float(self.light[2]))
        self.blend(region, mask, cloth.colours(along * length, across), light, owner)

    def blend(
        self,
        region: tuple[slice, slice],
        mask: np.ndarray,
        colours: np.ndarray,
        light: np.ndarray,
        owner: int,
    ) -> None:
        """Paint colours (h, w, 3) in light (h, w) where mask (h, w) in 0..255 says."""
        share = (mask * np.float32(1 / 255))[:, :, None]
        pixels = self.pixels[region]
        pixels += share * (np.minimum(colours * light[:, :, None], 255) - pixels)
        self.owner[region][mask > 127] = owner


def _unit(vector: np.ndarray) -> np.ndarray:
    length = float(np.hypot(vector[0], vector[1]))
    return vector / length if length > 1e-3 else np.array([0, 1], vector.dtype)


def _in_tube(
    x: np.ndarray, y: np.ndarray, start: np.ndarray, end: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Share of the way along the tube in 0..1, and place across it in -1..1, of every pixel."""
    direction = _unit(end[:2] - start[:2])
    length = np.float32(max(np.hypot(*(end - start)[:2]), 1.0))
    dx, dy = x - start[0], y - start[1]
    along = ((dx * direction[0] + dy * direction[1]) / length).clip(0, 1)
    radius = np.maximum(start[2] + (end[2] - start[2]) * along, 0.5)
    across = ((dy * direction[0] - dx * direction[1]) / radius).clip(-1, 1)
    return along, across


def random_ground(generator: Generator, size: tuple[int, int]) -> np.ndarray:
    """(H, W, 3) float32 RGB in 0..255: gradients, a horizon, noise at several scales, shapes."""
    width, height = size
    corners = generator.uniform(20, 235, (2, 2, 3)).astype(np.float32)
    corners += generator.uniform(0.3, 0.9) * (corners.mean(axis=2, keepdims=True) - corners)
    ground = cv2.resize(corners, size, interpolation=cv2.INTER_LINEAR)
    if generator.random() < 0.5:
        horizon = int(height * generator.uniform(0.3, 0.8))
        ground[horizon:] = 0.35 * ground[horizon:] + 0.65 * generator.uniform(20, 220, 3)
    texture: np.ndarray = np.zeros((height, width), np.float32)
    for cells, strength in ((6, 30), (24, 20), (96, 16)):
        noise = generator.standard_normal((cells * height // width + 1, cells), dtype=np.float32)
        texture += cv2.resize(noise, size, interpolation=cv2.INTER_LINEAR) * (strength * generator.random())
    ground += texture[:, :, None]
    for _ in range(generator.integers(2, 12)):
        _paint_shape(ground, generator)
    if generator.random() < 0.3:
        ground = cv2.GaussianBlur(ground, (0, 0), generator.uniform(0.8, 2.5))
    return np.clip(ground, 0, 255)


def _paint_shape(ground: np.ndarray, generator: Generator) -> None:
    height, width = ground.shape[:2]
    colour = (generator.uniform(10, 245) + generator.uniform(-50, 50, 3)).tolist()
    (x0, x1), (y0, y1) = generator.integers(0, width, 2).tolist(), generator.integers(0, height, 2).tolist()
    kind = generator.integers(4)
    if kind == 0:
        cv2.rectangle(ground, (x0, y0), (x0 + (x1 - x0) // 3, y0 + (y1 - y0) // 2), colour, -1)
    elif kind == 1:
        cv2.circle(ground, (x0, y0), int(generator.integers(3, height // 6)), colour, -1, cv2.LINE_8)
    elif kind == 2:
        cv2.line(ground, (x0, y0), (x1, y1), colour, int(generator.integers(1, 9)))
    else:
        corners = np.array([x0, y0]) + generator.integers(-height // 5, height // 5, (5, 2))
        cv2.fillConvexPoly(ground, cv2.convexHull(corners.astype(np.int32)), colour)


def _paint_thing(canvas: Canvas, generator: Generator) -> None:
    """Something in front of the people: a box, a post or a ball."""
    height, width = canvas.owner.shape
    colours = generator.uniform(10, 245, (2, 3)).astype(np.float32)
    pattern = str(generator.choice(["plain", "bands", "stripes", "checks"]))
    cloth = Cloth(colours[0], colours[1], pattern, generator.uniform(6, 20))
    x, y = generator.uniform(0, width), generator.uniform(0.3 * height, height)
    radius, length = {
        "box": (generator.uniform(0.04, 0.1), generator.uniform(0.1, 0.3)),
        "post": (generator.uniform(0.008, 0.025), generator.uniform(0.4, 1.0)),
        "ball": (generator.uniform(0.03, 0.1), 0.001),
    }[str(generator.choice(["box", "post", "ball"]))]
    radius, length = radius * height, length * height
    angle = np.radians(90 + generator.normal(0, 15))
    half = 0.5 * length * np.array([np.cos(angle), np.sin(angle)])
    ends = np.array([[x - half[0], y - half[1], radius], [x + half[0], y + half[1], radius]])
    canvas.paint_hull(ends, cloth, THING)
