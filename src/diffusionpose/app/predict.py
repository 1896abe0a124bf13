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
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import cv2
from tqdm import tqdm
from tyro.conf import FlagCreatePairsOff, Positional, arg

from diffusionpose.app.options import (
    BOXES_OR_DETECTOR,
    Boxes,
    Output,
    PoseOptions,
    counted,
    make_folder,
    refuse,
    say,
    stamp,
)
from diffusionpose.bundled import DRAWN_PEOPLE, PORTRAIT
from diffusionpose.errors import InputError, write_file
from diffusionpose.journal import Journal
from diffusionpose.json_files import write_json
from diffusionpose.poses import Pose, result_rows, write_csv
from diffusionpose.runtime.boxes import PeopleFile
from diffusionpose.runtime.drawing import draw_poses
from diffusionpose.runtime.estimator import Answer, Engine, LocalEngine, PictureTask, PoseEstimator, Request
from diffusionpose.runtime.images import list_pictures
from diffusionpose.runtime.networks import batch_size_on
from diffusionpose.runtime.people import SIMPLE

EACH_CORE = "(default: one for each GPU, or core where there is none)"
THIS_MACHINE = "(default: a Ray of this machine alone)"
PROGRESS = "progress.jsonl"
RESULTS = ("keypoints.json", "keypoints.csv", PROGRESS)
BAR = "{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} pictures, {rate_noinv_fmt}, {remaining} left"


# --- pictures, and what each is called in the results ---


@dataclass(frozen=True)
class Picture:
    """A picture to find poses in; no two have the same names or number."""

    path: Path
    file_name: str  # what results call it: its name, or its path where another has the same name
    drawn: str  # name of the file that is drawn of it
    image_id: int  # its number in results

    def rows(self, poses: Sequence[Pose]) -> list[dict[str, Any]]:
        """Its poses as keypoints.json has them: COCO results with ``box`` and the names beside."""
        names = {"file_name": self.file_name, "drawn": self.drawn}
        rows = []
        for pose in poses:
            joints = list(pose.skeleton.joints)
            rows.append(
                {**pose.to_coco_result(self.image_id), "box": pose.rounded_box, "joints": joints, **names}
            )
        return rows


