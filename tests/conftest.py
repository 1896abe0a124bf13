"""What every test shares: where the real data is, a small synthetic set, and a steady machine."""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np

    from diffusionpose.models.pose_model import PoseModel

# Read by torch, OpenBLAS and OpenMP when they are first imported, here and in child processes. One
# thread: the networks here are small, and on a machine that does other work as well, two that wait
# for each other at every layer made these tests twenty times slower.
for _variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")

# A first call into torch can take seconds, so no deadline; the same examples in every run.
settings.register_profile("house", deadline=None, derandomize=True)
# Fresh examples, for a longer hunt: pytest --hypothesis-profile=hunt
settings.register_profile("hunt", deadline=None, max_examples=2000)
settings.load_profile("house")

ROOT = Path(__file__).resolve().parents[1]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The long modules first, so that the processes of pytest-xdist end together."""
    items.sort(key=lambda item: "tests/training/" not in item.nodeid)  # the others keep their order


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Folder with the real pictures and annotations; the test is skipped where there is none."""
    given = os.environ.get("DIFFUSIONPOSE_DATA")
    folder = Path(given) if given else ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"needs real pictures: no folder {folder} (set DIFFUSIONPOSE_DATA)")
    return folder


@pytest.fixture(scope="session")
def synthetic_set(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Twelve pictures of synthetic people: (folder of images, annotation file in COCO's format)."""
    from diffusionpose.data.synthetic import write_synthetic

    images, annotations = write_synthetic(tmp_path_factory.mktemp("synthetic"), 12, seed=0)
    return Path(images), Path(annotations)


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of a very small model with random weights."""
    import torch

    from diffusionpose import create_model, save_model

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_model(create_model("diffusionpose_tiny", "crowdpose", input_size=(48, 64)), path)
    return path


@pytest.fixture(scope="session")
def tiny_onnx(tiny_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model of ``tiny_weights`` exported with one step."""
    pytest.importorskip("onnxruntime")
    return _exported(tiny_weights, tmp_path_factory, "tiny.onnx")


@pytest.fixture(scope="session")
def tiny_openvino(tiny_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model of ``tiny_weights`` exported with one step for OpenVINO."""
    pytest.importorskip("openvino")
    return _exported(tiny_weights, tmp_path_factory, "tiny.xml")


@pytest.fixture(scope="session")
def tiny_folder(tiny_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model of ``tiny_weights`` exported as two graphs."""
    return _exported(tiny_weights, tmp_path_factory, "tiny")


def _exported(weights: Path, factory: pytest.TempPathFactory, name: str) -> Path:
    """Once for all processes of pytest-xdist, whose weights are the same: an export takes its time."""
    from filelock import FileLock

    from diffusionpose.models.checkpoints import load_model
    from diffusionpose.models.export import export_model

    base = factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / f"exported-{name}"
    folder.mkdir(exist_ok=True)
    with FileLock(folder.with_suffix(".lock")):
        if not (folder / name).exists():
            export_model(load_model(weights), folder / name)
    return folder / name


GRAPHS = {  # the operators of ``light_weights``, in ONNX's own language
    "encoder": """(uint8[b, 3, 64, 48] images) => (float[b, 8, 16, 12] x_fea, float[b, 14, 16, 12] hm_T)
        {x = Cast<to = 1>(images) x_fea = Conv<strides = [4, 4]>(x, w)
         y = Conv(x_fea, v) hm_T = Sigmoid(y)}""",
    "step": """(float[b, 8, 16, 12] x_fea, float[b, 14, 16, 12] hm_t, float[b, 14, 2] y_t)
        => (float[b, 14, 16, 12] heatmaps)
        {x = Conv(x_fea, v) y = Sigmoid(x) heatmaps = Mean(hm_t, y)}""",
}


@pytest.fixture(scope="session")
def light_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A diffusion network of three convolutions, written by hand as two graphs.

    It opens in milliseconds; a process of its own that imports PyTorch computes for ten seconds before.
    """
    onnx = pytest.importorskip("onnx")
    import numpy as np

    from diffusionpose.skeletons import CROWDPOSE

    folder, random = tmp_path_factory.mktemp("light"), np.random.default_rng(0)
    facts = {"model": "light", "skeleton": CROWDPOSE.to_dict(), "input_size": [48, 64], "stride": 4}
    for name, text in GRAPHS.items():
        model = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["": 18]> {name} {text}')
        for kernel, spread, shape in (("w", 0.01, (8, 3, 4, 4)), ("v", 0.3, (14, 8, 1, 1))):
            values = random.normal(0, spread, shape).astype(np.float32)
            values -= values.mean((1, 2, 3), keepdims=True)  # brightness alone moves nothing
            model.graph.initializer.append(onnx.numpy_helper.from_array(values, kernel))
        onnx.helper.set_model_props(
            model, {"diffusionpose": json.dumps({**facts, "unbiased": False, "steps": 1, "flip": False})}
        )
        onnx.save(model, folder / f"{name}.onnx")
    return folder


@pytest.fixture(scope="session")
def picture() -> np.ndarray:
    """(90, 120, 3) uint8 RGB: soft blobs, so that neither compression nor interpolation dominates."""
    import cv2
    import numpy as np

    coarse = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return cv2.resize(coarse, (120, 90), interpolation=cv2.INTER_CUBIC)


@pytest.fixture(scope="session")
def lively() -> Callable[..., PoseModel]:
    """``lively(name, **options)``: heads begin near zero, so they are scaled until heatmaps vary by 0.2."""

    import torch

    from diffusionpose import create_model
    from diffusionpose.models.export import random_crops

    def make(name: str = "diffusionpose_tiny", **options: object) -> PoseModel:
        torch.manual_seed(0)
        model = create_model(name, "crowdpose", **{"input_size": (64, 96), **options}).eval()
        images = torch.from_numpy(random_crops(2, model.input_size))
        heads = [module for module in model.modules() if isinstance(module, torch.nn.Conv2d)][-1:]
        if model.default_steps is not None:
            heads.insert(0, model.conv)
        with torch.no_grad():
            for step, head in enumerate(heads):
                options = {"steps": step} if model.default_steps is not None else {}
                head.weight.mul_(0.2 / model(images, **options).std())
        return model

    return make


@pytest.fixture
def uncounted_norms(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batch norms do nothing: multiply-adds are counted without them, and they take most of the time."""
    from torch import nn

    monkeypatch.setattr(nn.BatchNorm2d, "forward", lambda norm, x: x)


@pytest.fixture
def fresh_processes() -> Iterator[None]:
    """Processes begin in a fresh interpreter, which has PyTorch once for all of them.

    A fork of one with threads, as after other tests, may hang.
    """
    multiprocessing.set_forkserver_preload(["diffusionpose.data.dataset"])
    before = multiprocessing.get_start_method(allow_none=True)
    multiprocessing.set_start_method("forkserver", force=True)
    yield
    multiprocessing.set_start_method(before, force=True)
