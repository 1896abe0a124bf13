"""Whole trainings of seconds: what a run leaves behind, killed and resumed, on two processes, failing."""

import contextlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from diffusionpose.data.synthetic import write_synthetic
from diffusionpose.errors import InputError
from diffusionpose.evaluation.evaluate import evaluate, evaluate_mean_pose
from diffusionpose.models.checkpoints import load_model
from diffusionpose.skeletons import CROWDPOSE
from diffusionpose.training import loop
from diffusionpose.training.folder import RunFolder, read_checkpoint
from diffusionpose.training.loop import train
from diffusionpose.training.recipes import get_recipe
from diffusionpose.training.settings import ImageSet, Machine, TrainingSettings

CPU = Machine("cpu", workers=0)
TIMES = ("seconds", "persons_per_s")


def rows_of(output):
    return [{k: v for k, v in row.items() if k not in TIMES} for row in RunFolder(output).rows()]


def assert_same(one, other):
    """Nested dicts and lists of tensors, to the bit."""
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for name in one:
            assert_same(one[name], other[name])
    elif isinstance(one, list):
        for a, b in zip(one, other, strict=True):
            assert_same(a, b)
    else:
        assert one == other


def assert_same_run(one, other):
    assert_same(*(read_checkpoint(RunFolder(path).checkpoint) for path in (one, other)))
    for file in ("model.safetensors", "best.safetensors"):
        assert (one / file).read_bytes() == (other / file).read_bytes()
    assert rows_of(one) == rows_of(other)


def test_a_run_leaves_settings_checkpoint_models_metrics_and_logs(finished, tiny):
    folder = RunFolder(finished)
    written = json.loads(folder.settings_file.read_text())
    assert TrainingSettings.from_dict(written["settings"]) == tiny
    assert get_recipe(str(folder.settings_file)) == tiny, "a run's settings are a recipe"
    assert read_checkpoint(folder.checkpoint)["epoch"] == 2
    assert [row["epoch"] for row in folder.rows()] == ["0", "1", "2"]
    assert float(folder.rows()[2]["loss"]) < float(folder.rows()[0]["loss"])
    assert {path.name for path in finished.iterdir()} - {"logs", ".lock"} == {
        "settings.json", "checkpoints", "model.safetensors", "best.safetensors", "metrics.csv",
    }  # fmt: skip


def test_tensorboard_gets_the_same_numbers_and_a_picture_of_poses(finished, tiny):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(finished / "logs"))
    events.Reload()
    assert [event.value for event in events.Scalars("val/AP")] == pytest.approx(
        [float(row["AP"]) for row in RunFolder(finished).rows()], abs=1e-6
    )
    (*_, picture) = events.Images("val/poses")
    assert (picture.width, picture.height) == (8 * tiny.input_size[0], tiny.input_size[1])


def test_the_validation_is_what_evaluate_measures_and_the_best_model_has_the_highest(finished, images, tiny):
    rows = RunFolder(finished).rows()
    best = max(reversed(rows), key=lambda row: float(row["AP"]))
    for file, row in (("model.safetensors", rows[-1]), ("best.safetensors", best)):
        model = load_model(finished / file)
        report = evaluate(model, images.annotations, images.images, decode=tiny.decode, flip=tiny.flip)
        for name in ("AP", "AR", "PCK", "PCK_limbs"):
            assert float(row[name]) == pytest.approx(report.metrics[name], abs=1e-9), name


def test_the_saved_model_is_the_moving_average(finished):
    checkpoint = read_checkpoint(RunFolder(finished).checkpoint)
    saved = load_model(finished / "model.safetensors").state_dict()
    for name, value in saved.items():
        assert torch.equal(value, checkpoint["average"][f"module.{name}"]), name
    assert not all(torch.equal(value, checkpoint["model"][name]) for name, value in saved.items())


