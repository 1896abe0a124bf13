"""What a training is: frozen settings, read by everything else on this floor; needs no torch to import."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from diffusionpose.errors import InputError

CHOICES = {
    "optimiser": ("adam", "adamw"),
    "schedule": ("steps", "cosine"),
    "precision": ("32", "bf16-mixed"),
    "decode": ("argmax", "quarter", "dark"),
}
NOT_OPTIONS = {  # of the model: what decides them
    "name": "RECIPE",
    "skeleton": "--skeleton",
    "input_size": "--input-size",
    "unbiased": "--geometry",
    "pretrained": "--no-pretrained",
    "encoder_weights": "--encoder-weights",
}


@dataclass(frozen=True)
class TrainingSettings:
    """All that decides which weights a training ends in, data apart; InputError for a value out of range."""

    recipe: str  # that these settings come from
    model: str  # in models.zoo
    options: Mapping[str, Any] = field(default_factory=dict)  # of the model: stride, width, zeta, ...
    skeleton: str = "coco"  # or the path of a YAML file
    input_size: tuple[int, int] = (192, 256)  # (width, height) of the network input in pixels
    unbiased: bool = False  # crops by UDP's geometry instead of HRNet's
    pretrained: bool = True  # timm fetches ImageNet weights for the encoder when no file of them is given
    epochs: int = 210
    batch_size: int = 32  # persons per process and step
    optimiser: str = "adam"
    learning_rate: float = 5e-4  # after the warm-up; not scaled with the number of processes
    weight_decay: float = 0.0  # on weights of two or more dimensions (not on norms and biases)
    # each block of a vision transformer learns at this share of the rate of the block above it
    layer_decay: float = 1.0
    # each tensor learns in proportion to its size (Adafactor, Shazeer and Stern 2018): for networks whose
    # BatchNorm is folded into weights of very different sizes
    relative_rate: bool = False
    warmup_steps: int = 0  # over which the rate rises linearly
    schedule: str = (
        "steps"  # divided by 10 after each of ``drops``, in epochs; or "cosine", to 1 % at the end
    )
    drops: tuple[int, ...] = (170, 200)
    clip_norm: float = 0.0  # largest norm of the gradient, 0 for no clipping
    precision: str = "bf16-mixed"
    compile: bool = False  # the loss by torch.compile: minutes before the first step, then faster on a GPU
    ema_decay: float = 0.0  # of the average of the weights that is validated and saved; 0 for none
    sync_batchnorm: bool = False  # BatchNorm statistics over all processes (GPU only)
    # what differs from data.augmentation.Augmentation, whose defaults are the paper's; None for plain crops
    augmentation: Mapping[str, float] | None = field(default_factory=dict)
    decode: str = "quarter"  # decode, flip test, diffusion steps: of the validation
    flip: bool = True
    steps: int = 1
    val_every: int = 1  # epochs; also after the last
    seed: int = 0  # of the initial weights and of every draw: order, augmentation, noise

    def __post_init__(self) -> None:
        for name in self.options.keys() & NOT_OPTIONS.keys():
            raise InputError(f"--options {name}: no option of the model; {NOT_OPTIONS[name]} decides it")
        for name in ("epochs", "batch_size", "steps", "val_every"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "1 or more")
        for name in ("weight_decay", "warmup_steps", "clip_norm"):
            require(0 <= getattr(self, name) < float("inf"), name, getattr(self, name), "0 or more")
        require(0 <= self.seed < 2**64, "seed", self.seed, "from 0 to below 2^64")
        require(all(isinstance(each, int) for each in self.drops), "drops", self.drops, "whole numbers")
        require(0 < self.learning_rate < float("inf"), "learning_rate", self.learning_rate, "above 0")
        require(0 < self.layer_decay <= 1, "layer_decay", self.layer_decay, "above 0, at most 1")
        require(0 <= self.ema_decay < 1, "ema_decay", self.ema_decay, "from 0 to below 1")
        sides = len(self.input_size) == 2 and all(isinstance(s, int) and s >= 32 for s in self.input_size)
        require(sides, "input_size", self.input_size, "width and height, at least 32 x 32")
        for name, allowed in CHOICES.items():
            value = getattr(self, name)
            require(value in allowed, name, value, "one of " + ", ".join(allowed))

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
    """An annotation file and the folder its ``file_name`` entries lie in."""

    images: Path
    annotations: Path
    share: float = (
        1.0  # of its persons that an epoch shows: 0.5 half of them, others in the next; 2 each twice
    )

    def __post_init__(self) -> None:
        require(0 < self.share <= 100, "share", self.share, "above 0, at most 100")


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
    """Where a training runs; of it only the number of processes, each with a batch, changes the numbers."""

    accelerator: str = "auto"  # or "cpu", "gpu", "mps"
    devices: int = 1  # processes on each node: one per GPU; on CPU they talk by gloo
    nodes: int = 1  # computers; torchrun or SLURM starts the command on each
    workers: int | None = None  # data loading processes per training process; None: by the cores at hand

    def __post_init__(self) -> None:
        for name in ("devices", "nodes"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "1 or more")
        require(self.workers is None or self.workers >= 0, "workers", self.workers, "0 or more")

    @property
    def processes(self) -> int:
        """How many processes train together."""
        return self.devices * self.nodes


def require(fine: bool, name: str, value: object, wanted: str) -> None:
    """InputError, which names the option and what it must be, unless it is fine."""
    if not fine:
        raise InputError(f"--{name.replace('_', '-')} is {value!r}; it must be {wanted}")
