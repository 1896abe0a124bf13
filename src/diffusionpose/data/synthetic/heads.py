"""Heads: an ellipsoid seen from any side, with hair, eyes, brows, nose, mouth and ears.

The face is what tells a figure's front from its back, and so its left from its right.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from diffusionpose.data.synthetic.canvas import AMBIENT, DIFFUSE, Canvas, Cloth
from diffusionpose.data.synthetic.figure import FACE, HEAD_RADII

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
