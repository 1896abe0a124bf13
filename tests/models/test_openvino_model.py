"""A model in an OpenVINO file: the same interface, the same answers; and files that are none."""

import shutil
import sys

import numpy as np
import pytest
import torch
from diffusionpose.models.exported import open_openvino

from diffusionpose import InputError, PoseEstimator, load_model
from diffusionpose.models.export import ExportedGraph, random_crops

openvino = pytest.importorskip("openvino")

BOXES = np.array([[5, 5, 60, 80], [30, 10, 110, 85], [-20, -20, 40, 60]], np.float32)


def test_the_file_gives_pytorchs_heatmaps_for_any_batch(tiny_weights, tiny_openvino):
    ours, run = load_model(tiny_weights), open_openvino(tiny_openvino)
    for count in (1, 2, 5, 8):
        crops = random_crops(count, ours.input_size, seed=7)
        with torch.no_grad():
            expected = ExportedGraph(ours, 1, False)(torch.from_numpy(crops))[0].numpy()
        (heatmaps,) = run(crops)
        assert heatmaps.shape == expected.shape
        assert np.abs(heatmaps - expected).max() < 1e-4
        assert np.abs(expected).max() > 1e-3, "else the heatmaps are empty, and everything agrees"


@pytest.mark.parametrize("options", [{}, {"flip": False, "decode": "argmax", "batch_size": 2}])
def test_the_estimator_answers_alike(tiny_weights, tiny_openvino, picture, options):
    ours, theirs = (
        PoseEstimator.from_pretrained(weights, device="cpu", detector="whole", **options)(picture, BOXES)
        for weights in (tiny_weights, tiny_openvino)
    )
    assert len(ours) == len(theirs) == 3
    for a, b in zip(ours, theirs, strict=True):
        assert np.abs(a.keypoints - b.keypoints).max() < 1e-2
        assert np.abs(a.scores - b.scores).max() < 1e-5


def test_it_is_made_as_its_model_was(tiny_weights, tiny_openvino):
    ours, theirs = load_model(tiny_weights), load_model(tiny_openvino)
    assert (theirs.codec, theirs.config, theirs.training) == (ours.codec, ours.config, False)
    with pytest.raises(InputError, match=r"tiny\.xml was exported with --steps 1, and 2 cannot be had"):
        theirs.check_options(steps=2)
    with pytest.raises(InputError, match=r"start: .*tiny\.xml was exported to start from its own"):
        theirs.check_options(start=True)


def test_both_files_and_nothing_else_are_written(tiny_openvino):
    assert sorted(file.name for file in tiny_openvino.parent.iterdir()) == ["tiny.bin", "tiny.xml"]


def test_damaged_files(tiny_openvino, tmp_path):
    shutil.copy(tiny_openvino, tmp_path / "alone.xml")
    with pytest.raises(InputError, match=r"alone\.xml: its weights, alone\.bin, are not beside it"):
        load_model(tmp_path / "alone.xml")
    content = tiny_openvino.read_bytes()
    for name, damaged in {"cut": content[: len(content) // 2], "empty": b"", "noise": b"1" * 1000}.items():
        (tmp_path / f"{name}.xml").write_bytes(damaged)
        shutil.copy(tiny_openvino.with_suffix(".bin"), tmp_path / f"{name}.bin")
        with pytest.raises(InputError, match=rf"{name}\.xml: OpenVINO cannot read it"):
            load_model(tmp_path / f"{name}.xml")


def test_files_of_others(tiny_openvino, tmp_path):
    other = openvino.Core().read_model(tiny_openvino)
    other.set_rt_info("no JSON", ["diffusionpose"])
    openvino.save_model(other, tmp_path / "other.xml")
    with pytest.raises(InputError, match=r"other\.xml: XML without this package's metadata"):
        load_model(tmp_path / "other.xml")


def test_without_openvino_the_extra_is_named(tiny_openvino, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(InputError, match=r"pip install 'diffusionpose\[openvino\]'"):
        load_model(tiny_openvino)


def test_another_device_is_a_warning(tiny_openvino):
    with pytest.warns(UserWarning, match="OpenVINO files run on the CPU here, not on cuda"):
        open_openvino(tiny_openvino, "cuda")
