"""One run over pictures: what is left of it goes to an engine, and every answer to the disk at once."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tqdm import tqdm

from diffusionpose.app.output import say, write_by, write_file, write_json_list
from diffusionpose.app.picture_journal import JOURNAL, PicturesDone, stamp
from diffusionpose.app.pictures import Picture

if TYPE_CHECKING:
    from diffusionpose.inference.detectors import BoxesFromFile
    from diffusionpose.inference.engine import Answer, Engine, PictureTask
    from diffusionpose.inference.requests import Request
    from diffusionpose.poses import Pose

BAR = "{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} pictures, {rate_noinv_fmt}, {remaining} left"


class Turn(NamedTuple):
    """A picture whose turn it is: its number in the job, and its size and time of change before reading."""

    number: int
    picture: Picture
    stamp: list[int] | None


@dataclass(frozen=True)
class DrawPicture:
    """Writes FOLDER/<stem>.png, the picture with its poses, wherever the picture was read.

    Attributes:
        folder: of the drawings.
        box_score: of persons whose box has a lower score, poses go into keypoints.json only.
        boxes: draw the person boxes, and write the scores of the poses.
        names: write the names of the joints.
    """

    folder: Path
    box_score: float
    boxes: bool = False
    names: bool = False

    def __call__(self, request: Request, poses: list[Pose]) -> None:
        """Draw one picture.

        Raises:
            InputError: it cannot be written, as on a full disk.
        """
        import cv2

        from diffusionpose.inference.drawing import draw_poses

        sure = [p for p, score in zip(poses, request.scores, strict=True) if score >= self.box_score]
        drawn = draw_poses(request.image, sure, boxes=self.boxes, scores=self.boxes, names=self.names)
        png = cv2.imencode(".png", drawn[:, :, ::-1])[1].tobytes()
        write_file(self.folder / request.source.picture.drawn, png)


class PictureJob:
    """Does the pictures that are not done yet, and writes the results of all.

    Args:
        output: folder of the results.
        done: the pictures, and which are done already.
        boxes: of the persons; None where the detector looks for them.
        joints: names of the joints, for keypoints.csv; None leaves that file out.
        problems: how many there were before any picture was read.
    """

    def __init__(
        self,
        output: Path,
        done: PicturesDone,
        boxes: BoxesFromFile | None,
        joints: Sequence[str] | None,
        problems: int,
    ) -> None:
        self.output, self.done, self.boxes, self.joints = output, done, boxes, joints
        self.pictures = done.pictures
        self.problems, self.failures, self.poses = problems, 0, 0

    def run(self, engine: Engine) -> int:
        """Go on until all is done; 0 if every picture and box could be used."""
        start, before = time.perf_counter(), len(self.done)
        self._report(self.done.problems)
        if before:
            say(f"going on with a run that was stopped: {before} of {len(self.pictures)} pictures are done")
        try:
            with self._bar(before) as bar, closing(engine.run(self._left())) as answers:
                for answer in answers:
                    self._note(answer)
                    bar.update()
        except KeyboardInterrupt:
            done = f"{len(self.done)} of {len(self.pictures)} pictures are done"
            say(f"{done}; the same command goes on from there")
            raise
        finally:  # also after Ctrl-C or a full disk: what is done is in the JSON as well
            self._write()
        if not self.failures:
            self.done.remove()
        self._sum_up(len(self.done) - before, time.perf_counter() - start)
        return 1 if self.problems else 0

    def _bar(self, before: int) -> Any:
        total = len(self.pictures)
        return tqdm(
            total=total,
            initial=before,
            unit=" pictures",
            bar_format=BAR,
            smoothing=0,
            disable=None,
            leave=False,
        )

    def _left(self) -> Iterator[list[PictureTask]]:
        """The groups with pictures that are not done yet."""
        from diffusionpose.inference.engine import PictureTask

        for first in range(0, len(self.pictures), self.done.group):
            numbers = range(first, min(first + self.done.group, len(self.pictures)))
            wanted = [number not in self.done for number in numbers]
            if not any(wanted):
                continue
            group = []
            for number, want in zip(numbers, wanted, strict=True):
                picture = self.pictures[number]
                boxes, scores = self.boxes.of(picture.path) if self.boxes else (None, None)
                turn = Turn(number, picture, stamp(picture.path))
                group.append(PictureTask(picture.path, boxes, scores, turn, want))
            yield group

    def _note(self, answer: Answer) -> None:
        """Bring what became of a picture to the disk."""
        number, picture, before = answer.source
        rows = picture.rows(answer.poses)
        of = f" in {self.boxes.path}" if self.boxes else ""
        problems = [f"{picture.path}: {problem}{of}" for problem in answer.problems]
        self.done.add(
            number, {"stamp": before, "rows": rows, "problems": problems, "failure": answer.failure}
        )
        self.failures += answer.failure is not None
        self._report(problems + ([] if answer.failure is None else [answer.failure]))

    def _report(self, problems: Sequence[str]) -> None:
        self.problems += len(problems)
        for problem in problems:
            tqdm.write(f"diffusionpose: {problem}", file=sys.stderr)  # above the bar, if there is one

    def _write(self) -> None:
        """keypoints.json, and keypoints.csv where it is asked for, row by row."""
        from diffusionpose.data.pose_table import result_rows, write_csv

        self.poses = write_json_list(self.output / "keypoints.json", self.done.rows())
        if (joints := self.joints) is not None:
            rows = result_rows(self.done.rows(), joints)
            write_by(self.output / "keypoints.csv", lambda part: write_csv(part, rows))

    def _sum_up(self, done: int, seconds: float) -> None:
        print(
            f"{len(self.done)} of {len(self.pictures)} pictures, {self.poses} poses, {seconds:.1f} s "
            f"({done / seconds:.1f} pictures/s): {self.output / '*.png'}, {self.output / 'keypoints.json'}"
            + (f", {self.output / 'keypoints.csv'}" if self.joints else "")
        )
        if self.done.empty and not self.boxes:
            first = self.pictures[min(self.done.empty)].path
            say(f"no person found in {len(self.done.empty)} of {len(self.done)} pictures, {first} first")
        if self.problems:
            say(f"{self.problems} problem{'s' * (self.problems > 1)}, listed above; the rest is done")
        if self.failures:
            say(
                "the same command tries the pictures again that could not be read; "
                f"to begin anew, remove {self.output / JOURNAL}"
            )
