"""``diffusionpose demo``: the main job on a photograph that is always at hand."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from diffusionpose.app.options import Output
from diffusionpose.app.predict import PredictCommand


@dataclass(frozen=True)
class DemoCommand:
    """Find the pose in a photograph of Grace Hopper, which is in the public domain and comes with matplotlib.

    Uses the bundled model; needs no network.
    """

    output: Output = Path("output")

    def run(self) -> int:
        """Predict, and say where the picture and the JSON are; 0 if all went well."""
        from matplotlib import get_data_path

        photograph = Path(get_data_path()) / "sample_data" / "grace_hopper.jpg"
        status = PredictCommand((photograph,), self.output).run()
        if status == 0:
            print(f"picture: {self.output / 'grace_hopper.png'}\nposes:   {self.output / 'keypoints.json'}")
        return status
