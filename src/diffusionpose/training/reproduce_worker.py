"""The process of one job: trains (or goes on training) and measures. Started by ``runs.py``.

``python -m diffusionpose.training.reproduce_worker JOB``, JOB as of ``Job.to_json``. Each training has a
process of its own, so that one that fails or is killed for its memory leaves the others alone. It
ends when its standard input does: whoever started it is gone then, and would start a second one.
"""

from __future__ import annotations

import os
import sys
import threading

from diffusionpose.errors import InputError
from diffusionpose.training.reproduce import Job

ORPHANED = 3  # exit status


def do(job: Job) -> None:
    """Train and measure what is missing.

    Raises:
        InputError: something given cannot be used.
    """
    import torch

    from diffusionpose.training.loop import train
    from diffusionpose.training.reproduce import measure

    torch.set_num_threads(job.threads)
    summary = train(
        job.settings,
        job.data.train,
        job.data.val,
        job.folder,
        job.machine,
        weights=job.data.weights,
        encoder_weights=job.data.encoder_weights,
        progress=False,
    )
    if summary.first_process:
        for steps in job.steps:
            if job.result(steps) is None:
                measure(job, steps, summary.failures)


def _end_with_parent() -> None:
    def watch() -> None:
        while os.read(0, 4096):
            pass
        os._exit(ORPHANED)

    threading.Thread(target=watch, daemon=True).start()


def main() -> None:
    """Do the job of the command line; status 1 and its message where it cannot be done."""
    _end_with_parent()
    try:
        do(Job.from_json(sys.argv[1]))
    except InputError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
