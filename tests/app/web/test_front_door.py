"""What the front door lets in, and what it refuses; without a server, and without gradio."""

import asyncio
import json
import os
from concurrent.futures import ThreadPoolExecutor

import pytest

pytest.importorskip("starlette")
testing = pytest.importorskip("starlette.testclient")
ClientDisconnect = pytest.importorskip("starlette.requests").ClientDisconnect
HTTPException = pytest.importorskip("starlette.exceptions").HTTPException

from diffusionpose.app.web import front_door  # noqa: E402
from diffusionpose.app.web.front_door import UPLOAD, FrontDoor  # noqa: E402
from diffusionpose.app.web.limits import FORM_BYTES, JSON_BYTES, MILLION, Limits  # noqa: E402
from diffusionpose.app.web.server import LOOPBACK_NAMES  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")  # of starlette's test client
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
                raise ClientDisconnect
            self.read += len(message["body"])
            more = message.get("more_body", False)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": str(self.read).encode()})


@pytest.fixture
def page():
    return Page()


@pytest.fixture
def door(page, tmp_path):
    return FrontDoor(page, LIMITS, tmp_path, LOOPBACK_NAMES)


def ask(door, path="/", body=None, host="localhost:7860", **headers):
    """The status and the text that come back; a list of chunks is sent without saying how long it is."""
    client = testing.TestClient(door)
    headers = {"host": host, **{name.replace("_", "-"): str(value) for name, value in headers.items()}}
    content = iter(body) if isinstance(body, list) else body
    answer = client.request("GET" if body is None else "POST", path, content=content, headers=headers)
    if answer.status_code != 200:
        assert answer.headers["connection"] == "close", "nobody waits for the rest of a refused body"
    return answer.status_code, answer.text


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
    assert ask(door, UPLOAD, b"x", host=host, **headers)[0] == status


def test_names_of_a_proxy_can_be_let_in(page, tmp_path):
    door = FrontDoor(page, LIMITS, tmp_path, LOOPBACK_NAMES, {"pose.example"})
    assert ask(door, host="pose.example")[0] == 200
    assert ask(door, host="localhost:7860", origin="https://pose.example")[0] == 200
    assert ask(door, host="localhost:7860", origin="https://evil.example")[0] == 403
    status, text = ask(door, host="evil.example")
    assert (status, "--allow-host" in text) == (403, True)


def test_open_to_a_network_any_name_is_taken_but_no_foreign_page(page, tmp_path):
    door = FrontDoor(page, LIMITS, tmp_path, None)
    assert ask(door, host="10.1.2.3:7860", origin="http://10.1.2.3:7860")[0] == 200
    assert ask(door, host="10.1.2.3:7860", origin="http://evil.com")[0] == 403


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/file=http://example.com/a.png",
        "/gradio_api/file=HTTPS://example.com/a.png",
        "/gradio_api/file=%20http://example.com/a.png",
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
def test_only_files_that_were_sent_here_are_used(door, page, tmp_path, content, status):
    body = (
        json.dumps(content).replace("FOLDER", str(tmp_path)).replace("tp:", "\\u0074p:").encode()
    )  # JSON can spell a letter in two ways
    assert ask(door, JOIN, body)[0] == status
    assert page.read == (len(body) if status == 200 else 0)


def test_json_is_short_and_not_deep(door, page):
    assert ask(door, JOIN, b"x" * JSON_BYTES)[0] == 200, "what is no JSON is the page's to refuse"
    assert ask(door, JOIN, b"x" * (JSON_BYTES + 1))[0] == 413
    assert ask(door, JOIN, b"x", content_length=60_000_000)[0] == 413
    assert ask(door, JOIN, b"[" * (JSON_BYTES - 9))[0] == 400
    assert page.read == JSON_BYTES


@pytest.mark.parametrize("path", [JOIN, UPLOAD])
def test_what_may_be_endless_is_refused(door, page, path):
    assert ask(door, path, [b"x", b"x"])[0] == 411
    assert page.read == 0


def test_a_file_that_is_too_large_is_refused(door, page):
    status, text = ask(door, UPLOAD, b"x", content_length=MOST + 1)
    assert (status, text) == (413, "The file is larger than 2 MB; please send a smaller one.")
    assert page.read == 0, "not even looked at"
    assert ask(door, UPLOAD, b"x" * MOST) == (200, str(MOST))
    assert door.arriving == 0


