import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from diffusionpose import InputError, PoseEstimator
from diffusionpose.runtime.detectors import TransformersDetector
from diffusionpose.runtime.estimator import make_detector
from diffusionpose.runtime.images import read_image

Folder = Callable[..., Path]
KINDS = ("rtdetr", "rtdetr_v2", "dfine")
# A person in the left lower quarter, a dog, and an unsure person: cx, cy, w, h as parts of the picture.
SEEN = [[0.25, 0.75, 0.4, 0.3], [0.5, 0.5, 0.9, 0.9], [0.75, 0.25, 0.2, 0.2]]
LOGITS = [[3.0, -9.0], [-9.0, 3.0], [-0.5, -9.0]]  # person, dog


def random_pictures() -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [random.integers(0, 256, (h, w, 3), dtype=np.uint8) for h, w in ((50, 80), (200, 90), (64, 64))]


@pytest.fixture
def seeing(detr_folder: Folder, monkeypatch: pytest.MonkeyPatch) -> TransformersDetector:
    """A detector whose network sees ``SEEN`` in every picture."""
    detector = TransformersDetector(detr_folder("rtdetr"), "cpu")

    def forward(pixel_values: torch.Tensor, **rest: object) -> SimpleNamespace:
        assert pixel_values.shape[1:] == (3, 64, 64)
        several = len(pixel_values)
        return SimpleNamespace(
            logits=torch.tensor([LOGITS] * several), pred_boxes=torch.tensor([SEEN] * several)
        )

    monkeypatch.setattr(detector._model, "forward", forward)
    return detector


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_is_loaded_and_used_as_transformers_itself_does(kind: str, detr_folder: Folder) -> None:
    from transformers import AutoImageProcessor, AutoModelForObjectDetection

    folder, (image, *_) = detr_folder(kind), random_pictures()
    boxes, scores = TransformersDetector(folder, "cpu", min_score=0.0, max_persons=1)(image)
    model = AutoModelForObjectDetection.from_pretrained(folder).eval()
    processor = AutoImageProcessor.from_pretrained(folder)
    with torch.inference_mode():
        outputs = model(**processor(images=Image.fromarray(image), return_tensors="pt"))
    best = outputs.logits[0, :, 0].argmax()
    cx, cy, w, h = outputs.pred_boxes[0, best].tolist()
    expected = np.array([(cx - w / 2) * 80, (cy - h / 2) * 50, (cx + w / 2) * 80, (cy + h / 2) * 50])
    assert boxes[0] == pytest.approx(expected.clip(0, [80, 50, 80, 50]), abs=0.01)
    assert scores[0] == pytest.approx(outputs.logits[0, best, 0].sigmoid().item(), abs=1e-4)


