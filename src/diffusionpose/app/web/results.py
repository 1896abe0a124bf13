"""Files for visitors to take away, and clearing away what they left behind."""

from __future__ import annotations

import secrets
import shutil
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np

from diffusionpose.app.output import write_file, write_json
from diffusionpose.app.pictures import find_pictures
from diffusionpose.poses import Pose

KEPT_SECONDS = 3600  # files of visitors live so long
SWEPT_SECONDS = 600  # and are looked through so often


def write_results(folder: Path, source: Path, drawn: np.ndarray, poses: Sequence[Pose]) -> tuple[Path, Path]:
    """The drawn picture and the poses, named and filled as `diffusionpose predict` does it.

    Args:
        folder: gets a new folder with the two files.
        source: the picture's file.
        drawn: (H, W, 3) uint8 RGB.
        poses: found in it.

    Returns:
        the PNG and the JSON file.

    Raises:
        InputError: they cannot be written.
    """
    (picture,), _ = find_pictures([source], lambda path: None)
    place = folder / secrets.token_urlsafe(12)
    place.mkdir(parents=True)
    write_file(place / picture.drawn, cv2.imencode(".png", drawn[:, :, ::-1])[1].tobytes())
    write_json(place / "keypoints.json", picture.rows(poses))
    return place / picture.drawn, place / "keypoints.json"


def sweep(folder: Path, seconds: float) -> None:
    """Remove what has stood directly in a folder, files and folders, for more than so many seconds."""
    limit = time.time() - seconds
    for path in folder.iterdir() if folder.is_dir() else ():
        try:
            if path.stat().st_mtime < limit:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        except FileNotFoundError:  # somebody else was quicker
            continue


@contextmanager
def swept(folder: Path) -> Iterator[None]:
    """Keep a folder free of old things, from a thread, while the block runs."""
    done = threading.Event()

    def work() -> None:
        while not done.wait(SWEPT_SECONDS):
            sweep(folder, KEPT_SECONDS)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
