"""Accuracy against ms a person: OMP_NUM_THREADS=1 python accuracy_and_time.py IMAGES ANNOTATIONS [WEIGHTS]"""

import sys
import time
from functools import partial

from diffusionpose.evaluation.evaluate import evaluate
from diffusionpose.runtime.networks import load_network

network, spent = load_network((sys.argv[3:] or [None])[0], "cpu"), []


def timed(run, *given):
    """What it gives; notes the processor's time, which does not grow with what else the machine does."""
    began = time.thread_time()
    maps = run(*given)
    spent.append(time.thread_time() - began)
    return maps


for part in ("encode", "reverse") if network.encodes_once else ("heatmaps",):
    setattr(network, part, partial(timed, getattr(network, part)))
for options in [{"steps": steps, "flip": flip} for steps in (0, "auto", 1, 2) for flip in (False, True)]:
    spent.clear()
    report = evaluate(network, sys.argv[2], sys.argv[1], decode="dark", **options)
    print(options, f"AP {100 * report.metrics['AP']:.1f}, {1000 * sum(spent) / len(report.results):.0f} ms")
