"""Whatever is sent: a picture, or one friendly line, in bounded memory."""

import asyncio
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffusionpose.app.web.files import FORM_BYTES, BodyLimit, Limits, read_upload
from diffusionpose.errors import InputError

LIMITS = Limits(megabytes=2, megapixels=3)


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and has no pixels to show for it."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        sealed = kind + data
        return len(data).to_bytes(4, "big") + sealed + zlib.crc32(sealed).to_bytes(4, "big")

    size = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", size + b"\x08\x02\0\0\0")
        + chunk(b"IDAT", b"")
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "x.png: the file is empty"),
        (b"no picture at all", "x.png: not a picture"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "x.png: not a picture"),
        (png_header(2000, 1501), "x.png: 2000 x 1501 pixels is more than 3 million pixels; scale it down"),
        (png_header(20000, 10000), "x.png: this picture is more than 3 million pixels"),  # Pillow's own limit
        (png_header(2000, 1500), "x.png: damaged or cut short"),
    ],
)
def test_what_cannot_be_used_is_said_without_our_folders(
    tmp_path: Path, content: bytes, complaint: str
) -> None:
    (tmp_path / "x.png").write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_upload(tmp_path / "x.png", LIMITS)
    assert str(caught.value).startswith(complaint)
    assert str(tmp_path) not in str(caught.value)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1", "I;16", "CMYK", "rotated"])
def test_pictures_of_every_kind_come_as_rgb(tmp_path: Path, picture: np.ndarray, mode: str) -> None:
    image, path = Image.fromarray(picture), tmp_path / ("x.tif" if mode == "CMYK" else "x.png")
    if mode == "I;16":
        Image.fromarray(picture[:, :, 0].astype(np.uint16) * 256).save(path)
    elif mode == "rotated":
        exif = Image.Exif()
        exif[0x0112] = 6
        image.save(path, exif=exif)
    else:
        image.convert(mode).save(path)
    read = read_upload(path, LIMITS)
    assert read.dtype == np.uint8
    if mode == "rotated":
        assert (read == np.rot90(picture, -1)).all()
    elif mode == "I;16":
        assert (read == picture[:, :, :1]).all()
    else:
        assert read.shape == picture.shape
        assert (mode != "RGBA") or (read == picture).all()


def answered(limit: BodyLimit, headers: list[tuple[bytes, bytes]], chunks: list[bytes]) -> list[dict]:
    """What comes back for a request whose body comes in chunks."""
    rest, sent = list(chunks), []

    async def receive() -> dict:
        return {"type": "http.request", "body": rest.pop(0), "more_body": bool(rest)}

    async def send(message: dict) -> None:
        sent.append(message)

    asyncio.run(limit({"type": "http", "method": "POST", "headers": headers}, receive, send))
    return sent


def test_a_body_that_is_too_large_is_refused() -> None:
    read = []

    async def app(scope: dict, receive, send) -> None:
        more = True
        while more:
            message = await receive()
            read.append(len(message["body"]))
            more = message["more_body"]
        await send({"type": "http.response.start", "status": 200, "headers": []})

    most = LIMITS.file_bytes + FORM_BYTES
    limit = BodyLimit(app, LIMITS)
    announced = [(b"content-length", str(most + 1).encode())]
    assert answered(limit, announced, [b"x"])[0]["status"] == 413
    assert read == [], "not even looked at"
    half = b"x" * (most // 2)
    refused = answered(limit, [], [half, half, b"xx", b"never read"])
    assert refused[0]["status"] == 413
    assert b"larger than 2 MB" in refused[1]["body"]
    assert sum(read) == 2 * len(half)
    taken = answered(limit, [(b"content-length", b"%d" % most)], [half, half])[0]
    assert taken == {"type": "http.response.start", "status": 200, "headers": []}


def test_nobody_waits_for_the_rest_of_a_refused_body() -> None:
    async def app(scope: dict, receive, send) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 413, "headers": []})

    (start,) = answered(BodyLimit(app, LIMITS), [], [b"a", b"b"])
    assert start["headers"] == [(b"connection", b"close")]
