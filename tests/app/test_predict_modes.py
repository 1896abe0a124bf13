from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

Run = Callable[..., tuple[int, str, str]]
Predicted = Callable[..., tuple[int, str, list[dict]]]


MODES: dict[str, tuple[str, Callable[[Image.Image], Image.Image]]] = {
    "grey": ("png", lambda rgb: rgb.convert("L")),
    "grey with alpha": ("png", lambda rgb: rgb.convert("LA")),
    "alpha": ("png", lambda rgb: rgb.convert("RGBA")),
    "palette": ("png", lambda rgb: rgb.quantize(64)),
    "black and white": ("png", lambda rgb: rgb.convert("1")),
    "16 bit": (
        "png",
        lambda rgb: Image.fromarray(np.asarray(rgb.convert("L")).astype(np.uint16) * 257),
    ),
    "cmyk": ("tif", lambda rgb: rgb.convert("CMYK")),
    "jpeg": ("jpg", lambda rgb: rgb),
    "cmyk jpeg": ("jpg", lambda rgb: rgb.convert("CMYK")),
}


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_gives_the_poses_of_its_plain_rgb_version(
    predicted: Predicted, picture: np.ndarray, tmp_path: Path, mode: str
) -> None:
    suffix, convert = MODES[mode]
    file, plain = tmp_path / f"picture.{suffix}", tmp_path / "plain.png"
    convert(Image.fromarray(picture)).save(file)
    with Image.open(file) as image:
        rgb = Image.fromarray((np.asarray(image) // 256).astype(np.uint8)) if mode == "16 bit" else image
        rgb.convert("RGB").save(plain)
    status, _, rows = predicted(file, plain)
    assert status == 0
    assert rows[0]["keypoints"] == rows[1]["keypoints"]
    drawn = [
        cv2.imread(str(tmp_path / "out" / name), cv2.IMREAD_UNCHANGED)
        for name in ("picture.png", "plain.png")
    ]
    assert drawn[0].shape == (90, 120, 3)
    assert (drawn[0] == drawn[1]).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_is_turned_as_its_exif_says(
    predicted: Predicted, photo: Path, picture: np.ndarray, tmp_path: Path, orientation: int
) -> None:
    ways = Image.Transpose
    stored = [None, None, ways.FLIP_LEFT_RIGHT, ways.ROTATE_180, ways.FLIP_TOP_BOTTOM, ways.TRANSPOSE]
    stored += [ways.ROTATE_90, ways.TRANSVERSE, ways.ROTATE_270]  # each undone by its orientation
    image = Image.fromarray(picture)
    way = stored[orientation]
    image = image if way is None else image.transpose(way)
    image.getexif()[0x0112] = orientation
    image.save(tmp_path / "turned.png", exif=image.getexif())
    status, _, rows = predicted(tmp_path / "turned.png", photo)
    assert status == 0
    assert rows[0]["keypoints"] == rows[1]["keypoints"]
    assert rows[0]["box"] == [0, 0, 120, 90]
