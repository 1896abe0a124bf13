"""People: what a figure wears, and drawing it limb by limb from the farthest to the nearest."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from diffusionpose.data.synthetic.canvas import AMBIENT, DIFFUSE, Canvas, Cloth

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


@dataclass(frozen=True, eq=False)
class Figure:
    """A posed body: 3D points by name and the orientation of head and torso.

    Attributes:
        points: name -> (3,), camera frame (x right, y up, z towards the camera), body heights. All
            COCO, CrowdPose and AI Challenger joints, and the tips of hands and feet.
        head: (3, 3) rotation from the head's frame to the camera's.
        torso: (3, 3) rotation of the upper body.
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


def random_figure(generator: np.random.Generator) -> Figure:
    """A figure in a random pose, seen from a random side; most stand upright, some lie or tumble."""
    upright = generator.random() < 0.88
    roll = generator.normal(0, 9) if upright else generator.uniform(-180, 180)
    pitch = generator.normal(0, 8) if upright else generator.uniform(-50, 50)
    hips = turn("z", roll) @ turn("x", pitch) @ turn("y", generator.uniform(-180, 180))
    torso = (
        hips @ turn("x", _clipped(generator, 8, 14, -20, 70)) @ turn("z", _clipped(generator, 0, 8, -25, 25))
    )
    torso = torso @ turn("y", _clipped(generator, 0, 12, -40, 40))
    head = (
        torso
        @ turn("y", _clipped(generator, 0, 25, -70, 70))
        @ turn("x", _clipped(generator, 0, 12, -40, 40))
    )
    head = head @ turn("z", _clipped(generator, 0, 8, -30, 30))

    points = {"neck": torso @ [0, TORSO, 0], "pelvis": np.zeros(3)}
    centre = points["neck"] + head @ HEAD_ABOVE_NECK
    points["head_centre"] = centre
    for name, direction in FACE.items():
        points[name] = centre + head @ (HEAD_RADII * direction)
    points["head"] = points["head_top"]
    for side, leg in zip(SIDES, _leg_angles(generator), strict=True):
        points.update(_leg(side, hips, *leg))
    for side, arm in zip(SIDES, _arm_angles(generator), strict=True):
        points.update(_arm(side, torso, *arm))
    return Figure(points, head, torso)


def _clipped(generator: np.random.Generator, mean: float, deviation: float, low: float, high: float) -> float:
    return float(np.clip(generator.normal(mean, deviation), low, high))


def _leg_angles(generator: np.random.Generator) -> list[tuple[float, float, float]]:
    """Hip flexion, hip abduction and knee flexion of both legs, degrees."""
    kind = generator.choice(["stand", "stride", "sit", "free"], p=[0.35, 0.35, 0.12, 0.18])
    if kind == "stand":
        return [
            (generator.normal(4, 6), generator.uniform(0, 14), abs(generator.normal(0, 8))) for _ in SIDES
        ]
    if kind == "stride":
        step = generator.choice([-1, 1]) * generator.uniform(10, 60)
        knees = abs(generator.normal(0, 30, 2)) + [max(0, -step), max(0, step)]
        return [
            (side * step, generator.uniform(-2, 10), k)
            for side, k in zip((1, -1), np.clip(knees, 0, 130), strict=True)
        ]
    if kind == "sit":
        hip, knee = generator.uniform(60, 110), generator.uniform(40, 120)
        return [
            (hip + generator.normal(0, 8), generator.uniform(0, 30), knee + generator.normal(0, 10))
            for _ in SIDES
        ]
    return [
        (generator.uniform(-25, 110), generator.uniform(-5, 45), generator.uniform(0, 130)) for _ in SIDES
    ]


def _arm_angles(generator: np.random.Generator) -> list[tuple[float, float, float, float]]:
    """Shoulder flexion, abduction and inward turn, elbow flexion of both arms, degrees."""
    arms = []
    for _ in SIDES:
        kind = generator.choice(["hang", "work", "raise", "free"], p=[0.4, 0.25, 0.15, 0.2])
        if kind == "hang":
            arm = (
                generator.normal(0, 18),
                generator.uniform(4, 25),
                generator.uniform(-10, 40),
                abs(generator.normal(0, 30)),
            )
        elif kind == "work":
            arm = (
                generator.uniform(10, 80),
                generator.uniform(0, 35),
                generator.uniform(0, 70),
                generator.uniform(40, 135),
            )
        elif kind == "raise":
            arm = (
                generator.uniform(-10, 30),
                generator.uniform(90, 170),
                generator.uniform(-40, 40),
                generator.uniform(0, 110),
            )
        else:
            arm = (
                generator.uniform(-45, 165),
                generator.uniform(0, 90),
                generator.uniform(-30, 80),
                generator.uniform(0, 140),
            )
        arms.append((arm[0], arm[1], arm[2], min(arm[3], 140.0)))
    return [arms[0], arms[0]] if generator.random() < 0.25 else arms


