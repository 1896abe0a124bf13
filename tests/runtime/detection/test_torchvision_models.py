from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from diffusionpose import InputError
from diffusionpose.runtime.detectors import (
    TorchvisionDetector,
    architecture_of,
    architectures,
    cached_weights,
)
from diffusionpose.runtime.estimator import make_detector

SSDLITE = "ssdlite320_mobilenet_v3_large"


@pytest.fixture(scope="module")
def detector(ssdlite_file: Path) -> TorchvisionDetector:
    return TorchvisionDetector(SSDLITE, ssdlite_file, "cpu", min_score=0.0)


def test_torchvisions_detectors_of_persons_are_known() -> None:
    names = {"fasterrcnn_mobilenet_v3_large_fpn", "fasterrcnn_resnet50_fpn_v2", SSDLITE, "fcos_resnet50_fpn"}
    assert names <= set(architectures())


def test_weights_go_where_torchvision_itself_keeps_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    names = [cached_weights(name).name for name in ("fasterrcnn_resnet50_fpn", "fasterrcnn_resnet50_fpn_v2")]
    assert names == [
        "fasterrcnn_resnet50_fpn_coco-258fb6c6.pth",
        "fasterrcnn_resnet50_fpn_v2_coco-dd69338a.pth",
    ]
    assert cached_weights(SSDLITE).parent == tmp_path / "checkpoints"


@pytest.mark.parametrize("name", architectures())
def test_a_file_is_told_by_the_name_that_torchvision_gives_it(name: str) -> None:
    assert architecture_of(cached_weights(name)) == name
    assert architecture_of(Path("best.pth")) is None


def test_a_detector_finds_what_torchvision_finds(detector: TorchvisionDetector, ssdlite_file: Path) -> None:
    from torchvision.models import get_model

    model = get_model(SSDLITE, weights=None, weights_backbone=None, num_classes=91).eval()
    model.load_state_dict(torch.load(ssdlite_file, weights_only=True))
    image = np.random.default_rng(0).integers(0, 256, (50, 80, 3), dtype=np.uint8)
    with torch.inference_mode():
        (found,) = model([torch.from_numpy(image).permute(2, 0, 1) / 255])
    persons = found["boxes"][found["labels"] == 1]
    boxes, scores = detector(image)
    assert len(boxes) == min(len(persons), 100) > 0 or len(persons) == len(boxes)
    assert scores.tolist() == sorted(scores.tolist(), reverse=True)
    for box in boxes:
        assert np.abs(persons.numpy() - box).max(axis=1).min() < 1e-3


def test_only_persons_count_in_pixels_of_the_picture(
    detector: TorchvisionDetector, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []

    def forward(pictures: list[torch.Tensor]) -> list[dict[str, torch.Tensor]]:
        sizes.extend(tuple(picture.shape) for picture in pictures)
        assert float(pictures[0].max()) == 1.0
        boxes = torch.tensor([[5.0, 10, 30, 90], [0, 0, 50, 50], [40, 10, 60, 90]])
        return [{"boxes": boxes, "labels": torch.tensor([1, 18, 1]), "scores": torch.tensor([0.6, 0.9, 0.8])}]

    monkeypatch.setattr(detector._model, "forward", forward)
    boxes, scores = detector(np.full((100, 200, 3), 255, np.uint8))
    assert sizes == [(3, 100, 200)]
    assert boxes.tolist() == [[40, 10, 60, 90], [5, 10, 30, 90]]
    assert scores == pytest.approx([0.8, 0.6])


def test_a_file_of_weights_is_a_detector(ssdlite_file: Path, tmp_path: Path) -> None:
    assert isinstance(make_detector(str(ssdlite_file), "cpu"), TorchvisionDetector)
    safe = tmp_path / f"{SSDLITE}.safetensors"
    save_file(torch.load(ssdlite_file, weights_only=True), safe)
    image = np.random.default_rng(1).integers(0, 256, (50, 80, 3), dtype=np.uint8)
    given = [make_detector(str(path), "cpu", min_score=0.0)(image)[0] for path in (ssdlite_file, safe)]
    assert given[0].tolist() == given[1].tolist()


def test_files_that_cannot_be_used_are_named(ssdlite_file: Path, tmp_path: Path) -> None:
    for name, content, complaint in (
        ("best.pth", b"", "does not begin with that of a detector"),
        (f"{SSDLITE}.pth", b"not a file of torch", "not a state dict that can be read"),
        (
            "fcos_resnet50_fpn_coco.pth",
            ssdlite_file.read_bytes(),
            "does not fit torchvision's fcos_resnet50_fpn",
        ),
    ):
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(InputError, match=complaint) as caught:
            make_detector(str(path), "cpu")
        assert str(path) in str(caught.value)
    with pytest.raises(InputError, match=r"nowhere\.pth: no such file"):
        make_detector(str(tmp_path / "nowhere.pth"), "cpu")


def test_a_pickle_that_would_run_code_does_not(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.touch, (tmp_path / "touched",))  # type: ignore[return-value]

    torch.save({"a": Evil()}, tmp_path / f"{SSDLITE}.pth")
    with pytest.raises(InputError, match="not a state dict"):
        make_detector(str(tmp_path / f"{SSDLITE}.pth"), "cpu")
    assert not (tmp_path / "touched").exists()
