import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from diffusionpose import InputError, PoseEstimator
from diffusionpose.runtime import detectors
from diffusionpose.runtime.detectors import SAME_PERSON, TransformersDetector
from diffusionpose.runtime.estimator import make_detector
from diffusionpose.runtime.images import read_image

CLASSES = {0: "person", 1: "dog"}


def _options(**options: object) -> dict:
    common = {"encoder_hidden_dim": 16, "encoder_ffn_dim": 16, "encoder_attention_heads": 2}
    decoder = {"d_model": 16, "decoder_in_channels": [16] * 3, "decoder_ffn_dim": 16, "decoder_layers": 2}
    more = {"decoder_attention_heads": 2, "num_queries": 30, "num_denoising": 0, "anchor_image_size": None}
    return {**common, **decoder, **more, "id2label": CLASSES, **options}


def _model(kind: str, **options: object) -> torch.nn.Module:
    """RT-DETR, RT-DETRv2 or D-FINE, 16 channels wide."""
    import transformers as t

    if kind == "dfine":
        four = {"depths": [1] * 4, "stage_num_blocks": [1] * 4, "stage_numb_of_layers": [1] * 4}
        four |= {
            "stage_light_block": [False] * 4,
            "stage_kernel_size": [3] * 4,
            "stage_mid_channels": [8] * 4,
        }
        channels = {"stem_channels": [3, 8, 8], "embedding_size": 8, "hidden_sizes": [8, 16, 16, 16]}
        channels |= {"stage_in_channels": [8, 8, 16, 16], "stage_out_channels": [8, 16, 16, 16]}
        levels = {"out_features": ["stage2", "stage3", "stage4"]}
        backbone = t.HGNetV2Config(**four, **channels, **levels, stage_downsample=[False, True, True, True])
        config = t.DFineConfig(backbone_config=backbone, **_options(encoder_in_channels=[16] * 3, **options))
        return t.DFineForObjectDetection(config)
    backbone = t.RTDetrResNetConfig(
        embedding_size=8,
        hidden_sizes=[8, 8, 16, 16],
        depths=[1] * 4,
        layer_type="basic",
        out_features=["stage2", "stage3", "stage4"],
    )
    v2 = kind == "rtdetr_v2"
    config = (t.RTDetrV2Config if v2 else t.RTDetrConfig)(
        backbone_config=backbone, **_options(encoder_in_channels=[8, 16, 16], **options)
    )
    return (t.RTDetrV2ForObjectDetection if v2 else t.RTDetrForObjectDetection)(config)


@pytest.fixture(scope="session")
def detr_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """``detr_folder(kind, **options)``: a folder that save_pretrained wrote, made once for each kind."""
    pytest.importorskip("transformers")
    from transformers import RTDetrImageProcessor

    made: dict[str, Path] = {}

    def make(kind: str, **options: object) -> Path:
        key = f"{kind} {options}"
        if key not in made:
            torch.manual_seed(0)
            made[key] = tmp_path_factory.mktemp("detr")
            _model(kind, **options).save_pretrained(made[key])
            RTDetrImageProcessor(size={"height": 64, "width": 64}).save_pretrained(made[key])
        return made[key]

    return make


class Fixed(TransformersDetector):
    """Finds the same boxes in every picture."""

    def __init__(
        self, boxes: list[list[float]], scores: list[float], min_score: float = 0.3, max_persons: int = 100
    ) -> None:
        self.min_score, self.max_persons = min_score, max_persons
        self.boxes, self.scores = np.array(boxes, np.float32).reshape(-1, 4), np.array(scores, np.float32)

    def _find(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self.boxes, self.scores


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


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the hub, and no network."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path


def test_a_download_is_told_and_used(
    cache: Path, detr_folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    asked = []

    def hf_hub_download(repository: str, file: str, local_files_only: bool = False) -> str:
        if local_files_only:
            raise LocalEntryNotFoundError(file)
        asked.append((repository, file))
        return str(detr_folder("dfine") / file)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", hf_hub_download)
    told: list[str] = []
    assert isinstance(make_detector("dfine", "cpu", tell=told.append), TransformersDetector)
    assert told[0].startswith("downloading ustc-community/dfine-small-coco, 42 MB")
    assert len(told) == 1
    assert {file for _, file in asked} == set(detectors.FILES)


@pytest.mark.parametrize("name", ["rtdetr", "dfine", "a/b", "a/no name"])
def test_a_detector_that_is_asked_for_and_cannot_be_had_is_an_error(cache: Path, name: str) -> None:
    with pytest.raises(InputError, match="not in the local cache, nor to be had from the hub") as caught:
        make_detector(name, "cpu")
    assert "--boxes FILE" in str(caught.value)


@pytest.mark.parametrize("name", ["nonsense", "./nowhere/at/all", "/no/such", "~/x"])
def test_a_name_that_stands_for_nothing_is_an_error(cache: Path, name: str) -> None:
    with pytest.raises(InputError, match="no such detector, folder or file; give auto, people, whole, dfine"):
        make_detector(name, "cpu")


def test_without_transformers_the_extra_is_named(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(InputError, match=r"pip install 'diffusionpose\[detect\]'"):
        make_detector("rtdetr", "cpu")


def test_numbers_out_of_range_are_errors() -> None:
    for options in ({"min_score": 1.5}, {"min_score": -0.1}, {"max_persons": 0}):
        with pytest.raises(InputError, match="must be"):
            make_detector("whole", "cpu", **options)
