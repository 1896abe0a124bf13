"""The models in the package: NAME/encoder.onnx and step.onnx, and NAME.safetensors for PyTorch; and two
pictures.

The photograph, ``grace_hopper.jpg``, is the official portrait of Grace Hopper by James S. Davis, U.S. Navy,
1984, in the public domain; the file is the one of matplotlib's sample data.
``drawn_people.jpg`` is ``draw_picture(3, 1, COCO, (640, 480))`` of ``diffusionpose.data.synthetic``.
"""

from pathlib import Path

FOLDER = Path(__file__).parent
DEFAULT_MODEL = "diffusionpose-movenet-256x192"
PORTRAIT = FOLDER / "grace_hopper.jpg"
DRAWN_PEOPLE = FOLDER / "drawn_people.jpg"


def bundled_models() -> list[str]:
    """Their names."""
    return sorted(path.stem for path in FOLDER.glob("*.safetensors"))
