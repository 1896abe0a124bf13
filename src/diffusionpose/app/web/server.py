"""``diffusionpose web``: the page on one port, from one temporary folder, without a word to anybody else."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from unittest.mock import patch

from tyro.conf import arg

from diffusionpose.app.options import BoxScore, Decode, Detector, Device, PoseOptions, Weights, say
from diffusionpose.app.web.limits import KEPT_SECONDS, MOST_CONNECTIONS, SESSIONS, SWEPT_SECONDS, Limits
from diffusionpose.errors import InputError, needs_extra

if TYPE_CHECKING:
    import uvicorn

LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
PREFIX = "diffusionpose-web-"


@dataclass(frozen=True)
class WebCommand:
    """Serve a page in which pictures and clips can be dropped, persons marked and poses looked at.

    Shows the drawn poses, the score of each joint, the heatmaps and every diffusion step; picture and
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
    allow_host: Annotated[tuple[str, ...], arg(metavar="NAME")] = ()
    """Further names by which the page may be opened, as those of a proxy in front of it."""
    detector: Detector = "auto"
    box_score: BoxScore = 0.3
    weights: Weights = None
    decode: Decode = "dark"
    device: Device = "auto"
    max_megabytes: Annotated[int, arg(metavar="N")] = 64
    """Largest file that is taken, picture or clip; 20 s off a phone have 50."""
    max_megapixels: Annotated[int, arg(metavar="N")] = 50
    """Largest picture that is taken; frames of a clip may have 9 at most."""
    max_total_megabytes: Annotated[int, arg(metavar="N")] = 2000
    """All files of visitors that are kept at a time, for an hour at most."""

    def run(self) -> int:
        """Load the model, serve until told to stop; 0."""
        for name in ("max_megabytes", "max_megapixels", "max_total_megabytes"):
            if getattr(self, name) < 1:
                raise InputError(f"--{name.replace('_', '-')} {getattr(self, name)} must be 1 or more")
        if self.port is not None and not 0 < self.port < 65536:
            raise InputError(f"--port {self.port}: ports go from 1 to 65535")
        limits = Limits(self.max_megabytes, self.max_megapixels, self.max_total_megabytes)
        with ended_by_sigterm(), visitors_folder() as folder:
            with needs_extra("web", "the web page needs gradio"):  # before any work
                from diffusionpose.app.web.page import build_page
            from diffusionpose.app.web.picture import Handlers

            options = PoseOptions(
                weights=self.weights, device=self.device, detector=self.detector, box_score=self.box_score
            )
            page = build_page(Handlers(options.make(), limits, self.decode, folder / "results"))
            names = None
            if is_loopback(self.host):
                names = {*LOOPBACK_NAMES, self.host}
            else:
                say(f"--host {self.host}: everybody who can reach this machine can use the page")
            with closing(listen(self.host, range(7860, 7960) if self.port is None else [self.port])) as sock:
                server = make_server(page, limits, folder, names, self.allow_host)
                print(f"{address_of(self.host, sock)} (Ctrl-C ends it)", flush=True)
                server.run([sock])
        return 0


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


# --- the folder of visitors' files ---


@contextmanager
def visitors_folder() -> Iterator[Path]:
    """A temporary folder for everything that visitors load up or take away; it is removed at the end.

    Folders of servers that were killed are removed as well. gradio reads where its files go from the
    environment when a page is built, and whether it may call home when it is imported.
    """
    from filelock import FileLock

    remove_left_folders(Path(tempfile.gettempdir()))
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=PREFIX)))
        stack.enter_context(FileLock(folder / "lock"))
        variables = {
            "GRADIO_TEMP_DIR": str(folder / "cache"),
            "GRADIO_ANALYTICS_ENABLED": "False",
            "GRADIO_RUN_HISTORY": "False",
            "HF_HUB_DISABLE_TELEMETRY": "1",
        }
        stack.enter_context(patch.dict(os.environ, variables))  # as they were again at the end
        stack.enter_context(swept(folder / "cache", folder / "results"))
        yield folder


def remove_left_folders(place: Path) -> None:
    """Remove the folders in ``place`` of servers that run no more, as after ``kill -9``."""
    from filelock import FileLock, Timeout

    for folder in place.glob(f"{PREFIX}*"):
        with suppress(Timeout, OSError):  # at work, or somebody else's
            if not folder.is_symlink() and time.time() - folder.stat().st_mtime > 1:  # not just made
                with FileLock(folder / "lock", timeout=0):
                    shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def swept(*folders: Path) -> Iterator[None]:
    """Keep folders free of old things, from a thread, while the block runs."""
    done = threading.Event()

    def work() -> None:
        while not done.wait(SWEPT_SECONDS):
            for folder in folders:
                sweep(folder, KEPT_SECONDS)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def sweep(folder: Path, seconds: float) -> None:
    """Remove what has stood directly in a folder, files and folders, for more than so many seconds."""
    for path in folder.iterdir() if folder.is_dir() else ():
        with suppress(FileNotFoundError):  # somebody else was quicker
            if path.stat().st_mtime < time.time() - seconds:
                shutil.rmtree(path) if path.is_dir() else path.unlink()


# --- the server ---


def make_server(
    page: Any, limits: Limits, folder: Path, names: Collection[str] | None, trusted: Collection[str] = ()
) -> uvicorn.Server:
    """A server of a page of ``build_page``, behind a ``FrontDoor`` with the other arguments."""
    import gradio as gr
    import uvicorn
    from fastapi import FastAPI
    from starlette.middleware import Middleware

    from diffusionpose.app.web.front_door import FrontDoor
    from diffusionpose.app.web.page import FONTS, HEAD, MONOSPACE

    page.state_session_capacity = SESSIONS
    page.has_launched = True  # or gradio lets visitors name any file of this machine
    door = Middleware(FrontDoor, limits=limits, folder=folder, names=names, trusted=trusted)
    app = gr.mount_gradio_app(
        FastAPI(openapi_url=None, middleware=[door]), page, "/", max_file_size=limits.file_bytes,
        footer_links=[], run_history=False, ssr_mode=False, mcp_server=False, pwa=False,
        enable_monitoring=False, show_error=False, head=HEAD,
        theme=gr.themes.Soft(primary_hue="blue", neutral_hue="slate", font=FONTS, font_mono=MONOSPACE),
    )  # fmt: skip
    config = uvicorn.Config(
        app, ws="none", lifespan="on", log_level="warning", server_header=False,
        limit_concurrency=MOST_CONNECTIONS, timeout_keep_alive=20, timeout_graceful_shutdown=1,
    )  # fmt: skip
    return uvicorn.Server(config)


def address_of(host: str, sock: socket.socket) -> str:
    """Where a browser on this machine finds the page."""
    shown = {"0.0.0.0": "localhost", "::": "localhost"}.get(host, f"[{host}]" if ":" in host else host)
    return f"http://{shown}:{sock.getsockname()[1]}/"


def listen(host: str, ports: Sequence[int]) -> socket.socket:
    """A socket that listens at the first of some ports that is free; InputError where none can be had."""
    for port in ports:
        try:
            family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
            return socket.create_server(address[:2], family=family, backlog=1024)
        except OSError as error:
            reason = error
    where = f"--host {host} --port {port}" if len(ports) == 1 else f"--host {host}"
    raise InputError(f"{where}: cannot be listened at ({reason}); name another") from reason


@contextmanager
def ended_by_sigterm() -> Iterator[None]:
    """SIGTERM ends the process in order, with status 0; Ctrl-C does so anyway."""

    def end(*_: object) -> None:
        raise SystemExit(0)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
