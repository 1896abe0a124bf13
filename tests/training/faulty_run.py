"""Trainings that die: ``faulty_run.py SETTINGS IMAGES ANNOTATIONS OUTPUT`` (its SIGTERM, SIGKILL).

SIGTERM: in the second epoch's second step. SIGKILL: with the second checkpoint half written. Each is
a fork of this process, which imports PyTorch once. Prints what they died of.
"""

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch

from diffusionpose.training import loop
from diffusionpose.training.settings import ImageSet, Machine, TrainingSettings

step, save = loop.Training.step, torch.save


def step_or_die(self: loop.Training, batch: Any, number: int) -> Any:
    if number == self.data.steps + 1:
        os.kill(os.getpid(), signal.SIGTERM)
    return step(self, batch, number)


def save_or_die(checkpoint: Any, path: Path) -> None:
    save(checkpoint, path)
    if checkpoint["epoch"] == 1:
        os.truncate(path, path.stat().st_size // 2)
        os.kill(os.getpid(), signal.SIGKILL)


settings, images, annotations, output = sys.argv[1:]
tiny, data = TrainingSettings.from_dict(json.loads(settings)), ImageSet(Path(images), Path(annotations))
for fault in ("SIGTERM", "SIGKILL"):
    if child := os.fork():
        died_of = signal.Signals(os.WTERMSIG(os.waitpid(child, 0)[1]))
        sys.stdout.write(f"{died_of.name}\n")
        sys.stdout.flush()  # the next child has none of it
        continue
    if fault == "SIGTERM":
        loop.Training.step = step_or_die  # type: ignore[method-assign]
    else:
        torch.save = save_or_die  # type: ignore[assignment]
    loop.train(tiny, [data], data, Path(output, fault), Machine("cpu", workers=0), progress=False)
    os._exit(0)  # did not die
