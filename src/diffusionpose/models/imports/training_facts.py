"""What the settings of a training, which mmpose writes into its checkpoints as text, say about a model."""

from __future__ import annotations

import re

SIZE = r"\b(?:image_size|input_size)\s*=\s*[\[(]\s*(\d+)\s*,\s*(\d+)\s*[\])]"
UDP = r"\buse_udp['\"]?\s*[=:]\s*True\b|\bUDPHeatmap\b"
OFFSETS = r"CombinedTarget|heatmap_type\s*=\s*['\"]combined['\"]"


def unbiased(settings: str) -> bool | None:
    """Whether they cut crops in UDP geometry; None without settings.

    ``unbiased_encoding`` and ``post_process='unbiased'`` are DARK, which is another thing.
    """
    return bool(re.search(UDP, settings)) if settings else None


def with_offsets(settings: str) -> bool:
    """Whether they train UDP's combined target: a heatmap and two maps of offsets for each joint."""
    return bool(re.search(OFFSETS, settings))


def input_size(settings: str) -> tuple[int, int] | None:
    """(width, height) of the network's input, pixels; None where they do not say or name several."""
    sizes = {(int(width), int(height)) for width, height in re.findall(SIZE, settings)}
    return sizes.pop() if len(sizes) == 1 else None