def _leg(side: str, hips: np.ndarray, flexion: float, abduction: float, knee: float) -> dict[str, np.ndarray]:
    sign = SIDES[side]
    thigh = hips @ turn("z", sign * abduction) @ turn("x", -flexion)
    shin = thigh @ turn("x", knee)
    hip_point = hips @ [sign * HIP, 0, 0]
    knee_point = hip_point + thigh @ [0, -THIGH, 0]
    ankle_point = knee_point + shin @ [0, -SHIN, 0]
    toe = ankle_point + shin @ (FOOT * np.array([0.12 * sign, -0.3, 0.95]))
    return {
        f"{side}_hip": hip_point,
        f"{side}_knee": knee_point,
        f"{side}_ankle": ankle_point,
        f"{side}_toe": toe,
    }


def _arm(
    side: str, torso: np.ndarray, flexion: float, abduction: float, inward: float, elbow: float
) -> dict[str, np.ndarray]:
    sign = SIDES[side]
    upper = torso @ turn("z", sign * abduction) @ turn("x", -flexion) @ turn("y", -sign * inward)
    fore = upper @ turn("x", -elbow)
    shoulder = torso @ [sign * SHOULDER, SHOULDER_HEIGHT, 0]
    elbow_point = shoulder + upper @ [0, -UPPER_ARM, 0]
    wrist = elbow_point + fore @ [0, -FOREARM, 0]
    tip = wrist + fore @ [0, -HAND, 0]
    return {
        f"{side}_shoulder": shoulder,
        f"{side}_elbow": elbow_point,
        f"{side}_wrist": wrist,
        f"{side}_hand": tip,
    }


# Heads: an ellipsoid seen from any side, with hair, eyes, brows, nose, mouth and ears

HAIR_COLOURS = np.array(
    [[25, 20, 18], [60, 40, 28], [110, 75, 45], [190, 150, 90], [120, 50, 25], [170, 170, 170]]
)


@dataclass(frozen=True, eq=False)
class HeadLook:
    """Colours (3,) of skin and hair, and where the hair begins.

    Hair covers the points of the unit sphere with y > ``hairline`` + 0.6 z: low at the back, high in front.
    """

    skin: np.ndarray
    hair: np.ndarray
    hairline: float
    beard: bool


def random_head(generator: np.random.Generator, skin: np.ndarray) -> HeadLook:
    """Hair of any colour and length, now and then none, or a hat."""
    hair = HAIR_COLOURS[generator.integers(len(HAIR_COLOURS))] * generator.uniform(0.8, 1.2)
    if generator.random() < 0.12:
        hair = generator.uniform(0, 255, 3)  # a hat
    bald = generator.random() < 0.07
    hairline = 1.7 if bald else generator.uniform(-0.25, 0.15)
    return HeadLook(skin, hair.astype(np.float32), hairline, beard=bool(generator.random() < 0.15))


def paint_head(
    canvas: Canvas, centre: np.ndarray, height: float, rotation: np.ndarray, look: HeadLook, owner: int
) -> None:
    """Draw a head.

    Args:
        canvas: to draw on.
        centre: (2,) of the head, pixels.
        height: of the body, pixels.
        rotation: (3, 3) from the head's frame (x to its left, y up, z forwards) to the camera's.
        look: colours.
        owner: number for the canvas's owner map.
    """
    bumps = [(name, rotation @ (HEAD_RADII * FACE[name])) for name in ("left_ear", "right_ear", "nose")]
    for name, offset in bumps:
        if offset[2] < 0:
            _paint_bump(canvas, centre, height, offset, look, name, owner)
    _paint_skull(canvas, centre, height, rotation, look, owner)
    for name, offset in bumps:
        if offset[2] >= 0:
            _paint_bump(canvas, centre, height, offset, look, name, owner)


def _paint_bump(
    canvas: Canvas,
    centre: np.ndarray,
    height: float,
    offset: np.ndarray,
    look: HeadLook,
    name: str,
    owner: int,
) -> None:
    colour = (look.skin * 0.88).astype(np.float32)
    x, y = centre + height * 0.97 * np.array([offset[0], -offset[1]])
    radius = height * (0.011 if name == "nose" else 0.015)
    canvas.paint_hull(
        np.array([[x, y - radius / 2, radius], [x, y + radius / 2, radius]]), Cloth(colour, colour), owner
    )