@pytest.mark.usefixtures("fresh_processes")
def test_killed_runs_resume_to_the_same_weights(finished, images, tiny, tmp_path):
    program = Path(__file__).with_name("faulty_run.py")
    words = [json.dumps(tiny.to_dict()), images.images, images.annotations, tmp_path]
    killed = subprocess.run([sys.executable, program, *map(str, words)], capture_output=True, text=True)
    assert [word for word in killed.stdout.split() if word.startswith("SIG")] == ["SIGTERM", "SIGKILL"]
    assert killed.stderr == ""
    for fault, workers in (("SIGTERM", 0), ("SIGKILL", 2)):
        output = tmp_path / fault
        assert read_checkpoint(RunFolder(output).checkpoint)["epoch"] == 0
        summary = train(tiny, [images], images, output, Machine("cpu", workers=workers), progress=False)
        assert (summary.resumed_from, summary.epochs) == (1, 3)
        assert_same_run(finished, output)


@pytest.mark.parametrize("where", ["step", "swallowed", "validation", "internal error"])
def test_ctrl_c_always_stops_a_run_that_can_be_resumed(where, run, finished, tiny, tmp_path, monkeypatch):
    """Wherever it comes, also where a library swallows it or makes another error of it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    step, predict, epochs = loop.Training.step, loop.predict_persons, []

    def press() -> None:
        os.kill(os.getpid(), signal.SIGINT)

    def stopped_step(training, batch, number):
        if number == training.data.steps + 1 and where != "validation":
            press()
            if where == "swallowed":
                with contextlib.suppress(KeyboardInterrupt):
                    time.sleep(0.01)
            if where == "internal error":
                raise RuntimeError("what a library makes of it")
        return step(training, batch, number)

    def stopped_predict(*arguments):
        epochs.append(None)
        if len(epochs) == 2 and where == "validation":
            press()
        return predict(*arguments)

    monkeypatch.setattr(loop.Training, "step", stopped_step)
    monkeypatch.setattr(loop, "predict_persons", stopped_predict)
    try:
        with pytest.raises(KeyboardInterrupt):
            run(tiny, tmp_path)
    finally:
        signal.signal(signal.SIGINT, before)
    monkeypatch.undo()
    assert read_checkpoint(RunFolder(tmp_path).checkpoint)["epoch"] == 0
    if where == "step":
        run(tiny, tmp_path)
        assert_same_run(finished, tmp_path)


def test_a_heatmap_model_is_trained_and_validated_alike(run, tiny, tmp_path):
    summary = run(replace(tiny, model="tiny", options={}, epochs=1), tmp_path)
    assert summary.failures == []
    assert float(summary.metrics["PCK"]) > 0


def test_a_repeated_person_is_trained_without_himself_beside(run, tiny, tmp_path, monkeypatch):
    """Twelve pictures in one batch of 64: each person comes again, as if in another picture."""
    batches, forward = [], loop._Loss.forward

    def seen(loss, images, keypoints, visible, noise):
        batches.append(list(zip(keypoints.flatten(1).tolist(), noise["picture"].tolist(), strict=True)))
        return forward(loss, images, keypoints, visible, noise)

    monkeypatch.setattr(loop._Loss, "forward", seen)
    model = {"model": "i2rnet_tiny", "options": {"width": 16, "feedforward": 32}, "augmentation": None}
    run(replace(tiny, **model, epochs=1, batch_size=64), tmp_path)
    (batch,) = [[(tuple(points), picture) for points, picture in each] for each in batches]
    assert len(set(batch)) == 64 > len({points for points, _ in batch})


def test_a_second_training_in_the_same_folder_is_refused(run, tiny, tmp_path):
    code = "import sys; from pathlib import Path; from diffusionpose.errors import locked\n"
    code += "with locked(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdin=pipe, stdout=pipe) as holder:
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(InputError, match="another program is at work on this"):
            run(tiny, tmp_path)
        holder.stdin.close()
        holder.wait()
    assert not (tmp_path / "settings.json").exists()


def test_a_finished_run_is_left_as_it_is_and_more_epochs_go_on(run, finished, tiny, tmp_path):
    settings = replace(tiny, schedule="steps", drops=(), epochs=1)
    run(settings, tmp_path / "a")
    before = (tmp_path / "a" / "model.safetensors").stat().st_mtime_ns
    assert run(settings, tmp_path / "a").resumed_from == 1
    assert (tmp_path / "a" / "model.safetensors").stat().st_mtime_ns == before
    run(replace(settings, epochs=2), tmp_path / "a")
    run(replace(settings, epochs=2), tmp_path / "b")
    assert_same_run(tmp_path / "a", tmp_path / "b")


def test_a_finished_run_needs_no_table_and_says_what_it_ignores(run, finished, tiny, tmp_path, capsys):
    output = tmp_path / "run"
    shutil.copytree(finished, output)
    (output / "metrics.csv").write_text("")
    assert run(tiny, output).metrics == {}
    (output / "metrics.csv").unlink()
    assert run(replace(tiny, epochs=1), output).metrics == {}
    assert "--epochs 1: ignored" in capsys.readouterr().out


def test_a_resumed_run_remembers_what_it_started_from(finished, images, tiny, tmp_path, capsys):
    settings, other = replace(tiny, epochs=1), tmp_path / "other"
    train(settings, [images], images, tmp_path / "a", CPU, finished, progress=False)
    capsys.readouterr()
    again = replace(settings, epochs=2)
    train(again, [images], images, tmp_path / "a", CPU, other, progress=False)
    assert f"--weights {other}: ignored" in capsys.readouterr().out
    train(again, [images], images, tmp_path / "a", CPU, finished, progress=False)
    assert "ignored" not in capsys.readouterr().out
    written = json.loads((tmp_path / "a" / "settings.json").read_text())
    assert written["start"] == {"weights": str(finished), "encoder_weights": None}


def test_an_old_checkpoint_without_failures_is_resumed(run, finished, tiny, tmp_path):
    folder = RunFolder(Path(shutil.copytree(finished, tmp_path / "run")))
    checkpoint = read_checkpoint(folder.checkpoint)
    del checkpoint["broken"], checkpoint["val_failures"]
    torch.save(checkpoint, folder.checkpoint)
    assert run(tiny, folder.path).failures == []


def test_all_processes_validate_the_statistics_that_are_saved(run, tiny, tmp_path, monkeypatch):
    """Those of the first process; the buffers are handed out right before the validation."""
    order, validate = [], loop.Validation.__call__

    def broadcast(processes, tensors):
        order.append([tensor.data_ptr() for tensor in tensors])

    def call(validation, model, *rest):
        order.append([buffer.data_ptr() for buffer in model.buffers()])
        return validate(validation, model, *rest)

    monkeypatch.setattr(loop.Processes, "broadcast", broadcast)
    monkeypatch.setattr(loop.Validation, "__call__", call)
    run(replace(tiny, epochs=1), tmp_path)
    assert len(order) == 2
    assert order[0] == order[1] != []


def test_two_processes_have_the_losses_of_one(finished, images, tmp_path):
    """On CPU by gloo, started by the command line, which says nothing but a line an epoch."""
    words = (
        f"train {finished / 'settings.json'} --images {images.images} --annotations {images.annotations} "
        f"--val-images {images.images} --val-annotations {images.annotations} --output {tmp_path} "
        "--workers 0 --accelerator cpu --devices 2 --batch-size 2"
    ).split()
    command = [sys.executable, "-m", "diffusionpose.app.cli", *words]
    done = subprocess.run(command, capture_output=True, text=True)
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


def test_joints_that_a_set_lacks_get_no_loss_and_sets_are_shown_by_their_shares(images, tiny, tmp_path):
    """Two sets of other joints on the union of their skeletons, killed in between, against uninterrupted."""
    crowd = ImageSet(*map(Path, write_synthetic(tmp_path / "crowd", 4, seed=1, skeleton=CROWDPOSE)), share=2)
    coco = replace(images, share=0.5)
    settings = replace(tiny, skeleton="coco+crowdpose", schedule="steps", drops=())
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train(replace(settings, epochs=2), [coco, crowd], images, whole, CPU, progress=False)
    train(replace(settings, epochs=1), [coco, crowd], images, parts, CPU, progress=False)
    train(replace(settings, epochs=2), [coco, crowd], images, parts, CPU, progress=False)
    assert_same_run(whole, parts)
    with pytest.raises(InputError, match="--shares"):
        train(replace(settings, epochs=3), [images, crowd], images, parts, CPU, progress=False)

    # without CrowdPose's set its own joints (head top, neck) are never learnt: their output stays as it was
    train(
        replace(settings, epochs=1, weight_decay=0.0), [coco], images, tmp_path / "coco", CPU, progress=False
    )
    first = loop.starting_model(settings).state_dict()
    for folder, same in ((tmp_path / "coco", True), (whole, False)):
        after = load_model(folder / "model.safetensors").state_dict()
        moved = (after["conv.weight"] != first["conv.weight"]).flatten(1).any(1)
        assert moved[:17].all()
        assert (not moved[17:].any()) == same


def test_a_full_disk_keeps_the_last_checkpoint_and_the_run_goes_on_later(run, finished, tiny, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    longer = replace(tiny, epochs=4)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, limits[1]))  # no file may grow beyond
    try:
        with pytest.raises(InputError, match="cannot be written"):
            run(longer, tmp_path / "run")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["last.ckpt"]
    assert run(longer, tmp_path / "run").resumed_from == 3


def test_a_picture_that_cannot_be_read_is_left_out_and_reported(run, images, tiny, tmp_path):
    pictures = tmp_path / "pictures"
    shutil.copytree(images.images, pictures)
    broken = sorted(pictures.iterdir())[0]
    broken.write_bytes(broken.read_bytes()[:200])
    spoiled, settings = replace(images, images=pictures), replace(tiny, epochs=1, batch_size=64)
    summary = run(settings, tmp_path / "run", spoiled)
    assert summary.epochs == 1
    assert [failure.split("(")[-1] for failure in summary.failures] == [
        "left out of the training)", "left out of the validation)",
    ]  # fmt: skip
    assert all(broken.name in failure for failure in summary.failures)
    assert run(settings, tmp_path / "run", spoiled).failures == summary.failures, "finished"
    shutil.copy(images.images / broken.name, broken)
    (left_out, *_) = run(replace(settings, epochs=2), tmp_path / "run", spoiled).failures
    assert left_out.endswith("could not be read for a while (left out of the training)")


@pytest.mark.parametrize("changes", [{}, {"options": {"width": 8, "own_start": 0.5}}, {"batch_size": 64}])
def test_a_diverging_training_stops_with_a_cure(changes, run, tiny, tmp_path):
    """Also where heatmaps are decoded before the loss is looked at, and with one step an epoch."""
    wild = replace(tiny, learning_rate=1e30, clip_norm=0.0, warmup_steps=0, **changes)
    with pytest.raises(InputError, match=r"diverged.*--learning-rate"):
        run(wild, tmp_path)
    assert not list(tmp_path.glob("*.safetensors"))


def test_an_accelerator_that_is_not_there_is_named(run, tiny, tmp_path):
    with pytest.raises(InputError, match="--accelerator teapot"):
        run(tiny, tmp_path, machine=Machine("teapot", workers=0))


def test_bf16_where_the_machine_has_it_else_32_bits_and_a_line_that_says_so(
    run, tiny, tmp_path, monkeypatch, capsys
):
    losses = {}
    for precision, there in (("32", True), ("bf16-mixed", True), ("bf16-mixed", False)):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda there=there: {"avx512_bf16": there})
        summary = run(replace(tiny, precision=precision, epochs=1), tmp_path / f"{precision}-{there}")
        losses[precision, there] = summary.metrics["loss"]
        assert ("no bf16 on this cpu: trained in 32 bits" in capsys.readouterr().out) == (not there)
    assert losses["bf16-mixed", False] == losses["32", True] != losses["bf16-mixed", True]


def test_training_on_synthetic_people_for_twenty_seconds_beats_the_mean_pose(tmp_path):
    """From random weights, on people never seen: PCK 0.13 for the mean pose, 0.27 for this model."""
    sets = [
        ImageSet(*map(Path, write_synthetic(tmp_path / name, count, seed=seed, skeleton=CROWDPOSE)))
        for name, count, seed in (("train", 200, 0), ("val", 50, 1))
    ]
    recipe = get_recipe("diffusionpose_tiny_synthetic")
    settings = replace(recipe, epochs=4, batch_size=8, augmentation=None, val_every=4)
    summary = train(settings, sets[:1], sets[1], tmp_path / "run", CPU, progress=False)
    mean_pose = evaluate_mean_pose(sets[0].annotations, sets[1].annotations).metrics
    for name in ("PCK", "PCK_limbs"):
        assert float(summary.metrics[name]) > 1.4 * mean_pose[name] > 0.1, name
    assert float(summary.metrics["AP50"]) > mean_pose["AP50"] + 0.08
