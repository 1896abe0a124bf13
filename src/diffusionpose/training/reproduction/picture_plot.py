"""Figure 5 drawn: a column for each picture, a row for each model, joints in their colours."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from diffusionpose.skeletons import Skeleton
from diffusionpose.training.reproduction.written import write_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DIMMED = 0.45  # brightness of the picture below the heatmaps
STRONGEST = 0.95  # opacity of a heatmap at its height of 1
POWER = 0.6  # of the height, so that low heatmaps can be seen too
LEGEND = f"opacity: height of the heatmap to the power of {POWER}, one scale; lines: the pose read from it"
COLUMN = 1.9  # inches


@dataclass(frozen=True, eq=False)
class View:
    """What one model makes of one picture.

    Attributes:
        name: above the picture.
        heatmaps: (J, h, w), of the plain picture, no flip test.
        keypoints: (J, 2) input pixels, decoded from them.
        pixel: (width, height) in input pixels from one heatmap pixel to the next.
    """

    name: str
    heatmaps: np.ndarray
    keypoints: np.ndarray
    pixel: tuple[float, float]


@dataclass(frozen=True, eq=False)
class Shown:
    """A picture of the figure.

    Attributes:
        image: (H, W, 3) uint8 RGB crop.
        truth: (J, 2) input pixels.
        visible: (J,).
        views: one for each model and number of steps.
    """

    image: np.ndarray
    truth: np.ndarray
    visible: np.ndarray
    views: Sequence[View]


def plot_pictures(title: str, skeleton: Skeleton, pictures: Sequence[Shown], path: Path) -> None:
    """Draw the figure: first the truth, then what each model sees and the pose it reads from that.

    Args:
        title: above it.
        skeleton: joints and limbs.
        pictures: with the same views each.
        path: of the PNG.

    Raises:
        InputError: the file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    colors = joint_colors(skeleton.num_joints)
    views = [view.name for view in pictures[0].views] if pictures else []
    height, width = pictures[0].image.shape[:2] if pictures else (4, 3)
    rows, columns = 1 + len(views), max(1, len(pictures))
    size = (COLUMN * columns + 1.4, COLUMN * height / width * rows + 0.9)
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(rows, columns, squeeze=False)
    for column, shown in enumerate(pictures):
        _picture(grid[0, column], shown.image)
        _pose(grid[0, column], skeleton, shown.truth, shown.visible > 0, colors)
        for row, view in enumerate(shown.views, start=1):
            _picture(grid[row, column], shown.image * DIMMED / 255)
            _heatmaps(grid[row, column], view, (width, height), colors)
            _pose(grid[row, column], skeleton, view.keypoints, np.full(len(colors), True), colors)
    for row, name in enumerate(["annotated", *views]):
        grid[row, 0].set_ylabel(name, fontsize=11)
    figure.suptitle(title, fontsize=14)
    figure.supxlabel(LEGEND, fontsize=10, color="#5A5A5A")
    write_file(path, lambda part: figure.savefig(part, dpi=140, format="png"))


def joint_colors(count: int) -> np.ndarray:
    """(count, 3) RGB in [0, 1]: bright, and as far apart in hue as they can be."""
    return np.array([colorsys.hsv_to_rgb(joint / count, 0.85, 1.0) for joint in range(count)])


def overlay(heatmaps: np.ndarray, colors: np.ndarray) -> np.ndarray:
    """Heatmaps (J, h, w) as one RGBA picture (h, w, 4) in [0, 1].

    The colour is the mean of the joints' by the height of their heatmaps, the opacity by the highest.
    """
    weights = np.clip(heatmaps, 0, 1)
    total = weights.sum(axis=0)
    mixed = np.einsum("jhw,jc->hwc", weights, colors) / np.maximum(total, 1e-6)[..., None]
    return np.dstack([np.clip(mixed, 0, 1), STRONGEST * weights.max(axis=0) ** POWER])


def _picture(axes: Axes, image: np.ndarray) -> None:
    axes.imshow(image, interpolation="bicubic")
    axes.set_xticks([])
    axes.set_yticks([])


def _heatmaps(axes: Axes, view: View, size: tuple[int, int], colors: np.ndarray) -> None:
    """Over a picture of ``size`` (width, height), whose limits stay as they are."""
    height, width = view.heatmaps.shape[1:]
    x, y = view.pixel
    axes.imshow(
        overlay(view.heatmaps, colors),
        extent=(-x / 2, (width - 0.5) * x, (height - 0.5) * y, -y / 2),  # pixel i lies at i times pixel
        interpolation="bilinear",
    )
    axes.set_xlim(-0.5, size[0] - 0.5)
    axes.set_ylim(size[1] - 0.5, -0.5)


def _pose(
    axes: Axes, skeleton: Skeleton, keypoints: np.ndarray, drawn: np.ndarray, colors: np.ndarray
) -> None:
    for a, b in skeleton.limbs:
        if drawn[a] and drawn[b]:
            axes.plot(*keypoints[[a, b]].T, color="white", linewidth=1.0, alpha=0.7)
    x, y = keypoints[drawn].T
    axes.scatter(x, y, s=16, c=colors[drawn], edgecolors="black", linewidths=0.5, zorder=3)
