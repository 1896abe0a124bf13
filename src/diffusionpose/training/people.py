"""Training of the people finder: one loop, every epoch kept, the same call again goes on."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any

import cv2
import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from diffusionpose.data.annotations import read_annotations
from diffusionpose.errors import InputError, atomically
from diffusionpose.evaluation.people import people_metrics, people_of
from diffusionpose.models.people_finder import (
    WIDTH,
    PeopleFinder,
    Targets,
    draw_targets,
    find_peaks,
    finder_loss,
    load_finder_weights,
)
from diffusionpose.runtime.boxes import Boxes
from diffusionpose.runtime.images import read_image
from diffusionpose.runtime.people import MAX_OVERLAP, box_overlaps, find_people

LABEL_OVERLAP = 0.3  # IoU with a labelled person below which a box is another person
HELD_OUT_SCORE = 0.03  # of boxes that the held-out AP is computed from


@dataclass(frozen=True)
class FinderSettings:
    """How the people finder is trained.

    Args:
        epochs: passes over the training pictures.
        batch_size: pictures per step; all of a batch share one canvas.
        learning_rate: at its height, as a share of a tensor's own size (the root of its mean square at the
            start); half a cosine down to nothing.
        warmup_steps: over which the learning rate rises.
        clip_norm: largest norm of the gradient.
        ema_decay: of the moving average of the weights, which is what is kept.
        frozen: the stem and so many blocks of MobileNetV2 stay as they are.
        canvases: (width, height) of the network's input, one drawn for each batch.
        longer_side: least and most pixels that a picture's longer side is scaled to.
        box_weight: of the boxes' loss beside the centres'.
        held_out: so many pictures of the first set are not trained on: the best epoch is chosen there.
        unknown_score: where the starting network is so sure of a person that no label knows, nothing is
            unlearned.
        input_size: longer side at which the held-out pictures are searched.
        width: multiplier of MobileNetV2's channels, as the weights to start from have it.
        seed: of every random draw.
        bf16: the network's arithmetic in training.
    """

    epochs: int = 5
    batch_size: int = 16
    learning_rate: float = 1.5e-3
    warmup_steps: int = 60
    clip_norm: float = 5.0
    ema_decay: float = 0.995
    frozen: int = 6
    canvases: tuple[tuple[int, int], ...] = ((384, 320), (320, 384), (352, 352))
    longer_side: tuple[int, int] = (256, 672)
    box_weight: float = 2.0
    held_out: int = 160
    unknown_score: float = 0.15
    input_size: int = 448
    width: float = WIDTH
    seed: int = 0
    bf16: bool = True


@dataclass(frozen=True)
class Scene:
    """A training picture: its file, its persons, and where there may be more (boxes xyxy, its pixels)."""

    file: Path
    boxes: np.ndarray
    unknown: np.ndarray


def train_people_finder(
    settings: FinderSettings,
    sets: Sequence[tuple[Path, Path]],
    start: Path,
    output: Path,
    tell: Callable[[str], None],
) -> Path:
    """Train the people finder, or go on with the training that ``output`` holds.

    Args:
        settings: a resumed training takes the same, but for the epochs.
        sets: (folder of the images, annotation file); persons with a labelled joint are learned, the boxes of
            others and crowds are left alone.
        start: weights to start from: MoveNet MultiPose's, or those of a people finder.
        output: folder: ``epoch_N.safetensors`` (moving averages), ``best.safetensors``, ``state.pt``,
            ``metrics.csv``.
        tell: is given a line now and then.

    Returns:
        the weights of the epoch that is best on the held-out pictures.

    Raises:
        InputError: a file cannot be read, or ``output`` holds a training of other settings.
    """
    output.mkdir(parents=True, exist_ok=True)
    _same_settings(output, settings, sets)
    torch.manual_seed(settings.seed)
    finder = PeopleFinder(settings.width, settings.frozen)
    load_finder_weights(finder, start)
    finder = finder.to(memory_format=torch.channels_last)
    scenes, held_out = _scenes(finder, settings, sets, output / "unlabelled.json", tell)

    average = AveragedModel(finder, multi_avg_fn=get_ema_multi_avg_fn(settings.ema_decay))
    trained = [p for p in finder.parameters() if p.requires_grad]
    # without BatchNorm the weights of layers differ in size by a thousand: each learns in proportion to it
    sizes = [max(float(p.detach().square().mean().sqrt()), 1e-4) for p in trained]
    optimiser = torch.optim.Adam(
        [{"params": [p], "size": size} for p, size in zip(trained, sizes, strict=True)]
    )
    steps = len(scenes) // settings.batch_size
    total = steps * settings.epochs
    rows: list[dict[str, Any]] = []
    if (output / "state.pt").exists():
        state = torch.load(output / "state.pt", weights_only=True)
        finder.load_state_dict(state["finder"])
        average.load_state_dict(state["average"])
        optimiser.load_state_dict(state["optimiser"])
        rows = state["rows"]
    else:
        rows.append({"epoch": 0, **_held_out_metrics(finder, held_out, settings)})
        tell(_line(rows[-1]))

    for epoch in range(rows[-1]["epoch"] + 1, settings.epochs + 1):
        started, sums = monotonic(), np.zeros(2)
        order = np.random.default_rng([settings.seed, epoch]).permutation(len(scenes))
        finder.train()
        for step in range(steps):
            done = (epoch - 1) * steps + step
            rate = min((done + 1) / settings.warmup_steps, 0.5 + 0.5 * math.cos(math.pi * done / total))
            for group in optimiser.param_groups:
                group["lr"] = settings.learning_rate * rate * group["size"]
            chosen = order[step * settings.batch_size : (step + 1) * settings.batch_size]
            rng = np.random.default_rng([settings.seed, epoch, step])
            images, targets = _batch([scenes[index] for index in chosen], settings, rng)
            with torch.autocast("cpu", torch.bfloat16, enabled=settings.bf16):
                logits, boxes = finder(images)
            center_loss, box_loss = finder_loss(logits, boxes, targets)
            loss = center_loss + settings.box_weight * box_loss
            if not torch.isfinite(loss):
                raise InputError(
                    f"{output}: the loss is not finite in epoch {epoch}; lower the learning rate"
                )
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trained, settings.clip_norm)
            optimiser.step()
            average.update_parameters(finder)
            sums += [center_loss.item(), box_loss.item()]
            if step % 20 == 0:
                center, box = sums / (step + 1)
                tell(f"epoch {epoch}, step {step} of {steps}: loss {center:.3f} (centres), {box:.3f} (boxes)")
        losses = {"center_loss": float(sums[0] / steps), "box_loss": float(sums[1] / steps)}
        measured = _held_out_metrics(average.module, held_out, settings)
        rows.append({"epoch": epoch, **losses, **measured, "seconds": monotonic() - started})
        tell(_line(rows[-1]))
        weights = {name: weight.contiguous() for name, weight in average.module.state_dict().items()}
        atomically(output / f"epoch_{epoch}.safetensors", partial(save_file, weights))
        if measured["AP50"] >= max(row["AP50"] for row in rows[1:]):
            atomically(output / "best.safetensors", partial(save_file, weights))
        _write_metrics(output / "metrics.csv", rows)
        state = {"finder": finder.state_dict(), "average": average.state_dict()}
        state |= {"optimiser": optimiser.state_dict(), "rows": rows}
        atomically(output / "state.pt", partial(torch.save, state))
    return output / "best.safetensors"


def _line(row: dict[str, Any]) -> str:
    """One line for the user."""
    numbers = [f"{name} {value:.4g}" for name, value in row.items() if name != "epoch"]
    return f"epoch {row['epoch']}, held-out pictures: {', '.join(numbers)}"


def _write_metrics(path: Path, rows: list[dict[str, Any]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[-1]))
        writer.writeheader()
        writer.writerows(rows)


def _same_settings(output: Path, settings: FinderSettings, sets: Sequence[tuple[Path, Path]]) -> None:
    """Write the settings down; a resumed training must have them, but for the epochs."""
    now = {**asdict(settings), "sets": [[str(each) for each in pair] for pair in sets]}
    now = json.loads(json.dumps(now))
    file = output / "settings.json"
    if file.exists():
        before = json.loads(file.read_text())
        changed = [name for name in now if name != "epochs" and now[name] != before.get(name)]
        if changed:
            raise InputError(f"{file}: a training with other {', '.join(changed)}; give another --output")
    file.write_text(json.dumps(now, indent=2))


def _scenes(
    finder: PeopleFinder,
    settings: FinderSettings,
    sets: Sequence[tuple[Path, Path]],
    known: Path,
    tell: Callable[[str], None],
) -> tuple[list[Scene], list[Scene]]:
    """The pictures to train on, and those held out.

    Where there may be persons without a label is looked for once and kept in the file ``known``.
    """
    scenes = []
    for images, file in sets:
        annotations = read_annotations(file)
        learned, others = people_of(annotations)
        scenes += [
            Scene(images / record.file_name, learned[image_id], others[image_id])
            for image_id, record in annotations.images.items()
        ]
    if not known.exists():
        tell(f"looking for persons without a label in {len(scenes)} pictures")
        found = {str(scene.file): _unlabelled(finder, scene, settings).tolist() for scene in scenes}
        atomically(known, lambda file: file.write_text(json.dumps(found)))
    more = json.loads(known.read_text())
    scenes = [
        replace(
            scene,
            unknown=np.concatenate(
                [scene.unknown, np.array(more[str(scene.file)], np.float32).reshape(-1, 4)]
            ),
        )
        for scene in scenes
    ]
    first = len(read_annotations(sets[0][1]).images)
    held = set(np.random.default_rng(settings.seed).permutation(first)[: settings.held_out].tolist())
    rest = [scene for index, scene in enumerate(scenes) if index not in held]
    return rest, [scenes[index] for index in sorted(held)]


def _unlabelled(finder: PeopleFinder, scene: Scene, settings: FinderSettings) -> np.ndarray:
    """Where the network sees persons that no label knows: (n, 4) xyxy."""
    boxes = _found(finder, scene, settings, settings.unknown_score)[0]
    if not len(scene.boxes) or not len(boxes):
        return boxes
    return boxes[box_overlaps(boxes, scene.boxes).max(1) < LABEL_OVERLAP]


def _found(finder: nn.Module, scene: Scene, settings: FinderSettings, least_score: float) -> Boxes:
    """What the network, as it is, finds in a picture."""
    with torch.autocast("cpu", torch.bfloat16, enabled=settings.bf16):
        return find_people(
            partial(find_peaks, finder),
            read_image(scene.file),
            (settings.input_size,),
            least_score,
            MAX_OVERLAP,
        )


def _held_out_metrics(
    finder: nn.Module, scenes: Sequence[Scene], settings: FinderSettings
) -> dict[str, float]:
    found = {index: _found(finder, scene, settings, HELD_OUT_SCORE) for index, scene in enumerate(scenes)}
    truth = {index: scene.boxes for index, scene in enumerate(scenes)}
    return people_metrics(found, truth, {index: scene.unknown for index, scene in enumerate(scenes)})


def _batch(
    scenes: Sequence[Scene], settings: FinderSettings, rng: np.random.Generator
) -> tuple[torch.Tensor, Targets]:
    """Pictures (b, 3, H, W) and stacked targets on one canvas."""
    canvas = settings.canvases[rng.integers(len(settings.canvases))]
    pairs = [augmented(scene, read_image(scene.file), canvas, settings.longer_side, rng) for scene in scenes]
    images = torch.from_numpy(np.stack([image for image, _ in pairs])).permute(0, 3, 1, 2)
    targets = Targets(*(torch.stack(each) for each in zip(*(target for _, target in pairs), strict=True)))
    return images.float() / 127.5 - 1, targets


def augmented(
    scene: Scene,
    image: np.ndarray,
    canvas: tuple[int, int],
    longer_side: tuple[int, int],
    rng: np.random.Generator,
) -> tuple[np.ndarray, Targets]:
    """A picture, scaled, mirrored, shifted and recoloured at random on a canvas, and its targets.

    Args:
        scene: where its persons are.
        image: (H, W, 3) uint8 RGB.
        canvas: (width, height), multiples of 32.
        longer_side: least and most pixels of the scaled picture's longer side.
        rng: of every draw.

    Returns:
        the canvas (height, width, 3) uint8, grey where the picture is not, and the targets.
    """
    height, width = image.shape[:2]
    factor = float(np.exp(rng.uniform(*np.log(longer_side)))) / max(height, width)
    size = np.array([max(1, round(width * factor)), max(1, round(height * factor))])
    # left, top of the picture on the canvas: anywhere that shows all of it, or fills the canvas with it
    room = np.array(canvas) - size
    shift = np.round(room * rng.uniform(size=2)).astype(int)
    image = cv2.resize(image, size.tolist(), interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR)
    boxes, unknown = (each * np.tile(size / [width, height], 2) for each in (scene.boxes, scene.unknown))
    if rng.uniform() < 0.5:
        image = image[:, ::-1]
        boxes, unknown = (
            [size[0], 0, size[0], 0] + each[:, [2, 1, 0, 3]] * [-1, 1, -1, 1] for each in (boxes, unknown)
        )
    image = _recoloured(image, rng)
    shown = np.full((canvas[1], canvas[0], 3), 127, np.uint8)
    to, source = np.maximum(shift, 0), np.maximum(-shift, 0)
    extent = np.minimum(size - source, np.array(canvas) - to)
    shown[to[1] : to[1] + extent[1], to[0] : to[0] + extent[0]] = image[
        source[1] : source[1] + extent[1], source[0] : source[0] + extent[0]
    ]
    limits = np.tile(canvas, 2)
    moved = boxes + np.tile(shift, 2)
    boxes = moved.clip(0, limits)
    sides, before = boxes[:, 2:] - boxes[:, :2], moved[:, 2:] - moved[:, :2]
    # a person of whom the canvas shows little, or few pixels, is neither learned nor unlearned
    learned = (sides.prod(1) > 0.35 * before.prod(1)) & (sides.max(1, initial=0) >= 12)
    unknown = np.concatenate([(unknown + np.tile(shift, 2)).clip(0, limits), boxes[~learned]])
    unknown = unknown[(unknown[:, 2:] > unknown[:, :2]).all(1)]
    return shown, draw_targets(boxes[learned], unknown, canvas[1] // 4, canvas[0] // 4)


def _recoloured(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Another brightness, contrast and gamma; sometimes grey."""
    gain, offset, gamma = rng.uniform(0.75, 1.25), rng.uniform(-20, 20), float(np.exp(rng.uniform(-0.3, 0.3)))
    levels = 255 * (np.arange(256) / 255) ** gamma
    table = ((levels - 127) * gain + 127 + offset).clip(0, 255).astype(np.uint8)
    image = cv2.LUT(np.ascontiguousarray(image), table)
    if rng.uniform() < 0.05:
        image = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    return image
