"""The documentation builds without a warning, and its page of the paper leads to the right code."""

import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

from diffusionpose.app import cli

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "paper-to-code.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| (Eq\. \d+|Algorithm \d|Table \d|Figure \d) \| `([\w.]+)` \|", PAGE, re.MULTILINE)


def found(name: str) -> object:
    """The module, class, function or constant of a dotted name."""
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        try:
            thing: object = importlib.import_module(".".join(parts[:end]))
        except ModuleNotFoundError:
            continue
        for part in parts[end:]:
            thing = getattr(thing, part)
        return thing
    raise ModuleNotFoundError(name)


def source(name: str) -> str:
    """The text of it; for a constant that of its module."""
    thing = found(name)
    if inspect.ismodule(thing) or inspect.isclass(thing) or inspect.isfunction(thing):
        return inspect.getsource(thing)
    return inspect.getsource(found(name.rpartition(".")[0]))


def test_every_equation_algorithm_table_and_figure_has_its_place():
    items = {item for item, _ in ROWS}
    wanted = {f"Eq. {n}" for n in range(1, 12)} | {"Algorithm 1", "Algorithm 2"}
    wanted |= {f"Table {n}" for n in range(1, 8)} | {f"Figure {n}" for n in range(2, 6)}
    assert items == wanted


@pytest.mark.parametrize(("item", "name"), ROWS, ids=lambda value: value.replace(" ", ""))
def test_the_code_names_the_item_it_stands_beside(item, name):
    kind, number = item.rsplit(" ", 1)
    kind = {"Eq.": r"Eq\.", "Figure": r"(?:Figure|Fig\.)"}.get(kind, kind)
    # "Eq. 1 and 2", "Eq. 6, 7"
    assert re.search(rf"{kind} (?:\d+(?:, | and ))*{number}\b", source(name)), f"{name} does not name {item}"


def test_the_commands_of_the_page_exist():
    for words in re.findall(r"`diffusionpose ([\w ]+)`", PAGE):
        command, *studies = words.split()
        assert command in cli.COMMANDS
        for study in studies:
            from diffusionpose.training.studies import STUDIES

            assert study in STUDIES


def test_the_pages_build_without_a_warning(tmp_path):
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "mkdocs",
            "build",
            "--strict",
            "--quiet",
            "--site-dir",
            str(tmp_path / "site"),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    first = (tmp_path / "site" / "first-pose" / "index.html").read_text(encoding="utf-8")
    assert "from_pretrained" in first  # the example is in the page
    fetched = re.findall(r'(?:src|<link[^>]*href)="(https?://[^"]+)"', first)
    assert fetched == []  # a page asks no other server for anything
