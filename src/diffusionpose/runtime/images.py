"""Reading pictures: whatever the file holds, (H, W, 3) uint8 RGB comes out, or one clear error."""

from __future__ import annotations

import warnings
from pathlib import Path

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
    return to_rgb(_decode(Path(path)), path, orient)


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
    image = _decode(Path(path))
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


def _decode(path: Path) -> Image.Image:
    try:
        if path.stat().st_size == 0:
            raise InputError(f"{path}: the file is empty; copy or download it again")
        with warnings.catch_warnings():
            # Pillow warns from half its own limit on; ours is below
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(path, formats=FORMATS)
        with image:
            if image.width * image.height > MAX_PIXELS:
                raise Image.DecompressionBombError
            image.load()
            return image
    except InputError:
        raise
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; check the path") from error
    except (IsADirectoryError, PermissionError) as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except UnidentifiedImageError as error:
        known = ", ".join(FORMATS)
        raise InputError(f"{path}: not a picture that can be read ({known})") from error
    except Image.DecompressionBombError as error:
        raise InputError(
            f"{path}: more than {MAX_PIXELS // 1_000_000} million pixels; scale the picture down"
        ) from error
    except MemoryError:
        raise
    except Exception as error:  # decoders of damaged bytes raise anything, struct.error to IndexError
        raise InputError(f"{path}: damaged or cut short ({error}); copy or download it again") from error


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
