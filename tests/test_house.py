"""The rules of the house: floors, light imports, small files, a quick command line, tidy code.

Each rule is also tried on something that breaks it, so that a check gone blind is noticed.
"""

import ast
import os
import shutil
import subprocess
import sys
import textwrap
import time
import tomllib
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src"
FILES = sorted(SOURCE.rglob("*.py"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
USERS_EXTRAS = PROJECT["optional-dependencies"].keys() - {"dev"}
HEAVY = ("torch", "torchvision", "cv2", "timm", "lightning", "tyro", "supervision", "scipy", "matplotlib")

MAX_FILE_LINES = 249
MAX_FUNCTION_LINES = 39
VAGUE_NAMES = {"utils", "util", "misc", "common", "helpers", "helper"}


def python(code: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """A fresh interpreter, so that nothing is imported yet."""
    command = [sys.executable, "-c", textwrap.dedent(code)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


def tool(name: str, *arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """A command of the environment that runs the tests."""
    command = [str(Path(sys.executable).with_name(name)), *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


# Floors


def check_floors(folder: Path) -> subprocess.CompletedProcess[str]:
    """import-linter on the package below ``folder``/src, by the contracts of ``folder``/pyproject.toml."""
    return python(
        f"""
        import sys
        sys.path.insert(0, {str(folder / "src")!r})
        from importlinter.cli import lint_imports
        sys.exit(lint_imports(no_cache=True, no_logo=True))
        """,
        cwd=folder,
    )


def test_floors_import_only_downwards() -> None:
    result = check_floors(ROOT)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize(
    ("file", "line", "complaint"),
    [
        (
            "poses.py",
            "from diffusionpose.geometry import crops",
            "diffusionpose.poses -> diffusionpose.geometry",
        ),
        ("skeletons.py", "import torch", "diffusionpose.skeletons -> torch"),
        ("poses.py", "import cv2", "diffusionpose.poses -> cv2"),
        ("data/images.py", "import tyro", "diffusionpose.data.images -> tyro"),
        ("models/zoo.py", "import lightning", "diffusionpose.models.zoo -> lightning"),
        (
            "evaluation/ap.py",
            "import diffusionpose.app.cli",
            "diffusionpose.evaluation.ap -> diffusionpose.app",
        ),
        ("inference/estimator.py", "import diffusionpose.training", "diffusionpose.inference.estimator -> "),
        ("training/settings.py", "import diffusionpose.inference", "diffusionpose.training.settings -> "),
        ("attic.py", "import math", "not listed as layers"),
    ],
)
def test_a_broken_floor_is_found(file: str, line: str, complaint: str, tmp_path: Path) -> None:
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    shutil.copytree(SOURCE, tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__", "*.safetensors"))
    with (tmp_path / "src" / "diffusionpose" / file).open("a") as broken:
        broken.write(f"\n{line}\n")
    result = check_floors(tmp_path)
    assert result.returncode == 1, result.stdout + result.stderr
    assert complaint in result.stdout


# Imports


def loaded_by(statement: str) -> set[str]:
    """Top-level modules in memory after ``statement`` in a fresh interpreter."""
    result = python(f"{statement}\nimport sys\nprint(*{{name.partition('.')[0] for name in sys.modules}})")
    assert result.returncode == 0, result.stderr
    return set(result.stdout.split())


@pytest.mark.parametrize("module", ["errors", "skeletons", "poses"])
def test_floors_1_and_2_come_without_torch(module: str) -> None:
    assert loaded_by(f"import diffusionpose.{module}").isdisjoint(HEAVY)


def test_the_package_alone_brings_nothing() -> None:
    assert loaded_by("import diffusionpose").isdisjoint({*HEAVY, "numpy", "yaml", "PIL"})
    assert "torch" in loaded_by("import diffusionpose.diffusion"), "the check itself sees torch"


def test_public_names_come_when_asked_for() -> None:
    code = """
        import diffusionpose
        for name in diffusionpose.__all__:
            assert name in dir(diffusionpose)
            assert getattr(diffusionpose, name).__name__ == name
        assert diffusionpose.__version__.count(".") == 2
        try:
            diffusionpose.nonsense
        except AttributeError as error:
            assert "nonsense" in str(error)
        else:
            raise SystemExit("an unknown name was found")
        from diffusionpose import Pose, PoseEstimator, Skeleton, create_model, load_model
    """
    result = python(code)
    assert result.returncode == 0, result.stderr


def test_importing_every_module_has_no_side_effects(tmp_path: Path) -> None:
    modules = [".".join(file.relative_to(SOURCE).with_suffix("").parts) for file in FILES]
    modules = [name.removesuffix(".__init__") for name in modules]
    code = f"""
        import importlib, logging, os, random, sys, warnings
        import numpy, torch
        import cv2, faster_coco_eval, lightning, supervision, timm  # what these do on import is theirs

        def state():
            return (
                dict(os.environ), os.getcwd(), list(warnings.filters), numpy.random.get_state()[1].tolist(),
                torch.random.get_rng_state().tolist(), torch.get_num_threads(), torch.get_default_dtype(),
                torch.backends.cudnn.benchmark, random.getstate(),
                list(logging.root.handlers), logging.root.level,
            )

        before = state()
        for name in {modules}:
            importlib.import_module(name)
        assert state() == before, "importing changed the state of the process"
    """
    result = python(code, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stdout == ""
    assert list(tmp_path.iterdir()) == []


def imported(tree: ast.AST) -> Iterator[str]:
    """Top-level packages a file imports, wherever the statement stands."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


def names_of(requirements: list[str]) -> set[str]:
    return {canonicalize_name(Requirement(text).name) for text in requirements}


@cache
def homes() -> Mapping[str, list[str]]:
    """Imported name -> names on PyPI; asked once, since it reads the files of every package there is."""
    return packages_distributions()


def not_stated(source: str, stated: set[str]) -> set[str]:
    """Packages that a file imports and ``stated``, names on PyPI, does not have."""
    names = set(imported(ast.parse(source))) - {*sys.stdlib_module_names, "diffusionpose"}
    found = {name: {canonicalize_name(home) for home in homes().get(name, [])} for name in names}
    return {name for name in names if not stated & found[name]}


def imported_at_once(tree: ast.Module) -> str:
    """The file without what its functions import when they are called, and what only type checkers import."""
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = [ast.Pass()]
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            node.body = [ast.Pass()]
    return ast.unparse(tree)


def test_every_import_is_a_stated_dependency() -> None:
    """In ``dependencies``, or in an extra for users and then only inside functions."""
    required = names_of(PROJECT["dependencies"])
    extras = {name for extra in USERS_EXTRAS for name in names_of(PROJECT["optional-dependencies"][extra])}
    assert "torch" in required
    assert "onnxruntime" in extras - required
    missing = {name for file in FILES for name in not_stated(file.read_text(), required | extras)}
    assert not missing, f"imported by the package, absent from pyproject.toml: {sorted(missing)}"
    for file in FILES:
        at_once = not_stated(imported_at_once(ast.parse(file.read_text())), required)
        assert not at_once, f"{file}: imports {sorted(at_once)}, an extra, outside a function"


def test_an_import_that_is_not_stated_is_found() -> None:
    lazily = "import numpy\ndef f():\n    import onnxruntime\nif TYPE_CHECKING:\n    import pandas\n"
    assert not_stated(lazily, {"numpy"}) == {"onnxruntime", "pandas"}
    assert not_stated(lazily, {"numpy", "onnxruntime", "pandas"}) == set()
    assert not_stated(imported_at_once(ast.parse(lazily)), {"numpy"}) == set()
    assert not_stated(imported_at_once(ast.parse("import onnxruntime")), {"numpy"}) == {"onnxruntime"}


def test_developers_have_every_extra() -> None:
    """The tests use them all."""
    given = [Requirement(text) for text in PROJECT["optional-dependencies"]["dev"]]
    ours = [requirement for requirement in given if requirement.name == PROJECT["name"]]
    assert {extra for requirement in ours for extra in requirement.extras} == USERS_EXTRAS


# Size


def too_long(source: str, name: str) -> list[str]:
    """Complaints about a file of too many lines and functions of too many, docstrings included."""
    complaints = []
    lines = len(source.splitlines())
    if lines > MAX_FILE_LINES:
        complaints.append(f"{name}: {lines} lines")
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if lines > MAX_FUNCTION_LINES:
                complaints.append(f"{name}:{node.lineno} {node.name}: {lines} lines")
    return complaints


def test_files_and_functions_are_short() -> None:
    assert len(FILES) > 20
    complaints = [text for file in FILES for text in too_long(file.read_text(), str(file.relative_to(ROOT)))]
    assert not complaints, "\n".join(complaints)


def test_a_long_file_and_a_long_function_are_found() -> None:
    function = "def f():\n" + "    pass\n" * MAX_FUNCTION_LINES
    assert too_long(function, "long.py") == ["long.py:1 f: 40 lines"]
    assert too_long(function.replace("    pass\n", "", 1), "fits.py") == []
    assert too_long("\n" * 250, "long.py") == ["long.py: 250 lines"]
    assert too_long("class A:\n    " + function.replace("\n", "\n    ").rstrip(), "a.py") == [
        "a.py:2 f: 40 lines"
    ]


def test_names_say_what_is_inside() -> None:
    parts = {part for file in FILES for part in file.relative_to(SOURCE).with_suffix("").parts}
    assert "skeletons" in parts
    assert parts.isdisjoint(VAGUE_NAMES)


# Command line and tools


def test_help_takes_under_a_second() -> None:
    waited, computed = [], []
    for _ in range(3):
        before, start = os.times(), time.perf_counter()
        result = tool("diffusionpose", "--help")
        waited.append(time.perf_counter() - start)
        after = os.times()
        computed.append(
            after.children_user - before.children_user + after.children_system - before.children_system
        )
        assert result.returncode == 0, result.stderr
        words = set(result.stdout.replace(",", " ").split())
        assert {"predict", "train", "evaluate", "models", "demo"} <= words
    assert min(computed) < 1.0, f"best of three: {min(computed):.2f} s of computing"
    # Time on the clock means something only while there is a core to run on.
    if os.getloadavg()[0] < (os.cpu_count() or 1):
        assert min(waited) < 1.0, f"best of three: {min(waited):.2f} s"


def test_the_command_line_alone_brings_only_its_parser() -> None:
    loaded = loaded_by("import diffusionpose.app.cli")
    assert "tyro" in loaded
    assert loaded.isdisjoint({*HEAVY, "numpy"} - {"tyro"})


def test_ruff_is_content() -> None:
    result = tool("ruff", "check", "--no-cache", "--output-format=concise", ".")
    assert result.returncode == 0, result.stdout
    result = tool("ruff", "format", "--no-cache", "--check", ".")
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize(
    ("code", "rule"),
    [
        ("import os\n", "F401"),
        ("def f(a, b, c, d, e, f, g, h, i): ...\n", "PLR0913"),
        ("def shown(): ...\n", "D103"),
        ("print(1)\n", "T201"),
    ],
)
def test_ruff_finds(code: str, rule: str) -> None:
    command = [str(Path(sys.executable).with_name("ruff")), "check", "--no-cache", "--output-format=concise"]
    command += ["--stdin-filename", "src/diffusionpose/broken.py", "-"]
    result = subprocess.run(command, cwd=ROOT, input=code, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert rule in result.stdout


def test_bundled_weights_are_small_and_no_pickles() -> None:
    """Files that are no Python: the type marker and models in safetensors, 25 MB at most each."""
    others = [
        f for f in (SOURCE / "diffusionpose").rglob("*") if f.is_file() and "__pycache__" not in f.parts
    ]
    others = [file for file in others if file.suffix != ".py"]
    assert SOURCE / "diffusionpose" / "py.typed" in others
    for file in others:
        assert file.suffix in {".safetensors", ".typed", ".json", ".md", ".yaml"}, file
        assert file.stat().st_size <= 25e6, file


def test_the_licence_is_whole_and_stated() -> None:
    assert PROJECT["license"] == "Apache-2.0"
    text = (ROOT / "LICENSE").read_text()
    assert "Version 2.0, January 2004" in text
    assert "END OF TERMS AND CONDITIONS" in text
