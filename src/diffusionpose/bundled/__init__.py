"""The models in the package: NAME/encoder.onnx and step.onnx, and NAME.safetensors for PyTorch; and a
photograph.

The photograph, ``grace_hopper.jpg``, is the official portrait of Grace Hopper by James S. Davis, U.S. Navy,
1984, in the public domain; the file is the one of matplotlib's sample data.
"""

from pathlib import Path

FOLDER = Path(__file__).parent
DEFAULT_MODEL = "diffusionpose-movenet-256x192"
PORTRAIT = FOLDER / "grace_hopper.jpg"


def bundled_models() -> list[str]:
    """Their names."""
    return sorted(path.stem for path in FOLDER.glob("*.safetensors"))
