"""PoseEstimator: pictures in, poses out.

The one way from a picture to its poses: persons (boxes, or the detector) -> crops -> network -> heatmaps ->
keypoints in image pixels. Evaluation and training go through :func:`keypoints_in_crops` as well.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, overload

import numpy as np

from diffusionpose.errors import InputError
from diffusionpose.geometry import (
    DECODE_METHODS,
    Array,
    Crop,
    HeatmapCodec,
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
from diffusionpose.runtime.networks import Network, Steps, TorchNetwork, load_network
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
TURNS = (0, 90, 180, 270)  # degrees, of the rotation test
UNSURE, BETTER = 0.55, 0.05  # mean score of the limbs to look again below, and by how much to be better
GIVEN = "given"  # in the place of joints that are fixed: all that a start gives
AHEAD = 4  # pictures read before, and finished after, their turn in the network

Detector = PersonDetector | Callable[[np.ndarray], Boxes]
In = TypeVar("In")
Out = TypeVar("Out")


# --- crops -> network -> keypoints ---


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
        """Arguments, answer and errors as of :meth:`~diffusionpose.runtime.networks.Network.heatmaps`."""
        network, order = self.network, self.network.skeleton.flip_order
        if self.mirror and start is not None:
            start = start.with_mirrored(order, network.codec.input_size[0])
        if self.encoded is None:
            maps = network.heatmaps(self.images, steps, start, **self.among)
        else:
            maps = network.reverse(*self.encoded, steps, start)
        return [network.codec.mean_of_mirrored(both, order) for both in maps] if self.mirror else maps

    @property
    def features(self) -> tuple[Array, Array]:
        """x_fea and coarse heatmaps of the crops, without mirror images; encoded once."""
        assert self.encoded is not None
        x_fea, coarse = self.encoded
        count = len(coarse) // (1 + self.mirror)
        return x_fea[:count], coarse[:count]


def heatmap_steps(
    network: Network,
    images: Array,
    *,
    flip: bool = True,
    steps: Steps | None = None,
    start: Start | None = None,
    neighbours: Neighbours | None = None,
) -> list[Array]:
    """Heatmaps of crops, of every diffusion step; with ``flip`` the mean with the mirror image's.

    Arguments, answer and errors as of :meth:`~diffusionpose.runtime.networks.Network.heatmaps`.
    """
    network.check(flip, steps, start is not None)
    return ReverseProcess(network, images, flip, neighbours)(steps, start)


def keypoints_in_crops(
    network: Network,
    images: Array,
    crops: Crop,
    *,
    decode: str = "dark",
    flip: bool = True,
    steps: Steps | None = None,
    start: Start | None = None,
    process: ReverseProcess | None = None,
) -> tuple[np.ndarray, np.ndarray, Array]:
    """Keypoints (b, j, 2) in image pixels and scores (b, j) of the persons in crops, and their heatmaps.

    Args:
        network, flip, steps: as of :func:`heatmap_steps`.
        images: (b, 3, H, W) RGB uint8 crops.
        crops: where they were cut.
        decode: one of ``DECODE_METHODS``.
        start: keypoints to start from, in image pixels; fixed joints are in the answer as they are.
        process: of these crops, where it is another than that of everyone alone.

    Raises:
        InputError: the network cannot run so, or its heatmaps are not finite.
    """
    crops = crops.to_numpy()
    network.check(flip, steps, start is not None)
    if start is not None:
        start = replace(start, keypoints=to_numpy(start.keypoints), scores=to_numpy(start.scores))
    begin = None if start is None else start.in_crop(crops)
    heatmaps = (process or ReverseProcess(network, images, flip))(steps, begin)[-1]
    return *_decoded(network, heatmaps, crops, decode, start), heatmaps


def looks(codec: HeatmapCodec, boxes: np.ndarray, rotation_test: bool = False) -> list[Crop]:
    """The crops of persons; with ``rotation_test`` also those turned by 90, 180 and 270 degrees."""
    turns = TURNS if rotation_test else TURNS[:1]
    return [Crop.from_boxes(boxes, codec.input_size, unbiased=codec.unbiased, turn=turn) for turn in turns]


def as_batch(crops: Sequence[np.ndarray]) -> np.ndarray:
    """Crops (h, w, 3) as a network takes them: (b, 3, h, w)."""
    return np.ascontiguousarray(np.stack(crops).transpose(0, 3, 1, 2))


def keypoints_in_looks(
    network: Network,
    images: Sequence[Array],
    crops: Sequence[Crop],
    boxes: np.ndarray,
    sizes: np.ndarray,
    joints: Sequence[int] | None = None,
    pictures: Sequence[Any] | None = None,
    process: ReverseProcess | None = None,
    **options: Any,
) -> tuple[np.ndarray, np.ndarray, list[Confidence | None]]:
    """Keypoints (b, j, 2) in image pixels and scores (b, j) of the persons, from the best of several looks.

    Persons whose limbs are sure in the first look are not looked at again; a further look is kept where the
    mean score of its limbs is clearly higher.

    Args:
        images, crops: of each look, from :func:`looks`.
        boxes: (b, 4) of the persons.
        sizes: (b, 2) width and height of their pictures, infinite where they are not known.
        joints: those that the confidence is of; None for all.
        pictures: what the picture of each person is known by, for networks that see neighbours.
        process: of the first look, where there is one.
        network, options: as of :func:`keypoints_in_crops`.

    Returns:
        keypoints, scores, and the confidence of each person, None of a network that is not calibrated.
    """

    def look(
        image: Array, crop: Crop, rows: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, list[Confidence | None]]:
        mine = process
        if network.sees_neighbours and pictures is not None:
            _, numbers = np.unique([pictures[row] for row in rows], return_inverse=True)
            among = Neighbours(numbers, (boxes[rows] / np.tile(sizes[rows], 2)).astype(np.float32))
            mine = ReverseProcess(network, image[rows], options.get("flip", True), among)
        points, sure, maps = keypoints_in_crops(network, image[rows], crop[rows], process=mine, **options)
        return points, sure, _confidences(network, maps, points, boxes[rows], sizes[rows], crop[rows], joints)

    keypoints, scores, confidences = look(images[0], crops[0], np.arange(len(boxes)))
    limbs = list(network.skeleton.limb_joints) or slice(None)
    best = scores[:, limbs].mean(axis=1)
    rows = np.flatnonzero(best < UNSURE)
    best += BETTER
    for image, crop in zip(images[1:], crops[1:], strict=True) if len(rows) else ():
        points, sure, others = look(image, crop, rows)
        mean = sure[:, limbs].mean(axis=1)
        higher = mean > best[rows]
        won = rows[higher]
        best[won], keypoints[won], scores[won] = mean[higher], points[higher], sure[higher]
        for row, place in zip(won.tolist(), np.flatnonzero(higher).tolist(), strict=True):
            confidences[row] = others[place]
    return keypoints, scores, confidences


def _confidences(
    network: Network,
    heatmaps: Array,
    keypoints: np.ndarray,
    boxes: np.ndarray,
    sizes: np.ndarray,
    crops: Crop,
    joints: Sequence[int] | None,
) -> list[Confidence | None]:
    """Of the persons in crops, whose arguments are as of :func:`keypoints_in_looks`."""
    if network.calibration is None:
        return [None] * len(boxes)
    seen = (boxes, sizes, crops, network.codec)
    return list(network.calibration.confidence(heatmaps, keypoints, *seen, joints))


def _decoded(
    network: Network, heatmaps: Array, crops: Crop, decode: str, start: Start | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Keypoints (b, j, 2) in image pixels and scores (b, j); InputError where heatmaps are not finite."""
    try:
        y, scores = network.codec.decode(heatmaps, decode)
    except InputError as error:
        raise InputError(f"{network.name}: {error}") from error
    points, sure = crops.heatmap_to_image(to_numpy(y), network.codec.size), to_numpy(scores)
    if start is not None and start.fixed is not None:
        points = np.where(start.fixed[..., None], start.keypoints, points)
        sure = np.where(start.fixed, np.float32(1), sure)
    return points, sure


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


