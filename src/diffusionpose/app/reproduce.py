"""``diffusionpose reproduce``: the paper's ablations (section 4.4), trained, measured and drawn."""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro
from tyro.conf import FlagCreatePairsOff, Positional

from diffusionpose.app.options import say
from diffusionpose.errors import InputError, needs_extra
from diffusionpose.training.settings import ImageSet, Machine
from diffusionpose.training.studies import BUDGETS, STUDIES, Budget

if TYPE_CHECKING:
    from diffusionpose.training.reproduce import Request

StudyName = Literal["table5", "table6", "table7", "figure4", "figure5", "heads"]
FROM_FILE = "(default: that of the training annotations)"
FETCHED = "(default: timm fetches them)"
BY_CORES = "(default: 2 on a CPU with 2 cores or more, else 1)"
ALL_CORES = "(default: the cores at hand, shared out)"


@dataclass(frozen=True)
class ReproduceCommand:
    """Reproduce a table or figure of section 4.4 of the paper on your data.

    Trains what is missing under OUTPUT/runs, measures it and writes OUTPUT/STUDY.md, STUDY.json and
    STUDY.png, the paper's numbers beside yours. The same command again goes on where it stopped; studies
    of one data set and budget share OUTPUT, and the trainings they have in common.
    """

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
    output: Annotated[Path, tyro.conf.arg(metavar="DIR")]
    """Folder of the studies; made if it is not there."""
    budget: Literal["full", "small", "short", "tiny"] = "full"
    """The paper's recipe; a laptop's 18 epochs at 128x96; 4 epochs more, of a model so trained (--weights);
    half an hour on two cores."""
    encoder_weights: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint=FETCHED)] = None
    """A safetensors file of ImageNet weights for the encoder."""
    weights: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """A trained model (.safetensors) that every training starts from."""
    no_pretrained: FlagCreatePairsOff[bool] = False
    """Start the encoders from random weights instead."""
    boxes: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Detected person boxes to measure with, as the paper does; the annotated ones by default."""
    skeleton: Annotated[str | None, tyro.conf.arg(metavar="NAME", help_behavior_hint=FROM_FILE)] = None
    """coco, crowdpose, aic or a YAML file."""
    seeds: int = 1
    """Trainings of each variant; from 2 on the tables give mean and spread."""
    pictures: int = 6
    """Shown in figure5."""
    parallel: Annotated[int | None, tyro.conf.arg(metavar="N", help_behavior_hint=BY_CORES)] = None
    """Trainings side by side, each in a process of its own."""
    threads: Annotated[int | None, tyro.conf.arg(metavar="N", help_behavior_hint=ALL_CORES)] = None
    """Of each training's arithmetic."""
    workers: int | None = 1
    """Processes that read pictures, for each training."""
    accelerator: Literal["auto", "cpu", "gpu", "mps"] = "auto"
    """What to train on."""
    devices: int = 1
    """GPUs of each training (or processes on a CPU); the paper's 8."""

    def run(self) -> int:
        """Train, measure, write; 0 if every variant is there."""
        if len(self.images) != len(self.annotations):
            raise InputError(
                f"--images names {len(self.images)} folders and --annotations {len(self.annotations)} files; "
                "give one folder for each file"
            )
        for name in ("seeds", "pictures", "parallel", "threads"):
            number = getattr(self, name)
            if number is not None and number < 1:
                raise InputError(f"--{name} is {number}; it must be 1 or more")

        with needs_extra("train", "training needs PyTorch"):
            from diffusionpose.training.reproduce import reproduce

        outcome = reproduce(self.request(), lambda line: print(line, flush=True))
        print(*outcome.files, sep="\n")
        for failure in outcome.failures:
            say(failure)
        return 1 if outcome.failures else 0

    def request(self) -> Request:
        """What the flags ask for.

        On two cores two trainings of one thread side by side get more done than one of two threads, which
        wait for each other at every small layer. A GPU has one training at a time.
        """
        from diffusionpose.training.data import cores
        from diffusionpose.training.reproduce import Data, Request, device_for

        machine = Machine(self.accelerator, self.devices, workers=self.workers)
        alone = self.devices > 1 or device_for(machine) != "cpu"
        parallel = self.parallel or (1 if alone else min(2, cores()))
        sets = tuple(ImageSet(*pair) for pair in zip(self.images, self.annotations, strict=True))
        val = ImageSet(self.val_images, self.val_annotations)
        return Request(
            study=STUDIES[self.study],
            budget=self._budget(),
            data=Data(sets, val, self.boxes, self.encoder_weights, self.weights),
            output=self.output,
            skeleton=self.skeleton,
            seeds=self.seeds,
            machine=machine,
            parallel=parallel,
            threads=self.threads or max(1, cores() // (parallel * self.devices)),
            pictures=self.pictures,
            command=shlex.join(["diffusionpose", *sys.argv[1:]]),
        )

    def _budget(self) -> Budget:
        budget = BUDGETS[self.budget]
        if self.weights is not None:
            return replace(budget, words=f"{budget.words}, all started from {self.weights.name}")
        if not self.no_pretrained:
            return budget
        return replace(
            budget,
            words=f"{budget.words}, encoder from random weights",
            base=replace(budget.base, pretrained=False),
        )
