"""Training of the people finder: one loop, every epoch kept, the same call again goes on."""

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
from diffusionpose.errors import InputError, write_file
from diffusionpose.evaluation.people import people_metrics, people_of
from diffusionpose.json_files import read_json, write_json
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
from diffusionpose.runtime.people import box_overlaps, find_people
from diffusionpose.training.folder import RunFolder, read_checkpoint
from diffusionpose.training.optimiser import set_learning_rate, tensor_size
from diffusionpose.training.settings import ImageSet, require

LABEL_OVERLAP = 0.3  # IoU with a labelled person below which a box is another person
HELD_OUT_SCORE = 0.03  # of boxes that the held-out AP is computed from
RANGES = (  # of settings that are options
    ("epochs", 0, 10**6),
    ("batch_size", 1, 10**6),
    ("learning_rate", 0, 1),
    ("frozen", 0, 17),
    ("held_out", 1, 10**9),
    ("seed", 0, 2**64 - 1),
)
SMALLEST_SIZE = 1e-4  # as which a tensor counts for its rate, at least


@dataclass(frozen=True)
class FinderSettings:
    """How the people finder is trained; InputError for a value out of range."""

    epochs: int = 5
    batch_size: int = 16  # pictures; all of a batch share one canvas
    learning_rate: float = 1.5e-3  # at its height, as a share of a tensor's own size; then half a cosine
    warmup_steps: int = 60
    clip_norm: float = 5.0
    ema_decay: float = 0.995  # of the moving average of the weights, which is what is kept
    frozen: int = 6  # the stem and so many blocks of MobileNetV2 stay as they are
    canvases: tuple[tuple[int, int], ...] = ((384, 320), (320, 384), (352, 352))  # (width, height) of inputs
    longer_side: tuple[int, int] = (256, 672)  # least and most pixels that a picture's is scaled to
    box_weight: float = 2.0  # of the boxes' loss beside the centres'
    held_out: int = 160  # pictures of the first set that choose the best epoch
    unknown_score: float = 0.15  # of persons that no label knows, from which nothing is unlearned
    input_size: int = 448  # longer side at which the held-out pictures are searched
    width: float = WIDTH  # multiplier of MobileNetV2's channels, as the weights to start from have it
    seed: int = 0
    bf16: bool = True  # the network's arithmetic in training

    def __post_init__(self) -> None:
        for name, least, most in RANGES:
            value = getattr(self, name)
            require(least <= value <= most, name, value, f"from {least:g} to {most:g}")


@dataclass(frozen=True)
class Scene:
    """A training picture: its file, its persons, and where there may be more (boxes xyxy, its pixels)."""

    file: Path
    boxes: np.ndarray
    unknown: np.ndarray


