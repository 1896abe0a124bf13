"""The command line: which sub-commands there are, and how a run ends.

Exit status 0: everything asked for was done. 1: something was not, and stderr says what and the cure.
2: the arguments do not parse, or do not go together. 130: stopped by Ctrl-C.
"""

import logging
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from typing import Annotated, Any, Protocol, Union

import tyro

from diffusionpose.errors import InputError, UsageError, install

# What `diffusionpose --help` says of each. The command import-weights is ImportWeightsCommand of
# app/import_weights.py. Only the module of the command that is called gets imported: this is what keeps
# --help under a second.
COMMANDS = {
    "predict": "Find the poses of the people in pictures.",
    "video": "Find and follow people in a video.",
    "refine": "Refine the poses of another model, or clicks.",
    "train": "Train a model by a recipe, or resume.",
    "evaluate": "Measure a model on an annotated data set.",
    "calibrate": "Fit the confidence of a model, on pictures with labels.",
    "train-people": "Train the people finder, or resume.",
    "evaluate-people": "Measure the people finder.",
    "compare": "Compare two results on the same pictures.",
    "reproduce": "Reproduce the paper's ablations.",
    "import-weights": "Turn weights of other projects into ours.",
    "export": "Write a model as ONNX or OpenVINO.",
    "data": "Check, audit or pack a data set for training.",
    "models": "List models and recipes with their cost.",
    "web": "Serve a page for poses in the browser.",
    "benchmark": "Measure the speed of everything on this machine.",
    "demo": "Pose two pictures that are always at hand.",
}
MODULES = {  # others are called as their command
    **{"web": "web.server", "demo": "predict"},
    **{"train-people": "people", "evaluate-people": "people"},
}
# package -> the extra that brings it; the light install has none of them
EXTRAS = {
    **dict.fromkeys(("torch", "torchvision", "timm", "safetensors", "matplotlib"), "train"),
    **dict.fromkeys(("faster_coco_eval", "tensorboard"), "train"),
    **dict.fromkeys(("onnx", "onnxscript"), "export"),
    **dict.fromkeys(("av", "trackers"), "video"),
    **{name: name for name in ("openvino", "ray", "supervision")},
    **{"gradio": "web", "huggingface_hub": "hub", "pandas": "table", "transformers": "detect"},
}
DESCRIPTION = """2D human pose estimation with DiffusionPose (arXiv 2306.17074).

`diffusionpose COMMAND --help` explains a command. --debug (or DIFFUSIONPOSE_DEBUG=1 in the environment)
shows the full traceback of an error; --version prints the version."""


class Command(Protocol):
    """What a sub-command is: a frozen dataclass that tyro fills."""

    def run(self) -> int:
        """Do the job; the exit status."""


@dataclass(frozen=True)
class _NotCalled:
    """Stands in the parser for a command that this call does not use."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``diffusionpose`` with arguments, None for those of the process; returns the exit status.

    The parser raises SystemExit: 0 after ``--help``, 2 where the arguments do not parse.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # `diffusionpose ... >&-`
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w"))
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words or os.environ.get("DIFFUSIONPOSE_DEBUG", "0") not in ("", "0")
    words = [word for word in words if word != "--debug"]
    if words == ["--version"]:
        print(f"diffusionpose {version('diffusionpose')}")
        return 0
    # PyTorch's threads wait for each other by spinning. On two cores that two other programs wanted, a
    # training by two threads was 20 times slower by default than with this, which costs 5 % on free ones.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    # commands report themselves what the data floor logs; unhandled, it would come a second time
    logging.getLogger("diffusionpose").addHandler(logging.NullHandler())
    try:
        status = _parse(words).run()
        sys.stdout.flush()  # here, where a full disk or a closed pipe still gets an answer
        return status
    except KeyboardInterrupt:
        print("\ndiffusionpose: stopped", file=sys.stderr)
        return 130  # 128 + SIGINT, as shells count
    except BrokenPipeError:  # `diffusionpose models | head` has read enough
        return 1
    except Exception as error:
        if debug:
            raise
        print(f"diffusionpose: {_explain(error)}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1
    finally:
        _give_up_output()


def _give_up_output() -> None:
    """Drop what stdout does not take, at which the interpreter would complain on its way out."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _parse(words: Sequence[str]) -> Command:
    """The command that the words ask for, filled."""
    choices: list[Any] = []
    for name, summary in COMMANDS.items():
        choice: Any = _NotCalled
        details = tyro.conf.subcommand(name, description=summary)
        if words and words[0] == name:
            module = import_module(f"diffusionpose.app.{MODULES.get(name, name.replace('-', '_'))}")
            choice = getattr(module, name.title().replace("-", "") + "Command")
            details = tyro.conf.subcommand(name)
        choices.append(Annotated[choice, details])
    commands: Any = Union[tuple(choices)]  # noqa: UP007 (built at run time)
    command: Command = tyro.cli(commands, prog="diffusionpose", description=DESCRIPTION, args=list(words))
    return command


def _explain(error: Exception) -> str:
    """One readable message for an error that ended the run."""
    if isinstance(error, InputError):
        return str(error)
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror or error}"
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return f"out of memory ({error}); try a smaller --batch-size"
    if isinstance(error, ModuleNotFoundError) and (package := (error.name or "").partition(".")[0]) in EXTRAS:
        return f"this command needs {package}; install it: {install(EXTRAS[package])}"
    if isinstance(error, ImportError) and "libGL" in str(error):
        return (
            f"OpenCV does not start ({error}): a package brought opencv-python, which needs a desktop; cure: "
            "pip uninstall -y opencv-python opencv-python-headless; pip install opencv-python-headless"
        )
    return f"internal error, {type(error).__name__}: {error} (run again with --debug to see where)"


if __name__ == "__main__":
    sys.exit(main())
