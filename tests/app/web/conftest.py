"""The page on a server in a thread of this process, with a very small network."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from diffusionpose.geometry import HeatmapCodec
from diffusionpose.runtime.estimator import PoseEstimator
from diffusionpose.runtime.networks import Network
from diffusionpose.skeletons import CROWDPOSE

LIMITS = {"megabytes": 8, "megapixels": 30, "total_megabytes": 100}


class Served(NamedTuple):
    """A page that is up."""

    url: str
    port: int
    folder: Path  # all files of visitors lie here

    @staticmethod
    def forget_memory() -> None:
        """Let ``most_memory`` count from now on."""
        Path("/proc/self/clear_refs").write_text("5")

    @property
    def most_memory(self) -> int:
        """The most resident memory this process had, bytes; Linux tells."""
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


class Painter(Network):
    """A diffusion network in a few lines of NumPy: bright pictures and later steps move its peaks.

    Args:
        unbiased: UDP geometry.
        steps: None for a network without diffusion.
    """

    def __init__(self, unbiased: bool = False, steps: int | None = 1) -> None:
        self.name, self.skeleton, self.codec = "painter", CROWDPOSE, HeatmapCodec((48, 64), 4, unbiased)
        self.steps, self.any_steps = steps, steps is not None

    def heatmaps(self, images: np.ndarray, steps: int | None = None, start: Any = None) -> list[np.ndarray]:
        """Peaks of 0.5 to 0.95 on a ring."""
        if steps is None:
            steps = self.steps or 0
        x, y = np.linspace(-1, 1, 48), np.linspace(-1, 1, 64)
        light = images.mean(1, dtype=np.float64) / 255
        tilt = np.stack([(light * x).mean((1, 2)), (light * y[:, None]).mean((1, 2))], -1)
        turn = np.linspace(0, 6, 14, dtype=np.float32)
        ring = np.stack([5.5 + 1.2 * np.cos(turn), 7.5 + 4 * np.sin(turn)], -1)
        ring = (ring + 1.5 * tilt[:, None]).astype(np.float32)
        height = np.linspace(0.5, 0.95, 14, dtype=np.float32)[:, None, None]
        return [
            height * self.codec.draw(ring + np.float32(0.5 * step)).astype(np.float32)
            for step in range(steps + 1 if self.steps is not None else 1)
        ]


@pytest.fixture(autouse=True)
def offline() -> None:
    """Nothing here looks for a detector, and so nothing imports torch."""


@pytest.fixture(scope="session")
def painter() -> type[Painter]:
    """The class, for networks of another kind."""
    return Painter


@pytest.fixture(scope="session")
def estimator() -> PoseEstimator:
    """An estimator with a network of no cost, and no detector."""
    return PoseEstimator(Painter(), detector="whole")


@pytest.fixture(scope="module")  # a module's visitors are not the next one's
def served(estimator: Any) -> Iterator[Served]:
    """The page at an address of its own, as ``diffusionpose web`` serves it."""
    pytest.importorskip("gradio")
    from diffusionpose.app.web import server
    from diffusionpose.app.web.limits import Limits
    from diffusionpose.app.web.page import build_page
    from diffusionpose.app.web.picture import Handlers

    limits = Limits(**LIMITS)
    with server.visitors_folder() as folder, server.listen("127.0.0.1", [0]) as sock:
        page = build_page(Handlers(estimator, limits, "dark", folder / "results"))
        serving = server.make_server(page, limits, folder, server.LOOPBACK_NAMES)
        thread = threading.Thread(target=serving.run, args=([sock],))
        thread.start()
        yield Served(server.address_of("127.0.0.1", sock), sock.getsockname()[1], folder)
        serving.should_exit = True
        thread.join()
    assert not folder.exists()


@pytest.fixture(scope="session")
def people() -> tuple[np.ndarray, list[list[float]]]:
    """(480, 640, 3) uint8 RGB, two drawn people, and their boxes x0, y0, x1, y1."""
    from diffusionpose.data.synthetic import draw_picture
    from diffusionpose.skeletons import COCO

    picture, persons = draw_picture(7, 0, COCO, (640, 480), most_people=2)
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
