"""Who is in the picture: person detectors, the bundled people finder first of all."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np

from diffusionpose.errors import InputError, file_digest
from diffusionpose.runtime.boxes import Boxes
from diffusionpose.runtime.networks import open_session

AUTO, PEOPLE, WHOLE = SIMPLE = ("auto", "people", "whole")  # names of detectors that need no other package
MIN_SCORE = 0.3  # of a person's box
MAX_PERSONS = 100  # COCO's official limit of detections a picture

# images (1, 3, H, W) float32 in [-1, 1] -> scores of centres (1, h, w), boxes (1, 4, h, w) xyxy, input pixels
FinderNetwork = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]

BUNDLED = Path(__file__).parents[1] / "bundled" / "people-finder.onnx"
SIDE_MULTIPLE = 32  # the network halves its input five times
# chosen on training pictures, see docs/people-finder.md; the second look sees who is too large for the first
LONGER_SIDES = (448, 224)  # pixels
MAX_OVERLAP = 0.6  # IoU above which the less sure of two boxes goes


class PersonDetector(ABC):
    """Finds the persons in a picture."""

    detect_every: int = 1  # in a video it looks at every n-th frame, unless it is told otherwise

    @abstractmethod
    def __call__(self, image: np.ndarray) -> Boxes:
        """Persons of a picture (H, W, 3) uint8 RGB: boxes (n, 4) float32 xyxy, scores (n,), highest first."""

    def identity(self) -> str:
        """Which detector it is, its weights included: a job that goes on must find the same again."""
        return type(self).__name__


class FunctionDetector(PersonDetector):
    """A detector made of a function of your own."""

    def __init__(self, function: Callable[[np.ndarray], Boxes]) -> None:
        self._function = function

    def __call__(self, image: np.ndarray) -> Boxes:
        """What the function returns; InputError where it is no boxes, or not as many scores."""
        found = self._function(image)
        try:
            boxes, scores = map(np.asarray, found)
            boxes = boxes.reshape(-1, 4)
            return boxes, scores.reshape(len(boxes))
        except (TypeError, ValueError) as error:
            raise InputError(f"the detector gives no boxes (n, 4) and scores (n,) ({error})") from error


class WholeImage(PersonDetector):
    """Takes the whole picture as one person: for pictures that show one, and fill with it."""

    def __call__(self, image: np.ndarray) -> Boxes:
        """One box, the picture, with score 1."""
        return np.array([[0, 0, image.shape[1], image.shape[0]]], np.float32), np.ones(1, np.float32)


class BundledPeopleFinder(PersonDetector):
    """The people of any picture, by the network in the package: onnxruntime, NumPy and OpenCV, no torch.

    Args:
        weights: an ONNX file of ``diffusionpose train-people``; by default the bundled one.
        min_score: of a box to be kept; lower finds more people and more that are none.
        max_persons: so many at most in a picture, the surest.

    Raises:
        InputError: the file is not a people finder.
    """

    def __init__(
        self,
        weights: str | Path | None = None,
        *,
        min_score: float = MIN_SCORE,
        max_persons: int = MAX_PERSONS,
    ) -> None:
        self.min_score = min_score
        self.max_persons = max_persons
        self._file = Path(weights or BUNDLED)
        self._network = load_finder_network(self._file)

    def __call__(self, image: np.ndarray) -> Boxes:
        """As of :class:`PersonDetector`; boxes lie inside the picture."""
        boxes, scores = find_people(self._network, image, min_score=self.min_score)
        return boxes[: self.max_persons], scores[: self.max_persons]

    def identity(self) -> str:
        """Its file and its numbers."""
        numbers = f"{LONGER_SIDES} {self.min_score} {MAX_OVERLAP} {self.max_persons}"
        return f"{type(self).__name__} {file_digest(self._file)} {numbers}"


def load_finder_network(path: Path) -> FinderNetwork:
    """The network of an ONNX file; InputError where it is missing, not ONNX, or another network's."""
    session = open_session(path)
    if [output.name for output in session.get_outputs()] != ["scores", "boxes"]:
        raise InputError(f"{path}: not a people finder; `diffusionpose train-people` writes one")
    return lambda images: session.run(None, {"images": images})


def find_people(
    network: FinderNetwork,
    image: np.ndarray,
    longer_sides: Sequence[int] = LONGER_SIDES,
    min_score: float = MIN_SCORE,
) -> Boxes:
    """Persons of a picture (H, W, 3) uint8 RGB, scaled to ``longer_sides`` pixels, one look each."""
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
    kept = suppress_overlaps(all_boxes, all_scores, MAX_OVERLAP)
    return all_boxes[kept], all_scores[kept]


def network_input(image: np.ndarray, longer_side: int) -> tuple[np.ndarray, np.ndarray]:
    """A picture (H, W, 3) uint8 RGB as the network takes it.

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
    """Greedy non-maximum suppression: which of (n, 4) xyxy boxes stay, surest first.

    A box whose IoU with a surer one is above ``max_overlap`` goes, and so does one without area.
    """
    order = np.argsort(-scores, kind="stable")
    order = order[(boxes[order, 2:] > boxes[order, :2]).all(1)]
    kept: list[int] = []
    while len(order):
        best, order = order[0], order[1:]
        kept.append(int(best))
        order = order[box_overlaps(boxes[best, None], boxes[order])[0] <= max_overlap]
    return np.array(kept, int)
