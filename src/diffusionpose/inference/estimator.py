"""PoseEstimator: pictures in, poses out."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from PIL import Image

from diffusionpose.errors import InputError
from diffusionpose.evaluation.nms import pose_score
from diffusionpose.geometry.crops import Crop
from diffusionpose.geometry.heatmaps import DECODE_METHODS
from diffusionpose.inference.detectors import PersonDetector, WholeImage, find_persons
from diffusionpose.inference.device import good_batch_size, place
from diffusionpose.inference.requests import ImageLike, Request, given_picture
from diffusionpose.inference.starts import batch_of_starts
from diffusionpose.models.pose_model import PoseModel
from diffusionpose.models.weights import load_model
from diffusionpose.poses import Pose

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
        detector: PersonDetector | str | None = None,
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
        size = getattr(self.detector, "batch_size", 1)
        for first in range(0, len(images), size):
            batch = [
                given_picture(index, images[index], boxes[index], starts[index], self.model.skeleton)
                for index in range(first, min(first + size, len(images)))
            ]
            found = iter(
                find_persons(self.detector, [given.pixels for given in batch if given.persons is None])
            )
            for given in batch:
                yield given.request(next(found) if given.persons is None else given.persons)


def _detector(detector: PersonDetector | str | None, device: str, model: PoseModel) -> PersonDetector:
    if isinstance(detector, str):
        from diffusionpose.inference.detection.choice import make_detector

        return make_detector(detector, device, model=model)
    return detector or WholeImage()
