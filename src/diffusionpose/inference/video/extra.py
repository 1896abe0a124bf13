"""What the extra ``video`` brings, imported when it is first needed."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

from diffusionpose.errors import InputError

PACKAGES = ("av", "trackers")
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


def check_extra() -> None:
    """See whether the extra is installed, without the seconds that importing it takes.

    Raises:
        InputError: it is not, or not all of it; the message says how to.
    """
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        raise InputError(f"video needs {' and '.join(missing)}; install it: {INSTALL}")
