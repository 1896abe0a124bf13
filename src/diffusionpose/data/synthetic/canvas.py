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
