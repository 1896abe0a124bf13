"""Many pictures: what is asked for, what comes back, and the engine that works in this process.

The last digits of a pose depend on how many persons go through the network together. So pictures are
asked for in groups whose persons share batches with nobody else: an answer is the same, bit for bit,
whether a job runs in one go, goes on after a kill, or is spread over processes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np

from diffusionpose.data.images import read_image
from diffusionpose.errors import InputError
from diffusionpose.inference.detectors import usable_boxes
from diffusionpose.inference.estimator import PoseEstimator
from diffusionpose.inference.requests import Request
from diffusionpose.poses import Pose

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
