import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

import pytest

from diffusionpose.app import cli, predict
from diffusionpose.errors import InputError

Run = Callable[..., tuple[int, str, str]]


def test_help_names_every_command(run: Run) -> None:
    status, out, err = run("--help")
    assert (status, err) == (0, "")
    for name, summary in cli.COMMANDS.items():
        assert name in out
        assert summary in out


def test_help_needs_none_of_the_heavy_packages() -> None:
    code = """
        import sys
        from diffusionpose.app.cli import main
        try:
            main(["--help"])
        except SystemExit:
            heavy = {"torch", "cv2", "numpy", "lightning", "timm", "supervision"}
            print(*heavy & set(sys.modules), file=sys.stderr)
    """
    ended = subprocess.run([sys.executable, "-c", dedent(code)], capture_output=True, text=True, check=True)
    assert "predict" in ended.stdout
    assert ended.stderr.strip() == ""


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_every_command_explains_itself(run: Run, command: str) -> None:
    status, out, err = run(command, "--help")
    assert (status, err) == (0, "")
    assert f"usage: diffusionpose {command}" in out


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["predikt"],
        ["predict"],
        ["predict", "a.jpg"],
        ["predict", "--output", "o"],
        ["predict", "a.jpg", "--output", "o", "--steps", "many"],
        ["predict", "a.jpg", "--output", "o", "--decode", "median"],
        ["predict", "a.jpg", "--output", "o", "--detector", "whole", "--boxes", "b"],
        ["evaluate", "--images", "i", "--output", "o"],
        ["evaluate", "--images=i", "--annotations=a", "--output=o", "--mean-pose=m", "--boxes=b"],
    ],
)
def test_arguments_that_do_not_parse_exit_with_2(
    run: Run, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    status, out, err = run(*words)
    assert status == 2
    assert err
    assert out == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("told", [None, "5"])
def test_threads_spin_for_a_short_time_unless_told_otherwise(
    run: Run, monkeypatch: pytest.MonkeyPatch, told: str | None
) -> None:
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    if told:
        monkeypatch.setenv("GOMP_SPINCOUNT", told)
    run("evaluate", "--images", "nowhere", "--annotations", "nowhere.json", "--output", "out")
    assert os.environ["GOMP_SPINCOUNT"] == (told or "1000")


def test_the_version_is_printed(run: Run) -> None:
    status, out, _ = run("--version")
    assert status == 0
    assert out.startswith("diffusionpose 0.")
    words = [sys.executable, "-m", "diffusionpose", "--version"]
    assert subprocess.run(words, capture_output=True, text=True).stdout == out


def raising(error: BaseException) -> Callable[..., int]:
    def run(self: object) -> int:
        raise error

    return run


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (InputError("a.jpg: no such file"), 1, "diffusionpose: a.jpg: no such file\n"),
        (PermissionError(13, "Permission denied", "a"), 1, "diffusionpose: a: Permission denied\n"),
        (OSError(28, "No space left on device"), 1, "diffusionpose: No space left on device\n"),
        (KeyboardInterrupt(), 130, "\ndiffusionpose: stopped\n"),
        (
            ZeroDivisionError("by zero"),
            1,
            "diffusionpose: internal error, ZeroDivisionError: by zero (run again",
        ),
        (
            ImportError("libGL.so.1: cannot open shared object file"),
            1,
            "diffusionpose: OpenCV does not start (libGL.so.1: cannot open shared object file): a package",
        ),
        (MemoryError("8 GiB"), 1, "diffusionpose: out of memory (8 GiB); try a smaller --batch-size\n"),
    ],
)
def test_an_error_is_one_message(
    run: Run, monkeypatch: pytest.MonkeyPatch, error: BaseException, status: int, message: str
) -> None:
    monkeypatch.setattr(predict.PredictCommand, "run", raising(error))
    ended = run("predict", "a.jpg", "--output", "o")
    assert ended[0] == status
    assert ended[2].startswith(message)
    assert ended[2].strip().count("\n") == 0


def test_debug_shows_the_traceback(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predict.PredictCommand, "run", raising(InputError("bad")))
    with pytest.raises(InputError):
        run("predict", "a.jpg", "--output", "o", "--debug")
    monkeypatch.setenv("DIFFUSIONPOSE_DEBUG", "1")
    with pytest.raises(InputError):
        run("predict", "a.jpg", "--output", "o")
    monkeypatch.setenv("DIFFUSIONPOSE_DEBUG", "0")
    assert run("predict", "a.jpg", "--output", "o")[0] == 1


def printing(characters: int, stdout: int) -> tuple[int, str]:
    """Exit status and stderr of a command that prints so much, buffered as Python does it by itself."""
    code = "from diffusionpose.app import cli, predict\n"
    code += f"predict.DemoCommand.run = lambda self: print('x' * {characters}) or 0\n"
    code += "raise SystemExit(cli.main(['demo']))"
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    ended = subprocess.run(
        [sys.executable, "-c", code], stdout=stdout, stderr=subprocess.PIPE, text=True, env=variables
    )
    return ended.returncode, ended.stderr


@pytest.mark.parametrize("characters", [10, 100_000])  # less and more than Python's buffer
def test_a_closed_pipe_ends_quietly(characters: int) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    assert printing(characters, writer) == (1, "")
    os.close(writer)


def test_closed_streams_are_no_obstacle(tmp_path: Path) -> None:
    code = "import sys; from diffusionpose.app import cli, options, predict\n"
    code += "def run(self): print('out'); options.say('err'); open(sys.argv[1], 'w').close(); return 0\n"
    code += "predict.DemoCommand.run = run\n"
    code += "raise SystemExit(cli.main(['demo']))"
    words = [sys.executable, "-c", code, str(tmp_path / "done")]
    assert subprocess.run(["sh", "-c", 'exec "$@" >&- 2>&-', "sh", *words]).returncode == 0
    assert (tmp_path / "done").read_bytes() == b""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
@pytest.mark.parametrize("characters", [10, 100_000])
def test_a_full_disk_is_one_message(characters: int) -> None:
    with open("/dev/full", "w") as full:
        assert printing(characters, full.fileno()) == (1, "diffusionpose: No space left on device\n")
