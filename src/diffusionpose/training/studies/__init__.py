"""Studies: what section 4.4 of the paper compares, as data; needs no torch.

A study is a list of variants of one training, each beside the paper's numbers (``study.py``), a
budget says how much is spent on each (``budgets.py``). ``training.reproduction`` does the work.
"""

from __future__ import annotations

from diffusionpose.training.studies.budgets import BUDGETS, Budget
from diffusionpose.training.studies.paper import STUDIES
from diffusionpose.training.studies.study import Planned, Study, Variant, plan

__all__ = ["BUDGETS", "STUDIES", "Budget", "Planned", "Study", "Variant", "plan"]
