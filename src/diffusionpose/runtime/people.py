"""Who is in the picture: person detectors, the bundled people finder first of all."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np

from diffusionpose.errors import InputError, file_digest
from diffusionpose.runtime.boxes import Boxes

AUTO, PEOPLE, WHOLE = SIMPLE = ("auto", "people", "whole")  # names of detectors that need no other package
MIN_SCORE = 0.3  # of a person's box
MAX_PERSONS = 100  # COCO's official limit of detections a picture

# images (1, 3, H, W) float32 in [-1, 1] -> scores of centres (1, h, w), boxes (1, 4, h, w) xyxy, input pixels
FinderNetwork = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]

BUNDLED = Path(__file__).parents[1] / "bundled" / "people-finder.onnx"
SIDE_MULTIPLE = 32  # the network halves its input five times
# chosen on training pictures, see docs/people-finder.md
LONGER_SIDES = (448, 224)
MAX_OVERLAP = 0.6


class PersonDetector(ABC):
    """Finds the persons in pictures.

    Attributes:
        batch_size: as many pictures at once suit :meth:`detect` best.
        detect_every: in a video it looks at every n-th frame, unless it is told otherwise.
    """

    batch_size: int = 1
    detect_every: int = 1

    @abstractmethod
    def detect(self, images: Sequence[np.ndarray]) -> list[Boxes]:
        """Persons of each picture (H, W, 3) uint8 RGB: (n, 4) float32 xyxy, scores (n,), highest first."""

    def __call__(self, image: np.ndarray) -> Boxes:
        """Persons of one picture (H, W, 3) uint8 RGB: boxes (n, 4) float32 xyxy, scores (n,)."""
        return self.detect([image])[0]

    def identity(self) -> str:
        """Which detector it is, its weights included: a job that goes on must find the same again."""
        return type(self).__name__


class FunctionDetector(PersonDetector):
    """A detector made of a function of your own that takes one picture and returns boxes and scores."""

    def __init__(self, function: Callable[[np.ndarray], Boxes]) -> None:
        self._function = function

    def detect(self, images: Sequence[np.ndarray]) -> list[Boxes]:
        """What the function returns for each picture."""
        return [self._function(image) for image in images]


class WholeImage(PersonDetector):
    """Takes the whole picture as one person: for pictures that show one, and fill with it."""

    def detect(self, images: Sequence[np.ndarray]) -> list[Boxes]:
        """One box for each picture, the picture, with score 1."""
        return [
            (np.array([[0, 0, image.shape[1], image.shape[0]]], np.float32), np.ones(1, np.float32))
            for image in images
        ]


class BundledPeopleFinder(PersonDetector):
    """The people of any picture, by the network in the package: onnxruntime, NumPy and OpenCV, no torch.

    Args:
        weights: an ONNX file of ``diffusionpose train-people``; by default the bundled one.
        longer_sides: to which pictures are scaled, pixels, one look each: the second sees persons who are too
            large for the first.
        min_score: of a box to be kept; lower finds more people and more that are none.
        max_overlap: IoU above which the less sure of two boxes goes.
        max_persons: so many at most in a picture, the surest.
        threads: of onnxruntime; 0 for one per core.

    Raises:
        InputError: the file is not a people finder.
    """

    def __init__(
        self,
        weights: str | Path | None = None,
        *,
        longer_sides: Sequence[int] = LONGER_SIDES,
        min_score: float = MIN_SCORE,
        max_overlap: float = MAX_OVERLAP,
        max_persons: int = MAX_PERSONS,
        threads: int = 0,
    ) -> None:
        self.longer_sides = tuple(longer_sides)
        self.min_score = min_score
        self.max_overlap = max_overlap
        self.max_persons = max_persons
        self._file = Path(weights or BUNDLED)
        self._network = load_finder_network(self._file, threads)

    def detect(self, images: Sequence[np.ndarray]) -> list[Boxes]:
        """Persons of each picture (H, W, 3) uint8 RGB: boxes (n, 4) float32 xyxy, scores (n,) float32.

        The surest comes first; boxes lie inside the picture. Nobody found gives n = 0.
        """
        found = []
        for image in images:
            boxes, scores = find_people(
                self._network, image, self.longer_sides, self.min_score, self.max_overlap
            )
            found.append((boxes[: self.max_persons], scores[: self.max_persons]))
        return found

    def identity(self) -> str:
        """Its file and its numbers."""
        numbers = f"{self.longer_sides} {self.min_score} {self.max_overlap} {self.max_persons}"
        return f"{type(self).__name__} {file_digest(self._file)} {numbers}"


def load_finder_network(path: str | Path, threads: int = 0) -> FinderNetwork:
    """The network of an ONNX file.

    Raises:
        InputError: the file is missing, not ONNX, or another network's.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own classes share no base
        raise InputError(
            f"{path}: not a readable ONNX file ({error}); install diffusionpose again"
        ) from error
    if [output.name for output in session.get_outputs()] != ["scores", "boxes"]:
        raise InputError(f"{path}: not a people finder; `diffusionpose train-people` writes one")

    def network(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        scores, boxes = session.run(None, {"images": images})
        return scores, boxes

    return network


def find_people(
    network: FinderNetwork,
    image: np.ndarray,
    longer_sides: Sequence[int],
    min_score: float,
    max_overlap: float,
) -> Boxes:
    """Persons of a picture (H, W, 3) uint8 RGB; arguments and answer as :class:`BundledPeopleFinder`'s."""
    height, width = image.shape[:2]
    limits = np.array([width, height, width, height], np.float32)
    boxes, scores = [], []
    for longer_side in longer_sides:
        images, scale = network_input(image, longer_side)
        score_map, box_map = network(images)
        found = score_map[0] > min_score  # (h, w)
        boxes.append((box_map[0][:, found].T / scale).clip(0, limits).astype(np.float32))
        scores.append(score_map[0][found].astype(np.float32))
    all_boxes, all_scores = np.concatenate(boxes), np.concatenate(scores)
    kept = suppress_overlaps(all_boxes, all_scores, max_overlap)
    return all_boxes[kept], all_scores[kept]


def network_input(image: np.ndarray, longer_side: int) -> tuple[np.ndarray, np.ndarray]:
    """A picture as the network takes it.

    Args:
        image: (H, W, 3) uint8 RGB.
        longer_side: to which it is scaled, pixels.

    Returns:
        (1, 3, H', W') float32 in [-1, 1], padded with 0 on the right and at the bottom to multiples of 32;
        and the scale (4,) of x, y, x, y, input pixels per picture pixel.
    """
    height, width = image.shape[:2]
    factor = longer_side / max(height, width)
    size = max(1, round(width * factor)), max(1, round(height * factor))
    scaled = cv2.resize(image, size, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR)
    padded = [-(-side // SIDE_MULTIPLE) * SIDE_MULTIPLE for side in size]
    images = np.zeros((1, 3, padded[1], padded[0]), np.float32)
    images[0, :, : size[1], : size[0]] = scaled.transpose(2, 0, 1) / np.float32(127.5) - 1
    return images, np.array([size[0] / width, size[1] / height] * 2, np.float32)


def box_overlaps(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """IoU (n, m) of boxes (n, 4) and (m, 4) xyxy."""
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    shared = (high - low).clip(0).prod(2)
    areas = [(each[:, 2:] - each[:, :2]).clip(0).prod(1) for each in (boxes, others)]
    return np.asarray(shared / np.maximum(areas[0][:, None] + areas[1] - shared, 1e-9))


def suppress_overlaps(boxes: np.ndarray, scores: np.ndarray, max_overlap: float) -> np.ndarray:
    """Greedy non-maximum suppression.

    Args:
        boxes: (n, 4) xyxy.
        scores: (n,).
        max_overlap: a box whose IoU with a surer one is above it goes.

    Returns:
        which boxes stay, surest first; boxes without area never do.
    """
    order = np.argsort(-scores, kind="stable")
    order = order[(boxes[order, 2:] > boxes[order, :2]).all(1)]
    kept: list[int] = []
    while len(order):
        best, order = order[0], order[1:]
        kept.append(int(best))
        order = order[box_overlaps(boxes[best, None], boxes[order])[0] <= max_overlap]
    return np.array(kept, int)
