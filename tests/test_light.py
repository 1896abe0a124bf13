"""The light install: without PyTorch, in a process where it cannot be imported."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from diffusionpose.bundled import PORTRAIT

SRC = Path(__file__).resolve().parents[1] / "src"
HEAVY = (
    "torch",
    "torchvision",
    "timm",
    "lightning",
    "safetensors",
    "scipy",
    "matplotlib",
    "supervision",
    "gradio",
)
REFUSE = f"""
import sys, importlib.abc
class Refuse(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {HEAVY}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Refuse())
"""
PYTHON = """
import numpy as np
from diffusionpose import PoseEstimator, InputError
from diffusionpose.runtime.drawing import draw_poses
portrait, box = sys.argv[1], [[-150, -150, 680, 1600]]
estimator = PoseEstimator.from_pretrained(device="cpu")
image = np.zeros((90, 120, 3), np.uint8)
assert isinstance(estimator(image), list) and isinstance(estimator(portrait), list)
poses = [PoseEstimator(estimator.network, steps=steps)(portrait, box) for steps in (0, 1, 3)]
assert all(len(found) == 1 for found in poses)
assert not np.allclose(poses[0][0].keypoints, poses[1][0].keypoints)
assert np.allclose(estimator(open(portrait, "rb").read(), box)[0].keypoints, poses[1][0].keypoints)
again = estimator(portrait, start=poses[0])
assert again[0].scores.max() > 0.5
drawn = draw_poses(image, poses[1], boxes=True, ids=[1], scores=True, names=True)
assert drawn.shape == image.shape
for weights in ("runs/none", "none.safetensors", sys.argv[2]):
    try:
        PoseEstimator.from_pretrained(weights)
    except InputError as error:
        print(error)
"""


def run(code: str, *words: object) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(SRC)}
    command = [sys.executable, "-c", REFUSE + code, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


def test_from_a_picture_to_its_poses_in_python(tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").write_bytes(b"weights")
    ended = run(PYTHON, PORTRAIT, tmp_path / "x.safetensors")
    assert ended.returncode == 0, ended.stderr
    assert "pip install 'diffusionpose[train]'" in ended.stdout.splitlines()[-1]


def test_the_command_line(tmp_path: Path) -> None:
    picture = np.full((120, 160, 3), (90, 140, 230), np.uint8)
    Image.fromarray(picture).save(tmp_path / "sky.png")
    main = "from diffusionpose.app.cli import main; status = main(sys.argv[1:])\n"
    count = "print(sum(name.startswith('diffusionpose') for name in sys.modules)); sys.exit(status)"
    words = ("--draw-boxes", "--draw-names", "--csv")
    ended = run(main + count, "predict", PORTRAIT, tmp_path / "sky.png", "--output", tmp_path / "out", *words)
    assert (ended.returncode, "Traceback" in ended.stderr) == (0, False), ended.stderr
    assert {path.name for path in (tmp_path / "out").glob("*.png")} == {"grace_hopper.png", "sky.png"}
    rows = json.loads((tmp_path / "out" / "keypoints.json").read_text())
    assert {row["file_name"] for row in rows} <= {"grace_hopper.jpg"}
    assert int(ended.stdout.splitlines()[-1]) <= 21, "files from predict to the pose"
    ended = run(main + count, "export", "--output", tmp_path / "model.onnx")
    assert (ended.returncode, ended.stderr.count("\n")) == (1, 1)
    assert "pip install 'diffusionpose[export]'" in ended.stderr
