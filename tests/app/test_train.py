"""``diffusionpose train``: flags to settings, bad input, and one run from flags to files."""

from dataclasses import replace

import pytest

from diffusionpose.app.train import Overrides
from diffusionpose.models.checkpoints import load_model
from diffusionpose.training.recipes import get_recipe
from diffusionpose.training.settings import TrainingSettings

RECIPE = "diffusionpose_tiny_synthetic"


@pytest.fixture
def words(synthetic_set, tmp_path):
    """A call that trains for one epoch of a few steps."""
    images, annotations = synthetic_set
    flags = {
        "--images": images,
        "--annotations": annotations,
        "--val-images": images,
        "--val-annotations": annotations,
        "--output": tmp_path / "run",
        "--skeleton": "coco",
        "--epochs": 1,
        "--workers": 0,
        "--accelerator": "cpu",
    }
    return ["train", RECIPE, *(word for pair in flags.items() for word in pair)]


def test_what_is_not_given_stays_as_the_recipe_has_it():
    settings = get_recipe(RECIPE)
    assert Overrides().apply(settings) == settings


def test_every_override_reaches_the_settings():
    settings: TrainingSettings = Overrides(
        epochs=7,
        learning_rate=0.5,
        no_flip=True,
        no_augmentation=True,
        relative_rate=True,
        options=("width=32", "conditions=full"),
    ).apply(get_recipe("diffusionpose_w32_256x192_coco"))
    assert (settings.epochs, settings.learning_rate) == (7, 0.5)
    assert not settings.flip
    assert settings.augmentation is None
    assert settings.relative_rate
    assert not settings.sync_batchnorm
    assert settings.options == {"stride": 4, "width": 32, "conditions": "full"}
    assert settings.pretrained, "not touched"


@pytest.mark.parametrize("recipe", ["hrnet_w32_256x192_coco", RECIPE])
@pytest.mark.parametrize(("geometry", "unbiased"), [("hrnet", False), ("udp", True)])
def test_geometry(recipe, geometry, unbiased):
    settings = Overrides(geometry=geometry).apply(get_recipe(recipe))
    assert settings == replace(get_recipe(recipe), unbiased=unbiased)


def test_an_option_of_the_encoder_leaves_its_others_as_they_are():
    recipe = get_recipe("vitpose_b_256x192_coco")
    settings = Overrides(options=('encoder={"depth": 2}',)).apply(recipe)
    assert settings.options == {"encoder": {"drop_path_rate": 0.3, "depth": 2}}
    assert recipe.options == {"encoder": {"drop_path_rate": 0.3}}


def test_a_run_from_flags_to_files_and_the_same_command_again(run, words, tmp_path):
    ended = run(*words, "--batch-size", 8, "--options", "width=8")
    assert (ended.status, ended.err) == (0, "")
    assert ended.out.splitlines()[-1].startswith(f"{tmp_path / 'run'}: 1 epochs done")
    assert load_model(tmp_path / "run").config["options"]["width"] == 8
    again = run(*words, "--batch-size", 8, "--options", "width=8")
    assert (again.status, len(again.out.splitlines())) == (0, 1), "nothing is left to do"
    other = run(*words, "--batch-size", 8, "--options", "width=16")
    assert other.status == 1
    assert "options was {'zeta': 0.1, 'width': 8}" in other.err


@pytest.mark.parametrize(
    ("more", "named"),
    [
        (["--learning-rate", "-1"], "--learning-rate"),
        (["--shares", "1", "2"], "--shares"),
        (["--options", "colour=red"], "colour"),
        (["--skeleton", "octopus"], "octopus"),
        (["--images", "a", "b"], "--annotations"),
        (["--annotations", "nowhere.json"], "nowhere.json"),
        (["--weights", "nowhere.safetensors"], "nowhere.safetensors"),
    ],
)
def test_bad_input_is_one_line_that_names_it(run, words, more, named):
    ended = run(*words, *more)
    assert ended.status == 1
    assert named in ended.err
    assert len(ended.err.splitlines()) == 1
