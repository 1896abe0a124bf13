"""Which detector a name stands for, and which one to take where none is named."""

from __future__ import annotations

import logging
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from diffusionpose.errors import InputError
from diffusionpose.extras import install
from diffusionpose.inference.detection import torchvision_models, transformers_models
from diffusionpose.inference.detection.downloads import Tell
from diffusionpose.inference.detection.network import MAX_PERSONS, MIN_SCORE, NetworkDetector
from diffusionpose.inference.detection.torchvision_models import TorchvisionDetector
from diffusionpose.inference.detection.transformers_models import TransformersDetector
from diffusionpose.inference.detectors import PersonDetector, WholeImage
from diffusionpose.models.pose_model import PoseModel

AUTO = "auto"
WHOLE = "whole"
ZOOM = "zoom"
# Short name -> hub repository and its download in MB. AP on COCO val2017, all classes, by their papers:
HUB = {
    "dfine": ("ustc-community/dfine-small-coco", 42),  # 48.5 with 25 GFLOPs a picture
    "rtdetr": ("PekingU/rtdetr_v2_r18vd", 81),  # 48.1 with 60 GFLOPs
}
TORCHVISION = {"fasterrcnn": "fasterrcnn_mobilenet_v3_large_fpn"}  # 32.8 with 4.5 GFLOPs (torchvision)
PREFERRED = (*HUB, *TORCHVISION)  # by "auto", the first that is at hand


def make_detector(
    name: str,
    device: str = "auto",
    *,
    min_score: float = MIN_SCORE,
    max_persons: int = MAX_PERSONS,
    tell: Tell | None = None,
    model: PoseModel | None = None,
) -> PersonDetector:
    """The detector that a name stands for.

    Weights are taken from the caches of the hub and of torchvision; those that are not there are downloaded,
    and kept there. ``HF_HUB_OFFLINE=1`` in the environment forbids it.

    Args:
        name: "whole"; "zoom", one person by their pose (:class:`PoseZoom`); "rtdetr", "dfine" or
            "fasterrcnn"; a detector of torchvision by its own name, or a file with its weights whose name
            begins with that (as torchvision names them); a folder with a detector in the format of
            transformers, or the id of such a repository on the hub; or "auto": the first of dfine, rtdetr and
            fasterrcnn whose weights are at hand, else one of them by a download, else "zoom", or "whole"
            where no model is given.
        device: as PyTorch names it, or "auto" (a GPU where there is one).
        min_score: of the box, from which on a person counts as found.
        max_persons: so many at most in a picture, those with the highest scores.
        tell: is told, in words for the user, of a download and of what "auto" takes; None for the log.
        model: the pose model that "zoom" looks with.

    Raises:
        InputError: a name that stands for nothing, or a detector that cannot be had; how it can is said.
    """
    options = _options(device, min_score, max_persons)
    tell = tell or logging.getLogger(__name__).warning
    if name == WHOLE:
        return WholeImage()
    if name == ZOOM:
        return _zoom(model, device)
    return _auto(options, tell, model) if name == AUTO else _named(name, options, tell)


def _options(device: str, min_score: float, max_persons: int) -> dict[str, Any]:
    """Of every network; InputError where a number is out of range."""
    if not 0 <= min_score <= 1:
        raise InputError(f"least score of a person's box (--box-score): {min_score} must be between 0 and 1")
    if max_persons < 1:
        raise InputError(f"persons in a picture: {max_persons} must be 1 or more")
    return {"device": device, "min_score": min_score, "max_persons": max_persons}


def _zoom(model: PoseModel | None, device: str) -> PersonDetector:
    from diffusionpose.inference.detection.zoom import PoseZoom

    if model is None:
        raise InputError(f"detector {ZOOM}: looks with a pose model, and none is given")
    return PoseZoom(model, device)


def _auto(options: dict[str, Any], tell: Tell, model: PoseModel | None) -> PersonDetector:
    """The first detector that is at hand, or that can be brought; else zoom, or the whole picture."""
    for name in PREFERRED:
        if _at_hand(name):
            tell(f"looking for persons with {name} (--detector takes another, --boxes boxes of your own)")
            return _named(name, options, tell)
    name = "dfine" if _has_transformers() else "fasterrcnn"
    try:
        detector = _named(name, options, tell)
    except InputError as error:
        if model is None:
            tell(f"no detector to look for persons, taking each whole picture as one ({error})")
            return WholeImage()
        tell(f"no detector to look for persons, so the pose model looks for one in each picture ({error})")
        return _zoom(model, options["device"])
    tell(f"looking for persons with {name}")
    return detector


def _at_hand(name: str) -> bool:
    """Whether a short name's weights are in a cache, and what they need is installed."""
    if name in TORCHVISION:
        return torchvision_models.cached_weights(TORCHVISION[name]).is_file()
    return _has_transformers() and transformers_models.in_hub_cache(HUB[name][0]) is not None


def _has_transformers() -> bool:
    return find_spec("transformers") is not None


def _named(name: str, options: dict[str, Any], tell: Tell) -> NetworkDetector:
    """The network that a name other than "whole", "zoom" and "auto" stands for."""
    path = Path(name).expanduser()
    if path.is_dir():
        return TransformersDetector(path, **options)
    if path.suffix in torchvision_models.SUFFIXES:
        return _from_file(path, options)
    architecture = TORCHVISION.get(name, name)
    if architecture in torchvision_models.architectures():
        return TorchvisionDetector(architecture, torchvision_models.fetch(architecture, tell), **options)
    repository, size = HUB.get(name, (name, None))
    if repository.count("/") != 1 or repository.startswith((".", "/", "~")):
        raise InputError(
            f"--detector {name}: no such detector, folder or file; give {AUTO}, {WHOLE}, {ZOOM}, "
            f"{', '.join(PREFERRED)}, a name of torchvision's, a folder, or a hub id like {HUB['rtdetr'][0]}"
        )
    if not _has_transformers():
        raise InputError(f"detector {name}: needs transformers; install it: {install('detect')}")
    return TransformersDetector(transformers_models.fetch(repository, size, tell), **options, name=name)


def _from_file(path: Path, options: dict[str, Any]) -> NetworkDetector:
    """A detector of torchvision with the weights of a file."""
    if not path.is_file():
        raise InputError(f"{path}: no such file; check the path")
    architecture = torchvision_models.architecture_of(path)
    if architecture is None:
        known = ", ".join(torchvision_models.architectures())
        raise InputError(
            f"{path}: its name does not begin with that of a detector of torchvision; rename it ({known})"
        )
    return TorchvisionDetector(architecture, path, **options)
