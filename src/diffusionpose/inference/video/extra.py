"""What the extra ``video`` brings, imported when it is first needed."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

from diffusionpose.errors import InputError
from diffusionpose.extras import install, needs_extra

PACKAGES = ("av", "trackers")


def import_extra(name: str) -> ModuleType:
    """A package of the extra: "av" or "trackers".

    Raises:
        InputError: it is not installed; the message says how to.
    """
    with needs_extra("video", f"video needs {name}"):
        module = import_module(name)
    return module


def check_extra() -> None:
    """See whether the extra is installed, without the seconds that importing it takes.

    Raises:
        InputError: it is not, or not all of it; the message says how to.
    """
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        raise InputError(f"video needs {' and '.join(missing)}; install it: {install('video')}")
