"""By which mean and deviation the pictures of a timm backbone were normalised."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from diffusionpose.errors import InputError

Triple = tuple[float, float, float]


def beside_timm_weights(path: Path) -> tuple[Triple, Triple] | None:
    """(mean, std) of RGB in [0, 1] as ``config.json`` beside the file says; None where it does not.

    timm's folders on the hub hold ``model.safetensors`` and ``config.json``; the latter's entry
    ``pretrained_cfg`` tells how pictures were normalised.

    Raises:
        InputError: the entry is there and cannot be understood.
    """
    try:
        content: Any = json.loads((path.parent / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None  # most files come alone, and a config.json may be anybody's
    facts = content.get("pretrained_cfg") if isinstance(content, dict) else None
    if not isinstance(facts, dict) or not {"mean", "std"} <= facts.keys():
        return None
    try:
        (m_0, m_1, m_2), (s_0, s_1, s_2) = facts["mean"], facts["std"]
        return (float(m_0), float(m_1), float(m_2)), (float(s_0), float(s_1), float(s_2))
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{path.parent / 'config.json'}: mean and std of pretrained_cfg must be three numbers each; "
            "mend them, or move the weights to a folder of their own"
        ) from error
