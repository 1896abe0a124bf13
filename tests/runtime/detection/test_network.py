from collections.abc import Sequence

import numpy as np
import pytest
import torch

from diffusionpose.runtime.detectors import SAME_PERSON, NetworkDetector
from diffusionpose.runtime.people import FunctionDetector, PersonDetector


class Fixed(NetworkDetector):
    """Finds the same boxes in every picture, shifted by the picture's brightness."""

    def __init__(self, boxes: list[list[float]], scores: list[float], **options: float) -> None:
        super().__init__(**options)
        self.boxes, self.scores = torch.tensor(boxes).reshape(-1, 4), torch.tensor(scores)
        self.batches: list[int] = []

    def _find(self, images: Sequence[np.ndarray]) -> list[tuple[torch.Tensor, torch.Tensor]]:
        self.batches.append(len(images))
        return [(self.boxes + float(image[0, 0, 0]), self.scores) for image in images]


BLACK = np.zeros((40, 60, 3), np.uint8)


def test_boxes_are_cut_at_the_edge_and_the_surest_come_first() -> None:
    boxes, scores = Fixed([[-5, 3, 20, 30], [30, 10, 99, 41], [70, 3, 80, 9]], [0.4, 0.9, 0.9])(BLACK)
    assert boxes.tolist() == [[30, 10, 60, 40], [0, 3, 20, 30]], "the third is outside"
    assert scores == pytest.approx([0.9, 0.4])
    assert boxes.dtype == scores.dtype == np.float32


def test_unsure_thin_and_too_many_boxes_are_left_out() -> None:
    rows = [[x, 0.0, x + 8.0, 30.0] for x in (0, 10, 20, 30)] + [[50.0, 0.0, 50.5, 30.0]]
    scores = [0.5, 0.29, 0.7, 0.6, 0.9]
    assert Fixed(rows, scores)(BLACK)[1] == pytest.approx([0.7, 0.6, 0.5])
    assert Fixed(rows, scores, max_persons=2)(BLACK)[0][:, 0].tolist() == [20, 30]
    assert len(Fixed(rows, scores, min_score=0.0)(BLACK)[1]) == 4


@pytest.mark.parametrize(("shift", "persons"), [(2.0, 1), (6.0, 2)])  # IoU 28/32 and 24/36
def test_a_person_found_twice_counts_once_but_two_close_persons_are_two(shift: float, persons: int) -> None:
    assert 24 / 36 < SAME_PERSON < 28 / 32
    boxes, scores = Fixed([[0, 0, 30, 30], [0, shift, 30, 30 + shift]], [0.5, 0.8])(
        np.zeros((60, 60, 3), np.uint8)
    )
    assert len(boxes) == persons
    assert scores[0] == pytest.approx(0.8)


def test_nobody_is_an_empty_answer() -> None:
    boxes, scores = Fixed([], [])(BLACK)
    assert boxes.shape == (0, 4)
    assert scores.shape == (0,)


def test_pictures_go_in_batches_and_come_back_in_order() -> None:
    detector: PersonDetector = Fixed([[0, 0, 20, 20]], [0.9])
    detector.batch_size = 2
    images = [np.full((40, 60, 3), level, np.uint8) for level in range(5)]
    found = detector.detect(images)
    assert [boxes[0, 0] for boxes, _ in found] == [0, 1, 2, 3, 4]
    assert detector.batches == [2, 2, 1]
    assert FunctionDetector(detector).detect(images)[3][0].tolist() == found[3][0].tolist()
