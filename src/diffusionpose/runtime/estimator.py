"""Poses to start from, as callers of the estimator give them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any, Protocol, TypeVar, overload

import numpy as np
import torch
from PIL import Image

from diffusionpose.errors import InputError
from diffusionpose.geometry import DECODE_METHODS, Crop, Start
from diffusionpose.models.checkpoints import load_model
from diffusionpose.models.pose_model import PoseModel
from diffusionpose.poses import Pose, box_around, pose_score
from diffusionpose.runtime.boxes import Boxes, usable_boxes
from diffusionpose.runtime.images import read_image, to_rgb
from diffusionpose.runtime.networks import good_batch_size, place
from diffusionpose.runtime.people import FunctionDetector, PersonDetector, WholeImage
from diffusionpose.skeletons import Skeleton


def read_start(start: Any, skeleton: Skeleton, name: str) -> np.ndarray:
    """The persons of one picture to start from, (n, J, 3) float32 x, y in image pixels and score.

    Args:
        start: a sequence of :class:`Pose`, or an array (n, J, 3).
        skeleton: the model's.
        name: of the picture, for messages.

    Raises:
        InputError: another number of joints, numbers that are not finite, or negative scores.
    """
    joints = skeleton.num_joints
    try:
        persons = [
            np.column_stack([person.keypoints, person.scores]) if isinstance(person, Pose) else person
            for person in start
        ]
        triplets = np.asarray(persons, np.float32).reshape(len(persons), -1 if persons else joints, 3)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name}: start: no list of poses or of x, y, score triplets ({error})") from error
    if triplets.shape[1] != joints:
        raise InputError(
            f"{name}: start: {triplets.shape[1]} joints a person, but the model has {joints} "
            f"({skeleton.name}); give these"
        )
    try:
        batch_of_starts([(triplets, index) for index in range(len(triplets))])
    except InputError as error:
        raise InputError(f"{name}: {error}") from error
    return triplets


def boxes_of_start(start: Any, triplets: np.ndarray, name: str) -> np.ndarray:
    """The boxes (n, 4) float32 xyxy of persons to start from: a pose's own, else round its given joints.

    Raises:
        InputError: a person of whom no joint is given, and who has no box either.
    """
    boxes = []
    for index, (person, triplet) in enumerate(zip(start, triplets, strict=True)):
        given = triplet[:, 2] > 0
        if not isinstance(person, Pose) and not given.any():
            raise InputError(f"{name}: start: no joint of person {index} is given, and no box; give one")
        boxes.append(person.box if isinstance(person, Pose) else box_around(triplet[given, :2]))
    return np.reshape(boxes, (-1, 4)).astype(np.float32)


def batch_of_starts(persons: Sequence[tuple[np.ndarray | None, int]]) -> Start | None:
    """The start of persons that go through the network together; None where none of them has one.

    Args:
        persons: of each its picture's starts (n, J, 3), or None, and its index among them. One without a
            start has no joint given, and so starts from its coarse heatmaps.
    """
    shape = next((start.shape[1:] for start, _ in persons if start is not None), None)
    if shape is None:
        return None
    rows = [np.zeros(shape, np.float32) if start is None else start[index] for start, index in persons]
    triplets = torch.from_numpy(np.stack(rows))
    return Start(triplets[..., :2], triplets[..., 2])


# What is asked of the estimator: pictures, the persons in them and, where given, the poses to start from

ImageLike = str | Path | Image.Image | np.ndarray


@dataclass(frozen=True, eq=False)
class Request:
    """A picture and the persons in it whose poses are wanted.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        boxes: (n, 4) float32 xyxy, image pixels, each with an area inside the picture.
        scores: (n,) of the boxes.
        source: whatever the caller needs to know the picture by.
        start: (n, J, 3) x and y in image pixels and how sure that is, 0 for a joint that is not given: the
            keypoints to start from; None starts from the model's own coarse heatmaps.
    """

    image: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray
    source: Any = None
    start: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class GivenPicture:
    """A picture of a call: its name in messages, its pixels, its persons (None: to be found), their start."""

    name: str
    pixels: np.ndarray
    persons: Boxes | None
    start: np.ndarray | None

    def request(self, persons: Boxes) -> Request:
        """With its persons; InputError where one cannot be used."""
        usable, _, problems = usable_boxes(persons[0], *self.pixels.shape[1::-1])
        if problems:
            raise InputError(f"{self.name}: {'; '.join(problems)}")
        if self.start is not None and len(self.start) != len(usable):
            raise InputError(
                f"{self.name}: {len(usable)} boxes, but a start for {len(self.start)}; give each one"
            )
        return Request(self.pixels, usable, persons[1], start=self.start)


def given_picture(index: int, image: ImageLike, boxes: Any, start: Any, skeleton: Skeleton) -> GivenPicture:
    """A picture of a call, read, with what the caller knows of its persons.

    Args:
        index: of the picture in the call, for messages.
        image: a file, a PIL image or an array.
        boxes: (n, 4) xyxy, or None.
        start: a pose for each box, or None.
        skeleton: of the poses.

    Raises:
        InputError: a picture that cannot be read, boxes that are none, or a start of another skeleton.
    """
    name = str(image) if isinstance(image, (str, Path)) else f"picture {index}"
    triplets = None if start is None else read_start(start, skeleton, name)
    if boxes is None and triplets is not None:
        boxes = boxes_of_start(start, triplets, name)
    return GivenPicture(name, _pixels(image), None if boxes is None else _as_boxes(name, boxes), triplets)


def _as_boxes(name: str, boxes: Any) -> Boxes:
    """Boxes of a caller, each with score 1; InputError where they are none."""
    try:
        boxes = np.asarray(boxes, np.float32)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name}: boxes are not numbers ({error})") from error
    if boxes.size and (boxes.ndim != 2 or boxes.shape[1] != 4):
        raise InputError(f"{name}: boxes of shape {boxes.shape}; give (n, 4): x0, y0, x1, y1 each")
    return boxes.reshape(-1, 4), np.ones(len(boxes), np.float32)


def _pixels(image: ImageLike) -> np.ndarray:
    """(H, W, 3) uint8 RGB of whatever a caller may give as a picture."""
    if isinstance(image, (str, Path)):
        return read_image(image)
    if isinstance(image, Image.Image):
        return to_rgb(image, "PIL image")
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
        raise InputError(
            f"an array of shape {image.shape} and type {image.dtype} is no picture; give (H, W, 3) uint8 RGB"
        )
    return np.ascontiguousarray(image)


# PoseEstimator: pictures in, poses out

HELD_BYTES = 500_000_000  # pictures that wait for a full batch take at most about this much memory


class PoseEstimator:
    """Finds the poses of the persons in pictures.

    Persons of several pictures go through the network together, ``batch_size`` at a time; the
    answer does not depend on it.

    Args:
        model: any pose model; it is put on ``device`` and into evaluation mode.
        device: "auto" (a GPU where there is one), or as PyTorch names it: "cpu", "cuda:1", "mps".
        detector: finds the persons of pictures that come without boxes: a callable, or a name that
            ``make_detector`` knows ("auto", "zoom", "rtdetr", a folder, ...); None takes each whole picture.
        steps: diffusion steps; None for the model's own number, 0 for its coarse heatmaps.
        decode: how heatmaps become coordinates: "argmax", "quarter" or "dark".
        flip: average with the mirrored picture.
        batch_size: persons per pass through the network; None for a number that suits the device.

    Raises:
        InputError: a device that is not there, an unknown decoder, a number below 1, steps for a model
            that takes none, what an exported file holds otherwise (its steps, its flip test), or a
            detector that cannot be had.
    """

    def __init__(
        self,
        model: PoseModel,
        *,
        device: str = "auto",
        detector: PersonDetector | Callable[[np.ndarray], Boxes] | str | None = None,
        steps: int | None = None,
        decode: str = "dark",
        flip: bool = True,
        batch_size: int | None = None,
    ) -> None:
        if decode not in DECODE_METHODS:
            raise InputError(f"decode: {decode!r} is not one of {', '.join(DECODE_METHODS)}")
        if batch_size is not None and batch_size < 1:
            raise InputError(f"batch size: {batch_size} must be 1 or more")
        model.check_options(flip, steps)
        self.model = place(model, device).eval()
        self.detector = _detector(detector, device, self.model)
        self.batch_size = batch_size or good_batch_size(model)
        self._options: dict[str, Any] = {"decode": decode, "flip": flip} | (
            {} if steps is None else {"steps": steps}
        )

    @classmethod
    def from_pretrained(
        cls, weights: str | Path | None = None, device: str = "auto", **options: Any
    ) -> PoseEstimator:
        """An estimator with trained weights.

        Args:
            weights: None for the bundled model, else a run folder, a .safetensors file, an .onnx or .xml
                file of `diffusionpose export`, the name of a bundled model or a hub id.
            device, options: as of the class.

        Raises:
            InputError: weights that are missing, damaged or of a kind that is refused.
        """
        return cls(load_model(weights), device=device, **options)

    @overload
    def __call__(  # type: ignore[overload-overlap]  # a str is a sequence of str, too
        self, images: ImageLike, boxes: Any = None, start: Any = None
    ) -> list[Pose]: ...

    @overload
    def __call__(
        self,
        images: Sequence[ImageLike],
        boxes: Sequence[Any] | None = None,
        start: Sequence[Any] | None = None,
    ) -> list[list[Pose]]: ...

    def __call__(self, images: Any, boxes: Any = None, start: Any = None) -> list[Pose] | list[list[Pose]]:
        """Poses of one picture, or of each picture of a list.

        Args:
            images: a file, a PIL image, an array (H, W, 3) uint8 RGB, or a list of these.
            boxes: the persons, (n, 4) xyxy in image pixels, no box for no person; a box may reach
                over the edge. For a list of pictures a list with one entry for each, None where the
                detector shall look.
            start: poses that a diffusion model starts from in the place of its own coarse heatmaps: one
                for each box, as ``Pose`` or as (n, J, 3) x, y and score, the score 0 for a joint that is
                not given. Without ``boxes`` they bring their own: a ``Pose`` its box, an array
                that of ``box_around``. For a list of pictures a list with one entry for each, or None.

        Returns:
            One pose for each box, in their order, for one picture; for a list of pictures a list of
            such lists.

        Raises:
            InputError: a picture that cannot be read, a box outside of it, without area or not of four
                finite numbers, or a start that does not fit the boxes or the model.
        """
        if isinstance(images, (str, Path, Image.Image, np.ndarray)):
            return self([images], *(None if given is None else [given] for given in (boxes, start)))[0]
        images = list(images)
        for name, given in (("boxes", boxes), ("start", start)):
            if given is not None and len(given) != len(images):
                raise InputError(
                    f"{len(images)} pictures but {name} for {len(given)}; give one entry a picture"
                )
        if start is not None:
            self.model.check_options(start=True)
        nothing = [None] * len(images)
        requests = self._requests(
            images, nothing if boxes is None else boxes, nothing if start is None else start
        )
        return [poses for _, poses in self.stream(requests)]

    def stream(self, requests: Iterable[Request]) -> Iterator[tuple[Request, list[Pose]]]:
        """The poses of any number of pictures, in order, in full batches and bounded memory.

        Args:
            requests: may be a generator; it is asked for the next picture only when there is room.

        Yields:
            each request with its poses, one for each box.
        """
        waiting: deque[tuple[Request, list[Pose]]] = deque()
        persons: deque[tuple[Request, int, list[Pose]]] = deque()
        for request in requests:
            poses: list[Pose] = []
            waiting.append((request, poses))
            persons.extend((request, index, poses) for index in range(len(request.boxes)))
            held = sum(request.image.nbytes for request, _ in waiting)
            while len(persons) >= self.batch_size or (persons and held > HELD_BYTES):
                self._estimate(persons)
            while waiting and len(waiting[0][1]) == len(waiting[0][0].boxes):
                yield waiting.popleft()
        while persons:
            self._estimate(persons)
        yield from waiting

    def _estimate(self, persons: deque[tuple[Request, int, list[Pose]]]) -> None:
        """One pass through the network: takes a batch of (request, which box, where its pose goes)."""
        batch = [persons.popleft() for _ in range(min(self.batch_size, len(persons)))]
        boxes = torch.from_numpy(np.stack([request.boxes[index] for request, index, _ in batch]))
        crops = Crop.from_boxes(boxes, self.model.input_size, unbiased=self.model.unbiased)
        inputs = np.stack([crops.cut(request.image, i) for i, (request, _, _) in enumerate(batch)])
        images = torch.from_numpy(inputs).permute(0, 3, 1, 2).to(self.model.device)
        keypoints, scores = self.model.estimate(
            images,
            crops.to(self.model.device),
            start=batch_of_starts([(request.start, index) for request, index, _ in batch]),
            **self._options,
        )
        answers = zip(batch, keypoints.float().cpu().numpy(), scores.float().cpu().numpy(), strict=True)
        for (request, index, poses), points, sure in answers:
            score = pose_score(request.scores[index], sure)
            poses.append(Pose(self.model.skeleton, points, sure, request.boxes[index], score))

    def _requests(
        self, images: Sequence[ImageLike], boxes: Sequence[Any], starts: Sequence[Any]
    ) -> Iterator[Request]:
        """The pictures of a call, read, with their persons; the detector gets full batches."""
        size = self.detector.batch_size
        for first in range(0, len(images), size):
            batch = [
                given_picture(index, images[index], boxes[index], starts[index], self.model.skeleton)
                for index in range(first, min(first + size, len(images)))
            ]
            found = iter(self.detector.detect([given.pixels for given in batch if given.persons is None]))
            for given in batch:
                yield given.request(next(found) if given.persons is None else given.persons)


def _detector(
    detector: PersonDetector | Callable[[np.ndarray], Boxes] | str | None, device: str, model: PoseModel
) -> PersonDetector:
    if isinstance(detector, str):
        from diffusionpose.runtime.detectors import make_detector

        return make_detector(detector, device, model=model)
    if detector is None:
        return WholeImage()
    return detector if isinstance(detector, PersonDetector) else FunctionDetector(detector)


# Many pictures: what is asked for, what comes back, and the engine that works in this process

AHEAD = 4  # pictures read before, and finished after, their turn in the network
In = TypeVar("In")
Out = TypeVar("Out")


@dataclass(frozen=True, eq=False)
class PictureTask:
    """A picture to find poses in.

    Attributes:
        path: of the file.
        boxes: (n, 4) xyxy, image pixels, and
        scores: (n,), of the persons; both None where the detector shall look for them.
        source: whatever the caller needs to know the picture by; it must pickle.
        wanted: whether there shall be an answer. A picture whose answer is known already still has to be
            there, so that the others of its group are estimated as they were.
    """

    path: Path
    boxes: np.ndarray | None = None
    scores: np.ndarray | None = None
    source: Any = None
    wanted: bool = True


@dataclass(frozen=True, eq=False)
class Answer:
    """What became of a picture.

    Attributes:
        source: of its task.
        poses: one for each usable box.
        problems: a message for each box that could not be used.
        failure: why the picture could not be read; None where it could.
    """

    source: Any
    poses: list[Pose]
    problems: list[str]
    failure: str | None = None


Group = Sequence[PictureTask]
Finish = Callable[[Request, list[Pose]], object]


class Engine(Protocol):
    """Anything that answers for groups of pictures, in any order, and each picture once."""

    def run(self, groups: Iterable[Group]) -> Generator[Answer]:
        """The answers of all tasks that are wanted.

        Raises:
            InputError: the work cannot go on, as when ``finish`` finds the disk full. A picture that
                cannot be read does not end the work: its answer says so.
        """


class LocalEngine:
    """Works in this process: reading ahead, the network, and finishing behind it, each in its thread.

    Args:
        estimator: finds the poses.
        finish: called with every picture that is wanted and its poses, before its answer comes; the place
            to draw it, for one. ``source`` of the request is that of the task.
    """

    def __init__(self, estimator: PoseEstimator, finish: Finish | None = None) -> None:
        self.estimator = estimator
        self.finish = finish

    def run(self, groups: Iterable[Group]) -> Generator[Answer]:
        """The answers in the order of the tasks; memory holds no more than a group's pictures.

        Raises:
            InputError: what ``finish`` raises.
        """
        with closing(in_order(self._answer, self._estimated(groups))) as answers:
            yield from (answer for answer in answers if answer is not None)

    def _estimated(self, groups: Iterable[Group]) -> Iterator[tuple[Request, list[Pose]]]:
        sizes: deque[int] = deque()

        def tasks() -> Iterator[PictureTask]:
            for group in groups:
                if group:
                    sizes.append(len(group))
                    yield from group

        requests = in_order(self._read, tasks())
        for first in requests:
            rest = islice(requests, sizes.popleft() - 1)
            yield from self.estimator.stream(chain([first], rest))

    def _read(self, task: PictureTask) -> Request:
        """The picture and its persons; nobody in a picture that cannot be read."""
        try:
            image = read_image(task.path)
        except InputError as error:
            nobody = np.zeros((0, 4), np.float32), np.zeros(0, np.float32)
            return Request(np.zeros((0, 0, 3), np.uint8), *nobody, source=(task, [], str(error)))
        if task.boxes is None or task.scores is None:
            boxes, scores = self.estimator.detector(image)
        else:
            boxes, scores = task.boxes, task.scores
        boxes, kept, problems = usable_boxes(boxes, image.shape[1], image.shape[0])
        return Request(image, boxes, scores[kept], source=(task, problems, None))

    def _answer(self, estimated: tuple[Request, list[Pose]]) -> Answer | None:
        request, poses = estimated
        task, problems, failure = request.source
        if not task.wanted:
            return None
        if self.finish is not None and failure is None:
            self.finish(replace(request, source=task.source), poses)
        return Answer(task.source, poses, problems, failure)


def in_order(work: Callable[[In], Out], items: Iterable[In], ahead: int = AHEAD) -> Generator[Out]:
    """``map(work, items)`` in a thread, at most ``ahead`` items before they are asked for.

    Where it ends early (an error, Ctrl-C, closed), work that has begun is waited for and the rest dropped.
    """
    pending: deque[Future[Out]] = deque()
    thread = ThreadPoolExecutor(max_workers=1)
    try:
        for item in items:
            pending.append(thread.submit(work, item))
            if len(pending) > ahead:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        thread.shutdown(cancel_futures=True)
