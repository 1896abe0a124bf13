"""Which joints the model is sure of: python table.py photo.jpg ...   (pip install 'diffusionpose[table]')"""

import sys

from diffusionpose import PoseEstimator, to_dataframe

estimator = PoseEstimator.from_pretrained()
frame = to_dataframe(dict(zip(sys.argv[1:], estimator(sys.argv[1:]), strict=True)))
# a row for each picture, person and joint: joint, x, y, score, ...
print(frame.groupby("joint", sort=False)["score"].agg(["mean", "min"]).sort_values("mean").round(2))
