"""Checkpoints: a safetensors file whose metadata tells how to make the model again.

Nothing here unpickles: a file that could run code when opened is refused.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

import diffusionpose
from diffusionpose.errors import InputError
from diffusionpose.files import atomically
from diffusionpose.models.hub import WEIGHTS, download
from diffusionpose.models.onnx_model import load_onnx
from diffusionpose.models.openvino_model import load_openvino
from diffusionpose.models.pose_model import PoseModel
from diffusionpose.models.zoo import create_model
from diffusionpose.skeletons import Skeleton

METADATA_KEY = "diffusionpose"
BUNDLED = Path(diffusionpose.__file__).parent / "bundled"
DEFAULT_MODEL = "diffusionpose-mobilenetv2-256x192-lspet14"
PICKLES = {".pt", ".pth", ".ckpt", ".bin", ".pkl", ".tar"}
EXPORTED = {".onnx": load_onnx, ".xml": load_openvino}
FILES = (".safetensors", *EXPORTED)  # a name that ends so is no repository of the hub
RUN_FILES = ("best.safetensors", WEIGHTS)  # of a run folder, the first that is there


def bundled_models() -> list[str]:
    """Names of the models that come with the package."""
    return sorted(path.stem for path in BUNDLED.glob("*.safetensors"))


def save_model(model: PoseModel, path: str | Path, half: bool = False, **facts: Any) -> None:
    """Write a model that :func:`load_model` reads back.

    The file appears whole or not at all: it is written beside its place and then moved there.

    Args:
        model: made by ``create_model``.
        path: of the .safetensors file.
        half: store matrices and kernels as float16; norms and biases stay float32.
        facts: anything JSON can hold, kept in the metadata (such as the epoch).

    Raises:
        InputError: the file cannot be written.
    """
    path = Path(path)
    tensors = {name: _stored(value, half) for name, value in model.state_dict().items()}
    metadata = {METADATA_KEY: json.dumps({**model.config, "facts": facts})}
    write_safetensors(path, tensors, metadata)


def write_safetensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Write a safetensors file, whole or not at all; InputError where it cannot be written."""
    try:
        atomically(path, lambda temporary: save_file(tensors, temporary, metadata))
    except (OSError, SafetensorError) as error:
        raise InputError(
            f"{path}: cannot be written ({error}); is the folder there, writable, not full?"
        ) from error


def _stored(value: Tensor, half: bool) -> Tensor:
    value = value.detach().cpu().contiguous()
    return value.half() if half and value.is_floating_point() and value.ndim >= 4 else value


def load_model(
    weights: str | Path | None = None, device: str | torch.device = "cpu", skeleton: Skeleton | None = None
) -> PoseModel:
    """A trained model, in evaluation mode.

    Args:
        weights: None for the bundled model, the name of a bundled model, a .safetensors file, an .onnx
            or .xml file of `diffusionpose export`, a run folder (its best checkpoint, else its newest), or
            the id of a hub repository.
        device: where to put it.
        skeleton: when given, the joints the model must have.

    Raises:
        InputError: no such weights, a file cut short, a pickle, another skeleton, or an exported file without
            its runtime; the message names the file and the cure.
    """
    path = find_weights(weights)
    if path.suffix in EXPORTED:
        model: PoseModel = EXPORTED[path.suffix](path)
        _check_joints(path, model.config, skeleton)
        return model.to(device).eval()
    config, tensors = _read(path)
    _check_joints(path, config, skeleton)
    try:
        model = create_model(config["name"], Skeleton.from_dict(config["skeleton"]), **config["options"])
        model.load_state_dict(tensors)
    except (KeyError, TypeError, RuntimeError, InputError) as error:
        raise InputError(f"{path}: does not fit the model its metadata names ({error})") from error
    return model.to(device).eval()


def _check_joints(path: Path, config: dict[str, Any], skeleton: Skeleton | None) -> None:
    """InputError where weights are not of the joints that are wanted."""
    if skeleton is not None and tuple(config["skeleton"]["joints"]) != skeleton.joints:
        raise InputError(
            f"{path}: made for the {len(config['skeleton']['joints'])} joints of "
            f"{config['skeleton']['name']!r}, not for the {skeleton.num_joints} of {skeleton.name!r}; "
            "give weights of this skeleton"
        )


def find_weights(weights: str | Path | None) -> Path:
    """The file that ``weights`` of :func:`load_model` stands for: .safetensors, or exported if named."""
    name = DEFAULT_MODEL if weights is None else str(weights)
    if name in bundled_models():
        return BUNDLED / f"{name}.safetensors"
    path = Path(name)
    if path.is_dir():
        for file in RUN_FILES:
            if (path / file).is_file():
                return path / file
        raise InputError(f"{path}: holds none of {', '.join(RUN_FILES)}; has the run finished an epoch?")
    if path.suffix in PICKLES:
        raise InputError(
            f"{path}: a pickle, which can run code when it is opened, is not loaded; "
            "give a .safetensors file or a run folder (`diffusionpose import-weights` makes one of a file of "
            "another project)"
        )
    if path.is_file():
        return path
    if name.count("/") == 1 and path.suffix not in FILES and not name.startswith((".", "/", "~")):
        return download(name)
    known = ", ".join(bundled_models()) or "none"
    raise InputError(f"{name}: no such file, run folder or bundled model (bundled: {known})")


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Metadata and weights of a checkpoint, float16 widened to float32."""
    try:
        with safe_open(str(path), "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise InputError(
            f"{path}: not a readable safetensors file, perhaps cut short ({error}); copy it again"
        ) from error
    if METADATA_KEY not in metadata and {"mean", "std"} <= metadata.keys():
        raise InputError(f"{path}: weights of an encoder alone; give them to --encoder-weights of a training")
    try:
        config = json.loads(metadata[METADATA_KEY])
        config["skeleton"]["joints"], config["name"], config["options"]
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{path}: safetensors without this package's metadata, so the model is unknown; "
            "give a file that save_model wrote, or make one by `diffusionpose import-weights`"
        ) from error
    return config, {n: t.float() if t.dtype == torch.float16 else t for n, t in tensors.items()}
