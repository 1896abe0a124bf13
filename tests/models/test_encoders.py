"""Encoders: timm's networks cut and joined, ViTPose's transformer, MoveNet."""

from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

from diffusionpose.errors import InputError
from diffusionpose.models.encoders import (
    HEAD_CHANNELS,
    Convolution,
    HRNetEncoder,
    MobileNetPyramid,
    MoveNetEncoder,
    RaisedEncoder,
    Separable,
    ViTEncoder,
)
from diffusionpose.models.weight_files import read_safetensors
from diffusionpose.models.zoo import create_model

HRNET = "hrnet_w18_small"  # the same code as W48, in a fraction of the time
SHALLOW = {"depth": 2, "embed_dim": 48, "num_heads": 3}
NAME = "vit_small_patch16_224.dino"

# --- HRNet ---


@pytest.fixture
def whole() -> Any:
    torch.manual_seed(0)
    return timm.create_model(HRNET, pretrained=False).eval()


def test_hrnet_cut_after_stage_3_is_the_whole_networks_finest_branch(whole, tmp_path):
    save_file(whole.state_dict(), tmp_path / "hrnet.safetensors")
    encoder = HRNetEncoder(HRNET, stages=3).eval()
    encoder.load_backbone(tmp_path / "hrnet.safetensors")
    branches = []
    whole.stage3.register_forward_hook(lambda module, inputs, output: branches.extend(output))
    x = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        whole(x)
        feature = encoder(x)
    assert feature.shape == (2, encoder.channels, 16, 24)
    assert torch.allclose(feature, branches[0], atol=1e-5 * branches[0].abs().max())


def test_weights_of_another_hrnet_are_an_error(tmp_path):
    save_file(timm.create_model("hrnet_w18_small_v2").state_dict(), tmp_path / "other.safetensors")
    with pytest.raises(InputError, match=r"other\.safetensors: does not fit the backbone"):
        HRNetEncoder("hrnet_w18_small").load_backbone(tmp_path / "other.safetensors")


@pytest.mark.parametrize("stages", [3, 4])
def test_every_parameter_of_hrnet_gets_a_gradient(stages):
    encoder = HRNetEncoder(HRNET, stages=stages)
    encoder(torch.randn(2, 3, 64, 64)).square().sum().backward()
    assert [n for n, p in encoder.named_parameters() if p.grad is None] == []


def test_w48_after_stage_3_is_much_smaller_than_the_whole():
    with torch.device("meta"):
        encoder = HRNetEncoder("hrnet_w48", stages=3)
    assert encoder.channels == 48
    # of the 63.6 M of HRNet-W48, TransPose-H/A6 (17.5 M) leaves 16.7 M to its encoder
    assert sum(p.numel() for p in encoder.parameters()) / 1e6 == pytest.approx(16.7, abs=0.05)


# --- ViTPose's transformer ---


def images(count=2, height=96, width=64):
    return torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(0))


def test_feature_is_the_transformers_on_a_padded_picture():
    torch.manual_seed(0)
    encoder = ViTEncoder(NAME, (64, 96), **SHALLOW).eval()
    plain = timm.create_model(
        NAME, num_classes=0, global_pool="", class_token=False, img_size=(96, 64), **SHALLOW
    ).eval()
    plain.load_state_dict(encoder.backbone.state_dict())
    x = images()
    with torch.no_grad():
        # two pixels of border: the first patch begins at -2
        shifted = F.pad(x, (2, 2, 2, 2))[..., :96, :64]
        expected = plain.forward_features(shifted).mT.reshape(2, 48, 6, 4)
        assert torch.allclose(encoder(x), expected, atol=1e-5)
    assert (encoder.stride, encoder.channels) == (16, 48)


