"""Checkpoints: whole or not at all, not trusted, and every fault with a message that names the file."""

import json
import pickle
import random
import shutil
import time
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
import torch
import yaml
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
from safetensors import safe_open
from safetensors.torch import save_file

from diffusionpose.errors import InputError
from diffusionpose.models.checkpoints import (
    find_weights,
    load_model,
    push_to_hub,
    save_model,
    save_pretrained,
)
from diffusionpose.models.zoo import create_model
from diffusionpose.skeletons import COCO, CROWDPOSE


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return create_model("diffusionpose_tiny", CROWDPOSE, zeta=0.1).eval()


@pytest.fixture
def checkpoint(model, tmp_path):
    save_model(model, tmp_path / "model.safetensors", epoch=3)
    return tmp_path / "model.safetensors"


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (2, 3, 96, 64), dtype=torch.uint8, generator=generator)


def test_facts_are_kept_in_the_metadata(checkpoint):
    with safe_open(str(checkpoint), "pt") as file:
        assert json.loads(file.metadata()["diffusionpose"])["facts"] == {"epoch": 3}


def test_half_precision_is_smaller_and_nearly_the_same(model, checkpoint, tmp_path):
    save_model(model, tmp_path / "half.safetensors", half=True)
    assert (tmp_path / "half.safetensors").stat().st_size < 0.75 * checkpoint.stat().st_size
    images = torch.randint(0, 256, (1, 3, 96, 64), dtype=torch.uint8)
    whole, half = model(images), load_model(tmp_path / "half.safetensors")(images)
    assert (whole - half).abs().max() < 0.01 * whole.abs().max()


def test_normalisation_travels_with_the_weights(data_dir, tmp_path):
    file = data_dir / "imagenet_init" / "mobilenetv2_100_imagenet.fp16.safetensors"
    model = create_model("mobilenetv2", CROWDPOSE, encoder_weights=file)
    save_model(model, tmp_path / "model.safetensors")
    assert load_model(tmp_path / "model.safetensors").mean.flatten().tolist() == [127.5] * 3
    assert create_model("mobilenetv2", CROWDPOSE).mean[0].item() == pytest.approx(255 * 0.485)


def test_encoder_weights_change_what_they_name(data_dir):
    file = data_dir / "imagenet_init" / "mobilenetv2_100_imagenet.fp16.safetensors"
    loaded = create_model("mobilenetv2", CROWDPOSE, encoder_weights=file).encoder.backbone.state_dict()
    with safe_open(str(file), "pt") as weights:
        stored = weights.get_tensor("blocks.3.1.conv_pw.weight")
    assert torch.equal(loaded["blocks.3.1.conv_pw.weight"], stored.float())


def test_encoder_weights_of_another_network(checkpoint):
    with pytest.raises(
        InputError, match=r"model.safetensors: does not fit the backbone: \d+ weights missing"
    ):
        create_model("mobilenetv2", CROWDPOSE, encoder_weights=checkpoint)


def test_cut_short(checkpoint):
    checkpoint.write_bytes(checkpoint.read_bytes()[: checkpoint.stat().st_size // 2])
    with pytest.raises(
        InputError, match=r"model.safetensors: not a readable safetensors file.*copy it again"
    ):
        load_model(checkpoint)


def test_empty_file(tmp_path):
    (tmp_path / "empty.safetensors").touch()
    with pytest.raises(InputError, match=r"empty.safetensors: not a readable"):
        load_model(tmp_path / "empty.safetensors")


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".ckpt", ".bin"])
def test_a_pickle_is_refused_unopened(tmp_path, suffix):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "opened"), "w"))

    file = tmp_path / f"weights{suffix}"
    file.write_bytes(pickle.dumps(Trap()))
    with pytest.raises(InputError, match="a pickle, which can run code"):
        load_model(file)
    assert not (tmp_path / "opened").exists()


