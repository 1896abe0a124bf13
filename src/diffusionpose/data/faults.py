"""Faults of a file: its reader finds them all, and whoever called it decides what follows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from diffusionpose.errors import InputError

FAULTS_SHOWN = 3


@dataclass(frozen=True)
class Fault:
    """One fault.

    Attributes:
        message: what is wrong, naming the entry.
        image_id: of the picture, where one is concerned.
        annotation_id: of the person, where one is concerned.
    """

    message: str
    image_id: int | str | None = None
    annotation_id: int | str | None = None


class Faults(Protocol):
    """Takes the faults a reader finds; where it returns, the reader goes on without those entries."""

    def add(self, kind: str, faults: Sequence[Fault], cure: str) -> None:
        """Take all faults of one kind; there may be none."""


class RefuseFaults:
    """Ends the reading at the first kind of fault, with the first few of it in the message."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def add(self, kind: str, faults: Sequence[Fault], cure: str) -> None:
        """InputError, if there are any."""
        refuse(self.path, [fault.message for fault in faults], cure)


def refuse(path: Path, faults: Sequence[str], cure: str) -> None:
    """InputError with the first few faults of a file and their number, if there are any."""
    if faults:
        shown = "; ".join(faults[:FAULTS_SHOWN])
        more = f"; and {len(faults) - FAULTS_SHOWN} more" if len(faults) > FAULTS_SHOWN else ""
        raise InputError(f"{path}: {shown}{more}; {cure}")
