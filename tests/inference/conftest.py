"""A very small model with random weights, and a picture."""

from pathlib import Path

import numpy as np
import pytest
import torch

from diffusionpose import create_model, save_model


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_model(create_model("diffusionpose_tiny", "crowdpose", input_size=(48, 64)), path)
    return path


@pytest.fixture(scope="session")
def picture() -> np.ndarray:
    """(90, 120, 3): soft blobs, so that neither compression nor interpolation dominates."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
    import cv2

    return cv2.resize(coarse, (120, 90), interpolation=cv2.INTER_CUBIC)