def train_people_finder(
    settings: FinderSettings, sets: Sequence[ImageSet], start: Path, output: Path, tell: Callable[[str], None]
) -> Path:
    """Train the people finder, or go on with the training that ``output`` holds.

    Args:
        settings: a resumed training takes the same, but for the epochs.
        sets: persons with a labelled joint are learned, the boxes of others and crowds are left alone.
        start: weights to start from: MoveNet MultiPose's, or those of a people finder.
        output: folder: ``epoch_N.safetensors`` (moving averages), ``best.safetensors``, ``metrics.csv``.
        tell: is given a line now and then.

    Returns:
        the weights of the epoch that is best on the held-out pictures.

    Raises:
        InputError: a file cannot be read, too few pictures, or ``output`` holds a training of other settings.
    """
    folder = RunFolder(output)
    with folder.opened():
        scenes, held = _scenes(settings, sets)
        steps = (len(scenes) - len(held)) // settings.batch_size
        if not steps:
            raise InputError(
                f"{len(held)} of {len(scenes)} pictures held out leave less than a batch of "
                f"{settings.batch_size} to train on; lower --held-out or --batch-size, or give more pictures"
            )
        _keep_settings(folder, settings, sets)
        torch.manual_seed(settings.seed)
        finder = PeopleFinder(settings.width, settings.frozen)
        load_finder_weights(finder, start)
        finder = finder.to(memory_format=torch.channels_last)
        _add_unlabelled(finder, settings, scenes, output / "unlabelled.json", tell)
        held_out = [scenes[index] for index in sorted(held)]
        scenes = [scene for index, scene in enumerate(scenes) if index not in held]
        average = AveragedModel(finder, multi_avg_fn=get_ema_multi_avg_fn(settings.ema_decay))
        trained = [p for p in finder.parameters() if p.requires_grad]
        # without BatchNorm the sizes of layers differ by a thousand: each learns in proportion to its own
        groups = [{"params": [p], "lr_scale": tensor_size(p, SMALLEST_SIZE)} for p in trained]
        optimiser = torch.optim.Adam(groups)
        total, first_epoch = steps * settings.epochs, 1
        if folder.checkpoint.exists():
            state = read_checkpoint(folder.checkpoint, ("epoch", "finder", "average", "optimiser"))
            finder.load_state_dict(state["finder"])
            average.load_state_dict(state["average"])
            optimiser.load_state_dict(state["optimiser"])
            first_epoch = state["epoch"] + 1
        else:
            _tell_row(folder, {"epoch": 0, **_held_out_metrics(finder, held_out, settings)}, tell)

        for epoch in range(first_epoch, settings.epochs + 1):
            started, sums = monotonic(), np.zeros(2)
            order = np.random.default_rng([settings.seed, epoch]).permutation(len(scenes))
            finder.train()
            for step in range(steps):
                done = (epoch - 1) * steps + step
                rate = min((done + 1) / settings.warmup_steps, 0.5 + 0.5 * math.cos(math.pi * done / total))
                set_learning_rate(optimiser, settings.learning_rate * rate)
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
                    center, box = (f"{value:.3f}" for value in sums / (step + 1))
                    tell(f"epoch {epoch}, step {step} of {steps}: loss {center} (centres), {box} (boxes)")
            row = {"epoch": epoch, "center_loss": sums[0] / steps, "box_loss": sums[1] / steps}
            row |= _held_out_metrics(average.module, held_out, settings)
            before = [float(each["AP50"]) for each in folder.rows() if 0 < int(each["epoch"]) < epoch]
            weights = {name: weight.contiguous() for name, weight in average.module.state_dict().items()}
            best = row["AP50"] >= max(before, default=0)
            for name in (f"epoch_{epoch}", "best") if best else (f"epoch_{epoch}",):
                write_file(output / f"{name}.safetensors", partial(save_file, weights))
            _tell_row(folder, {**row, "seconds": monotonic() - started}, tell)
            state = {"epoch": epoch, "finder": finder.state_dict(), "average": average.state_dict()}
            folder.write_checkpoint({**state, "optimiser": optimiser.state_dict()})
    return folder.best


def _tell_row(folder: RunFolder, row: dict[str, Any], tell: Callable[[str], None]) -> None:
    """An epoch is done: one line, one row of metrics.csv."""
    folder.write_row(row)
    numbers = [f"{name} {value:.4g}" for name, value in row.items() if name != "epoch"]
    tell(f"epoch {row['epoch']}, held-out pictures: {', '.join(numbers)}")


def _keep_settings(folder: RunFolder, settings: FinderSettings, sets: Sequence[ImageSet]) -> None:
    """Write the settings down; a resumed training must have them, but for the epochs."""
    files = [[str(each.images), str(each.annotations)] for each in sets]
    now = json.loads(json.dumps({**asdict(settings), "sets": files}))
    if folder.settings_file.exists():
        before = read_json(folder.settings_file)
        if changed := [name for name in now if name != "epochs" and now[name] != before.get(name)]:
            raise InputError(
                f"{folder.settings_file}: a training with other {', '.join(changed)}; give another --output"
            )
    write_json(folder.settings_file, now)