def test_what_is_kept_in_all_is_bounded(door, tmp_path, monkeypatch):
    monkeypatch.setattr(front_door, "BLOCK_BYTES", MILLION)
    (tmp_path / "cache").mkdir()
    for name in range(6):
        (tmp_path / "cache" / str(name)).write_text("small files count as well")
    assert door.kept() == 6 * MILLION
    assert ask(door, UPLOAD, b"x" * MILLION)[0] == 200
    door.arriving = MILLION // 2
    status, text = ask(door, UPLOAD, b"x" * (3 * MILLION // 2 + 1))
    assert (status, "try again" in text) == (503, True)
    assert ask(door)[0] == 200, "the page itself is there"
    for name in range(6):
        (tmp_path / "cache" / str(name)).unlink()
    assert ask(door, UPLOAD, b"x" * (3 * MILLION // 2 + 1))[0] == 200


def test_a_full_disk_is_said_once_the_whole_file_has_come(door, page, monkeypatch):
    monkeypatch.setattr(front_door, "FREE_BYTES", 10**18)
    assert ask(door, UPLOAD, b"xxx") == (507, "There is no room left on the server's disk.")
    assert page.read == 0


@pytest.mark.parametrize("way", ["passed on", "refused", "not a file"])
def test_what_stops_coming_gives_back_its_room(door, page, monkeypatch, way):
    for name in ("UPLOAD_SECONDS", "JSON_SECONDS"):
        monkeypatch.setattr(front_door, name, 0.2)
    if way == "refused":  # which is read to its end before it is answered
        monkeypatch.setattr(front_door, "FREE_BYTES", 10**18)
    asked, sent = [], []

    async def receive():
        """Half of the body; the other half never comes."""
        asked.append(door.arriving)
        if len(asked) > 1:
            await asyncio.sleep(60)
        return {"type": "http.request", "body": b"x" * 50, "more_body": True}

    async def send(message):
        sent.append(message)

    headers = [(b"host", b"localhost"), (b"content-length", b"100")]
    path = JOIN if way == "not a file" else UPLOAD
    scope = {"type": "http", "method": "POST", "path": path, "query_string": b"", "headers": headers}
    # in a thread of its own: the browser of other tests leaves a running event loop in this one
    with ThreadPoolExecutor(1) as pool:
        pool.submit(asyncio.run, door(scope, receive, send)).result()
    expected = (50, 100) if way == "passed on" else (0, 0)
    assert (page.read, asked[0], door.arriving) == (*expected, 0)
    assert sent[0]["status"] == 408
    assert b"send it again" in sent[1]["body"]


def test_who_goes_away_leaves_no_traceback(door, page):
    async def receive():
        return {"type": "http.disconnect"}

    async def send(message):
        raise AssertionError(message)

    headers = [(b"host", b"localhost"), (b"content-length", b"100")]
    scope = {"type": "http", "method": "POST", "path": UPLOAD, "query_string": b"", "headers": headers}
    with ThreadPoolExecutor(1) as pool:
        pool.submit(asyncio.run, door(scope, receive, send)).result()
    assert (page.read, door.arriving) == (0, 0)


def test_errors_of_the_page_are_passed_on(tmp_path):
    async def broken(scope, receive, send):
        raise ZeroDivisionError

    door = FrontDoor(broken, LIMITS, tmp_path)
    for path in ("/", UPLOAD):
        with pytest.raises(ZeroDivisionError):
            ask(door, path, b"x")
    assert door.arriving == 0
    assert os.listdir(tmp_path) == []


def test_an_answer_that_ends_in_an_error_leaves_no_traceback(tmp_path):
    """As gradio's to who asks for a session that is gone; the test client raises what comes through."""

    async def page(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"unexpected_error", "more_body": True})
        try:
            raise failure
        except HTTPException as error:
            raise RuntimeError("Caught handled exception, but response already started.") from error

    door = FrontDoor(page, LIMITS, tmp_path)
    failure = HTTPException(404)
    assert ask(door) == (200, "unexpected_error")
    failure = OSError()
    with pytest.raises(OSError):  # noqa: PT011
        ask(door)
