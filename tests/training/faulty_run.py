"""A training to which something happens: ``faulty_run.py FAULT SETTINGS IMAGES ANNOTATIONS OUTPUT``.

SIGKILL, SIGINT, SIGTERM: that signal in the second epoch's second step. checkpoint: SIGKILL with the
second checkpoint half written. full-disk: no file may grow beyond 3 MB (the checkpoint of the tiny
model has 7).
"""

import json
import os
import resource
import signal
import sys
from pathlib import Path
from typing import Any

import torch

from diffusionpose.errors import InputError
from diffusionpose.training.loop import PoseTraining, train
from diffusionpose.training.settings import ImageSet, Machine, TrainingSettings

training_step, save = PoseTraining.training_step, torch.save


def step_or_die(self: PoseTraining, batch: Any, batch_idx: int) -> Any:
    if self.trainer.current_epoch == 1 and batch_idx == 1:
        os.kill(os.getpid(), getattr(signal, fault))
    return training_step(self, batch, batch_idx)


def save_or_die(checkpoint: Any, path: Path) -> None:
    save(checkpoint, path)
    if checkpoint["epoch"] == 1:
        os.truncate(path, path.stat().st_size // 2)
        os.kill(os.getpid(), signal.SIGKILL)


fault, settings, images, annotations, output = sys.argv[1:]
# a shell ignores Ctrl-C for what it starts in the background, and its children inherit that
signal.signal(signal.SIGINT, signal.default_int_handler)
if fault.startswith("SIG"):
    PoseTraining.training_step = step_or_die  # type: ignore[method-assign]
elif fault == "checkpoint":
    torch.save = save_or_die  # type: ignore[assignment]
elif fault == "full-disk":
    resource.setrlimit(resource.RLIMIT_FSIZE, (3_000_000, 3_000_000))
data = ImageSet(Path(images), Path(annotations))
try:
    train(
        TrainingSettings.from_dict(json.loads(settings)),
        [data],
        data,
        Path(output),
        Machine("cpu", workers=0),
        progress=False,
    )
except InputError as error:
    sys.exit(str(error))
except KeyboardInterrupt:
    sys.exit("stopped by Ctrl-C")
