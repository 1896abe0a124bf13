"""Foreign files: nothing in them runs, every fault has its message."""

import collections
import pickle

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from diffusionpose.errors import InputError
from diffusionpose.models.imports.reading import read_checkpoint

WEIGHTS = {"conv.weight": torch.arange(12.0).reshape(3, 4), "conv.bias": torch.ones(3)}


def fault(path) -> str:
    with pytest.raises(InputError) as caught:
        read_checkpoint(path)
    assert str(path) in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("wrap", [None, "state_dict", "model"])
@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("old", [False, True])
def test_weights_are_found(tmp_path, wrap, prefix, old):
    named = {prefix + name: value for name, value in WEIGHTS.items()}
    content = {wrap: named, "epoch": 3, "optimizer": {"state": {0: torch.ones(2)}}} if wrap else named
    torch.save(content, tmp_path / "a.pth", _use_new_zipfile_serialization=not old)
    read = read_checkpoint(tmp_path / "a.pth")
    assert read.tensors.keys() == WEIGHTS.keys()
    assert torch.equal(read.tensors["conv.weight"], WEIGHTS["conv.weight"])


def test_a_prefix_that_not_all_have_is_part_of_the_names(tmp_path):
    torch.save({"module.a": torch.ones(1), "b": torch.ones(1)}, tmp_path / "a.pth")
    assert read_checkpoint(tmp_path / "a.pth").tensors.keys() == {"module.a", "b"}


@pytest.mark.parametrize("name", ["a.safetensors", "a.bin"])
def test_safetensors_under_any_name(tmp_path, name):
    save_file(WEIGHTS, tmp_path / name)
    assert read_checkpoint(tmp_path / name).tensors.keys() == WEIGHTS.keys()


def test_mmposes_notes(tmp_path):
    """Its settings as text and its joints, beside NumPy's numbers and arrays."""
    dataset = {"keypoint_id2name": {1: "neck", 0: "head"}, "sigmas": np.array([0.1, 0.2], np.float32)}
    meta = {"cfg": "use_udp=True", "dataset_meta": dataset, "epoch": np.int64(7), "seed": np.float64(0.5)}
    torch.save({"meta": meta, "state_dict": WEIGHTS}, tmp_path / "a.pth")
    read = read_checkpoint(tmp_path / "a.pth")
    assert (read.settings, read.joints) == ("use_udp=True", ("head", "neck"))
    torch.save({"meta": {"config": "old"}, "state_dict": WEIGHTS}, tmp_path / "a.pth")
    read = read_checkpoint(tmp_path / "a.pth")
    assert (read.settings, read.joints) == ("old", ())


def test_arrays_that_numpy_1_wrote(tmp_path):
    """It called the modules numpy.core."""
    content = {"meta": {"cfg": "x", "perf": np.float64(0.7), "a": np.ones(2)}, "state_dict": WEIGHTS}
    torch.save(content, tmp_path / "a.pth", _use_new_zipfile_serialization=False)
    written = (tmp_path / "a.pth").read_bytes()
    assert written.count(b"numpy._core.multiarray") >= 2
    (tmp_path / "a.pth").write_bytes(written.replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))
    assert read_checkpoint(tmp_path / "a.pth").settings == "x"


class Trap:
    """What a malicious file holds: makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return (open, (self.path, "w"))


@pytest.mark.parametrize("way", ["zip", "old", "plain"])
def test_a_pickle_that_would_run_code_is_refused_unopened(tmp_path, way):
    content, file = {"state_dict": WEIGHTS, "meta": Trap(tmp_path / "ran")}, tmp_path / "a.pth"
    if way == "plain":
        file.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, file, _use_new_zipfile_serialization=way == "zip")
    message = fault(file)
    assert "not opened: making it could run any code" in message
    assert 'torch.load("a.pth"' in message.replace("'", '"')
    assert 'weights_only=False)["state_dict"], "weights_only.pth")' in message
    assert not (tmp_path / "ran").exists()


def test_a_class_of_another_project_is_named_with_the_cure(tmp_path):
    torch.save({"state_dict": WEIGHTS, "log": collections.defaultdict(list)}, tmp_path / "a.pth")
    assert "holds collections.defaultdict, which is not opened" in fault(tmp_path / "a.pth")


def test_the_cure_cures(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": WEIGHTS, "log": collections.defaultdict(list)}, "a.pth")
    with pytest.raises(InputError) as caught:
        read_checkpoint("a.pth")
    exec("\n".join(line.strip() for line in str(caught.value).splitlines()[3:]), {})
    assert read_checkpoint("weights_only.pth").tensors.keys() == WEIGHTS.keys()


@pytest.mark.parametrize("kind", ["zip", "old", "safetensors"])
@pytest.mark.parametrize("kept", [0.02, 0.3, 0.6, 0.9, 0.999])
def test_cut_files(tmp_path, kind, kept):
    file = tmp_path / "a.pth"
    weights = {"a": torch.randn(100, 100), "b": torch.randn(100)}
    if kind == "safetensors":
        save_file(weights, file)
    else:
        torch.save(weights, file, _use_new_zipfile_serialization=kind == "zip")
    whole = file.read_bytes()
    file.write_bytes(whole[: int(len(whole) * kept)])
    message = fault(file)
    assert "cut short" in message
    assert "download or copy it again" in message


def test_cut_anywhere_in_the_pickle(tmp_path):
    """The old format begins with it, so a cut can fall into every kind of entry."""
    file = tmp_path / "a.pth"
    torch.save(WEIGHTS, file, _use_new_zipfile_serialization=False)
    whole = file.read_bytes()
    for kept in range(1, len(whole)):
        file.write_bytes(whole[:kept])
        assert "cut short" in fault(file), kept


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "empty; download"),
        (b"\n<!DOCTYPE html><html>Google Drive - Virus scan warning", "a web page, not weights"),
        (b"<HTML><body>404", "a web page, not weights"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "only points to weights in Git LFS"),
        (b"these are no weights", "neither a PyTorch checkpoint nor safetensors"),
        (b"\x80", "cut short or damaged"),
    ],
)
def test_files_that_are_something_else(tmp_path, content, complaint):
    (tmp_path / "a.pth").write_bytes(content)
    assert complaint in fault(tmp_path / "a.pth")


def test_no_file_a_folder(tmp_path):
    assert "cannot be read (No such file or directory)" in fault(tmp_path / "missing.pth")
    (tmp_path / "hub").mkdir()
    assert fault(tmp_path / "hub").endswith("a folder; name the file in it")
    save_file(WEIGHTS, tmp_path / "hub" / "model.safetensors")
    assert fault(tmp_path / "hub").endswith("a folder; name the file in it (model.safetensors)")


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ([torch.ones(2)], "no checkpoint: holds a list and no weights"),
        ({}, "no checkpoint: holds nothing and no weights"),
        ({"epoch": 3, "optimizer": {}}, "holds the entries 'epoch', 'optimizer' and no weights"),
        ({"state_dict": {**WEIGHTS, "step": 3}}, "1 of its weights are no tensors (step)"),
    ],
)
def test_checkpoints_without_weights(tmp_path, content, complaint):
    torch.save(content, tmp_path / "a.pth")
    assert complaint in fault(tmp_path / "a.pth")


def test_a_torchscript_program(tmp_path):
    torch.jit.save(torch.jit.script(torch.nn.ReLU()), tmp_path / "a.pt")
    assert "a TorchScript program" in fault(tmp_path / "a.pt")
