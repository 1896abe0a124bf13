"""The model that comes with the package, on real pictures it has not seen: the numbers of its card."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from diffusionpose.bundled import DEFAULT_MODEL, FOLDER, bundled_models
from diffusionpose.data.annotations import annotations_in, read_annotations
from diffusionpose.evaluation.evaluate import evaluate
from diffusionpose.models.checkpoints import load_model
from diffusionpose.models.diffusion_pose import DiffusionPose
from diffusionpose.runtime.networks import load_network
from diffusionpose.skeletons import COCO, get_skeleton

PERSONS = 100
ROOT = Path(__file__).resolve().parents[2]
CARD = json.loads((FOLDER / f"{DEFAULT_MODEL}.json").read_text())


def test_both_networks_are_there_and_small():
    assert DEFAULT_MODEL in bundled_models()
    files = [file for file in FOLDER.rglob("*") if file.suffix in {".onnx", ".safetensors"}]
    assert sum(file.stat().st_size for file in files) < 40e6


def test_the_default_is_diffusionpose_on_the_union_of_coco_and_crowdpose():
    model = load_model()
    assert isinstance(model, DiffusionPose)
    assert model.skeleton.joints == get_skeleton("coco+crowdpose").joints
    assert load_network(None).skeleton == model.skeleton


def test_everyday_pictures_with_true_boxes(data_dir):
    folder = data_dir / "coco_subset"
    truth = annotations_in(folder / "annotations" / "person_keypoints_val2017.json", COCO)
    report = evaluate(load_network(None), truth, folder / "images" / "val2017")
    assert report.failures == []
    pinned = CARD["coco_subset_val"]
    assert {name: report.metrics[name] for name in pinned} == pytest.approx(pinned, abs=0.005)


def test_sports_pictures_with_true_boxes(data_dir):
    folder = data_dir / "lspet14"
    truth = read_annotations(folder / "annotations" / "lspet14_val.json")
    some = replace(truth, persons=truth.persons[:PERSONS])
    some = replace(some, images={p.image_id: truth.images[p.image_id] for p in some.persons})
    report = evaluate(load_network(None), some, folder / "images")
    assert report.failures == []
    pinned = CARD["lspet14_val_first_100"]
    assert {name: report.metrics[name] for name in pinned} == pytest.approx(pinned, abs=0.005)


def test_the_card_has_the_numbers_that_were_measured():
    page = (ROOT / "docs" / "bundled-model.md").read_text(encoding="utf-8").replace("**", "")
    for name in ("AP", "AP50", "AP75", "PCK_limbs"):
        assert f"{100 * CARD['coco_subset_val'][name]:.1f}" in page
    for name in ("AP", "PCK", "PCK_limbs"):
        assert f"{100 * CARD['lspet14_val'][name]:.1f}" in page
    assert f"{100 * CARD['coco_subset_val_people_finder']['AP50']:.1f}" in page
