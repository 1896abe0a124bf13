"""Budgets: how much is spent on every training of a study. The scaling-down is all here.

What goes down: the encoder, the input, the decoder's width C and the epochs. What follows by rule:

- zeta: the paper's times 256 / input height. Noise is counted in pixels of the stride-4 heatmap
  (``models/diffusion_pose.py``), so it keeps its share of the map: zeta = 0.05 is 20 of 64 rows, and the
  12 x 8 to 192 x 144 maps of other inputs get noise of 20 / 64 of their height.
- sigma and the masks: 1 / 32 of the map's height (``geometry/codec.py``).
- the warm-up: at most 250 steps, and not more than an eighth of all.

s, the conditions and the number of diffusion steps are the paper's in every budget.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from diffusionpose.training.recipes import coco, small
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
        small.diffusionpose_mobilenetv2_128x96_crowdpose(),
        input_size=(64, 96),
        options={"width": 32},
        epochs=3,
        warmup_steps=90,
        ema_decay=0.99,
        val_every=3,
    )


def _small() -> TrainingSettings:
    """The recipe as it is, validated at its end only."""
    return replace(small.diffusionpose_mobilenetv2_128x96_crowdpose(), options={"width": 64}, val_every=18)


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
    return replace(coco.diffusionpose_w32_256x192_coco(), options={"width": 128}, val_every=10)


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
