"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import arg

Folder = Annotated[Path, arg(metavar="DIR")]
File = Annotated[Path, arg(metavar="FILE")]
Output = Annotated[Path, arg(metavar="DIR", help="Folder for the results; made if it is not there.")]
Weights = Annotated[
    str | None,
    arg(
        metavar="W",
        help="A run folder, a .safetensors, .onnx or .xml file, the name of a bundled model or a hub id.",
        help_behavior_hint="(default: the bundled model)",
    ),
]
Joints = Annotated[
    str | None, arg(metavar="NAME", help_behavior_hint="(default: by the names of its joints)")
]
Steps = Annotated[
    int | None,
    arg(
        metavar="N",
        help="Diffusion steps; 0 leaves the coarse heatmaps.",
        help_behavior_hint="(default: the model's own, mostly 1)",
    ),
]
Decode = Annotated[Literal["argmax", "quarter", "dark"], arg(help="How a heatmap becomes a point.")]
Flip = Annotated[bool, arg(help="Average with the mirrored picture: a little better, twice the time.")]
Device = Annotated[str, arg(help="'auto' (a GPU where there is one), 'cpu', 'cuda:1', 'mps', ...")]
Detector = Annotated[
    str,
    arg(
        metavar="NAME",
        help="Finds the persons: 'dfine', 'rtdetr', 'fasterrcnn' or another of torchvision's, a folder with "
        "a detector in the format of transformers, a hub id; 'zoom' finds one person by their pose, without "
        "any detector; 'whole' takes the whole picture as one; 'auto' takes a detector that is at hand or "
        "can be downloaded, else zoom, and says so.",
    ),
]
BoxScore = Annotated[
    float, arg(metavar="S", help="Least score of a person's box, for a detector to count and to be drawn.")
]
BatchSize = Annotated[
    int | None,
    arg(
        metavar="N",
        help="Persons per pass through the network.",
        help_behavior_hint="(default: 8 on a CPU, 64 on a GPU)",
    ),
]
