from collections.abc import Callable
from pathlib import Path

import pytest

from diffusionpose import InputError
from diffusionpose.runtime import (
    detectors as choice,
)
from diffusionpose.runtime import (
    detectors as torchvision_models,
)
from diffusionpose.runtime import (
    detectors as transformers_models,
)
from diffusionpose.runtime.detectors import (
    TransformersDetector,
)
from diffusionpose.runtime.estimator import make_detector

Folder = Callable[..., Path]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Empty caches of the hub and of torchvision, and no network."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(torchvision_models.torch.hub, "get_dir", lambda: str(tmp_path / "torch"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return tmp_path


def test_a_download_is_told_and_used(
    cache: Path, detr_folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    asked = []

    def hf_hub_download(repository: str, file: str, local_files_only: bool = False) -> str:
        if local_files_only:
            raise FileNotFoundError(file)
        asked.append((repository, file))
        return str(detr_folder("dfine") / file)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", hf_hub_download)
    monkeypatch.setattr(transformers_models, "out_of_reach", lambda url: None)
    told: list[str] = []
    assert isinstance(make_detector("dfine", "cpu", tell=told.append), TransformersDetector)
    assert told[0].startswith("downloading ustc-community/dfine-small-coco, 42 MB")
    assert len(told) == 1
    assert {file for _, file in asked} == set(transformers_models.FILES)


@pytest.mark.parametrize("name", ["rtdetr", "dfine", "fasterrcnn", "ssdlite320_mobilenet_v3_large", "a/b"])
def test_a_detector_that_is_asked_for_and_cannot_be_had_is_an_error(cache: Path, name: str) -> None:
    with pytest.raises(InputError, match="HF_HUB_OFFLINE is set; ") as caught:
        make_detector(name, "cpu")
    assert "--boxes FILE" in str(caught.value)


@pytest.mark.parametrize("name", ["nonsense", "./nowhere/at/all", "/no/such", "~/x"])
def test_a_name_that_stands_for_nothing_is_an_error(cache: Path, name: str) -> None:
    with pytest.raises(InputError, match="no such detector, folder or file; give auto, people, whole, dfine"):
        make_detector(name, "cpu")


def test_without_transformers_the_extra_is_named(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "_has_transformers", lambda: False)
    with pytest.raises(InputError, match=r"pip install 'diffusionpose\[detect\]'"):
        make_detector("rtdetr", "cpu")


def test_numbers_out_of_range_are_errors() -> None:
    for options in ({"min_score": 1.5}, {"min_score": -0.1}, {"max_persons": 0}):
        with pytest.raises(InputError, match="must be"):
            make_detector("whole", "cpu", **options)
