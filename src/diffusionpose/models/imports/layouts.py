"""How other projects name their weights, and the strict change of names into ours.

Every weight of a file must be placed or be left out for a reason that its layout states; every weight
of our model must be given.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from diffusionpose.errors import InputError

DEFAULT_SIZE = (192, 256)  # (width, height) of the network input, pixels: what most files are for
# red, green, blue in [0, 1]: all these projects normalise by them
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SHOWN = 12  # names listed of each kind of misfit
Tensors = Mapping[str, Tensor]
Size = tuple[int, int]  # (width, height) of the network input, pixels
Rules = tuple[tuple[str, str], ...]  # (pattern, replacement or reason)
Prepare = Callable[[Tensors, Size], Tensors]


def as_it_is(given: Tensors, size: Size) -> Tensors:
    """What most layouts need to be done to their weights before they are renamed: nothing."""
    return given


@dataclass(frozen=True)
class Layout:
    """The names of one project's weights of one family of networks.

    Attributes:
        title: the project and network, as messages call it.
        models: pattern of the names of our models that it becomes.
        marks: patterns, for each of which a file of this layout has a name.
        without: patterns for which it has none.
        names: (pattern, replacement): the first that fits a whole name gives ours.
        left_out: (pattern, reason) of names that have no place in our model, and why.
        prepare: changes weights, under their own names, before they are renamed.
        unbiased: whether the project trains this network in UDP geometry.
        bgr: whether it trains it on pictures in the order blue, green, red.
        encoder: whether these are weights of an encoder, without a pose head.
    """

    title: str
    models: str
    marks: tuple[str, ...]
    names: Rules
    without: tuple[str, ...] = ()
    left_out: Rules = ()
    prepare: Prepare = as_it_is
    unbiased: bool = False
    bgr: bool = False
    encoder: bool = False

    def fits(self, names: Sequence[str]) -> bool:
        """Whether a file of these names is of this layout; some may be missing or too many."""

        def has(pattern: str) -> bool:
            return any(re.match(pattern, name) for name in names)

        return all(map(has, self.marks)) and not any(map(has, self.without))


@dataclass
class Placed:
    """Weights of a file under our names.

    Attributes:
        tensors: our name -> (name in the file, weight).
        left_out: reason -> names in the file.
        left_over: names in the file that no rule knows.
        twice: names in the file whose place another one took.
    """

    tensors: dict[str, tuple[str, Tensor]] = field(default_factory=dict)
    left_out: dict[str, list[str]] = field(default_factory=dict)
    left_over: list[str] = field(default_factory=list)
    twice: list[str] = field(default_factory=list)

    def reasons(self) -> list[str]:
        """What was left out and why, one line for each reason."""
        return [f"left out: {len(names)} weights, {reason}" for reason, names in self.left_out.items()]


def place(given: Tensors, layout: Layout, size: Size) -> Placed:
    """Rename weights of a file by the rules of its layout, for a network input of a size."""
    placed = Placed()
    for name, value in layout.prepare(given, size).items():
        reason = next((why for pattern, why in layout.left_out if re.fullmatch(pattern, name)), None)
        rule = next((rule for rule in layout.names if re.fullmatch(rule[0], name)), None)
        if reason is not None:
            placed.left_out.setdefault(reason, []).append(name)
        elif rule is None:
            placed.left_over.append(name)
        else:
            ours = re.sub(*rule, name)
            if ours in placed.tensors:
                placed.twice.append(name)
            else:
                placed.tensors[ours] = (name, value)
    return placed


def fit(placed: Placed, own: Tensors, path: Path, what: str) -> dict[str, Tensor]:
    """Weights for ``own``, all of them and no others, as float32.

    BatchNorm's ``num_batches_tracked`` may be missing: older PyTorch did not write it and nothing reads
    it where BatchNorm has a fixed momentum, as here.

    Args:
        placed: from :func:`place`.
        own: the state of our module.
        path: of the file, for messages.
        what: as which what is loaded, for messages.

    Raises:
        InputError: weights missing, left over, of another shape or not finite; lists all kinds.
    """
    given = placed.tensors
    shapes = [
        f"{theirs} is {tuple(value.shape)}, must be {tuple(own[ours].shape)}"
        for ours, (theirs, value) in given.items()
        if ours in own and value.shape != own[ours].shape
    ]
    faults = {
        "missing (in our names)": [
            name for name in own if name not in given and not name.endswith("num_batches_tracked")
        ],
        "left over": placed.left_over + [theirs for ours, (theirs, _) in given.items() if ours not in own],
        "of another shape": shapes,
        "twice": placed.twice,
        "not finite": [theirs for theirs, value in given.values() if not torch.isfinite(value).all()],
    }
    if any(faults.values()):
        raise InputError(f"{path}: does not fit as {what}; {_listing(faults)}")
    return {ours: value.to(own[ours].dtype).contiguous() for ours, (_, value) in given.items()}


def _listing(faults: Mapping[str, Sequence[str]]) -> str:
    """Counts in one line, then a line of names for every kind."""
    kinds = {kind: names for kind, names in faults.items() if names}
    counts = ", ".join(f"{len(names)} {kind}" for kind, names in kinds.items())
    lines = [f"{counts}; is --as the right model?"]
    for kind, names in kinds.items():
        more = f", and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
        lines.append(f"  {kind}: {', '.join(names[:SHOWN])}{more}")
    return "\n".join(lines)
