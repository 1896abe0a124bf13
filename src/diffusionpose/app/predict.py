"""``diffusionpose predict``: poses in pictures, drawn and as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro
from tyro.conf import FlagCreatePairsOff

from diffusionpose.app.options import (
    BatchSize,
    BoxScore,
    Decode,
    Detector,
    Device,
    Flip,
    Output,
    Steps,
    Weights,
)
from diffusionpose.app.output import make_folder, say
from diffusionpose.app.pictures import Picture, check_boxes, find_pictures
from diffusionpose.errors import InputError

if TYPE_CHECKING:
    from diffusionpose.app.engines import Ready
    from diffusionpose.inference.detectors import BoxesFromFile

BY_DETECTOR = "(default: the detector looks for persons)"
EACH_CORE = "(default: one for each GPU, or core where there is none)"
THIS_MACHINE = "(default: a Ray of this machine alone)"
RESULTS = ("keypoints.json", "keypoints.csv", "progress.jsonl")


@dataclass(frozen=True)
class PredictCommand:
    """Find the poses of the people in pictures.

    Writes OUTPUT/<stem>.png, each picture with its poses drawn (only joints with a score of 0.2 or
    more, only persons whose box has the least score), and OUTPUT/keypoints.json, all of them as
    a COCO results list to which file_name and box (x0, y0, x1, y1) are added. A picture that
    cannot be used is reported, the others are done, and the exit status is 1.

    A run that is stopped, in whatever way, goes on when the same command is given again:
    OUTPUT/progress.jsonl holds what is done until all is.

    Person boxes are a JSON file: a COCO detection list [{"image_id" or "file_name", "bbox": [x, y, width,
    height], "score"}, ...], a COCO annotation file, or {"photo.jpg": [[x0, y0, x1, y1], ...], ...}.
    image_id 785 means the picture whose name ends in that number: 000000000785.jpg.
    """

    images: tyro.conf.Positional[
        Annotated[tuple[Path, ...], tyro.conf.arg(metavar="IMAGE...", help_behavior_hint="")]
    ]
    """Pictures, or folders of pictures."""
    output: Output
    boxes: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint=BY_DETECTOR)] = None
    """Person boxes."""
    detector: Detector = "auto"
    box_score: BoxScore = 0.3  # detection files list boxes down to a score of 0
    draw_boxes: FlagCreatePairsOff[bool] = False
    """Draw the person boxes, and write the scores of the poses."""
    draw_names: FlagCreatePairsOff[bool] = False
    """Write the names of the joints."""
    weights: Weights = None
    steps: Steps = None
    decode: Decode = "dark"
    flip: Flip = True
    device: Device = "auto"
    batch_size: BatchSize = None
    csv: FlagCreatePairsOff[bool] = False
    """Write OUTPUT/keypoints.csv as well: one row for each person and joint."""
    engine: Literal["local", "ray"] = "local"
    """'ray' spreads the pictures over the processes of this machine or a Ray cluster; same results."""
    workers: Annotated[int | None, tyro.conf.arg(metavar="N", help_behavior_hint=EACH_CORE)] = None
    """Processes of --engine ray."""
    ray_address: Annotated[str | None, tyro.conf.arg(metavar="ADDRESS", help_behavior_hint=THIS_MACHINE)] = (
        None
    )
    """Ray cluster of --engine ray, such as 'auto' or ray://head:10001; its machines share the folders."""

    def run(self) -> int:
        """Find, draw, write; 0 if every picture and box could be used."""
        if not self.images:
            say("predict: name at least one picture or folder of pictures (--help explains)")
            return 2
        if self.boxes and self.detector != "auto":
            say("predict: --boxes and --detector exclude each other; leave one out")
            return 2
        if self.engine == "local" and (self.workers is not None or self.ray_address is not None):
            say("predict: --workers and --ray-address go with --engine ray")
            return 2
        from diffusionpose.app.picture_job import PictureJob
        from diffusionpose.app.picture_journal import PicturesDone
        from diffusionpose.inference.detectors import BoxesFromFile

        boxes = None if self.boxes is None else BoxesFromFile(self.boxes)
        pictures, problems = find_pictures(self.images, boxes.image_id if boxes else lambda path: None)
        self._check_output(pictures)
        if boxes is not None:
            check_boxes(boxes, pictures)
        with self._engine() as ready:
            job = self._job(ready, boxes)
            with PicturesDone(self.output, job, pictures, ready.batch_size) as done:
                for problem in problems:
                    say(problem)
                joints = ready.skeleton.joints if self.csv else None
                return PictureJob(self.output, done, boxes, joints, len(problems)).run(ready.engine)

    @contextmanager
    def _engine(self) -> Iterator[Ready]:
        """The engine that is asked for, for as long as the block lasts."""
        from diffusionpose.app.engines import EstimatorOptions, local_engine, ray_engine
        from diffusionpose.app.picture_job import DrawPicture

        how = EstimatorOptions.of(self)
        finish = DrawPicture(self.output.absolute(), self.box_score, self.draw_boxes, self.draw_names)
        if self.engine == "local":
            yield local_engine(how, finish)
        else:
            with ray_engine(how, finish, self.workers, self.ray_address) as ready:
                yield ready

    def _job(self, ready: Ready, boxes: BoxesFromFile | None) -> dict[str, Any]:
        """All that decides the results, but the pictures."""
        from diffusionpose import __version__
        from diffusionpose.app.identity import file_digest, weights_digest
        from diffusionpose.models.weights import find_weights

        return {
            "version": __version__,
            "weights": weights_digest(find_weights(self.weights)),
            "steps": self.steps,
            "decode": self.decode,
            "flip": self.flip,
            "device": ready.device,
            "batch_size": ready.batch_size,
            "boxes": file_digest(boxes.path) if boxes else None,
            "detector": ready.detector,
            "box_score": self.box_score,
            "draw_boxes": self.draw_boxes,
            "draw_names": self.draw_names,
        }

    def _check_output(self, pictures: list[Picture]) -> None:
        """InputError where results could not be written, or would take the place of what they come from."""
        make_folder(self.output)
        folder = self.output.resolve()
        if folder in [path.resolve() for path in self.images if path.is_dir()]:
            raise InputError(
                f"--output {self.output}: is a folder of the pictures, where the drawings would count as "
                "more of them the next time; name another"
            )
        written = {folder / picture.drawn for picture in pictures} | {folder / name for name in RESULTS}
        for source in [*(picture.path for picture in pictures), *([self.boxes] if self.boxes else [])]:
            if source.resolve() in written:
                raise InputError(f"{source}: would be overwritten by the result; name another --output")
