"""A model for joints of your own, from data to a pose: python own_skeleton.py FOLDER [EPOCHS]"""

import sys
from dataclasses import replace
from pathlib import Path

from diffusionpose import PoseEstimator, Skeleton
from diffusionpose.data.synthetic import write_synthetic
from diffusionpose.training.loop import train
from diffusionpose.training.recipes import get_recipe
from diffusionpose.training.settings import ImageSet

folder, epochs = Path(sys.argv[1]), int((sys.argv[2:] or ["10"])[0])
arms = Path(__file__).with_name("arms.yaml")
skeleton = Skeleton.from_yaml(arms)
# drawn people stand in for your annotated pictures (COCO's format, the joints' names as in the YAML file)
train_set = ImageSet(*write_synthetic(folder / "train", 60, seed=0, skeleton=skeleton))
val_set = ImageSet(*write_synthetic(folder / "val", 10, seed=1, skeleton=skeleton))
settings = replace(get_recipe("diffusionpose_tiny_synthetic"), skeleton=str(arms), epochs=epochs)
print("PCK", train(settings, [train_set], val_set, folder / "run").metrics["PCK"])
for pose in PoseEstimator.from_pretrained(folder / "run", detector="whole")(val_set.images / "000001.jpg"):
    print(dict(zip(skeleton.joints, pose.keypoints.round().tolist(), strict=True)))
