"""Reading a checkpoint of another project, without running what it may hold.

Pickles are opened by torch's restricted reader only (``weights_only=True``): it makes tensors, plain
containers and, allowed here on top, NumPy numbers and arrays, and refuses everything else.
"""

import json
import pickle
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffusionpose.errors import InputError
from diffusionpose.models.weight_files import read_safetensors

SUFFIXES = {".safetensors", ".pth", ".pt", ".bin"}
WRAPPERS = ("state_dict", "model")  # keys under which checkpoints hold their weights
ALIASES = {"top_head": "head"}  # mmpose's name of CrowdPose's joint 12 -> ours
DATA_PARALLEL = "module."  # what torch's DataParallel puts before every name
PAGE_STARTS = (b"<!doctype", b"<html", b"<?xml", b"<head")
AGAIN = "download or copy it again"
RESAVE = """{path}: holds {what}, which is not opened: making it could run any code.
(A file that was cut short can look like this, too.)
If you trust the file, save its weights alone, where the project that wrote it is installed:
    import torch
    torch.save(torch.load({name!r}, "cpu", weights_only=False)["state_dict"], "weights_only.pth")"""


@dataclass(frozen=True)
class Checkpoint:
    """What a file of another project says."""

    path: Path
    tensors: Mapping[str, Tensor]  # by the names they have there, without DataParallel's ``module.``
    settings: str = ""  # text of the settings it was trained with (mmpose writes them)
    joints: tuple[str, ...] = ()  # names of its outputs in their order (mmpose 1.x writes them)
    config: Mapping[str, Any] = field(default_factory=dict)  # of config.json beside it (Hugging Face, timm)


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Read a .safetensors, .pth, .pt or .bin file.

    Raises:
        InputError: no such file, a folder, an empty or cut file, a web page saved under the name of
            weights, a pickle that holds more than data, or a file without weights; with the cure.
    """
    path = Path(path)
    start = _start(path)
    content: Any
    # safetensors: 8 bytes of length, of which no header fills the upper 4, then a JSON object; first, as
    # the length may begin with the byte that pickles begin with
    if start[4:9] == b"\0\0\0\0{":
        content, _ = read_safetensors(path, AGAIN, finite=False)
    elif start.startswith((b"PK\x03\x04", b"\x80")):  # a zip archive, a pickle
        content = _unpickle(path)
    else:
        raise InputError(f"{path}: neither a PyTorch checkpoint nor safetensors; is it another file?")
    weights = _weights(path, content)
    return Checkpoint(path, weights, *_notes(content.get("meta")), read_config(path))


def read_config(path: Path) -> dict[str, Any]:
    """The entries of ``config.json`` beside a file; none where it cannot be read, as it may be anybody's."""
    try:
        content = json.loads((path.parent / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _start(path: Path) -> bytes:
    """The first bytes of a file, having looked at what needs no reading of it."""
    if path.is_dir():
        inside = ", ".join(sorted(file.name for file in path.iterdir() if file.suffix in SUFFIXES))
        raise InputError(f"{path}: a folder; name the file in it" + (f" ({inside})" if inside else ""))
    try:
        with path.open("rb") as file:
            start = file.read(64)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); give an existing file") from error
    if not start:
        raise InputError(f"{path}: empty; {AGAIN}")
    if start.lstrip().lower().startswith(PAGE_STARTS):
        raise InputError(f"{path}: a web page, not weights: the link led to a page about them; {AGAIN}")
    if start.startswith(b"version https://git-lfs"):
        raise InputError(f"{path}: only points to weights in Git LFS; fetch them by `git lfs pull`")
    return start


def _harmless() -> list[Any]:
    """What a pickled NumPy number or array of numbers needs, such as mmpose notes beside its weights."""
    multiarray = np._core.multiarray  # type: ignore[attr-defined]
    makers = [
        (maker, f"numpy.{core}.multiarray.{maker.__name__}")
        for maker in (multiarray.scalar, multiarray._reconstruct)
        for core in ("core", "_core")  # NumPy 1, NumPy 2
    ]
    codes = ("?", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8")
    return [*makers, np.ndarray, np.dtype, *(type(np.dtype(code)) for code in codes)]


def _unpickle(path: Path) -> Any:
    try:
        with torch.serialization.safe_globals(_harmless()), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what torch warns of here ends in one of the errors below
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        named = re.search(r"GLOBAL (\S+) was not an allowed", str(error))
        what = named[1] if named else "more than weights and numbers"
        raise InputError(RESAVE.format(path=path, name=path.name, what=what)) from error
    except MemoryError:
        raise
    except Exception as error:  # the reader stumbles over damaged files in a dozen ways
        if "TorchScript" in str(error):
            raise InputError(
                f"{path}: a TorchScript program, not a checkpoint; give the project's checkpoint"
            ) from error
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].split(". ")[0]
        raise InputError(f"{path}: cut short or damaged; {AGAIN} ({reason})") from error


def _weights(path: Path, content: Any) -> dict[str, Tensor]:
    """The weights of a checkpoint: it is them, or holds them beside other things (an optimiser's state)."""
    found = content
    if isinstance(content, Mapping):
        found = next((content[key] for key in WRAPPERS if isinstance(content.get(key), Mapping)), content)
    if not isinstance(found, Mapping) or not any(isinstance(value, Tensor) for value in found.values()):
        what = f"a {type(content).__name__}"
        if isinstance(content, Mapping):
            what = f"the entries {', '.join(map(repr, list(content)[:5]))}" if content else "nothing"
        raise InputError(
            f"{path}: no checkpoint: holds {what} and no weights by name; "
            "give the file that the other project loads"
        )
    if others := [str(name) for name, value in found.items() if not isinstance(value, Tensor)]:
        raise InputError(
            f"{path}: {len(others)} of its weights are no tensors ({', '.join(others[:5])}); "
            "save the state dict of the model alone"
        )
    wrapped = all(str(name).startswith(DATA_PARALLEL) for name in found)
    return {str(name).removeprefix(DATA_PARALLEL if wrapped else ""): value for name, value in found.items()}


def _notes(meta: Any) -> tuple[str, tuple[str, ...]]:
    """mmpose's notes: the text of its settings ("config" in 0.x, "cfg" in 1.x) and the joints (1.x)."""
    if not isinstance(meta, Mapping):
        return "", ()
    settings = next((meta[key] for key in ("cfg", "config") if isinstance(meta.get(key), str)), "")
    dataset = meta.get("dataset_meta")
    names = dataset.get("keypoint_id2name") if isinstance(dataset, Mapping) else None
    if not isinstance(names, Mapping) or not all(isinstance(index, int) for index in names):
        return settings, ()
    return settings, tuple(ALIASES.get(str(names[index]), str(names[index])) for index in sorted(names))
