"""What the extra ``video`` brings, imported when it is first needed."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from diffusionpose.errors import InputError

INSTALL = "pip install 'diffusionpose[video]'"


def import_extra(name: str) -> ModuleType:
    """A package of the extra: "av" or "trackers".

    Raises:
        InputError: it is not installed; the message says how to.
    """
    try:
        return import_module(name)
    except ImportError as error:
        raise InputError(f"video needs {name} ({error}); install it: {INSTALL}") from error
