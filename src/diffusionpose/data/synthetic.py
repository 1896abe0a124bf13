"""Synthetic people in COCO's format: pictures for tests and first tries that need no download.

Figures of tubes in random poses, clothes and light, on a textured ground; things stand before some of them.
Points of a figure are in the camera's frame, in body heights: x right, y up, z towards the camera.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.random import Generator

from diffusionpose.data.annotations import coco_category
from diffusionpose.errors import InputError
from diffusionpose.skeletons import COCO, Skeleton

LEAST_SEEN = 0.25  # a person of whom less is seen has no labelled keypoints

# The body, in body heights
SIDES = {"left": 1.0, "right": -1.0}
TORSO, SHOULDER_HEIGHT, SHOULDER, HIP = 0.29, 0.262, 0.105, 0.058
UPPER_ARM, FOREARM, HAND = 0.165, 0.145, 0.055
THIGH, SHIN, FOOT = 0.245, 0.24, 0.11
HEAD_ABOVE_NECK = (0.0, 0.118, 0.018)
HEAD = {  # from the middle of the head: x to its left, y up, z forwards
    "nose": (0.0, -0.009, 0.073),
    "left_eye": (0.022, 0.009, 0.059),
    "right_eye": (-0.022, 0.009, 0.059),
    "left_ear": (0.055, -0.004, -0.003),
    "right_ear": (-0.055, -0.004, -0.003),
    "head_top": (0.0, 0.082, 0.0),
    "head": (0.0, 0.082, 0.0),
}
LIMBS = {  # ends, and radii at them
    "upper_arm": ("shoulder", "elbow", 0.031, 0.025),
    "forearm": ("elbow", "wrist", 0.024, 0.017),
    "hand": ("wrist", "hand", 0.019, 0.013),
    "thigh": ("hip", "knee", 0.05, 0.036),
    "shin": ("knee", "ankle", 0.035, 0.022),
    "foot": ("ankle", "toe", 0.025, 0.017),
}
PARTS = ("torso", "neck", "head", *(f"{side}_{limb}" for side in SIDES for limb in LIMBS))
THING = -1  # owner of pixels that are neither ground nor person

# Angles in degrees, from and to
LEGS = {  # flexion and abduction of the hip, flexion of the knee
    "stand": ((-8, 16), (0, 14), (0, 16)),
    "before": ((10, 60), (-2, 10), (0, 60)),
    "behind": ((-60, -10), (-2, 10), (10, 110)),
    "sit": ((60, 110), (0, 30), (40, 120)),
    "free": ((-25, 110), (-5, 45), (0, 130)),
}
ARMS = {  # flexion, abduction and inward turn of the shoulder, flexion of the elbow
    "hang": ((-30, 30), (4, 25), (-10, 40), (0, 50)),
    "work": ((10, 80), (0, 35), (0, 70), (40, 135)),
    "raise": ((-10, 30), (90, 170), (-40, 40), (0, 110)),
    "free": ((-45, 165), (0, 90), (-30, 80), (0, 140)),
}
DARK_SKIN, LIGHT_SKIN, LIGHT_HAIR = (np.array(c) for c in ((78, 52, 38), (240, 205, 180), (190, 150, 90)))
AMBIENT, DIFFUSE = 0.42, 0.68  # light from everywhere, and from the one direction
SUBPIXEL = 4  # fractional bits of cv2's drawing coordinates
CIRCLE = np.stack([f(np.linspace(0, 2 * np.pi, 16, endpoint=False)) for f in (np.cos, np.sin)], axis=1)


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
    images: list[dict[str, Any]] = []
    people: list[dict[str, Any]] = []
    try:
        (folder / "images").mkdir(parents=True, exist_ok=True)
        for number in range(1, count + 1):
            name = f"{number:06d}.jpg"
            picture, found = draw_picture(seed, number, skeleton, size, most_people)
            _, encoded = cv2.imencode(".jpg", picture[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])
            (folder / "images" / name).write_bytes(encoded.tobytes())
            images.append({"id": number, "file_name": name, "width": size[0], "height": size[1]})
            for person in found:
                ids = {"id": len(people) + 1, "image_id": number, "category_id": 1, "iscrowd": 0}
                people.append({**ids, **person})
        content = {"images": images, "annotations": people, "categories": [coco_category(skeleton)]}
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
        person = random_person(generator, size, (index + 0.5) / count)
        before = canvas.owner.copy()
        canvas.owner.fill(0)
        paint_person(canvas, person, index)
        drawn = canvas.owner > 0
        canvas.owner[:] = np.where(drawn, canvas.owner, before)
        people.append((person, drawn))
        if generator.random() < 0.35:
            paint_thing(canvas, generator)
    annotations = [
        annotation_of(canvas, person, index, drawn, skeleton)
        for index, (person, drawn) in enumerate(people)
        if drawn.any()
    ]
    return photographed(canvas.pixels, generator), annotations


def annotation_of(
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
    points = person.figure.points
    if joint not in points:
        raise InputError(f"the synthetic figure has no joint {joint!r}; use a skeleton like COCO's")
    x, y = person.pixel(points[joint])
    column, row = round(float(x)), round(float(y))
    if not (0 <= column < canvas.owner.shape[1] and 0 <= row < canvas.owner.shape[0]):
        return 0.0, 0.0, 0
    if joint in HEAD:
        parts = {"head"} if "head" in joint or points[joint][2] >= points["head_centre"][2] else set()
    elif joint == "neck":
        parts = {"neck", "torso", "head"}
    else:
        side, name = joint.split("_")
        parts = {f"{side}_{limb}" for limb, (start, end, *_) in LIMBS.items() if name in (start, end)}
        parts |= {"torso"} if name in ("shoulder", "hip") else set()
    # the edge of a limb may round to the pixel beside it
    near = canvas.owner[max(0, row - 1) : row + 2, max(0, column - 1) : column + 2]
    owners = {first + PARTS.index(part) for part in parts}
    return float(x), float(y), 2 if owners & set(near.ravel().tolist()) else 1


def photographed(pixels: np.ndarray, generator: Generator) -> np.ndarray:
    """uint8, with a camera's blur, contrast, brightness and noise."""
    pixels = cv2.GaussianBlur(pixels, (0, 0), generator.uniform(0.3, 0.9)) * generator.uniform(0.75, 1.1)
    noise = generator.normal(generator.uniform(-15, 25), generator.uniform(0.5, 8), pixels.shape)
    return (pixels + noise).clip(0, 255).astype(np.uint8)


