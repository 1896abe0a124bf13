"""``diffusionpose predict``: poses in pictures, drawn and as JSON."""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

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
    Joints,
    Output,
    Steps,
    Weights,
    file_digest,
    make_folder,
    say,
    weights_stamp,
    write_by,
    write_file,
    write_json_list,
)
from diffusionpose.errors import InputError
from diffusionpose.journal import Journal

if TYPE_CHECKING:
    from diffusionpose.app.options import Ready
    from diffusionpose.poses import Pose
    from diffusionpose.runtime.boxes import PeopleFile
    from diffusionpose.runtime.estimator import Answer, PictureTask, Request

BY_DETECTOR = "(default: the detector looks for persons)"
EACH_CORE = "(default: one for each GPU, or core where there is none)"
THIS_MACHINE = "(default: a Ray of this machine alone)"
PROGRESS = "progress.jsonl"
RESULTS = ("keypoints.json", "keypoints.csv", PROGRESS)
BAR = "{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} pictures, {rate_noinv_fmt}, {remaining} left"


# --- pictures, and what each is called in the results ---


@dataclass(frozen=True)
class Picture:
    """A picture to find poses in.

    Attributes:
        path: the file.
        file_name: what results call it: its name, or its path where another has the same name.
        drawn: name of the file that is drawn of it, unlike every other's.
        image_id: its number in results, unlike every other's.
    """

    path: Path
    file_name: str
    drawn: str
    image_id: int

    def rows(self, poses: Sequence[Pose]) -> list[dict[str, Any]]:
        """Its poses as keypoints.json has them: COCO results with ``box`` and the names beside."""
        names = {"file_name": self.file_name, "drawn": self.drawn}
        return [
            {
                **pose.to_coco_result(self.image_id),
                "box": pose.rounded_box,
                "joints": list(pose.skeleton.joints),
                **names,
            }
            for pose in poses
        ]


def named_pictures(
    files: Sequence[Path], known_id: Callable[[Path], int | None], suffix: str = ".png"
) -> list[Picture]:
    """Picture files with what each is called in the results.

    The drawing of ``a/x.jpg`` is ``x.png``, and that of a second ``b/x.jpg`` is ``x_2.png``. A picture's
    number is the one that ``known_id`` tells; else the one its name ends in (``000000000785.jpg`` is 785);
    else, and
    where another has it already, the smallest that is free.
    """
    names = Counter(file.name for file in files)
    facts = zip(files, _drawn_names(files, suffix), _numbers(files, known_id), strict=True)
    return [
        Picture(file, file.name if names[file.name] == 1 else file.as_posix(), drawn, image_id)
        for file, drawn, image_id in facts
    ]


def _drawn_names(files: Sequence[Path], suffix: str) -> Iterator[str]:
    """<stem>.png, made different where stems are the same, upper and lower case taken as one."""
    stems = {file.stem.lower() for file in files}
    taken: set[str] = set()
    for file in files:
        stem, copy = file.stem, 1
        while stem.lower() in taken or (copy > 1 and stem.lower() in stems):
            copy += 1
            stem = f"{file.stem}_{copy}"
        taken.add(stem.lower())
        yield f"{stem}{suffix}"


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


# --- what is done already ---


