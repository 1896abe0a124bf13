"""What several commands share: options, messages, folders, and by what a job knows its inputs again."""

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import FlagCreatePairsOff, arg

from diffusionpose import __version__
from diffusionpose.calibration import calibration_file
from diffusionpose.errors import InputError, UsageError, make_writable
from diffusionpose.runtime.estimator import PoseEstimator, make_detector

Folder = Annotated[Path, arg(metavar="DIR")]
File = Annotated[Path, arg(metavar="FILE")]
AnyFile = Annotated[Path | None, arg(metavar="FILE", help_behavior_hint="")]
AnyFolder = Annotated[Path | None, arg(metavar="DIR", help_behavior_hint="")]
Output = Annotated[Path, arg(metavar="DIR", help="Folder for the results; made if it is not there.")]
Weights = Annotated[
    str | None,
    arg(
        metavar="W",
        help="The name of a bundled model, an .onnx or .xml file or an exported folder; or, with PyTorch, a "
        "run folder, a .safetensors file, a hub id.",
        help_behavior_hint="(default: the bundled model)",
    ),
]
Joints = Annotated[
    str | None, arg(metavar="NAME", help_behavior_hint="(default: by the names of its joints)")
]
Decode = Annotated[Literal["argmax", "quarter", "dark"], arg(help="How a heatmap becomes a point.")]
Device = Annotated[str, arg(help="'auto' (a GPU where there is one), 'cpu', 'cuda:1', 'mps', ...")]
Detector = Annotated[
    str,
    arg(
        metavar="NAME",
        help="Finds the persons: 'people', the bundled people finder (and 'auto' is that); 'whole' takes the "
        "whole picture as one person; with the extra 'detect': 'dfine', 'rtdetr', a folder with a detector "
        "in the format of transformers, a hub id.",
    ),
]
BoxScore = Annotated[
    float, arg(metavar="S", help="Least score of a person's box, for a detector to count and to be drawn.")
]
BOXES_OR_DETECTOR = "--boxes and --detector exclude each other; leave one out"
Boxes = Annotated[
    Path | None, arg(metavar="FILE", help_behavior_hint="(default: the detector looks for persons)")
]


@dataclass(frozen=True)
class NetworkOptions:
    """The network, and how it is run."""

    weights: Weights = None
    steps: Annotated[
        int | Literal["auto"] | None,
        arg(metavar="N|auto", help_behavior_hint="(default: the model's own, mostly 1)"),
    ] = None
    """Diffusion steps; 0 leaves the coarse heatmaps, 'auto' those of persons where they are sure."""
    decode: Decode = "dark"
    flip: bool = True
    """Average with the mirrored picture: a little better, twice the time."""
    rotation_test: FlagCreatePairsOff[bool] = False
    """Look at unsure persons turned by 90, 180 and 270 degrees as well: for gymnasts and divers."""
    device: Device = "auto"
    batch_size: Annotated[
        int | None, arg(metavar="N", help_behavior_hint="(default: 8 on a CPU, 64 on a GPU)")
    ] = None
    """Persons per pass through the network."""


@dataclass(frozen=True)
class PoseOptions(NetworkOptions):
    """The persons, the network, and how it is run."""

    detector: Detector = "auto"
    box_score: BoxScore = 0.3  # detection files list boxes down to a score of 0
    skeleton: Joints = None
    """Joints of the poses, where the model has more: coco or crowdpose."""

    def make(self, detect: bool = True) -> PoseEstimator:
        """The estimator, without a detector of these where persons come with boxes.

        Raises:
            InputError: as ``PoseEstimator.from_pretrained`` and ``make_detector``.
        """
        others = {name: value for name, value in vars(self).items() if name not in ("detector", "box_score")}
        if detect:
            others["detector"] = make_detector(self.detector, self.device, min_score=self.box_score, tell=say)
        return PoseEstimator.from_pretrained(**others)

    def identity(self, boxes: Path | None, estimator: PoseEstimator) -> dict[str, Any]:
        """All that decides the poses in a picture, JSON values: by what a job that goes on knows its own."""
        names = ("skeleton", "steps", "decode", "flip", "rotation_test", "box_score")
        persons = stamp(boxes) if boxes else estimator.detector.identity()
        found = {"weights": stamp(self.weights), "persons": persons}
        return {"version": __version__, **found, **{name: getattr(self, name) for name in names}}


def stamp(given: str | Path | None) -> list[Any]:
    """By what a file, or a folder's files, are known again: path, sizes and times; a mere name by itself."""
    if given is None:
        return []
    path = Path(os.path.abspath(given))
    # the numbers of an OpenVINO model lie beside it, and so may a model's calibration
    beside = [path.with_suffix(".bin"), calibration_file(path)]
    files = [*(sorted(path.iterdir()) if os.path.isdir(path) else [path]), *beside]
    facts = [(file.name, file.stat()) for file in files if os.path.isfile(file)]
    return [str(given), [[name, fact.st_size, fact.st_mtime_ns] for name, fact in facts]]


def say(message: str) -> None:
    """A message to the user, on stderr."""
    print(f"diffusionpose: {message}", file=sys.stderr)


def counted(number: int, what: str, of: int | None = None) -> str:
    """``3 poses``, ``1 pose``, ``2 of 3 pictures``."""
    total = number if of is None else of
    return f"{number}{'' if of is None else f' of {of}'} {what}{'' if total == 1 else 's'}"


def progress_of(what: str) -> Callable[[int, int], None] | None:
    """Shows ``done of total what`` on stderr, over the line before; None where nobody looks."""

    def show(done: int, total: int) -> None:
        print(f"{done} of {total} {what}", end="\r" if done < total else "\n", file=sys.stderr, flush=True)

    return show if sys.stderr.isatty() else None


def refuse(*faults: tuple[object, str]) -> None:
    """UsageError with the message of the first fault that is there."""
    for is_there, message in faults:
        if is_there:
            raise UsageError(message)


def make_folder(folder: Path) -> None:
    """Make sure that files can be written to a folder, before any long work; InputError where they cannot."""
    try:
        make_writable(folder)
    except OSError as error:
        raise InputError(
            f"--output {folder}: no folder that can be written to ({error.strerror}); name another"
        ) from error
