"""People: what a figure wears, and drawing it limb by limb from the farthest to the nearest."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from diffusionpose.data.synthetic.canvas import Canvas, Cloth
from diffusionpose.data.synthetic.figure import SIDES, Figure, random_figure
from diffusionpose.data.synthetic.heads import HeadLook, paint_head, random_head

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
