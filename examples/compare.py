"""Two models on the same boxes, with intervals: python compare.py IMAGES ANNOTATIONS MODEL_A MODEL_B"""

import sys

from diffusionpose import load_model
from diffusionpose.evaluation.evaluate import evaluate

images, annotations, *names = sys.argv[1:]
for name in names:
    result = evaluate(load_model(name), annotations, images, decode="dark", flip=True)
    low, high = result.intervals["PCK"]
    print(f"{name}: AP {result.metrics['AP']:.3f}  PCK {result.metrics['PCK']:.3f} ({low:.3f} to {high:.3f})")
