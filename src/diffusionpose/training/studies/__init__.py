"""Studies: what section 4.4 of the paper compares, and one of our own, as data; needs no torch.

A study is a list of variants of one training, each beside the paper's numbers (``study.py``), a
budget says how much is spent on each (``budgets.py``). ``training.reproduction`` does the work.
"""

from __future__ import annotations

from diffusionpose.training.studies.budgets import BUDGETS, Budget
from diffusionpose.training.studies.heads import HEADS
from diffusionpose.training.studies.paper import PAPER_STUDIES
from diffusionpose.training.studies.study import Planned, Study, Variant, plan

STUDIES = {study.name: study for study in (*PAPER_STUDIES, HEADS)}

__all__ = ["BUDGETS", "STUDIES", "Budget", "Planned", "Study", "Variant", "plan"]
