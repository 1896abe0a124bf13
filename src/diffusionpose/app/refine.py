"""``diffusionpose refine``: poses of another model, or rough clicks, as the start of the reverse process."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import tyro

from diffusionpose.app.options import (
    BatchSize,
    Decode,
    Device,
    Flip,
    Output,
    Weights,
    make_folder,
    say,
    show_progress,
    write_json,
)
from diffusionpose.errors import InputError

if TYPE_CHECKING:
    from diffusionpose.data.boxes import GivenPose, PictureFinder
    from diffusionpose.poses import Pose
    from diffusionpose.runtime.estimator import PoseEstimator, Request

ANNOTATIONS = (
    "COCO annotation file that tells the file name of each image_id. Without it: the entries' own file_name, "
    "else the picture whose name ends in the number."
)


@dataclass(frozen=True)
class RefineCommand:
    """Refine poses that another model or a hand has made.

    RESULTS is a COCO results list: [{"image_id": 785, "keypoints": [x, y, score, ...]}, ...], with as many
    joints as the model, in its order. Joints with a score (or visibility) of 0 are not given: the model
    looks for them by itself. The person is looked for in the entry's box (x0, y0, x1, y1), else its
    bbox (x, y, width, height), else the extent of its given joints and 10 % of that on every side.

    Writes OUTPUT/keypoints.json: the same list, its order and ids, with the refined keypoints, the
    score (the old one times the mean of the joints' new scores above 0.2), file_name and box (x0, y0,
    x1, y1). Entries that cannot be used are reported and left out, the others are done, and the exit
    status is 1. docs/refine.md tells when it helps.
    """

    results: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="RESULTS.json")]]
    """Poses to refine."""
    images: Annotated[Path, tyro.conf.arg(metavar="DIR")]
    """Folder of the pictures."""
    output: Output
    annotations: Annotated[
        Path | None, tyro.conf.arg(metavar="FILE", help=ANNOTATIONS, help_behavior_hint="")
    ] = None
    weights: Weights = None
    steps: Annotated[int | None, tyro.conf.arg(metavar="N", help_behavior_hint="(default: 1)")] = None
    """Diffusion steps, 1 or more."""
    decode: Decode = "dark"
    flip: Flip = True
    device: Device = "auto"
    batch_size: BatchSize = None

    def run(self) -> int:
        """Refine and write; 0 if every entry could be used."""
        if self.steps == 0:
            raise InputError("--steps 0: would leave the poses as they are; take 1 or more")
        make_folder(self.output)
        output = self.output / "keypoints.json"
        if output.resolve() in {path.resolve() for path in (self.results, self.annotations) if path}:
            raise InputError(f"{output}: would be overwritten by the result; name another --output")
        from diffusionpose.data.boxes import PictureFinder, read_given_poses, read_listed_pictures
        from diffusionpose.runtime.estimator import PoseEstimator

        listed = read_listed_pictures(self.annotations) if self.annotations else None
        finder = PictureFinder(self.images, listed)
        estimator = PoseEstimator.from_pretrained(
            self.weights,
            self.device,
            steps=self.steps,
            decode=self.decode,
            flip=self.flip,
            batch_size=self.batch_size,
        )
        estimator.network.check(start=True)
        poses, problems = read_given_poses(self.results, estimator.skeleton.num_joints)
        return _Job(estimator, finder, poses, problems).run(output)


class _Job:
    """One run over the poses, picture by picture."""

    def __init__(
        self,
        estimator: PoseEstimator,
        finder: PictureFinder,
        poses: list[GivenPose],
        problems: list[str],
    ) -> None:
        self.estimator = estimator
        self.finder = finder
        self.poses = poses
        self.rows: dict[int, dict[str, Any]] = {}  # by index of the entry
        self.problems = 0
        for problem in problems:
            self._report(problem)

    def run(self, output: Path) -> int:
        began, pictures = time.perf_counter(), self._by_picture()
        try:
            for request, poses in self.estimator.stream(self._requests(pictures)):
                self._note(request, poses)
                if sys.stderr.isatty():
                    show_progress(len(self.rows), len(self.poses), "poses")
        finally:  # also after Ctrl-C: what is refined is in the JSON
            write_json(output, [self.rows[index] for index in sorted(self.rows)])
        print(f"{len(self.rows)} poses refined, {time.perf_counter() - began:.1f} s: {output}")
        if self.problems:
            say(f"{self.problems} problem{'s' * (self.problems > 1)}, listed above; the rest is done")
        return 1 if self.problems else 0

    def _requests(self, pictures: dict[Path, list[GivenPose]]) -> Iterator[Request]:
        """Each picture with the entries that are of it; a message for what cannot be used."""
        from diffusionpose.runtime.boxes import usable_boxes
        from diffusionpose.runtime.estimator import Request

        for path, poses in pictures.items():
            try:
                image = self.finder.image(path)
            except InputError as error:
                self._report(f"{error} ({len(poses)} poses)")
                continue
            every = np.stack([pose.box for pose in poses])
            boxes, kept, problems = usable_boxes(every, image.shape[1], image.shape[0])
            for pose, problem in zip(
                [p for i, p in enumerate(poses) if i not in kept], problems, strict=True
            ):
                self._report(f"{path}: entry {pose.index}: {problem}")
            used = [poses[index] for index in kept]
            scores = np.array([pose.score for pose in used], np.float32)
            start = np.stack([pose.triplets for pose in used]) if used else None
            yield Request(image, boxes, scores, source=(path, used), start=start)

    def _by_picture(self) -> dict[Path, list[GivenPose]]:
        """The entries of each picture that is there."""
        pictures: dict[Path, list[GivenPose]] = {}
        missing: dict[str, int] = {}
        for pose in self.poses:
            try:
                pictures.setdefault(self.finder.path(pose.entry), []).append(pose)
            except InputError as error:
                missing[str(error)] = missing.get(str(error), 0) + 1
        if self.poses and not pictures:
            raise InputError(f"none of the pictures is to be found; the first: {next(iter(missing))}")
        for message, count in missing.items():
            self._report(f"{message} ({count} pose{'s' * (count > 1)})")
        return pictures

    def _note(self, request: Request, poses: list[Pose]) -> None:
        path, used = request.source
        inside = path.is_relative_to(self.finder.folder)
        name = path.relative_to(self.finder.folder) if inside else path
        for given, pose in zip(used, poses, strict=True):
            ids = {key: given.entry[key] for key in ("category_id", "id") if key in given.entry}
            row = {**pose.to_coco_result(given.entry["image_id"]), **ids}
            self.rows[given.index] = {**row, "box": pose.rounded_box, "file_name": name.as_posix()}

    def _report(self, problem: str) -> None:
        self.problems += 1
        say(problem)
