"""``diffusionpose predict``: poses in pictures, drawn and as JSON."""

from __future__ import annotations

import hashlib
import os
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import tyro
from tqdm import tqdm
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
    make_folder,
    say,
    write_by,
    write_file,
    write_json_list,
)
from diffusionpose.errors import InputError
from diffusionpose.journal import Journal

if TYPE_CHECKING:
    from diffusionpose.poses import Pose
    from diffusionpose.runtime.boxes import PeopleFile


@dataclass(frozen=True)
class Picture:
    """A picture to find poses in.

    Attributes:
        path: the file.
        file_name: what results call it: its name, or its path where another has the same name.
        drawn: name of the PNG that is drawn of it, unlike every other's.
        image_id: its number in results, unlike every other's.
    """

    path: Path
    file_name: str
    drawn: str
    image_id: int

    def rows(self, poses: Sequence[Pose]) -> list[dict[str, Any]]:
        """Its poses as keypoints.json has them: COCO results, with ``box``, ``file_name`` and ``drawn``."""
        more = {"file_name": self.file_name, "drawn": self.drawn}
        return [{**pose.to_coco_result(self.image_id), "box": pose.rounded_box, **more} for pose in poses]


def find_pictures(
    given: Sequence[Path], known_id: Callable[[Path], int | None]
) -> tuple[list[Picture], list[str]]:
    """The pictures among files and folders, each once.

    Of a folder its pictures are taken, sorted by name, not those of its sub-folders. The drawing of
    ``a/x.jpg`` is ``x.png``, and that of a second ``b/x.jpg`` is ``x_2.png``. A picture's number is
    the one that ``known_id`` tells; else the one its name ends in (``000000000785.jpg`` is 785); else,
    and where another has it already, the smallest that is free.

    Returns:
        the pictures, and a message for every folder that has none.
    """
    from diffusionpose.runtime.images import PICTURE_SUFFIXES

    paths: dict[str, Path] = {}  # by absolute path, so that none comes twice
    problems = []
    for path in given:
        inside = list(_of_folder(path, PICTURE_SUFFIXES)) if path.is_dir() else [path]
        if not inside:
            kinds = " ".join(sorted(PICTURE_SUFFIXES))
            problems.append(f"{path}: no pictures in this folder (looked for {kinds}); name another")
        paths.update((os.path.abspath(file), file) for file in inside)
    files = list(paths.values())
    names = Counter(file.name for file in files)
    ids = _numbers(files, known_id)
    pictures = [
        Picture(file, file.name if names[file.name] == 1 else file.as_posix(), drawn, image_id)
        for file, drawn, image_id in zip(files, _drawn_names(files), ids, strict=True)
    ]
    return pictures, problems


def _of_folder(folder: Path, suffixes: Set[str]) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in suffixes and not path.name.startswith(".") and path.is_file():
            yield path


def _drawn_names(files: Sequence[Path]) -> Iterator[str]:
    """<stem>.png, made different where stems are the same, upper and lower case taken as one."""
    stems = {file.stem.lower() for file in files}
    taken: set[str] = set()
    for file in files:
        stem, copy = file.stem, 1
        while stem.lower() in taken or (copy > 1 and stem.lower() in stems):
            copy += 1
            stem = f"{file.stem}_{copy}"
        taken.add(stem.lower())
        yield f"{stem}.png"


def _numbers(files: Sequence[Path], known_id: Callable[[Path], int | None]) -> list[int]:
    """A different number for each file: known ones first, then those in names, then free ones."""
    known = [known_id(file) for file in files]
    digits = [re.search(r"\d+$", file.stem) for file in files]
    named = [int(match.group()) if match else None for match in digits]
    ids: list[int | None] = [None] * len(files)
    taken: set[int] = set()
    for wishes in (known, named):
        for index, wish in enumerate(wishes):
            if ids[index] is None and wish is not None and wish not in taken:
                ids[index] = wish
                taken.add(wish)
    free = (number for number in range(1, len(files) + len(taken) + 1) if number not in taken)
    return [next(free) if image_id is None else image_id for image_id in ids]


def check_boxes(boxes: PeopleFile, pictures: list[Picture]) -> None:
    """Tell of pictures without boxes, and of boxes without a picture.

    Raises:
        InputError: no picture has boxes, or two pictures have the same ones.
    """
    from diffusionpose.runtime.boxes import told

    owners, without = boxes.match(picture.path for picture in pictures)
    for key, paths in owners.items():
        if len(paths) > 1:
            raise InputError(
                f"{boxes.path}: its entry {key!r} fits both {paths[0]} and {paths[1]}; "
                "name pictures there by folder and name"
            )
    if pictures and not owners:
        raise InputError(
            f"{boxes.path}: knows none of the pictures given; do its names or image ids fit them?"
        )
    if without:
        say(f"{boxes.path} has no boxes for {len(without)} of {len(pictures)} pictures, {without[0]} first")
    others = sum(person.picture not in owners for person in boxes.people)
    if others:
        say(f"{others} of the {len(boxes.people)} boxes of {boxes.path} are of no picture given")
    for note in told(boxes.notes):
        say(note)


# What of a folder run is done already: its journal, by the numbers of the pictures

JOURNAL = "progress.jsonl"
Entry = dict[str, Any]