def named_pictures(
    files: Sequence[Path], known_id: Callable[[Path], int | None], suffix: str = ".png"
) -> list[Picture]:
    """Picture files with what each is called in the results.

    The drawing of ``a/x.jpg`` is ``x.png``, and that of a second ``b/x.jpg`` is ``x_2.png``. A picture's
    number is the one that ``known_id`` tells; else the one its name ends in (``000000000785.jpg`` is 785);
    else, and where another has it already, the smallest that is free.
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
        stem = file.stem
        if stem.lower() in taken:
            copies = (f"{file.stem}_{number}" for number in count(2))
            stem = next(copy for copy in copies if copy.lower() not in taken | stems)
        taken.add(stem.lower())
        yield f"{stem}{suffix}"


def _numbers(files: Sequence[Path], known_id: Callable[[Path], int | None]) -> list[int]:
    """A different number for each file: known ones first, then those in names, then free ones."""
    digits = [re.search(r"\d+$", file.stem) for file in files]
    named = [int(match.group()) if match else None for match in digits]
    ids: dict[int, int] = {}  # by the index of the file
    for wishes in ([known_id(file) for file in files], named):
        taken = set(ids.values())
        for index, wish in enumerate(wishes):
            if index not in ids and wish is not None and wish not in taken:
                ids[index] = wish
                taken.add(wish)
    free = (number for number in count(1) if number not in taken)
    return [ids[index] if index in ids else next(free) for index in range(len(files))]


def check_boxes(boxes: PeopleFile, pictures: list[Picture]) -> None:
    """Tell of pictures without boxes and boxes without a picture; InputError for none, or a doubtful one."""
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


def draw_picture(
    folder: Path, box_score: float, looks: Mapping[str, Any], request: Request, poses: list[Pose]
) -> None:
    """Write FOLDER/<stem>.png (or .jpg), the picture with its poses, wherever the picture was read.

    Persons whose box has a score below ``box_score`` are left out; ``looks`` are options of ``draw_poses``.
    InputError where it cannot be written, as on a full disk.
    """
    shown = [pose for pose, score in zip(poses, request.scores, strict=True) if score >= box_score]
    drawn = draw_poses(request.image, shown, **looks)
    file = folder / request.source.drawn
    write_file(file, cv2.imencode(file.suffix, drawn[:, :, ::-1])[1].tobytes())


# --- what finds the poses: an engine in this process, or one over a Ray cluster ---


class Ready(NamedTuple):
    """An engine that can begin, an estimator as it uses, and the persons per pass through its network."""

    engine: Engine
    estimator: PoseEstimator
    batch_size: int


@contextmanager
def ready_engine(command: PredictCommand) -> Iterator[Ready]:
    """The engine that a command asks for while the block lasts; InputError where it cannot be had."""
    options, detect = command.options, not command.boxes
    finish = partial(draw_picture, command.output.absolute(), options.box_score, command.looks)
    if command.engine == "local":
        mine = options.make(detect)
        yield Ready(LocalEngine(mine, finish), mine, mine.batch_size)
        return
    from diffusionpose.runtime.cluster import RayEngine, connected, import_ray

    if command.workers is not None and command.workers < 1:
        raise InputError(f"--workers {command.workers}: must be 1 or more")
    if options.device not in ("auto", "cpu", "cuda"):
        raise InputError(
            f"--device {options.device}: --engine ray takes auto, cpu or cuda, and Ray deals them out"
        )
    import_ray()
    mine = replace(options, device="cpu").make(detect)  # faults come to light before Ray starts
    with connected(command.ray_address, command.workers) as cluster:
        device = ("cuda" if cluster.gpus else "cpu") if options.device == "auto" else options.device
        batch_size = options.batch_size or batch_size_on(device)
        there = replace(options, weights=_anywhere(options.weights), device=device, batch_size=batch_size)
        if options.detector not in SIMPLE:  # which stand for themselves, whatever files are called so
            there = replace(there, detector=_anywhere(options.detector))
        make = partial(there.make, detect)
        engine = RayEngine(cluster, make, finish, workers=command.workers, gpu=device == "cuda")
        yield Ready(engine, mine, batch_size)


def _anywhere(given: str | None) -> Any:
    """A file or folder by a path that does not depend on where a process works; a name as it is."""
    return os.path.abspath(given) if given and Path(given).exists() else given


# --- the command ---


@dataclass(frozen=True)
class PictureOptions(PoseOptions):
    """As of PoseOptions, and how many poses a person may have."""

    hypotheses: Annotated[int, arg(metavar="N")] = 1
    """Poses of each person at most: the answer, and in keypoints.json its alternatives with their weights."""

    def identity(self, boxes: Path | None, estimator: PoseEstimator) -> dict[str, Any]:
        """As of PoseOptions."""
        return {**super().identity(boxes, estimator), "hypotheses": self.hypotheses}


@dataclass(frozen=True)
class PredictCommand:
    """Find the poses of the people in pictures.

    Writes OUTPUT/<stem>.png, each picture with its poses drawn (only joints with a score of 0.2 or
    more, only persons whose box has the least score), and OUTPUT/keypoints.json, all of them as
    a COCO results list to which file_name, box (x0, y0, x1, y1) and the names of the joints are added. A
    picture that cannot be used is reported, the others are done, and the exit status is 1.

    A run that is stopped, in whatever way, goes on when the same command is given again:
    OUTPUT/progress.jsonl holds what is done until all is, also of pictures that this run leaves out.

    Person boxes are a JSON file: a COCO detection list [{"image_id" or "file_name", "bbox": [x, y, width,
    height], "score"}, ...], a COCO annotation file, or {"photo.jpg": [[x0, y0, x1, y1], ...], ...}.
    image_id 785 means the picture whose name ends in that number: 000000000785.jpg.
    """

    images: Positional[Annotated[tuple[Path, ...], arg(metavar="IMAGE...", help_behavior_hint="")]]
    """Pictures, folders of pictures, or patterns like 'trip/*/*.jpg'."""
    output: Output
    recursive: FlagCreatePairsOff[bool] = False
    """Take the pictures of sub-folders as well."""
    boxes: Boxes = None
    """Person boxes."""
    format: Literal["png", "jpg"] = "png"
    """Of the drawings."""
    draw_boxes: FlagCreatePairsOff[bool] = False
    """Draw the person boxes, and write the scores of the poses."""
    draw_names: FlagCreatePairsOff[bool] = False
    """Write the names of the joints."""
    draw_regions: FlagCreatePairsOff[bool] = False
    """Draw the ellipses in which the joints lie with 90 %, of a calibrated model."""
    csv: FlagCreatePairsOff[bool] = False
    """Write OUTPUT/keypoints.csv as well: one row for each person and joint."""
    engine: Literal["local", "ray"] = "local"
    """'ray' spreads the pictures over the processes of this machine or a Ray cluster; same results."""
    workers: Annotated[int | None, arg(metavar="N", help_behavior_hint=EACH_CORE)] = None
    """Processes of --engine ray."""
    ray_address: Annotated[str | None, arg(metavar="ADDRESS", help_behavior_hint=THIS_MACHINE)] = None
    """Ray cluster of --engine ray, such as 'auto' or ray://head:10001; its machines share the folders."""
    options: Annotated[PictureOptions, arg(name="")] = field(default_factory=PictureOptions)

    @property
    def looks(self) -> dict[str, bool]:
        """How poses are drawn: options of ``draw_poses``."""
        boxes, names, regions = self.draw_boxes, self.draw_names, self.draw_regions
        return {"boxes": boxes, "scores": boxes, "names": names, "regions": regions}

    def run(self) -> int:
        """Find, draw, write; 0 if every picture and box could be used."""
        for_ray = self.workers is not None or self.ray_address is not None
        refuse(
            (not self.images, "predict: name at least one picture or folder of pictures (--help explains)"),
            (self.boxes and self.options.detector != "auto", BOXES_OR_DETECTOR),
            (self.engine == "local" and for_ray, "predict: --workers and --ray-address go with --engine ray"),
        )
        boxes = None if self.boxes is None else PeopleFile(self.boxes)
        files, problems, remarks = list_pictures(self.images, self.recursive, self.output)
        pictures = named_pictures(files, boxes.image_id if boxes else lambda path: None, f".{self.format}")
        self._check_output(pictures)
        for remark in remarks:
            say(remark)
        if boxes is not None:
            check_boxes(boxes, pictures)
            problems += boxes.problems
        with ready_engine(self) as ready:
            return _Run(self, pictures, boxes, problems, ready).run()

    def _check_output(self, pictures: list[Picture]) -> None:
        """InputError where results could not be written, or would take the place of what they come from."""
        make_folder(self.output)
        folder = Path(os.path.realpath(self.output))
        if folder in [Path(os.path.realpath(path)) for path in self.images if os.path.isdir(path)]:
            raise InputError(
                f"--output {self.output}: is a folder of the pictures, where the drawings would count as "
                "more of them the next time; name another"
            )
        drawings = {folder / picture.drawn for picture in pictures}
        written = drawings | {folder / name for name in RESULTS}
        sources = [picture.path for picture in pictures]
        for source in [*sources, *([self.boxes] if self.boxes else [])]:
            if Path(os.path.realpath(source)) in written:
                raise InputError(f"{source}: would be overwritten by the result; name another --output")
        # beside the pictures somebody's own files may have these names, unless we drew there before
        first = not any((folder / name).exists() for name in RESULTS)
        if first and str(folder) in map(os.path.realpath, {source.parent for source in sources}):
            for file in filter(os.path.exists, sorted(drawings)):
                raise InputError(
                    f"{file}: lies beside the pictures already, and no earlier run has written there; name "
                    "another --output, or remove it"
                )


