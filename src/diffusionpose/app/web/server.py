"""Serving the page: on one port, from one temporary folder, without a word to anybody else."""

from __future__ import annotations

import os
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import arg

from diffusionpose.app.options import BoxScore, Decode, Detector, Device, Weights, say
from diffusionpose.app.web.files import BodyLimit, Limits, swept
from diffusionpose.app.web.parts import CSS, FONTS, MONOSPACE
from diffusionpose.errors import InputError, needs_extra

SESSIONS = 64  # visitors whose pictures are kept in memory; the longest idle one goes first


def check_gradio() -> None:
    """See before any work whether the page can be served.

    Raises:
        InputError: gradio is not installed.
    """
    with needs_extra("web", "the web page needs gradio"):
        import gradio  # noqa: F401


@contextmanager
def gradio_folder() -> Iterator[Path]:
    """A temporary folder for everything that visitors load up or take away; it is removed at the end.

    gradio reads where its files go from the environment when a page is built, and whether it may call home
    when it is imported.
    """
    with tempfile.TemporaryDirectory(prefix="diffusionpose-web-") as name:
        folder = Path(name)
        mine = {
            "GRADIO_TEMP_DIR": str(folder / "cache"),
            "GRADIO_ANALYTICS_ENABLED": "False",
            "GRADIO_RUN_HISTORY": "False",
            "HF_HUB_DISABLE_TELEMETRY": "1",
        }
        before = {variable: os.environ.get(variable) for variable in mine}
        os.environ.update(mine)
        try:
            with swept(folder / "cache"), swept(folder / "results"):
                yield folder
        finally:
            for variable, value in before.items():
                os.environ.pop(variable) if value is None else os.environ.update({variable: value})


def serve(page: Any, host: str, port: int | None, limits: Limits, ready: Callable[[str], None]) -> None:
    """Serve a page until the process is told to stop, by Ctrl-C or SIGTERM.

    Args:
        page: of ``build_page``.
        host: address to listen at.
        port: None for the first free one from 7860 on.
        limits: on uploads.
        ready: gets the page's address once it can be opened.

    Raises:
        InputError: the address or the port cannot be had.
    """
    import gradio as gr
    from starlette.middleware import Middleware

    try:
        _, address, _ = page.launch(
            server_name=host, server_port=port, share=False, quiet=True, prevent_thread_lock=True,
            max_file_size=limits.file_bytes, footer_links=[], state_session_capacity=SESSIONS, ssr_mode=False,
            mcp_server=False, pwa=False, enable_monitoring=False, head=f"<style>{CSS}</style>",
            theme=gr.themes.Soft(primary_hue="blue", neutral_hue="slate", font=FONTS, font_mono=MONOSPACE),
            app_kwargs={"middleware": [Middleware(BodyLimit, limits=limits)]},
        )  # fmt: skip
    except OSError as error:
        where = f"--host {host}" + (f" --port {port}" if port else "")
        raise InputError(f"{where}: cannot be listened at ({error}); name another") from error
    stop = threading.Event()
    before = signal.signal(signal.SIGTERM, lambda *_: stop.set())
    try:
        ready(address)
        stop.wait()
    finally:
        signal.signal(signal.SIGTERM, before)
        page.close(verbose=False)


def is_private(host: str) -> bool:
    """Whether only this machine can reach an address."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


# ``diffusionpose web``: the page


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
        from diffusionpose.app.options import EstimatorOptions
        from diffusionpose.app.web.files import Limits

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
