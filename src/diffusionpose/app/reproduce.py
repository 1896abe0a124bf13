"""``diffusionpose reproduce``: the paper's ablations (section 4.4), trained, measured and drawn."""

import shlex
import sys
from dataclasses import dataclass
from functools import partial

from diffusionpose.app.options import make_folder, say
from diffusionpose.errors import needs_extra
from diffusionpose.training.studies import Request


@dataclass(frozen=True)
class ReproduceCommand(Request):
    """Reproduce a table or figure of section 4.4 of the paper on your data.

    Trains what is missing under OUTPUT/runs, measures it and writes OUTPUT/STUDY.md, STUDY.json and
    STUDY.png, the paper's numbers beside yours. The same command again goes on where it stopped; studies
    of one data set and budget share OUTPUT, and the trainings they have in common.
    """

    def run(self) -> int:
        """Train, measure, write; 0 if every row is there."""
        with needs_extra("train", "training needs PyTorch"):
            from diffusionpose.training.reproduce import reproduce

        make_folder(self.output)
        command = shlex.join(["diffusionpose", *sys.argv[1:]])
        files, failures = reproduce(self, partial(print, flush=True), command)
        print(*files, sep="\n")
        for failure in failures:
            say(failure)
        return 1 if failures else 0
