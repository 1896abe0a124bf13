"""What a training is: frozen settings, read by everything else on this floor; needs no torch to import."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from diffusionpose.errors import InputError

OPTIMISERS = ("adam", "adamw")
SCHEDULES = ("steps", "cosine")
PRECISIONS = ("32", "bf16-mixed")
DECODES = ("argmax", "quarter", "dark")


@dataclass(frozen=True)
class TrainingSettings:
    """Everything that decides which weights a training ends in, data apart.

    Args:
        recipe: name of the recipe these settings come from.
        model: name in ``diffusionpose.models.zoo``.
        options: of that model (``stride``, ``width``, ``zeta``, ...).
        skeleton: name, or path of a YAML file.
        input_size: (width, height) of the network input in pixels.
        unbiased: crops by UDP's unbiased geometry instead of HRNet's.
        pretrained: let timm fetch ImageNet weights for the encoder when no file of them is given.
        batch_size: persons per process and step.
        learning_rate: at its height, after the warm-up; not scaled with the number of processes.
        weight_decay: on weights of two or more dimensions (not on norms and biases).
        layer_decay: each block of the backbone learns at this share of the rate of the block above it; 1
            for one rate. For vision transformers.
        relative_rate: each tensor learns in proportion to the size of its weights (Adafactor, Shazeer and
            Stern 2018): for networks whose BatchNorm is folded into weights of very different sizes.
        warmup_steps: the rate rises linearly over this many first steps.
        schedule: "steps" (divided by 10 after each of ``drops``, in epochs) or "cosine" (to 1 % at the end).
        clip_norm: largest norm of the gradient, 0 for no clipping.
        ema_decay: of the moving average of the weights, 0 for none. What is validated and saved as
            the model is the average.
        sync_batchnorm: BatchNorm statistics over all processes (GPU only).
        augmentation: what differs from ``diffusionpose.data.dataset.Augmentation`` (whose defaults are
            the paper's), None for no augmentation at all.
        decode, flip, steps: of the validation: decoder, flip test, diffusion steps.
        val_every: validate after every so many epochs, and after the last.
        seed: of the initial weights and of every draw: order, augmentation, noise.

    Raises:
        InputError: a value outside its range.
    """

    recipe: str
    model: str
    options: Mapping[str, Any] = field(default_factory=dict)
    skeleton: str = "coco"
    input_size: tuple[int, int] = (192, 256)
    unbiased: bool = False
    pretrained: bool = True
    epochs: int = 210
    batch_size: int = 32
    optimiser: str = "adam"
    learning_rate: float = 5e-4
    weight_decay: float = 0.0
    layer_decay: float = 1.0
    relative_rate: bool = False
    warmup_steps: int = 0
    schedule: str = "steps"
    drops: tuple[int, ...] = (170, 200)
    clip_norm: float = 0.0
    precision: str = "bf16-mixed"
    ema_decay: float = 0.0
    sync_batchnorm: bool = False
    augmentation: Mapping[str, float] | None = field(default_factory=dict)
    decode: str = "quarter"
    flip: bool = True
    steps: int = 1
    val_every: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "steps", "val_every"):
            _require(getattr(self, name) >= 1, name, getattr(self, name), "1 or more")
        for name in ("weight_decay", "warmup_steps", "clip_norm", "seed"):
            _require(0 <= getattr(self, name) < float("inf"), name, getattr(self, name), "0 or more")
        _require(0 < self.learning_rate < float("inf"), "learning_rate", self.learning_rate, "above 0")
        _require(0 < self.layer_decay <= 1, "layer_decay", self.layer_decay, "above 0, at most 1")
        _require(0 <= self.ema_decay < 1, "ema_decay", self.ema_decay, "from 0 to below 1")
        sides = len(self.input_size) == 2 and min(self.input_size) >= 32
        _require(sides, "input_size", self.input_size, "width and height, at least 32 x 32")
        choices = {"optimiser": OPTIMISERS, "schedule": SCHEDULES, "precision": PRECISIONS, "decode": DECODES}
        for name, allowed in choices.items():
            value = getattr(self, name)
            _require(value in allowed, name, value, "one of " + ", ".join(allowed))

    def to_dict(self) -> dict[str, Any]:
        """A plain dict that JSON can hold and :meth:`from_dict` takes back."""
        entries = asdict(self)
        return {name: list(value) if isinstance(value, tuple) else value for name, value in entries.items()}

    @classmethod
    def from_dict(cls, entries: Mapping[str, Any]) -> TrainingSettings:
        """The inverse of :meth:`to_dict`; InputError for an entry that no setting has, or of another type."""
        usual = cls(recipe="", model="")
        if unknown := sorted(set(entries) - set(vars(usual))):
            raise InputError(f"unknown training settings: {', '.join(unknown)}")
        values = {}
        for name, value in entries.items():
            kind = type(getattr(usual, name))
            if kind is tuple and isinstance(value, list):
                value = tuple(value)
            elif kind is float and type(value) is int:
                value = float(value)
            if type(value) is not kind and not (name == "augmentation" and value is None):
                raise InputError(f"training setting {name} is {value!r}; it must be a {kind.__name__}")
            values[name] = value
        return cls(**values)


@dataclass(frozen=True)
class ImageSet:
    """An annotation file and the folder its ``file_name`` entries lie in.

    Args:
        share: how often an epoch shows each of its persons, on average: 0.5 shows half of them, others in
            the next epoch; 2 shows each twice.
    """

    images: Path
    annotations: Path
    share: float = 1.0

    def __post_init__(self) -> None:
        _require(0 < self.share <= 100, "share", self.share, "above 0, at most 100")


def image_sets(
    images: Sequence[Path], annotations: Sequence[Path], shares: Sequence[float] = ()
) -> list[ImageSet]:
    """The sets of --images, --annotations and --shares; InputError where they are not as many."""
    if len(images) != len(annotations):
        raise InputError(
            f"--images names {len(images)} folders and --annotations {len(annotations)} files; "
            "give one folder for each file"
        )
    if shares and len(shares) != len(images):
        raise InputError(f"--shares has {len(shares)} numbers for {len(images)} training sets")
    return [ImageSet(*each) for each in zip(images, annotations, shares or (1.0,) * len(images), strict=True)]


@dataclass(frozen=True)
class Machine:
    """Where a training runs; none of it changes the numbers, except that the steps of
    ``devices * nodes`` processes take that many batches at once.

    Args:
        accelerator: "auto", "cpu", "gpu" or "mps".
        devices: processes on each node (one per GPU; on CPU they talk by gloo).
        nodes: computers; start the command on each with torchrun or SLURM.
        workers: data loading processes per training process; None for up to 8, by the cores at hand.
    """

    accelerator: str = "auto"
    devices: int = 1
    nodes: int = 1
    workers: int | None = None

    def __post_init__(self) -> None:
        for name in ("devices", "nodes"):
            _require(getattr(self, name) >= 1, name, getattr(self, name), "1 or more")
        _require(self.workers is None or self.workers >= 0, "workers", self.workers, "0 or more")

    @property
    def processes(self) -> int:
        """How many processes train together."""
        return self.devices * self.nodes


def _require(fine: bool, name: str, value: object, wanted: str) -> None:
    if not fine:
        raise InputError(f"--{name.replace('_', '-')} is {value!r}; it must be {wanted}")
