"""``diffusionpose models``: what there is to train and to use, and what it costs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

from diffusionpose.skeletons import COCO, SKELETONS, Skeleton, get_skeleton

# (million parameters, giga multiply-adds) as Table 2 prints them; Table 3 and 4 give no cost
PAPER = {
    "diffusionpose_w32_256x192_coco": (38, 14),
    "diffusionpose_w32_384x288_coco": (38, 31),
    "diffusionpose_w48_256x192_coco": (74, 22),
    "diffusionpose_w48_384x288_coco": (74, 49),
    "hrnet_w32_256x192_coco": (29, 8),
    "hrnet_w32_384x288_coco": (29, 18),
    "hrnet_w48_256x192_coco": (64, 16),
    "hrnet_w48_384x288_coco": (64, 36),
    "hrnet_w32_dark_384x288_coco": (29, 18),
    "hrnet_w48_dark_384x288_coco": (64, 36),
    "hrnet_w32_udp_dark_384x288_coco": (29, 16),
    "hrnet_w48_udp_dark_384x288_coco": (64, 36),
    "simplebaseline_r152_256x192_coco": (68, 29),
}
HEADER = "{:46}    input  joints  params  mult-adds   paper (Table 2)"


@dataclass(frozen=True)
class Row:
    """A model or recipe and its cost.

    Attributes:
        kind: "recipe", "model" or "bundled".
        name: as the command line takes it.
        input_size: (width, height), pixels.
        joints: how many heatmaps.
        parameters: in millions.
        multiply_adds: in billions, of one person: one pass, one diffusion step, no flip test.
        paper_parameters, paper_multiply_adds: what Table 2 prints, in the same units.
    """

    kind: str
    name: str
    input_size: tuple[int, int]
    joints: int
    parameters: float
    multiply_adds: float
    paper_parameters: float | None = None
    paper_multiply_adds: float | None = None


@dataclass(frozen=True)
class ModelsCommand:
    """List every recipe, model and bundled model: parameters and multiply-adds, beside the paper's.

    Multiply-adds are those of one person: one pass through the network with one diffusion step and
    without the flip test, which doubles them.
    """

    json: bool = False
    """Print a JSON list instead of the table."""

    def run(self) -> int:
        """Print; 0."""
        if self.json:
            print(json.dumps([asdict(row) for row in rows()], indent=2))
            return 0
        kind = ""
        for row in rows():
            if row.kind != kind:
                kind = row.kind
                print(("" if kind == "recipe" else "\n") + HEADER.format(f"{kind.upper()}"))
            print(_line(row), flush=True)
        print("\nGive a recipe to `diffusionpose train`, a bundled model to --weights.")
        return 0


def rows() -> Iterator[Row]:
    """Recipes, then models with their default options, then bundled models."""
    from diffusionpose.models.weights import bundled_models, load_model
    from diffusionpose.models.zoo import MODELS
    from diffusionpose.training.recipes import RECIPES

    for name, recipe in RECIPES.items():
        made = recipe()
        options = {**made.options, "unbiased": made.unbiased, "input_size": made.input_size}
        yield _row("recipe", name, made.model, get_skeleton(made.skeleton), options)
    for name in MODELS:
        yield _row("model", name, name, COCO, {"input_size": (192, 256)})
    for name in bundled_models():
        config = load_model(name).config
        yield _row("bundled", name, config["name"], Skeleton.from_dict(config["skeleton"]), config["options"])


def _row(kind: str, name: str, model: str, skeleton: Skeleton, options: dict[str, Any]) -> Row:
    width, height = options["input_size"]
    # limbs, sigmas and the geometry of crops and targets cost nothing: rows that differ so share an answer
    alike = next((known for known in SKELETONS.values() if known.num_joints == skeleton.num_joints), skeleton)
    given = {"stride": 4, **options, "unbiased": False, "quantise": False}
    parameters, multiply_adds = _cost(model, alike, json.dumps(given, sort_keys=True))
    paper = PAPER.get(name, (None, None))
    return Row(kind, name, (width, height), skeleton.num_joints, parameters, multiply_adds, *paper)


@cache
def _cost(model_name: str, skeleton: Skeleton, options: str) -> tuple[float, float]:
    """Million parameters and giga multiply-adds, on the meta device: shapes without numbers, so quick."""
    import torch

    from diffusionpose.models.costs import count_multiply_adds, count_parameters
    from diffusionpose.models.zoo import create_model

    with torch.device("meta"):
        model = create_model(model_name, skeleton, **json.loads(options))
        return round(count_parameters(model) / 1e6, 2), round(count_multiply_adds(model) / 1e9, 2)


def _line(row: Row) -> str:
    width, height = row.input_size
    digits = 1 if row.multiply_adds >= 1 else 2
    size, cost = f"{height}x{width}", f"{row.parameters:.1f} M{row.multiply_adds:9.{digits}f} G"
    paper = ""
    if row.paper_parameters is not None:
        paper = f"{row.paper_parameters:.0f} M {row.paper_multiply_adds:3.0f} G"
    return f"{row.name:46}{size:>9}{row.joints:>8}{cost:>20}   {paper}".rstrip()
