"""Every kind of picture becomes the same RGB; every kind of damage becomes one clear error."""

import os
import warnings
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from diffusionpose.errors import InputError
from diffusionpose.runtime.images import MAX_SIDE, as_image, read_image, read_recorded_image, to_rgb


@pytest.fixture
def picture() -> np.ndarray:
    """A smooth colour picture, 40 wide and 30 high, with no symmetry."""
    y, x = np.mgrid[0:30, 0:40]
    return np.stack([40 + 4 * x, 200 - 5 * y, 30 + 2 * x + 3 * y], axis=-1).astype(np.uint8)


@pytest.fixture
def grey() -> np.ndarray:
    y, x = np.mgrid[0:30, 0:40]
    return (20 + 3 * x + 4 * y).astype(np.uint8)


def repeated(grey: np.ndarray) -> np.ndarray:
    return np.repeat(grey[:, :, None], 3, axis=2)


def test_rgb_comes_as_it_is(picture: np.ndarray, tmp_path: Path) -> None:
    Image.fromarray(picture).save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png")
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, picture)
    image[:] = 0  # writable


def test_alpha_is_dropped_not_blended(picture: np.ndarray, tmp_path: Path) -> None:
    alpha = np.full(picture.shape[:2], 7, np.uint8)
    Image.fromarray(np.dstack([picture, alpha])).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), picture)


def test_grey_and_grey_with_alpha(grey: np.ndarray, tmp_path: Path) -> None:
    Image.fromarray(grey).save(tmp_path / "a.png")
    Image.fromarray(grey).convert("LA").save(tmp_path / "b.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), repeated(grey))
    np.testing.assert_array_equal(read_image(tmp_path / "b.png"), repeated(grey))


@pytest.mark.parametrize("factor", [256, 257])
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bit_keeps_the_upper_bits(grey: np.ndarray, tmp_path: Path, factor: int, suffix: str) -> None:
    Image.fromarray(grey.astype(np.uint16) * factor).save(tmp_path / f"a.{suffix}")
    np.testing.assert_array_equal(read_image(tmp_path / f"a.{suffix}"), repeated(grey))


def test_16_bit_colour(picture: np.ndarray, tmp_path: Path) -> None:
    import cv2

    cv2.imwrite(str(tmp_path / "a.png"), picture[:, :, ::-1].astype(np.uint16) * 257)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), picture)


def test_palette(picture: np.ndarray, tmp_path: Path) -> None:
    palette = Image.fromarray(picture).quantize(200)
    palette.save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), np.asarray(palette.convert("RGB")))
    assert np.abs(read_image(tmp_path / "a.png").astype(int) - picture).mean() < 4


def test_black_and_white(grey: np.ndarray, tmp_path: Path) -> None:
    Image.fromarray(grey > 128).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), repeated((grey > 128) * np.uint8(255)))


def test_cmyk(picture: np.ndarray, tmp_path: Path) -> None:
    Image.fromarray(picture).convert("CMYK").save(tmp_path / "a.tif")
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif"), picture)
    Image.fromarray(picture).convert("CMYK").save(tmp_path / "a.jpg", quality=95)
    assert np.abs(read_image(tmp_path / "a.jpg").astype(int) - picture).max() < 6


def test_a_phone_picture_of_several_frames(picture: np.ndarray, tmp_path: Path) -> None:
    first, second = Image.fromarray(picture), Image.new("RGB", (40, 30))
    first.save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=[second], quality=95)
    assert np.abs(read_image(tmp_path / "a.jpg").astype(int) - picture).mean() < 2


def stored_as(picture: np.ndarray, orientation: int) -> np.ndarray:
    """How a camera stored an upright picture, by what viewers do to it (EXIF 2.3, tag 274)."""
    stored = {
        1: picture,
        2: picture[:, ::-1],
        3: picture[::-1, ::-1],
        4: picture[::-1],
        5: picture.transpose(1, 0, 2),
        6: np.rot90(picture, 1),
        7: picture[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(picture, -1),
    }[orientation]
    return np.ascontiguousarray(stored)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["grey", "16 bits grey", "16 bits colour"])
def test_orientation_of_a_tiff_is_undone(
    picture: np.ndarray, tmp_path: Path, kind: str, orientation: int
) -> None:
    """As of the upright one, from its path and from its bytes."""
    stored = stored_as(picture, orientation)
    path = tmp_path / "a.tif"
    if kind == "16 bits colour":
        values = np.ascontiguousarray(stored[:, :, ::-1]).astype(np.uint16) * 257
        assert cv2.imwrite(str(path), values, [cv2.IMWRITE_TIFF_COMPRESSION, 1])
        content = bytearray(path.read_bytes())
        _add_orientation(content, orientation)
        path.write_bytes(content)
        expected = picture
    else:
        grey = np.ascontiguousarray(stored[:, :, 0])
        image = Image.fromarray(grey if kind == "grey" else grey.astype(np.uint16) * 257)
        image.save(path, tiffinfo={274: orientation})
        expected = np.repeat(picture[:, :, :1], 3, axis=2)
    for source in (path, path.read_bytes()):
        np.testing.assert_array_equal(as_image(source), expected)


def _add_orientation(content: bytearray, orientation: int) -> None:
    """Write tag 274 into a little-endian TIFF's directory, moved to the end of the file."""
    start = int.from_bytes(content[4:8], "little")
    count = int.from_bytes(content[start : start + 2], "little")
    entries = [bytes(content[start + 2 + 12 * i : start + 14 + 12 * i]) for i in range(count)]
    entries = [entry for entry in entries if entry[:2] != (274).to_bytes(2, "little")]
    tag = b"".join(n.to_bytes(size, "little") for n, size in ((274, 2), (3, 2), (1, 4), (orientation, 4)))
    entries = sorted([*entries, tag], key=lambda entry: int.from_bytes(entry[:2], "little"))
    content[4:8] = len(content).to_bytes(4, "little")
    content += len(entries).to_bytes(2, "little") + b"".join(entries) + bytes(4)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_undone(picture: np.ndarray, tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(stored_as(picture, orientation)).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), picture)


