"""JSON files given by the user: read, with every fault named."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from diffusionpose.errors import InputError

ID_KEYS = ("id", "image_id")


def read_json(path: str | Path) -> Any:
    """The content of a JSON file.

    Raises:
        InputError: the file cannot be read, or is not JSON.
    """
    try:
        return json.loads(Path(path).read_bytes())
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; check the path") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not a JSON file, or cut short ({error})") from error


def entries_with(path: Path, what: str, entries: Any, keys: Sequence[str]) -> list[dict[str, Any]]:
    """``entries`` itself, once it is known to be a list of dicts that all have ``keys``.

    Raises:
        InputError: names the file, the first entries at fault and what they lack.
    """
    return complete_entries(path, what, entries, keys, RefuseFaults(path))


def complete_entries(
    path: Path, what: str, entries: Any, keys: Sequence[str], faults: Faults
) -> list[dict[str, Any]]:
    """Those of ``entries`` that are dicts with all ``keys``; the others go to ``faults``.

    Raises:
        InputError: ``entries`` is no list.
    """
    if not isinstance(entries, list):
        raise InputError(f"{path}: {what!r} must be a list")
    good, others, lacking, ids = [], [], [], []
    for number, entry in enumerate(entries):
        if not isinstance(entry, dict):
            others.append(Fault(f"entry {number} of {what!r} is not an object"))
            continue
        missing = next((key for key in keys if key not in entry), None)
        strange = next((k for k in keys if k in ID_KEYS and not _is_id(entry.get(k))), None)
        name = f"with id {entry['id']}" if "id" in entry else f"number {number}"
        if missing is not None:
            lacking.append(Fault(f"the entry {name} of {what!r} has no key {missing!r}"))
        elif strange is not None:
            ids.append(Fault(f"the entry {name} of {what!r} has an {strange!r} that is no number or text"))
        else:
            good.append(entry)
    faults.add("not an entry", others, "every entry is an object in braces")
    faults.add("missing key", lacking, "add it")
    faults.add("unusable id", ids, "give it a number of its own")
    return good


def _is_id(value: Any) -> bool:
    return isinstance(value, (int, float, str)) and value == value  # NaN is not itself


# Faults of a file: its reader finds them all, and whoever called it decides what follows

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
