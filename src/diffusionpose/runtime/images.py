"""Reading pictures: whatever the file holds, (H, W, 3) uint8 RGB comes out, or one clear error."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError

from diffusionpose.errors import InputError

# Only formats decoded inside Pillow: its EPS and WMF readers would start other programs.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "JPEG2000")
PICTURE_SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".jp2", ".mpo")
)  # of pictures in a folder; a file that is named may have any
MAX_PIXELS = 178_000_000  # Pillow refuses more than 178.9 million by itself
EXIF_ORIENTATION = 0x0112
TRANSPOSITIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


ImageLike = str | Path | bytes | Image.Image | np.ndarray


def as_image(image: Any, name: str = "picture") -> np.ndarray:
    """(H, W, 3) uint8 RGB of whatever a caller may give as a picture.

    Args:
        image: a file, the bytes of one, a PIL image, an array (H, W, 3) uint8 RGB, or a uint8 tensor of
            PyTorch, (H, W, 3) or (3, H, W).
        name: of the picture, for messages.

    Raises:
        InputError: as of :func:`read_image`, or an array of another shape or type.
    """
    if isinstance(image, (str, Path)):
        return read_image(image)
    if isinstance(image, (bytes, bytearray, memoryview)):
        return to_rgb(_decode(io.BytesIO(image), name), name)
    if isinstance(image, Image.Image):
        return to_rgb(image, name if name != "picture" else "PIL image")
    if hasattr(image, "detach"):
        image = image.detach().cpu().numpy()
        if image.ndim == 3 and image.shape[0] == 3 and image.shape[2] != 3:
            image = image.transpose(1, 2, 0)
    if not isinstance(image, np.ndarray):
        raise InputError(
            f"{name}: a {type(image).__name__} is no picture; give a file, bytes, a PIL image or an array"
        )
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
        raise InputError(
            f"an array of shape {image.shape} and type {image.dtype} is no picture; give (H, W, 3) uint8 RGB"
        )
    return np.ascontiguousarray(image)


def read_image(path: str | Path, orient: bool = True) -> np.ndarray:
    """A picture as (H, W, 3) uint8 RGB.

    Grey, palette and CMYK pictures are converted, alpha is dropped, 16-bit values keep their upper
    eight bits.

    Args:
        path: the file.
        orient: turn the picture as its EXIF orientation says; else the pixels come as stored.

    Raises:
        InputError: the file is missing, empty, cut short, no picture, or has more than
            ``MAX_PIXELS`` pixels; the message names it.
    """
    return to_rgb(_decode(Path(path), path), path, orient)


def to_rgb(image: Image.Image, name: str | Path = "picture", orient: bool = True) -> np.ndarray:
    """An opened picture of any mode as (H, W, 3) uint8 RGB, as :func:`read_image` does it.

    Raises:
        InputError: its data is cut short or has no RGB form; the message begins with ``name``.
    """
    try:
        image.load()
    except (OSError, SyntaxError) as error:
        raise InputError(f"{name}: damaged or cut short ({error})") from error
    return _rgb(_oriented(image) if orient else image, name)


def read_recorded_image(path: str | Path, width: int, height: int) -> np.ndarray:
    """A picture whose annotations were made at a size of (width, height); 0 and 0 when unknown.

    Annotations refer to the stored pixels where those have the recorded size, and to the picture
    turned by its EXIF orientation only where that alone fits.

    Raises:
        InputError: as :func:`read_image`, or the picture fits the record neither way.
    """
    image = _decode(Path(path), path)
    recorded = (width, height)
    if recorded != (0, 0) and image.size != recorded:
        stored_size = image.size
        image = _oriented(image)
        if image.size != recorded:
            raise InputError(
                f"{path}: {stored_size[0]}x{stored_size[1]} pixels, but its annotations were made at "
                f"{width}x{height}; use the picture they belong to"
            )
    return _rgb(image, path)


def _decode(source: Path | BinaryIO, name: str | Path) -> Image.Image:
    try:
        if isinstance(source, Path) and source.stat().st_size == 0:
            raise InputError(f"{name}: the file is empty; copy or download it again")
        with warnings.catch_warnings():
            # Pillow warns from half its own limit on; ours is below
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(source, formats=FORMATS)
        with image:
            if image.width * image.height > MAX_PIXELS:
                raise Image.DecompressionBombError
            image.load()
            return image
    except InputError:
        raise
    except FileNotFoundError as error:
        raise InputError(f"{name}: no such file; check the path") from error
    except (IsADirectoryError, PermissionError) as error:
        raise InputError(f"{name}: cannot be read ({error.strerror})") from error
    except UnidentifiedImageError as error:
        known = ", ".join(FORMATS)
        raise InputError(f"{name}: not a picture that can be read ({known})") from error
    except Image.DecompressionBombError as error:
        raise InputError(
            f"{name}: more than {MAX_PIXELS // 1_000_000} million pixels; scale the picture down"
        ) from error
    except Exception as error:  # decoders of damaged bytes raise anything, struct.error, MemoryError, ..
        reason = str(error) or type(error).__name__
        raise InputError(f"{name}: damaged or cut short ({reason}); copy or download it again") from error


def _oriented(image: Image.Image) -> Image.Image:
    try:
        orientation = image.getexif().get(EXIF_ORIENTATION)
    except Exception:  # a damaged EXIF block says nothing about the orientation; the pixels are good
        return image
    return image.transpose(TRANSPOSITIONS[orientation]) if orientation in TRANSPOSITIONS else image


def _rgb(image: Image.Image, path: str | Path) -> np.ndarray:
    """uint8 RGB of a decoded picture of any mode."""
    if image.mode.startswith("I"):  # 16 bits a pixel, in 16- or 32-bit integers
        values = np.asarray(image)
        grey = (np.clip(values, 0, 65535).astype(np.uint16) >> 8).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    try:
        if image.mode == "F":
            raise ValueError("pixels are floating-point numbers without a known range")
        return np.array(image.convert("RGB"))
    except ValueError as error:
        raise InputError(f"{path}: cannot become RGB ({error}); save it as an 8-bit RGB picture") from error
