"""``diffusionpose import-weights``: files of other projects become files of this one."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import FlagCreatePairsOff, Positional, arg

from diffusionpose.app.options import make_folder
from diffusionpose.errors import InputError

BY_FILE = "(default: what the file says, else how its project trains; said when done)"


@dataclass(frozen=True)
class ImportWeightsCommand:
    """Turn weights of another project into a file of this one.

    Reads .safetensors, .pth, .pt and .bin files of HRNet, SimpleBaseline and ViTPose from their own
    repositories, mmpose 0.x and 1.x and Hugging Face transformers (docs/import-weights.md lists them). A file
    with a pose head becomes a model for --weights; one without (ImageNet weights from timm and others) a file
    for --encoder-weights of `train`. Every weight must find its place: nothing is skipped in silence.
    """

    file: Positional[Annotated[Path, arg(metavar="FILE")]]
    """The other project's checkpoint."""
    as_: Annotated[str, arg(name="as", metavar="MODEL")]
    """The model it becomes, or for whose encoder it is; `diffusionpose models` lists them."""
    output: Annotated[Path, arg(metavar="OUT.safetensors")]
    """File to write."""
    skeleton: Annotated[str | None, arg(metavar="NAME", help_behavior_hint="(default: by the file)")] = None
    """Its joints: coco, crowdpose, aic or a YAML file; needed where several have their number."""
    input_size: Annotated[tuple[int, int] | None, arg(metavar="W H", help_behavior_hint=BY_FILE)] = None
    """Width and height of the network input, pixels."""
    unbiased: Annotated[bool, FlagCreatePairsOff, arg(help_behavior_hint=BY_FILE)] = False
    """It was trained in the unbiased geometry of UDP."""
    no_unbiased: Annotated[bool, FlagCreatePairsOff, arg(help_behavior_hint=BY_FILE)] = False
    """It was not trained in the unbiased geometry of UDP."""
    colours: Annotated[Literal["rgb", "bgr"] | None, arg(metavar="{rgb,bgr}", help_behavior_hint=BY_FILE)] = (
        None
    )
    """Order of the colours of the pictures it was trained on."""

    def run(self) -> int:
        """Read, convert, write, say what was done; 0."""
        if self.output.suffix != ".safetensors" or self.output.is_dir():
            raise InputError(f"--output {self.output}: name a .safetensors file")
        if self.output.exists() and self.file.exists() and self.output.samefile(self.file):
            raise InputError(f"{self.file}: would be overwritten by the result; name another --output")
        if self.unbiased and self.no_unbiased:
            raise InputError("--unbiased and --no-unbiased: give one of them")
        make_folder(self.output.parent)
        from diffusionpose.models.checkpoints import save_model
        from diffusionpose.models.imports.convert import ImportedModel, import_weights

        imported = import_weights(
            self.file,
            self.as_,
            skeleton=self.skeleton,
            input_size=self.input_size,
            unbiased=self.unbiased if self.unbiased or self.no_unbiased else None,
            bgr=None if self.colours is None else self.colours == "bgr",
        )
        print(f"{self.file}: {imported.layout}")
        for note in imported.notes:
            print(f"  {note}")
        if isinstance(imported, ImportedModel):
            save_model(imported.model, self.output, imported_from=self.file.name, layout=imported.layout)
            print(f"{self.output}: {self.as_}; use it by --weights {self.output}")
        else:
            imported.save(self.output)
            print(
                f"{self.output}: encoder weights of {self.as_}, no pose model; train with them by "
                f"--encoder-weights {self.output}"
            )
        return 0