@dataclass(frozen=True)
class DemoCommand:
    """Find the poses in two pictures that come with the package: a portrait of Grace Hopper, which is in the
    public domain, and three drawn people.

    Uses the bundled networks; needs no download.
    """

    output: Output = Path("output")

    def run(self) -> int:
        """Predict, and say where the pictures and the JSON are; 0 if all went well."""
        pictures = PORTRAIT, DRAWN_PEOPLE
        print(f"diffusionpose predict {' '.join(map(str, pictures))} --output {self.output}")
        status = PredictCommand(pictures, self.output).run()
        if status == 0:
            drawn = (str(self.output / picture.with_suffix(".png").name) for picture in pictures)
            print(f"pictures: {', '.join(drawn)}\nposes:    {self.output / 'keypoints.json'}")
        return status


class _Run:
    """One run: what is not done yet goes to the engine, and every answer to the disk at once.

    OUTPUT/progress.jsonl holds the rows of each picture that is done under a key made of all that decides
    them. So with other settings, or changed, a picture is simply not done yet, and pictures may be added or
    removed.
    """

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
        settings = [command.options.identity(command.boxes, ready.estimator), command.looks]
        self.keys = {picture: _key(picture, settings) for picture in pictures}  # before any is read
        self.journal = Journal(command.output / PROGRESS, {"command": "predict"})
        # key and position of the newest entry for each drawing: with other settings it is another
        self.noted = {
            entry["drawn"]: (entry["key"], position)
            for position, entry in self.journal.positions()
            if "drawn" in entry  # as in those of this version
        }
        self.positions: dict[Picture, int] = {}  # of the entries of pictures that are done
        self.empty: list[Path] = []  # pictures in which nobody was found
        self.problems = self.failures = self.poses = 0
        self._report(problems)

    def run(self) -> int:
        """Go on until all is done; 0 if every picture and box could be used."""
        left = [picture for picture in self.pictures if not self._is_done(picture)]
        began, before, total = time.perf_counter(), len(self.positions), len(self.pictures)
        if before:
            say(f"going on with a run that was stopped: {before} of {total} pictures are done")
        bar = tqdm(total=total, initial=before, bar_format=BAR, smoothing=0, disable=None, leave=False)
        try:
            with bar, closing(self.ready.engine.run(self._tasks(left))) as answers:
                for answer in answers:
                    self._note(answer)
                    bar.update()
        except KeyboardInterrupt:
            say(f"{len(self.positions)} of {total} pictures are done; the same command goes on from there")
            raise
        finally:  # also after Ctrl-C or a full disk: what is done is in the JSON as well
            with closing(self.journal):
                self._write()
                drawn = {picture.drawn for picture in self.pictures}
                if not self.noted or (len(self.positions) == total and self.noted.keys() <= drawn):
                    self.journal.remove()
        self._sum_up(len(self.positions) - before, time.perf_counter() - began)
        return 1 if self.problems else 0

    def _is_done(self, picture: Picture) -> bool:
        """Whether a picture is done and drawn; then it counts as such."""
        key, position = self.noted.get(picture.drawn, ("", 0))
        if key != self.keys[picture] or not (self.output / picture.drawn).exists():
            return False
        (entry,) = self.journal.read([position])
        self._count(picture, position, entry)
        return True

    def _count(self, picture: Picture, position: int, entry: dict[str, Any]) -> None:
        self.positions[picture] = position
        if not entry["rows"]:
            self.empty.append(picture.path)
        self._report(entry["problems"])

    def _tasks(self, pictures: Sequence[Picture]) -> Iterator[list[PictureTask]]:
        """Groups of pictures, as many as fill a batch with one person each."""
        size = self.ready.batch_size
        for first in range(0, len(pictures), size):
            group = []
            for picture in pictures[first : first + size]:
                boxes, scores, numbers = None, None, None
                if self.boxes:
                    boxes, scores = self.boxes.of(picture.path)
                    numbers = [person.index for person in self.boxes.people_of(picture.path)]
                group.append(PictureTask(picture.path, boxes, scores, picture, numbers))
            yield group

    def _note(self, answer: Answer) -> None:
        """Bring what became of a picture to the disk."""
        picture: Picture = answer.source
        of = f" in {self.boxes.path}" if self.boxes else ""
        problems = [f"{picture.path}: {problem}{of}" for problem in answer.problems]
        if answer.failure is None:
            key, rows = self.keys[picture], picture.rows(answer.poses)
            entry = {"key": key, "drawn": picture.drawn, "rows": rows, "problems": problems}
            position = self.journal.append(entry)
            self.noted[picture.drawn] = key, position
            self._count(picture, position, entry)
        else:
            self.failures += 1
            self._report([*problems, answer.failure])

    def _rows(self) -> Iterator[dict[str, Any]]:
        """The entries of keypoints.json, in the order of the pictures, read from the disk one by one."""
        done = [picture for picture in self.pictures if picture in self.positions]
        entries = self.journal.read(self.positions[picture] for picture in done)
        for picture, entry in zip(done, entries, strict=True):
            # as this run names it: pictures may have been added or removed since the entry was made
            names = {"file_name": picture.file_name, "drawn": picture.drawn}
            for row in entry["rows"]:
                yield {**row, "image_id": picture.image_id, **names}

    def _write(self) -> None:
        """keypoints.json, and keypoints.csv where it is asked for, row by row."""
        self.poses = write_json(self.output / "keypoints.json", self._rows())
        if self.command.csv:
            rows = result_rows(self._rows(), self.ready.estimator.skeleton.joints)
            write_file(self.output / "keypoints.csv", lambda part: write_csv(part, rows))

    def _report(self, problems: Sequence[str]) -> None:
        self.problems += len(problems)
        for problem in problems:
            tqdm.write(f"diffusionpose: {problem}", file=sys.stderr)  # above the bar, if there is one

    def _sum_up(self, done: int, seconds: float) -> None:
        files = [f"*.{self.command.format}", "keypoints.json", *(["keypoints.csv"] * self.command.csv)]
        print(
            f"{counted(len(self.positions), 'picture', len(self.pictures))}, {counted(self.poses, 'pose')}, "
            f"{seconds:.1f} s ({done / seconds:.1f} pictures/s): "
            f"{', '.join(str(self.output / file) for file in files)}"
        )
        if self.empty and not self.boxes:
            of = f"{len(self.empty)} of {len(self.positions)} pictures"
            say(f"no person found in {of}, {self.empty[0]} first")
        if self.problems:
            say(f"{counted(self.problems, 'problem')}, listed above; the rest is done")
        if self.failures:
            say(
                "the same command tries the pictures again that could not be read; "
                f"to begin anew, remove {self.output / PROGRESS}"
            )


def _key(picture: Picture, settings: Any) -> str:
    """Of all that decides the result of a picture as it is now."""
    content = json.dumps([settings, stamp(os.path.abspath(picture.path)), picture.drawn])
    return hashlib.sha256(content.encode()).hexdigest()
