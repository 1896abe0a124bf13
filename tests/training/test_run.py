"""Whole trainings of seconds: what a run leaves behind, killed and resumed, on two processes, failing."""

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from diffusionpose.errors import InputError
from diffusionpose.evaluation.evaluate import evaluate
from diffusionpose.models.checkpoints import load_model
from diffusionpose.training.folder import RunFolder, read_checkpoint
from diffusionpose.training.loop import Summary, train
from diffusionpose.training.settings import ImageSet, Machine, TrainingSettings

CPU = Machine("cpu", workers=0)
TIMES = ("seconds", "persons_per_s")


def run(settings, images, output, machine=CPU) -> Summary:
    return train(settings, [images], images, output, machine, progress=False)


def run_with(fault: str, settings: TrainingSettings, images: ImageSet, output: Path):
    program = Path(__file__).with_name("faulty_run.py")
    words = [fault, json.dumps(settings.to_dict()), images.images, images.annotations, output]
    return subprocess.run([sys.executable, program, *map(str, words)], capture_output=True, text=True)


def rows_of(output: Path):
    return [{k: v for k, v in row.items() if k not in TIMES} for row in RunFolder(output).rows()]


@pytest.fixture(scope="module")
def finished(images, tiny, tmp_path_factory) -> Path:
    """A run of three epochs that nothing interrupted."""
    output = tmp_path_factory.mktemp("finished")
    run(tiny, images, output)
    return output


def test_a_run_leaves_settings_checkpoint_models_metrics_and_logs(finished, tiny):
    folder = RunFolder(finished)
    written = json.loads(folder.settings_file.read_text())
    assert TrainingSettings.from_dict(written["settings"]) == tiny
    assert read_checkpoint(folder.checkpoint)["epoch"] == 2
    assert [row["epoch"] for row in folder.rows()] == ["0", "1", "2"]
    assert float(folder.rows()[2]["loss"]) < float(folder.rows()[0]["loss"])
    assert {path.name for path in finished.iterdir()} == {
        "settings.json", "checkpoints", "model.safetensors", "best.safetensors", "metrics.csv", "logs",
    }  # fmt: skip
    assert [path.name[:19] for path in (finished / "logs").iterdir()] == ["events.out.tfevents"]


def test_the_validation_is_what_evaluate_measures(finished, images, tiny):
    report = evaluate(
        load_model(finished / "model.safetensors"),
        images.annotations,
        images.images,
        decode=tiny.decode,
        flip=tiny.flip,
    )
    last = RunFolder(finished).rows()[-1]
    for name in ("AP", "AR", "PCK", "PCK_limbs"):
        assert float(last[name]) == pytest.approx(report.metrics[name], abs=1e-9), name


def test_the_best_model_is_that_of_the_highest_ap(finished, images, tiny):
    report = evaluate(
        load_model(finished / "best.safetensors"),
        images.annotations,
        images.images,
        decode="dark",
        flip=False,
    )
    highest = max(float(row["AP"]) for row in RunFolder(finished).rows())
    assert report.metrics["AP"] == pytest.approx(highest, abs=1e-9)


def test_the_saved_model_is_the_moving_average(finished):
    state = read_checkpoint(RunFolder(finished).checkpoint)["state_dict"]
    saved = load_model(finished / "model.safetensors").state_dict()
    for name, value in saved.items():
        assert torch.equal(value, state[f"average.{name}"]), name
    assert not all(torch.equal(value, state[f"model.{name}"]) for name, value in saved.items())


@pytest.mark.parametrize("fault", ["SIGKILL", "checkpoint"])
def test_a_killed_run_resumes_to_the_same_weights(fault, finished, images, tiny, tmp_path):
    killed = run_with(fault, tiny, images, tmp_path)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert read_checkpoint(RunFolder(tmp_path).checkpoint)["epoch"] == 0

    # workers begin to read before Lightning has told them the epoch
    summary = run(tiny, images, tmp_path, Machine("cpu", workers=2))
    assert (summary.resumed_from, summary.epochs) == (1, 3)
    same, other = (read_checkpoint(RunFolder(path).checkpoint) for path in (finished, tmp_path))
    for name, value in same["state_dict"].items():
        assert torch.equal(value, other["state_dict"][name]), name
    for moments, others in zip(
        *(c["optimizer_states"][0]["state"].values() for c in (same, other)), strict=True
    ):
        assert all(torch.equal(moments[key], others[key]) for key in moments)
    for file in ("model.safetensors", "best.safetensors"):
        assert (finished / file).read_bytes() == (tmp_path / file).read_bytes()
    assert rows_of(tmp_path) == rows_of(finished)


