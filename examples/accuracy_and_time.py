"""Accuracy against ms a person: OMP_NUM_THREADS=1 python accuracy_and_time.py IMAGES ANNOTATIONS [WEIGHTS]"""

import sys
import time

from diffusionpose.evaluation.evaluate import evaluate
from diffusionpose.runtime.networks import load_network

network, spent = load_network((sys.argv[3:] or [None])[0], "cpu"), []


def timed(run):
    """The same; notes the processor time, which does not grow with what else the machine does."""

    def call(*given):
        began = time.thread_time()
        maps = run(*given)
        spent.append(time.thread_time() - began)
        return maps

    return call


for part in ("encode", "reverse") if network.encodes_once else ("heatmaps",):
    setattr(network, part, timed(getattr(network, part)))
for options in [{"steps": steps, "flip": flip} for steps in (0, "auto", 1, 2) for flip in (False, True)]:
    report = evaluate(network, sys.argv[2], sys.argv[1], decode="dark", **options)
    print(options, f"AP {100 * report.metrics['AP']:.1f}, {1000 * sum(spent) / len(report.results):.0f} ms")
    spent.clear()
