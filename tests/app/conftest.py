"""A very small model with random weights, a picture, and the command line called in this process."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from diffusionpose import create_model, save_model
from diffusionpose.app.cli import main


class Ended(NamedTuple):
    """How a call of the command line ended."""

    status: int
    out: str
    err: str


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., Ended]:
    """``diffusionpose WORDS`` in this process."""

    def call(*words: object) -> Ended:
        capsys.readouterr()
        try:
            status = main([str(word) for word in words])
        except SystemExit as end:
            status = int(end.code or 0)
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        return Ended(status, captured.out, captured.err)

    return call


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_model(create_model("diffusionpose_tiny", "crowdpose", input_size=(48, 64)), path)
    return path


@pytest.fixture(scope="session")
def pixels() -> np.ndarray:
    """(90, 120, 3) RGB: soft blobs of many colours."""
    coarse = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return cv2.resize(coarse, (120, 90), interpolation=cv2.INTER_CUBIC)


@pytest.fixture
def photo(tmp_path: Path, pixels: np.ndarray) -> Path:
    """A good picture in a folder of its own."""
    path = tmp_path / "in" / "photo.png"
    path.parent.mkdir()
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def predicted(
    run: Callable[..., Ended], tiny_weights: Path, tmp_path: Path
) -> Callable[..., tuple[int, str, list[dict]]]:
    """``predict WORDS --output out`` with the tiny model: status, stderr, entries of the JSON."""

    def call(*words: object) -> tuple[int, str, list[dict]]:
        output = tmp_path / "out"
        status, _, err = run(
            "predict", *words, "--output", output, "--weights", tiny_weights, "--device", "cpu"
        )
        file = output / "keypoints.json"
        return status, err, json.loads(file.read_text()) if file.exists() else []

    return call