# Poses


@dataclass(frozen=True, eq=False)
class Figure:
    """A posed body."""

    points: dict[str, np.ndarray]  # (3,) by name: COCO's, CrowdPose's and AI Challenger's joints, and more
    head: np.ndarray  # (3, 3) rotation from its frame (x to its left, y up, z forwards) to the camera's
    torso: np.ndarray  # (3, 3)


def turn(axis: str, degrees: float) -> np.ndarray:
    """(3, 3) rotation about "x", "y" or "z"."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    a, b = {"x": (1, 2), "y": (2, 0), "z": (0, 1)}[axis]
    rotation = np.eye(3)
    rotation[[a, a, b, b], [a, b, a, b]] = c, -s, s, c
    return rotation


def random_figure(generator: Generator) -> Figure:
    """A figure in a random pose, seen from a random side; most stand upright, some lie or tumble."""

    def bent(axis: str, mean: float, deviation: float, most: float) -> np.ndarray:
        return turn(axis, float(np.clip(generator.normal(mean, deviation), mean - most, mean + most)))

    upright = generator.random() < 0.88
    roll = generator.normal(0, 9) if upright else generator.uniform(-180, 180)
    pitch = generator.normal(0, 8) if upright else generator.uniform(-50, 50)
    hips = turn("z", roll) @ turn("x", pitch) @ turn("y", generator.uniform(-180, 180))
    torso = hips @ bent("x", 8, 14, 40) @ bent("z", 0, 8, 25) @ bent("y", 0, 12, 40)
    head = torso @ bent("y", 0, 25, 70) @ bent("x", 0, 12, 40) @ bent("z", 0, 8, 30)
    points = {"pelvis": np.zeros(3), "neck": torso @ [0, TORSO, 0]}
    points["head_centre"] = points["neck"] + head @ HEAD_ABOVE_NECK
    points |= {name: points["head_centre"] + head @ place for name, place in HEAD.items()}
    stance = str(generator.choice(["stand", "stride", "sit", "free"], p=[0.35, 0.35, 0.12, 0.18]))
    legs = generator.permutation(["before", "behind"]) if stance == "stride" else [stance, stance]
    arms = generator.choice(list(ARMS), 2, p=[0.4, 0.25, 0.15, 0.2])
    for side, leg, arm in zip(SIDES, legs, arms, strict=True):
        points |= _leg(side, hips, *(generator.uniform(*ends) for ends in LEGS[leg]))
        points |= _arm(side, torso, *(generator.uniform(*ends) for ends in ARMS[arm]))
    return Figure(points, head, torso)


def _leg(side: str, hips: np.ndarray, flexion: float, abduction: float, knee: float) -> dict[str, np.ndarray]:
    sign = SIDES[side]
    thigh = hips @ turn("z", sign * abduction) @ turn("x", -flexion)
    shin = thigh @ turn("x", knee)
    toe = FOOT * np.array([0.12 * sign, -0.3, 0.95])
    ways = [hips @ [sign * HIP, 0, 0], thigh @ [0, -THIGH, 0], shin @ [0, -SHIN, 0], shin @ toe]
    names = [f"{side}_{p}" for p in ("hip", "knee", "ankle", "toe")]
    return dict(zip(names, np.cumsum(ways, 0), strict=True))


def _arm(
    side: str, torso: np.ndarray, flexion: float, abduction: float, inward: float, elbow: float
) -> dict[str, np.ndarray]:
    sign = SIDES[side]
    upper = torso @ turn("z", sign * abduction) @ turn("x", -flexion) @ turn("y", -sign * inward)
    fore = upper @ turn("x", -elbow)
    shoulder = torso @ [sign * SHOULDER, SHOULDER_HEIGHT, 0]
    ways = [shoulder, upper @ [0, -UPPER_ARM, 0], fore @ [0, -FOREARM, 0], fore @ [0, -HAND, 0]]
    names = [f"{side}_{p}" for p in ("shoulder", "elbow", "wrist", "hand")]
    return dict(zip(names, np.cumsum(ways, 0), strict=True))


# People: a figure dressed, and drawn part by part from the farthest to the nearest


class Cloth(NamedTuple):
    """A surface: (2, 3) colours in 0..255, which take turns along the limb, ``period`` pixels each two."""

    colours: np.ndarray
    period: float = 1.0


def _plain(colour: np.ndarray) -> Cloth:
    return Cloth(np.stack([colour, colour]).clip(0, 255).astype(np.float32))


def _random_cloth(generator: Generator, height: float) -> Cloth:
    colours = generator.uniform(5, 250, (2, 3))
    colours += generator.random((2, 1)) * (colours.mean(axis=1, keepdims=True) - colours)  # greyer
    if generator.random() < 0.6:
        return _plain(colours[0])
    return Cloth(colours.astype(np.float32), height * generator.uniform(0.025, 0.07))


@dataclass(frozen=True, eq=False)
class Person:
    """A figure placed in the picture and dressed; the same on its left and right."""

    figure: Figure
    centre: np.ndarray  # (2,) pelvis, pixels
    height: float  # of the body, pixels
    build: float  # factor on all widths
    clothes: dict[str, Cloth]  # by limb, and of torso, skin and hair
    loose: dict[str, float]  # factor on the width of a clothed limb

    def pixel(self, point: np.ndarray) -> np.ndarray:
        """(2,) position of a point of the figure, pixels."""
        return self.centre + self.height * np.array([point[0], -point[1]])

    def circle(self, point: np.ndarray, radius: float) -> np.ndarray:
        """(3,) x, y, radius in pixels, of a radius in body heights."""
        return np.array([*self.pixel(point), radius * self.height * self.build])


def random_person(generator: Generator, size: tuple[int, int], place: float) -> Person:
    """Someone near the share ``place`` of the picture's width; some reach over its border."""
    height = size[1] * generator.uniform(*((0.5, 0.95) if generator.random() < 0.85 else (0.95, 1.6)))
    x = size[0] * (place + generator.normal(0, 0.09))
    y = size[1] * np.clip(generator.normal(0.52, 0.07), 0.3, 0.8) + 0.15 * max(0.0, height - size[1])
    skin = _plain((DARK_SKIN + generator.random() * (LIGHT_SKIN - DARK_SKIN)) * generator.uniform(0.9, 1.05))
    hair = _plain(LIGHT_HAIR * generator.uniform(0.1, 1))
    if generator.random() < 0.15:
        hair = skin if generator.random() < 0.5 else _random_cloth(generator, height)  # bald, or a hat
    shirt, trousers = _random_cloth(generator, height), _random_cloth(generator, height)
    shoes = _plain(generator.uniform(10, 240, 3))
    sleeves, legs = generator.choice(3, p=[0.2, 0.4, 0.4]), generator.choice(3, p=[0.1, 0.3, 0.6])
    worn = {"upper_arm": sleeves >= 1, "forearm": sleeves == 2, "thigh": legs >= 1, "shin": legs == 2}
    clothes = {"torso": shirt, "skin": skin, "hair": hair, "hand": skin, "foot": shoes}
    loose = dict.fromkeys(LIMBS, 1.0)
    for cloth, width, limbs in (
        (shirt, generator.uniform(1, 1.35), ("upper_arm", "forearm")),
        (trousers, generator.uniform(1, 1.35), ("thigh", "shin")),
    ):
        clothes |= {limb: cloth if worn[limb] else skin for limb in limbs}
        loose |= {limb: width for limb in limbs if worn[limb]}
    build, figure = generator.uniform(0.88, 1.25), random_figure(generator)
    return Person(figure, np.array([x, y]), height, build, clothes, loose)


