"""``diffusionpose web``: the page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from tyro.conf import arg

from diffusionpose.app.options import BoxScore, Decode, Detector, Device, Weights
from diffusionpose.app.output import say
from diffusionpose.errors import InputError


@dataclass(frozen=True)
class WebCommand:
    """Serve a page in which pictures and clips can be dropped, persons marked and poses looked at.

    Shows the drawn poses, how sure each joint is, the heatmaps and every diffusion step; picture and
    keypoints can be taken away. Only this machine can open the page unless --host says otherwise; nothing
    is sent elsewhere, and all files are removed at the end. Ctrl-C ends it.
    Needs the extra: pip install 'diffusionpose[web]'.
    """

    port: Annotated[
        int | None, arg(metavar="N", help_behavior_hint="(default: the first free one from 7860 on)")
    ] = None
    """Port of the page."""
    host: Annotated[str, arg(metavar="ADDRESS")] = "127.0.0.1"
    """Address to listen at; 0.0.0.0 lets everybody in who can reach this machine."""
    detector: Detector = "auto"
    box_score: BoxScore = 0.3
    weights: Weights = None
    decode: Decode = "dark"
    device: Device = "auto"
    max_megabytes: Annotated[int, arg(metavar="N")] = 64
    """Largest file that is taken, picture or clip; 20 s off a phone have 50."""
    max_megapixels: Annotated[int, arg(metavar="N")] = 50
    """Largest picture that is taken; frames of a clip may have 9 at most."""

    def run(self) -> int:
        """Load the model, serve until told to stop; 0."""
        from diffusionpose.app.engines import EstimatorOptions
        from diffusionpose.app.web.server import check_gradio, gradio_folder, is_private, serve
        from diffusionpose.app.web.upload import Limits

        for name in ("max_megabytes", "max_megapixels"):
            if getattr(self, name) < 1:
                raise InputError(f"--{name.replace('_', '-')} {getattr(self, name)} must be 1 or more")
        if self.port is not None and not 0 < self.port < 65536:
            raise InputError(f"--port {self.port}: ports go from 1 to 65535")
        limits = Limits(self.max_megabytes, self.max_megapixels)
        with gradio_folder() as folder:
            check_gradio()
            from diffusionpose.app.web.handlers import Handlers
            from diffusionpose.app.web.page import build_page

            how = EstimatorOptions(
                self.weights, self.device, {"decode": self.decode}, self.detector, self.box_score
            )
            estimator = how.make(say)
            page = build_page(Handlers(estimator, limits, self.decode, folder / "results"))
            if not is_private(self.host):
                say(f"--host {self.host}: everybody who can reach this machine can use the page")
            serve(
                page,
                self.host,
                self.port,
                limits,
                lambda address: print(f"{address} (Ctrl-C ends it)", flush=True),
            )
        return 0