class Progress:
    """OUTPUT/progress.jsonl: what is done, until all is.

    An entry holds the rows of one picture's poses under a key made of all that decides them: the settings,
    the file with its size and time of change, and the name of its drawing. So other settings, or a changed
    picture, are simply not done yet, and pictures may be added or removed.

    Args:
        output: folder of the results.
        settings: all that decides the results of every picture.

    Raises:
        InputError: another program is at work in the folder, or it cannot be read or written.
    """

    def __init__(self, output: Path, settings: Mapping[str, Any]) -> None:
        self.output = output
        self._settings = json.dumps(settings, sort_keys=True)
        self._journal = Journal(output / PROGRESS, {"command": "predict"})
        self._positions = {entry["key"]: position for position, entry in self._journal.positions()}

    def key(self, picture: Picture) -> str:
        """Of a picture as it is now."""
        try:
            facts = picture.path.stat()
            stamp = (facts.st_size, facts.st_mtime_ns)
        except OSError:
            stamp = (0, 0)
        content = repr((self._settings, os.path.abspath(picture.path), stamp, picture.drawn))
        return hashlib.sha256(content.encode(errors="surrogateescape")).hexdigest()

    def find(self, picture: Picture) -> dict[str, Any] | None:
        """The entry of a picture that is done and drawn."""
        position = self._positions.get(self.key(picture))
        if position is None or not (self.output / picture.drawn).exists():
            return None
        entry: dict[str, Any] = next(iter(self._journal.read([position])))
        return entry

    def add(self, key: str, rows: list[dict[str, Any]], problems: list[str]) -> int:
        """Note that a picture is done; the position of its entry. InputError where the disk is full."""
        self._positions[key] = self._journal.append({"key": key, "rows": rows, "problems": problems})
        return self._positions[key]

    def rows(self, position: int) -> list[dict[str, Any]]:
        """Those of an entry."""
        rows: list[dict[str, Any]] = next(iter(self._journal.read([position])))["rows"]
        return rows

    def position(self, picture: Picture) -> int:
        """Of a picture's entry."""
        return self._positions[self.key(picture)]

    def close(self, finished: bool) -> None:
        """Let go of the file; without one where all is done, or nothing is."""
        if finished or not self._positions:
            self._journal.remove()
        else:
            self._journal.close()


# --- drawing ---


@dataclass(frozen=True)
class DrawPicture:
    """Writes FOLDER/<stem>.png (or .jpg), the picture with its poses, wherever the picture was read.

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
            PictureError: it cannot be stored in this format.
            InputError: it cannot be written, as on a full disk.
        """
        import cv2

        from diffusionpose.runtime.drawing import draw_poses
        from diffusionpose.runtime.estimator import PictureError

        shown = [p for p, score in zip(poses, request.scores, strict=True) if score >= self.box_score]
        drawn = draw_poses(request.image, shown, boxes=self.boxes, scores=self.boxes, names=self.names)
        name = request.source.drawn
        try:
            done, content = cv2.imencode(Path(name).suffix, drawn[:, :, ::-1])
        except cv2.error:
            done = False
        if not done:
            height, width = drawn.shape[:2]
            raise PictureError(
                f"{request.source.path}: {width}x{height} pixels cannot be drawn as {Path(name).suffix}; "
                "scale it down"
            )
        write_file(self.folder / name, content.tobytes())


# --- the command ---


