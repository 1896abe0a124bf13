"""An articulated figure: random joint angles within human ranges, forward kinematics, a view.

The body frame is x to the person's left, y up, z forwards; lengths are shares of the body height.
The camera looks against z without perspective: limbs turned towards it are foreshortened.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

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
