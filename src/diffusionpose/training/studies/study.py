"""What a study is, and the trainings that a budget makes of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from diffusionpose.training.settings import TrainingSettings
from diffusionpose.training.studies.budgets import PAPER_ZETA, Budget


@dataclass(frozen=True)
class Variant:
    """A row of a table of the paper: one training.

    Attributes:
        label: what the row is called, in the table's own words.
        run: folder of the run; rows of different tables that are the same training share it.
        paper_ap, paper_ar: in percent; None where the paper gives none.
        head: what makes heatmaps of the encoder's features: one convolution, as the baseline's, the decoder
            without diffusion (``models/baselines/unet.py``), or DiffusionPose; what follows the stride is
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