def test_a_classifiers_weights_fit_any_input_size(tmp_path):
    torch.manual_seed(0)
    source = timm.create_model(NAME, img_size=224, **SHALLOW)
    torch.nn.init.normal_(source.cls_token)
    torch.nn.init.normal_(source.pos_embed)
    save_file(source.state_dict(), tmp_path / "vit.safetensors")
    encoder = ViTEncoder(NAME, (64, 96), **SHALLOW)
    encoder.load_backbone(tmp_path / "vit.safetensors")
    square = ViTEncoder(NAME, (224, 224), **SHALLOW)
    square.load_backbone(tmp_path / "vit.safetensors")

    own = square.backbone.state_dict()
    given = source.state_dict()
    assert torch.equal(own["blocks.1.mlp.fc1.weight"], given["blocks.1.mlp.fc1.weight"])
    # the class token's position goes to every patch
    assert torch.equal(own["pos_embed"], given["pos_embed"][:, 1:] + given["pos_embed"][:, :1])
    # resampling keeps the mean, nearly
    small = encoder.backbone.pos_embed
    assert small.shape == (1, 24, 48)
    assert (small.mean() - own["pos_embed"].mean()).abs() < 0.02


def test_a_kernel_of_14_pixels_gets_a_border_of_zeros():
    encoder = ViTEncoder(NAME, (64, 96), **SHALLOW)
    kernel = torch.randn(48, 3, 14, 14)
    fitted = encoder.fit({"patch_embed.proj.weight": kernel})["patch_embed.proj.weight"]
    assert fitted.shape == (48, 3, 16, 16)
    assert torch.equal(fitted[..., 1:15, 1:15], kernel)
    assert fitted.abs().sum() == pytest.approx(kernel.abs().sum().item(), rel=1e-5)


def test_weights_of_another_transformer_are_refused(tmp_path):
    save_file(timm.create_model(NAME, depth=2).state_dict(), tmp_path / "vit.safetensors")
    with pytest.raises(InputError, match="does not fit the backbone"):
        ViTEncoder(NAME, (64, 96), **SHALLOW).load_backbone(tmp_path / "vit.safetensors")


def test_weights_of_other_heads_are_refused_before_they_are_fetched(monkeypatch):
    make = timm.create_model

    def watched(name, pretrained=False, **options):
        assert not pretrained, "a download began"
        return make(name, **options)

    monkeypatch.setattr(timm, "create_model", watched)
    with pytest.raises(InputError, match=r"has 6 heads, this model 12.*--encoder-weights"):
        create_model("vitpose_s", pretrained=True, input_size=(64, 96))


def test_registers_are_no_option():
    with pytest.raises(InputError, match="reg_tokens"):
        create_model("vitpose_s", input_size=(64, 96), encoder={"reg_tokens": 4})


def test_a_size_without_whole_patches_is_refused():
    with pytest.raises(InputError, match="72x96 is no multiple of the transformer's patch, 16"):
        create_model("vitpose_s", input_size=(72, 96), encoder=SHALLOW)


@pytest.mark.parametrize(
    ("size", "d", "layers", "heads"),
    [("s", 384, 12, 12), ("b", 768, 12, 12), ("l", 1024, 24, 16), ("h", 1280, 32, 16)],
)
def test_sizes(size, d, layers, heads):
    """Widths, depths and heads of the publication; parameters by a formula."""
    with torch.device("meta"):
        model = create_model(f"vitpose_{size}", "coco")
    block = 4 * d * d + 4 * d + 8 * d * d + 5 * d + 4 * d  # attention, feed-forward, two norms
    backbone = (3 * 16 * 16 + 1) * d + 16 * 12 * d + layers * block + 2 * d
    decoder = 16 * 256 * (d + 256) + 4 * 256 + 17 * (256 + 1)
    assert sum(p.numel() for p in model.parameters()) == backbone + decoder
    assert model.encoder.backbone.blocks[0].attn.num_heads == heads


def test_diffusionpose_on_a_transformer_contains_vitpose():
    """Its conv on the raised feature is ViTPose with the classic decoder."""
    torch.manual_seed(0)
    vitpose = create_model("vitpose_s", input_size=(64, 96), encoder=SHALLOW).eval()
    pose = create_model("diffusionpose_vit_s", input_size=(64, 96), width=16, encoder=SHALLOW).eval()
    assert isinstance(pose.encoder, RaisedEncoder)
    pose.encoder.inner.load_state_dict(vitpose.encoder.state_dict())
    pose.encoder.neck.load_state_dict(vitpose.head[:-1].state_dict())
    pose.conv.load_state_dict(vitpose.head[-1].state_dict())
    crops = torch.randint(0, 256, (2, 3, 96, 64), dtype=torch.uint8)
    with torch.no_grad():
        assert torch.allclose(pose(crops, steps=0), vitpose(crops), atol=1e-6)


