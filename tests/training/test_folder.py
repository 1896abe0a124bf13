import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from diffusionpose.errors import InputError
from diffusionpose.training.folder import RunFolder, read_checkpoint


@pytest.fixture
def interrupted(finished, tmp_path):
    """A copy of a run of three epochs."""
    return RunFolder(Path(shutil.copytree(finished, tmp_path / "run")))


def entries(folder, settings, total=4, **changes):
    written = json.loads(folder.settings_file.read_text())
    (one,), skeleton = written["train"], {**written["skeleton"], **changes.pop("skeleton", {})}
    known = {"settings": settings.to_dict(), "persons_per_step": total, "skeleton": skeleton}
    return {**known, "train": [{**one, **changes}]}


def test_a_resumed_run_goes_on_after_its_last_epoch(interrupted, tiny, tmp_path):
    assert interrupted.resume(entries(interrupted, tiny))["epoch"] == 2
    interrupted.checkpoint.unlink()
    assert interrupted.resume(entries(interrupted, tiny)) is None


def test_epochs_may_change_and_a_batch_may_be_split_over_processes(interrupted, tiny):
    changed = replace(tiny, epochs=9, val_every=2, batch_size=2)
    assert interrupted.resume(entries(interrupted, changed))["epoch"] == 2


@pytest.mark.parametrize(
    ("settings", "more", "named"),
    [
        ({"seed": 7}, {}, "seed was 0, is 7"),
        ({"learning_rate": 1.0}, {}, "learning_rate was 0.002"),
        ({}, {"total": 8}, "persons per step were 4, are 8"),
        ({}, {"sha256": "b"}, "other training annotations"),
        ({}, {"share": 0.5}, "--shares"),
        ({}, {"skeleton": {"limbs": []}}, "other joints, limbs, pairs or sigmas of skeleton coco"),
    ],
)
def test_other_settings_or_data_are_refused_by_name(settings, more, named, interrupted, tiny):
    with pytest.raises(InputError, match=rf"settings\.json.*{named}.*--output"):
        interrupted.resume(entries(interrupted, replace(tiny, **settings), **more))


def test_a_setting_newer_than_the_run_counts_as_its_default(interrupted, tiny):
    written = json.loads(interrupted.settings_file.read_text())
    wanted = entries(interrupted, tiny)
    del written["settings"]["sync_batchnorm"], written["skeleton"]
    interrupted.settings_file.write_text(json.dumps(written))
    assert interrupted.resume(wanted)


@pytest.mark.parametrize(
    "damage",
    [
        lambda written: "{",
        lambda written: "[]",
        lambda written: json.dumps({**written, "settings": []}),
        lambda written: json.dumps({**written, "settings": {**written["settings"], "input_size": 3}}),
        lambda written: json.dumps({**written, "settings": {**written["settings"], "epochs": "x"}}),
        lambda written: json.dumps({**written, "train": None}),
        lambda written: json.dumps({**written, "train": [{"images": "a"}]}),
        lambda written: json.dumps({**written, "train": [3]}),
    ],
)
def test_damaged_settings_are_noticed_before_training(damage, interrupted, tiny):
    wanted = entries(interrupted, tiny)
    written = json.loads(interrupted.settings_file.read_text())
    interrupted.settings_file.write_text(damage(written))
    with pytest.raises(InputError, match=r"settings\.json.*--output"):
        interrupted.resume(wanted)


@pytest.mark.parametrize("text", [b"epoch,AP\n0,\xff\n", b"0,1\n1,2\n", b"epoch,AP\nx,1\n"])
def test_a_damaged_table_is_noticed_before_training(text, interrupted, tiny):
    interrupted.metrics.write_bytes(text)
    with pytest.raises(InputError, match=r"metrics\.csv.*delete it"):
        interrupted.resume(entries(interrupted, tiny))


class Payload:
    """Unpickling it would prove that code can run."""

    def __reduce__(self):
        return (pytest.fail, ("unpickled",))


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"epoch": 3},
        {"format": 2, "epoch": 3, "model": {}, "average": {}, "optimiser": {}},
        {"epoch": 1, "pytorch-lightning_version": "2.6", "state_dict": {}},
        torch.ones(3),
        {"epoch": 0, "extra": Payload()},
    ],
)
def test_a_foreign_checkpoint_is_noticed_before_training(content, interrupted, tiny):
    torch.save(content, interrupted.checkpoint)
    with pytest.raises(InputError, match=r"last\.ckpt: not a whole checkpoint.*delete"):
        interrupted.resume(entries(interrupted, tiny))


def test_a_cut_checkpoint_names_the_file_and_the_cure(interrupted):
    interrupted.checkpoint.write_bytes(interrupted.checkpoint.read_bytes()[:-100])
    with pytest.raises(InputError, match=r"last\.ckpt.*delete.*--weights"):
        read_checkpoint(interrupted.checkpoint)


def test_a_checkpoint_of_another_network_is_named(run, interrupted, tiny):
    checkpoint = torch.load(interrupted.checkpoint, weights_only=True)
    checkpoint["model"].popitem()
    torch.save(checkpoint, interrupted.checkpoint)
    with pytest.raises(InputError, match=r"last\.ckpt: does not fit diffusionpose_tiny"):
        run(replace(tiny, epochs=4), interrupted.path)


def test_a_repeated_epoch_replaces_its_row(tmp_path):
    folder = RunFolder(tmp_path)
    for epoch, loss in ((0, 3.0), (1, 2.0), (2, 1.0), (1, 2.5)):
        folder.write_row({"epoch": epoch, "loss": loss})
    assert [(row["epoch"], row["loss"]) for row in folder.rows()] == [("0", "3.0"), ("1", "2.5")]


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"file.*--output"), RunFolder(tmp_path / "file" / "run").opened():
        pytest.fail("opened")
