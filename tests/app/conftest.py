"""A photograph on disk, and the command line called in this process."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image

from diffusionpose.app.cli import main

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


class Ended(NamedTuple):
    """How a call of the command line ended."""

    status: int
    out: str
    err: str


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Chromium; tests that need it are skipped without."""
    sync_api = pytest.importorskip("playwright.sync_api")
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.skip(f"needs a browser: none of {', '.join(BROWSERS)} is on the PATH")
    with sync_api.sync_playwright() as playwright:
        # --no-sandbox: root in a container has no other way
        chromium = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"], timeout=60_000)
        yield chromium
        chromium.close()


@pytest.fixture
def people(synthetic_set: tuple[Path, Path], tmp_path: Path) -> tuple[Path, Path]:
    """A copy of the synthetic set that a test may spoil: (images, annotations)."""
    images, annotations = synthetic_set
    shutil.copytree(images, tmp_path / "images")
    shutil.copy(annotations, tmp_path / "people.json")
    return tmp_path / "images", tmp_path / "people.json"


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """No network and empty caches, whatever this machine has."""
    nothing = str(tmp_path_factory.mktemp("cache"))
    monkeypatch.setenv("TORCH_HOME", nothing)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", nothing)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


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


@pytest.fixture
def photo(tmp_path: Path, picture: np.ndarray) -> Path:
    """A good picture in a folder of its own."""
    path = tmp_path / "in" / "photo.png"
    path.parent.mkdir()
    Image.fromarray(picture).save(path)
    return path


@pytest.fixture
def predicted(
    run: Callable[..., Ended], tiny_weights: Path, tmp_path: Path
) -> Callable[..., tuple[int, str, list[dict]]]:
    """``predict WORDS --output out`` with the tiny model: status, stderr, entries of the JSON."""

    def call(*words: object) -> tuple[int, str, list[dict]]:
        output = tmp_path / "out"
        words += () if {"--boxes", "--detector"} & set(words) else ("--detector", "whole")
        status, _, err = run(
            "predict", *words, "--output", output, "--weights", tiny_weights, "--device", "cpu"
        )
        file = output / "keypoints.json"
        return status, err, json.loads(file.read_text()) if file.exists() else []

    return call
