"""JSON files given by the user: read, with every fault named."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from diffusionpose.errors import InputError

FAULTS_SHOWN = 3


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
        InputError: names the file, the first entry at fault and the key.
    """
    if not isinstance(entries, list):
        raise InputError(f"{path}: {what!r} must be a list")
    for number, entry in enumerate(entries):
        if not isinstance(entry, dict):
            raise InputError(f"{path}: entry {number} of {what!r} is not an object")
        for key in keys:
            if key not in entry:
                name = f"with id {entry['id']}" if "id" in entry else f"number {number}"
                raise InputError(f"{path}: the entry {name} of {what!r} has no key {key!r}; add it")
    return entries


def refuse(path: Path, faults: Sequence[str], cure: str) -> None:
    """InputError with the first few faults of a file and their number, if there are any."""
    if faults:
        shown = "; ".join(faults[:FAULTS_SHOWN])
        more = f"; and {len(faults) - FAULTS_SHOWN} more" if len(faults) > FAULTS_SHOWN else ""
        raise InputError(f"{path}: {shown}{more}; {cure}")
