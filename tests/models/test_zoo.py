"""Every model: forward, loss, one step of training, save, load; a batch equals its items."""

import pytest
import torch

from diffusionpose.errors import InputError
from diffusionpose.geometry import Crop
from diffusionpose.models.checkpoints import load_model, save_model
from diffusionpose.models.zoo import MODELS, create_model
from diffusionpose.skeletons import COCO, CROWDPOSE

SMALL = {"input_size": (64, 96)}


def narrow(name: str) -> dict:
    """The large ones are walked over at their smallest width and depth, which is the same code."""
    width = {"width": 32} if name.startswith("diffusionpose") and "tiny" not in name else {}
    if "vit" in name:
        return {**width, "encoder": {"depth": 2}}
    return {"patch": (4, 4), "depth": 3} if name == "tokenpose_l" else width


def make(name: str, **options):
    torch.manual_seed(0)
    return create_model(name, CROWDPOSE, **SMALL, **narrow(name), **options)


def batch(count: int):
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (count, 3, 96, 64), dtype=torch.uint8, generator=generator)
    keypoints = torch.rand(count, 14, 2, generator=generator) * torch.tensor([64.0, 96.0])
    return images, keypoints, torch.ones(count, 14)


@pytest.mark.parametrize("name", MODELS)
def test_forward_loss_step_save_load(name, tmp_path):
    model = make(name)
    images, keypoints, visible = batch(2)
    optimiser = torch.optim.SGD(model.parameters(), 1e-3)
    losses = model.loss(images, keypoints, visible, model.draw_noise(2, torch.Generator().manual_seed(0)))
    losses["loss"].backward()
    without = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert without == []
    optimiser.step()

    model.eval()
    with torch.no_grad():
        before = model(images)
    assert before.shape == (2, 14, 24, 16)
    save_model(model, tmp_path / "model.safetensors")
    again = load_model(tmp_path / "model.safetensors")
    assert again.skeleton == CROWDPOSE
    with torch.no_grad():
        assert torch.equal(again(images), before)
        single = torch.cat([model(images[i : i + 1]) for i in range(2)])
    # untrained networks give heatmaps of any height; another order of sums changes them by up to 6e-5 of it
    assert (single - before).abs().max() < 5e-4 * before.abs().max()


@pytest.mark.parametrize("name", ["diffusionpose_tiny", "tiny"])
@pytest.mark.parametrize("unbiased", [False, True])
def test_flip_test_is_the_mean_of_both_pictures_in_one_batch(name, unbiased):
    model = make(name, unbiased=unbiased).eval()
    images, *_ = batch(2)
    order = list(CROWDPOSE.flip_order)
    with torch.no_grad():
        both = model.heatmaps(images, flip=True)
        mirrored = model.heatmaps(images.flip(-1), flip=True)
        straight, crossed = model(images), model(images.flip(-1))[:, order].flip(-1)
    if not unbiased:  # HRNet's shift by one pixel
        crossed = torch.cat([crossed[..., :1], crossed[..., :-1]], -1)
    assert torch.allclose(both, (straight + crossed) / 2, atol=1e-5)
    if unbiased:  # then the answer for the mirror image is the mirrored answer
        assert torch.allclose(mirrored[:, order].flip(-1), both, atol=1e-5)


def test_estimate_gives_image_pixels():
    model = make("diffusionpose_tiny").eval()
    images, *_ = batch(2)
    near = Crop.from_boxes(torch.tensor([[0.0, 0.0, 60.0, 90.0], [0.0, 0.0, 60.0, 90.0]]), (64, 96))
    far = Crop.from_boxes(
        torch.tensor([[1000.0, 500.0, 1060.0, 590.0], [1000.0, 500.0, 1060.0, 590.0]]), (64, 96)
    )
    here, scores = model.estimate(images, near)
    there, _ = model.estimate(images, far)
    assert here.shape == (2, 14, 2)
    assert scores.shape == (2, 14)
    assert torch.allclose(there - here, torch.tensor([1000.0, 500.0]), atol=1e-2)


def test_names_and_options_that_are_none_are_errors():
    with pytest.raises(InputError, match="no model 'resnet'"):
        create_model("resnet")
    with pytest.raises(InputError, match="cannot be made with options"):
        create_model("tiny", widht=3)
    for wrong in ({"embed_dim": 50}, {"deth": 2}, "vit"):
        with pytest.raises(InputError, match="cannot be made with options"):
            create_model("vitpose_s", encoder=wrong)
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