def _paint_skull(
    canvas: Canvas, centre: np.ndarray, height: float, rotation: np.ndarray, look: HeadLook, owner: int
) -> None:
    region = canvas.region_round(centre, height * HEAD_RADII.max())
    if region is None:
        return
    rows, columns = region
    x, y = np.meshgrid(np.arange(columns.start, columns.stop), np.arange(rows.start, rows.stop))
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
    colours = _face_colours(sphere, look) * light[..., None]
    canvas.paint_pixels(region, (mask * 255).astype(np.uint8), colours.astype(np.float32), owner)


def _face_colours(sphere: np.ndarray, look: HeadLook) -> np.ndarray:
    """(h, w, 3) colours of points (h, w, 3) on the unit sphere in the head's frame."""
    x, y, z = np.moveaxis(sphere, -1, 0)
    front, side = z > 0, np.abs(x)
    to_eye = np.hypot(side - FACE["left_eye"][0], 1.2 * (y - FACE["left_eye"][1]))
    colours = np.broadcast_to(look.skin, sphere.shape).astype(np.float32)
    features = [
        (front & (np.hypot(x, y + 0.55) < 0.3) & (np.abs(y + 0.55) < 0.09), look.skin * (0.62, 0.4, 0.4)),
        (front & (to_eye < 0.2), np.array([235, 235, 230])),
        (front & (to_eye < 0.12), np.array([30, 25, 25])),
        (front & (np.abs(y - 0.4) < 0.055) & (side > 0.18) & (side < 0.62), look.hair * 0.8),
        (y > look.hairline + 0.6 * z, look.hair),
    ]
    if look.beard:
        features.insert(0, (front & (y < -0.38) & (z > 0.2), look.hair))
    for where, colour in features:
        colours[where] = colour
    return colours


# People: what a figure wears, and drawing it limb by limb from the farthest to the nearest

# radius at both ends of each limb, shares of the body height
LIMBS = {
    "upper_arm": ("shoulder", "elbow", 0.031, 0.025),
    "forearm": ("elbow", "wrist", 0.024, 0.017),
    "hand": ("wrist", "hand", 0.019, 0.013),
    "thigh": ("hip", "knee", 0.05, 0.036),
    "shin": ("knee", "ankle", 0.035, 0.022),
    "foot": ("ankle", "toe", 0.025, 0.017),
}
PARTS = ("torso", "skirt", "neck", "head", *(f"{side}_{limb}" for side in SIDES for limb in LIMBS))
# the parts of the body in which a joint can be seen
FACE_JOINTS = ("nose", "left_eye", "right_eye", "left_ear", "right_ear", "head", "head_top")
SKIN_TONES = np.array(
    [[240, 205, 180], [224, 180, 150], [200, 150, 115], [160, 110, 78], [112, 74, 52], [78, 52, 38]]
)


@dataclass(frozen=True, eq=False)
class Person:
    """A figure placed in the picture and dressed; the same on its left and right."""

    figure: Figure
    centre: np.ndarray  # (2,) pelvis, pixels
    height: float  # of the body, pixels
    build: float  # factor on all widths
    clothes: dict[str, Cloth]  # by limb, and for torso, skirt, neck
    widths: dict[str, float]  # factor on the width of a clothed limb
    head: HeadLook
    skirt: bool

    def pixel(self, name: str) -> np.ndarray:
        """(2,) position of a point of the figure, pixels."""
        x, y, _ = self.figure.points[name]
        return self.centre + self.height * np.array([x, -y])


def random_person(generator: np.random.Generator, centre: np.ndarray, height: float) -> Person:
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
    skirt = bool(legs < 2 and generator.random() < 0.4) or legs == 0
    figure, build = random_figure(generator), generator.uniform(0.88, 1.25)
    return Person(figure, centre, height, build, clothes, widths, random_head(generator, skin.colour), skirt)


def paint_person(canvas: Canvas, person: Person, number: int) -> None:
    """Draw a person; the owner of part p's pixels is ``number * len(PARTS) + index of p + 1``."""
    points = person.figure.points
    depths = {"torso": (points["neck"][2] + points["pelvis"][2]) / 2, "neck": points["neck"][2] - 0.03}
    depths["head"] = points["head_centre"][2]
    if person.skirt:
        depths["skirt"] = (points["left_knee"][2] + points["right_knee"][2]) / 4 + 0.1
    for side in SIDES:
        for limb, (start, end, *_) in LIMBS.items():
            depths[f"{side}_{limb}"] = (points[f"{side}_{start}"][2] + points[f"{side}_{end}"][2]) / 2
    for part in sorted(depths, key=lambda name: depths[name]):
        owner = number * len(PARTS) + PARTS.index(part) + 1
        if part == "head":
            paint_head(
                canvas, person.pixel("head_centre"), person.height, person.figure.head, person.head, owner
            )
        elif part in ("torso", "skirt", "neck"):
            _TRUNK[part](canvas, person, owner)
        else:
            _paint_limb(canvas, person, part, owner)


