"""The models in the package: NAME/encoder.onnx and step.onnx, and NAME.safetensors for PyTorch."""

from pathlib import Path

FOLDER = Path(__file__).parent
DEFAULT_MODEL = "diffusionpose-mobilenetv2-256x192-lspet14"


def bundled_models() -> list[str]:
    """Their names."""
    return sorted(path.stem for path in FOLDER.glob("*.safetensors"))
