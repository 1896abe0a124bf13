"""``diffusionpose demo``: the main job on a photograph that is always at hand."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from diffusionpose.app.options import Output, make_folder, write_json
from diffusionpose.app.predict import PredictCommand
from diffusionpose.bundled import PORTRAIT

# The person as she stands, x0, y0, x1, y1, and a margin, most of it below the edge of the picture.
# A model that was trained on whole bodies needs to be shown the scale of the body.
BOX = [-150, -150, 680, 1600]


@dataclass(frozen=True)
class DemoCommand:
    """Find the pose in a portrait of Grace Hopper, which is in the public domain and comes with the package.

    Uses the bundled model; needs no network. The person's box is given by OUTPUT/boxes.json.
    """

    output: Output = Path("output")

    def run(self) -> int:
        """Predict, and say where the picture and the JSON are; 0 if all went well."""
        boxes = self.output / "boxes.json"
        make_folder(self.output)
        write_json(boxes, {PORTRAIT.name: [BOX]})
        print(f"diffusionpose predict {PORTRAIT} --boxes {boxes} --output {self.output}")
        status = PredictCommand((PORTRAIT,), self.output, boxes=boxes).run()
        if status == 0:
            print(
                f"picture: {self.output / PORTRAIT.with_suffix('.png').name}\n"
                f"poses:   {self.output / 'keypoints.json'}"
            )
        return status