def test_positions_of_no_square_picture_are_refused(tmp_path):
    """Nothing tells of which shape they are; those of a model here are resampled when training starts."""
    source = ViTEncoder(NAME, (64, 96), **SHALLOW)
    save_file(source.backbone.state_dict(), tmp_path / "vit.safetensors")
    with pytest.raises(InputError, match=r"does not fit the backbone.*pos_embed"):
        ViTEncoder(NAME, (96, 96), **SHALLOW).load_backbone(tmp_path / "vit.safetensors")


def test_square_positions_are_resampled_to_a_grid_of_as_many_patches():
    encoder = ViTEncoder(NAME, (64, 144), **SHALLOW)  # 9 x 4 patches
    rise = torch.linspace(0, 1, 6).expand(6, 6).reshape(1, 36, 1).expand(1, 36, 48)
    table = encoder.fit({"pos_embed": rise})["pos_embed"].unflatten(1, (9, 4))[0, :, :, 0]
    assert torch.allclose(table, table[0].expand(9, 4), atol=1e-5)


def test_the_normalisation_of_a_weights_file_is_that_of_the_model_around_it(tmp_path):
    weights = ViTEncoder(NAME, (64, 64), **SHALLOW).backbone.state_dict()
    save_file(weights, tmp_path / "vit.safetensors", {"mean": "0.5", "std": "0.25"})
    for name in ("vitpose_s", "diffusionpose_vit_s"):
        model = create_model(
            name, input_size=(64, 64), encoder=SHALLOW, encoder_weights=tmp_path / "vit.safetensors"
        )
        assert model.mean.flatten().tolist() == [127.5] * 3
        assert model.std.flatten().tolist() == [63.75] * 3


# --- MoveNet ---


@pytest.mark.parametrize(("name", "width"), [("thunder", 1.75), ("multipose", 1.5)])
def test_movenets_pyramid_and_heads_give_the_original_outputs(data_dir, name, width):
    """The check files hold what Google's graph gives, in float16."""
    folder = data_dir / "pose_init"
    weights, _ = read_safetensors(folder / f"movenet_{name}.fp16.safetensors")
    check, _ = read_safetensors(folder / f"movenet_{name}_check.safetensors")
    pyramid = MobileNetPyramid(width).eval()
    pyramid.load_state_dict({n: v for n, v in weights.items() if not n.startswith("heads.")})
    with torch.no_grad():
        features = pyramid(check["images"])
        assert (features - check["features"]).abs().max() < 2e-3 * check["features"].abs().max()
        for head in sorted({n.split(".")[1] for n in weights if n.startswith("heads.")}):
            own = {n.removeprefix(f"heads.{head}."): v for n, v in weights.items() if f"heads.{head}." in n}
            outputs = own["1.conv.weight"].shape[0]
            parts = nn.Sequential(Separable(24, HEAD_CHANNELS), Convolution(HEAD_CHANNELS, outputs)).eval()
            parts.load_state_dict(own)
            assert (parts(features) - check[head]).abs().max() < 2e-3 * check[head].abs().max()


def test_a_movenet_file_is_weights_of_the_encoder(data_dir):
    file = data_dir / "pose_init" / "movenet_thunder.fp16.safetensors"
    weights, _ = read_safetensors(file)
    encoder = MoveNetEncoder()
    encoder.load_backbone(file)
    head = encoder.backbone.features.pointwise.conv.weight
    assert torch.equal(head, weights["heads.kpt_heatmap.0.pointwise.conv.weight"])
    assert (encoder.channels, encoder.stride, encoder.mean) == (96, 4, (0.5, 0.5, 0.5))


def test_frozen_blocks_are_not_trained_and_the_rest_is():
    encoder = MoveNetEncoder(width=0.5, frozen=6)
    encoder(torch.rand(1, 3, 64, 64)).sum().backward()
    trained = {n for n, p in encoder.named_parameters() if p.grad is not None}
    assert trained == {n for n, p in encoder.named_parameters() if p.requires_grad}
    early = tuple(f"backbone.pyramid.{part}." for part in ("stem", *(f"blocks.{i}" for i in range(6))))
    assert trained == {n for n, _ in encoder.named_parameters() if not n.startswith(early)}
    with pytest.raises(ValueError, match="17 blocks"):
        MobileNetPyramid(1.0, frozen=18)
