"""Packages that not every installation has: the extras of this one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from diffusionpose.errors import InputError


def install(extra: str) -> str:
    """The command that installs an extra, by its name in pyproject.toml."""
    return f"pip install 'diffusionpose[{extra}]'"


@contextmanager
def needs_extra(extra: str, need: str) -> Iterator[None]:
    """The block imports what an extra brings.

    Args:
        extra: its name in pyproject.toml.
        need: how the message begins: "ONNX files need onnxruntime".

    Raises:
        InputError: it cannot be imported; the message says why, and how to install it.
    """
    try:
        yield
    except ImportError as error:
        raise InputError(f"{need} ({error}); install it: {install(extra)}") from error
