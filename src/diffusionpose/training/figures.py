"""The figures of a study: its rows beside the paper's numbers; Figure 5's heatmaps of hard pictures."""

from __future__ import annotations

import colorsys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import nan
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from diffusionpose.data.annotations import Annotations
from diffusionpose.data.dataset import PersonDataset
from diffusionpose.evaluation.compare import BLUE, GREY, ORANGE, PURPLE, panels
from diffusionpose.geometry import heatmap_ratio
from diffusionpose.models.pose_model import PoseModel
from diffusionpose.skeletons import Skeleton
from diffusionpose.training.studies import Study

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

GIGA = 1e9
ASIDE = 0.06  # of the distance between two rows: so that the bars of two metrics can be told apart


def plot(study: Study, rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Three panels: our AP and AR; our PCK; the paper's AP and AR, or for Figure 4 the cost.

    Args:
        study: names the axis.
        rows: of ``reproduce.report_row``.
    """
    figure, (accuracy, pck, third) = panels(3)
    places = range(len(rows))
    for axes, names in ((accuracy, ("AP", "AR")), (pck, ("PCK", "PCK_limbs"))):
        _points(axes, rows, names[0], BLUE, "o", -ASIDE)
        _points(axes, rows, names[1], ORANGE, "s", ASIDE)
    accuracy.set_ylabel("per cent")
    title, column, labels = study.title, study.column, [row["label"] for row in rows]
    if study.kind == "steps":
        costs = [(row["multiply_adds"] or 0) / GIGA for row in rows]
        third.bar(places, costs, color=BLUE, width=0.6)
        third.set_ylabel("multiply-adds, G")
        titles = ("AP and AR", "PCK at 0.2 torso", "cost of one person")
        title += " (paper: 75.4 AP with 1 step, 0.1 to 0.2 AP more with further steps)"
        column = "diffusion steps (0: coarse heatmaps)"
    else:
        for name, color, marker in (("AP", PURPLE, "o"), ("AR", GREY, "s")):
            values = [nan if row["paper"][name] is None else row["paper"][name] for row in rows]
            third.plot(places, values, marker=marker, color=color, label=name)
        titles = ("ours: AP and AR", "ours: PCK at 0.2 torso", "paper: COCO val2017")
        labels = [label.replace(", ", ",\n").replace(" (", "\n(") for label in labels]
    for axes, panel_title in zip((accuracy, pck, third), titles, strict=True):
        axes.set_title(panel_title)
        axes.set_xlabel(column)
        axes.set_xticks(places, labels)
        axes.set_xlim(-0.5, len(rows) - 0.5)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(frameon=False)
    seeds = any(row["AP"] is not None and row["AP"]["spread"] is not None for row in rows)
    bars = "standard deviation over seeds" if seeds else "95 % bootstrap interval over persons, one seed"
    figure.supxlabel(f"bars: {bars}", fontsize=10, color=GREY)
    figure.suptitle(title, fontsize=13)
    return figure


def _points(
    axes: Axes, rows: Sequence[Mapping[str, Any]], name: str, color: str, marker: str, aside: float
) -> None:
    """A metric of every row that has it, with its spread over seeds or its interval over persons."""
    known = [(place + aside, row[name]) for place, row in enumerate(rows) if row[name] is not None]
    if not known:
        return
    values = np.array([100 * numbers["mean"] for _, numbers in known])
    places = [place for place, _ in known]
    axes.plot(places, values, color=color, marker=marker, label=name.replace("_", ", "))
    ends = 100 * np.array([_ends(numbers) for _, numbers in known])
    if (ends[:, 1] > ends[:, 0]).any():
        around = np.maximum([values - ends[:, 0], ends[:, 1] - values], 0)
        axes.errorbar(places, values, yerr=around, color=color, capsize=4, linestyle="none")
    for place, numbers in known:
        if len(numbers["values"]) > 1:
            seeds = [100 * value for value in numbers["values"] if value is not None]
            axes.plot([place] * len(seeds), seeds, ".", color=color, alpha=0.5)


def _ends(numbers: Mapping[str, Any]) -> tuple[float, float]:
    """Mean -+ spread over seeds, else the interval over persons, else nothing."""
    mean, spread, interval = numbers["mean"], numbers["spread"], numbers["intervals_95"][0]
    if spread is not None:
        return mean - spread, mean + spread
    return (interval[0], interval[1]) if interval else (mean, mean)


# Figure 5: which persons are hard, by a rule that favours no model

HARDEST = 0.2  # share of the persons that count as hard
LABELLED = 0.75  # share of the joints that a person must have labelled to be shown
RULE = (
    "A person's error under a model is the mean distance of its labelled joints from the truth, in per cent "
    "of the root of its box's area. Persons with at least {labelled} of {joints} joints labelled ({eligible} "
    "of {persons}) are ordered by the mean error over both models; of the worst fifth ({hard}), {shown} are "
    "drawn at random (seed {seed})."
)


def choose_hard(data: PersonDataset, errors: np.ndarray, count: int, seed: int) -> tuple[list[int], str]:
    """Which persons are shown, and the rule in words.

    Args:
        data: n persons.
        errors: (models, n) of :func:`person_errors`.
        count: of persons to show.
        seed: of the draw among the hard ones.
    """
    joints = data.annotations.skeleton.num_joints
    labelled = int(np.ceil(LABELLED * joints))
    counts = np.array([int((person.visible > 0).sum()) for person in data.persons])
    hard, eligible = hardest(errors, counts >= labelled)
    chosen = np.random.default_rng(seed).permutation(hard)[:count].tolist()
    numbers = {"labelled": labelled, "joints": joints, "eligible": eligible, "persons": len(data)}
    return chosen, RULE.format(**numbers, hard=len(hard), shown=len(chosen), seed=seed)


def person_errors(annotations: Annotations, persons: Sequence[Any], rows: Sequence[Any]) -> np.ndarray:
    """(n,) mean distance of the labelled joints, in units of the root of the box's area; NaN without a pose.

    Args:
        annotations: name the joints.
        persons: n with their truth, each with a labelled joint.
        rows: their poses as COCO results, None where there is none.
    """
    errors = np.full(len(persons), np.nan)
    for index, (person, row) in enumerate(zip(persons, rows, strict=True)):
        if row is not None:
            keypoints = np.reshape(row["keypoints"], (annotations.skeleton.num_joints, 3))[:, :2]
            distance = np.linalg.norm(keypoints - person.keypoints, axis=1)[person.visible > 0]
            errors[index] = distance.mean() / np.sqrt(np.prod(person.box[2:] - person.box[:2]))
    return errors


def hardest(errors: np.ndarray, eligible: np.ndarray) -> tuple[np.ndarray, int]:
    """The worst fifth of the eligible persons by mean error over models, and how many are eligible.

    Args:
        errors: (models, n); a person with a NaN is not eligible.
        eligible: (n,) bool.

    Returns:
        Indices, worst first, and a number.
    """
    mean = errors.mean(axis=0)
    allowed = np.flatnonzero(eligible & np.isfinite(mean))
    order = allowed[np.argsort(-mean[allowed], kind="stable")]
    return order[: int(np.ceil(HARDEST * len(order)))], len(allowed)


# Figure 5 drawn: a column for each picture, a row for each model, joints in their colours

DIMMED = 0.45  # brightness of the picture below the heatmaps
STRONGEST = 0.95  # opacity of a heatmap at its height of 1
POWER = 0.6  # of the height, so that low heatmaps can be seen too
LEGEND = f"opacity: height of the heatmap to the power of {POWER}, one scale; lines: the pose read from it"
COLUMN = 1.9  # inches


@dataclass(frozen=True, eq=False)
class View:
    """What one model makes of one picture.

    Attributes:
        name: beside the row.
        heatmaps: (J, h, w), of the plain picture, no flip test.
        keypoints: (J, 2) input pixels, decoded from them.
        pixel: (width, height) in input pixels from one heatmap pixel to the next.
    """

    name: str
    heatmaps: np.ndarray
    keypoints: np.ndarray
    pixel: tuple[float, float]


@torch.no_grad()
def view(model: PoseModel, name: str, image: torch.Tensor, decode: str, **options: Any) -> View:
    """What a model makes of a crop (3, H, W) uint8; ``options`` of its forward."""
    heatmaps = model(image[None].to(model.device), **options).float().cpu()
    keypoints, _ = model.codec.decode(heatmaps, decode)
    across, down = heatmap_ratio(model.input_size, model.heatmap_size, model.unbiased)
    pixel = (1 / across, 1 / down)
    return View(name, heatmaps[0].numpy(), keypoints[0].numpy() * np.array(pixel), pixel)


def draw_pictures(
    title: str, skeleton: Skeleton, samples: Sequence[Mapping[str, Any]], views: Sequence[Sequence[View]]
) -> Figure:
    """Figure 5: first the truth, then what each model sees and the pose it reads from that.

    Args:
        title: above it.
        skeleton: joints and limbs.
        samples: of a :class:`PersonDataset`, one a column.
        views: for each of them the same models' in the same order.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    colors = joint_colors(skeleton.num_joints)
    images = [sample["image"].permute(1, 2, 0).numpy() for sample in samples]
    names = [each.name for each in views[0]] if views else []
    height, width = images[0].shape[:2] if images else (4, 3)
    rows, columns = 1 + len(names), max(1, len(images))
    size = (COLUMN * columns + 1.4, COLUMN * height / width * rows + 0.9)
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(rows, columns, squeeze=False)
    for column, (sample, image) in enumerate(zip(samples, images, strict=True)):
        grid[0, column].imshow(image, interpolation="bicubic")
        truth = sample["keypoints"].numpy()
        _draw_pose(grid[0, column], skeleton, truth, sample["visible"].numpy() > 0, colors)
        for axes, each in zip(grid[1:, column], views[column], strict=True):
            axes.imshow(image * DIMMED / 255, interpolation="bicubic")
            _draw_heatmaps(axes, each, colors)
            axes.set_xlim(-0.5, width - 0.5)
            axes.set_ylim(height - 0.5, -0.5)
            _draw_pose(axes, skeleton, each.keypoints, np.full(len(colors), True), colors)
    for axes in grid.flat:
        axes.set_xticks([])
        axes.set_yticks([])
    for axes, name in zip(grid[:, 0], ["annotated", *names], strict=True):
        axes.set_ylabel(name, fontsize=11)
    figure.suptitle(title, fontsize=14)
    figure.supxlabel(LEGEND, fontsize=10, color=GREY)
    return figure


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


def _draw_heatmaps(axes: Axes, each: View, colors: np.ndarray) -> None:
    height, width = each.heatmaps.shape[1:]
    x, y = each.pixel
    extent = (-x / 2, (width - 0.5) * x, (height - 0.5) * y, -y / 2)  # pixel i lies at i times pixel
    axes.imshow(overlay(each.heatmaps, colors), extent=extent, interpolation="bilinear")


def _draw_pose(
    axes: Axes, skeleton: Skeleton, keypoints: np.ndarray, drawn: np.ndarray, colors: np.ndarray
) -> None:
    for a, b in skeleton.limbs:
        if drawn[a] and drawn[b]:
            axes.plot(*keypoints[[a, b]].T, color="white", linewidth=1.0, alpha=0.7)
    x, y = keypoints[drawn].T
    axes.scatter(x, y, s=16, c=colors[drawn], edgecolors="black", linewidths=0.5, zorder=3)
