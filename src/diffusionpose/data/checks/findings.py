"""What a check of a data set says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from diffusionpose.data.faults import Fault

Severity = Literal["error", "warning"]


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, or looks wrong.

    Attributes:
        check: which check found it.
        severity: "error": training or evaluation would fail, lose a person, learn or measure something
            wrong, or know the answers. "warning": suspicious, for somebody to look at.
        file: the annotation file.
        message: what, naming the entry.
        cure: what to do, in one phrase.
        image: file name of the picture, or "".
        annotation: id of the annotation, where one is concerned.
        joints: names of the joints concerned.
    """

    check: str
    severity: Severity
    file: str
    message: str
    cure: str
    image: str = ""
    annotation: int | str | None = None
    joints: tuple[str, ...] = ()


class KeepFaults:
    """Keeps every fault that the reader of a file finds; the reader goes on without those entries."""

    def __init__(self) -> None:
        self.found: list[tuple[str, Fault, str]] = []

    def add(self, kind: str, faults: Sequence[Fault], cure: str) -> None:
        """Remember them."""
        self.found.extend((kind, fault, cure) for fault in faults)

    def findings(self, file: str, file_names: dict[int | str, str]) -> list[Finding]:
        """As errors: what the reader refuses, training refuses.

        Args:
            file: the annotation file.
            file_names: of its pictures, by id.
        """
        return [
            Finding(
                kind,
                "error",
                file,
                fault.message,
                cure,
                image=_name(file_names, fault.image_id),
                annotation=fault.annotation_id,
            )
            for kind, fault, cure in self.found
        ]


def _name(file_names: dict[int | str, str], image_id: object) -> str:
    return file_names.get(image_id, "") if isinstance(image_id, (int, str)) else ""
