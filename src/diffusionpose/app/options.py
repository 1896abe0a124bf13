"""Options that several commands share."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol

from tqdm import tqdm
from tyro.conf import arg

from diffusionpose import errors as files
from diffusionpose.errors import InputError, atomically, make_writable

Folder = Annotated[Path, arg(metavar="DIR")]
File = Annotated[Path, arg(metavar="FILE")]
Output = Annotated[Path, arg(metavar="DIR", help="Folder for the results; made if it is not there.")]
Weights = Annotated[
    str | None,
    arg(
        metavar="W",
        help="The name of a bundled model, an .onnx or .xml file or an exported folder; or, with PyTorch, a "
        "run folder, a .safetensors file, a hub id.",
        help_behavior_hint="(default: the bundled model)",
    ),
]
Joints = Annotated[
    str | None, arg(metavar="NAME", help_behavior_hint="(default: by the names of its joints)")
]
Steps = Annotated[
    int | None,
    arg(
        metavar="N",
        help="Diffusion steps; 0 leaves the coarse heatmaps.",
        help_behavior_hint="(default: the model's own, mostly 1)",
    ),
]
Decode = Annotated[Literal["argmax", "quarter", "dark"], arg(help="How a heatmap becomes a point.")]
Flip = Annotated[bool, arg(help="Average with the mirrored picture: a little better, twice the time.")]
Device = Annotated[str, arg(help="'auto' (a GPU where there is one), 'cpu', 'cuda:1', 'mps', ...")]
Detector = Annotated[
    str,
    arg(
        metavar="NAME",
        help="Finds the persons: 'people', the bundled people finder (and 'auto' is that); 'whole' takes the "
        "whole picture as one person; with the extra 'detect': 'dfine', 'rtdetr', 'fasterrcnn' or another of "
        "torchvision's, a folder with a detector in the format of transformers, a hub id.",
    ),
]
BoxScore = Annotated[
    float, arg(metavar="S", help="Least score of a person's box, for a detector to count and to be drawn.")
]
BatchSize = Annotated[
    int | None,
    arg(
        metavar="N",
        help="Persons per pass through the network.",
        help_behavior_hint="(default: 8 on a CPU, 64 on a GPU)",
    ),
]


# By what a job knows its inputs again when it goes on where it was stopped

HASHED = 1_000_000  # bytes at either end of a long file


def file_digest(path: Path) -> str:
    """SHA-256 of a file's content.

    Raises:
        InputError: it cannot be read.
    """
    try:
        return files.file_digest(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error


def weights_stamp(weights: str | None) -> list[Any]:
    """By what weights are known again: their name and, where they are files, the size and time of each."""
    if weights is None:
        return []
    path = Path(weights)
    suffixes = (".onnx", ".xml", ".bin", ".safetensors")
    files = sorted(path.iterdir()) if path.is_dir() else [path, path.with_suffix(".bin")]
    stamps = []
    for file in files:
        if file.suffix in suffixes and file.is_file():
            facts = file.stat()
            stamps.append([file.name, facts.st_size, facts.st_mtime_ns])
    return [weights, stamps]


def ends_digest(path: Path) -> dict[str, Any]:
    """By what a file is known again: its size, and a hash of its two ends."""
    size = path.stat().st_size
    with path.open("rb") as file:
        ends = file.read(HASHED)
        file.seek(max(0, size - HASHED))
        ends += file.read()
    return {"size": size, "sha256": hashlib.sha256(ends).hexdigest()}


# Writing what a command leaves behind: whole files or none, and an error that names the cure


def say(message: str) -> None:
    """A message to the user, on stderr."""
    print(f"diffusionpose: {message}", file=sys.stderr)


def show_progress(done: int, total: int, what: str) -> None:
    """``done of total what`` on stderr, over the line before."""
    print(f"{done} of {total} {what}", end="\r" if done < total else "\n", file=sys.stderr, flush=True)


def make_folder(folder: Path) -> None:
    """Make sure that files can be written to a folder, before any long work.

    Raises:
        InputError: it can neither be made nor written to.
    """
    try:
        make_writable(folder)
    except OSError as error:
        raise InputError(
            f"--output {folder}: no folder that can be written to ({error.strerror}); name another"
        ) from error


def write_file(path: Path, content: bytes) -> None:
    """Write a file in one stroke: whoever reads it sees the old one or the new one, never a part.

    Raises:
        InputError: it cannot be written, as on a full disk.
    """
    write_by(path, lambda part: part.write_bytes(content))


def write_by(path: Path, write: Callable[[Path], object]) -> None:
    """As :func:`write_file`, of what ``write`` puts into the file it is given.

    Raises:
        InputError: it cannot be written.
    """
    try:
        atomically(path, write)
    except OSError as error:
        raise InputError(
            f"{path}: cannot be written ({error.strerror}); make room, or name another --output"
        ) from error


def write_json(path: Path, content: Any) -> None:
    """Write JSON in one stroke; a list gets one line for each entry.

    Raises:
        InputError: it cannot be written.
    """
    if isinstance(content, list):
        write_json_list(path, content)
    else:
        write_file(path, (json.dumps(content, indent=2, allow_nan=False) + "\n").encode())


def write_json_list(path: Path, entries: Iterable[Any]) -> int:
    """Write a JSON list, one line for each entry, which are asked for one by one; how many there were.

    Raises:
        InputError: it cannot be written.
    """
    count = 0

    def write(part: Path) -> None:
        nonlocal count
        with part.open("w", encoding="ascii") as file:
            file.write("[\n")
            for count, entry in enumerate(entries, start=1):
                file.write(("" if count == 1 else ",\n") + json.dumps(entry, allow_nan=False))
            file.write("\n]\n")

    write_by(path, write)
    return count


# A detector run over the pictures of a data set, for an evaluation that uses its boxes

if TYPE_CHECKING:
    from diffusionpose.data.annotations import Annotations
    from diffusionpose.runtime.people import PersonDetector

# AP counts the surest persons first, so that many unsure ones cost it nothing but time.
LEAST_SCORE = 0.05


def write_detections(detector: PersonDetector, truth: Annotations, folder: Path, path: Path) -> list[str]:
    """Look for persons in the pictures of a data set, and write them as a COCO detection list.

    Args:
        detector: looks for them.
        truth: lists the pictures; its persons are not looked at.
        folder: that the file names are relative to.
        path: of the file to write.

    Returns:
        a message for each picture that cannot be read.

    Raises:
        InputError: the file cannot be written.
    """
    from diffusionpose.runtime.images import read_recorded_image

    records, size = list(truth.images.values()), detector.batch_size
    entries: list[dict[str, Any]] = []
    failures: list[str] = []
    with tqdm(total=len(records), unit=" pictures", desc="detector", disable=None, file=sys.stderr) as bar:
        for first in range(0, len(records), size):
            read = []
            for record in records[first : first + size]:
                try:
                    image = read_recorded_image(folder / record.file_name, record.width, record.height)
                    read.append((record, image))
                except InputError as error:
                    failures.append(str(error))
            found = detector.detect([image for _, image in read])
            for (record, _), (boxes, scores) in zip(read, found, strict=True):
                for (x0, y0, x1, y1), score in zip(boxes.tolist(), scores.tolist(), strict=True):
                    box = [round(number, 2) for number in (x0, y0, x1 - x0, y1 - y0)]
                    entry = {"image_id": record.id, "category_id": 1, "bbox": box, "score": round(score, 5)}
                    entries.append(entry)
            bar.update(len(records[first : first + size]))
    write_json(path, entries)
    return failures


# What finds the poses of many pictures: an engine in this process, or one over a Ray cluster

if TYPE_CHECKING:
    from diffusionpose.runtime.estimator import Engine, Finish, PoseEstimator
    from diffusionpose.skeletons import Skeleton


@dataclass(frozen=True)
class Ready:
    """An engine that can begin, and what its results depend on.

    Attributes:
        engine: the engine.
        skeleton: of its poses.
        device: "cpu", "cuda", ...
        batch_size: persons per pass through the network.
        detector: which one it is, None where boxes are given.
    """

    engine: Engine
    skeleton: Skeleton
    device: str
    batch_size: int
    detector: str | None


class _PosingCommand(Protocol):
    """What a command that finds poses has: the options of an estimator and of its detector."""

    @property
    def boxes(self) -> Path | None: ...
    @property
    def detector(self) -> str: ...
    @property
    def box_score(self) -> float: ...
    @property
    def weights(self) -> str | None: ...
    @property
    def skeleton(self) -> str | None: ...
    @property
    def steps(self) -> int | None: ...
    @property
    def decode(self) -> Literal["argmax", "quarter", "dark"]: ...
    @property
    def flip(self) -> bool: ...
    @property
    def device(self) -> str: ...
    @property
    def batch_size(self) -> int | None: ...


@dataclass(frozen=True)
class EstimatorOptions:
    """All that an estimator is made of; it travels to other machines, where the estimator is made.

    Attributes:
        weights, device: as of ``PoseEstimator.from_pretrained``.
        options: its others, but the detector.
        detector, box_score: name and least score, as of ``make_detector``; no name where boxes are given.
        same_as: which detector it must turn out to be; None for whatever the name stands for here.
    """

    weights: str | None
    device: str
    options: dict[str, Any]
    detector: str | None = None
    box_score: float = 0.0
    same_as: str | None = None

    @classmethod
    def of(cls, command: _PosingCommand) -> EstimatorOptions:
        """Those of a command; its detector is left out where it is given boxes."""
        options = {
            "steps": command.steps,
            "decode": command.decode,
            "flip": command.flip,
            "batch_size": command.batch_size,
            "skeleton": command.skeleton,
        }
        detector = None if command.boxes else command.detector
        return cls(command.weights, command.device, options, detector, command.box_score)

    def make(self, tell: Callable[[str], None] = lambda message: None) -> PoseEstimator:
        """The estimator; ``tell`` is told which detector is taken.

        Raises:
            InputError: as ``PoseEstimator.from_pretrained`` and ``make_detector``, or another detector.
        """
        from diffusionpose.runtime.estimator import PoseEstimator, make_detector
        from diffusionpose.runtime.networks import load_network

        options, network = dict(self.options), load_network(self.weights, self.device)
        if self.detector is not None:
            detector = make_detector(self.detector, self.device, min_score=self.box_score, tell=tell)
            if self.same_as not in (None, detector.identity()):
                raise InputError(
                    f"--detector {self.detector}: is another one in a worker than here; "
                    "name one whose weights all machines have"
                )
            options["detector"] = detector
        return PoseEstimator(network, device=self.device, **options)


def local_engine(how: EstimatorOptions, finish: Finish) -> Ready:
    """An engine in this process."""
    from diffusionpose.runtime.estimator import LocalEngine

    estimator = how.make(say)
    engine, network = LocalEngine(estimator, finish), estimator.network
    detector = None if how.detector is None else estimator.detector.identity()
    return Ready(engine, estimator.skeleton, network.device, estimator.batch_size, detector)


@contextmanager
def ray_engine(
    how: EstimatorOptions, finish: Finish, workers: int | None, address: str | None
) -> Iterator[Ready]:
    """An engine over the workers of a Ray cluster, or of a Ray started here, for as long as the block lasts.

    Raises:
        InputError: no Ray, no such cluster, more workers than it has cores or GPUs, or a device by number.
    """
    from diffusionpose.runtime.cluster import RayEngine, connected, import_ray
    from diffusionpose.runtime.networks import batch_size_on
    from diffusionpose.runtime.people import SIMPLE

    if workers is not None and workers < 1:
        raise InputError(f"--workers {workers}: must be 1 or more")
    if how.device not in ("auto", "cpu", "cuda"):
        raise InputError(
            f"--device {how.device}: --engine ray takes auto, cpu or cuda, and Ray deals them out"
        )
    import_ray()
    here = replace(how, device="cpu").make(say)  # faults come to light before Ray starts
    detector = None if how.detector is None else here.detector.identity()
    name = how.detector
    if name not in SIMPLE:  # which stand for themselves, whatever files are called so
        name = _anywhere(name)
    how = replace(how, weights=_anywhere(how.weights), detector=name, same_as=detector)
    with connected(address, workers) as cluster:
        device = ("cuda" if cluster.gpus else "cpu") if how.device == "auto" else how.device
        batch_size = how.options.get("batch_size") or batch_size_on(device)
        there = replace(how, device=device, options={**how.options, "batch_size": batch_size})
        make = partial(EstimatorOptions.make, there)
        engine = RayEngine(cluster, make, finish, workers=workers, gpu=device == "cuda")
        yield Ready(engine, here.skeleton, device, batch_size, detector)


def _anywhere(given: str | None) -> str | None:
    """A file or folder by a path that does not depend on where a process works; a name as it is."""
    return os.path.abspath(given) if given and Path(given).exists() else given