def paint_person(canvas: Canvas, person: Person, index: int) -> None:
    """Draw a person; the owner of part p's pixels is ``index * len(PARTS) + PARTS.index(p) + 1``."""
    points = person.figure.points
    skin, hair, shirt = (person.clothes[name] for name in ("skin", "hair", "torso"))
    darker = _plain(skin.colours[0] * 0.85)
    hulls: list[tuple[float, str, list[np.ndarray], Cloth]] = []  # depth, part, circles, cloth

    def add(part: str, places: list[tuple[np.ndarray, float]], cloth: Cloth, nearer: float = 0) -> None:
        depth = nearer + sum(float(point[2]) for point, _ in places) / len(places)
        hulls.append((depth, part, [person.circle(*place) for place in places], cloth))

    for side in SIDES:
        for limb, (start, end, first, last) in LIMBS.items():
            wide = person.loose[limb]
            ends = [(points[f"{side}_{start}"], first * wide), (points[f"{side}_{end}"], last * wide)]
            add(f"{side}_{limb}", ends, person.clothes[limb])
    chest = {f"{side}_shoulder": 0.033 for side in SIDES}
    hips = {f"{side}_hip": 0.05 for side in SIDES}
    add("torso", [(points[name], radius) for name, radius in (chest | hips).items()], shirt)
    # a neckline: which side of the chest is the front
    throat = points["neck"] + person.figure.torso @ [0, -0.02, 0.07]
    add("torso", [(throat, 0.025), (throat + person.figure.torso @ [0, -0.05, 0], 0.008)], skin)
    add("neck", [(points["neck"], 0.032), (points["head_centre"], 0.03)], skin, nearer=-0.05)
    for up, forwards, radius, cloth in ((0.02, 0.0, 0.055, skin), (0.024, -0.014, 0.056, hair)):
        middle = points["head_centre"] + person.figure.head @ [0, 0, forwards]
        way = person.figure.head @ [0, up, 0]
        add("head", [(middle + way, radius), (middle - way, radius * 0.85)], cloth)
    for name, radius, cloth in (("eye", 0.009, _plain(np.full(3, 28.0))), ("ear", 0.014, darker)):
        for side in SIDES:
            add("head", [(points[f"{side}_{name}"], radius)], cloth)
    add("head", [(points["nose"], 0.011)], darker)
    for _, part, circles, cloth in sorted(hulls, key=lambda hull: hull[0]):
        canvas.paint_hull(np.stack(circles), cloth, index * len(PARTS) + PARTS.index(part) + 1)


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

    def paint_hull(self, circles: np.ndarray, cloth: Cloth, owner: int) -> None:
        """The convex hull of circles, (n, 3) as x, y, radius in pixels, shaded like a tube.

        The tube leads from the middle of the first half of the circles to that of the second.
        """
        outline = (circles[:, None, :2] + circles[:, None, 2:] * CIRCLE).reshape(-1, 2).astype(np.float32)
        height, width = self.owner.shape
        x0, y0 = np.maximum(outline.min(axis=0).astype(int) - 1, 0)
        x1, y1 = np.minimum(outline.max(axis=0).astype(int) + 2, (width, height))
        if x1 <= x0 or y1 <= y0:
            return
        mask = np.zeros((y1 - y0, x1 - x0), np.uint8)
        hull = np.rint((cv2.convexHull(outline)[:, 0] - (x0, y0)) * 2**SUBPIXEL).astype(np.int32)
        cv2.fillConvexPoly(mask, hull, 255, cv2.LINE_AA, SUBPIXEL)
        half = (len(circles) + 1) // 2
        start, end = circles[:half, :2].mean(axis=0), circles[-half:, :2].mean(axis=0)
        length = float(np.hypot(*(end - start)))
        along_x, along_y = (end - start) / length if length > 1e-3 else (0.0, 1.0)
        y, x = np.mgrid[y0:y1, x0:x1]
        along = (x - start[0]) * along_x + (y - start[1]) * along_y
        outwards = (outline - start) @ (-along_y, along_x)
        middle, breadth = (outwards.max() + outwards.min()) / 2, np.ptp(outwards) / 2
        across = (y - start[1]) * along_x - (x - start[0]) * along_y
        across = ((across - middle) / max(breadth, 0.5)).clip(-0.99, 0.99)
        sideways, facing = along_x * self.light[1] - along_y * self.light[0], np.sqrt(1 - across**2)
        light = AMBIENT + DIFFUSE * np.maximum(0, across * sideways + facing * self.light[2])
        bands = np.sin(along * (2 * np.pi / cloth.period)) > 0
        colours = cloth.colours[bands.astype(int)] * light[:, :, None]
        pixels = self.pixels[y0:y1, x0:x1]
        pixels += (mask / 255)[:, :, None] * (np.minimum(colours, 255) - pixels)
        self.owner[y0:y1, x0:x1][mask > 127] = owner


