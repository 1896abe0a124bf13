"""The time left, and jobs that end badly."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from diffusionpose.training import reproduce as runs
from diffusionpose.training.reproduce import Clock, Data, Job, do_all
from diffusionpose.training.settings import ImageSet, Machine


@pytest.fixture
def job(tiny, images, tmp_path):
    data = Data((images,), images, encoder_weights=Path("weights.safetensors"))
    return Job("one", tmp_path / "one", tiny, data, (0, 1), Machine("cpu", workers=0), threads=2)


def test_a_job_survives_the_way_to_its_process(job):
    assert Job.from_json(job.to_json()) == job
    plain = replace(job, data=replace(job.data, boxes=Path("b.json"), encoder_weights=None))
    assert Job.from_json(plain.to_json()) == plain


def test_a_result_counts_for_its_model_steps_and_data_only(job, images, tmp_path):
    job = replace(job, data=replace(job.data, encoder_weights=None))
    job.folder.mkdir()
    job.model_file.write_bytes(b"weights")
    job.result_file(1).parent.mkdir()
    job.result_file(1).write_text(json.dumps({"key": job.key(1), "metrics": {"AP": 1}}))
    assert job.result(1)["metrics"] == {"AP": 1}
    assert job.result(0) is None
    assert not job.finished
    assert replace(job, steps=(1,)).finished
    assert replace(job, settings=replace(job.settings, epochs=9)).result(1) is None
    other = tmp_path / "other.json"
    other.write_text("[]")
    elsewhere = replace(job.data, val=ImageSet(images.images, other))
    assert replace(job, data=elsewhere).result(1) is None
    assert replace(job, data=replace(job.data, boxes=other)).result(1) is None
    job.model_file.write_bytes(b"others!")
    assert job.result(1) is None
    job.result_file(1).write_text("{")
    assert job.result(1) is None


def test_the_time_left_goes_by_the_cost_of_what_is_left(job, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(runs.time, "monotonic", lambda: now[0])
    jobs = [replace(job, name=name) for name in ("cheap", "dear")]
    clock = Clock(jobs, {"cheap": 1.0, "dear": 4.0}, parallel=1)
    assert clock.left() == "?"
    clock.start("cheap")
    now[0] = 10.0  # 10 seconds for an epoch of cost 1; 2 of these are left and 3 of cost 4
    clock.epoch_done("cheap", left=2)
    assert clock.left() == "0:02:20"
    clock.parallel = 2  # the dear one alone: 12 units
    assert clock.left() == "0:02:00"
    clock.job_done("dear")
    assert clock.left() == "0:00:20"


def test_a_job_that_cannot_be_done_leaves_the_others_alone(job, images):
    bad = ImageSet(images.images, images.annotations.with_name("nowhere.json"))
    good = replace(job, name="good", steps=(1,), data=Data((images,), images), threads=1)
    good = replace(good, settings=replace(job.settings, epochs=1), folder=job.folder.with_name("good"))
    broken = replace(good, name="broken", data=Data((bad,), images), folder=job.folder.with_name("broken"))
    said = []
    failed = do_all([broken, good], {"good": 1.0, "broken": 1.0}, 2, said.append)
    assert list(failed) == ["broken"]
    assert "nowhere.json" in failed["broken"]
    assert good.finished
    assert any(line.startswith("[2/2 good] epoch 1/1 ") for line in said)
    assert any(line.startswith("[1/2 broken] begins") for line in said)
