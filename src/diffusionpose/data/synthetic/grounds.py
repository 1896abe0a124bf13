"""Grounds with texture, and things that stand in front of people."""

from __future__ import annotations

import numpy as np

from diffusionpose.data.synthetic.canvas import Canvas, Cloth

THING = -1  # owner of what is neither ground nor person


def random_ground(generator: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """(H, W, 3) float32 RGB in 0..255: gradients, a horizon, noise at several scales, shapes."""
    import cv2

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


def _paint_shape(ground: np.ndarray, generator: np.random.Generator) -> None:
    import cv2

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


def paint_thing(canvas: Canvas, generator: np.random.Generator) -> None:
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
