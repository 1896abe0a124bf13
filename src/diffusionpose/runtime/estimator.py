"""PoseEstimator: pictures in, poses out.

The one way from a picture to its poses: persons (boxes, or the detector) -> crops -> network -> heatmaps ->
keypoints in image pixels. Evaluation, and with it training, goes the same way.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import groupby
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, overload

import numpy as np

from diffusionpose.errors import InputError
from diffusionpose.geometry import (
    DECODE_METHODS,
    Array,
    Crop,
    Neighbours,
    Start,
    flip_images,
    namespace,
    to_numpy,
)
from diffusionpose.poses import Confidence, Pose, box_around, pose_score
from diffusionpose.runtime.boxes import Boxes, usable_boxes
from diffusionpose.runtime.hypotheses import Hypothesis, check_count, hypotheses
from diffusionpose.runtime.images import ImageLike, as_image, read_image
from diffusionpose.runtime.networks import Network, Steps, TorchNetwork, cpu_threads, load_network
from diffusionpose.runtime.people import (
    AUTO,
    MAX_PERSONS,
    MIN_SCORE,
    PEOPLE,
    WHOLE,
    BundledPeopleFinder,
    FunctionDetector,
    PersonDetector,
    WholeImage,
)
from diffusionpose.skeletons import Skeleton, get_skeleton

if TYPE_CHECKING:
    from diffusionpose.models.pose_model import PoseModel

HELD_BYTES = 500_000_000  # pictures that wait for a full batch take at most about this much memory
TURNS = (90, 180, 270)  # degrees, of the rotation test
# A person is sure where three quarters of the coarse maxima are at least so high; a step would raise them
# about so much, which makes scores of persons with and without a step compare (docs/benchmark.md)
SURE, RAISED = 0.5, 1.08
UNSURE, BETTER = 0.55, 0.05  # mean score of the limbs to look again below, and by how much to be better
GIVEN = "given"  # in the place of joints that are fixed: all that a start gives
AHEAD = 4  # pictures read before, and finished after, their turn in the network
MOST_THREADS = 8  # that read pictures, unless more are asked for

Detector = PersonDetector | Callable[[np.ndarray], Boxes]
In = TypeVar("In")
Out = TypeVar("Out")


# --- crops -> heatmaps ---


class ReverseProcess:
    """Crops, and their heatmaps from any number of starts; the network encodes them once, where it can.

    With ``flip`` the mirror image goes through the network in the same batch, and heatmaps are the mean with
    it. ``images`` (b, 3, H, W) RGB uint8.
    """

    def __init__(
        self,
        network: Network,
        images: Array,
        flip: bool = True,
        neighbours: Neighbours | None = None,
        once: bool = False,
    ) -> None:
        self.network, self.mirror = network, flip and not network.flip_inside
        if self.mirror:
            images = namespace(images).concat([images, flip_images(images)])
            neighbours = neighbours and neighbours.with_mirrored()
        self.among = {"neighbours": neighbours} if network.sees_neighbours else {}
        self.images = images
        self.encoded = network.encode(images) if once else None

    def __call__(self, steps: Steps | None = None, start: Start | None = None) -> list[Array]:
        """Arguments, answer and errors as of :meth:`~diffusionpose.runtime.networks.Network.heatmaps`.

        "auto" steps leave the persons whose coarse heatmaps are sure theirs, with raised maxima.
        """
        network = self.network
        if steps == "auto":
            network.check(steps=steps, start=start is not None)
            if network.encodes_once:
                return self._auto()
            steps = None  # of a model in one piece: its own number
        if self.mirror and start is not None:
            start = start.with_mirrored(network.skeleton.flip_order, network.codec.input_size[0])
        if self.encoded is None:
            maps = network.heatmaps(self.images, steps, start, **self.among)
        else:
            maps = network.reverse(*self.encoded, steps, start)
        return [self._mean(both) for both in maps]

    def _auto(self) -> list[Array]:
        x_fea, coarse = self.encoded or self.network.encode(self.images)
        xp = namespace(coarse)
        mean = self._mean(coarse)
        highest = xp.sort(xp.max(mean, axis=(2, 3)), axis=1)[:, mean.shape[1] // 4]
        unsure, answer = xp.nonzero(highest < SURE)[0], mean * RAISED
        if len(unsure):
            rows = xp.concat([unsure, unsure + len(mean)]) if self.mirror else unsure
            answer[unsure] = self._mean(self.network.reverse(x_fea[rows], coarse[rows])[-1])
        return [mean, answer]

    def _mean(self, maps: Array) -> Array:
        """Heatmaps averaged with those of the mirror images, where there are any."""
        codec, order = self.network.codec, self.network.skeleton.flip_order
        return codec.mean_of_mirrored(maps, order) if self.mirror else maps

    @property
    def features(self) -> tuple[Array, Array]:
        """x_fea and coarse heatmaps of the crops, without mirror images; encoded once."""
        assert self.encoded is not None
        x_fea, coarse = self.encoded
        count = len(coarse) // (1 + self.mirror)
        return x_fea[:count], coarse[:count]


def as_batch(crops: Sequence[np.ndarray]) -> np.ndarray:
    """Crops (h, w, 3) as a network takes them: (b, 3, h, w)."""
    return np.ascontiguousarray(np.stack(crops).transpose(0, 3, 1, 2))


# --- pictures -> poses ---


@dataclass(frozen=True, eq=False)
class Request:
    """A picture and the persons in it whose poses are wanted.

    ``start`` (n, J, 3), the keypoints to start from, are x and y in image pixels and confidence, 0 for a
    joint that is not given; None starts from the model's own coarse heatmaps. ``fixed`` (n, J) bool, given
    joints that stay where they are; None for none.
    """

    image: np.ndarray  # (H, W, 3) uint8 RGB
    boxes: np.ndarray  # (n, 4) float32 xyxy, image pixels, each with an area inside the picture
    scores: np.ndarray  # (n,) of the boxes
    source: Any = None  # whatever the caller needs to know the picture by
    start: np.ndarray | None = None
    fixed: np.ndarray | None = None


Someone = tuple[Request, int]  # a person: which of a request's


@dataclass(frozen=True, eq=False)
class _Look:
    """What one pass of b persons through the network found."""

    boxes: np.ndarray  # (b, 4)
    sizes: np.ndarray  # (b, 2) width and height of their pictures
    crops: Crop
    start: Start | None  # in image pixels
    process: ReverseProcess
    maps: list[Array]  # of every step
    # of the last step, or of all: keypoints (b, j, 2) in image pixels and scores (b, j)
    decoded: list[tuple[np.ndarray, np.ndarray]]


class PoseEstimator:
    """Finds the poses of the persons in pictures.

    Persons of several pictures go through the network together, ``batch_size`` at a time; the
    answer does not depend on it. A network that sees neighbours gets all persons of a picture at once.

    Args:
        network: from ``load_network``, or a PoseModel, which is put on ``device``.
        device: "auto" (a GPU where there is one), "cpu", "cuda:1", "mps", ...; of the model and of the
            detector. None leaves a PoseModel where it is.
        detector: finds the persons of pictures that come without boxes: a callable (H, W, 3) uint8 RGB ->
            boxes (n, 4) xyxy and scores (n,), or a name that ``make_detector`` knows ("people", "whole",
            "dfine", ...).
        steps: diffusion steps; None for the network's own number, 0 for its coarse heatmaps, "auto" for
            these where they are sure.
        decode: how heatmaps become coordinates: "argmax", "quarter" or "dark".
        flip: average with the mirrored picture.
        rotation_test: look at persons whose limbs are unsure turned by 90, 180 and 270 degrees as well, and
            keep the surest pose; for gymnasts and divers, not for everyday pictures. Not with a start.
        hypotheses: so many poses at most for each person: the answer, and others in its ``alternatives``
            (docs/hypotheses.md). Of a diffusion model; not with the rotation test.
        batch_size: persons per pass through the network; None for a number that suits the device.
        skeleton: the joints that poses shall have, all of them joints of the network: "coco" of a network
            with COCO's and CrowdPose's; None for all.

    Raises:
        InputError: a device that is not there, an unknown decoder, a number below 1, joints that the network
            does not have, options that it cannot take, or a detector that cannot be had.
    """

    def __init__(  # noqa: PLR0913  # options of the user, by their names
        self,
        network: Network | PoseModel,
        *,
        device: str | None = "auto",
        detector: Detector | str = AUTO,
        steps: Steps | None = None,
        decode: str = "dark",
        flip: bool = True,
        rotation_test: bool = False,
        hypotheses: int = 1,
        batch_size: int | None = None,
        skeleton: str | Path | Skeleton | None = None,
    ) -> None:
        if decode not in DECODE_METHODS:
            raise InputError(f"decode: {decode!r} is not one of {', '.join(DECODE_METHODS)}")
        if batch_size is not None and not (isinstance(batch_size, Integral) and batch_size >= 1):
            raise InputError(f"batch size: {batch_size} must be a whole number, 1 or more")
        self.network = network if isinstance(network, Network) else TorchNetwork(network, device)
        check_count(hypotheses)
        if hypotheses > 1 and (rotation_test or steps == 0):
            what = "the rotation test: leave one out" if rotation_test else "0 steps: take 1 or more"
            raise InputError(f"hypotheses: {hypotheses} cannot be had with {what}")
        self.network.check(flip, steps, hypotheses=hypotheses)
        self.skeleton = self.network.skeleton if skeleton is None else get_skeleton(skeleton)
        own = self.network.skeleton.joints
        if missing := [joint for joint in self.skeleton.joints if joint not in own]:
            raise InputError(
                f"{self.network.name}: has no {', '.join(missing)} of skeleton {self.skeleton.name!r}, "
                f"but {', '.join(own)}"
            )
        self._joints = [own.index(joint) for joint in self.skeleton.joints]
        self._detector: PersonDetector | None = None
        if isinstance(detector, PersonDetector):
            self._detector = detector
        elif not isinstance(detector, str):
            self._detector = FunctionDetector(detector)
        elif detector not in (AUTO, PEOPLE):
            self._detector = make_detector(detector, device or "auto")
        self.batch_size = batch_size or self.network.batch_size
        self.decode, self.flip, self.steps = decode, flip, steps
        self.rotation_test, self.hypotheses = rotation_test, hypotheses

    @property
    def detector(self) -> PersonDetector:
        """What finds the persons; the bundled people finder is opened when it is first asked for."""
        if self._detector is None:
            self._detector = make_detector()
        return self._detector

    @classmethod
    def from_pretrained(
        cls, weights: str | Path | None = None, device: str = "auto", **options: Any
    ) -> PoseEstimator:
        """An estimator with trained weights.

        Args:
            weights: as of :func:`~diffusionpose.runtime.networks.load_network`: None for the bundled model,
                else the name of a bundled model, a file or folder, or a hub id; InputError where they are
                missing, damaged or of a kind that is refused.
            device, options: as of the class.
        """
        return cls(load_network(weights, device), device=device, **options)

    @overload
    def __call__(  # type: ignore[overload-overlap]  # a str is a sequence of str, too
        self, images: ImageLike, boxes: Any = None, start: Any = None, fixed: Sequence[str] = ()
    ) -> list[Pose]: ...

    @overload
    def __call__(
        self,
        images: Sequence[ImageLike],
        boxes: Sequence[Any] | None = None,
        start: Sequence[Any] | None = None,
        fixed: Sequence[str] = (),
    ) -> list[list[Pose]]: ...

    def __call__(
        self, images: Any, boxes: Any = None, start: Any = None, fixed: Sequence[str] = ()
    ) -> list[Pose] | list[list[Pose]]:
        """Poses of one picture, or of each picture of a list.

        Args:
            images: a file, the bytes of one, a PIL image, an array (H, W, 3) uint8 RGB, a uint8 tensor, or a
                list of these.
            boxes: the persons, (n, 4) xyxy in image pixels, no box for no person; a box may reach
                over the edge. For a list of pictures a list with one entry for each, None where the
                detector shall look.
            start: poses that a diffusion model starts from in the place of its own coarse heatmaps: one
                for each box, as ``Pose`` or as (n, J, 3) x, y and score, the score 0 for a joint that is
                not given. Without ``boxes`` they bring their own: a ``Pose`` its box, an array
                that of ``box_around``. For a list of pictures a list with one entry for each, or None.
            fixed: joints, by name, that stay exactly where ``start`` has them while the others follow;
                ``["given"]`` for all that are given. A joint that a person's start does not give is free.

        Returns:
            One pose for each box, in their order, for one picture; for a list of pictures a list of
            such lists. No pose where nobody is.

        Raises:
            InputError: a picture that cannot be read, a box outside of it, without area or not of four
                finite numbers, a start that does not fit the boxes or the network, or a fixed joint that is
                unknown or outside of the picture.
        """
        if isinstance(images, ImageLike) or hasattr(images, "detach") or not isinstance(images, Iterable):
            boxes, start = (None if given is None else [given] for given in (boxes, start))
            return self([images], boxes, start, fixed)[0]
        images = list(images)
        if start is not None:
            self.network.check(start=True)
        elif len(fixed):
            raise InputError("fixed: there is no start that says where these joints are; give one")
        each: dict[str, Any] = {}
        for name, given in (("boxes", boxes), ("start", start)):
            each[name] = [None] * len(images) if given is None else given
            if len(each[name]) != len(images):
                raise InputError(
                    f"{len(images)} pictures but {name} for {len(given)}; give one entry a picture"
                )
        requests = self._requests(images, each["boxes"], each["start"], fixed)
        return [poses for _, poses in self.stream(requests)]

    def stream(self, requests: Iterable[Request]) -> Iterator[tuple[Request, list[Pose]]]:
        """Each request with its poses, one for each box, in order, in full batches and bounded memory.

        ``requests`` may be a generator; it is asked for the next picture only when there is room.
        """
        for request, found in self.outcomes(requests):
            poses = []
            for pose in found:
                if isinstance(pose, InputError):
                    raise pose
                poses.append(pose)
            yield request, poses

    def outcomes(self, requests: Iterable[Request]) -> Iterator[tuple[Request, list[Pose | InputError]]]:
        """As :meth:`stream`, where a person who cannot be estimated costs no other one.

        The error (the network cannot run so, or heatmaps are not finite) is in the place of the pose.
        """
        waiting: deque[tuple[Request, list[Pose | InputError]]] = deque()
        persons: deque[tuple[Request, int, list[Pose | InputError]]] = deque()

        def estimate() -> None:
            """A batch; of a network that sees neighbours it is larger, not to part those of a picture."""
            batch = [persons.popleft() for _ in range(min(self.batch_size, len(persons)))]
            while self.network.sees_neighbours and persons and persons[0][0] is batch[-1][0]:
                batch.append(persons.popleft())
            answers = self._attempt([(request, index) for request, index, _ in batch])
            for (_, _, found), answer in zip(batch, answers, strict=True):
                found.append(answer)

        for request in requests:
            found: list[Pose | InputError] = []
            waiting.append((request, found))
            persons.extend((request, index, found) for index in range(len(request.boxes)))
            held = sum(request.image.nbytes for request, _ in waiting)
            while len(persons) >= self.batch_size or (persons and held > HELD_BYTES):
                estimate()
            while waiting and len(waiting[0][1]) == len(waiting[0][0].boxes):
                yield waiting.popleft()
        while persons:
            estimate()
        yield from waiting

    def _attempt(self, persons: Sequence[Someone]) -> list[Pose | InputError]:
        """The poses of a batch; where it fails those of its pictures, and of its persons, alone."""
        try:
            return [*self._estimate(persons)]
        except InputError as error:
            if len(persons) == 1:
                return [error]
        parts = [list(part) for _, part in groupby(persons, key=lambda person: id(person[0]))]
        parts = parts if len(parts) > 1 else [[person] for person in persons]
        return [pose for part in parts for pose in self._attempt(part)]

    def _estimate(self, persons: Sequence[Someone]) -> list[Pose]:
        """The poses of a batch; with the rotation test the best of several looks.

        Persons whose limbs are sure in the first look are not looked at again; a further look is kept where
        the mean score of its limbs is clearly higher.
        """
        look = self._look(persons)
        poses = self._answers(persons, look)
        if not self.rotation_test or look.start is not None:
            return poses
        limbs = list(self.skeleton.limb_joints) or slice(None)
        sure = [float(pose.scores[limbs].mean()) for pose in poses]
        rows = [row for row, mean in enumerate(sure) if mean < UNSURE]
        best = {row: sure[row] + BETTER for row in rows}
        for turn in TURNS if rows else ():
            again = [persons[row] for row in rows]
            for row, pose in zip(rows, self._answers(again, self._look(again, turn)), strict=True):
                if (mean := float(pose.scores[limbs].mean())) > best[row]:
                    best[row], poses[row] = mean, pose
        return poses

    def _look(self, persons: Sequence[Someone], turn: int = 0, all_steps: bool = False) -> _Look:
        """One pass of persons, turned by so many degrees, through the network."""
        network, codec, pictures = self.network, self.network.codec, [request for request, _ in persons]
        boxes = np.stack([request.boxes[index] for request, index in persons])
        sizes = np.array([request.image.shape[1::-1] for request in pictures], np.float32)
        crops = Crop.from_boxes(boxes, codec.input_size, unbiased=codec.unbiased, turn=turn)
        images = as_batch([crops.cut(request.image, row) for row, request in enumerate(pictures)])
        _, numbers = np.unique([id(request) for request in pictures], return_inverse=True)
        among = Neighbours(numbers, (boxes / np.tile(sizes, 2)).astype(np.float32))
        start = self._start(persons)
        network.check(self.flip, self.steps, start is not None)
        process = ReverseProcess(network, images, self.flip, among, once=self.hypotheses > 1)
        maps = process(self.steps, start and start.in_crop(crops))
        decoded = []
        for heatmaps in maps if all_steps else maps[-1:]:
            try:
                y, scores = codec.decode(heatmaps, self.decode)
            except InputError as error:
                raise InputError(f"{network.name}: {error}") from error
            points, sure = crops.heatmap_to_image(to_numpy(y), codec.size), to_numpy(scores)
            if start is not None and start.fixed is not None:
                points = np.where(start.fixed[..., None], start.keypoints, points)
                sure = np.where(start.fixed, np.float32(1), sure)
            decoded.append((points, sure))
        return _Look(boxes, sizes, crops, start, process, maps, decoded)

    def _start(self, persons: Sequence[Someone]) -> Start | None:
        """Where a request gives none, the person starts from coarse heatmaps; None where no request does."""
        if all(request.start is None for request, _ in persons):
            return None
        triplets = np.zeros((len(persons), self.network.skeleton.num_joints, 3), np.float32)
        fixed = np.zeros(triplets.shape[:2], bool)
        for row, (request, index) in enumerate(persons):
            if request.start is not None:
                triplets[row, self._joints] = request.start[index]
            if request.fixed is not None:
                fixed[row, self._joints] = request.fixed[index]
        return Start(triplets[..., :2], triplets[..., 2], fixed if fixed.any() else None)

    def _answers(self, persons: Sequence[Someone], look: _Look) -> list[Pose]:
        """The poses of the last step of a look, with their confidence and the other hypotheses."""
        network, (points, scores) = self.network, look.decoded[-1]
        confidences: Sequence[Confidence | None] = [None] * len(persons)
        if network.calibration is not None:
            seen = look.boxes, look.sizes, look.crops, network.codec
            confidences = network.calibration.confidence(look.maps[-1], points, *seen, self._joints)
        several: Sequence[Sequence[Hypothesis]] = [()] * len(persons)
        if self.hypotheses > 1:
            several = hypotheses(
                network, look.process.features, to_numpy(look.process(0)[0]), (points, scores), look.boxes,
                look.crops, self.hypotheses, decode=self.decode,
                steps=None if self.steps == "auto" else self.steps, start=look.start,
            )  # fmt: skip
        poses = []
        for row, (person, confidence, answers) in enumerate(zip(persons, confidences, several, strict=True)):
            pose = replace(self._pose(person, points[row], scores[row]), confidence=confidence)
            if answers:
                others = sorted(answers[1:], key=lambda one: -one.weight)
                found = [
                    replace(self._pose(person, one.keypoints, one.scores), weight=one.weight)
                    for one in others
                ]
                pose = replace(pose, weight=answers[0].weight, alternatives=tuple(found))
            poses.append(pose)
        return poses

    def trace(self, request: Request) -> Iterator[tuple[list[Pose], np.ndarray]]:
        """How the poses in a picture come about, from the coarse heatmaps, or its start, to the answer.

        Yields:
            for each box its poses at all S steps, and the heatmaps (S, J, h, w) that they were read from. The
            last pose, the answer, has the confidence of a calibrated network, and the alternatives.
        """
        persons = [(request, index) for index in range(len(request.boxes))]
        count = len(persons) if self.network.sees_neighbours else self.batch_size
        for first in range(0, len(persons), max(count, 1)):
            part = persons[first : first + count]
            look = self._look(part, all_steps=True)
            maps = [to_numpy(each)[:, self._joints] for each in look.maps]
            for row, (person, answer) in enumerate(zip(part, self._answers(part, look), strict=True)):
                before = [
                    self._pose(person, points[row], scores[row]) for points, scores in look.decoded[:-1]
                ]
                yield [*before, answer], np.stack([each[row] for each in maps])

    def _pose(self, person: Someone, keypoints: np.ndarray, scores: np.ndarray) -> Pose:
        """Of all joints of the network; the pose has those of the skeleton."""
        request, index = person
        keypoints, scores, box_score = keypoints[self._joints], scores[self._joints], request.scores[index]
        return Pose(self.skeleton, keypoints, scores, request.boxes[index], pose_score(box_score, scores))

    def _requests(
        self,
        images: Sequence[ImageLike],
        boxes: Sequence[Any],
        starts: Sequence[Any],
        fixed: Sequence[str],
    ) -> Iterator[Request]:
        """The pictures of a call, read one after the other, with their persons."""
        named = named_joints(fixed, self.skeleton)
        for index, (source, own, given) in enumerate(zip(images, boxes, starts, strict=True)):
            name = str(source) if isinstance(source, (str, Path)) else f"picture {index}"
            start = None if given is None else _read_start(given, self.skeleton, name)
            if own is None and start is not None:
                own = _boxes_of_start(given, start, name)
            image = as_image(source, name)
            found, scores = self.detector(image) if own is None else _as_boxes(name, own)
            usable, _, problems = usable_boxes(found, *image.shape[1::-1])
            if problems:
                raise InputError(f"{name}: {'; '.join(problems)}")
            if start is not None and len(start) != len(usable):
                raise InputError(f"{name}: {len(usable)} boxes, but a start for {len(start)}; give each one")
            stay = None
            if start is not None and len(start) and named.any():
                facts = named, self.skeleton, image.shape[1::-1]
                stay = np.stack(
                    [fixed_joints(one, *facts, f"{name}: person {row}") for row, one in enumerate(start)]
                )
            yield Request(image, usable, scores, start=start, fixed=stay)


def named_joints(names: Sequence[str], skeleton: Skeleton) -> np.ndarray:
    """(J,) bool: joints by their names, all for ``["given"]``; InputError for a name that is none."""
    if list(names) == [GIVEN]:
        return np.ones(skeleton.num_joints, bool)
    unknown = [names] if isinstance(names, str) else [name for name in names if name not in skeleton.joints]
    if unknown:
        raise InputError(
            f"fixed: {unknown[0]!r} is no list of joints, or no joint; give {GIVEN!r} alone, or of "
            f"{', '.join(skeleton.joints)}"
        )
    return np.array([joint in names for joint in skeleton.joints])


def fixed_joints(
    start: np.ndarray, named: np.ndarray, skeleton: Skeleton, size: tuple[int, ...], person: str
) -> np.ndarray:
    """(J,) bool: which joints of a start (J, 3) stay where they are: those that are ``named`` and given.

    ``size`` is (width, height) of the picture; InputError, which calls the start ``person``, where one is
    outside.
    """
    fixed: np.ndarray = (start[:, 2] > 0) & named
    inside = ((start[:, :2] >= -0.5) & (start[:, :2] <= np.array(size) - 0.5)).all(-1)
    for joint in np.flatnonzero(fixed & ~inside)[:1]:
        x, y = start[joint, :2].tolist()
        raise InputError(
            f"{person}: {skeleton.joints[joint]} at ({x:g}, {y:g}) is outside of the picture, {size[0]}x"
            f"{size[1]}, and cannot be fixed; mend it, or give it the score 0"
        )
    return fixed


def make_detector(
    name: str = AUTO,
    device: str = "auto",
    *,
    min_score: float = MIN_SCORE,
    max_persons: int = MAX_PERSONS,
    tell: Callable[[str], None] | None = None,
) -> PersonDetector:
    """The detector that a name stands for.

    Args:
        name: "people" or "auto", the bundled people finder; "whole", each whole picture; or a name, folder
            or hub id that ``load_detector`` of runtime/detectors.py takes (extra ``detect``).
        device: as of :class:`PoseEstimator`.
        min_score: of the box, from which on a person counts as found.
        max_persons: so many at most in a picture, those with the highest scores.
        tell: is told, in words for the user, of a download; None for the log.

    Raises:
        InputError: a name that stands for nothing, or a detector that cannot be had; how it can is said.
    """
    if not 0 <= min_score <= 1:
        raise InputError(f"least score of a person's box (--box-score): {min_score} must be between 0 and 1")
    if max_persons < 1:
        raise InputError(f"persons in a picture: {max_persons} must be 1 or more")
    if name == WHOLE:
        return WholeImage()
    if name in (AUTO, PEOPLE):
        return BundledPeopleFinder(min_score=min_score, max_persons=max_persons)
    from diffusionpose.runtime.detectors import load_detector

    tell = tell or logging.getLogger(__name__).warning
    return load_detector(name, device, tell=tell, min_score=min_score, max_persons=max_persons)


def _as_boxes(name: str, boxes: Any) -> Boxes:
    """Boxes of a caller, each with score 1; InputError where they are none."""
    try:
        boxes = np.asarray(boxes, np.float32)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name}: boxes are not numbers ({error})") from error
    if boxes.size and (boxes.ndim != 2 or boxes.shape[1] != 4):
        raise InputError(f"{name}: boxes of shape {boxes.shape}; give (n, 4): x0, y0, x1, y1 each")
    return boxes.reshape(-1, 4), np.ones(len(boxes), np.float32)


def _read_start(start: Any, skeleton: Skeleton, name: str) -> np.ndarray:
    """The persons of one picture to start from, (n, J, 3) float32 x, y in image pixels and score."""
    joints = skeleton.num_joints
    try:
        persons = [
            np.column_stack([person.keypoints, person.scores]) if isinstance(person, Pose) else person
            for person in start
        ]
        triplets = np.asarray(persons, np.float32).reshape(len(persons), -1 if persons else joints, 3)
        if (count := triplets.shape[1]) != joints:
            what = f"{count} joints a person, but the model has {joints} ({skeleton.name}); give these"
            raise InputError(f"start: {what}")
        Start(triplets[..., :2], triplets[..., 2])
    except InputError as error:
        raise InputError(f"{name}: {error}") from error
    except (TypeError, ValueError) as error:
        raise InputError(f"{name}: start: no list of poses or of x, y, score triplets ({error})") from error
    return triplets


def _boxes_of_start(start: Any, triplets: np.ndarray, name: str) -> np.ndarray:
    """The boxes (n, 4) of persons to start from: a pose's own, else round its given joints."""
    boxes = []
    for index, (person, triplet) in enumerate(zip(start, triplets, strict=True)):
        given = triplet[:, 2] > 0
        if not isinstance(person, Pose) and not given.any():
            raise InputError(f"{name}: start: no joint of person {index} is given, and no box; give one")
        boxes.append(person.box if isinstance(person, Pose) else box_around(triplet[given, :2]))
    return np.reshape(boxes, (-1, 4))


