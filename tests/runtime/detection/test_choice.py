import logging
import shutil
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
    HUB,
    TorchvisionDetector,
    TransformersDetector,
)
from diffusionpose.runtime.estimator import make_detector
from diffusionpose.runtime.people import WholeImage

Folder = Callable[..., Path]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Empty caches of the hub and of torchvision, and no network."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(torchvision_models.torch.hub, "get_dir", lambda: str(tmp_path / "torch"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return tmp_path


def put_in_hub_cache(cache: Path, repository: str, folder: Path) -> None:
    """As the hub's client lays it out: refs/main names the snapshot."""
    place = cache / "hub" / f"models--{repository.replace('/', '--')}"
    shutil.copytree(folder, place / "snapshots" / ("0" * 40))
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text("0" * 40)


def test_without_network_auto_takes_the_whole_picture_and_says_so_once(cache: Path) -> None:
    told: list[str] = []
    assert isinstance(make_detector("auto", "cpu", tell=told.append), WholeImage)
    (words,) = told
    assert "taking each whole picture as one" in words
    assert "HF_HUB_OFFLINE is set" in words
    assert "--boxes" in words
    assert "\n" not in words


def test_auto_takes_what_is_in_the_caches_in_order_of_preference(
    cache: Path, detr_folder: Folder, ssdlite_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(choice.TORCHVISION, "fasterrcnn", "ssdlite320_mobilenet_v3_large")
    told: list[str] = []
    weights = torchvision_models.cached_weights("ssdlite320_mobilenet_v3_large")
    weights.parent.mkdir(parents=True)
    shutil.copy(ssdlite_file, weights)
    assert isinstance(make_detector("auto", "cpu", tell=told.append), TorchvisionDetector)
    for name, kind in (("rtdetr", "rtdetr_v2"), ("dfine", "dfine")):
        put_in_hub_cache(cache, HUB[name][0], detr_folder(kind))
        detector = make_detector("auto", "cpu", tell=told.append)
        assert isinstance(detector, TransformersDetector)
        assert detector._model.config.model_type == {"rtdetr": "rt_detr_v2", "dfine": "d_fine"}[name]
    assert [words.split()[4] for words in told] == ["fasterrcnn", "rtdetr", "dfine"]
    monkeypatch.setattr(choice, "_has_transformers", lambda: False)
    assert isinstance(make_detector("auto", "cpu", tell=told.append), TorchvisionDetector)


def test_a_cache_that_lacks_a_file_is_no_detector(cache: Path, detr_folder: Folder, tmp_path: Path) -> None:
    shutil.copytree(detr_folder("dfine"), tmp_path / "half")
    (tmp_path / "half" / "model.safetensors").unlink()
    put_in_hub_cache(cache, HUB["dfine"][0], tmp_path / "half")
    assert isinstance(make_detector("auto", "cpu", tell=lambda words: None), WholeImage)


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
    assert isinstance(make_detector("auto", "cpu", tell=told.append), TransformersDetector)
    assert told[0].startswith("downloading ustc-community/dfine-small-coco, 42 MB")
    assert told[1] == "looking for persons with dfine"
    assert {file for _, file in asked} == set(transformers_models.FILES)


@pytest.mark.parametrize("name", ["rtdetr", "dfine", "fasterrcnn", "ssdlite320_mobilenet_v3_large", "a/b"])
def test_a_detector_that_is_asked_for_and_cannot_be_had_is_an_error(cache: Path, name: str) -> None:
    with pytest.raises(InputError, match="HF_HUB_OFFLINE is set; ") as caught:
        make_detector(name, "cpu")
    assert "--boxes FILE" in str(caught.value)


@pytest.mark.parametrize("name", ["nonsense", "./nowhere/at/all", "/no/such", "~/x"])
def test_a_name_that_stands_for_nothing_is_an_error(cache: Path, name: str) -> None:
    with pytest.raises(InputError, match="no such detector, folder or file; give auto, whole, dfine"):
        make_detector(name, "cpu")


def test_without_transformers_the_extra_is_named(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "_has_transformers", lambda: False)
    with pytest.raises(InputError, match=r"pip install 'diffusionpose\[detect\]'"):
        make_detector("rtdetr", "cpu")


def test_numbers_out_of_range_are_errors() -> None:
    for options in ({"min_score": 1.5}, {"min_score": -0.1}, {"max_persons": 0}):
        with pytest.raises(InputError, match="must be"):
            make_detector("whole", "cpu", **options)


def test_in_python_the_choice_is_logged(cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        make_detector("auto", "cpu")
    assert "taking each whole picture as one" in caplog.text
