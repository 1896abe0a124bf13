"""Pictures to try the page with: a photograph in the public domain, and drawn people."""

from __future__ import annotations

import secrets
from pathlib import Path

import cv2
import numpy as np

from diffusionpose.app.demo import BOX

SEED, NUMBERS = 7, (7, 2, 6)  # drawn people who are seen from head to foot
SIZE = (640, 480)


def portrait() -> tuple[Path, np.ndarray]:
    """A photograph of Grace Hopper, which comes with matplotlib, and her (1, 4) box."""
    from matplotlib import get_data_path

    return Path(get_data_path()) / "sample_data" / "grace_hopper.jpg", np.array([BOX], np.float32)


def drawn_people(folder: Path, turn: int) -> tuple[Path, np.ndarray]:
    """A picture of synthetic people below ``folder``, another one at every turn, and their (n, 4) boxes."""
    from diffusionpose.data.synthetic import draw_picture
    from diffusionpose.skeletons import COCO

    number = NUMBERS[turn % len(NUMBERS)]
    picture, people = draw_picture(SEED, number, COCO, SIZE, most_people=2)
    place = folder / secrets.token_urlsafe(12)
    place.mkdir(parents=True)
    path = place / f"people_{number}.png"
    cv2.imwrite(str(path), picture[:, :, ::-1])
    boxes = np.array([person["bbox"] for person in people], np.float32)
    boxes[:, 2:] += boxes[:, :2]
    return path, boxes
