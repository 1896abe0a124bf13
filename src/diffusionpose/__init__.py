"""DiffusionPose: 2D human pose estimation by a structure-guided diffusion model (arXiv 2306.17074).

The public names are loaded when they are first asked for, so that importing the package is instant.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from diffusionpose.errors import InputError
    from diffusionpose.models.checkpoints import load_model, save_model
    from diffusionpose.models.zoo import create_model
    from diffusionpose.poses import Pose, to_dataframe, to_supervision
    from diffusionpose.runtime.estimator import PoseEstimator
    from diffusionpose.skeletons import Skeleton, get_skeleton

__version__ = "0.1.0"

__all__ = ["InputError", "Pose", "PoseEstimator", "Skeleton", "create_model", "get_skeleton", "load_model"]
__all__ += ["save_model", "to_dataframe", "to_supervision"]

_HOMES = {"InputError": "errors", "PoseEstimator": "runtime.estimator", "create_model": "models.zoo"}
_HOMES |= dict.fromkeys(("Skeleton", "get_skeleton"), "skeletons")
_HOMES |= dict.fromkeys(("load_model", "save_model"), "models.checkpoints")
_HOMES |= dict.fromkeys(("Pose", "to_dataframe", "to_supervision"), "poses")


def __getattr__(name: str) -> object:
    """Import a public name from the floor it lives on (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
