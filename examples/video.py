"""Where each person's head is in each frame of a video.

pip install 'diffusionpose[video]'
python examples/video.py clip.mp4
"""

import sys
from pathlib import Path

from diffusionpose import PoseEstimator
from diffusionpose.runtime.video.following import VideoPoses
from diffusionpose.runtime.video.reading import VideoFile

estimator = PoseEstimator.from_pretrained(detector="auto")
head = estimator.skeleton.joints.index("head")
with VideoFile(Path(sys.argv[1])) as video:
    poses = VideoPoses(estimator, rate=float(video.facts.rate))
    for frame, persons in poses(video):
        for person in persons:
            (x, y), sure = person.pose.keypoints[head], person.pose.scores[head]
            print(f"{frame.time:7.3f} s  person {person.id}  {x:7.1f} {y:7.1f}  score {sure:.2f}")