def _scenes(settings: FinderSettings, sets: Sequence[ImageSet]) -> tuple[list[Scene], set[int]]:
    """All pictures, and which of them are held out."""
    scenes: list[Scene] = []
    first = 0
    for each in sets:
        annotations = read_annotations(each.annotations)
        learned, others = people_of(annotations)
        scenes += [
            Scene(each.images / record.file_name, learned[image_id], others[image_id])
            for image_id, record in annotations.images.items()
        ]
        first = first or len(scenes)
    held = np.random.default_rng(settings.seed).permutation(first)[: settings.held_out]
    return scenes, set(held.tolist())


def _add_unlabelled(
    finder: PeopleFinder,
    settings: FinderSettings,
    scenes: list[Scene],
    known: Path,
    tell: Callable[[str], None],
) -> None:
    """Look where there may be persons without a label, once: the file ``known`` keeps it."""
    if not known.exists():
        tell(f"looking for persons without a label in {len(scenes)} pictures")
        found = {}
        for scene in scenes:
            boxes, _ = _found(finder, scene, settings, settings.unknown_score)
            nearest = box_overlaps(boxes, scene.boxes).max(1, initial=0)
            found[str(scene.file)] = boxes[nearest < LABEL_OVERLAP].tolist()
        write_file(known, json.dumps(found).encode())
    more = read_json(known)
    for index, scene in enumerate(scenes):
        unknown = np.array(more[str(scene.file)], np.float32).reshape(-1, 4)
        scenes[index] = replace(scene, unknown=np.concatenate([scene.unknown, unknown]))


def _found(finder: nn.Module, scene: Scene, settings: FinderSettings, least_score: float) -> Boxes:
    """What the network, as it is, finds in a picture."""
    image, peaks = read_image(scene.file), partial(find_peaks, finder)
    with torch.autocast("cpu", torch.bfloat16, enabled=settings.bf16):
        return find_people(peaks, image, (settings.input_size,), least_score)


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
    """A picture (H, W, 3) uint8, scaled, mirrored, shifted and recoloured at random, and its targets.

    Args:
        canvas: (width, height) of what comes out, multiples of 32; grey where the picture is not.
        longer_side: least and most pixels of the scaled picture's longer side.
    """
    height, width = image.shape[:2]
    factor = float(np.exp(rng.uniform(*np.log(longer_side)))) / max(height, width)
    size = np.array([max(1, round(width * factor)), max(1, round(height * factor))])
    # left, top of the picture on the canvas: anywhere that shows all of it, or fills the canvas with it
    room = np.array(canvas) - size
    shift = np.round(room * rng.uniform(size=2)).astype(int)
    image = cv2.resize(image, size.tolist(), interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR)
    moved = np.concatenate([scene.boxes, scene.unknown]) * np.tile(size / [width, height], 2)
    if rng.uniform() < 0.5:
        image = image[:, ::-1]
        moved = [size[0], 0, size[0], 0] + moved[:, [2, 1, 0, 3]] * [-1, 1, -1, 1]
    image = _recoloured(image, rng)
    move = np.column_stack([np.eye(2), shift])
    shown = cv2.warpAffine(image, move, canvas, flags=cv2.INTER_NEAREST, borderValue=(127, 127, 127))
    moved += np.tile(shift, 2)
    boxes = moved.clip(0, np.tile(canvas, 2))
    sides, before = boxes[:, 2:] - boxes[:, :2], moved[:, 2:] - moved[:, :2]
    # a person of whom the canvas shows little, or few pixels, is neither learned nor unlearned
    learned = (sides.prod(1) > 0.35 * before.prod(1)) & (sides.max(1, initial=0) >= 12)
    learned[len(scene.boxes) :] = False
    unknown = boxes[~learned & (sides > 0).all(1)]
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