def random_ground(generator: Generator, size: tuple[int, int]) -> np.ndarray:
    """(H, W, 3) float32 RGB in 0..255: gradients, a horizon, noise at several scales, shapes."""
    width, height = size
    corners = generator.uniform(20, 235, (2, 2, 3))
    corners += generator.uniform(0.3, 0.9) * (corners.mean(axis=2, keepdims=True) - corners)
    ground = cv2.resize(corners.astype(np.float32), size, interpolation=cv2.INTER_LINEAR)
    if generator.random() < 0.5:
        horizon = int(height * generator.uniform(0.3, 0.8))
        ground[horizon:] = 0.35 * ground[horizon:] + 0.65 * generator.uniform(20, 220, 3)
    for cells, strength in ((6, 30), (24, 20), (96, 16)):
        noise = generator.standard_normal((cells * height // width + 1, cells), dtype=np.float32)
        noise *= strength * generator.random()
        ground = ground + cv2.resize(noise, size, interpolation=cv2.INTER_LINEAR)[:, :, None]
    for _ in range(generator.integers(2, 12)):
        colour = (generator.uniform(10, 245) + generator.uniform(-50, 50, 3)).tolist()
        x, y = int(generator.integers(width)), int(generator.integers(height))
        dx, dy = generator.integers(-height // 3, height // 3, 2).tolist()
        kind = generator.integers(3)
        if kind == 0:
            cv2.rectangle(ground, (x, y), (x + dx, y + dy), colour, -1)
        elif kind == 1:
            cv2.circle(ground, (x, y), abs(dx) // 2, colour, -1)
        else:
            cv2.line(ground, (x, y), (x + 3 * dx, y + 3 * dy), colour, int(generator.integers(1, 9)))
    return np.clip(cv2.GaussianBlur(ground, (0, 0), generator.uniform(0.3, 2)), 0, 255)


def paint_thing(canvas: Canvas, generator: Generator) -> None:
    """Something in front of the people: a ball, a bar or a post."""
    height, width = canvas.owner.shape
    x, y = generator.uniform(0, width), generator.uniform(0.3 * height, height)
    radius = height * 10 ** generator.uniform(-2, -1)
    angle, half = np.radians(90 + generator.normal(0, 15)), height * generator.uniform(0, 0.4)
    way = half * np.array([np.cos(angle), np.sin(angle)])
    ends = np.array([[x - way[0], y - way[1], radius], [x + way[0], y + way[1], radius]])
    canvas.paint_hull(ends, _random_cloth(generator, height), THING)
