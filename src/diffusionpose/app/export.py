"""``diffusionpose export``: a model as ONNX or OpenVINO."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import FlagCreatePairsOff, arg

from diffusionpose.app.options import Weights, counted, make_folder
from diffusionpose.errors import InputError, needs_extra


@dataclass(frozen=True)
class ExportCommand:
    """Write a model as ONNX or OpenVINO, for use without PyTorch and without this package.

    A single file takes uint8 crops and gives heatmaps, for any number of crops and a fixed number of
    diffusion steps; its metadata has the joints, sizes and geometry (docs/export.md). A folder gets two
    files, encoder.onnx and step.onnx, with which any number of steps and any start can be had. Each file is
    compared with PyTorch on random crops first and is not written where they differ. `predict` and `evaluate`
    take it as --weights. Needs an extra: pip install 'diffusionpose[export]', and 'diffusionpose[openvino]'
    for .xml.
    """

    output: Annotated[Path, arg(metavar="FILE.onnx|FILE.xml|FOLDER")]
    """File to write: .onnx, or .xml for OpenVINO, with its weights in a .bin beside it; or a folder."""
    weights: Weights = None
    steps: Annotated[int | None, arg(metavar="N", help_behavior_hint="(default: 1)")] = None
    """Diffusion steps, which a single file then always takes; 0 leaves the coarse heatmaps."""
    flip: FlagCreatePairsOff[bool] = False
    """Average with the mirrored picture inside the file: a little better, twice the time."""
    half: FlagCreatePairsOff[bool] = False
    """Store weights as float16 where that loses nothing."""
    opset: Annotated[int, arg(metavar="N")] = 18
    """Version of ONNX's operators, 18 to 23."""

    def run(self) -> int:
        """Export, compare, write, say what was done; 0."""
        if self.output.suffix not in ("", ".onnx", ".xml"):
            raise InputError(f"--output {self.output}: name an .onnx or .xml file, or a folder")
        make_folder(self.output if self.output.suffix == "" else self.output.parent)
        with needs_extra("export", "the export needs PyTorch"):
            from diffusionpose.models.checkpoints import load_model
            from diffusionpose.models.export import TOLERANCE, export_model
        model = load_model(self.weights)
        exported = export_model(model, self.output, self.steps, self.flip, self.opset, self.half)
        facts, parity, steps = exported.facts, exported.parity, exported.facts["steps"]
        (width, height), (w, h) = facts["input_size"], facts["heatmap_size"]
        inside = "" if steps is None else f", {counted(steps, 'diffusion step')}"
        inside += ", flip test inside" if facts["flip"] else ""
        megabytes = sum(file.stat().st_size for file in exported.files) / 1e6
        print(
            f"{exported.path}: {facts['model']}{inside}, {megabytes:.1f} MB\n"
            f"  images (batch, 3, {height}, {width}) uint8 RGB -> "
            f"heatmaps (batch, {len(facts['skeleton']['joints'])}, {h}, {w}) float32\n"
            f"  compared with PyTorch on {parity.crops} crops: {parity.difference:.1e} of the heatmaps' "
            f"height apart ({TOLERANCE:.0e} is allowed)"
        )
        if parity.ties:
            print(f"  {parity.ties} more were left out: two pixels share a heatmap's maximum up to rounding")
        print(f"  use it here by --weights {exported.path}")
        return 0
