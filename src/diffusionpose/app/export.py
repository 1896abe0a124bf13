"""``diffusionpose export``: a model as ONNX or OpenVINO."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import FlagCreatePairsOff, arg

from diffusionpose.app.options import Weights, make_folder
from diffusionpose.errors import InputError

if TYPE_CHECKING:
    from diffusionpose.models.export import Exported


@dataclass(frozen=True)
class ExportCommand:
    """Write a model as ONNX or OpenVINO, for use without PyTorch and without this package.

    The file takes uint8 crops and gives heatmaps, for any number of crops; its metadata has the joints, sizes
    and geometry (docs/export.md). It is compared with PyTorch on random crops first and is not written
    where they differ. `predict` and `evaluate` take it as --weights.
    Needs an extra: pip install 'diffusionpose[export]', and 'diffusionpose[openvino]' for .xml.
    """

    output: Annotated[Path, arg(metavar="FILE.onnx|.xml")]
    """File to write: .onnx, or .xml for OpenVINO, with its weights in a .bin beside it."""
    weights: Weights = None
    steps: Annotated[int | None, arg(metavar="N", help_behavior_hint="(default: 1)")] = None
    """Diffusion steps, which the file then always takes; 0 leaves the coarse heatmaps."""
    flip: FlagCreatePairsOff[bool] = False
    """Average with the mirrored picture inside the file: a little better, twice the time."""
    opset: Annotated[int, arg(metavar="N")] = 18
    """Version of ONNX's operators, 18 to 23."""

    def run(self) -> int:
        """Export, compare, write, say what was done; 0."""
        if self.output.suffix not in (".onnx", ".xml") or self.output.is_dir():
            raise InputError(f"--output {self.output}: name an .onnx or .xml file")
        make_folder(self.output.parent)
        from diffusionpose.models.checkpoints import load_model
        from diffusionpose.models.export import export_model

        for line in _lines(
            export_model(load_model(self.weights), self.output, self.steps, self.flip, self.opset)
        ):
            print(line)
        return 0


def _lines(exported: Exported) -> list[str]:
    """What a file holds, and how it compares."""
    from diffusionpose.models.export import TOLERANCE

    facts, parity = exported.facts, exported.parity
    (width, height), (w, h) = facts["input_size"], facts["heatmap_size"]
    inside = (
        "" if facts["steps"] is None else f", {facts['steps']} diffusion step{'s' * (facts['steps'] != 1)}"
    )
    inside += ", flip test inside" if facts["flip"] else ""
    lines = [
        f"{exported.path}: {facts['model']}{inside}, {_megabytes(exported.path):.1f} MB",
        f"  images (batch, 3, {height}, {width}) uint8 RGB -> "
        f"heatmaps (batch, {len(facts['skeleton']['joints'])}, {h}, {w}) float32",
        f"  compared with PyTorch on {parity.crops} crops: {parity.end_to_end:.1e} of the heatmaps' height "
        f"apart, each step alone {parity.difference:.1e} ({TOLERANCE:.0e} is allowed)",
    ]
    if parity.ties:
        lines.append(
            f"  in {parity.ties} of them two pixels share a heatmap's maximum up to rounding: there a mask "
            "lies elsewhere, and only each step alone is comparable"
        )
    return [*lines, f"  use it here by --weights {exported.path}"]


def _megabytes(path: Path) -> float:
    """Of a file, and of the weights beside an OpenVINO one."""
    files = [path, path.with_suffix(".bin")] if path.suffix == ".xml" else [path]
    return sum(file.stat().st_size for file in files) / 1e6
