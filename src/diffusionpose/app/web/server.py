"""Serving the page: on one port, from one temporary folder, without a word to anybody else."""

from __future__ import annotations

import os
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from diffusionpose.app.web.results import swept
from diffusionpose.app.web.style import CSS, FONTS, MONOSPACE
from diffusionpose.app.web.upload import BodyLimit, Limits
from diffusionpose.errors import InputError
from diffusionpose.extras import needs_extra

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
