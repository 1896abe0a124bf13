import json
import subprocess
import sys
from dataclasses import replace

import pytest

from diffusionpose.errors import InputError
from diffusionpose.training.recipes import recipes
from diffusionpose.training.settings import NOT_OPTIONS, Machine, TrainingSettings


@pytest.mark.parametrize("name", recipes())
def test_settings_survive_json(name):
    settings = recipes()[name]
    assert TrainingSettings.from_dict(json.loads(json.dumps(settings.to_dict()))) == settings


def test_an_unknown_entry_is_named():
    with pytest.raises(InputError, match="momentum"):
        TrainingSettings.from_dict({"recipe": "x", "model": "tiny", "momentum": 0.9})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("epochs", 0),
        ("batch_size", 0),
        ("learning_rate", 0.0),
        ("learning_rate", float("nan")),
        ("ema_decay", 1.0),
        ("clip_norm", -1.0),
        ("optimiser", "sgd"),
        ("precision", "16-mixed"),
        ("input_size", (16, 64)),
        ("input_size", ("a", "b")),
        ("drops", ("a",)),
        ("seed", -1),
        ("seed", 2**64),
    ],
)
def test_a_value_out_of_range_names_its_option(tiny, name, value):
    with pytest.raises(InputError, match="--" + name.replace("_", "-")):
        replace(tiny, **{name: value})


@pytest.mark.parametrize(("option", "flag"), NOT_OPTIONS.items())
def test_what_another_setting_decides_is_no_option_of_the_model(tiny, option, flag):
    with pytest.raises(InputError, match=f"--options {option}.*{flag}"):
        replace(tiny, options={option: 1})


def test_a_machine_needs_a_process():
    assert Machine(devices=2, nodes=3).processes == 6
    with pytest.raises(InputError, match="--devices"):
        Machine(devices=0)


def test_settings_recipes_and_the_command_need_no_torch():
    program = (
        "import sys, diffusionpose.training.settings, diffusionpose.training.studies\n"
        "import diffusionpose.app.train\n"
        "sys.exit(', '.join({'torch', 'cv2', 'numpy'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
