"""``diffusionpose train``: train a model by a recipe, or go on where the same command was interrupted."""

import json
import sys
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import FlagCreatePairsOff, Positional, arg

from diffusionpose.errors import needs_extra
from diffusionpose.training.processes import is_first
from diffusionpose.training.recipes import get_recipe
from diffusionpose.training.settings import ImageSet, Machine, TrainingSettings, image_sets

Switch = Annotated[bool, FlagCreatePairsOff]
OF_RECIPE = "(default: the recipe's)"
RECIPES = arg(help_behavior_hint=OF_RECIPE)
WholeNumber = Annotated[int | None, arg(metavar="N", help_behavior_hint=OF_RECIPE)]
Number = Annotated[float | None, arg(metavar="X", help_behavior_hint=OF_RECIPE)]


@dataclass(frozen=True)
class Overrides:
    """Settings of the recipe to change; what is not given stays as the recipe has it."""

    epochs: WholeNumber = None
    """Passes over the training persons; may differ when a run is resumed."""
    batch_size: WholeNumber = None
    """Persons per process and step."""
    learning_rate: Number = None
    """At its height; it is not scaled with the number of processes."""
    weight_decay: Number = None
    """On weights, not on norms and biases."""
    layer_decay: Number = None
    """Share of the rate of the block above that each block of a vision transformer learns at."""
    warmup_steps: WholeNumber = None
    """First steps over which the learning rate rises."""
    optimiser: Annotated[Literal["adam", "adamw"] | None, RECIPES] = None
    """Which optimiser."""
    schedule: Annotated[Literal["steps", "cosine"] | None, RECIPES] = None
    """Of the learning rate: divided by 10 at the recipe's drops, or half a cosine."""
    clip_norm: Number = None
    """Largest norm of the gradient, 0 for no clipping."""
    ema_decay: Number = None
    """Of the moving average of the weights, 0 for none."""
    precision: Annotated[Literal["32", "bf16-mixed"] | None, RECIPES] = None
    """Of the network's arithmetic in training."""
    compile: Switch = False
    """Compile the network first: a minute or more, then faster on a GPU."""
    seed: WholeNumber = None
    """Of the initial weights and every random draw."""
    skeleton: Annotated[str | None, arg(metavar="NAME", help_behavior_hint=OF_RECIPE)] = None
    """Name of a skeleton (coco, crowdpose, aic) or a YAML file of your own."""
    input_size: Annotated[tuple[int, int] | None, arg(metavar="W H", help_behavior_hint=OF_RECIPE)] = None
    """Width and height of the network input."""
    geometry: Annotated[Literal["hrnet", "udp"] | None, RECIPES] = None
    """How crops are cut and mirrored: HRNet's, or UDP's unbiased one."""
    decode: Annotated[Literal["argmax", "quarter", "dark"] | None, RECIPES] = None
    """Decoder of the validation."""
    steps: WholeNumber = None
    """Diffusion steps of the validation."""
    val_every: WholeNumber = None
    """Validate after every so many epochs."""
    options: tuple[str, ...] = ()
    """Options of the model, NAME=VALUE, such as stride=2 width=64 zeta=0.1."""
    no_flip: Switch = False
    """Validate without the flip test."""
    no_augmentation: Switch = False
    """Train on plain crops."""
    no_pretrained: Switch = False
    """Start the encoder from random weights instead of fetching ImageNet's."""
    relative_rate: Switch = False
    """Each tensor learns in proportion to its own size, for networks whose BatchNorm is folded in."""
    sync_batchnorm: Switch = False
    """BatchNorm statistics over all GPUs."""

    def apply(self, settings: TrainingSettings) -> TrainingSettings:
        """The settings with every entry that is given replaced."""
        names = {each.name for each in fields(TrainingSettings)} - {"options"}
        replaced: dict[str, Any] = {
            name: value
            for name, value in vars(self).items()
            if name in names and value is not None and value is not False
        }
        if self.geometry is not None:
            replaced["unbiased"] = self.geometry == "udp"
        off = {"flip": False, "augmentation": None, "pretrained": False}
        replaced |= {name: value for name, value in off.items() if getattr(self, f"no_{name}")}
        options = dict(_option(text) for text in self.options)
        if isinstance(options.get("encoder"), dict):  # what is not named stays, as everywhere here
            options["encoder"] = {**settings.options.get("encoder", {}), **options["encoder"]}
        return replace(settings, **replaced, options={**settings.options, **options})


def _option(text: str) -> tuple[str, Any]:
    name, _, value = text.partition("=")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


@dataclass(frozen=True)
class TrainCommand:
    """Train a model by a recipe. The same command again resumes an interrupted run.

    Several training sets are given side by side: --images A B --annotations a.json b.json.
    """

    recipe: Positional[Annotated[str, arg(metavar="RECIPE")]]
    """Name of a recipe (`diffusionpose models` lists them), or a JSON file of settings, such as a run's."""
    images: tuple[Path, ...]
    """Folder of the training images, one for each annotation file."""
    annotations: tuple[Path, ...]
    """Training annotations (COCO form or AI Challenger's own)."""
    val_images: Path
    """Folder of the validation images."""
    val_annotations: Path
    """Validation annotations; their boxes are used."""
    output: Path
    """Folder of the run."""
    weights: Annotated[str | None, arg(metavar="W", help_behavior_hint="")] = None
    """Model to start from (fine-tuning): a run folder, a .safetensors file or a model's name."""
    encoder_weights: Annotated[
        Path | None, arg(metavar="FILE", help_behavior_hint="(default: timm fetches)")
    ] = None
    """ImageNet weights of the encoder, a .safetensors file in timm's names."""
    accelerator: Literal["auto", "cpu", "gpu", "mps"] = "auto"
    """What to train on."""
    devices: int = 1
    """Processes on each node: one per GPU."""
    nodes: int = 1
    """Computers; start the command on each by torchrun or SLURM."""
    shares: tuple[float, ...] = ()
    """How often an epoch shows the persons of each training set: 1 each, unless given (2 0.5 shows the first
    twice, half of the second)."""
    workers: Annotated[int | None, arg(metavar="N", help_behavior_hint="(default: by the cores at hand)")] = (
        None
    )
    """Data loading processes per training process."""
    overrides: Annotated[Overrides, arg(name="")] = field(default_factory=Overrides)

    def run(self) -> int:
        """Train; 0 when all was done, 1 when pictures could not be read."""
        settings = self.overrides.apply(get_recipe(self.recipe))
        sets = image_sets(self.images, self.annotations, self.shares)
        val = ImageSet(self.val_images, self.val_annotations)
        machine = Machine(self.accelerator, self.devices, self.nodes, self.workers)
        with needs_extra("train", "training needs PyTorch"):
            from diffusionpose.training.loop import train

        progress = sys.stderr.isatty()
        summary = train(
            settings, sets, val, self.output, machine, self.weights, self.encoder_weights, progress
        )
        if not is_first():
            return 0
        found = {name: summary.metrics.get(name) for name in ("AP", "PCK")}
        values = "".join(f", {name} {100 * float(value):.1f}" for name, value in found.items() if value)
        print(f"{self.output}: {summary.epochs} epochs done{values}")
        for failure in summary.failures:
            print(f"diffusionpose: {failure}", file=sys.stderr)
        return 1 if summary.failures else 0
