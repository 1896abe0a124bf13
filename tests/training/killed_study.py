"""A reproduction that kills itself after its first epoch: ``killed_study.py SETTINGS IMAGES FILE OUTPUT``."""

import json
import os
import signal
import sys
import time
from pathlib import Path

from diffusionpose.training.reproduce import Data, Request, reproduce
from diffusionpose.training.settings import ImageSet, Machine, TrainingSettings
from diffusionpose.training.studies import STUDIES, Budget

settings, images, annotations, output = sys.argv[1:]


def die_after_an_epoch(line: str) -> None:
    if " epoch 1/2 " in line:
        while not list(Path(output).glob("runs/*/checkpoints/last.ckpt")):  # written after the line
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGKILL)


base = TrainingSettings.from_dict(json.loads(settings))
data = ImageSet(Path(images), Path(annotations))
request = Request(
    STUDIES["figure4"],
    Budget("test", "the tiny model", base, "tiny", "tiny_unet"),
    Data((data,), data),
    Path(output),
    machine=Machine("cpu", workers=0),
)
reproduce(request, die_after_an_epoch)
