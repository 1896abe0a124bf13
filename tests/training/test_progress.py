import pytest

from diffusionpose.training import loop as progress
from diffusionpose.training.loop import Pace


def test_pace_tells_speed_and_time_left(monkeypatch):
    clock = iter([0.0, 0.0, 100.0, 110.0, 110.0, 110.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    pace = Pace(persons_per_step=8, steps_per_epoch=10, epochs=5)  # 0 s
    pace.start_run(2)  # 0 s: resumed after two epochs
    pace.start_epoch(3)  # 100 s: one epoch and its validation are done
    assert pace.persons_per_second(5) == pytest.approx(4)  # 40 persons in 10 s
    assert pace.left(5) == "0:01:50"  # 15 steps in 110 s, 15 ahead
