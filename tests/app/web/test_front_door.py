"""What the front door lets in, and what it refuses; without a server, and without gradio."""

import json
import os

import pytest

from diffusionpose.app.web import front_door
from diffusionpose.app.web.front_door import (
    FORM_BYTES,
    JSON_BYTES,
    LOOPBACK_NAMES,
    MILLION,
    UPLOAD,
    FrontDoor,
    Limits,
)

LIMITS = Limits(megabytes=2, megapixels=3, total_megabytes=8)
MOST = LIMITS.file_bytes + FORM_BYTES
JOIN = "/gradio_api/queue/join"


class Page:
    """The application behind the door: reads a body and says how long it is."""

    def __init__(self):
        self.read = 0

    async def __call__(self, scope, receive, send):
        more = scope["method"] == "POST"
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ConnectionError("as starlette does")
            self.read += len(message["body"])
            more = message["more_body"]
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": str(self.read).encode()})


@pytest.fixture
def door(tmp_path):
    return FrontDoor(Page(), LIMITS, tmp_path, LOOPBACK_NAMES)


def ask(door, path="/", chunks=(), host="localhost:7860", **headers):
    """The status and the text that come back for a request whose body comes in chunks."""
    rest, sent = chunks if isinstance(chunks, list) else list(chunks), []

    async def receive():
        return {"type": "http.request", "body": rest.pop(0), "more_body": bool(rest)}

    async def send(message):
        sent.append(message)

    pairs = [(b"host", host.encode())]
    pairs += [(name.replace("_", "-").encode(), str(value).encode()) for name, value in headers.items()]
    scope = {"type": "http", "method": "POST" if chunks else "GET", "path": path, "headers": pairs}
    with pytest.raises(
        StopIteration
    ):  # it ends without waiting; a browser's loop leaves no place for another
        door(scope, receive, send).send(None)
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
    if sent[0]["status"] != 200:
        assert (b"connection", b"close") in sent[0]["headers"], "nobody waits for the rest of a refused body"
    return sent[0]["status"], sent[1]["body"].decode()


@pytest.mark.parametrize(
    ("host", "origin", "status"),
    [
        ("localhost:7860", None, 200),
        ("127.0.0.1:9000", "http://127.0.0.1:9000", 200),  # through a tunnel
        ("[::1]:7860", "http://[::1]:7860", 200),
        ("LocalHost:7860", None, 200),
        ("evil.com", None, 403),  # DNS rebinding
        ("evil.com:7860", "http://evil.com:7860", 403),
        ("localhost.evil.com:7860", None, 403),
        ("", None, 403),
        ("[:", None, 403),
        ("localhost:7860", "http://evil.com", 403),  # a foreign page
        ("localhost:7860", "http://localhost:3000", 403),
        ("localhost:7860", "null", 403),
    ],
)
def test_foreign_names_and_pages_are_refused(door, host, origin, status):
    headers = {} if origin is None else {"origin": origin}
    assert ask(door, host=host, **headers)[0] == status
    assert ask(door, UPLOAD, [b"x"], host=host, **headers)[0] == status


def test_names_of_a_proxy_can_be_let_in(tmp_path):
    door = FrontDoor(Page(), LIMITS, tmp_path, LOOPBACK_NAMES, {"pose.example"})
    assert ask(door, host="pose.example")[0] == 200
    assert ask(door, host="localhost:7860", origin="https://pose.example")[0] == 200
    assert ask(door, host="localhost:7860", origin="https://evil.example")[0] == 403
    status, text = ask(door, host="evil.example")
    assert (status, "--allow-host" in text) == (403, True)


def test_open_to_a_network_any_name_is_taken_but_no_foreign_page(tmp_path):
    door = FrontDoor(Page(), LIMITS, tmp_path, None)
    assert ask(door, host="10.1.2.3:7860", origin="http://10.1.2.3:7860")[0] == 200
    assert ask(door, host="10.1.2.3:7860", origin="http://evil.com")[0] == 403


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/file=http://example.com/a.png",
        "/gradio_api/file=HTTPS://example.com/a.png",
        "/gradio_api/file= http://example.com/a.png",
        "/gradio_api/proxy=http://example.com",
        "/gradio_api/file/etc/passwd",
        "/gradio_api/stream/x/1/2/playlist.m3u8",
        "/gradio_api/run/load",
        "/gradio_api/vibe-edit/",
        "/monitoring",
        "/login",
        "/gradio_api//file=http://example.com",
    ],
)
def test_routes_the_page_does_not_use_are_closed(door, path):
    assert ask(door, path)[0] == 404


