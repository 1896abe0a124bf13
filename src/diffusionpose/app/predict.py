"""``diffusionpose predict``: poses in pictures, drawn and as JSON."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

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
from diffusionpose.app.output import make_folder, say, write_file, write_json
from diffusionpose.app.pictures import Picture, find_pictures
from diffusionpose.errors import InputError

if TYPE_CHECKING:
    from diffusionpose.inference.detectors import BoxesFromFile
    from diffusionpose.inference.estimator import PoseEstimator, Request
    from diffusionpose.poses import Pose

BY_DETECTOR = "(default: the detector looks for persons)"
AHEAD = 4  # pictures read before, and drawn after, their turn in the network
In = TypeVar("In")
Out = TypeVar("Out")


@dataclass(frozen=True)
class PredictCommand:
    """Find the poses of the people in pictures.

    Writes OUTPUT/<stem>.png, each picture with its poses drawn (only joints with a score of 0.2 or
    more, only persons whose box has the least score), and OUTPUT/keypoints.json, all of them as
    a COCO results list to which file_name and box (x0, y0, x1, y1) are added. A picture that
    cannot be used is reported, the others are done, and the exit status is 1.

    --boxes takes a JSON file: a COCO detection list [{"image_id" or "file_name", "bbox": [x, y, width,
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

    def run(self) -> int:
        """Find, draw, write; 0 if every picture and box could be used."""
        if not self.images:
            say("predict: name at least one picture or folder of pictures (--help explains)")
            return 2
        if self.boxes and self.detector != "auto":
            say("predict: --boxes and --detector exclude each other; leave one out")
            return 2
        from diffusionpose.inference.detection.choice import make_detector
        from diffusionpose.inference.detectors import BoxesFromFile
        from diffusionpose.inference.estimator import PoseEstimator

        boxes = None if self.boxes is None else BoxesFromFile(self.boxes)
        pictures, problems = find_pictures(self.images, boxes.image_id if boxes else lambda path: None)
        self._check_output(pictures)
        detector = None
        if boxes is None:
            detector = make_detector(self.detector, self.device, min_score=self.box_score, tell=say)
        else:
            _check_boxes(boxes, pictures)
        estimator = PoseEstimator.from_pretrained(
            self.weights,
            self.device,
            detector=detector,
            steps=self.steps,
            decode=self.decode,
            flip=self.flip,
            batch_size=self.batch_size,
        )
        for problem in problems:
            say(problem)
        return _Job(self, estimator, boxes, pictures, len(problems)).run()

    def _check_output(self, pictures: list[Picture]) -> None:
        """InputError where results could not be written, or would take the place of what they come from."""
        make_folder(self.output)
        folder = self.output.resolve()
        written = {folder / picture.drawn for picture in pictures} | {folder / "keypoints.json"}
        for source in [*(picture.path for picture in pictures), *([self.boxes] if self.boxes else [])]:
            if source.resolve() in written:
                raise InputError(f"{source}: would be overwritten by the result; name another --output")


class _Job:
    """One run over pictures: reading ahead, the network, and drawing behind it, each in its thread."""

    def __init__(
        self,
        command: PredictCommand,
        estimator: PoseEstimator,
        boxes: BoxesFromFile | None,
        pictures: list[Picture],
        problems: int,
    ) -> None:
        self.command = command
        self.output = command.output
        self.estimator = estimator
        self.boxes = boxes
        self.pictures = pictures
        self.problems = problems
        self.rows: list[dict[str, Any]] = []
        self.empty: list[Path] = []

    def run(self) -> int:
        start, done = time.perf_counter(), 0
        requests = (request for request in in_order(self._read, self.pictures) if request)
        try:
            with closing(in_order(self._draw, self.estimator.stream(requests))) as drawn:
                for done, _ in enumerate(drawn, start=1):
                    if sys.stderr.isatty():
                        print(f"{done} of {len(self.pictures)} pictures", end="\r", file=sys.stderr)
        finally:  # also after Ctrl-C or a full disk: what is drawn is in the JSON as well
            write_json(self.output / "keypoints.json", self.rows)
        seconds = time.perf_counter() - start
        print(
            f"{done} of {len(self.pictures)} pictures, {len(self.rows)} poses, {seconds:.1f} s "
            f"({done / seconds:.1f} pictures/s): {self.output / '*.png'}, {self.output / 'keypoints.json'}"
        )
        if self.empty:
            say(f"no person found in {len(self.empty)} of {done} pictures, {self.empty[0]} first")
        if self.problems:
            say(f"{self.problems} problem{'s' * (self.problems > 1)}, listed above; the rest is done")
        return 1 if self.problems else 0

    def _read(self, picture: Picture) -> Request | None:
        """The picture and its persons; None, and a message, where it cannot be read."""
        from diffusionpose.data.images import read_image
        from diffusionpose.inference.detectors import usable_boxes
        from diffusionpose.inference.estimator import Request

        try:
            image = read_image(picture.path)
        except InputError as error:
            self._report(str(error))
            return None
        found, scores = self.boxes.of(picture.path) if self.boxes else self.estimator.detector(image)
        found, kept, problems = usable_boxes(found, image.shape[1], image.shape[0])
        for problem in problems:
            self._report(f"{picture.path}: {problem}" + (f" in {self.boxes.path}" if self.boxes else ""))
        return Request(image, found, scores[kept], source=picture)

    def _draw(self, answer: tuple[Request, list[Pose]]) -> None:
        """Write the drawing of one picture, and note its entries for the JSON."""
        import cv2

        from diffusionpose.inference.drawing import draw_poses

        request, poses = answer
        picture: Picture = request.source
        if not poses and not self.boxes:
            self.empty.append(picture.path)
        command = self.command
        sure = [p for p, score in zip(poses, request.scores, strict=True) if score >= command.box_score]
        written = command.draw_boxes
        drawn = draw_poses(request.image, sure, boxes=written, scores=written, names=command.draw_names)
        write_file(self.output / picture.drawn, cv2.imencode(".png", drawn[:, :, ::-1])[1].tobytes())
        names = {"file_name": picture.file_name, "drawn": picture.drawn}
        self.rows += [
            {**pose.to_coco_result(picture.image_id), "box": [round(float(x), 2) for x in pose.box], **names}
            for pose in poses
        ]

    def _report(self, problem: str) -> None:
        self.problems += 1
        say(problem)


def in_order(work: Callable[[In], Out], items: Iterable[In], ahead: int = AHEAD) -> Generator[Out]:
    """``map(work, items)`` in a thread, at most ``ahead`` items before they are asked for."""
    pending: deque[Future[Out]] = deque()
    with ThreadPoolExecutor(max_workers=1) as thread:
        for item in items:
            pending.append(thread.submit(work, item))
            if len(pending) > ahead:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


def _check_boxes(boxes: BoxesFromFile, pictures: list[Picture]) -> None:
    """Tell of pictures without boxes.

    Raises:
        InputError: no picture has boxes, or two pictures have the same ones.
    """
    owners: dict[str, Path] = {}
    without = []
    for picture in pictures:
        key = boxes.key(picture.path)
        if key is None:
            without.append(picture.path)
        elif key in owners:
            raise InputError(
                f"{boxes.path}: its entry {key!r} fits both {owners[key]} and {picture.path}; "
                "name pictures there by folder and name"
            )
        else:
            owners[key] = picture.path
    if pictures and not owners:
        raise InputError(
            f"{boxes.path}: knows none of the pictures given; do its names or image ids fit them?"
        )
    if without:
        say(f"{boxes.path} has no boxes for {len(without)} of {len(pictures)} pictures, {without[0]} first")
