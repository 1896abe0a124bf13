"""Budgets: how much is spent on every training of a study. The scaling-down is all here.

What goes down: the encoder, the input, the decoder's width C and the epochs. What follows by rule:

- zeta: the paper's times 256 / input height. Noise is counted in pixels of the stride-4 heatmap
  (``models/diffusion_pose.py``), so it keeps its share of the map: zeta = 0.05 is 20 of 64 rows, and the
  12 x 8 to 192 x 144 maps of other inputs get noise of 20 / 64 of their height.
- sigma and the masks: 1 / 32 of the map's height (``geometry.py``).
- the warm-up: at most 250 steps, and not more than an eighth of all.

s, the conditions and the number of diffusion steps are the paper's in every budget.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from diffusionpose.training.recipes import get_recipe
from diffusionpose.training.settings import TrainingSettings

PAPER_HEIGHT = 256  # input pixels; section 4.4
PAPER_ZETA = 0.05


@dataclass(frozen=True)
class Budget:
    """What one training of a study is.

    Attributes:
        name: as the command line takes it.
        words: one line for reports.
        base: the training of DiffusionPose that all variants are changes of; of its options, s, zeta
            and the conditions are set by the study.
        baseline: model of the same encoder with heatmaps by one convolution, in ``models.zoo``.
        unet: the same with the decoder as its head, without diffusion.
    """

    name: str
    words: str
    base: TrainingSettings
    baseline: str
    unet: str

    def scaled_zeta(self, zeta: float) -> float:
        """The zeta that is to this budget's heatmap what ``zeta`` is to the paper's."""
        return round(zeta * PAPER_HEIGHT / self.base.input_size[1], 4)


def _tiny() -> TrainingSettings:
    """3 epochs at 96x64 with C = 32: five trainings on 7,682 persons in under half an hour on two cores.

    The learning rate is the parent's; an average over about 100 steps instead of 500, for 720 in all.
    """
    return replace(
        get_recipe("diffusionpose_mobilenetv2_128x96_crowdpose"),
        input_size=(64, 96),
        options={"width": 32},
        epochs=3,
        warmup_steps=90,
        ema_decay=0.99,
        val_every=3,
    )


def _small() -> TrainingSettings:
    """The recipe as it is, validated at its end only."""
    recipe = get_recipe("diffusionpose_mobilenetv2_128x96_crowdpose")
    return replace(recipe, options={"width": 64}, val_every=18)


def _short() -> TrainingSettings:
    """4 epochs at 128x96 with C = 32, at the lower rate that suits a trained encoder."""
    return replace(
        _small(),
        options={"width": 32},
        epochs=4,
        learning_rate=7e-4,
        warmup_steps=120,
        ema_decay=0.995,
        val_every=4,
    )


def _full() -> TrainingSettings:
    """The paper's recipe; validated every 10 epochs, since what is reported is the last model."""
    return replace(get_recipe("diffusionpose_w32_256x192_coco"), options={"width": 128}, val_every=10)


MOBILE = ("mobilenetv2", "mobilenetv2_unet")  # baseline and U-Net head

BUDGETS = {
    budget.name: budget
    for budget in (
        Budget(
            "full",
            "HRNet-W32 at 256x192, C = 128, 210 epochs: the paper's",
            _full(),
            "hrnet_w32",
            "hrnet_w32_unet",
        ),
        Budget("small", "MobileNetV2 at 128x96, C = 64, 18 epochs", _small(), *MOBILE),
        Budget("short", "MobileNetV2 at 128x96, C = 32, 4 epochs", _short(), *MOBILE),
        Budget("tiny", "MobileNetV2 at 96x64, C = 32, 3 epochs", _tiny(), *MOBILE),
    )
}


# What a study is, and the trainings that a budget makes of it


