"""Plots: their look, and that of a comparison of two methods."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from diffusionpose.evaluation.curves import Curves

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, ORANGE, PURPLE, GREY = "#1F5FBF", "#E07B00", "#7A3E9D", "#5A5A5A"
STYLE: Any = {
    "font.size": 11,
    "axes.titlesize": 12,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#E4E4E4",
    "axes.axisbelow": True,
}
METHODS = ((GREY, "s"), (BLUE, "o"))  # colour and marker; the yardstick stands back
BAR = 0.38  # of the distance between two joints


def panels(count: int, width: float = 4.2, height: float = 4.4) -> tuple[Figure, Sequence[Axes]]:
    """A figure of panels side by side, each of that size in inches; no window opens."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with rc_context(STYLE):
        figure = Figure(figsize=(width * count, height), layout="constrained")
        FigureCanvasAgg(figure)
        return figure, list(figure.subplots(1, count, squeeze=False)[0])


def plot_comparison(first: tuple[str, Curves], second: tuple[str, Curves]) -> Figure:
    """AP by OKS threshold and, where it is known of both, PCK by distance and PCK of every joint.

    Args:
        first, second: name, for the legend, and curves.
    """
    both = (first, second)
    pck = all(curves.pck for _, curves in both)
    figure, axes = panels(3 if pck else 1, 4.6, 4.8)
    _lines(axes[0], [(name, curves.ap) for name, curves in both])
    axes[0].set(title="AP by strictness", xlabel="OKS threshold", ylabel="per cent")
    axes[0].legend(frameon=False)
    if pck:
        _lines(axes[1], [(name, curves.pck) for name, curves in both])
        axes[1].set(title="PCK by distance", xlabel="distance as a share of the torso", ylabel="per cent")
        _bars(axes[2], [curves.joints for _, curves in both])
        axes[2].set(title="PCK at 0.2 of the torso", xlabel="per cent")
    return figure


def _lines(axes: Axes, both: Sequence[tuple[str, Mapping[float, float]]]) -> None:
    for (name, values), (color, marker) in zip(both, METHODS, strict=True):
        percent = [100 * value for value in values.values()]
        axes.plot(list(values), percent, color=color, marker=marker, label=name)
    axes.set_ylim(bottom=0)


def _bars(axes: Axes, both: Sequence[Mapping[str, float]]) -> None:
    """Two bars for every joint, from the top down as the skeleton lists them."""
    joints = list(both[0])
    for side, (values, (color, _)) in enumerate(zip(both, METHODS, strict=True)):
        places = [index + (side - 0.5) * BAR for index in range(len(joints))]
        axes.barh(places, [100 * values[joint] for joint in joints], height=BAR, color=color)
    axes.set_yticks(range(len(joints)), [joint.replace("_", " ") for joint in joints])
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
