"""``diffusionpose calibrate``: what a model's heatmaps say of how far its keypoints can be trusted."""

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import arg

from diffusionpose.app.options import Device, Weights, counted, progress_of, refuse, say
from diffusionpose.calibration import calibration_file
from diffusionpose.data.annotations import read_annotations
from diffusionpose.errors import InputError, write_file
from diffusionpose.evaluation.confidence import fit_calibration, has_flags, observe
from diffusionpose.runtime.networks import load_network


@dataclass(frozen=True)
class CalibrateCommand:
    """Fit the confidence of a model: that a joint is right, whether it is visible, how far off it may be.

    Compares its poses in the true boxes of labelled persons with the truth, and writes what turns heatmaps
    into probabilities. Beside the weights, as NAME.calibration.json (of NAME.safetensors, NAME.onnx or a
    folder NAME), every command uses it, and `export` puts it into what it writes. Take persons that the model
    was not trained on where there are enough; measure by `evaluate` on others (docs/confidence.md). A picture
    that cannot be read is reported, the others are used, and the exit status is 1.
    """

    images: Annotated[tuple[Path, ...], arg(metavar="DIR...")]
    """Folders of pictures, one for each annotation file."""
    annotations: Annotated[tuple[Path, ...], arg(metavar="FILE...")]
    """COCO-style JSON; more than one file for joints that are labelled in some alone."""
    output: Annotated[Path, arg(metavar="FILE.json")]
    """File to write."""
    weights: Weights = None
    persons: Annotated[int, arg(metavar="N")] = 600
    """Persons of each file, drawn at random."""
    seed: Annotated[int, arg(metavar="N")] = 0
    """Of the draw."""
    device: Device = "auto"

    def run(self) -> int:
        """Look at the pictures, fit, write; 0 if every picture could be used."""
        unequal = len(self.images) != len(self.annotations)
        refuse(
            (unequal, "calibrate: give as many folders to --images as files to --annotations"),
            (self.persons < 1, f"--persons {self.persons}: must be 1 or more"),
        )
        network = load_network(self.weights, self.device)
        truths = [read_annotations(file) for file in self.annotations]
        if not any(has_flags(truth, network.skeleton.joints) for truth in truths):
            raise InputError(
                f"{self.annotations[0]}: labels no joint of the model as hidden, so that nothing is known of "
                "visibility; give a file that does, too, such as one of COCO's"
            )
        samples, failures = [], [message for truth in truths for message in truth.dropped]
        sets: Counter[str] = Counter()  # files may have one name
        for truth, folder in zip(truths, self.images, strict=True):
            progress = progress_of(f"persons of {truth.path.name}")
            sample, failed = observe(network, truth, folder, self.persons, self.seed, progress)
            samples.append(sample)
            failures += failed
            sets[truth.path.name] += len(sample.flagged)
        about = {"model": network.name, "persons": dict(sets), "seed": self.seed}
        calibration = fit_calibration(sum(samples[1:], samples[0]), network.skeleton.joints, about)
        write_file(self.output, json.dumps(calibration.to_dict()).encode() + b"\n")
        print(f"{self.output}: fitted on {counted(sum(sets.values()), 'person')}")
        if self.weights is not None:
            place = calibration_file(Path(self.weights))
            if self.output.resolve() != place.resolve():
                print(f"  to be used with {self.weights} it belongs to {place}")
        for message in failures:
            say(message)
        return 1 if failures else 0