def parts_of_joint(joint: str) -> set[str]:
    """Names of the parts at whose pixels a joint counts as seen."""
    if joint in FACE_JOINTS:
        return {"head"}
    if joint == "neck":
        return {"neck", "torso", "head"}
    side, name = joint.split("_")
    parts = {f"{side}_{limb}" for limb, (start, end, *_) in LIMBS.items() if name in (start, end)}
    return parts | ({"torso", "skirt"} if name in ("shoulder", "hip") else set())


def _plain(colour: np.ndarray) -> Cloth:
    colour = np.clip(colour, 0, 255).astype(np.float32)
    return Cloth(colour, colour)


def _random_cloth(generator: np.random.Generator, height: float) -> Cloth:
    colours = generator.uniform(5, 250, (2, 3)).astype(np.float32)
    grey = generator.random(2)[:, None]  # most clothes are not of pure colours
    colours += grey * (colours.mean(axis=1, keepdims=True) - colours)
    pattern = generator.choice(["plain", "bands", "stripes", "checks"], p=[0.55, 0.2, 0.12, 0.13])
    return Cloth(colours[0], colours[1], str(pattern), height * generator.uniform(0.025, 0.07))


def _circle(person: Person, name: str, radius: float) -> np.ndarray:
    return np.array([*person.pixel(name), radius * person.height * person.build])


def _paint_limb(canvas: Canvas, person: Person, part: str, owner: int) -> None:
    side, limb = part.split("_", 1)
    start, end, first, last = LIMBS[limb]
    wide = person.widths[limb]
    circles = np.stack(
        [_circle(person, f"{side}_{start}", first * wide), _circle(person, f"{side}_{end}", last * wide)]
    )
    canvas.paint_hull(circles, person.clothes[limb], owner)


def _paint_torso(canvas: Canvas, person: Person, owner: int) -> None:
    sides = [
        _circle(person, f"{side}_{joint}", radius)
        for joint, radius in (("shoulder", 0.033), ("hip", 0.05))
        for side in SIDES
    ]
    chest, belly = _circle(person, "neck", 0.07), _circle(person, "pelvis", 0.06)
    chest[:2] += 0.25 * (belly[:2] - chest[:2])
    spread = [np.hypot(*(sides[i][:2] - sides[i + 1][:2])) / 2 + sides[i][2] for i in (0, 2)]
    axis = np.stack([chest, belly])
    axis[:, 2] = np.maximum(axis[:, 2], spread)
    canvas.paint_hull(np.stack([*sides, chest, belly]), person.clothes["torso"], owner, axis)
    forwards = person.figure.torso[:, 2]
    if forwards[2] > 0.2:  # a neckline: which side of the chest is the front
        throat = np.stack([_circle(person, "neck", 0.03), _circle(person, "neck", 0.008)])
        down = person.figure.torso @ np.array([0, -0.07, 0.05])
        throat[1, :2] += person.height * np.array([down[0], -down[1]])
        canvas.paint_hull(throat, person.clothes["neck"], owner)


def _paint_skirt(canvas: Canvas, person: Person, owner: int) -> None:
    hips = [_circle(person, f"{side}_hip", 0.05) for side in SIDES]
    hems = [_circle(person, f"{side}_knee", 0.05) for side in SIDES]
    for hip, hem in zip(hips, hems, strict=True):
        hem[:2] = hip[:2] + 0.7 * (hem[:2] - hip[:2])
    spread = np.hypot(*(hems[0][:2] - hems[1][:2])) / 2 + hems[0][2]
    axis = np.stack([_circle(person, "pelvis", 0.1), [*((hems[0] + hems[1]) / 2)[:2], spread]])
    canvas.paint_hull(np.stack([*hips, *hems]), person.clothes["skirt"], owner, axis)


def _paint_neck(canvas: Canvas, person: Person, owner: int) -> None:
    circles = np.stack([_circle(person, "neck", 0.032), _circle(person, "head_centre", 0.03)])
    canvas.paint_hull(circles, person.clothes["neck"], owner)


_TRUNK = {"torso": _paint_torso, "skirt": _paint_skirt, "neck": _paint_neck}
