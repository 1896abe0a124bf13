"""The model that comes with the package, on real pictures it has not seen."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from diffusionpose.bundled import DEFAULT_MODEL, bundled_models
from diffusionpose.bundled import FOLDER as BUNDLED
from diffusionpose.data.annotations import read_annotations
from diffusionpose.evaluation.evaluate import evaluate, evaluate_mean_pose
from diffusionpose.models.checkpoints import load_model
from diffusionpose.models.diffusion_pose import DiffusionPose
from diffusionpose.models.pose_model import HeatmapModel
from diffusionpose.skeletons import CROWDPOSE

PERSONS = 200
ROOT = Path(__file__).resolve().parents[2]
YARDSTICK = "mobilenetv2-256x192-lspet14"


@pytest.mark.parametrize("name", [DEFAULT_MODEL, YARDSTICK])
def test_it_is_there_and_small(name):
    assert name in bundled_models()
    assert (BUNDLED / f"{name}.safetensors").stat().st_size < 25e6
    assert load_model(name).skeleton == CROWDPOSE


def test_the_default_is_diffusionpose_and_the_yardstick_its_encoder():
    model, yardstick = load_model(), load_model(YARDSTICK)
    assert isinstance(model, DiffusionPose)
    assert isinstance(yardstick, HeatmapModel)
    assert model.input_size == yardstick.input_size
    assert list(model.encoder.state_dict()) == list(yardstick.encoder.state_dict())


@pytest.mark.parametrize("name", [DEFAULT_MODEL, YARDSTICK])
def test_it_is_clearly_better_than_the_mean_pose(data_dir, name):
    folder = data_dir / "lspet14"
    truth = read_annotations(folder / "annotations" / "lspet14_val.json")
    some = replace(truth, persons=truth.persons[:PERSONS])
    some = replace(some, images={p.image_id: truth.images[p.image_id] for p in some.persons})
    model = evaluate(load_model(name), some, folder / "images")
    mean = evaluate_mean_pose(folder / "annotations" / "lspet14_train.json", some)
    assert model.failures == []
    assert model.metrics["PCK_limbs"] > mean.metrics["PCK_limbs"] + 0.4
    assert model.metrics["AP"] > mean.metrics["AP"] + 0.3
    pinned = json.loads((BUNDLED / f"{name}.json").read_text())["first_200"]
    assert {name: model.metrics[name] for name in pinned} == pytest.approx(pinned, abs=0.005)


@pytest.mark.parametrize(("name", "heading"), [(DEFAULT_MODEL, "Numbers"), (YARDSTICK, "Its yardstick")])
def test_the_card_has_the_numbers_that_were_measured(name, heading):
    card = json.loads((BUNDLED / f"{name}.json").read_text())
    page = (ROOT / "docs" / "bundled-model.md").read_text(encoding="utf-8")
    numbers = page.partition(f"## {heading}")[2].partition("##")[0].replace("**", "")
    assert f"AP {100 * card['AP']:.1f}" in numbers
    assert f"PCK@0.2\nof the torso {100 * card['PCK']:.1f}" in numbers
    low, high = card["PCK_limbs_95"]
    assert f"{100 * card['PCK_limbs']:.1f} ({100 * low:.1f} to {100 * high:.1f})" in numbers
