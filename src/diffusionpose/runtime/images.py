"""Reading pictures: whatever the file holds, (H, W, 3) uint8 RGB comes out, or one clear error."""

import glob
import io
import os
import stat
import warnings
from collections.abc import Sequence
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError, features

from diffusionpose.errors import InputError

# Only formats decoded inside Pillow: its EPS and WMF readers would start other programs.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "JPEG2000") + (
    ("AVIF",) if features.check("avif") else ()
)
# of pictures in a folder; a file that is named may have any
PICTURE_SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
    + (".jp2", ".mpo", *([".avif"] if "AVIF" in FORMATS else []))
)
# of pictures that cannot be read: in a folder they are named, not passed over
OTHER_SUFFIXES = frozenset(
    (".heic", ".heif", ".avif", ".jxl", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf")
    + (".psd", ".tga", ".exr", ".hdr", ".svg")
).difference(PICTURE_SUFFIXES)
MAX_PIXELS = 178_000_000  # Pillow refuses more than 178.9 million by itself
MAX_SIDE = 65_500  # pixels; JPEG's limit, and OpenCV neither scales nor writes much longer ones
EXIF_ORIENTATION = 0x0112

ImageLike = str | Path | bytes | bytearray | memoryview | Image.Image | np.ndarray


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
        image = to_rgb(image, name if name != "picture" else "PIL image")
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


def read_image(path: str | Path, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """A picture as (H, W, 3) uint8 RGB, turned as its EXIF orientation says.

    Grey, palette and CMYK pictures are converted, alpha is dropped. Values of 16 bits keep the upper eight of
    the bits that are in use: a camera's 12 bits fill the lower ones.

    Raises:
        InputError: the file is missing, empty, cut short, no picture, has more than ``max_pixels`` by its
            header or a side of more than ``MAX_SIDE``; the message names it.
    """
    return to_rgb(_decode(Path(path), path, max_pixels), path)


def to_rgb(image: Image.Image, name: str | Path = "picture") -> np.ndarray:
    """An opened picture of any mode as (H, W, 3) uint8 RGB; InputError begins with ``name``."""
    try:
        image.load()
    except (OSError, SyntaxError, ValueError, AttributeError) as error:  # the last two where it is closed
        raise InputError(f"{name}: damaged or cut short ({error})") from error
    return _rgb(_oriented(image), name)


def read_recorded_image(path: str | Path, width: int, height: int) -> np.ndarray:
    """A picture whose annotations were made at a size of (width, height); 0 and 0 when unknown.

    Annotations are taken to refer to the picture turned by its EXIF orientation, as everywhere, and to the
    stored pixels only where their size alone is that of the record.

    Raises:
        InputError: as :func:`read_image`, or the picture fits the record neither way.
    """
    stored = _decode(Path(path), path)
    image = _oriented(stored)
    if (width, height) != (0, 0) and image.size != (width, height):
        if stored.size != (width, height):
            raise InputError(
                f"{path}: {stored.width}x{stored.height} pixels, but its annotations were made at "
                f"{width}x{height}; use the picture they belong to"
            )
        image = stored
    return _rgb(image, path)


def exif_orientation(path: str | Path) -> tuple[int, tuple[int, int]]:
    """EXIF orientation (1: upright, or unknown) and stored (width, height) of a picture that can be read."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with Image.open(path, formats=FORMATS) as image:
                orientation = image.getexif().get(EXIF_ORIENTATION, 1)
                return orientation if orientation in range(1, 9) else 1, image.size
        except Exception:  # a damaged EXIF block says nothing about the orientation
            return 1, (0, 0)


def _decode(source: Path | BinaryIO, name: str | Path, max_pixels: int = MAX_PIXELS) -> Image.Image:
    try:
        if isinstance(source, Path):
            status = source.stat()
            if not stat.S_ISREG(status.st_mode):  # reading a pipe or a device may never end
                what = "a folder" if stat.S_ISDIR(status.st_mode) else "not a file"
                raise InputError(f"{name}: cannot be read, it is {what}; give a picture")
            if status.st_size == 0:
                raise InputError(f"{name}: the file is empty; copy or download it again")
        with warnings.catch_warnings():
            # Pillow warns from half its own limit on; ours is below
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            # not by its path: Pillow 12.3 maps grey TIFFs into memory, and mixes up their sides when turned
            file = source.open("rb") if isinstance(source, Path) else source
            image = Image.open(file, formats=FORMATS)
        with image, closing(file) if isinstance(source, Path) else nullcontext():
            if image.width * image.height > max_pixels:
                raise Image.DecompressionBombError
            if max(image.size) > MAX_SIDE:
                raise InputError(f"{name}: a side of more than {MAX_SIDE} pixels; scale the picture down")
            colours = _colours_of_16_bits(source, image)
            if colours is not None:
                return colours
            image.load()
            return image
    except InputError:
        raise
    except FileNotFoundError as error:
        raise InputError(f"{name}: no such file; check the path") from error
    except UnidentifiedImageError as error:
        raise InputError(f"{name}: not a picture that can be read ({', '.join(FORMATS)})") from error
    except Image.DecompressionBombError as error:
        raise InputError(
            f"{name}: more than {max_pixels / 1_000_000:g} million pixels; scale the picture down"
        ) from error
    except Exception as error:  # decoders of damaged bytes raise anything, struct.error to MemoryError
        if isinstance(error, OSError) and error.strerror:  # of the system, not of a decoder
            raise InputError(f"{name}: cannot be read ({error.strerror})") from error
        reason = str(error) or type(error).__name__
        raise InputError(f"{name}: damaged or cut short ({reason}); copy or download it again") from error


def _colours_of_16_bits(source: Path | BinaryIO, image: Image.Image) -> Image.Image | None:
    """A colour picture of 16 bits, of which Pillow keeps the upper eight alone; None for any other."""
    tiles = getattr(image, "tile", ())  # how the file's plug-in reads it: ("zip", box, offset, "RGB;16B")
    if image.mode not in ("RGB", "RGBA") or not any(";16" in str(tile[3]) for tile in tiles):
        return None
    import cv2

    if isinstance(source, Path):
        content = source.read_bytes()
    else:
        place = source.tell()  # from which Pillow goes on where OpenCV cannot read it
        source.seek(0)
        content = source.read()
        source.seek(place)
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION
    values = cv2.imdecode(np.frombuffer(content, np.uint8), flags)
    if values is None or values.dtype != np.uint16:
        return None
    colours = Image.fromarray(np.ascontiguousarray(_upper_bits(values)[:, :, ::-1]))
    if image.format != "TIFF":  # which OpenCV turns itself, whatever the flags say
        colours.info["exif"] = image.getexif().tobytes()
    return colours


def _upper_bits(values: np.ndarray) -> np.ndarray:
    """uint8 of values of 16 bits: the upper eight of the bits in use (8, 10, 12, 14 or 16)."""
    used = next(bits for bits in (8, 10, 12, 14, 16) if values.max(initial=0) < 2**bits)
    return (values >> (used - 8)).astype(np.uint8)


def _oriented(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # a damaged EXIF block says nothing about the orientation; the pixels are good
        return image


def _rgb(image: Image.Image, path: str | Path) -> np.ndarray:
    """uint8 RGB of a decoded picture of any mode."""
    if image.mode.startswith("I"):  # 16 bits a pixel, in 16- or 32-bit integers
        values = np.clip(np.asarray(image), 0, 65535).astype(np.uint16)
        return np.repeat(_upper_bits(values)[:, :, None], 3, axis=2)
    try:
        if image.mode == "F":
            raise ValueError("pixels are floating-point numbers without a known range")
        return np.array(image.convert("RGB"))
    except ValueError as error:
        raise InputError(f"{path}: cannot become RGB ({error}); save it as an 8-bit RGB picture") from error


def list_pictures(
    given: Sequence[Path], recursive: bool = False, output: Path | None = None
) -> tuple[list[Path], list[str], list[str]]:
    """The picture files among files, folders and patterns, each once.

    Of a folder its pictures are taken, sorted by name, and with ``recursive`` those of its sub-folders, but
    neither of linked ones nor of ``output``, where results are written. A name with ``*`` or ``?`` that is
    no file is a pattern ("trip/*/*.jpg").

    Returns:
        the files; a message for everything asked for that cannot be had; and remarks.
    """
    files: dict[str, Path] = {}  # by absolute path, so that none comes twice
    problems: list[str] = []
    remarks: list[str] = []
    for path in given:
        if os.path.isdir(path):
            inside = _of_folder(path, recursive, output, problems, remarks)
        elif any(sign in str(path) for sign in "*?[") and not os.path.exists(path):
            inside = [Path(name) for name in sorted(glob.glob(str(path), recursive=True))]
            if not inside:
                problems.append(f"{path}: no file fits this pattern; check it")
        else:
            inside = [path]
        files.update((os.path.abspath(file), file) for file in inside)
    return list(files.values()), problems, remarks


def _of_folder(
    folder: Path, recursive: bool, output: Path | None, problems: list[str], remarks: list[str]
) -> list[Path]:
    """A folder's pictures, and what is to be said of the others in it."""
    # the way from the folder to the output: none where they are one, and ".." where it is not below
    way = Path(os.path.relpath(os.path.realpath(output or folder), os.path.realpath(folder))).parts
    every: list[Path] = []
    faults: list[str] = []

    def unreadable(error: OSError) -> None:
        faults.append(f"{error.filename}: cannot be read ({error.strerror}); give its pictures by other ways")

    for parent, folders, names in os.walk(folder, onerror=unreadable):
        inside = [Path(parent, name) for name in [*folders, *names] if not name.startswith(".")]
        inside = [path for path in inside if not way or path.relative_to(folder).parts != way]
        every += inside
        folders[:] = [name for name in folders if recursive and Path(parent, name) in inside]
    every.sort()
    problems += faults
    pictures = [path for path in every if path.suffix.lower() in PICTURE_SUFFIXES and not path.is_dir()]
    others = [path for path in every if path.suffix.lower() in OTHER_SUFFIXES and not path.is_dir()]
    problems += [
        f"{path}: left out, this kind of picture cannot be read; save it as JPEG or PNG" for path in others
    ]
    for linked, cure in ((False, "--recursive takes them"), (True, "they are links: name them, too")):
        below = [path for path in every if path.is_symlink() == linked and path.is_dir()]
        names = [str(path) for path in below if (linked or not recursive) and _has_picture(path)]
        if names:
            shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
            remarks.append(f"{folder}: its sub-folders ({shown}) hold pictures as well; {cure}")
    if not (pictures or others or faults):
        kinds = " ".join(sorted(PICTURE_SUFFIXES))
        problems.append(f"{folder}: no pictures in this folder (looked for {kinds}); name another")
    return pictures


def _has_picture(folder: Path) -> bool:
    try:
        return any(path.suffix.lower() in PICTURE_SUFFIXES for path in folder.iterdir())
    except OSError:
        return False
