"""Who is in the picture, without torch: detectors of one line, the bundled people finder."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from diffusionpose.errors import InputError
from diffusionpose.runtime.people import (
    MIN_SCORE,
    BundledPeopleFinder,
    FunctionDetector,
    PersonDetector,
    WholeImage,
    find_people,
    load_finder_network,
    network_input,
    suppress_overlaps,
)


@pytest.fixture(scope="module")
def finder() -> BundledPeopleFinder:
    return BundledPeopleFinder()


def test_overlaps_go_the_surest_stay() -> None:
    boxes = np.array([[0, 0, 10, 10], [1, 0, 11, 10], [40, 0, 50, 10], [5, 5, 5, 9]], np.float32)
    scores = np.array([0.5, 0.9, 0.4, 1.0], np.float32)
    assert suppress_overlaps(boxes, scores, 0.6).tolist() == [1, 2]
    assert suppress_overlaps(boxes, scores, 0.9).tolist() == [1, 0, 2]
    assert suppress_overlaps(boxes[:0], scores[:0], 0.6).tolist() == []


@pytest.mark.parametrize("size", [(1, 1), (3, 500), (640, 480), (4000, 3000), (32, 32)])
def test_pictures_of_any_size_fit_the_network(size: tuple[int, int]) -> None:
    image = np.full((*size, 3), 255, np.uint8)
    images, scale = network_input(image, 448)
    assert images.dtype == np.float32
    assert all(side % 32 == 0 for side in images.shape[2:])
    assert max(images.shape[2:]) == 448
    used = (images[0, 0] == 1).sum()
    assert used == round(scale[0] * size[1]) * round(scale[1] * size[0])


def test_boxes_come_back_in_pixels_of_the_picture() -> None:
    def network(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        scores = np.zeros((1, images.shape[2] // 4, images.shape[3] // 4), np.float32)
        boxes = np.zeros((1, 4, *scores.shape[1:]), np.float32)
        scores[0, 10, 10], boxes[0, :, 10, 10] = 0.8, (20, 30, 60, 500)
        scores[0, 5, 5], boxes[0, :, 5, 5] = 0.2, (0, 0, 9, 9)
        return scores, boxes

    boxes, scores = find_people(network, np.zeros((896, 448, 3), np.uint8), (448,))
    assert scores.tolist() == pytest.approx([0.8])
    assert boxes.tolist() == [[40, 60, 120, 896]]  # twice as large, and inside the picture
    assert boxes.dtype == scores.dtype == np.float32


@pytest.mark.parametrize("size", [(2, 2), (40, 900), (480, 640)])
def test_nobody_in_a_blank_picture(finder: BundledPeopleFinder, size: tuple[int, int]) -> None:
    for level in (0, 127, 255):
        boxes, scores = finder(np.full((*size, 3), level, np.uint8))
        assert boxes.shape == (0, 4)
        assert scores.shape == (0,)


def test_at_most_so_many_and_another_score(finder: BundledPeopleFinder, data_dir: Path) -> None:
    path = data_dir / "coco_subset" / "images" / "val2017" / "000000000872.jpg"
    image = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
    all_boxes, all_scores = BundledPeopleFinder(min_score=0.01)(image)
    boxes, scores = BundledPeopleFinder(min_score=0.01, max_persons=2)(image)
    assert len(all_boxes) > 2
    assert (np.diff(all_scores) <= 0).all()
    assert boxes.tolist() == all_boxes[:2].tolist()
    assert scores.tolist() == all_scores[:2].tolist()
    assert finder.identity() != BundledPeopleFinder(min_score=0.01).identity()


def test_nobody_in_a_landscape(finder: BundledPeopleFinder) -> None:
    rng = np.random.default_rng(0)
    image = np.empty((480, 640, 3), np.uint8)
    image[:260] = np.linspace(150, 250, 260)[:, None, None] * [0.7, 0.85, 1]
    image[260:] = [90, 120, 60]
    hills = np.cumsum(rng.normal(0, 2, 640))
    for x, height in enumerate(220 + hills - hills.mean()):
        image[int(np.clip(height, 0, 260)) : 260, x] = [80, 95, 100]
    for _ in range(400):
        x, y = int(rng.integers(640)), int(rng.integers(280, 480))
        cv2.line(image, (x, y), (x + 2, y - 6), (60, 100, 40), 1)
    assert len(finder(image)[0]) == 0


def test_large_and_small_copies_give_the_same_people(finder: BundledPeopleFinder, data_dir: Path) -> None:
    path = data_dir / "coco_subset" / "images" / "val2017" / "000000000872.jpg"
    image = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
    boxes, _ = finder(image)
    assert len(boxes) >= 1
    large, _ = finder(cv2.resize(image, None, fx=4, fy=4, interpolation=cv2.INTER_CUBIC))
    assert large == pytest.approx(4 * boxes, abs=40)


def test_finds_the_people_of_photographs(data_dir: Path) -> None:
    from diffusionpose.data.annotations import read_annotations
    from diffusionpose.evaluation.people import evaluate_people, find_all

    folder = data_dir / "coco_subset"
    annotations = read_annotations(folder / "annotations" / "person_keypoints_val2017.json")
    finder = BundledPeopleFinder(min_score=0.03)
    found, failures = find_all(finder, annotations, folder / "images" / "val2017")
    metrics = evaluate_people(found, annotations, MIN_SCORE)
    assert failures == []
    assert metrics["AP50"] == pytest.approx(0.817, abs=0.005)


def test_a_file_that_is_no_people_finder(tmp_path: Path) -> None:
    helper = pytest.importorskip("onnx").helper
    values = [helper.make_tensor_value_info(name, 1, [1]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "other", values[:1], values[1:])
    other = tmp_path / "other.onnx"
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    other.write_bytes(model.SerializeToString())
    with pytest.raises(InputError, match=r"none\.onnx: onnxruntime cannot read it"):
        load_finder_network(tmp_path / "none.onnx")
    with pytest.raises(InputError, match="not a people finder"):
        load_finder_network(other)


def test_works_without_torch() -> None:
    program = (
        "import sys; sys.modules['torch'] = None; import numpy as np;"
        "from diffusionpose.runtime.people import BundledPeopleFinder;"
        "print(BundledPeopleFinder()(np.zeros((99, 66, 3), np.uint8))[0].shape)"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert run.stdout.strip() == "(0, 4)", run.stderr


def test_the_whole_image_is_one_person() -> None:
    detector: PersonDetector = WholeImage()
    boxes, scores = detector(np.zeros((30, 50, 3), np.uint8))
    assert boxes.tolist() == [[0, 0, 50, 30]]
    assert boxes.dtype == np.float32
    assert scores.tolist() == [1]


def test_a_function_is_a_detector() -> None:
    detector = FunctionDetector(lambda image: (np.zeros((image.shape[0], 4)), np.zeros(image.shape[0])))
    assert [len(detector(np.zeros((n, 5, 3), np.uint8))[0]) for n in (2, 0, 3)] == [2, 0, 3]
    for found in (([[0, 0, 5, 5]] * 2, [0.5]), (np.zeros((2, 5)), np.zeros(2)), 5):
        with pytest.raises(InputError, match="the detector gives no boxes"):
            FunctionDetector(lambda image, found=found: found)(np.zeros((9, 9, 3), np.uint8))