@pytest.mark.parametrize("kept", [torch.float16, torch.bfloat16])
def test_weights_of_half_precision_are_computed_in_single(
    kept: torch.dtype, detr_folder: Folder, tmp_path: Path
) -> None:
    folder = shutil.copytree(detr_folder("rtdetr"), tmp_path / "half")
    tensors = load_file(folder / "model.safetensors")
    rounded = {n: t.to(kept) if t.is_floating_point() else t for n, t in tensors.items()}
    save_file(rounded, folder / "model.safetensors", {"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    name = str(kept).removeprefix("torch.")
    (folder / "config.json").write_text(json.dumps({**config, "dtype": name}))
    halved, whole = TransformersDetector(folder, "cpu", min_score=0.0), detr_folder("rtdetr")
    exact = TransformersDetector(whole, "cpu", min_score=0.0)
    exact._model.load_state_dict({n: t.to(kept).float() if t.is_floating_point() else t
                                  for n, t in exact._model.state_dict().items()})  # fmt: skip
    boxes, scores = halved(random_pictures()[0])
    assert len(scores) > 0
    assert np.allclose(boxes, exact(random_pictures()[0])[0], atol=1e-3)
    assert halved.identity() == exact.identity()


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_is_found_as_its_pictures_alone(kind: str, detr_folder: Folder) -> None:
    detector = TransformersDetector(detr_folder(kind), "cpu", min_score=0.0)
    images = random_pictures()
    assert detector.batch_size == 1, "on a CPU"
    alone = [detector(image) for image in images]
    detector.batch_size = 3
    for (boxes, scores), (boxes_alone, scores_alone) in zip(detector.detect(images), alone, strict=True):
        assert len(scores) > 0
        assert np.allclose(scores, scores_alone, atol=1e-5)
        assert np.allclose(boxes, boxes_alone, atol=1e-2)


def test_only_sure_persons_are_found_in_pixels_of_the_picture(seeing: TransformersDetector) -> None:
    for height, width in ((100, 300), (300, 100), (3, 40)):
        boxes, scores = seeing(np.zeros((height, width, 3), np.uint8))
        expected = np.array([[0.05, 0.6, 0.45, 0.9], [0.65, 0.15, 0.85, 0.35]]) * ([width, height] * 2)
        shown = expected if height > 5 else expected[:0]  # 0.9 pixels high: nobody
        assert np.allclose(boxes, shown, atol=1e-3)
        assert np.allclose(scores, torch.tensor([3.0, -0.5]).sigmoid()[: len(shown)])
    seeing.min_score = 0.5
    assert len(seeing(np.zeros((100, 300, 3), np.uint8))[0]) == 1


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_boxes_are_those_of_the_picture_as_shown(
    seeing: TransformersDetector, orientation: int, tmp_path: Path, tiny_weights: Path
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", (300, 100)).save(tmp_path / "a.jpg", exif=exif)
    height, width = (100, 300) if orientation in (1, 3) else (300, 100)
    assert read_image(tmp_path / "a.jpg").shape == (height, width, 3)
    estimator = PoseEstimator.from_pretrained(tiny_weights, "cpu", detector=seeing)
    poses = estimator(tmp_path / "a.jpg")
    assert poses[0].box == pytest.approx(np.array([0.05, 0.6, 0.45, 0.9]) * ([width, height] * 2), abs=1e-3)
    assert len(poses) == 2


def test_an_estimator_takes_a_detector_by_name(detr_folder: Folder, tiny_weights: Path) -> None:
    folder, images = detr_folder("dfine"), random_pictures()
    estimator = PoseEstimator.from_pretrained(tiny_weights, "cpu", detector=str(folder), batch_size=4)
    estimator.detector.min_score, estimator.detector.max_persons = 0.0, 3
    alone = [estimator(image) for image in images]
    estimator.detector.batch_size = 2
    whole = np.array([[0, 0, 64, 64]])
    together = estimator(images, [None, None, whole])
    assert [pose.box.tolist() for pose in together[2]] == whole.tolist()
    for one, other in zip(alone[0] + alone[1], together[0] + together[1], strict=True):
        assert np.allclose(one.box, other.box, atol=1e-2)
        assert np.allclose(one.keypoints, other.keypoints, atol=0.1)


def test_a_model_that_knows_no_persons_is_refused(detr_folder: Folder) -> None:
    folder = detr_folder("rtdetr", id2label={0: "cat", 1: "dog"})
    with pytest.raises(InputError, match=r'none of its 2 classes is "person" \(it knows cat, dog') as caught:
        make_detector(str(folder), "cpu")
    assert str(folder) in str(caught.value)


def broken(folder: Path, fault: str) -> None:
    config = json.loads((folder / "config.json").read_text())
    if fault == "missing":
        (folder / "preprocessor_config.json").unlink()
    elif fault == "cut":
        (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:1000])
    elif fault == "other":
        config["model_type"] = "bert"
    elif fault == "lacking":
        from safetensors.torch import load_file, save_file

        tensors = load_file(folder / "model.safetensors")
        kept = {name: tensor for name, tensor in tensors.items() if "enc_score_head" not in name}
        assert len(kept) < len(tensors)
        save_file(kept, folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("fault", "complaint"),
    [
        ("missing", r"holds no preprocessor_config\.json; give a folder"),
        ("cut", "holds no object detector that can be used"),
        ("other", "holds no object detector that can be used"),
        ("lacking", r"lacks 2 weights of the model \(.*enc_score_head"),
    ],
)
def test_a_damaged_folder_is_named_with_its_fault(
    fault: str, complaint: str, detr_folder: Folder, tmp_path: Path
) -> None:
    folder = tmp_path / "broken"
    shutil.copytree(detr_folder("rtdetr"), folder)
    broken(folder, fault)
    with pytest.raises(InputError, match=complaint) as caught:
        make_detector(str(folder), "cpu")
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_loading_is_quiet(detr_folder: Folder, capfd: pytest.CaptureFixture[str]) -> None:
    from transformers.utils import logging

    before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    TransformersDetector(detr_folder("dfine"), "cpu")
    assert capfd.readouterr() == ("", "")
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before
