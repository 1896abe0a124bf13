import json
from dataclasses import replace

import pytest
import torch

from diffusionpose.errors import InputError
from diffusionpose.training.folder import RunFolder, read_checkpoint


@pytest.fixture
def folder(tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.prepare()
    return folder


def entries(settings, total=4, digest="a"):
    return {"settings": settings.to_dict(), "persons_per_step": total, "train": [{"sha256": digest}]}


def interrupted(folder, settings, epoch=1):
    folder.write_settings(entries(settings))
    torch.save({"epoch": epoch}, folder.checkpoint)


def test_a_new_run_starts_at_epoch_0_and_a_resumed_one_after_its_last(folder, tiny):
    assert folder.resume_epoch(entries(tiny)) == 0
    interrupted(folder, tiny, epoch=6)
    assert folder.resume_epoch(entries(tiny)) == 7


def test_epochs_may_change_and_a_batch_may_be_split_over_processes(folder, tiny):
    interrupted(folder, tiny)
    assert folder.resume_epoch(entries(replace(tiny, epochs=9, val_every=2, batch_size=2))) == 2


@pytest.mark.parametrize(
    ("changed", "named"),
    [({"seed": 7}, "seed was 0, is 7"), ({"learning_rate": 1.0}, "learning_rate was 0.002")],
)
def test_other_settings_are_refused_by_name(folder, tiny, changed, named):
    interrupted(folder, tiny)
    with pytest.raises(InputError, match=rf"settings\.json.*{named}.*--output"):
        folder.resume_epoch(entries(replace(tiny, **changed)))


def test_other_data_or_another_total_batch_are_refused(folder, tiny):
    interrupted(folder, tiny)
    with pytest.raises(InputError, match="annotations"):
        folder.resume_epoch(entries(tiny, digest="b"))
    with pytest.raises(InputError, match="persons per step were 4, are 8"):
        folder.resume_epoch(entries(tiny, total=8))


def test_a_setting_newer_than_the_run_counts_as_its_default(folder, tiny):
    interrupted(folder, tiny)
    written = json.loads(folder.settings_file.read_text())
    del written["settings"]["sync_batchnorm"]
    folder.settings_file.write_text(json.dumps(written))
    assert folder.resume_epoch(entries(tiny)) == 2


def test_a_checkpoint_without_settings_is_refused(folder, tiny):
    interrupted(folder, tiny)
    folder.settings_file.write_text("{")
    with pytest.raises(InputError, match=r"settings\.json.*--output"):
        folder.resume_epoch(entries(tiny))


def test_a_cut_checkpoint_names_the_file_and_the_cure(folder, tiny):
    interrupted(folder, tiny)
    folder.checkpoint.write_bytes(folder.checkpoint.read_bytes()[:-100])
    with pytest.raises(InputError, match=r"last\.ckpt.*delete"):
        folder.resume_epoch(entries(tiny))


class Payload:
    """Unpickling it would prove that code can run."""

    def __reduce__(self):
        return (pytest.fail, ("unpickled",))


def test_a_checkpoint_that_could_run_code_is_not_loaded(folder):
    torch.save({"epoch": 0, "extra": Payload()}, folder.checkpoint)
    with pytest.raises(InputError, match=r"last\.ckpt"):
        read_checkpoint(folder.checkpoint)


def test_a_repeated_epoch_replaces_its_row(folder):
    for epoch, loss in ((0, 3.0), (1, 2.0), (2, 1.0), (1, 2.5)):
        folder.write_row({"epoch": epoch, "loss": loss})
    assert [(row["epoch"], row["loss"]) for row in folder.rows()] == [("0", "3.0"), ("1", "2.5")]


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"file.*--output"):
        RunFolder(tmp_path / "file" / "run").prepare()