@pytest.mark.parametrize(("fault", "status"), [("SIGINT", 1), ("SIGTERM", 128 + signal.SIGTERM)])
def test_a_stopped_run_does_not_end_as_if_it_were_done(fault, status, images, tiny, tmp_path):
    stopped = run_with(fault, replace(tiny, val_every=3), images, tmp_path)
    assert stopped.returncode == status
    assert stopped.stderr.strip() == ("stopped by Ctrl-C" if fault == "SIGINT" else "")
    assert read_checkpoint(RunFolder(tmp_path).checkpoint)["epoch"] == 0


def test_a_second_training_in_the_same_folder_is_refused(images, tiny, tmp_path):
    code = "import sys; from pathlib import Path; from diffusionpose.training.folder import RunFolder\n"
    code += "with RunFolder(Path(sys.argv[1])).sole_use(): print('held', flush=True); sys.stdin.read()"
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdin=pipe, stdout=pipe) as holder:
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(InputError, match="another training is at work in this folder"):
            run(tiny, images, tmp_path)
        holder.stdin.close()
        holder.wait()
    assert not (tmp_path / "settings.json").exists()


def test_a_finished_run_is_left_as_it_is_and_more_epochs_go_on(finished, images, tiny, tmp_path):
    settings = replace(tiny, schedule="steps", drops=())
    run(replace(settings, epochs=1), images, tmp_path / "a")
    before = (tmp_path / "a" / "model.safetensors").stat().st_mtime_ns
    assert run(replace(settings, epochs=1), images, tmp_path / "a").resumed_from == 1
    assert (tmp_path / "a" / "model.safetensors").stat().st_mtime_ns == before
    run(replace(settings, epochs=2), images, tmp_path / "a")
    run(replace(settings, epochs=2), images, tmp_path / "b")
    assert rows_of(tmp_path / "a") == rows_of(tmp_path / "b")


def test_two_processes_have_the_losses_of_one(finished, images, tmp_path):
    """On CPU by gloo, started by the command line, which says nothing but a line an epoch."""
    words = (
        "train diffusionpose_tiny_synthetic --skeleton coco --precision 32 --epochs 3 --warmup-steps 2 "
        f"--images {images.images} --annotations {images.annotations} "
        f"--val-images {images.images} --val-annotations {images.annotations} --output {tmp_path} "
        "--workers 0 --accelerator cpu --devices 2 --batch-size 2"
    ).split()
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "diffusionpose.app.cli", *words],
        capture_output=True,
        text=True,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert [line.split()[:2] for line in done.stdout.splitlines()[:3]] == [
        ["epoch", "1/3"], ["epoch", "2/3"], ["epoch", "3/3"],
    ]  # fmt: skip
    assert len(done.stdout.splitlines()) == 4
    alone, together = ([float(row["loss"]) for row in rows_of(path)] for path in (finished, tmp_path))
    assert together[0] == pytest.approx(alone[0], rel=1e-5)
    # gradients summed in another order differ in the last bit, and Adam makes that grow
    assert together == pytest.approx(alone, rel=2e-4)


def test_a_full_disk_keeps_the_last_checkpoint_and_the_run_goes_on_later(finished, images, tiny, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    longer = replace(tiny, epochs=4)
    failed = run_with("full-disk", longer, images, tmp_path / "run")
    assert failed.returncode == 1
    assert "last.ckpt: cannot be written" in failed.stderr.splitlines()[-1]
    assert "same command again" in failed.stderr.splitlines()[-1]
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["last.ckpt"]
    assert run(longer, images, tmp_path / "run").resumed_from == 3


def test_a_picture_that_cannot_be_read_is_left_out_and_reported(images, tiny, tmp_path):
    pictures = tmp_path / "pictures"
    shutil.copytree(images.images, pictures)
    broken = sorted(pictures.iterdir())[0]
    broken.write_bytes(broken.read_bytes()[:200])
    summary = run(replace(tiny, epochs=1), replace(images, images=pictures), tmp_path / "run")
    assert summary.epochs == 1
    assert summary.failures
    assert all(broken.name in failure for failure in summary.failures)


def test_a_diverging_training_stops_with_a_cure(images, tiny, tmp_path):
    wild = replace(tiny, learning_rate=1e30, clip_norm=0.0, warmup_steps=0)
    with pytest.raises(InputError, match=r"diverged.*--learning-rate"):
        run(wild, images, tmp_path)


def test_an_accelerator_that_is_not_there_is_named(images, tiny, tmp_path):
    with pytest.raises(InputError, match="--accelerator teapot"):
        train(tiny, [images], images, tmp_path, Machine("teapot", workers=0), progress=False)
