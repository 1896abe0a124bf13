"""``diffusionpose train-people`` and ``evaluate-people``: the people finder, trained and measured."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

from tyro.conf import FlagCreatePairsOff, arg

from diffusionpose.app.options import AnyFolder, File, Folder, make_folder, progress_of, say
from diffusionpose.data.annotations import read_annotations
from diffusionpose.evaluation.people import detections, evaluate_people, find_all
from diffusionpose.json_files import write_json
from diffusionpose.runtime.people import MIN_SCORE, BundledPeopleFinder
from diffusionpose.training.settings import image_sets

USUAL = "(default: as the bundled one)"
WholeNumber = Annotated[int | None, arg(metavar="N", help_behavior_hint=USUAL)]
RANKED_FROM = 0.03  # score of the least sure boxes that AP ranks


@dataclass(frozen=True)
class TrainPeopleCommand:
    """Train the people finder. The same command again resumes after the last whole epoch.

    Persons with a labelled joint are learned, for each data set one folder and one file side by side:
    --images A B --annotations a.json b.json. Some pictures of the first set are held out, and the epoch that
    is best on them is written as OUTPUT/people-finder.onnx, which `diffusionpose evaluate-people` measures.
    OUTPUT also holds every epoch's weights, metrics.csv and settings.json. One CPU core is enough: the
    bundled finder took ten minutes of one (docs/people-finder.md).
    """

    images: tuple[Path, ...]
    """Folder of the training images, one for each annotation file."""
    annotations: tuple[Path, ...]
    """Training annotations in COCO's form."""
    start: Path
    """Weights to start from: MoveNet MultiPose's as .safetensors, or those of a people finder."""
    output: Annotated[Path, arg(metavar="DIR")]
    """Folder of the run."""
    epochs: WholeNumber = None
    """Passes over the training pictures; may differ when a run is resumed."""
    batch_size: WholeNumber = None
    """Pictures per step."""
    learning_rate: Annotated[float | None, arg(metavar="X", help_behavior_hint=USUAL)] = None
    """At its height, as a share of the size of each layer's weights."""
    frozen: WholeNumber = None
    """The stem and so many of the 17 blocks of MobileNetV2 are not trained."""
    held_out: WholeNumber = None
    """Pictures of the first set that are not trained on."""
    seed: WholeNumber = None
    """Of every random draw."""
    no_bf16: FlagCreatePairsOff[bool] = False
    """Train in 32 bits: faster on a CPU without bfloat16 arithmetic."""

    def run(self) -> int:
        """Train and export; 0."""
        sets = image_sets(self.images, self.annotations)
        make_folder(self.output)
        from diffusionpose.models.export import export_people_finder
        from diffusionpose.models.people_finder import PeopleFinder, load_finder_weights
        from diffusionpose.training.people import FinderSettings, train_people_finder

        names = ("epochs", "batch_size", "learning_rate", "frozen", "held_out", "seed")
        changes = {name: value for name in names if (value := getattr(self, name)) is not None}
        settings = replace(FinderSettings(bf16=not self.no_bf16), **changes)
        best = train_people_finder(settings, sets, self.start, self.output, print)
        finder = PeopleFinder()
        load_finder_weights(finder, best)
        file = self.output / "people-finder.onnx"
        export_people_finder(finder, file)
        print(file)
        return 0


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
        """Measure, print, write; 0 if every picture and person could be used."""
        if self.output is not None:
            make_folder(self.output)
        finder = BundledPeopleFinder(self.weights, min_score=RANKED_FROM)
        annotations = read_annotations(self.annotations)
        found, failures = find_all(finder, annotations, self.images, progress_of("pictures"))
        metrics = evaluate_people(found, annotations, MIN_SCORE)
        for name, value in metrics.items():
            print(f"{name:30}{100 * value:6.1f}")
        if self.output is not None:
            write_json(self.output / "metrics.json", metrics)
            write_json(self.output / "detections.json", detections(found))
        problems = [*annotations.dropped, *failures]
        for problem in problems:
            say(problem)
        return 1 if problems else 0
