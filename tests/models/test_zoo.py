"""Every model: forward, loss, one step of training, save, load; a batch equals its items."""

import pytest
import torch

from diffusionpose.errors import InputError
from diffusionpose.geometry import Start
from diffusionpose.models.checkpoints import load_model, save_model
from diffusionpose.models.zoo import create_model
from diffusionpose.skeletons import COCO, CROWDPOSE

SMALL = {"input_size": (64, 96)}


# of every kind one that is small, or can be made so
TRAINED = (
    "diffusionpose_tiny", "tiny", "tiny_unet", "mobilenetv2", "diffusionpose_movenet", "movenet_unet",
    "diffusionpose_vit_s", "vitpose_s", "vitpose_s_simple", "hrformer_s", "posefix_tiny", "opecnet_tiny",
    "i2rnet_tiny",
)  # fmt: skip


def narrow(name: str) -> dict:
    """Options that make a large model small, with the same code."""
    width = {"width": 32} if name.startswith("diffusionpose") and "tiny" not in name else {}
    if "vit" in name:
        return {**width, "encoder": {"depth": 2}}
    if "movenet" in name:
        return {"encoder": {"width": 0.5}}
    return {"patch": (4, 4), "depth": 3} if name == "tokenpose_l" else width


def make(name: str, **options):
    torch.manual_seed(0)
    return create_model(name, CROWDPOSE, **SMALL, **narrow(name), **options)


def batch(count: int):
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (count, 3, 96, 64), dtype=torch.uint8, generator=generator)
    keypoints = torch.rand(count, 14, 2, generator=generator) * torch.tensor([64.0, 96.0])
    return images, keypoints, torch.ones(count, 14)


def start_of(model, keypoints):
    """The keypoints as a start, where the model cannot do without."""
    return Start(keypoints, torch.ones_like(keypoints[..., 0])) if model.needs_start else None


# of every other kind one; larger ones are the same code, and `diffusionpose models` has run them once
SHAPES = (
    "diffusionpose_hrnet_w32", "diffusionpose_resnet50", "diffusionpose_convnext_tiny", "mobilenetv2_unet",
    "diffusionpose_mobilenetv2", "movenet", "hrnet_w32", "simplebaseline_r50", "tokenpose_l", "transpose_h",
    "posefix_r152", "opecnet_r101", "i2rnet_hrnet_w48", "i2rnet_transpose_h",
)  # fmt: skip


@pytest.mark.parametrize("name", SHAPES)
def test_every_model_has_heatmaps_and_a_loss_that_reaches_every_weight(name):
    model = make(name)
    images, keypoints, visible = batch(2)
    noise = {"t": torch.ones(2, dtype=torch.long), "epsilon": torch.zeros(2, 14, 2), "start": keypoints}
    model.loss(images, keypoints, visible, noise)["loss"].backward()
    assert [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None] == []
    with torch.no_grad():
        heatmaps = model.eval()(images, None, start_of(model, keypoints))
    assert heatmaps.shape == (2, 14, 24, 16)
    assert heatmaps.isfinite().all()


@pytest.mark.parametrize("name", TRAINED)
def test_forward_loss_step_save_load(name, tmp_path):
    model = make(name)
    images, keypoints, visible = batch(2)
    optimiser = torch.optim.SGD(model.parameters(), 1e-3)
    noise = model.draw_noise(2, torch.Generator().manual_seed(0)) | {"start": keypoints + 3}
    losses = model.loss(images, keypoints, visible, noise)
    losses["loss"].backward()
    optimiser.step()

    model.eval()
    start = start_of(model, keypoints)
    with torch.no_grad():
        before = model(images, None, start)
    assert before.shape == (2, 14, 24, 16)
    save_model(model, tmp_path / "model.safetensors")
    again = load_model(tmp_path / "model.safetensors")
    assert again.skeleton == CROWDPOSE
    with torch.no_grad():
        assert torch.equal(again(images, None, start), before)
        single = torch.cat(
            [model(images[i : i + 1], None, start_of(model, keypoints[i : i + 1])) for i in range(2)]
        )
    # untrained networks give heatmaps of any height; another order of sums changes them by up to 6e-5 of it
    assert (single - before).abs().max() < 5e-4 * before.abs().max()


def test_what_a_model_takes_is_declared():
    diffusion, plain = make("diffusionpose_tiny"), make("tiny")
    assert (diffusion.takes_start, diffusion.default_steps) == (True, 1)
    assert (plain.takes_start, plain.default_steps) == (False, None)
    assert [len(m.trajectory(batch(1)[0], steps)) for m, steps in ((diffusion, 2), (plain, None))] == [3, 1]


def test_names_and_options_that_are_none_are_errors():
    with pytest.raises(InputError, match="no model 'resnet'"):
        create_model("resnet")
    with pytest.raises(InputError, match="cannot be made with options"):
        create_model("tiny", widht=3)
    for wrong in ({"embed_dim": 50}, {"deth": 2}, "vit"):
        with pytest.raises(InputError, match="cannot be made with options"):
            create_model("vitpose_s", encoder=wrong)
    for name, value, must in (
        ("width", 0, "a whole number from 1 to 2048"),
        ("width", True, "a whole number"),
        ("zeta", float("nan"), "a number from"),
        ("zeta", 10**400, "a number from"),
        ("input_size", (64, 96, 3), "two whole numbers"),
        ("unbiased", "yes", "true or false"),
        ("mistakes", 1.5, "a number from 0 to 1"),
    ):
        with pytest.raises(InputError, match=f"cannot be made with options {name}=.*must be {must}"):
            create_model("diffusionpose_tiny", **{name: value})
    with pytest.raises(InputError, match="features, keypoints, full"):
        create_model("diffusionpose_tiny", conditions="everything", **SMALL)
    with pytest.raises(InputError, match="multiple of heatmap stride"):
        create_model("tiny", input_size=(66, 97))


def test_a_skeleton_of_ones_own_makes_a_model(tmp_path):
    file = tmp_path / "stick.yaml"
    file.write_text(
        "name: stick\njoints: {top: {sigma: 0.1}, bottom: {sigma: 0.1}}\nlimbs: [[top, bottom]]\n"
    )
    model = create_model("diffusionpose_tiny", str(file), **SMALL).eval()
    assert model(batch(1)[0]).shape == (1, 2, 24, 16)
    save_model(model, tmp_path / "stick.safetensors")
    assert load_model(tmp_path / "stick.safetensors").skeleton.joints == ("top", "bottom")


def test_joints_follow_the_skeleton():
    assert create_model("tiny", COCO)(batch(1)[0]).shape[1] == 17


@pytest.mark.parametrize("name", ["diffusionpose_tiny", "tiny"])
def test_channels_last_agrees_with_the_usual_layout(name):
    model = make(name).eval()
    images, *_ = batch(2)
    with torch.no_grad():
        plain = model(images)
        packed = model.to(memory_format=torch.channels_last)(images.to(memory_format=torch.channels_last))
    assert torch.allclose(plain, packed, atol=1e-5)


def test_bf16_agrees_with_float32():
    # without the masks: there a maximum that moves by a rounding error moves a whole disc
    model = make("diffusionpose_tiny", conditions="features").eval()
    images, *_ = batch(2)
    with torch.no_grad():
        plain = model(images)
        with torch.autocast("cpu", torch.bfloat16):
            rough = model(images)
    assert (rough.float() - plain).abs().max() < 0.05 * plain.abs().max()
