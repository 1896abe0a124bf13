"""``diffusionpose web``: the page on one port, from one temporary folder, without a word to anybody else."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any
from unittest.mock import patch

from tyro.conf import arg

from diffusionpose.app.options import BoxScore, Decode, Detector, Device, PoseOptions, Weights, say
from diffusionpose.app.web.front_door import (
    KEPT_SECONDS,
    LOOPBACK_NAMES,
    SWEPT_SECONDS,
    FrontDoor,
    Limits,
)
from diffusionpose.errors import InputError, needs_extra

MOST_CONNECTIONS = 400  # or requests at a time; uvicorn answers 503 beyond
SESSIONS = 64  # visitors whose pictures are kept in memory; the longest idle one goes first
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
            private = is_loopback(self.host)
            if not private:
                say(f"--host {self.host}: everybody who can reach this machine can use the page")

            def front_door(app: Any) -> FrontDoor:
                names = LOOPBACK_NAMES | {self.host} if private else None
                return FrontDoor(app, limits, folder, names, self.allow_host)

            with served(page, self.host, self.port, limits, front_door) as address:
                print(f"{address} (Ctrl-C ends it)", flush=True)
                wait_for_signal()
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


@contextmanager
def served(
    page: Any, host: str, port: int | None, limits: Limits, front_door: Callable[[Any], FrontDoor]
) -> Iterator[str]:
    """Serve a page of ``build_page`` from a thread while the block runs, which gets its address.

    ``front_door`` puts the door before the page's ASGI application. Without a port it is the first free one
    from 7860 on; InputError where it cannot be had.
    """
    import gradio as gr
    import uvicorn
    from fastapi import FastAPI

    from diffusionpose.app.web.page import FONTS, HEAD, MONOSPACE

    sock = listen(host, range(7860, 7960) if port is None else [port])
    port = int(sock.getsockname()[1])
    page.state_session_capacity = SESSIONS
    page.has_launched = True  # or gradio lets visitors name any file of this machine
    app = gr.mount_gradio_app(
        FastAPI(openapi_url=None), page, "/", server_name=host, server_port=port, footer_links=[],
        max_file_size=limits.file_bytes, run_history=False, ssr_mode=False, mcp_server=False, pwa=False,
        enable_monitoring=False, show_error=False, head=HEAD,
        theme=gr.themes.Soft(primary_hue="blue", neutral_hue="slate", font=FONTS, font_mono=MONOSPACE),
    )  # fmt: skip
    config = uvicorn.Config(
        front_door(app), ws="none", lifespan="on", log_level="warning", server_header=False,
        limit_concurrency=MOST_CONNECTIONS, timeout_keep_alive=20, timeout_graceful_shutdown=1,
    )  # fmt: skip
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([sock],), daemon=True)
    thread.start()
    try:
        while not server.started:
            if not thread.is_alive():
                raise RuntimeError("the server did not start")
            time.sleep(0.01)
        shown = {"0.0.0.0": "localhost", "::": "localhost"}.get(host, f"[{host}]" if ":" in host else host)
        yield f"http://{shown}:{port}/"
    finally:
        page.close(verbose=False)
        server.should_exit = True
        thread.join(30)
        sock.close()


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


def wait_for_signal() -> None:
    """Wait for ever: Ctrl-C and SIGTERM end it."""
    threading.Event().wait()
