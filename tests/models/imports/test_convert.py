"""What fits is told apart, what does not is listed, what the file does not say is said aloud."""

import math

import pytest
import torch

from diffusionpose.errors import InputError
from diffusionpose.models.imports import convert
from diffusionpose.models.imports.convert import LAYOUTS, import_weights
from diffusionpose.models.imports.reading import Checkpoint
from diffusionpose.skeletons import AIC, COCO, CROWDPOSE

SIZE = (64, 96)
# the ends of what mmpose writes as meta["cfg"] (1.x) and meta["config"] (0.x)
UDP_1 = """codec = dict(
    type='UDPHeatmap', input_size=(288, 384), heatmap_size=(72, 96), sigma=3)
val_pipeline = [dict(type='TopdownAffine', input_size=(288, 384), use_udp=True)]"""
DARK_0 = """test_cfg=dict(flip_test=True, post_process='unbiased', shift_heatmap=True, modulate_kernel=11)
data_cfg = dict(image_size=[192, 256], heatmap_size=[48, 64])
dict(type='TopDownGenerateTarget', sigma=2, unbiased_encoding=True)"""
COMBINED_0 = "dict(type='TopDownGenerateTarget', encoding='UDP', target_type='CombinedTarget')"
COMBINED_1 = "codec = dict(type='UDPHeatmap', heatmap_type='combined', input_size=(192, 256))"


@pytest.fixture(scope="module")
def small(published):
    """A file of the smallest network here: ViTPose of mmpose 1.x, two blocks; and how it is taken."""

    def make(joints=17, **meta):
        weights = published("vitpose mmpose 1 simple", joints=joints)
        return {"meta": meta, "state_dict": weights} if meta else weights

    return make


def take(path, name="vitpose_s_simple", **options):
    options = {"input_size": SIZE, **options}
    return import_weights(path, name, encoder={"depth": 2, "embed_dim": 48, "num_heads": 3}, **options)


def test_a_published_file_is_of_one_layout(shapes, layouts, tmp_path):
    found = {}
    for name in layouts:
        names = shapes(name)
        found[name] = [layout.title for layout in LAYOUTS if layout.fits(list(names))]
        assert len(found[name]) == 1, found[name]
        assert [convert.find_layout(Checkpoint(tmp_path, names)).title] == found[name]
    assert len({title for titles in found.values() for title in titles}) == len(layouts)


def test_a_file_of_no_layout(saved):
    with pytest.raises(
        InputError, match=r"of no known layout: its 2 weights are called fc.weight, fc.bias, .*HRNet"
    ):
        take(
            saved(
                torch.nn.Linear(2, 2).state_dict() and {"fc.weight": torch.ones(1), "fc.bias": torch.ones(1)}
            )
        )


def test_models_that_it_cannot_become(small, saved):
    file = saved(small())
    with pytest.raises(InputError, match=r"--as: no model 'resnet'; there are diffusionpose_hrnet_w32, "):
        take(file, "resnet")
    with pytest.raises(
        InputError, match=r"is ViTPose of mmpose 1.x, simple decoder; --as must be one of vitpose_s_simple, "
    ):
        take(file, "hrnet_w32")


def test_all_misfits_are_listed_by_kind(small, saved):
    weights = small()
    del weights["backbone.ln1.weight"], weights["backbone.layers.0.attn.proj.bias"]
    weights["backbone.extra.weight"] = torch.ones(2)
    weights["backbone.layers.0.ln2.bias"] = torch.ones(7)
    weights["head.final_layer.bias"][3] = math.nan
    with pytest.raises(InputError) as caught:
        take(saved(weights))
    lines = str(caught.value).splitlines()
    assert lines[0].endswith(
        "does not fit as vitpose_s_simple; 2 missing (in our names), 1 left over, 1 of another shape, "
        "1 not finite; is --as the right model?"
    )
    assert lines[1:] == [
        "  missing (in our names): encoder.backbone.blocks.0.attn.proj.bias, encoder.backbone.norm.weight",
        "  left over: backbone.extra.weight",
        "  of another shape: backbone.layers.0.ln2.bias is (7,), must be (48,)",
        "  not finite: head.final_layer.bias",
    ]


def test_a_long_list_is_cut_and_counted(hollow, saved):
    with pytest.raises(InputError) as caught:
        import_weights(saved(hollow("hrnet")), "hrnet_w48")
    counts, *lines = str(caught.value).splitlines()
    (line,) = lines
    number = int(counts.split("hrnet_w48; ")[1].split()[0])
    assert number > 1000
    assert line.startswith(
        "  of another shape: transition1.0.0.weight is (32, 256, 3, 3), must be (48, 256, 3, 3)"
    )
    assert line.endswith(f"and {number - 12} more")


@pytest.mark.parametrize(
    ("joints", "skeleton", "chosen"),
    [(17, None, COCO), (17, "coco", COCO), (14, "crowdpose", CROWDPOSE), (14, "aic", AIC)],
)
def test_joints_by_number_or_by_name(small, saved, joints, skeleton, chosen):
    assert take(saved(small(joints)), skeleton=skeleton).model.skeleton == chosen


