"""A picture under construction, and the shaded shapes that people and things are made of."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

AMBIENT, DIFFUSE = 0.42, 0.68  # light from everywhere, and from the one direction
_ANGLES = np.linspace(0, 2 * np.pi, 16, endpoint=False)
_CIRCLE = np.stack([np.cos(_ANGLES), np.sin(_ANGLES)], axis=1)
_SUBPIXEL = 4  # fractional bits of cv2's drawing coordinates


@dataclass(frozen=True, eq=False)
class Cloth:
    """A surface: two colours (3,) in 0..255 and how they mix.

    ``pattern`` is "plain", "bands" (round the limb), "stripes" (along it) or "checks"; ``period`` in pixels.
    """

    colour: np.ndarray
    second: np.ndarray
    pattern: str = "plain"
    period: float = 8.0


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

    def paint_hull(
        self, circles: np.ndarray, cloth: Cloth, owner: int, axis: np.ndarray | None = None
    ) -> None:
        """The convex hull of circles, (n, 3) as x, y, radius in pixels, shaded like a tube.

        ``axis`` (2, 3) gives the ends of the tube where they are not the first and last circle.
        """
        import cv2  # here: importing it changes the environment variables of the process

        outline = (circles[:, None, :2] + circles[:, None, 2:] * _CIRCLE).reshape(-1, 2).astype(np.float32)
        region = self._region(outline.min(axis=0), outline.max(axis=0))
        if region is None:
            return
        x, y = _pixel_centres(region)
        mask = np.zeros((len(y), len(x[0])), np.uint8)
        hull = cv2.convexHull(outline)[:, 0] - (region[1].start, region[0].start)
        cv2.fillConvexPoly(mask, np.rint(hull * 2**_SUBPIXEL).astype(np.int32), 255, cv2.LINE_AA, _SUBPIXEL)
        start, end = circles[[0, -1]] if axis is None else axis
        along, across = _tube_coordinates(x, y, start, end)
        length = float(np.hypot(*(end - start)[:2]))
        self._blend(
            region,
            mask,
            _cloth_colours(cloth, along * length, across),
            self._tube_light(start, end, across),
            owner,
        )

    def paint_pixels(
        self, region: tuple[slice, slice], mask: np.ndarray, colours: np.ndarray, owner: int
    ) -> None:
        """Colours (h, w, 3), already lit, where mask (h, w) in 0..255 says."""
        self._blend(region, mask, colours, np.ones((1, 1), np.float32), owner)

    def region_round(self, centre: np.ndarray, radius: float) -> tuple[slice, slice] | None:
        """Rows and columns of the square round a point, as far as they are in the picture."""
        return self._region(centre[:2] - radius, centre[:2] + radius)

    def _region(self, low: np.ndarray, high: np.ndarray) -> tuple[slice, slice] | None:
        height, width = self.owner.shape
        x0, y0 = max(0, int(low[0]) - 1), max(0, int(low[1]) - 1)
        x1, y1 = min(width, int(high[0]) + 2), min(height, int(high[1]) + 2)
        return (slice(y0, y1), slice(x0, x1)) if x1 > x0 and y1 > y0 else None

    def _tube_light(self, start: np.ndarray, end: np.ndarray, across: np.ndarray) -> np.ndarray:
        direction = _unit(end[:2] - start[:2])
        sideways = float(direction[0] * self.light[1] - direction[1] * self.light[0])
        facing = np.sqrt(1 - np.minimum(across * across, 0.98))
        return AMBIENT + DIFFUSE * np.maximum(0, across * sideways + facing * float(self.light[2]))

    def _blend(
        self,
        region: tuple[slice, slice],
        mask: np.ndarray,
        colours: np.ndarray,
        light: np.ndarray,
        owner: int,
    ) -> None:
        share = (mask * np.float32(1 / 255))[:, :, None]
        pixels = self.pixels[region]
        pixels += share * (np.minimum(colours * light[:, :, None], 255) - pixels)
        self.owner[region][mask > 127] = owner


def _pixel_centres(region: tuple[slice, slice]) -> tuple[np.ndarray, np.ndarray]:
    rows, columns = region
    x = np.arange(columns.start, columns.stop, dtype=np.float32)[None, :]
    return x, np.arange(rows.start, rows.stop, dtype=np.float32)[:, None]


def _unit(vector: np.ndarray) -> np.ndarray:
    length = float(np.hypot(vector[0], vector[1]))
    return vector / length if length > 1e-3 else np.array([0, 1], vector.dtype)


def _tube_coordinates(
    x: np.ndarray, y: np.ndarray, start: np.ndarray, end: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Share of the way along the tube in 0..1, and place across it in -1..1, of every pixel."""
    start, end = start.astype(np.float32), end.astype(np.float32)
    direction = _unit(end[:2] - start[:2])
    length = np.float32(max(np.hypot(*(end - start)[:2]), 1.0))
    dx, dy = x - start[0], y - start[1]
    along = ((dx * direction[0] + dy * direction[1]) / length).clip(0, 1)
    radius = np.maximum(start[2] + (end[2] - start[2]) * along, 0.5)
    across = ((dy * direction[0] - dx * direction[1]) / radius).clip(-1, 1)
    return along, across


def _cloth_colours(cloth: Cloth, along: np.ndarray, across: np.ndarray) -> np.ndarray:
    """(h, w, 3), or (1, 1, 3) for a plain cloth."""
    if cloth.pattern == "plain":
        return cloth.colour[None, None].astype(np.float32)
    bands = np.sin(along * (2 * np.pi / cloth.period))
    stripes = np.cos(across * 9)  # even in ``across``: the pattern looks the same on both sides
    mix = {"bands": bands, "stripes": stripes, "checks": bands * stripes}[cloth.pattern] > 0
    return np.where(mix[:, :, None], cloth.colour, cloth.second).astype(np.float32)


# Grounds with texture, and things that stand in front of people

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
