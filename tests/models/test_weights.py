"""Checkpoints: small, whole or not at all, and every fault with a message that names the file."""

import json
import pickle

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from diffusionpose.errors import InputError
from diffusionpose.models.checkpoints import find_weights, load_model, save_model
from diffusionpose.models.zoo import create_model
from diffusionpose.skeletons import COCO, CROWDPOSE


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return create_model("diffusionpose_tiny", CROWDPOSE).eval()


@pytest.fixture
def checkpoint(model, tmp_path):
    save_model(model, tmp_path / "model.safetensors", epoch=3)
    return tmp_path / "model.safetensors"


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
    with pytest.raises(InputError, match="does not fit the model its metadata names"):
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

    monkeypatch.setattr("diffusionpose.models.checkpoints.save_file", full)
    with pytest.raises(InputError, match="No space left on device"):
        save_model(model, checkpoint)
    assert checkpoint.read_bytes() == before
    assert list(checkpoint.parent.iterdir()) == [checkpoint]
