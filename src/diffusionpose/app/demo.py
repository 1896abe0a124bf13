"""``diffusionpose demo``: the main job on a photograph that is always at hand."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from diffusionpose.app.options import Output
from diffusionpose.app.predict import PredictCommand
from diffusionpose.bundled import PORTRAIT


@dataclass(frozen=True)
class DemoCommand:
    """Find the pose in a portrait of Grace Hopper, which is in the public domain and comes with the package.

    Uses the bundled networks; needs no download.
    """

    output: Output = Path("output")

    def run(self) -> int:
        """Predict, and say where the picture and the JSON are; 0 if all went well."""
        print(f"diffusionpose predict {PORTRAIT} --output {self.output}")
        status = PredictCommand((PORTRAIT,), self.output).run()
        if status == 0:
            print(
                f"picture: {self.output / PORTRAIT.with_suffix('.png').name}\n"
                f"poses:   {self.output / 'keypoints.json'}"
            )
        return status
