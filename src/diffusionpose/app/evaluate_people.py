"""``diffusionpose evaluate-people``: how many of the people in annotated pictures are found."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import arg

from diffusionpose.app.options import AnyFolder, File, Folder, make_folder
from diffusionpose.json_files import write_json

RANKED_FROM = 0.03  # score of the least sure boxes that AP ranks


@dataclass(frozen=True)
class EvaluatePeopleCommand:
    """Measure the people finder: AP of its boxes by COCO's rules, on an annotated data set.

    Persons with a labelled joint are to be found. Boxes that match none of them but lie on a crowd or on an
    annotated person without joints do not count. AP ranks every box down to a score of 0.03;
    AP50_given, precision and recall (at IoU 0.5) are of the boxes that the finder gives by itself.
    """

    images: Folder
    """Folder that the file names of the annotations are relative to."""
    annotations: File
    """Annotations in COCO's form."""
    weights: Annotated[Path | None, arg(metavar="FILE.onnx")] = None
    """Of `diffusionpose train-people`; by default the bundled finder."""
    output: AnyFolder = None
    """Folder to write metrics.json and detections.json (COCO's detection list) to."""

    def run(self) -> int:
        """Measure, print, write; 0."""
        from diffusionpose.data.annotations import read_annotations
        from diffusionpose.evaluation.people import detections, evaluate_people
        from diffusionpose.runtime.people import MIN_SCORE, BundledPeopleFinder

        if self.output is not None:
            make_folder(self.output)
        finder = BundledPeopleFinder(self.weights, min_score=RANKED_FROM)
        annotations = read_annotations(self.annotations)
        metrics, found = evaluate_people(finder, annotations, self.images, MIN_SCORE)
        for name, value in metrics.items():
            print(f"{name:30}{100 * value:6.1f}")
        if self.output is not None:
            write_json(self.output / "metrics.json", metrics)
            write_json(self.output / "detections.json", detections(found))
        return 0
