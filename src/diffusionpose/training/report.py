"""The report of a study: a table and a figure, the paper's numbers beside ours; and Figure 5.

Figure 5 shows heatmaps of several models on hard pictures, chosen by a rule that favours none of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import nan
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from diffusionpose.data.annotations import Annotations
from diffusionpose.data.pictures import find_pictures
from diffusionpose.evaluation.compare import BLUE, GREY, ORANGE, PURPLE, panels
from diffusionpose.evaluation.evaluate import predict_persons
from diffusionpose.geometry import Crop
from diffusionpose.models.pose_model import PoseModel
from diffusionpose.poses import Pose
from diffusionpose.runtime.drawing import draw_heatmap, draw_poses
from diffusionpose.runtime.estimator import PoseEstimator, Request
from diffusionpose.training.data import read_persons
from diffusionpose.training.settings import ImageSet
from diffusionpose.training.studies import Study

if TYPE_CHECKING:
    from matplotlib.figure import Figure

METRICS = ("AP", "AR", "PCK", "PCK_limbs")
ONE = "95 % bootstrap intervals over the persons measured; another seed may move a number further"
SEVERAL = "mean - and + the standard deviation over {} trainings (seeds 0, 1, ...)"


def markdown(study: Study, entries: Mapping[str, Any]) -> str:
    """The report as text, from what STUDY.json holds, in the form of ``report.md``."""
    rows, data, base = entries["rows"], entries["data"], entries["budget"]["base"]
    notes, pictures = list(study.notes), entries.get("pictures")
    if pictures:
        notes += [pictures["rule"], f"Pictures: {', '.join(pictures['shown'])}."]
    if failures := [f"- {row['label']}: {row['failure']}" for row in rows if "failure" in row]:
        notes += ["## Not done", "\n".join(failures)]
    sets = {
        name: ", ".join(f"{persons} persons of {file}" for file, persons in data[name].items())
        for name in ("train", "val")
    }
    text = Path(__file__).with_name("report.md").read_text("utf-8")
    return text.format(
        study=study,
        **sets,
        skeleton=data["skeleton"],
        words=entries["budget"]["words"],
        step=entries["persons_per_step"],
        boxes=data["boxes"],
        table=_table(study, entries),
        decode=base["decode"],
        flip="with" if base["flip"] else "without",
        brackets=SEVERAL.format(entries["seeds"]) if entries["seeds"] > 1 else ONE,
        notes="\n\n".join(notes),
        minutes=sum(row["training_seconds"] for row in rows) / 60,
        machine=entries["machine"],
        versions=", ".join(f"{name} {version}" for name, version in entries["versions"].items()),
        command=entries["command"],
    )


def _table(study: Study, entries: Mapping[str, Any]) -> str:
    width, height = entries["budget"]["base"]["input_size"]
    heading, more = study.more or ("", None)
    names = ["AP", "AR", "PCK", "PCK, limbs", "parameters", "multiply-adds", "AP, paper", "AR, paper"]
    cells = [[study.column, *([heading] if more else []), *names]]
    for row in entries["rows"]:
        own = [row["label"], *([more(row["options"], height, width)] if more else [])]
        costs = [(row["parameters"], 1e6, "M"), (row["multiply_adds"], 1e9, "G")]
        cells.append(
            [
                *own,
                *(_value(row[name]) for name in METRICS),
                *("-" if cost is None else f"{cost / unit:.3g} {letter}" for cost, unit, letter in costs),
                *("-" if value is None else f"{value:.1f}" for value in row["paper"].values()),
            ]
        )
    floor = [entries["data"]["mean_pose"].get(name) for name in METRICS]
    values = ["-" if value is None else f"{100 * value:.1f}" for value in floor]
    cells.append(["mean pose of the training set", *(["-"] if more else []), *values, *["-"] * 4])
    cells.insert(1, ["---"] * len(cells[0]))
    return "\n".join("| " + " | ".join(row) + " |" for row in cells)


def _value(numbers: Mapping[str, Any] | None) -> str:
    """A metric in percent, with its range."""
    if numbers is None:
        return "-"
    mean, low, high = (f"{100 * numbers[name]:.1f}" for name in ("mean", "low", "high"))
    return mean if low == high else f"{mean} ({low} to {high})"


def plot(study: Study, rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Three panels: our AP and AR; our PCK; the paper's AP and AR, or the cost where the steps vary."""
    figure, panes = panels(3)
    for place, name in enumerate(METRICS):
        known = [(x, row[name]) for x, row in enumerate(rows) if row[name] is not None]
        means, lows, highs = ([100 * each[key] for _, each in known] for key in ("mean", "low", "high"))
        panes[place // 2].errorbar(
            [x + 0.12 * (place % 2) - 0.06 for x, _ in known],  # so that two bars can be told apart
            means,
            yerr=[
                [mean - low for mean, low in zip(means, lows, strict=True)],
                [high - mean for mean, high in zip(means, highs, strict=True)],
            ],
            color=(BLUE, ORANGE)[place % 2],
            marker="os"[place % 2],
            capsize=4,
            label=name.replace("_", ", "),
        )
    titles = ["ours: AP and AR, per cent", "ours: PCK at 0.2 torso", "paper: COCO val2017"]
    if len({row["steps"] for row in rows}) > 1:
        titles[2] = "multiply-adds of one person, G"
        panes[2].bar(range(len(rows)), [(row["multiply_adds"] or 0) / 1e9 for row in rows], color=BLUE)
    else:
        for name, color, marker in (("AP", PURPLE, "o"), ("AR", GREY, "s")):
            values = [nan if row["paper"][name] is None else row["paper"][name] for row in rows]
            panes[2].plot(range(len(rows)), values, marker=marker, color=color, label=name)
    labels = [row["label"].replace(", ", ",\n").replace(" (", "\n(") for row in rows]
    for axes, title in zip(panes, titles, strict=True):
        axes.set(title=title, xlabel=study.column, xlim=(-0.5, len(rows) - 0.5))
        axes.set_xticks(range(len(rows)), labels)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(frameon=False)
    figure.suptitle(study.title, fontsize=13)
    return figure


