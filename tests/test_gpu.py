"""On a GPU: the same outputs as on the CPU, in 32 bits, bf16 and by onnxruntime; and a training step."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from diffusionpose.bundled import DEFAULT_MODEL, PORTRAIT  # noqa: E402
from diffusionpose.geometry import Crop  # noqa: E402
from diffusionpose.models.checkpoints import load_model  # noqa: E402
from diffusionpose.models.pose_model import PoseModel  # noqa: E402
from diffusionpose.runtime.images import read_image  # noqa: E402
from diffusionpose.runtime.networks import load_network  # noqa: E402

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU that CUDA knows")


@pytest.fixture(scope="module")
def model() -> PoseModel:
    return load_model(DEFAULT_MODEL).eval()


@pytest.fixture(scope="module")
def crops(model: PoseModel) -> torch.Tensor:
    """(3, 3, h, w) uint8: a portrait, larger and smaller."""
    image = read_image(PORTRAIT)
    height, width = image.shape[:2]
    boxes = np.array([[0, 0, width, height], [width / 4, 0, 3 * width / 4, height / 2], [0, 0, width, 300]])
    cut = Crop.from_boxes(boxes, model.input_size, unbiased=model.unbiased)
    return torch.from_numpy(np.stack([cut.cut(image, index) for index in range(3)])).permute(0, 3, 1, 2)


@pytest.fixture(scope="module")
def on_cpu(model: PoseModel, crops: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return model(crops)


@pytest.fixture
def exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """No TF32, whose products have 10 bits."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", False)


@pytest.mark.usefixtures("exact")
@pytest.mark.parametrize("channels_last", [False, True])
def test_heatmaps_are_those_of_the_cpu(
    model: PoseModel, crops: torch.Tensor, on_cpu: torch.Tensor, channels_last: bool
) -> None:
    layout = torch.channels_last if channels_last else torch.contiguous_format
    try:
        gpu = model.to("cuda", memory_format=layout)
        with torch.inference_mode():
            found = gpu(crops.cuda().contiguous(memory_format=layout)).cpu()
    finally:
        model.to("cpu")
    assert (found - on_cpu).abs().max() < 1e-3


def test_bf16_moves_no_sure_joint(model: PoseModel, crops: torch.Tensor, on_cpu: torch.Tensor) -> None:
    try:
        with torch.inference_mode(), torch.autocast("cuda", torch.bfloat16):
            found = model.to("cuda")(crops.cuda()).float().cpu()
    finally:
        model.to("cpu")
    assert (found - on_cpu).abs().max() < 0.1
    ours, _ = model.codec.decode(found, "dark")
    theirs, scores = model.codec.decode(on_cpu, "dark")
    assert (scores > 0.5).sum() > 10
    assert (ours - theirs)[scores > 0.5].abs().max() < 0.5  # heatmap pixels


def test_onnxruntime_on_the_gpu(crops: torch.Tensor, on_cpu: torch.Tensor) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has no CUDA")
    found = load_network(DEFAULT_MODEL, "cuda").heatmaps(crops.numpy())[-1]
    assert np.abs(np.asarray(found) - on_cpu.numpy()).max() < 0.02  # TF32


@pytest.mark.usefixtures("exact")
@pytest.mark.parametrize("compiled", [False, True])
def test_a_training_step_is_that_of_the_cpu(crops: torch.Tensor, compiled: bool) -> None:
    keypoints = torch.rand(3, 19, 2, generator=torch.Generator().manual_seed(0)) * 190
    found = []
    for device in ("cpu", "cuda"):
        model = load_model(DEFAULT_MODEL).to(device).train()
        noise = model.draw_noise(3, torch.Generator().manual_seed(1))
        loss = torch.compile(model.loss) if compiled and device == "cuda" else model.loss
        noise = {name: value.to(device) for name, value in noise.items()}
        value = loss(crops.to(device), keypoints.to(device), torch.ones(3, 19, device=device), noise=noise)
        value["loss"].backward()
        sizes = [float(each.grad.norm()) for each in model.parameters() if each.grad is not None]
        found.append([float(value["loss"].detach()), sum(sizes)])
    assert found[1] == pytest.approx(found[0], rel=1e-2)
