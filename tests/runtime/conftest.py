"""Models with random weights whose heatmaps are as high as trained ones."""

from collections.abc import Callable

import pytest
import torch

from diffusionpose.models.diffusion_pose import DiffusionPose
from diffusionpose.models.export import random_crops
from diffusionpose.models.pose_model import PoseModel
from diffusionpose.models.zoo import create_model


@pytest.fixture(scope="session")
def lively() -> Callable[..., PoseModel]:
    """``lively(name, **options)``: heads begin near zero, so they are scaled until heatmaps vary by 0.2."""

    def make(name: str = "diffusionpose_tiny", **options: object) -> PoseModel:
        torch.manual_seed(0)
        model = create_model(name, "crowdpose", **{"input_size": (64, 96), **options}).eval()
        images = torch.from_numpy(random_crops(2, model.input_size))
        heads = [module for module in model.modules() if isinstance(module, torch.nn.Conv2d)][-1:]
        if isinstance(model, DiffusionPose):
            heads.insert(0, model.conv)
        with torch.no_grad():
            for step, head in enumerate(heads):
                options = {"steps": step} if isinstance(model, DiffusionPose) else {}
                head.weight.mul_(0.2 / model(images, **options).std())
        return model

    return make
