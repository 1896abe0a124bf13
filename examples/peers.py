"""Times of one crop: other networks of the field, random weights, beside the default: python peers.py"""

from functools import partial

import numpy as np
import timm
import torch
from transformers import VitPoseBackboneConfig, VitPoseConfig, VitPoseForPoseEstimation

from diffusionpose.app.benchmark import take_turns
from diffusionpose.runtime.networks import cpu_threads, load_network

torch.set_num_threads(cpu_threads())
default, images = load_network(device="cpu"), torch.zeros(1, 3, 256, 192)
backbone = VitPoseBackboneConfig(out_indices=[12])
peers = {
    "HRNet-W32's backbone (timm)": timm.create_model("hrnet_w32", pretrained=False, features_only=True),
    "VitPose-B (transformers)": VitPoseForPoseEstimation(VitPoseConfig(backbone_config=backbone)),
}
crop = np.zeros((1, 3, *default.codec.input_size[::-1]), np.uint8)
contestants = {"the default network": lambda: default.heatmaps(crop)}
contestants |= {name: partial(model.eval(), images) for name, model in peers.items()}
with torch.inference_mode():
    for name, seconds in take_turns(contestants, rounds=3).items():
        print(f"{name}: {1000 * seconds:.0f} ms")