# --- Figure 5 ---

HARDEST = 0.2  # share of the persons that count as hard
LABELLED = 0.75  # share of the joints that a person must have labelled to be shown
RULE = """\
A column is a person; the rows from above are the annotated pose, then {models}: the highest heatmap at
every pixel, and the pose read from the heatmaps. A person's error under a model is the mean distance of
its labelled joints from the truth as a share of the root of its box's area. The {persons} persons with
at least three quarters of their joints labelled are ordered by the mean error over the models; of the
worst fifth ({hard}), {shown} are drawn at random."""
HEIGHT = 384  # of a picture, in pixels


def hard_pictures(
    models: Mapping[str, tuple[PoseModel, int]], val: ImageSet, decode: str, count: int
) -> tuple[Image.Image, dict[str, Any]]:
    """Choose hard pictures and draw them: the truth, then what each model sees and reads from that.

    Args:
        models: each with its number of diffusion steps, by name; all of one input size and skeleton.
        val: persons to choose from.
        decode: of the heatmaps.
        count: of persons to show.

    Returns:
        the picture, and "rule" (in words) and "shown" (file names).
    """
    one = next(iter(models.values()))[0]
    truth = read_persons(val, one.skeleton).labelled()
    labelled = [person for person in truth.persons if (person.visible > 0).mean() >= LABELLED]
    truth = replace(truth, persons=labelled)
    estimators = [
        PoseEstimator(model, device=None, decode=decode, steps=None if model.default_steps is None else steps)
        for model, steps in models.values()
    ]
    errors = np.stack(
        [person_errors(truth, predict_persons(each, truth, val.images)[0]) for each in estimators]
    )
    hard = hardest(errors)
    chosen = [labelled[index] for index in np.random.default_rng(0).permutation(hard)[:count]]
    pictures, (width, height) = find_pictures(truth, val.images, persons_only=True), one.input_size
    columns = [np.zeros((HEIGHT * (1 + len(models)), 1, 3), np.uint8)]
    for person in chosen:
        image = pictures.read(truth.images[person.image_id])
        crop = Crop.from_boxes(
            person.box[None], (round(width * HEIGHT / height), HEIGHT), unbiased=one.unbiased
        )
        view, seen = crop.cut(image), person.visible > 0
        cells = [_drawn(view, crop, Pose(truth.skeleton, person.keypoints, seen, person.box, 1.0))]
        for estimator in estimators:
            ((poses, maps),) = estimator.trace(Request(image, person.box[None], np.ones(1)))
            glowing = draw_heatmap(view, maps[-1].max(axis=0), crop.heatmap_to_input)
            cells.append(_drawn(glowing, crop, replace(poses[-1], scores=np.ones(len(seen)))))
        columns.append(np.concatenate(cells))
    found = int(np.isfinite(errors.mean(axis=0)).sum())
    rule = RULE.format(models="; ".join(models), persons=found, hard=len(hard), shown=len(chosen))
    shown = [truth.images[person.image_id].file_name for person in chosen]
    return Image.fromarray(np.concatenate(columns, axis=1)), {"rule": rule, "shown": shown}


def person_errors(persons: Annotations, rows: Sequence[Any]) -> np.ndarray:
    """(n,) mean distance of the labelled joints, in units of the root of the box's area; NaN without a pose.

    Args:
        persons: n with their truth, each with a labelled joint.
        rows: their poses as COCO results, None where there is none.
    """
    errors = np.full(len(rows), np.nan)
    for index, (person, row) in enumerate(zip(persons.persons, rows, strict=True)):
        if row is not None:
            keypoints = np.reshape(row["keypoints"], (-1, 3))[:, :2]
            distance = np.linalg.norm(keypoints - person.keypoints, axis=1)[person.visible > 0]
            errors[index] = distance.mean() / np.sqrt(np.prod(person.box[2:] - person.box[:2]))
    return errors


def hardest(errors: np.ndarray) -> np.ndarray:
    """Indices of the worst fifth by mean error over models (models, n), worst first; NaN does not count."""
    mean = errors.mean(axis=0)
    order = np.argsort(-mean, kind="stable")  # NaN comes last
    return order[: int(np.ceil(HARDEST * np.isfinite(mean).sum()))]


def _drawn(view: np.ndarray, crop: Crop, pose: Pose) -> np.ndarray:
    """A pose, which is in image pixels, drawn on what a crop shows."""
    points = crop.image_to_input(pose.keypoints[None])[0]
    return draw_poses(view, [replace(pose, keypoints=points, box=np.array([0, 0, *crop.input_size]))])