@dataclass(frozen=True)
class Variant:
    """A row of a table of the paper: one training.

    Attributes:
        label: what the row is called, in the table's own words.
        run: folder of the run; rows of different tables that are the same training share it.
        paper_ap, paper_ar: in percent; None where the paper gives none.
        head: what makes heatmaps of the encoder's features: one convolution, as the baseline's, the decoder
            without diffusion (``models/heads.py``), or DiffusionPose; what follows the stride is
            of DiffusionPose alone.
        stride: the paper's s.
        zeta: the paper's, before a budget scales it.
        conditions: of ``models.zoo.make_condition``.
        own_start: of :class:`~diffusionpose.models.diffusion_pose.DiffusionPose`; the paper has 0.
    """

    label: str
    run: str
    paper_ap: float | None = None
    paper_ar: float | None = None
    head: Literal["convolution", "unet", "diffusion"] = "diffusion"
    stride: int = 4
    zeta: float = PAPER_ZETA
    conditions: str = "full"
    own_start: float = 0.0

    @property
    def takes_steps(self) -> bool:
        """Whether it is a diffusion model."""
        return self.head == "diffusion"


@dataclass(frozen=True)
class Study:
    """A table or figure of section 4.4.

    Attributes:
        name: as the command line takes it: "table7".
        kind: "table" has a row for each variant, "steps" one for each number of diffusion steps of its
            only variant, "pictures" shows the heatmaps of its variants.
        title: of the report.
        column: heading of what varies.
        variants: in the paper's order.
        steps: numbers of diffusion steps to measure.
        paper_steps: (AP, AR) of the paper by number of steps, for "steps".
        notes: what the reader must know about the paper's numbers.
    """

    name: str
    kind: Literal["table", "steps", "pictures"]
    title: str
    column: str
    variants: Sequence[Variant]
    steps: tuple[int, ...] = (1,)
    paper_steps: Mapping[int, tuple[float, float]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Planned:
    """A training of a study.

    Attributes:
        variant: the row it is for.
        name: of its folder below ``runs``.
        settings: of the training.
    """

    variant: Variant
    name: str
    settings: TrainingSettings

    @property
    def seed(self) -> int:
        """Of the training."""
        return self.settings.seed


def plan(study: Study, budget: Budget, skeleton: str, seeds: int = 1) -> list[Planned]:
    """All trainings of a study, seed 0 of every variant first.

    Args:
        study: what varies.
        budget: what a training costs.
        skeleton: name or YAML file, as ``TrainingSettings.skeleton``.
        seeds: trainings of each variant, with seeds 0, 1, ...
    """
    return [
        Planned(variant, name, _settings(variant, budget, skeleton, seed, name))
        for seed in range(seeds)
        for variant in study.variants
        for name in (f"{variant.run}-seed{seed}",)
    ]


def _settings(variant: Variant, budget: Budget, skeleton: str, seed: int, name: str) -> TrainingSettings:
    base = replace(budget.base, recipe=f"reproduce-{budget.name}-{name}", skeleton=skeleton, seed=seed)
    if variant.head == "convolution":
        return replace(base, model=budget.baseline, options={"stride": variant.stride})
    if variant.head == "unet":
        options = {"width": base.options["width"], "stride": variant.stride}
        return replace(base, model=budget.unet, options=options)
    changed: dict[str, Any] = {
        "stride": variant.stride,
        "zeta": budget.scaled_zeta(variant.zeta),
        "conditions": variant.conditions,
    }
    if variant.own_start:
        changed["own_start"] = variant.own_start
    return replace(base, options={**base.options, **changed})


# Tables 5, 6, 7 and Figures 4, 5. The numbers are of COCO val2017 with HRNet-W32 256x192, in percent

FULL = Variant("s = 4, all conditions, zeta = 0.05", "diffusionpose", 75.4, 80.5)
BASELINE = Variant("baseline", "baseline", 74.4, 78.9, head="convolution")

TABLE5 = Study(
    name="table5",
    kind="table",
    title="Table 5: conditions of the decoder",
    column="condition",
    variants=(
        BASELINE,
        Variant("features", "diffusionpose-features", 75.0, 80.0, conditions="features"),
        Variant("features, keypoints", "diffusionpose-keypoints", 75.2, None, conditions="keypoints"),
        Variant("features, keypoints, skeleton (SC-CA)", FULL.run, 75.4, 80.5),
    ),
    notes=(
        "The baseline is the same encoder, trained alike, with heatmaps by one convolution as HRNet's. Its "
        "targets are those of DiffusionPose (Gaussians at fractions of pixels), so that only the model "
        "differs; the paper's 74.4 is HRNet's own, whose targets stand at whole pixels.",
        "The paper's AR of the third row is missing in the text that this table was typed from.",
    ),
)

TABLE6 = Study(
    name="table6",
    kind="table",
    title="Table 6: resolution of the generated heatmaps",
    column="s",
    variants=(
        Variant("8", "diffusionpose-s8", 72.2, 78.1, stride=8),
        Variant("4", FULL.run, 75.4, 80.5),
        Variant("2", "diffusionpose-s2", 75.9, 81.1, stride=2),
        Variant("1", "diffusionpose-s1", 76.1, 81.3, stride=1),
    ),
    notes=("The width C of the decoder is the same in all rows, so the cost grows about fourfold a row.",),
)

TABLE7 = Study(
    name="table7",
    kind="table",
    title="Table 7: signal scale zeta",
    column="zeta, paper",
    variants=(
        Variant("0.01", "diffusionpose-zeta0.01", 75.3, 80.5, zeta=0.01),
        Variant("0.05", FULL.run, 75.4, 80.5),
        Variant("0.10", "diffusionpose-zeta0.10", 75.2, 80.4, zeta=0.10),
        Variant("0.50", "diffusionpose-zeta0.50", 71.6, 78.0, zeta=0.50),
        Variant("1.00", "diffusionpose-zeta1.00", 70.7, 77.5, zeta=1.00),
    ),
    notes=(
        "The zeta used is the paper's times 256 / input height: noise is counted in pixels of the heatmap, "
        "and so covers the same share of a smaller one. Its standard deviation at t = T is 1 / zeta pixels, "
        "given here in per cent of the map's height.",
    ),
)

FIGURE4 = Study(
    name="figure4",
    kind="steps",
    title="Figure 4: diffusion steps at inference",
    column="steps",
    variants=(FULL,),
    steps=(0, 1, 2, 3, 4, 5),
    paper_steps={1: (75.4, 80.5)},
    notes=(
        "Of the figure the text gives one step (75.4 AP) and a gain of 0.1 to 0.2 AP from more; 0 steps are "
        "the coarse heatmaps, which the paper does not measure.",
    ),
)

FIGURE5 = Study(
    name="figure5",
    kind="pictures",
    title="Figure 5: heatmaps on hard pictures",
    column="model",
    variants=(BASELINE, FULL),
    steps=(0, 1),
    notes=("The paper's pictures are chosen cases of CrowdPose; these are drawn by the rule below.",),
)

PAPER_STUDIES = (TABLE5, TABLE6, TABLE7, FIGURE4, FIGURE5)


# A study that the paper does not have: how much of the lead over the baseline is diffusion's

HEADS = Study(
    name="heads",
    kind="table",
    title="Heads: how much is diffusion",
    column="from features to heatmaps",
    variants=(
        BASELINE,
        Variant("U-Net", "unet", head="unet"),
        Variant("decoder, no noise", "diffusionpose-own1", own_start=1.0),
        Variant("DiffusionPose", FULL.run, FULL.paper_ap, FULL.paper_ar),
    ),
    notes=(
        "Not a table of the paper. *U-Net*: DiffusionPose's decoder on the features alone, with one loss and "
        "no heatmaps to start from. *Decoder, no noise*: DiffusionPose trained as it is used, every person "
        "from the coarse heatmaps (own_start = 1) and none from noised truth; a cascade of two stages.",
    ),
)


# Studies: what section 4.4 of the paper compares, and one of our own, as data; needs no torch

STUDIES = {study.name: study for study in (*PAPER_STUDIES, HEADS)}

__all__ = ["BUDGETS", "STUDIES", "Budget", "Planned", "Study", "Variant", "plan"]