@dataclass(frozen=True)
class PredictCommand:
    """Find the poses of the people in pictures.

    Writes OUTPUT/<stem>.png, each picture with its poses drawn (only joints with a score of 0.2 or
    more, only persons whose box has the least score), and OUTPUT/keypoints.json, all of them as
    a COCO results list to which file_name, box (x0, y0, x1, y1) and the names of the joints are added. A
    picture that cannot be used is reported, the others are done, and the exit status is 1.

    A run that is stopped, in whatever way, goes on when the same command is given again:
    OUTPUT/progress.jsonl holds what is done until all is.

    Person boxes are a JSON file: a COCO detection list [{"image_id" or "file_name", "bbox": [x, y, width,
    height], "score"}, ...], a COCO annotation file, or {"photo.jpg": [[x0, y0, x1, y1], ...], ...}.
    image_id 785 means the picture whose name ends in that number: 000000000785.jpg.
    """

    images: tyro.conf.Positional[
        Annotated[tuple[Path, ...], tyro.conf.arg(metavar="IMAGE...", help_behavior_hint="")]
    ]
    """Pictures, folders of pictures, or patterns like 'trip/*/*.jpg'."""
    output: Output
    recursive: FlagCreatePairsOff[bool] = False
    """Take the pictures of sub-folders as well."""
    boxes: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint=BY_DETECTOR)] = None
    """Person boxes."""
    detector: Detector = "auto"
    box_score: BoxScore = 0.3  # detection files list boxes down to a score of 0
    format: Literal["png", "jpg"] = "png"
    """Of the drawings."""
    draw_boxes: FlagCreatePairsOff[bool] = False
    """Draw the person boxes, and write the scores of the poses."""
    draw_names: FlagCreatePairsOff[bool] = False
    """Write the names of the joints."""
    weights: Weights = None
    skeleton: Joints = None
    """Joints of the poses, where the model has more: coco or crowdpose."""
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
        from diffusionpose.runtime.images import list_pictures

        boxes = None if self.boxes is None else PeopleFile(self.boxes)
        files, problems, remarks = list_pictures(self.images, self.recursive)
        pictures = named_pictures(files, boxes.image_id if boxes else lambda path: None, f".{self.format}")
        self._check_output(pictures)
        for remark in remarks:
            say(remark)
        if boxes is not None:
            check_boxes(boxes, pictures)
            problems += boxes.problems
        with self._engine() as ready:
            return _Run(self, pictures, boxes, problems, ready).run()

    @contextmanager
    def _engine(self) -> Iterator[Ready]:
        """The engine that is asked for, for as long as the block lasts."""
        from diffusionpose.app.options import EstimatorOptions, local_engine, ray_engine

        options = EstimatorOptions.of(self)
        finish = DrawPicture(self.output.absolute(), self.box_score, self.draw_boxes, self.draw_names)
        if self.engine == "local":
            yield local_engine(options, finish)
        else:
            with ray_engine(options, finish, self.workers, self.ray_address) as ready:
                yield ready

    def settings(self, ready: Ready) -> dict[str, Any]:
        """All that decides the results of a picture, but the picture."""
        from diffusionpose import __version__

        names = ("steps", "decode", "flip", "box_score", "draw_boxes", "draw_names")
        return {
            "version": __version__,
            "weights": weights_stamp(self.weights),
            "joints": ready.skeleton.joints,
            "boxes": file_digest(self.boxes) if self.boxes else None,
            "detector": ready.detector,
            **{name: getattr(self, name) for name in names},
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


class _Run:
    """One run: what is not done yet goes to the engine, and every answer to the disk at once."""

    def __init__(
        self,
        command: PredictCommand,
        pictures: list[Picture],
        boxes: PeopleFile | None,
        problems: list[str],
        ready: Ready,
    ) -> None:
        self.command, self.pictures, self.boxes, self.ready = command, pictures, boxes, ready
        self.output = command.output
        self.progress = Progress(command.output, command.settings(ready))
        self.positions: dict[str, int] = {}  # of the entries of pictures that are done, by their file_name
        self.empty: list[Path] = []  # pictures in which nobody was found
        self.problems = self.failures = self.poses = 0
        self._report(problems)

    def run(self) -> int:
        """Go on until all is done; 0 if every picture and box could be used."""
        left, began = self._left(), time.perf_counter()
        before = len(self.positions)
        if before:
            say(f"going on with a run that was stopped: {before} of {len(self.pictures)} pictures are done")
        finished = False
        try:
            with self._bar(before) as bar, closing(self.ready.engine.run(self._tasks(left))) as answers:
                for answer in answers:
                    self._note(answer)
                    bar.update()
            finished = not self.failures
        except KeyboardInterrupt:
            done = f"{len(self.positions)} of {len(self.pictures)} pictures are done"
            say(f"{done}; the same command goes on from there")
            raise
        finally:  # also after Ctrl-C or a full disk: what is done is in the JSON as well
            try:
                self._write()
            finally:
                self.progress.close(finished)
        self._sum_up(len(self.positions) - before, time.perf_counter() - began)
        return 1 if self.problems else 0

    def _left(self) -> list[Picture]:
        """The pictures that are not done yet; the others are noted."""
        left = []
        for picture in self.pictures:
            entry = self.progress.find(picture)
            if entry is None:
                left.append(picture)
            else:
                self._done(picture, self.progress.position(picture), entry["rows"])
                self._report(entry["problems"])
        return left

    def _tasks(self, pictures: Sequence[Picture]) -> Iterator[list[PictureTask]]:
        """Groups of pictures, as many as fill a batch with one person each."""
        from diffusionpose.runtime.estimator import PictureTask

        for first in range(0, len(pictures), self.ready.batch_size):
            group = []
            for picture in pictures[first : first + self.ready.batch_size]:
                boxes, scores = self.boxes.of(picture.path) if self.boxes else (None, None)
                # the key before the picture is read: one that changes meanwhile is not done
                group.append(
                    PictureTask(picture.path, boxes, scores, _Source(picture, self.progress.key(picture)))
                )
            yield group

    def _note(self, answer: Answer) -> None:
        """Bring what became of a picture to the disk."""
        picture, failure = answer.source.picture, answer.failure
        of = f" in {self.boxes.path}" if self.boxes else ""
        problems = [f"{picture.path}: {problem}{of}" for problem in answer.problems]
        if failure is None:
            rows = picture.rows(answer.poses)
            self._done(picture, self.progress.add(answer.source.key, rows, problems), rows)
        else:
            self.failures += 1
        self._report([*problems, *([] if failure is None else [failure])])

    def _done(self, picture: Picture, position: int, rows: Sequence[Any]) -> None:
        self.positions[picture.file_name] = position
        if not rows:
            self.empty.append(picture.path)

    def _rows(self) -> Iterator[dict[str, Any]]:
        """The entries of keypoints.json, in the order of the pictures, read from the disk one by one."""
        for picture in self.pictures:
            if picture.file_name in self.positions:
                # as this run names it: pictures may have been added or removed since the entry was made
                names = {"file_name": picture.file_name, "drawn": picture.drawn}
                for row in self.progress.rows(self.positions[picture.file_name]):
                    yield {**row, "image_id": picture.image_id, **names}

    def _write(self) -> None:
        """keypoints.json, and keypoints.csv where it is asked for, row by row."""
        from diffusionpose.poses import result_rows, write_csv

        self.poses = write_json_list(self.output / "keypoints.json", self._rows())
        if self.command.csv:
            rows = result_rows(self._rows(), self.ready.skeleton.joints)
            write_by(self.output / "keypoints.csv", lambda part: write_csv(part, rows))

    def _bar(self, before: int) -> Any:
        return tqdm(
            total=len(self.pictures),
            initial=before,
            unit=" pictures",
            bar_format=BAR,
            smoothing=0,
            disable=None,
            leave=False,
        )

    def _report(self, problems: Sequence[str]) -> None:
        self.problems += len(problems)
        for problem in problems:
            tqdm.write(f"diffusionpose: {problem}", file=sys.stderr)  # above the bar, if there is one

    def _sum_up(self, done: int, seconds: float) -> None:
        drawn = self.output / f"*.{self.command.format}"
        print(
            f"{_count(len(self.positions), 'picture', len(self.pictures))}, {_count(self.poses, 'pose')}, "
            f"{seconds:.1f} s ({done / seconds:.1f} pictures/s): {drawn}, {self.output / 'keypoints.json'}"
            + (f", {self.output / 'keypoints.csv'}" if self.command.csv else "")
        )
        if self.empty and not self.boxes:
            say(
                f"no person found in {len(self.empty)} of {len(self.positions)} pictures, "
                f"{self.empty[0]} first"
            )
        if self.problems:
            say(f"{_count(self.problems, 'problem')}, listed above; the rest is done")
        if self.failures:
            say(
                "the same command tries the pictures again that could not be read; "
                f"to begin anew, remove {self.output / PROGRESS}"
            )


@dataclass(frozen=True)
class _Source:
    """What a run knows a picture by."""

    picture: Picture
    key: str

    @property
    def path(self) -> Path:
        """Of the file."""
        return self.picture.path

    @property
    def drawn(self) -> str:
        """Name of the drawing."""
        return self.picture.drawn


def _count(number: int, what: str, of: int | None = None) -> str:
    """``3 poses``, ``1 pose``, ``2 of 3 pictures``."""
    total = number if of is None else of
    return f"{number}{'' if of is None else f' of {of}'} {what}{'' if total == 1 else 's'}"
