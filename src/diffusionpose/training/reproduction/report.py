"""The report of a study: OUTPUT/STUDY.md, STUDY.json and STUDY.png."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffusionpose.training.reproduction.markdown import write_markdown
from diffusionpose.training.reproduction.rows import Measured, gather
from diffusionpose.training.reproduction.written import write_file, write_json

if TYPE_CHECKING:
    from diffusionpose.training.reproduction.reproduce import Request


def write_report(
    request: Request, facts: Mapping[str, Any], measured: Sequence[Measured], failed: Mapping[str, str]
) -> tuple[list[Path], list[str]]:
    """Write the files of a study from what is there.

    Args:
        request: what was asked for.
        facts: of the output folder.
        measured: every planned training with its results.
        failed: why a job failed, by its name.

    Returns:
        The files, and messages of what could not be drawn.

    Raises:
        InputError: a file cannot be written.
    """
    study, output = request.study, request.output
    rows = gather(study, measured, failed)
    entries = _entries(request, facts, rows, measured)
    files = [output / f"{study.name}.{kind}" for kind in ("md", "json", "png")]
    problems: list[str] = []
    if study.kind == "pictures":
        from diffusionpose.training.reproduction.hard_pictures import show_hard_pictures

        shown = show_hard_pictures(request, measured, files[2], _pictures_before(files[1]))
        entries["pictures"] = shown
        if shown is None:
            problems, files = ["figure5: not drawn, since a model is missing"], files[:2]
    else:
        from diffusionpose.training.reproduction.plots import plot_steps, plot_table

        plot = plot_steps if study.kind == "steps" else plot_table
        plot(study, rows, files[2])
    text = write_markdown(study, entries)
    write_file(files[0], lambda part: part.write_text(text))
    write_json(files[1], entries)
    return files, problems


def _pictures_before(path: Path) -> dict[str, Any] | None:
    """The pictures that the last report lists, None where there is none that can be read."""
    try:
        pictures: dict[str, Any] | None = json.loads(path.read_text())["pictures"]
        return pictures
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _entries(
    request: Request, facts: Mapping[str, Any], rows: Sequence[Any], measured: Sequence[Measured]
) -> dict[str, Any]:
    budget = request.budget
    return {
        "study": request.study.name,
        "title": request.study.title,
        "budget": {"name": budget.name, "words": budget.words, "base": budget.base.to_dict()},
        "differs_from_the_paper": differences(request, facts),
        "data": facts,
        "digests": request.data.digests(),
        "seeds": list(range(request.seeds)),
        "rows": rows,
        "settings": {planned.name: planned.settings.to_dict() for planned, _, _ in measured},
        "command": request.command,
        "parallel": request.parallel,
        "threads": request.threads,
        "hardware": _distinct(measured, "hardware"),
        "versions": _distinct(measured, "versions"),
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _distinct(measured: Sequence[Measured], name: str) -> list[Any]:
    """What the measurements say about ``name``, each answer once."""
    answers = [result[name] for _, _, results in measured for result in results.values()]
    return [answer for index, answer in enumerate(answers) if answer not in answers[:index]]


COCO_VAL_PICTURES = 5000  # of val2017


def differences(request: Request, facts: Mapping[str, Any]) -> list[str]:
    """In what our numbers differ from the paper's protocol; empty where they can be compared directly."""
    found = []
    val = facts["val"]
    if facts["skeleton"] != "coco" or val["pictures"] != COCO_VAL_PICTURES:
        found.append(
            f"measured on {val['persons']} persons of {Path(val['file']).name} "
            f"({facts['joints']} joints, skeleton {facts['skeleton']})"
        )
    if request.data.boxes is None:
        found.append("annotated boxes, where the paper has those of a detector (56.4 AP)")
    if request.budget.name != "full":
        found.append(request.budget.words)
    if request.machine.devices != 8:
        found.append(
            f"{request.machine.devices * request.budget.base.batch_size} persons a step, "
            "where the paper has 8 GPUs x 32"
        )
    return found
