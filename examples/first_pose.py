"""The poses of the people in a picture: python first_pose.py photo.jpg"""

import sys

from diffusionpose import PoseEstimator

estimator = PoseEstimator.from_pretrained()  # the bundled model, and the bundled people finder
for person, pose in enumerate(estimator(sys.argv[1])):
    for joint, (x, y), score in zip(pose.skeleton.joints, pose.keypoints, pose.scores, strict=True):
        print(f"{person}  {joint:16} x {x:7.1f}  y {y:7.1f}  score {score:.2f}")