def test_a_pickle_under_another_name_is_refused_too(tmp_path):
    file = tmp_path / "model.safetensors"
    torch.save({"a": torch.zeros(3)}, file)
    with pytest.raises(InputError, match="not a readable safetensors file"):
        load_model(file)


def test_of_another_skeleton(checkpoint):
    with pytest.raises(InputError, match="made for the 14 joints of 'crowdpose', not for the 17 of 'coco'"):
        load_model(checkpoint, skeleton=COCO)


def test_safetensors_of_somebody_else(tmp_path):
    save_file({"a": torch.zeros(3)}, tmp_path / "other.safetensors")
    with pytest.raises(InputError, match="without this package's metadata"):
        load_model(tmp_path / "other.safetensors")


def test_metadata_that_does_not_fit_the_weights(model, tmp_path):
    config = {**model.config, "name": "tiny", "options": {"input_size": [64, 96]}}
    save_file({"a": torch.zeros(3)}, tmp_path / "mixed.safetensors", {"diffusionpose": json.dumps(config)})
    with pytest.raises(InputError, match="does not fit the model its metadata names, tiny"):
        load_model(tmp_path / "mixed.safetensors")


def test_no_such_thing(tmp_path):
    with pytest.raises(InputError, match="no such file, run folder or bundled model"):
        load_model(tmp_path / "missing.safetensors")
    with pytest.raises(InputError, match="has the run finished an epoch"):
        load_model(tmp_path)


def test_a_run_folder_gives_its_best_checkpoint(model, tmp_path):
    save_model(model, tmp_path / "model.safetensors")
    assert find_weights(tmp_path).name == "model.safetensors"
    save_model(model, tmp_path / "best.safetensors")
    assert find_weights(tmp_path).name == "best.safetensors"


