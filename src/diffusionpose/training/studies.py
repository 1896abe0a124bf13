"""Section 4.4 of the paper (Tables 5, 6 and 7, Figures 4 and 5) as data; needs no torch.

A budget scales the paper's training down: encoder, input, the decoder's width C, epochs. By rule zeta is the
paper's times 256 / input height: noise is counted in pixels of the stride-4 heatmap, so it keeps its share of
the map (zeta = 0.05 is 20 of 64 rows). Sigma and the masks follow the map's height by themselves
(``geometry.py``); s, the conditions and the number of diffusion steps are the paper's in every budget.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import FlagCreatePairsOff, Positional, arg

from diffusionpose.training.recipes import get_recipe
from diffusionpose.training.settings import ImageSet, Machine, TrainingSettings, image_sets

PAPER_HEIGHT = 256  # input pixels; section 4.4
PAPER_ZETA = 0.05


@dataclass(frozen=True)
class Budget:
    """What one training of a study is."""

    name: str
    words: str  # one line for reports
    base: TrainingSettings  # the training of DiffusionPose that all rows are changes of
    baseline: str = "mobilenetv2"  # the same encoder with heatmaps by one convolution
    unet: str = "mobilenetv2_unet"  # and with the decoder alone, without diffusion

    def scaled_zeta(self, zeta: float) -> float:
        """The zeta that is to this budget's heatmap what ``zeta`` is to the paper's."""
        return round(zeta * PAPER_HEIGHT / self.base.input_size[1], 4)


# What is reported is the last model, so there is no need to validate before.
_PAPER = replace(get_recipe("diffusionpose_w32_256x192_coco"), options={"width": 128}, val_every=10)
_SMALL = replace(
    get_recipe("diffusionpose_mobilenetv2_128x96_crowdpose"), options={"width": 64}, val_every=18
)
_SHORT = replace(  # of a model that is trained already, at the lower rate that suits its encoder
    _SMALL,
    options={"width": 32},
    epochs=4,
    learning_rate=7e-4,
    warmup_steps=120,
    ema_decay=0.995,
    val_every=4,
)
_TINY = replace(  # five trainings on 7,682 persons in under half an hour on two cores
    _SMALL,
    input_size=(64, 96),
    options={"width": 32},
    epochs=3,
    warmup_steps=90,
    ema_decay=0.99,
    val_every=3,
)
_MOVENET = replace(  # MobileNetV2 of MoveNet, all 17 blocks as they are: what is above them learns in minutes
    get_recipe("diffusionpose_movenet_256x192_body"),
    input_size=(96, 128),
    options={"width": 32, "encoder": {"frozen": 17}},
    epochs=1,
    batch_size=8,
    warmup_steps=30,
    ema_decay=0.99,
)
_WORDS = "HRNet-W32 at 256x192, C = 128, 210 epochs: the paper's"
BUDGETS = {
    "full": Budget("full", _WORDS, _PAPER, "hrnet_w32", "hrnet_w32_unet"),
    "small": Budget("small", "MobileNetV2 at 128x96, C = 64, 18 epochs", _SMALL),
    "short": Budget("short", "MobileNetV2 at 128x96, C = 32, 4 epochs", _SHORT),
    "tiny": Budget("tiny", "MobileNetV2 at 96x64, C = 32, 3 epochs", _TINY),
    "movenet": Budget(
        "movenet",
        "MoveNet at 128x96, its blocks frozen, C = 32, 1 epoch",
        _MOVENET,
        "movenet",
        "movenet_unet",
    ),
}


@dataclass(frozen=True)
class Row:
    """A row of a table: one training, measured with one number of diffusion steps."""

    label: str
    run: str  # folder of the training; rows that are the same training share it
    paper: tuple[float | None, float | None] = (None, None)  # AP, AR in percent
    options: Mapping[str, Any] = field(default_factory=dict)  # that are not the paper's usual
    head: Literal["convolution", "unet", "diffusion"] = "diffusion"  # what makes heatmaps of the features
    steps: int = 1
    wider: int = 1  # times the budget's C

    def settings(self, budget: Budget, skeleton: str, seed: int = 0) -> TrainingSettings:
        """The training of this row."""
        name = f"reproduce-{budget.name}-{self.run}-seed{seed}"
        base = replace(budget.base, recipe=name, skeleton=skeleton, seed=seed)
        if self.head == "convolution":
            encoder = {key: value for key, value in base.options.items() if key == "encoder"}
            return replace(base, model=budget.baseline, options={"stride": 4, **encoder})
        if self.head == "unet":
            return replace(base, model=budget.unet, options={**base.options, "stride": 4})
        options = {"stride": 4, "zeta": PAPER_ZETA, "conditions": "full", **base.options, **self.options}
        options["width"] *= self.wider
        return replace(base, options={**options, "zeta": budget.scaled_zeta(options["zeta"])})


@dataclass(frozen=True)
class Study:
    """A table or figure of section 4.4."""

    name: str
    title: str
    column: str  # heading of what varies
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()  # what the reader must know about the paper's numbers
    # heading and content, from a row's options and the input's height and width, of another column
    more: tuple[str, Callable[[Mapping[str, Any], int, int], str]] | None = None
    pictures: bool = False  # it also shows heatmaps of hard pictures


FULL, BEST = "diffusionpose", (75.4, 80.5)
BASELINE = Row("baseline", "baseline", (74.4, 78.9), head="convolution")

TABLE5 = Study(
    "table5",
    "Table 5: conditions of the decoder",
    "condition",
    (
        BASELINE,
        Row("features", "diffusionpose-features", (75.0, 80.0), {"conditions": "features"}),
        Row("features, keypoints", "diffusionpose-keypoints", (75.2, None), {"conditions": "keypoints"}),
        Row("features, keypoints, skeleton (SC-CA)", FULL, BEST),
    ),
    (
        "The baseline is the same encoder, trained alike, with heatmaps by one convolution as HRNet's. Its "
        "targets are those of DiffusionPose (Gaussians at fractions of pixels), so that only the model "
        "differs; the paper's 74.4 is HRNet's own, whose targets stand at whole pixels.",
        "The paper's AR of the third row is missing in the text that this table was typed from.",
    ),
)

TABLE6 = Study(
    "table6",
    "Table 6: resolution of the generated heatmaps",
    "s",
    (
        Row("8", "diffusionpose-s8", (72.2, 78.1), {"stride": 8}),
        Row("4", FULL, BEST),
        Row("2", "diffusionpose-s2", (75.9, 81.1), {"stride": 2}),
        Row("1", "diffusionpose-s1", (76.1, 81.3), {"stride": 1}),
    ),
    ("The width C of the decoder is the same in all rows, so the cost grows about fourfold a row.",),
    ("heatmap", lambda options, h, w: f"{h // options['stride']}x{w // options['stride']}"),
)

TABLE7 = Study(
    "table7",
    "Table 7: signal scale zeta",
    "zeta, paper",
    (
        Row("0.01", "diffusionpose-zeta0.01", (75.3, 80.5), {"zeta": 0.01}),
        Row("0.05", FULL, BEST),
        Row("0.10", "diffusionpose-zeta0.10", (75.2, 80.4), {"zeta": 0.10}),
        Row("0.50", "diffusionpose-zeta0.50", (71.6, 78.0), {"zeta": 0.50}),
        Row("1.00", "diffusionpose-zeta1.00", (70.7, 77.5), {"zeta": 1.00}),
    ),
    (
        "The zeta used is the paper's times 256 / input height: noise is counted in pixels of the heatmap, "
        "and so covers the same share of a smaller one. Its standard deviation at t = T is 1 / zeta pixels, "
        "given here in per cent of the map's height.",
    ),
    (
        "zeta used (noise / map height)",
        lambda options, h, _: f"{options['zeta']:g} ({100 / options['zeta'] / (h / 4):.3g} %)",
    ),
)

FIGURE4 = Study(
    "figure4",
    "Figure 4: diffusion steps at inference",
    "steps",
    tuple(Row(str(n), FULL, BEST if n == 1 else (None, None), steps=n) for n in range(6)),
    (
        "Of the figure the text gives one step (75.4 AP) and a gain of 0.1 to 0.2 AP from more; 0 steps are "
        "the coarse heatmaps, which the paper does not measure.",
    ),
)

FIGURE5 = Study(
    "figure5",
    "Figure 5: heatmaps on hard pictures",
    "model",
    (
        BASELINE,
        Row("DiffusionPose, coarse heatmaps (0 steps)", FULL, steps=0),
        Row("DiffusionPose, 1 step", FULL, BEST),
    ),
    ("The paper's pictures are chosen cases of CrowdPose; these are drawn by the rule below.",),
    pictures=True,
)

HEADS = Study(  # not in the paper: how much of the lead over the baseline is diffusion's
    "heads",
    "Heads: how much is diffusion",
    "from features to heatmaps",
    (
        BASELINE,
        Row("U-Net", "unet", head="unet"),
        Row("decoder, no noise", "diffusionpose-own1", options={"own_start": 1.0}),
        Row("DiffusionPose", FULL, BEST),
        Row("errors for half of the noise", "diffusionpose-mistakes", options={"mistakes": 0.5}),
        Row("twice the width C", "diffusionpose-wide", wider=2),
    ),
    (
        "Not a table of the paper. *U-Net*: DiffusionPose's decoder on the features alone, with one loss and "
        "no heatmaps to start from. *Decoder, no noise*: DiffusionPose trained as it is used, every person "
        "from the coarse heatmaps (own_start = 1) and none from noised truth; a cascade of two stages. "
        "*Errors for half of the noise*: every second person starts from truth with the errors of pose "
        "estimators (mistakes = 0.5).",
    ),
)

STUDIES = {study.name: study for study in (TABLE5, TABLE6, TABLE7, FIGURE4, FIGURE5, HEADS)}


StudyName = Literal["table5", "table6", "table7", "figure4", "figure5", "heads"]
File = Annotated[Path | None, arg(metavar="FILE")]
FETCHED = "(default: timm fetches them)"
FROM_FILE = "(default: that of the training annotations)"
BY_CORES = "(default: 2 on a CPU with 2 cores or more, else 1)"
ALL_CORES = "(default: the cores at hand, shared out)"


@dataclass(frozen=True)
class Request:
    """What to reproduce on which data: the options of ``diffusionpose reproduce``."""

    study: Positional[StudyName]
    """Conditions, resolution, signal scale; diffusion steps, heatmaps of hard pictures; how much of it all is
    diffusion's (not in the paper)."""
    images: tuple[Path, ...]
    """Folder of the training images, one for each annotation file."""
    annotations: tuple[Path, ...]
    """Training annotations (COCO form or AI Challenger's own)."""
    val_images: Path
    """Folder of the validation images."""
    val_annotations: Path
    """Annotations to measure on."""
    output: Annotated[Path, arg(metavar="DIR")]
    """Folder of the studies; made if it is not there."""
    budget: Literal["full", "small", "short", "tiny", "movenet"] = "full"
    """The paper's recipe; a laptop's 18 epochs at 128x96; 4 epochs more, of a model so trained (--weights);
    half an hour on two cores; 1 epoch on MoveNet's frozen blocks (--encoder-weights)."""
    encoder_weights: Annotated[Path | None, arg(metavar="FILE", help_behavior_hint=FETCHED)] = None
    """A safetensors file of ImageNet weights for the encoder."""
    weights: File = None
    """A trained model (.safetensors) that every training starts from."""
    no_pretrained: FlagCreatePairsOff[bool] = False
    """Start the encoders from random weights instead."""
    boxes: File = None
    """Detected person boxes to measure with, as the paper does; the annotated ones by default."""
    skeleton: Annotated[str | None, arg(metavar="NAME", help_behavior_hint=FROM_FILE)] = None
    """coco, crowdpose, aic or a YAML file."""
    seeds: int = 1
    """Trainings of each row; from 2 on the tables give mean and spread."""
    pictures: int = 6
    """Shown in figure5."""
    parallel: Annotated[int | None, arg(metavar="N", help_behavior_hint=BY_CORES)] = None
    """Trainings side by side, each in a process of its own."""
    threads: Annotated[int | None, arg(metavar="N", help_behavior_hint=ALL_CORES)] = None
    """Of each training's arithmetic."""
    workers: int | None = 1
    """Processes that read pictures, for each training."""
    accelerator: Literal["auto", "cpu", "gpu", "mps"] = "auto"
    """What to train on."""
    devices: int = 1
    """GPUs of each training (or processes on a CPU); the paper's 8."""

    @property
    def train(self) -> list[ImageSet]:
        """The training sets."""
        return image_sets(self.images, self.annotations)

    @property
    def val(self) -> ImageSet:
        """The set to measure on."""
        return ImageSet(self.val_images, self.val_annotations)

    @property
    def machine(self) -> Machine:
        """What each training runs on."""
        return Machine(self.accelerator, self.devices, workers=self.workers)

    @property
    def chosen_budget(self) -> Budget:
        """What one training is, in words also what it starts from."""
        budget = BUDGETS[self.budget]
        if self.weights is not None:
            return replace(budget, words=f"{budget.words}, all started from {self.weights.name}")
        if self.no_pretrained:
            words = f"{budget.words}, encoder from random weights"
            return replace(budget, words=words, base=replace(budget.base, pretrained=False))
        return budget
