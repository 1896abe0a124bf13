"""A reproduction that kills itself after its first epoch: ``killed_study.py SETTINGS IMAGES FILE OUTPUT``."""

import json
import os
import signal
import sys
import time
from pathlib import Path

from diffusionpose.training.reproduce import reproduce
from diffusionpose.training.settings import TrainingSettings
from diffusionpose.training.studies import BUDGETS, Budget, Request

settings, *paths = sys.argv[1:]
images, annotations, output = map(Path, paths)


def die_after_an_epoch(line: str) -> None:
    if " epoch 1/2 " in line:
        while not list(output.glob("runs/*/checkpoints/last.ckpt")):  # written after the line
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGKILL)


base = TrainingSettings.from_dict(json.loads(settings))
BUDGETS["tiny"] = Budget("tiny", "the tiny model", base, "tiny", "tiny_unet")
request = Request(
    "figure4",
    (images,),
    (annotations,),
    images,
    annotations,
    output,
    "tiny",
    accelerator="cpu",
    workers=0,
)
reproduce(request, die_after_an_epoch)
