"""How far each diffusion step moves the joints: python steps.py photo.jpg (pip install '.[train]')"""

import sys

import torch

from diffusionpose import load_model
from diffusionpose.geometry import Crop
from diffusionpose.runtime.images import read_image

model = load_model().eval()  # the bundled model
picture = read_image(sys.argv[1])  # (H, W, 3) RGB
height, width = picture.shape[:2]
crop = Crop.from_boxes(torch.tensor([[0, 0, width, height]]), model.input_size, unbiased=model.unbiased)
pixels = torch.from_numpy(crop.cut(picture)).permute(2, 0, 1)[None]
with torch.no_grad():
    heatmaps = model.denoise(pixels, steps=3)  # coarse, then after each step: (1, joints, h, w)
coarse, _ = model.codec.decode(heatmaps[0], "dark")
for step, maps in enumerate(heatmaps):
    keypoints, scores = model.codec.decode(maps, "dark")
    moved = (keypoints - coarse).norm(dim=-1).mean()
    print(f"step {step}: mean score {scores.mean():.2f}, {moved:.2f} heatmap pixels from the coarse pose")
