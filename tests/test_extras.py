import ast
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from diffusionpose.errors import InputError, install, needs_extra

ROOT = Path(__file__).resolve().parents[1]
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]


def test_what_is_missing_is_one_line_with_the_cure(monkeypatch):
    monkeypatch.setitem(sys.modules, "colorsys", None)
    with pytest.raises(InputError) as error, needs_extra("table", "colours need colorsys"):
        import colorsys  # noqa: F401
    assert str(error.value) == (
        "colours need colorsys (import of colorsys halted; None in sys.modules); "
        "install it: pip install 'diffusionpose[table]'"
    )
    assert isinstance(error.value.__cause__, ImportError), "what Python said is not lost"


def test_what_is_there_is_imported_and_other_errors_stay_as_they_are():
    with needs_extra("table", "colours need colorsys"):
        import colorsys
    assert colorsys.rgb_to_hsv(0, 0, 1)[2] == 1
    with pytest.raises(ZeroDivisionError), needs_extra("table", "colours need colorsys"):
        raise ZeroDivisionError


def test_the_command_is_one_that_pip_understands():
    requirement = Requirement(install("video").removeprefix("pip install ").strip("'"))
    assert (requirement.name, requirement.extras) == ("diffusionpose", {"video"})


def named_extras(source: str) -> set[str]:
    """The extras that a file names as the cure."""
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    ours = [call for call in calls if getattr(call.func, "id", "") in {"install", "needs_extra"}]
    return {call.args[0].value for call in ours if isinstance(call.args[0], ast.Constant)}


def test_every_extra_that_is_named_is_one_that_there_is():
    assert named_extras("with needs_extra('nonsense', 'x'): install('y')") == {"nonsense", "y"}
    files = (ROOT / "src").rglob("*.py")
    named = {name for file in files for name in named_extras(file.read_text(encoding="utf-8"))}
    # the command line names an extra by the package that is missing, too
    assert named | {"hub"} == EXTRAS.keys() - {"dev", "docs"}