# --- many pictures of files ---


@dataclass(frozen=True, eq=False)
class PictureTask:
    """A picture file to find poses in."""

    path: Path  # of the file
    boxes: np.ndarray | None = None  # (n, 4) xyxy of the persons; None for the detector to look
    scores: np.ndarray | None = None  # (n,) of the boxes
    source: Any = None  # whatever the caller needs to know the picture by; it must pickle
    numbers: Sequence[int] | None = None  # what messages call the boxes; None for 0 to n - 1


@dataclass(frozen=True, eq=False)
class Answer:
    """What became of a picture file."""

    source: Any  # of its task
    poses: list[Pose]  # one for each usable box
    problems: list[str]  # a message for each box that could not be used
    failure: str | None = None  # why the picture could not be read; None where it could


Finish = Callable[[Request, list[Pose]], object]
Group = Sequence[PictureTask]


class Engine(Protocol):
    """Anything that answers for groups of pictures, in any order, and each picture once."""

    def run(self, groups: Iterable[Group]) -> Generator[Answer]:
        """The answers of all tasks that are wanted."""


class LocalEngine:
    """The poses of picture files: reading ahead, the network, and finishing behind it, each in its thread.

    ``finish`` is called with every picture that could be read and its poses, before its answer comes; the
    place to draw it, for one. ``source`` of its request is that of the task. What it raises ends the work; a
    picture that cannot be read does not.
    """

    def __init__(self, estimator: PoseEstimator, finish: Finish | None = None) -> None:
        self.estimator = estimator
        self.finish = finish

    def run(self, groups: Iterable[Group]) -> Generator[Answer]:
        """The answers in the order of the tasks, which are asked for one by one."""
        tasks = (task for group in groups for task in group)
        with (
            closing(in_order(self._read, tasks)) as requests,
            closing(in_order(self._answer, self.estimator.stream(requests))) as answers,
        ):
            yield from answers

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
        boxes, kept, problems = usable_boxes(boxes, image.shape[1], image.shape[0], numbers=task.numbers)
        return Request(image, boxes, scores[kept], source=(task, problems, None))

    def _answer(self, estimated: tuple[Request, list[Pose]]) -> Answer:
        request, poses = estimated
        task, problems, failure = request.source
        if self.finish is not None and failure is None:
            self.finish(replace(request, source=task.source), poses)
        return Answer(task.source, poses, problems, failure)


def in_order(
    work: Callable[[In], Out], items: Iterable[In], ahead: int = AHEAD, threads: int | None = 1
) -> Generator[Out]:
    """``map(work, items)`` in threads (None: one a core, up to ``MOST_THREADS``), each of which is at most
    ``ahead`` items before they are asked for.

    Where it ends early (an error, Ctrl-C, closed), work that has begun is waited for and the rest dropped.
    """
    pending: deque[Future[Out]] = deque()
    count = min(cpu_threads(), MOST_THREADS) if threads is None else max(threads, 1)
    pool = ThreadPoolExecutor(count)
    try:
        for item in items:
            pending.append(pool.submit(work, item))
            if len(pending) > ahead * count:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
