import numpy as np

from diffusionpose.runtime.people import FunctionDetector, PersonDetector, WholeImage


def test_the_whole_image_is_one_person() -> None:
    detector: PersonDetector = WholeImage()
    boxes, scores = detector(np.zeros((30, 50, 3), np.uint8))
    assert boxes.tolist() == [[0, 0, 50, 30]]
    assert boxes.dtype == np.float32
    assert scores.tolist() == [1]


def test_a_function_is_a_detector() -> None:
    detector = FunctionDetector(lambda image: (np.zeros((image.shape[0], 4)), np.zeros(image.shape[0])))
    assert [
        len(boxes) for boxes, _ in detector.detect([np.zeros((n, 5, 3), np.uint8) for n in (2, 0, 3)])
    ] == [2, 0, 3]
