"""Models in folders and on the hub, which is stubbed: no test here uses a network."""

import json
import time
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
import torch
import yaml
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

from diffusionpose import InputError, PoseEstimator, load_model
from diffusionpose.models.diffusion_pose import DiffusionPose
from diffusionpose.models.pose_model import HeatmapModel, PoseModel
from diffusionpose.models.zoo import create_model
from diffusionpose.skeletons import CROWDPOSE


@pytest.fixture(scope="module")
def model() -> PoseModel:
    torch.manual_seed(0)
    return create_model("diffusionpose_tiny", CROWDPOSE, zeta=0.1).eval()


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (2, 3, 96, 64), dtype=torch.uint8, generator=generator)


def test_what_is_loaded_is_what_was_saved_bit_by_bit(model, images, tmp_path):
    model.save_pretrained(tmp_path / "new" / "folder")
    for loaded in (
        PoseModel.from_pretrained(tmp_path / "new" / "folder"),
        load_model(tmp_path / "new" / "folder"),
        PoseEstimator.from_pretrained(tmp_path / "new" / "folder", device="cpu").model,
    ):
        assert loaded.config == model.config
        for name, value in model.state_dict().items():
            assert torch.equal(loaded.state_dict()[name], value)
    with torch.no_grad():
        again = DiffusionPose.from_pretrained(tmp_path / "new" / "folder")
        assert torch.equal(model.heatmaps(images), again.heatmaps(images))
    with pytest.raises(InputError, match="is no HeatmapModel but a DiffusionPose"):
        HeatmapModel.from_pretrained(tmp_path / "new" / "folder")


def test_the_card_tells_what_the_config_says(model, tmp_path):
    metrics = {"AP": 0.4479, "PCK": 0.58}
    model.save_pretrained(tmp_path, metrics=metrics, licence="cc-by-4.0", name="me/runner")
    card = (tmp_path / "README.md").read_text()
    _, front, body = card.split("---\n", 2)
    assert yaml.safe_load(front)["license"] == "cc-by-4.0"
    assert yaml.safe_load(front)["library_name"] == "diffusionpose"
    for words in (
        "# runner\n", "64x96 (width x height)", "14 (crowdpose): left_shoulder,", '{"zeta": 0.1}',
        "| AP | 0.4479 |", "Of the weights: cc-by-4.0.", "2306.17074", "@article{",
        'from_pretrained("me/runner")',
    ):  # fmt: skip
        assert words in body
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["name"] == "diffusionpose_tiny"
    assert tuple(config["skeleton"]["joints"]) == CROWDPOSE.joints
    model.save_pretrained(tmp_path)
    card = (tmp_path / "README.md").read_text()
    assert yaml.safe_load(card.split("---\n")[1])["license"] == "unknown"
    assert "Metrics" not in card


def test_the_snippet_of_the_card_runs(model, picture, tmp_path, monkeypatch):
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    Image.fromarray(picture).save("photo.jpg")
    model.save_pretrained("runner")
    snippet = Path("runner/README.md").read_text().split("```python\n")[1].split("```")[0]
    scope = {"x0": 5, "y0": 5, "x1": 60, "y1": 80}
    exec(snippet, scope)
    assert len(scope["poses"]) == 1


def test_what_cannot_be_saved(model, tiny_onnx, tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(InputError, match=r"file: cannot be written to"):
        model.save_pretrained(tmp_path / "file")
    with pytest.raises(InputError, match="no weights to save"):
        load_model(tiny_onnx).save_pretrained(tmp_path / "onnx")
    assert not (tmp_path / "onnx").exists()


class Api:
    """HfApi without a network: notes what it is asked for."""

    calls: list[tuple] = []  # noqa: RUF012
    fault: Exception | None = None

    def __init__(self, token: str | None = None) -> None:
        self.calls.append(("token", token))

    def create_repo(self, repository: str, private: bool, exist_ok: bool) -> None:
        if self.fault:
            raise self.fault
        self.calls.append(("create", repository, private, exist_ok))

    def upload_folder(self, repo_id: str, folder_path: str, commit_message: str) -> SimpleNamespace:
        files = {path.name: path.read_bytes() for path in Path(folder_path).iterdir()}
        self.calls.append(("upload", repo_id, files))
        return SimpleNamespace(commit_url=f"https://huggingface.co/{repo_id}/commit/1")


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> type[Api]:
    stub = type("Stub", (Api,), {"calls": [], "fault": None})
    monkeypatch.setattr(huggingface_hub, "HfApi", stub)
    return stub


def test_push_uploads_what_save_writes(model, api, images, tmp_path):
    address = model.push_to_hub("me/runner", private=True, token="t", licence="mit", metrics={"AP": 0.5})
    assert address.endswith("/me/runner/commit/1")
    token, create, (what, repository, files) = api.calls
    assert (token, create) == (("token", "t"), ("create", "me/runner", True, True))
    assert (what, repository, set(files)) == (
        "upload",
        "me/runner",
        {"model.safetensors", "config.json", "README.md"},
    )
    assert b'license: "mit"' in files["README.md"]
    assert b'from_pretrained("me/runner")' in files["README.md"]
    (tmp_path / "model.safetensors").write_bytes(files["model.safetensors"])
    with torch.no_grad():
        assert torch.equal(load_model(tmp_path)(images), model(images))


def test_what_cannot_be_pushed(model, api):
    with pytest.raises(InputError, match="runner: is no id of a hub repository"):
        model.push_to_hub("runner")
    api.fault = OSError("401 Client Error")
    with pytest.raises(
        InputError, match=r"me/runner: could not be uploaded \(OSError: 401 Client Error\); log in"
    ):
        model.push_to_hub("me/runner")


def answer(status: int) -> HfHubHTTPError:
    class Answered(HfHubHTTPError):
        def __init__(self) -> None:
            Exception.__init__(self, f"{status} Client Error. Repository Not Found")

    return Answered()


def test_an_id_that_does_not_exist_or_cannot_be_reached(monkeypatch):
    def never(*_: object, **__: object) -> None:
        raise AssertionError("no download after a first request that failed")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", never)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_: None)
    for fault, message in (
        (answer(404), "404 Client Error"),
        (LocalEntryNotFoundError("Cannot reach the hub"), "Cannot reach the hub"),
        (ConnectionError("no way out"), "ConnectionError: no way out"),
        (ValueError("bad repo id"), "bad repo id"),
    ):

        def metadata(url: str, timeout: float, fault: Exception = fault) -> None:
            assert "nobody/nothing" in url
            assert timeout <= 10
            raise fault

        monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", metadata)
        with pytest.raises(
            InputError, match=rf"nobody/nothing: neither a file here nor .*{message}.*check the name"
        ):
            load_model("nobody/nothing")


def test_without_a_network_the_cache_serves(monkeypatch, tiny_weights):
    def metadata(*_: object, **__: object) -> None:
        raise ConnectionError("no way out")

    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", metadata)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_: str(tiny_weights))
    assert load_model("me/runner").config["name"] == "diffusionpose_tiny"


def test_no_answer_is_told_soon(monkeypatch):
    """A real request to an address where nobody listens; the hub's own download repeats it for minutes."""
    monkeypatch.setattr(
        huggingface_hub, "hf_hub_url", lambda repository, file: f"http://127.0.0.1:9/{repository}/{file}"
    )
    began = time.perf_counter()
    with pytest.raises(InputError, match="nobody/nothing: neither"):
        load_model("nobody/nothing")
    assert time.perf_counter() - began < 15
