"""JSON files: read and written in one place, and the types and ranges of the values in them checked there."""

import json
import stat
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from diffusionpose.errors import InputError, write_file

Id = int | str
LARGEST = 1e9  # pixels; no picture reaches so far, and float32 still holds its square
LONGEST = 1000  # characters of an id or a name
FAULTS_SHOWN = 3


def read_json(path: str | Path) -> Any:
    """The content of a JSON file; InputError where it is none, or cannot be read."""
    path = Path(path)
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # reading a pipe or a device may never end
            raise InputError(f"{path}: not a file; give a JSON file")
        return json.loads(path.read_bytes())
    except InputError:
        raise
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; check the path") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not a JSON file, or cut short ({error})") from error


def write_json(path: Path, content: Mapping[str, Any] | Iterable[Any]) -> int:
    """Write JSON in one stroke; a list gets a line for each entry, which are asked for one by one.

    Returns:
        how many entries there were.

    Raises:
        InputError: it cannot be written.
    """
    if isinstance(content, Mapping):
        write_file(path, (json.dumps(content, indent=2, allow_nan=False) + "\n").encode())
        return len(content)
    count = 0

    def write(part: Path) -> None:
        nonlocal count
        with part.open("w", encoding="ascii") as file:
            file.write("[\n")
            for count, entry in enumerate(content, start=1):
                file.write(("" if count == 1 else ",\n") + json.dumps(entry, allow_nan=False))
            file.write("\n]\n")

    write_file(path, write)
    return count


def is_json(value: Any) -> bool:
    """Whether a value can be written as JSON: it holds no NaN and no infinity."""
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        return False
    return True


def as_id(value: Any) -> Id | None:
    """An id of a picture, a category or an annotation: a whole number or a text; None for anything else."""
    if isinstance(value, str):
        return value if 0 < len(value) <= LONGEST else None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < 1e18:
        return None
    return int(value) if value == int(value) else None


def id_key(value: Id) -> str:
    """By which ids are compared: 7, 7.0 and "7" are one id, since tools disagree about the type."""
    return str(value).strip()


def as_flag(value: Any) -> bool | None:
    """Yes or no, as a number, true or false, or their text; no for a null, None for anything else."""
    return {"": False, "none": False, "0": False, "false": False, "1": True, "true": True}.get(
        id_key(value).lower() if (number := as_number(value)) is None else f"{number:g}"
    )


def as_number(value: Any, largest: float = LARGEST) -> float | None:
    """A number whose size is below ``largest``; None for anything else (NaN, text, true)."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if abs(value) < min(largest, 1e300) else None


def as_list(value: Any) -> list[Any]:
    """A list as it is; an empty one for anything else."""
    return value if isinstance(value, list) else []


def as_numbers(value: Any, count: int | None = None) -> np.ndarray | None:
    """(n,) float64 of a list of ``count`` numbers, NaN for a null in it; None for anything else.

    The numbers may be NaN, infinite or huge: what that means depends on the place.
    """
    if not isinstance(value, list) or (count is not None and len(value) != count):
        return None
    kinds = set(map(type, value))
    if bool in kinds or not all(issubclass(kind, (int, float, np.number, type(None))) for kind in kinds):
        return None
    try:
        return np.array(value, dtype=np.float64)
    except OverflowError:
        return None


def shortened(messages: Sequence[str]) -> str:
    """The first few messages, and how many more there are."""
    more = f"; and {len(messages) - FAULTS_SHOWN} more" if len(messages) > FAULTS_SHOWN else ""
    return "; ".join(messages[:FAULTS_SHOWN]) + more


def printable(text: str) -> str:
    """Text from a file, safe for a terminal: control characters are written as escapes, long ones cut."""
    shown = "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)
    return shown if len(shown) <= LONGEST else shown[: LONGEST - 3] + "..."