class PoseEstimator:
    """Finds the poses of the persons in pictures.

    Persons of several pictures go through the network together, ``batch_size`` at a time; the
    answer does not depend on it. A network that sees neighbours gets all persons of a picture at once.

    Args:
        network: from ``load_network``, or a PoseModel, which is put on ``device``.
        device: "auto" (a GPU where there is one), "cpu", "cuda:1", "mps", ...; of the model and of the
            detector.
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
        device: str = "auto",
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
        if batch_size is not None and batch_size < 1:
            raise InputError(f"batch size: {batch_size} must be 1 or more")
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
            self._detector = make_detector(detector, device)
        self.batch_size = batch_size or self.network.batch_size
        self._options: dict[str, Any] = {"decode": decode, "flip": flip, "steps": steps}
        self._rotation_test, self._hypotheses = rotation_test, hypotheses

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
        if isinstance(images, ImageLike) or hasattr(images, "detach"):
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
        """One pass through the network: takes a batch of (request, which box, where its pose goes).

        Of a network that sees neighbours it is larger where the persons of a picture would be parted.
        """
        batch = [persons.popleft() for _ in range(min(self.batch_size, len(persons)))]
        while self.network.sees_neighbours and persons and persons[0][0] is batch[-1][0]:
            batch.append(persons.popleft())
        boxes = np.stack([request.boxes[index] for request, index, _ in batch])
        pictures, start = [request.image for request, _, _ in batch], None
        if any(request.start is not None for request, _, _ in batch):
            start = self._start([(request, index) for request, index, _ in batch])
        sizes = np.array([image.shape[1::-1] for image in pictures], np.float32)
        crops = looks(self.network.codec, boxes, self._rotation_test and start is None)
        images = [_cut(look, pictures) for look in crops]
        process = self._process(images[0])
        found = keypoints_in_looks(
            self.network, images, crops, boxes, sizes, self._joints, [id(request) for request, _, _ in batch],
            start=start, process=process, **self._options,
        )  # fmt: skip
        others = self._several(process, *found[:2], boxes, crops[0], start)
        persons_found = zip(batch, *found, others, strict=True)
        for (request, index, poses), points, sure, confidence, more in persons_found:
            pose = self.pose(points, sure, request.boxes[index], request.scores[index])
            poses.append(self._with(replace(pose, confidence=confidence), more, request.scores[index]))

    def _start(self, persons: Sequence[tuple[Request, int]]) -> Start:
        """Of persons of requests; what a request does not give starts from coarse heatmaps."""
        triplets = np.zeros((len(persons), self.network.skeleton.num_joints, 3), np.float32)
        fixed = np.zeros(triplets.shape[:2], bool)
        for row, (request, index) in enumerate(persons):
            if request.start is not None:
                triplets[row, self._joints] = request.start[index]
            if request.fixed is not None:
                fixed[row, self._joints] = request.fixed[index]
        return Start(triplets[..., :2], triplets[..., 2], fixed if fixed.any() else None)

    def _process(self, images: np.ndarray) -> ReverseProcess | None:
        """What hypotheses are had of; None where there is only one."""
        if self._hypotheses == 1:
            return None
        return ReverseProcess(self.network, images, self._options["flip"], once=True)

    def _several(
        self,
        process: ReverseProcess | None,
        points: np.ndarray,
        sure: np.ndarray,
        boxes: np.ndarray,
        crops: Crop,
        start: Start | None,
    ) -> list[list[Hypothesis]]:
        """The hypotheses of persons; none where only one is wanted."""
        if process is None:
            return [[]] * len(boxes)
        decode, steps = self._options["decode"], self._options["steps"]
        return hypotheses(
            self.network, process.features, to_numpy(process(0)[0]), (points, sure), boxes, crops,
            self._hypotheses, decode=decode, steps=None if steps == "auto" else steps, start=start,
        )  # fmt: skip

    def _with(self, pose: Pose, several: Sequence[Hypothesis], box_score: float) -> Pose:
        """The pose with the other hypotheses, the likeliest first."""
        if not several:
            return pose
        others = [
            replace(self.pose(one.keypoints, one.scores, pose.box, box_score), weight=one.weight)
            for one in sorted(several[1:], key=lambda one: -one.weight)
        ]
        return replace(pose, weight=several[0].weight, alternatives=tuple(others))

    def trace(self, request: Request) -> Iterator[tuple[list[Pose], np.ndarray]]:
        """How the poses in a picture come about, from the coarse heatmaps, or its start, to the answer.

        Yields:
            for each box its poses at all S steps, and the heatmaps (S, J, h, w) that they were read from. The
            last pose, the answer, has the confidence of a calibrated network, and the alternatives.
        """
        flip, steps, decode = (self._options[name] for name in ("flip", "steps", "decode"))
        self.network.check(flip, steps, request.start is not None)
        count = len(request.boxes) if self.network.sees_neighbours else self.batch_size
        for first in range(0, len(request.boxes), max(count, 1)):
            part = slice(first, first + count)
            boxes, scores = request.boxes[part], request.scores[part]
            rows = range(first, first + len(boxes))
            start = None if request.start is None else self._start([(request, row) for row in rows])
            (crops,) = looks(self.network.codec, boxes)
            images = _cut(crops, [request.image] * len(boxes))
            sizes = np.tile(np.array(request.image.shape[1::-1], np.float32), (len(boxes), 1))
            among = Neighbours(np.zeros(len(boxes), np.int64), boxes / np.tile(sizes, 2))
            once = self._process(images)
            process = once or ReverseProcess(self.network, images, flip, among)
            maps = [to_numpy(each) for each in process(steps, start and start.in_crop(crops))]
            decoded = [_decoded(self.network, each, crops, decode, start) for each in maps]
            sure_of = _confidences(self.network, maps[-1], decoded[-1][0], boxes, sizes, crops, self._joints)
            several = self._several(once, *decoded[-1], boxes, crops, start)
            for index, (box, score) in enumerate(zip(boxes, scores, strict=True)):
                poses = [self.pose(points[index], sure[index], box, score) for points, sure in decoded]
                poses[-1] = self._with(replace(poses[-1], confidence=sure_of[index]), several[index], score)
                yield poses, np.stack([each[index, self._joints] for each in maps])

    def pose(self, keypoints: np.ndarray, scores: np.ndarray, box: np.ndarray, box_score: float) -> Pose:
        """Of all joints of the network; the pose has those of the skeleton."""
        keypoints, scores = keypoints[self._joints], scores[self._joints]
        return Pose(self.skeleton, keypoints, scores, box, pose_score(box_score, scores))

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
        name: "people" or "auto", the bundled people finder; "whole", each whole picture; or a name, file,
            folder or hub id that ``load_detector`` of runtime/detectors.py takes (extra ``detect``).
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


def _cut(crops: Crop, images: Sequence[np.ndarray]) -> np.ndarray:
    """(b, 3, H, W): a crop of each picture."""
    return as_batch([crops.cut(image, index) for index, image in enumerate(images)])


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
        boxes, kept, problems = usable_boxes(boxes, image.shape[1], image.shape[0])
        return Request(image, boxes, scores[kept], source=(task, problems, None))

    def _answer(self, estimated: tuple[Request, list[Pose]]) -> Answer:
        request, poses = estimated
        task, problems, failure = request.source
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
