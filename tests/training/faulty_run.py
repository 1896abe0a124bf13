"""A training that dies: ``faulty_run.py FAULT SETTINGS IMAGES ANNOTATIONS OUTPUT``.

SIGTERM: in the second epoch's second step. SIGKILL: with the second checkpoint half written.
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


fault, settings, images, annotations, output = sys.argv[1:]
if fault == "SIGTERM":
    loop.Training.step = step_or_die  # type: ignore[method-assign]
else:
    torch.save = save_or_die  # type: ignore[assignment]
data = ImageSet(Path(images), Path(annotations))
loop.train(
    TrainingSettings.from_dict(json.loads(settings)),
    [data],
    data,
    Path(output),
    Machine("cpu", workers=0),
    progress=False,
)
