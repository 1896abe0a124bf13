"""Several people in several pictures: python several_people.py photo.jpg ..."""

import sys

from PIL import Image

from diffusionpose import PoseEstimator

estimator = PoseEstimator.from_pretrained(steps=1, decode="dark", flip=True)
pictures = [Image.open(path) for path in sys.argv[1:]]
# x0, y0, x1, y1 of each person; here the left and the right half of every picture
boxes = [
    [[0, 0, picture.width / 2, picture.height], [picture.width / 2, 0, picture.width, picture.height]]
    for picture in pictures
]
for path, poses in zip(sys.argv[1:], estimator(pictures, boxes), strict=True):
    for person, pose in enumerate(poses):
        print(f"{path}: person {person}, score {pose.score:.2f}, {(pose.scores > 0.2).sum()} joints seen")