def test_annotations_at_the_stored_size_get_the_stored_pixels(picture: np.ndarray, tmp_path: Path) -> None:
    stored = np.ascontiguousarray(np.rot90(picture, 1))  # 30 wide, 40 high
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(stored).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(read_recorded_image(tmp_path / "a.png", 30, 40), stored)
    np.testing.assert_array_equal(read_recorded_image(tmp_path / "a.png", 40, 30), picture)
    np.testing.assert_array_equal(read_recorded_image(tmp_path / "a.png", 0, 0), picture)
    with pytest.raises(InputError, match=r"a\.png: 30x40 .* 80x60"):
        read_recorded_image(tmp_path / "a.png", 80, 60)


def test_pictures_opened_elsewhere(grey: np.ndarray, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[274] = 3
    Image.fromarray(grey).save(tmp_path / "a.png", exif=exif)
    with Image.open(tmp_path / "a.png") as image:
        np.testing.assert_array_equal(to_rgb(image), repeated(grey)[::-1, ::-1])
    _cut_short(tmp_path / "b.jpg")
    with Image.open(tmp_path / "b.jpg") as image, pytest.raises(InputError, match="upload: damaged"):
        to_rgb(image, "upload")


def _nothing(path: Path) -> None:
    pass


def _empty(path: Path) -> None:
    path.touch()


def _text(path: Path) -> None:
    path.write_text("this is not a picture, whatever its name says")


def _cut_short(path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (90, 120, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path, "JPEG")
    path.write_bytes(path.read_bytes()[:2000])


def _cut_png(path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (90, 120, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path, "PNG")
    path.write_bytes(path.read_bytes()[:2000])


def _header_alone(path: Path) -> None:
    _cut_short(path)
    path.write_bytes(path.read_bytes()[:10])


def _folder(path: Path) -> None:
    path.mkdir()


def _postscript(path: Path) -> None:
    Image.new("RGB", (8, 8)).save(path, "EPS")


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (_nothing, "no such file"),
        (_empty, "empty"),
        (_text, "not a picture"),
        (_cut_short, "damaged or cut short"),
        (_cut_png, "damaged or cut short"),
        (_header_alone, "not a picture|damaged"),
        (_folder, "cannot be read"),
        (_postscript, "not a picture"),  # would start Ghostscript
    ],
)
def test_damage_is_one_clear_error(damage: Callable[[Path], None], complaint: str, tmp_path: Path) -> None:
    damage(tmp_path / "photo.jpg")
    with pytest.raises(InputError, match=rf"photo\.jpg: .*({complaint})"):
        read_image(tmp_path / "photo.jpg")


def test_200_megapixels_are_refused_before_decoding(tmp_path: Path) -> None:
    Image.new("1", (20_000, 10_000)).save(tmp_path / "large.png")
    with pytest.raises(InputError, match=r"large\.png: more than 178 million pixels"):
        read_image(tmp_path / "large.png")


def test_large_pictures_below_the_limit_bring_no_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)  # Pillow warns above it and refuses twice as many
    Image.new("RGB", (12, 12)).save(tmp_path / "large.png")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_image(tmp_path / "large.png").shape == (12, 12, 3)


def test_floating_point_pixels_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((4, 4), np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(InputError, match=r"a\.tif: cannot become RGB"):
        read_image(tmp_path / "a.tif")


def test_real_pictures(data_dir: Path) -> None:
    import cv2

    paths = sorted((data_dir / "formats").rglob("*.jpg"))
    assert len(paths) >= 10
    for path in paths:
        expected = cv2.imread(str(path))[:, :, ::-1]
        difference = np.abs(read_image(path).astype(int) - expected)
        assert difference.mean() < 1  # two JPEG decoders may round differently


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("colour", [False, True])
def test_fewer_bits_than_sixteen_are_scaled(
    grey: np.ndarray, picture: np.ndarray, tmp_path: Path, bits: int, colour: bool
) -> None:
    """Cameras write 12 bits into the lower ones of 16."""
    import cv2

    values = (picture if colour else grey).copy()
    values.flat[0] = 255
    stored = (values[..., ::-1] if colour else values).astype(np.uint16) << (bits - 8)
    cv2.imwrite(str(tmp_path / "a.png"), stored)
    expected = values if colour else repeated(values)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), expected)
    np.testing.assert_array_equal(as_image((tmp_path / "a.png").read_bytes()), expected)


def test_the_stored_pixels_are_taken_only_where_they_alone_fit(picture: np.ndarray, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[274] = 3
    Image.fromarray(np.ascontiguousarray(picture[::-1, ::-1])).save(tmp_path / "a.png", exif=exif)
    for size in ((40, 30), (0, 0)):  # upside down fits as well: as read_image
        np.testing.assert_array_equal(read_recorded_image(tmp_path / "a.png", *size), picture)


def test_hostile_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.jp2").write_bytes(bytes.fromhex("0000000c6a5020200d0a870a000000016a70326840000000"))
    Image.new("L", (MAX_SIDE + 1, 1)).save(tmp_path / "wide.png")
    os.mkfifo(tmp_path / "pipe.jpg")
    for name in ("a.jp2", "wide.png", "pipe.jpg"):
        with pytest.raises(InputError, match=name):
            read_image(tmp_path / name)
    with pytest.raises(InputError, match="not a file"):
        read_image("/dev/zero")
