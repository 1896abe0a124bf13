"""``diffusionpose data pack``: cut the persons of a data set out once, so that training reads them faster."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from tyro.conf import arg

from diffusionpose.app.options import File, Folder, Joints, Output, counted, progress_of, say
from diffusionpose.skeletons import get_skeleton


@dataclass(frozen=True)
class PackCommand:
    """Cut every labelled person out of its picture, with the margin that augmentation needs.

    Training takes the folder in the place of the pictures and their file: --images OUTPUT --annotations
    OUTPUT/annotations.json. The same command again does an interrupted run over.
    """

    images: Folder
    """Folder of the training images."""
    annotations: File
    """Training annotations (COCO form or AI Challenger's own)."""
    output: Output
    skeleton: Joints = None
    """Joints of the training, where the file has more: coco, crowdpose, aic or a YAML file."""
    input_size: tuple[int, int] = (192, 256)
    """Width and height of the network input; also others of its shape can be trained on."""
    scale: float = 0.35
    """Largest change of a person's size in augmentation."""
    jpeg: Annotated[int | None, arg(metavar="QUALITY", help_behavior_hint="(default: raw pixels)")] = None
    """Keep JPEGs of this quality: about a tenth of the bytes, slower to read."""
    workers: Annotated[
        int | None, arg(metavar="N", help_behavior_hint="(default: one for each core, up to 8)")
    ] = None
    """Threads that read pictures."""

    def run(self) -> int:
        """Pack; 0 when all was done, 1 when pictures could not be read."""
        from diffusionpose.data.annotations import annotations_in
        from diffusionpose.data.pack import PackOptions, pack_persons
        from diffusionpose.data.pictures import PACKED_ANNOTATIONS

        options = PackOptions(self.input_size, self.scale, self.jpeg)
        skeleton = None if self.skeleton is None else get_skeleton(self.skeleton)
        annotations = annotations_in(self.annotations, skeleton)
        for message in annotations.dropped:
            say(message)
        report = pack_persons(
            annotations, self.images, self.output, options, self.workers, progress_of("persons")
        )
        print(f"{self.output / PACKED_ANNOTATIONS}: {counted(report.persons, 'person')}, "
              f"{report.size / 2**20:,.1f} MiB")  # fmt: skip
        for message in report.left_out:
            say(f"{message} (left out)")
        return 1 if report.left_out else 0