class PicturesDone:
    """The pictures of a job that are done, kept in OUTPUT/progress.jsonl until all are.

    An entry says of a picture: its number in the job, its size and time of change when it was read, its
    rows for keypoints.json, the problems with its boxes, and why it could not be read. It counts as done
    while the file is unchanged, could be read, and its drawing is there. Where one of a group is not, the
    whole group is done again, for its pictures went through the network together.

    Args:
        output: the folder.
        job: all that decides the results, but the pictures.
        pictures: all of the job, in its order.
        group: how many pictures go through the network together.

    Raises:
        InputError: the journal there is of another job, damaged, or cannot be written.
    """

    def __init__(self, output: Path, job: Mapping[str, Any], pictures: Sequence[Picture], group: int) -> None:
        self.output, self.pictures, self.group = output, pictures, group
        self._journal = Journal(output / JOURNAL, {**job, "pictures": _digest(pictures)})
        self._positions: dict[int, int] = {}
        self.empty: set[int] = set()  # of those, in which nobody was found
        self.problems: list[str] = []
        try:
            for number in sorted(self._find()):
                self._forget(number)
                self._journal.append({"again": number})
        except InputError:
            self._journal.close()
            raise

    def __len__(self) -> int:
        return len(self._positions)

    def __contains__(self, number: int) -> bool:
        return number in self._positions

    def add(self, number: int, entry: Entry) -> None:
        """Note that a picture is done.

        Raises:
            InputError: the disk is full.
        """
        position = self._journal.append({"picture": number, **entry})
        if entry["failure"] is None:
            self._take(number, position, entry)

    def rows(self) -> Iterator[Entry]:
        """The entries for keypoints.json, in the order of the pictures, read from the disk one by one."""
        for entry in self._journal.read(self._positions[number] for number in sorted(self._positions)):
            yield from entry["rows"]

    def remove(self) -> None:
        """Delete the journal: everything asked for is done."""
        self._journal.remove()

    def __enter__(self) -> PicturesDone:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._journal.close()

    def _find(self) -> set[int]:
        """Read what an earlier run left; the numbers of the groups that must be done again."""
        spoilt: dict[int, None] = {}
        problems: dict[int, list[str]] = {}
        try:
            for position, entry in self._journal.positions():
                if "again" in entry:
                    self._forget(entry["again"])
                    continue
                number = entry["picture"]
                if self._holds(number, entry):
                    self._take(number, position, entry)
                    problems[number] = entry["problems"]
                    spoilt.pop(number, None)
                else:
                    spoilt[number] = None
        except (KeyError, IndexError, TypeError) as error:
            raise InputError(f"{self._journal.path}: damaged; remove it to begin again") from error
        groups = {number // self.group for number in spoilt}
        for number in self._positions:
            if number // self.group not in groups:
                self.problems += problems[number]
        return groups

    def _holds(self, number: int, entry: Entry) -> bool:
        picture = self.pictures[number]
        unchanged = entry["failure"] is None and entry["stamp"] == stamp(picture.path)
        return unchanged and (self.output / picture.drawn).exists()

    def _take(self, number: int, position: int, entry: Entry) -> None:
        self._positions[number] = position
        if not entry["rows"]:
            self.empty.add(number)

    def _forget(self, group: int) -> None:
        for number in range(group * self.group, (group + 1) * self.group):
            self._positions.pop(number, None)
            self.empty.discard(number)


def stamp(path: Path) -> list[int] | None:
    """Size in bytes and time of change in nanoseconds of a file; None where there is none."""
    try:
        facts = path.stat()
    except OSError:
        return None
    return [facts.st_size, facts.st_mtime_ns]


def _digest(pictures: Sequence[Picture]) -> str:
    """Of which pictures there are, and what each is called in the results."""
    digest = hashlib.sha256()
    for picture in pictures:
        facts = os.path.abspath(picture.path), picture.file_name, picture.drawn, picture.image_id
        digest.update(repr(facts).encode() + b"\n")
    return digest.hexdigest()


# One run over pictures: what is left of it goes to an engine, and every answer to the disk at once

if TYPE_CHECKING:
    from diffusionpose.poses import Pose
    from diffusionpose.runtime.boxes import PeopleFile
    from diffusionpose.runtime.estimator import Answer, Engine, PictureTask, Request

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

        from diffusionpose.runtime.drawing import draw_poses

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
        boxes: PeopleFile | None,
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
        from diffusionpose.runtime.estimator import PictureTask

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
        from diffusionpose.poses import result_rows, write_csv

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


# ``diffusionpose predict``: poses in pictures, drawn and as JSON

if TYPE_CHECKING:
    from diffusionpose.app.options import Ready
    from diffusionpose.runtime.boxes import PeopleFile

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
        from diffusionpose.runtime.boxes import PeopleFile

        boxes = None if self.boxes is None else PeopleFile(self.boxes)
        pictures, problems = find_pictures(self.images, boxes.image_id if boxes else lambda path: None)
        self._check_output(pictures)
        if boxes is not None:
            check_boxes(boxes, pictures)
            problems += boxes.problems
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
        from diffusionpose.app.options import EstimatorOptions, local_engine, ray_engine

        how = EstimatorOptions.of(self)
        finish = DrawPicture(self.output.absolute(), self.box_score, self.draw_boxes, self.draw_names)
        if self.engine == "local":
            yield local_engine(how, finish)
        else:
            with ray_engine(how, finish, self.workers, self.ray_address) as ready:
                yield ready

    def _job(self, ready: Ready, boxes: PeopleFile | None) -> dict[str, Any]:
        """All that decides the results, but the pictures."""
        from diffusionpose import __version__
        from diffusionpose.app.options import file_digest, weights_digest
        from diffusionpose.models.checkpoints import find_weights

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