def test_writing_where_nothing_can_be_written_leaves_nothing(model, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(InputError, match="cannot be written"):
        save_model(model, tmp_path / "file" / "model.safetensors")


def test_a_write_that_fails_keeps_the_old_checkpoint(model, checkpoint, monkeypatch):
    before = checkpoint.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("diffusionpose.errors.os.fsync", full)
    with pytest.raises(InputError, match="No space left on device"):
        save_model(model, checkpoint)
    assert checkpoint.read_bytes() == before
    assert list(checkpoint.parent.iterdir()) == [checkpoint]


# --- a file is not trusted ---


@pytest.fixture
def sealed(monkeypatch):
    """Whoever opens a connection, or unpickles, fails the test."""

    def refuse(*_, **__):
        raise AssertionError("a file of weights led elsewhere")

    for place in (
        "socket.socket.connect",
        "socket.create_connection",
        "torch.load",
        "urllib.request.urlopen",
    ):
        monkeypatch.setattr(place, refuse)


def described(path, **changes):
    """A file whose metadata are those of a small model, with changes."""
    model = create_model("diffusionpose_tiny", CROWDPOSE, input_size=(48, 64))
    text = json.dumps({**model.config, **changes})
    save_file(model.state_dict(), path, {"diffusionpose": changes.get("text", text)})
    return path


ELSEWHERE = "http://127.0.0.1:9/weights.pth"


@pytest.mark.parametrize(
    "options",
    [
        {"pretrained": True},
        {"encoder_weights": "secret.safetensors"},
        {"encoder": {"pretrained": True}},
        {"encoder": {"pretrained_cfg": {"url": ELSEWHERE}}},
        {"encoder": {"pretrained_cfg": {"file": "secret.pth"}}},
        {"encoder": {"pretrained_cfg_overlay": {"hf_hub_id": "somebody/something"}}},
        {"encoder": {"checkpoint_path": "secret.pth"}},
        {"encoder": {"cache_dir": "/tmp"}},
        {"skeleton": "secret.yaml"},
        {"name": "tiny"},
    ],
)
@pytest.mark.usefixtures("sealed")
def test_options_lead_neither_to_the_network_nor_to_other_files(tmp_path, options):
    file = described(tmp_path / "a.safetensors", options=options)
    with pytest.raises(InputError, match=r"a.safetensors: its metadata are damaged"):
        load_model(file)


@pytest.mark.usefixtures("sealed")
def test_a_good_file_loads_without_the_network(tmp_path):
    assert load_model(described(tmp_path / "a.safetensors")).input_size == (48, 64)


def skeleton(**changes):
    return {**CROWDPOSE.to_dict(), **changes}


@pytest.mark.parametrize(
    "changes",
    [
        {"text": "no JSON"},
        {"text": "[" * 100_000},
        {"text": '{"name": 1' + "0" * 5000 + "}"},
        {"text": "[]"},
        {"text": "null"},
        {"name": ["tiny"]},
        {"name": "nothing"},
        {"options": []},
        {"options": {"input_size": [1e400, 64]}},
        {"options": {"input_size": [48]}},
        {"options": {"input_size": [48, 64], "width": 10**30}},
        {"options": {"input_size": [48, 64], "zeta": float("nan")}},
        {"options": {"input_size": [48, 64], "encoder": "convnext"}},
        {"options": {"input_size": [50, 64]}},
        {"skeleton": None},
        {"skeleton": skeleton(joints=5)},
        {"skeleton": skeleton(joints=[None] * 14)},
        {"skeleton": skeleton(sigmas=[float("inf")] * 14)},
        {"skeleton": skeleton(sigmas=["a"] * 14)},
        {"skeleton": skeleton(limbs=[[0, 1, 2]])},
        {"skeleton": skeleton(limbs=[[0, 10**400]])},
        {"skeleton": skeleton(pairs=7)},
    ],
)
def test_damaged_metadata_are_named(tmp_path, changes):
    with pytest.raises(InputError, match=r"a.safetensors: its metadata are damaged"):
        load_model(described(tmp_path / "a.safetensors", **changes))


def test_a_description_larger_than_the_file_costs_no_memory(tmp_path):
    """A decoder of 9 G parameters is only planned."""
    file = described(tmp_path / "a.safetensors", options={"input_size": [48, 64], "width": 2048})
    with pytest.raises(InputError, match=r"does not fit the model its metadata names"):
        load_model(file)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_name_the_file(model, tmp_path, value):
    broken = {n: v.clone() for n, v in model.state_dict().items()}
    broken["conv.weight"][0, 0] = value
    save_file(broken, tmp_path / "a.safetensors", {"diffusionpose": json.dumps(model.config)})
    with pytest.raises(
        InputError, match=r"a.safetensors: 1 of its weights hold NaN or infinity, first conv.w"
    ):
        load_model(tmp_path / "a.safetensors")


def test_mutated_files_load_or_are_named(checkpoint, tmp_path):
    """Bytes of the header changed at random."""
    whole, generator = checkpoint.read_bytes(), random.Random(0)
    size = 8 + int.from_bytes(whole[:8], "little")
    start = whole.index(b"diffusionpose")
    for _ in range(80):
        content = bytearray(whole)
        for _ in range(generator.randint(1, 3)):
            content[generator.randrange(start, min(size, start + 1500))] = generator.randrange(256)
        (tmp_path / "b.safetensors").write_bytes(content)
        try:
            load_model(tmp_path / "b.safetensors")
        except InputError as error:
            assert "b.safetensors" in str(error)  # noqa: PT017


# --- transformers' ViTPose by name ---


@pytest.fixture(scope="module")
def vitpose_folder(tmp_path_factory):
    """``vitpose_folder(simple)``: what transformers saves of a small network, and the network."""
    from transformers import VitPoseBackboneConfig, VitPoseConfig, VitPoseForPoseEstimation

    @cache
    def make(simple):
        torch.manual_seed(0)
        backbone = VitPoseBackboneConfig(
            image_size=(96, 64), hidden_size=384, num_hidden_layers=2, num_attention_heads=12, out_indices=[2]
        )
        config = VitPoseConfig(backbone_config=backbone, num_labels=17, use_simple_decoder=simple)
        network = VitPoseForPoseEstimation(config).eval()
        folder = tmp_path_factory.mktemp("vitpose")
        network.save_pretrained(folder)
        return folder, network

    return make


@pytest.mark.parametrize("simple", [False, True])
def test_a_vitpose_folder_is_loaded_in_one_step(vitpose_folder, simple):
    folder, network = vitpose_folder(simple)
    model = load_model(folder)
    assert model.config["name"] == ("vitpose_s_simple" if simple else "vitpose_s")
    assert (model.input_size, model.unbiased, model.skeleton) == ((64, 96), True, COCO)
    images = torch.randint(0, 256, (2, 3, 96, 64), dtype=torch.uint8)
    with torch.no_grad():
        assert torch.allclose(model(images), network(model.normalise(images)).heatmaps, atol=1e-4)
    with pytest.raises(InputError, match="but skeleton 'crowdpose' has 14"):
        load_model(folder, skeleton=CROWDPOSE)


def test_a_vitpose_hub_id_is_loaded_with_its_config(vitpose_folder, monkeypatch):
    folder, _ = vitpose_folder(True)
    asked = []
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", lambda *_, **__: None)
    monkeypatch.setattr(
        huggingface_hub, "hf_hub_download", lambda _, file: asked.append(file) or str(folder / file)
    )
    assert load_model("usyd-community/vitpose-small-simple").config["name"] == "vitpose_s_simple"
    assert asked == ["config.json", "model.safetensors"]


@pytest.mark.parametrize(
    "backbone", [None, {"hidden_size": 48}, {"hidden_size": 384, "num_hidden_layers": "x"}]
)
def test_a_vitpose_that_is_not_known_is_named(vitpose_folder, tmp_path, backbone):
    folder, _ = vitpose_folder(True)
    shutil.copy(folder / "model.safetensors", tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "vitpose", "backbone_config": backbone}))
    with pytest.raises(InputError, match=str(tmp_path)):
        load_model(tmp_path)


