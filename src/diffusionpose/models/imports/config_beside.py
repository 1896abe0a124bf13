"""What ``config.json`` in the folder of a file says: timm and Hugging Face put their models' facts there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from diffusionpose.errors import InputError

Triple = tuple[float, float, float]


def read_config(path: Path) -> dict[str, Any]:
    """The entries of ``config.json`` beside a file; none where there is no such file.

    Most files come alone, and a ``config.json`` may be anybody's: one that cannot be read is nobody's.
    """
    try:
        content = json.loads((path.parent / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def timm_normalisation(path: Path, architecture: str) -> tuple[Triple, Triple] | None:
    """(mean, std) of RGB in [0, 1], of timm's entry ``pretrained_cfg``; None where there is none.

    Args:
        path: of the weights, beside which ``config.json`` lies.
        architecture: what it must be about, as timm names it.

    Raises:
        InputError: the entry is there and cannot be understood.
    """
    config = read_config(path)
    facts = config.get("pretrained_cfg")
    if (
        config.get("architecture") != architecture
        or not isinstance(facts, dict)
        or not {"mean", "std"} <= facts.keys()
    ):
        return None
    try:
        (m_0, m_1, m_2), (s_0, s_1, s_2) = facts["mean"], facts["std"]
        return (float(m_0), float(m_1), float(m_2)), (float(s_0), float(s_1), float(s_2))
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{path.parent / 'config.json'}: mean and std of pretrained_cfg must be three numbers each; "
            "mend them, or move the weights to a folder of their own"
        ) from error


def vitpose_facts(path: Path) -> tuple[tuple[int, int] | None, int | None]:
    """Of transformers' ViTPose: (width, height) of the input, and attention heads; None what is not said.

    The number of heads does not show in the weights.
    """
    config = read_config(path)
    backbone = config.get("backbone_config")
    if config.get("model_type") != "vitpose" or not isinstance(backbone, dict):
        return None, None
    size, heads = backbone.get("image_size"), backbone.get("num_attention_heads")
    pair = (int(size[1]), int(size[0])) if isinstance(size, list) and len(size) == 2 else None
    return pair, heads if isinstance(heads, int) else None
