"""The people finder's network: what it learns from, its loss, its file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from diffusionpose.errors import InputError
from diffusionpose.models.export import export_people_finder
from diffusionpose.models.people_finder import (
    Peaks,
    PeopleFinder,
    Targets,
    draw_targets,
    finder_loss,
    load_finder_weights,
)
from diffusionpose.runtime.people import load_finder_network

NOBODY = np.zeros((0, 4), np.float32)
BOX = np.array([[20, 8, 60, 88]], np.float32)  # its centre is (40, 48): pixel (10, 12) of stride 4


@pytest.fixture(scope="module")
def finder() -> PeopleFinder:
    torch.manual_seed(0)
    return PeopleFinder(width=0.25).eval()


def test_finds_multipose_as_published(data_dir: Path) -> None:
    folder = data_dir / "pose_init"
    finder = PeopleFinder().eval()
    load_finder_weights(finder, folder / "movenet_multipose.fp16.safetensors")
    check = load_file(folder / "movenet_multipose_check.safetensors")
    with torch.no_grad():
        logits, boxes = finder(check["images"].float())
    center = next(check[name] for name in check if name.endswith("center"))
    size = next(check[name] for name in check if name.endswith("box_scale")).float()
    torch.testing.assert_close(logits, center[:, 0].float(), atol=0.02, rtol=2e-3)
    sides = (boxes[:, 2:] - boxes[:, :2]) / 4  # x, y
    torch.testing.assert_close(sides.flip(1), size, atol=0.05, rtol=2e-3)


def test_targets_of_a_person() -> None:
    targets = draw_targets(BOX, NOBODY, 24, 16)
    assert targets.center[12, 10] == 1
    assert (targets.center == 1).sum() == 1
    assert targets.center[15, 10] > targets.center[12, 13]  # as long as the person
    assert targets.boxes[:, 12, 10].tolist() == BOX[0].tolist()
    assert float(targets.weight.sum()) == pytest.approx(1)
    assert targets.known.all()


def test_of_two_persons_the_nearer_has_the_pixel() -> None:
    both = np.concatenate([BOX, BOX + [24, 0, 24, 0]]).astype(np.float32)
    targets = draw_targets(both, NOBODY, 24, 32)
    assert targets.boxes[:, 12, 10].tolist() == both[0].tolist()
    assert targets.boxes[:, 12, 16].tolist() == both[1].tolist()
    assert float(targets.weight.sum()) == pytest.approx(2)


def test_where_nobody_labelled_nothing_is_unlearned() -> None:
    unknown = np.array([[0, 60, 64, 96]], np.float32)
    targets = draw_targets(BOX, unknown, 24, 16)
    assert targets.known[12, 10] == 1
    assert targets.known[20, 2] == 0
    logits, boxes = torch.full((1, 24, 16), -9.0), targets.boxes[None]
    logits[0, 12, 10] = 9
    batch = Targets(*(each[None] for each in targets))
    quiet = finder_loss(logits, boxes, batch)[0]
    logits[0, 20, 2] = 9  # a guess there costs nothing, elsewhere it does
    assert finder_loss(logits, boxes, batch)[0] == quiet
    logits[0, 2, 2] = 9
    assert finder_loss(logits, boxes, batch)[0] > quiet + 5


def test_loss_is_nought_for_what_is_true_and_trains(finder: PeopleFinder) -> None:
    targets = Targets(*(each[None] for each in draw_targets(BOX, NOBODY, 24, 16)))
    perfect = torch.where(targets.center == 1, 20.0, -20.0)
    center_loss, box_loss = finder_loss(perfect, targets.boxes, targets)
    assert center_loss < 1e-3
    assert box_loss < 1e-3
    images = torch.randn(1, 3, 96, 64, generator=torch.Generator().manual_seed(0))
    finder.requires_grad_(True)
    sum(finder_loss(*finder(images), targets)).backward()
    assert all(torch.isfinite(p.grad).all() for p in finder.parameters())
    finder.zero_grad()


def test_a_picture_of_nobody_has_a_loss_too() -> None:
    targets = Targets(*(each[None] for each in draw_targets(NOBODY, NOBODY, 24, 16)))
    center_loss, box_loss = finder_loss(torch.zeros(1, 24, 16), torch.zeros(1, 4, 24, 16), targets)
    assert center_loss > 0
    assert box_loss == 0


def test_peaks_are_local_maxima(finder: PeopleFinder) -> None:
    images = torch.randn(1, 3, 96, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        scores, _ = Peaks(finder)(images)
        logits, _ = finder(images)
    y, x = divmod(int(logits[0].argmax()), 16)
    assert scores[0, y, x] == logits[0].max().sigmoid()
    near = scores[0, max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2]
    assert (near > 0).sum() == 1


def test_exported_file_computes_the_same_for_any_size(finder: PeopleFinder, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    path = tmp_path / "finder.onnx"
    assert export_people_finder(finder, path) < 1e-4
    weights = sum(p.numel() for p in finder.parameters())
    assert path.stat().st_size < 2 * weights + 150_000  # two bytes a weight
    network = load_finder_network(path)
    for size in ((64, 32), (160, 224)):
        scores, boxes = network(np.zeros((1, 3, *size), np.float32))
        assert scores.shape == (1, size[0] // 4, size[1] // 4)
        assert boxes.shape == (1, 4, size[0] // 4, size[1] // 4)


def test_weights_of_another_network(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    save_file({"head.weight": torch.zeros(1)}, path)
    with pytest.raises(InputError, match=r"other\.safetensors: neither weights of a people finder"):
        load_finder_weights(PeopleFinder(width=0.25), path)
    with pytest.raises(InputError, match="not a readable safetensors file"):
        load_finder_weights(PeopleFinder(width=0.25), tmp_path / "none.safetensors")
