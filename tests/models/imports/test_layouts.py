"""Every known layout: outputs of the original network, every weight in its place."""

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch.nn import functional as F
from torchvision.models import resnet50
from transformers import VitPoseBackboneConfig, VitPoseConfig, VitPoseForPoseEstimation

from diffusionpose.errors import InputError
from diffusionpose.models.checkpoints import load_model, save_model
from diffusionpose.models.imports.convert import ImportedEncoder, ImportedModel, import_weights
from diffusionpose.models.zoo import create_model

MEAN = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
STD = torch.tensor([0.229, 0.224, 0.225])[:, None, None]
SIZE = (64, 96)
SHALLOW = {"depth": 2, "embed_dim": 48, "num_heads": 3}


def crops(count=2):
    return torch.randint(
        0, 256, (count, 3, 96, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(3)
    )


# --- HRNet ---


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


def test_the_names_written_down_here_are_those_of_timms_network(shapes):
    with torch.device("meta"):
        known = timm.create_model("hrnet_w32").state_dict()
    assert {n: shape for n, shape in shapes("hrnet").items() if not n.startswith("final_layer")} == {
        n: tuple(v.shape)
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
    ("layout", "head"), [("hrnet mmpose 0", "keypoint_head."), ("hrnet mmpose 1", "head.")]
)
def test_every_weight_of_mmpose_arrives(published, saved, layout, head):
    """Without the counters that old files lack, wrapped by DataParallel, with the copies that mmcv keeps."""
    weights = {n: v for n, v in published(layout).items() if "num_batches" not in n}
    copies = {f"ema_{name.replace('.', '_')}": value[:1] for name, value in weights.items()}
    wrapped = {f"module.{name}": value for name, value in (weights | copies).items()}
    file = saved({"epoch": 209, "state_dict": wrapped, "optimizer": {"lr": 1e-5}})
    imported = import_weights(file, "hrnet_w32", input_size=SIZE)
    own = {n: v for n, v in imported.model.state_dict().items() if "num_batches" not in n}
    for name in ("conv1.weight", "transition3.3.0.0.weight", "stage4.2.fuse_layers.0.3.1.running_var"):
        assert torch.equal(own[f"encoder.backbone.{name}"], weights[f"backbone.{name}"])
    for part in ("weight", "bias"):
        assert torch.equal(own[f"head.{part}"], weights[f"{head}final_layer.{part}"])
    # no two weights of a file are alike, so equal sets of sums mean that none is lost or taken twice
    sums = [
        sorted(v.double().sum().item() for n, v in d.items() if n not in ("mean", "std"))
        for d in (own, weights)
    ]
    assert sums[0] == sums[1]
    assert torch.allclose(own["mean"], 255 * MEAN)
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
    imported.save(tmp_path / "encoder.safetensors")
    model = create_model(
        "hrnet_w32", "coco", input_size=SIZE, encoder_weights=tmp_path / "encoder.safetensors"
    ).eval()
    with torch.no_grad():
        expected = timm_branch(weights, crops())
        ours = model.encoder(model.normalise(crops()))
    assert (ours - expected).abs().max() < 1e-4 * expected.abs().max()
    assert model.encoder.mean == (0.485, 0.456, 0.406)


def test_official_imagenet_files_become_an_encoders(hollow, saved):
    weights = hollow("hrnet imagenet")
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
    assert again.tensors.keys() == imported.tensors.keys()


def test_normalisation_comes_from_timms_config(hollow, saved, tmp_path):
    config = (
        '{"architecture": "hrnet_w32", "pretrained_cfg": {"mean": [0.5, 0.4, 0.3], "std": [0.1, 0.2, 0.3]}}'
    )
    (tmp_path / "config.json").write_text(config)
    imported = import_weights(saved(hollow("hrnet imagenet")), "hrnet_w32")
    assert (imported.mean, imported.std) == ((0.5, 0.4, 0.3), (0.1, 0.2, 0.3))
    (tmp_path / "config.json").write_text(config.replace("hrnet_w32", "resnet50"))
    assert import_weights(tmp_path / "weights.pth", "hrnet_w32").mean == (0.485, 0.456, 0.406)
    (tmp_path / "config.json").write_text(config.replace("0.4, 0.3]", "0.4]"))
    with pytest.raises(InputError, match=r"config.json: mean and std of pretrained_cfg must be three"):
        import_weights(tmp_path / "weights.pth", "hrnet_w32")


@pytest.mark.parametrize(
    ("option", "value"), [("skeleton", "coco"), ("input_size", SIZE), ("unbiased", True)]
)
def test_an_encoder_takes_no_options_of_a_pose_model(hollow, saved, option, value):
    with pytest.raises(InputError, match="without a pose head: leave out --"):
        import_weights(saved(hollow("hrnet imagenet")), "hrnet_w32", **{option: value})


# --- SimpleBaseline ---


def original(weights, images):
    """The published network on pictures in the order of colours it was trained on."""
    network = resnet50().eval()
    trunk = {n: v for n, v in weights.items() if not n.startswith(("deconv", "final"))}
    assert network.load_state_dict(trunk, strict=False).missing_keys == ["fc.weight", "fc.bias"]
    x = (images / 255 - MEAN) / STD
    x = network.maxpool(network.relu(network.bn1(network.conv1(x))))
    x = network.layer4(network.layer3(network.layer2(network.layer1(x))))
    for i in (0, 3, 6):
        x = F.conv_transpose2d(x, weights[f"deconv_layers.{i}.weight"], stride=2, padding=1)
        mean, var, scale, shift = (
            weights[f"deconv_layers.{i + 1}.{part}"]
            for part in ("running_mean", "running_var", "weight", "bias")
        )
        x = torch.relu(F.batch_norm(x, mean, var, scale, shift))
    return F.conv2d(x, weights["final_layer.weight"], weights["final_layer.bias"])


@pytest.mark.parametrize("bgr", [None, False])
def test_official_weights_give_the_original_heatmaps(published, saved, bgr):
    weights = published("simplebaseline")
    imported = import_weights(saved(weights), "simplebaseline_r50", input_size=SIZE, bgr=bgr)
    with torch.no_grad():
        expected = original(weights, crops() if bgr is False else crops().flip(1))
        assert expected.std() > 0.1
        assert (imported.model(crops()) - expected).abs().max() < 1e-4 * expected.abs().max()
    assert any("BGR" in note for note in imported.notes) == (bgr is not False)


@pytest.mark.parametrize(("layout", "head"), [("mmpose 0", "keypoint_head."), ("mmpose 1", "head.")])
def test_mmposes_weights_give_the_original_heatmaps(published, saved, layout, head):
    weights = published(f"simplebaseline {layout}")
    model = import_weights(saved({"state_dict": weights}), "simplebaseline_r50", input_size=SIZE).model
    plain = {name.removeprefix("backbone.").removeprefix(head): value for name, value in weights.items()}
    with torch.no_grad():
        expected = original(plain, crops())
        assert (model(crops()) - expected).abs().max() < 1e-4 * expected.abs().max()


def test_torchvisions_resnet_becomes_an_encoders(published, saved):
    weights = published("resnet imagenet")
    assert {n: v.shape for n, v in weights.items()} == {
        n: v.shape for n, v in resnet50().state_dict().items()
    }
    imported = import_weights(saved(weights), "simplebaseline_r50")
    assert isinstance(imported, ImportedEncoder)
    assert imported.tensors.keys() == weights.keys() - {"fc.weight", "fc.bias"}
    assert imported.notes == ["left out: 2 weights, the classifier of ImageNet"]


# --- ViTPose ---


def hugging_face(simple, joints=17, experts=1):
    """A small network whose norms, positions and running statistics all matter."""
    torch.manual_seed(0)
    backbone = VitPoseBackboneConfig(
        image_size=(96, 64),
        hidden_size=48,
        num_hidden_layers=2,
        num_attention_heads=3,
        out_indices=[2],
        num_experts=experts,
        part_features=12,
    )
    network = VitPoseForPoseEstimation(
        VitPoseConfig(backbone_config=backbone, num_labels=joints, use_simple_decoder=simple)
    )
    with torch.no_grad():
        for name, value in network.state_dict().items():
            if value.is_floating_point():
                value += 0.1 * torch.randn_like(value) if value.ndim > 1 else 0.3 * torch.rand_like(value)
            assert value.ndim == 0 or value.std() > 0, name
    return network.eval()


def published_forward(weights, images, names):
    """ViTPose's forward pass, from its paper and vit.py; ``names`` are those of one layout."""
    w = {ours: weights[theirs] for ours, theirs in names.items() if theirs in weights}
    x = F.conv2d((images / 255 - MEAN) / STD, w["patch"], w["patch bias"], stride=16, padding=2)
    height, width = x.shape[2:]
    positions = w["positions"]
    if positions.shape[1] == height * width + 1:
        positions = positions[:, 1:] + positions[:, :1]
    x = x.flatten(2).mT + positions
    for i in range(2):

        def linear(y, part, i=i):
            return F.linear(y, w[f"{i} {part} weight"], w[f"{i} {part} bias"])

        def norm(y, part, i=i):
            return F.layer_norm(y, (48,), w[f"{i} {part} weight"], w[f"{i} {part} bias"], 1e-6)

        q, k, v = linear(norm(x, "norm1"), "qkv").chunk(3, dim=-1)
        q, k, v = (part.unflatten(2, (3, 16)).transpose(1, 2) for part in (q, k, v))
        x = x + linear((torch.softmax(q @ k.mT / 4, dim=-1) @ v).transpose(1, 2).flatten(2), "proj")
        x = x + linear(F.gelu(linear(norm(x, "norm2"), "fc1")), "fc2")
    x = F.layer_norm(x, (48,), w["norm"], w["norm bias"], 1e-6).mT.unflatten(2, (height, width))
    if "0" not in w:
        x = F.interpolate(torch.relu(x), scale_factor=4, mode="bilinear", align_corners=False)
        return F.conv2d(x, w["out"], w["out bias"], padding=1)
    for i in (0, 3):
        x = F.conv_transpose2d(x, w[str(i)], stride=2, padding=1)
        parts = [w[f"{i + 1} {part}"] for part in ("running_mean", "running_var", "weight", "bias")]
        x = torch.relu(F.batch_norm(x, *parts))
    return F.conv2d(x, w["out"], w["out bias"])


def names_of(block, head, patch, norm, parts):
    names = {"patch": f"backbone.{patch}.weight", "patch bias": f"backbone.{patch}.bias"}
    names |= {"norm": f"backbone.{norm}.weight", "norm bias": f"backbone.{norm}.bias"}
    names |= {"positions": "backbone.pos_embed", "out": f"{head}.final_layer.weight"}
    names |= {"out bias": f"{head}.final_layer.bias"}
    names |= {str(i): f"{head}.deconv_layers.{i}.weight" for i in (0, 3)}
    for part in ("running_mean", "running_var", "weight", "bias"):
        names |= {f"{i} {part}": f"{head}.deconv_layers.{i}.{part}" for i in (1, 4)}
    for i in range(2):
        for ours, theirs in parts.items():
            for kind in ("weight", "bias"):
                names[f"{i} {ours} {kind}"] = f"backbone.{block}.{i}.{theirs}.{kind}"
    return names


MMPOSE_0 = names_of(
    "blocks",
    "keypoint_head",
    "patch_embed.proj",
    "last_norm",
    {
        "norm1": "norm1",
        "norm2": "norm2",
        "qkv": "attn.qkv",
        "proj": "attn.proj",
        "fc1": "mlp.fc1",
        "fc2": "mlp.fc2",
    },
)
MMPOSE_1 = names_of(
    "layers",
    "head",
    "patch_embed.projection",
    "ln1",
    {
        "norm1": "ln1",
        "norm2": "ln2",
        "qkv": "attn.qkv",
        "proj": "attn.proj",
        "fc1": "ffn.layers.0.0",
        "fc2": "ffn.layers.1",
    },
)


@pytest.mark.parametrize("simple", [False, True])
def test_hugging_faces_weights_give_its_heatmaps(tmp_path, simple):
    network = hugging_face(simple)
    network.save_pretrained(tmp_path)
    (tmp_path / "config.json").rename(tmp_path / "other.json")
    with pytest.raises(InputError, match=r"a folder; name the file in it \(model.safetensors\)"):
        import_weights(tmp_path, "vitpose_b")
    name = "vitpose_b_simple" if simple else "vitpose_b"
    imported = import_weights(tmp_path / "model.safetensors", name, input_size=SIZE, encoder=SHALLOW)
    assert imported.model.config["options"]["unbiased"] is True
    with torch.no_grad():
        expected = network((crops() / 255 - MEAN) / STD).heatmaps
        ours = imported.model(crops())
    assert ours.shape == expected.shape == (2, 17, 24, 16)
    assert 0.1 < expected.std() < 10
    assert (ours - expected).abs().max() < 1e-4
    # and what the test is sensitive to: without the class token's position the heatmaps are others
    with torch.no_grad():
        imported.model.encoder.backbone.pos_embed -= network.backbone.embeddings.position_embeddings[:, :1]
        assert (imported.model(crops()) - expected).abs().max() > 1e-2


@pytest.mark.parametrize("decoder", ["", " simple"])
@pytest.mark.parametrize(("layout", "names"), [("mmpose 0", MMPOSE_0), ("mmpose 1", MMPOSE_1)])
def test_published_weights_give_the_published_heatmaps(published, saved, layout, names, decoder):
    weights = published(f"vitpose {layout}{decoder}")
    name = f"vitpose_s{decoder.replace(' ', '_')}"
    model = import_weights(saved({"state_dict": weights}), name, input_size=SIZE, encoder=SHALLOW).model
    with torch.no_grad():
        expected = published_forward(weights, crops(), names)
        assert expected.std() > 0.1
        assert (model(crops()) - expected).abs().max() < 1e-4 * expected.abs().max()


def test_mmpose_1_cuts_off_a_class_tokens_position(published, saved):
    weights = published("vitpose mmpose 1")
    longer = {
        **weights,
        "backbone.pos_embed": torch.cat([torch.ones(1, 1, 48), weights["backbone.pos_embed"]], 1),
    }
    imported = import_weights(saved(longer), "vitpose_s", input_size=SIZE, encoder=SHALLOW)
    assert torch.equal(imported.model.encoder.backbone.pos_embed, weights["backbone.pos_embed"])
    assert any("1 weights, the position of a class token" in note for note in imported.notes)


def test_config_json_beside_says_input_size_and_heads(tmp_path):
    hugging_face(True).save_pretrained(tmp_path)
    imported = import_weights(tmp_path / "model.safetensors", "vitpose_b_simple", encoder=SHALLOW)
    assert imported.model.input_size == SIZE
    assert any("64x96 (the file's settings, or config.json" in note for note in imported.notes)
    with pytest.raises(InputError, match=r"has 3 attention heads \(config.json .*; vitpose_b_simple has 6"):
        import_weights(
            tmp_path / "model.safetensors", "vitpose_b_simple", encoder={**SHALLOW, "num_heads": 6}
        )


def test_a_missing_key_layer_leaves_its_fellows_over(tmp_path):
    weights = {n: v.contiguous() for n, v in hugging_face(True).state_dict().items()}
    del weights["backbone.encoder.layer.1.attention.attention.key.bias"]
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(InputError) as caught:
        import_weights(tmp_path / "model.safetensors", "vitpose_b_simple", input_size=SIZE, encoder=SHALLOW)
    assert "1 missing (in our names), 2 left over" in str(caught.value)
    assert "encoder.backbone.blocks.1.attn.qkv.bias" in str(caught.value)
    assert "layer.1.attention.attention.query.bias" in str(caught.value)


def test_positions_of_another_input_size_are_refused(published, saved):
    with pytest.raises(InputError, match=r"backbone.pos_embed is \(1, 25, 48\), must be \(1, 192, 48\)"):
        import_weights(saved(published("vitpose mmpose 0")), "vitpose_s", encoder=SHALLOW)


def test_vitpose_plus_is_refused_by_name(tmp_path):
    save_file(
        {n: v.contiguous() for n, v in hugging_face(True, experts=3).state_dict().items()},
        tmp_path / "model.safetensors",
    )
    with pytest.raises(
        InputError, match=r"is ViTPose for several data sets at once \(ViTPose\+\), which is not supported"
    ):
        import_weights(tmp_path / "model.safetensors", "vitpose_b_simple", input_size=SIZE, encoder=SHALLOW)


def test_a_classifier_becomes_an_encoders_for_any_input_size(saved, tmp_path):
    torch.manual_seed(0)
    source = timm.create_model("vit_small_patch16_224.dino", num_classes=10)
    weights = {n: v + 0.1 for n, v in source.state_dict().items()} | {"mask_token": torch.zeros(1, 1, 384)}
    imported = import_weights(saved({"model": weights}), "diffusionpose_vit_s")
    assert imported.tensors.keys() == weights.keys() - {"head.weight", "head.bias", "mask_token"}
    imported.save(tmp_path / "encoder.safetensors")
    backbone = create_model(
        "vitpose_s", input_size=(224, 224), encoder_weights=tmp_path / "encoder.safetensors"
    ).encoder.backbone
    assert torch.equal(backbone.pos_embed, weights["pos_embed"][:, 1:] + weights["pos_embed"][:, :1])
    assert torch.equal(backbone.blocks[3].mlp.fc2.weight, weights["blocks.3.mlp.fc2.weight"])
