"""The page served by a process of its own, as a user starts it, with the bundled model."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

LIMITS = {"megabytes": 8, "megapixels": 30}
STARTS_IN = 300  # seconds; gradio and torch take 10 on an idle machine


class Served(NamedTuple):
    """A page that is up."""

    url: str
    process: subprocess.Popen[bytes]
    folder: Path  # everything the server writes lies here
    log: Path

    def forget_memory(self) -> None:
        """Let ``most_memory`` count from now on."""
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")

    @property
    def most_memory(self) -> int:
        """The most resident memory the server had, bytes; Linux tells."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    pytest.importorskip("gradio")
    folder = tmp_path_factory.mktemp("web")
    log, port = folder / "log.txt", free_port()
    words = ["web", "--port", port, "--device", "cpu", "--detector", "whole"]
    words += ["--max-megabytes", LIMITS["megabytes"], "--max-megapixels", LIMITS["megapixels"]]
    command = [sys.executable, "-m", "diffusionpose.app.cli", *map(str, words)]
    (folder / "tmp").mkdir()
    with log.open("wb") as file:
        process = subprocess.Popen(
            command, stdout=file, stderr=file, env={**os.environ, "TMPDIR": str(folder / "tmp")}
        )
    try:
        until = time.monotonic() + STARTS_IN
        while "Ctrl-C" not in log.read_text():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < until, f"not up after {STARTS_IN} s: {log.read_text()}"
            time.sleep(0.2)
        yield Served(f"http://127.0.0.1:{port}/", process, folder / "tmp", log)
    finally:
        process.terminate()
        status = process.wait(120)
    assert status == 0, log.read_text()
    left = [path.name for path in (folder / "tmp").iterdir() if not path.name.startswith("torch")]
    assert left == [], "files were left behind"
    text = log.read_text()
    refused = text.count("uploaded by a user")  # gradio's own words for a file that is none of the page's
    assert text.count("Traceback") == refused, text


@pytest.fixture(scope="session")
def people() -> tuple[np.ndarray, list[list[float]]]:
    """(480, 640, 3) uint8 RGB, two drawn people, and their boxes x0, y0, x1, y1."""
    from diffusionpose.data.synthetic import draw_picture
    from diffusionpose.skeletons import COCO

    picture, persons = draw_picture(7, 7, COCO, (640, 480), most_people=2)
    boxes = [[x, y, x + width, y + height] for x, y, width, height in (p["bbox"] for p in persons)]
    return picture, boxes


@pytest.fixture
def persons() -> np.ndarray:
    """(2, 4) boxes in the picture of the fixture ``picture``; the second reaches over its edge."""
    return np.array([[10, 5, 60, 80], [70, -10, 115, 95]], np.float32)


@pytest.fixture
def clip(tmp_path: Path) -> Callable[..., Path]:
    """``clip(count, name, size, still)``: so many pictures, each another or all the same, at 25 a second."""
    av = pytest.importorskip("av")

    def write(
        count: int, name: str = "clip.mp4", size: tuple[int, int] = (96, 64), still: Any = None
    ) -> Path:
        codec, kind = ("mjpeg", "yuvj420p") if name.endswith(".avi") else ("libx264", "yuv420p")
        with av.open(str(tmp_path / name), "w") as container:
            stream = container.add_stream(codec, rate=25)
            stream.width, stream.height, stream.pix_fmt = *size, kind
            for index in range(count):
                noise = np.random.default_rng(index).integers(0, 256, (8, 12, 3), dtype=np.uint8)
                image = np.kron(noise, np.ones((size[1] // 8, size[0] // 12, 1), np.uint8))
                image = image if still is None else still
                container.mux(
                    stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format=kind))
                )
            container.mux(stream.encode(None))
        return tmp_path / name

    return write
