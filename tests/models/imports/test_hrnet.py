"""HRNet of other projects: outputs of the original network, every weight in its place."""

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch.nn import functional as F

from diffusionpose.errors import InputError
from diffusionpose.models.checkpoints import load_model, save_model
from diffusionpose.models.imports.convert import ImportedModel, import_weights
from diffusionpose.models.imports.layouts import ImportedEncoder, save_encoder
from diffusionpose.models.zoo import create_model

MEAN = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
STD = torch.tensor([0.229, 0.224, 0.225])[:, None, None]
SIZE = (64, 96)


def crops(count=2):
    return torch.randint(
        0, 256, (count, 3, 96, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(3)
    )


def timm_branch(weights, images):
    """The stride-4 branch after stage 4 of timm's classifier, which has the official trunk."""
    network = timm.create_model("hrnet_w32").eval()
    missing = network.load_state_dict(weights, strict=False).missing_keys
    assert not [
        name for name in missing if name.startswith(("conv", "bn", "layer", "transition", "stage2", "stage3"))
    ]
    x = (images / 255 - MEAN) / STD
    x = network.act1(network.bn1(network.conv1(x)))
    x = network.act2(network.bn2(network.conv2(x)))
    return network.stages(x)[0]


@pytest.mark.parametrize("width", [32, 48])
def test_the_names_written_down_here_are_those_of_timms_network(published, width):
    trunk = published("hrnet", width=width)
    with torch.device("meta"):
        known = timm.create_model(f"hrnet_w{width}").state_dict()
    assert {n: v.shape for n, v in trunk.items() if not n.startswith("final_layer")} == {
        n: v.shape
        for n, v in known.items()
        if n.startswith(("conv", "bn", "layer1", "transition", "stage"))
        and not n.startswith(tuple(f"stage4.2.fuse_layers.{i}" for i in (1, 2, 3)))
    }


def test_official_pose_weights_give_the_original_heatmaps(published, saved, tmp_path):
    weights = published("hrnet")
    imported = import_weights(saved(weights), "hrnet_w32", input_size=SIZE)
    assert isinstance(imported, ImportedModel)
    with torch.no_grad():
        feature = timm_branch({n: v for n, v in weights.items() if "final_layer" not in n}, crops())
        expected = F.conv2d(feature, weights["final_layer.weight"], weights["final_layer.bias"])
        assert expected.std() > 0.1
        assert (imported.model(crops()) - expected).abs().max() < 1e-4 * expected.abs().max()
    save_model(imported.model, tmp_path / "out.safetensors")
    with torch.no_grad():
        assert torch.equal(load_model(tmp_path / "out.safetensors")(crops()), imported.model(crops()))


@pytest.mark.parametrize(
    ("layout", "width"), [("hrnet", 32), ("hrnet", 48), ("hrnet mmpose 0", 32), ("hrnet mmpose 1", 32)]
)
def test_every_weight_arrives(published, saved, layout, width):
    weights = published(layout, width=width)
    own = import_weights(saved(weights), f"hrnet_w{width}", input_size=SIZE).model.state_dict()
    head = {"hrnet": "", "hrnet mmpose 0": "keypoint_head.", "hrnet mmpose 1": "head."}[layout]
    trunk = "backbone." * (layout != "hrnet")
    for name in ("conv1.weight", "transition3.3.0.0.weight", "stage4.2.fuse_layers.0.3.1.running_var"):
        assert torch.equal(own[f"encoder.backbone.{name}"], weights[f"{trunk}{name}"])
    for part in ("weight", "bias"):
        assert torch.equal(own[f"head.{part}"], weights[f"{head}final_layer.{part}"])
    # no two weights of a file are alike, so equal sets of sums mean that none is lost or taken twice
    sums = [
        sorted(v.double().sum().item() for n, v in d.items() if n not in ("mean", "std"))
        for d in (own, weights)
    ]
    assert sums[0] == sums[1]
    assert torch.allclose(own["mean"], 255 * MEAN)


def test_wrappers_are_taken_off(published, saved):
    weights = published("hrnet")
    plain = import_weights(saved(weights), "hrnet_w32").model.state_dict()
    parallel = {f"module.{name}": value for name, value in weights.items()}
    wrapped = import_weights(
        saved({"epoch": 209, "state_dict": parallel, "optimizer": {"lr": 1e-5}}), "hrnet_w32"
    )
    assert all(torch.equal(value, plain[name]) for name, value in wrapped.model.state_dict().items())


def test_old_files_count_no_batches_and_mmcv_keeps_copies(published, saved):
    weights = {n: v for n, v in published("hrnet mmpose 0").items() if "num_batches" not in n}
    copies = {f"ema_{name.replace('.', '_')}": value + 1 for name, value in weights.items()}
    imported = import_weights(saved({"state_dict": weights | copies}), "hrnet_w32")
    assert torch.equal(imported.model.head.weight, weights["keypoint_head.final_layer.weight"])
    assert any(f"{len(copies)} weights, a second copy of all weights" in note for note in imported.notes)


def test_imagenet_weights_of_timm_become_an_encoders(tmp_path):
    torch.manual_seed(0)
    network = timm.create_model("hrnet_w32")
    weights = {
        n: v + 0.05 * torch.rand_like(v) if v.ndim == 1 else v for n, v in network.state_dict().items()
    }
    save_file(weights, tmp_path / "model.safetensors")
    imported = import_weights(tmp_path / "model.safetensors", "diffusionpose_hrnet_w32")
    assert isinstance(imported, ImportedEncoder)
    save_encoder(imported, tmp_path / "encoder.safetensors")
    model = create_model(
        "hrnet_w32", "coco", input_size=SIZE, encoder_weights=tmp_path / "encoder.safetensors"
    ).eval()
    with torch.no_grad():
        expected = timm_branch(weights, crops())
        ours = model.encoder(model.normalise(crops()))
    assert (ours - expected).abs().max() < 1e-4 * expected.abs().max()
    assert model.encoder.mean == (0.485, 0.456, 0.406)


def test_official_imagenet_files_become_an_encoders(published, saved):
    weights = published("hrnet imagenet")
    imported = import_weights(saved(weights), "hrnet_w32")
    assert imported.notes == [
        "left out: 78 weights, the coarser outputs of the last fusion, which our encoder does without",
        "left out: 126 weights, the classifier of ImageNet",
    ]
    assert imported.tensors.keys() == {
        n for n in weights if n.startswith(("conv", "bn", "layer1", "transition", "stage"))
    } - {n for n in weights if n.startswith(tuple(f"stage4.2.fuse_layers.{i}" for i in (1, 2, 3)))}
    # hrnet_w32-36af842e.pth of the pose repository calls its classifier "head"
    head = {n.replace("incre_modules", "head.0"): value for n, value in weights.items()}
    again = import_weights(saved(head), "hrnet_w32")
    assert all(torch.equal(again.tensors[name], value) for name, value in imported.tensors.items())


def test_normalisation_comes_from_timms_config(published, saved, tmp_path):
    config = (
        '{"architecture": "hrnet_w32", "pretrained_cfg": {"mean": [0.5, 0.4, 0.3], "std": [0.1, 0.2, 0.3]}}'
    )
    (tmp_path / "config.json").write_text(config)
    imported = import_weights(saved(published("hrnet imagenet")), "hrnet_w32")
    save_encoder(imported, tmp_path / "encoder.safetensors")
    encoder = create_model("hrnet_w32", encoder_weights=tmp_path / "encoder.safetensors").encoder
    assert (encoder.mean, encoder.std) == ((0.5, 0.4, 0.3), (0.1, 0.2, 0.3))
    (tmp_path / "config.json").write_text(config.replace("hrnet_w32", "resnet50"))
    assert import_weights(tmp_path / "weights.pth", "hrnet_w32").mean == (0.485, 0.456, 0.406)
    (tmp_path / "config.json").write_text(config.replace("0.4, 0.3]", "0.4]"))
    with pytest.raises(InputError, match=r"config.json: mean and std of pretrained_cfg must be three"):
        import_weights(tmp_path / "weights.pth", "hrnet_w32")


@pytest.mark.parametrize(
    ("option", "value"), [("skeleton", "coco"), ("input_size", SIZE), ("unbiased", True)]
)
def test_an_encoder_takes_no_options_of_a_pose_model(published, saved, option, value):
    with pytest.raises(InputError, match="without a pose head: leave out --"):
        import_weights(saved(published("hrnet imagenet")), "hrnet_w32", **{option: value})
