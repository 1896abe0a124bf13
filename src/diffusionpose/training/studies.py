"""Studies and budgets as data: what section 4.4 of the paper compares, and what one training is here.

A budget is the scaling-down: encoder, input, the decoder's width C, epochs. What follows by rule:

- zeta: the paper's times 256 / input height. Noise is counted in pixels of the stride-4 heatmap
  (``models/diffusion_pose.py``), so it keeps its share of the map: zeta = 0.05 is 20 of 64 rows, and the
  12 x 8 to 192 x 144 maps of other inputs get noise of 20 / 64 of their height.
- sigma and the masks: 1 / 32 of the map's height (``geometry.py``).

s, the conditions and the number of diffusion steps are the paper's in every budget. Needs no torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

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


_PAPER = get_recipe("diffusionpose_w32_256x192_coco")
_MOBILE = get_recipe("diffusionpose_mobilenetv2_128x96_crowdpose")
_MOBILE_HEADS = ("mobilenetv2", "mobilenetv2_unet")  # baseline and U-Net

BUDGETS = {
    budget.name: budget
    for budget in (
        Budget(
            "full",
            "HRNet-W32 at 256x192, C = 128, 210 epochs: the paper's",
            replace(_PAPER, options={"width": 128}, val_every=10),  # what is reported is the last model
            "hrnet_w32",
            "hrnet_w32_unet",
        ),
        Budget(
            "small",
            "MobileNetV2 at 128x96, C = 64, 18 epochs",
            replace(_MOBILE, options={"width": 64}, val_every=18),
            *_MOBILE_HEADS,
        ),
        Budget(  # of a model that is trained already, at the lower rate that suits its encoder
            "short",
            "MobileNetV2 at 128x96, C = 32, 4 epochs",
            replace(
                _MOBILE,
                options={"width": 32},
                epochs=4,
                learning_rate=7e-4,
                warmup_steps=120,
                ema_decay=0.995,
                val_every=4,
            ),
            *_MOBILE_HEADS,
        ),
        Budget(  # five trainings on 7,682 persons in under half an hour on two cores
            "tiny",
            "MobileNetV2 at 96x64, C = 32, 3 epochs",
            replace(
                _MOBILE,
                input_size=(64, 96),
                options={"width": 32},
                epochs=3,
                warmup_steps=90,  # an eighth of all 720 steps
                ema_decay=0.99,
                val_every=3,
            ),
            *_MOBILE_HEADS,
        ),
    )
}


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
        own_start: share of the training persons whose heatmaps start from the coarse ones; the paper has 0.
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

    def settings(self, budget: Budget, skeleton: str, seed: int = 0) -> TrainingSettings:
        """The training of this row."""
        name = f"reproduce-{budget.name}-{self.run}-seed{seed}"
        base = replace(budget.base, recipe=name, skeleton=skeleton, seed=seed)
        if self.head == "convolution":
            return replace(base, model=budget.baseline, options={"stride": self.stride})
        if self.head == "unet":
            options = {"width": base.options["width"], "stride": self.stride}
            return replace(base, model=budget.unet, options=options)
        options = {
            **base.options,
            "stride": self.stride,
            "zeta": budget.scaled_zeta(self.zeta),
            "conditions": self.conditions,
        }
        if self.own_start:
            options["own_start"] = self.own_start
        return replace(base, options=options)


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


# The numbers are of COCO val2017 with HRNet-W32 256x192, in percent

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

HEADS = Study(  # not in the paper: how much of the lead over the baseline is diffusion's
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

STUDIES = {study.name: study for study in (TABLE5, TABLE6, TABLE7, FIGURE4, FIGURE5, HEADS)}