# --- folders and the hub, which is stubbed: no test here uses a network ---


def test_what_is_loaded_is_what_was_saved_bit_by_bit(model, images, tmp_path):
    save_pretrained(model, tmp_path / "new" / "folder")
    loaded = load_model(tmp_path / "new" / "folder")
    assert loaded.config == model.config
    for name, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value)
    with torch.no_grad():
        assert torch.equal(model(images), loaded(images))


def test_the_card_tells_what_the_config_says(model, tmp_path):
    metrics = {"AP": 0.4479, "PCK": 0.58}
    save_pretrained(model, tmp_path, metrics=metrics, licence="cc-by-4.0", name="me/runner")
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
    save_pretrained(model, tmp_path)
    card = (tmp_path / "README.md").read_text()
    assert yaml.safe_load(card.split("---\n")[1])["license"] == "unknown"
    assert "Metrics" not in card


def test_the_snippet_of_the_card_runs(model, picture, tmp_path, monkeypatch):
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    Image.fromarray(picture).save("photo.jpg")
    save_pretrained(model, "runner")
    snippet = Path("runner/README.md").read_text().split("```python\n")[1].split("```")[0]
    scope = {"x0": 5, "y0": 5, "x1": 60, "y1": 80}
    exec(snippet, scope)
    assert len(scope["poses"]) == 1


def test_what_cannot_be_saved(model, tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(InputError, match="cannot be written"):
        save_pretrained(model, tmp_path / "file")


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
    address = push_to_hub(model, "me/runner", private=True, token="t", licence="mit", metrics={"AP": 0.5})
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
        push_to_hub(model, "runner")
    api.fault = OSError("401 Client Error")
    with pytest.raises(
        InputError, match=r"me/runner: could not be uploaded \(OSError: 401 Client Error\); log in"
    ):
        push_to_hub(model, "me/runner")


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