@pytest.mark.parametrize(
    ("joints", "skeleton", "complaint"),
    [
        (14, None, r"gives 14 heatmaps, of crowdpose or aic; say which joints they are by --skeleton"),
        (16, None, r"gives 16 heatmaps, of no skeleton that comes with this package; say which"),
        (17, "aic", r"gives 17 heatmaps, but skeleton 'aic' has 14 joints"),
        (51, None, r"gives 51 heatmaps: probably it has UDP's combined target, three maps .* not supported"),
        (42, "crowdpose", r"has UDP's combined target"),
    ],
)
def test_joints_that_do_not_fit(small, saved, joints, skeleton, complaint):
    with pytest.raises(InputError, match=complaint):
        take(saved(small(joints)), skeleton=skeleton)


def test_joints_that_the_file_names_decide(small, saved):
    """mmpose 1.x writes them; its CrowdPose calls our head top_head."""
    names = [{"head": "top_head"}.get(joint, joint) for joint in CROWDPOSE.joints]
    meta = {"dataset_meta": {"keypoint_id2name": dict(enumerate(names))}}
    weights = small(14)["head.final_layer.weight"]
    imported = take(saved(small(14, **meta)))
    assert imported.model.skeleton == CROWDPOSE
    assert torch.equal(imported.model.head.conv.weight, weights)

    order = [13, *range(13)]  # the neck first
    meta = {"dataset_meta": {"keypoint_id2name": {i: names[j] for i, j in enumerate(order)}}}
    turned = take(saved(small(14, **meta)))
    assert torch.equal(turned.model.head.conv.weight[13], weights[0])
    assert torch.equal(turned.model.head.conv.weight[0], weights[1])
    assert "outputs brought into the skeleton's order of joints" in turned.notes
    with pytest.raises(
        InputError, match=r"its joints are neck, left_shoulder, .*; those of skeleton 'aic' are"
    ):
        take(saved(small(14, **meta)), skeleton="aic")


def test_mmposes_order_of_joints_is_ours():
    """keypoint_info of configs/_base_/datasets/{coco,crowdpose,aic}.py of mmpose."""
    sides = ("left_{}", "right_{}")

    def both(*parts):
        return [side.format(part) for part in parts for side in sides]

    limbs = both("shoulder", "elbow", "wrist", "hip", "knee", "ankle")
    assert list(COCO.joints) == ["nose", *both("eye", "ear"), *limbs]
    assert list(CROWDPOSE.joints) == [*limbs, "head", "neck"]  # mmpose: top_head
    arms = [f"{side}_{part}" for side in ("right", "left") for part in ("shoulder", "elbow", "wrist")]
    legs = [f"{side}_{part}" for side in ("right", "left") for part in ("hip", "knee", "ankle")]
    assert list(AIC.joints) == [*arms, *legs, "head_top", "neck"]


@pytest.mark.parametrize(
    ("meta", "asked", "unbiased", "note"),
    [
        (
            {},
            None,
            True,
            "geometry: unbiased (UDP) (as its project trains it; the file does not say; or --no-unb",
        ),
        ({}, False, False, None),
        ({"cfg": UDP_1}, None, True, "geometry: unbiased (UDP) (the file's settings, or"),
        ({"config": DARK_0}, None, False, "geometry: that of HRNet, not UDP (the file's settings, or"),
        (
            {"config": DARK_0},
            True,
            True,
            "geometry: as asked for, although the file's settings say otherwise",
        ),
    ],
)
def test_geometry_by_option_then_file_then_project(small, saved, meta, asked, unbiased, note):
    imported = take(saved(small(**meta)), unbiased=asked)
    assert imported.model.unbiased is unbiased
    assert imported.model.config["options"]["unbiased"] is unbiased
    said = [line for line in imported.notes if line.startswith("geometry")]
    assert [line[: len(note)] for line in said] == [note] if note else said == []


@pytest.mark.parametrize(
    ("name", "folder", "file", "unbiased"),
    [
        ("hrnet", "official", "pose_hrnet_w32_256x192.pth", False),
        ("hrnet", "DarkPose", "w32_256x192.pth", True),
        ("simplebaseline", "models", "dark_res50.pth", True),
        ("hrnet mmpose 0", "mmpose", "hrnet_w32_coco_256x192_dark.pth", False),  # DARK in HRNet's geometry
        ("vitpose mmpose 1", "mmpose", "vitpose.pth", True),
    ],
)
def test_geometry_is_that_of_the_project(shapes, tmp_path, name, folder, file, unbiased):
    checkpoint = Checkpoint(tmp_path / folder / file, shapes(name))
    options, notes = convert._training_facts(checkpoint, convert.find_layout(checkpoint), None, None)
    assert options["unbiased"] is unbiased
    (note,) = [note for note in notes if note.startswith("geometry")]
    assert ("DarkPose's, by the name" in note) == (unbiased and "vitpose" not in name)
    assert ("--no-unbiased" if unbiased else "or --unbiased") in note


def test_input_size_by_option_then_file_then_default(small, saved):
    weights = small(cfg=UDP_1)
    weights["state_dict"]["backbone.pos_embed"] = torch.randn(1, 18 * 24, 48)
    assert take(saved(weights), input_size=None).model.input_size == (288, 384)
    weights = small()
    weights["backbone.pos_embed"] = torch.randn(1, 12 * 16, 48)
    imported = take(saved(weights), input_size=None)
    assert imported.model.input_size == (192, 256)
    assert "input size: 192x256 (the file does not say; --input-size W H takes another)" in imported.notes


@pytest.mark.parametrize("meta", [{"config": COMBINED_0}, {"cfg": COMBINED_1}])
def test_offsets_are_refused_by_the_settings(small, saved, meta):
    with pytest.raises(
        InputError, match=r"has UDP's combined target, three maps for each joint .* not supported"
    ):
        take(saved(small(**meta)))