@pytest.mark.parametrize(
    ("content", "status"),
    [
        ({"data": [{"path": "FOLDER/cache/a.png"}]}, 200),
        ({"data": [{"path": "FOLDER/../a.png"}]}, 400),
        ({"data": [{"path": "FOLDER"}]}, 400),
        ({"data": [{"path": "/etc/passwd"}]}, 400),
        ({"data": [{"path": "\\0"}]}, 400),
        ({"data": ["http://just.text"]}, 200),
        ({"data": [{"path": "http://example.com/a.png"}]}, 400),
        ({"data": [[{"a": {"path": " HTTPS://example.com"}}]]}, 400),
    ],
)
def test_only_files_that_were_sent_here_are_used(door, tmp_path, content, status):
    body = (
        json.dumps(content).replace("FOLDER", str(tmp_path)).replace("tp:", "\\u0074p:").encode()
    )  # JSON can spell a letter in two ways
    assert ask(door, JOIN, [body[:9], body[9:]])[0] == status
    assert door.app.read == (len(body) if status == 200 else 0)


def test_json_is_short_and_not_deep(door):
    assert ask(door, JOIN, [b"x" * JSON_BYTES])[0] == 200, "what is no JSON is the page's to refuse"
    assert ask(door, JOIN, [b"x" * JSON_BYTES, b"x", b"never read"])[0] == 413
    assert ask(door, JOIN, [b"x"], content_length=60_000_000)[0] == 413
    assert ask(door, JOIN, [b"[" * (JSON_BYTES - 9)])[0] == 400
    assert door.app.read == JSON_BYTES


def test_a_file_that_is_too_large_is_refused(door):
    status, text = ask(door, UPLOAD, [b"x"], content_length=MOST + 1)
    assert (status, text) == (413, "The file is larger than 2 MB; please send a smaller one.")
    assert door.app.read == 0, "not even looked at"
    half = b"x" * (MOST // 2)
    status, text = ask(door, UPLOAD, [half, half, b"xx", b"never read"])
    assert (status, "larger than 2 MB" in text) == (413, True)
    assert door.app.read == MOST
    assert ask(door, UPLOAD, [half, half], content_length=MOST)[0] == 200
    assert (door.arriving, door.requests) == (0, 0)


def test_what_is_kept_in_all_is_bounded(door, tmp_path, monkeypatch):
    monkeypatch.setattr(front_door, "COUNTED_EVERY", 0.0)
    monkeypatch.setattr(front_door, "BLOCK_BYTES", MILLION)
    (tmp_path / "cache").mkdir()
    for name in range(6):
        (tmp_path / "cache" / str(name)).write_text("small files count as well")
    assert door.kept() == 6 * MILLION
    assert ask(door, UPLOAD, [b"x" * MILLION], content_length=MILLION)[0] == 200
    status, text = ask(door, UPLOAD, [b"x"], content_length=2 * MILLION + 1)
    assert (status, "try again" in text) == (503, True)
    assert ask(door, UPLOAD, [b"x" * MILLION] * 3)[0] == 503, "as soon as it is more"
    assert ask(door)[0] == 200, "the page itself is there"
    for name in range(6):
        (tmp_path / "cache" / str(name)).unlink()
    assert ask(door, UPLOAD, [b"x"], content_length=2 * MILLION + 1)[0] == 200


def test_a_full_disk_is_said_once_the_whole_file_has_come(door, monkeypatch):
    monkeypatch.setattr(front_door, "FREE_BYTES", 10**18)
    chunks = [b"x", b"x", b"x"]
    assert ask(door, UPLOAD, chunks) == (507, "There is no room left on the server's disk.")
    assert chunks == [], "a browser that is answered while it sends may see a lost connection instead"


def test_more_requests_than_can_be_answered_are_told_so(door, monkeypatch):
    monkeypatch.setattr(front_door, "MOST_REQUESTS", 3)
    door.requests = 3
    assert ask(door) == (503, front_door.BUSY)
    door.requests = 2
    assert ask(door)[0] == 200
    assert door.requests == 2


def test_errors_of_the_page_are_passed_on(tmp_path):
    async def broken(scope, receive, send):
        raise ZeroDivisionError

    door = FrontDoor(broken, LIMITS, tmp_path)
    for path in ("/", UPLOAD):
        with pytest.raises(ZeroDivisionError):
            ask(door, path, [b"x"])
    assert (door.arriving, door.requests) == (0, 0)
    assert os.listdir(tmp_path) == []
