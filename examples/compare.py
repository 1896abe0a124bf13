"""Two models on the same boxes, and how they differ: python compare.py IMAGES ANNOTATIONS FIRST SECOND"""

import sys

from diffusionpose import load_model
from diffusionpose.evaluation.compare import compare_results
from diffusionpose.evaluation.evaluate import evaluate

images, annotations, *names = sys.argv[1:]
reports = [evaluate(load_model(name), annotations, images, decode="dark", flip=True) for name in names]
results = [report.results for report in reports]
for metric, found in compare_results(annotations, *results, reports[0].skeleton, rounds=100).items():
    low, high = found.interval
    print(f"{metric}: {found.first:.3f} and {found.second:.3f}, difference {low:+.3f} to {high:+.3f}")
