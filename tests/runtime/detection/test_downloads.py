import hashlib
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from diffusionpose.runtime import detectors as downloads
from diffusionpose.runtime.detectors import download, out_of_reach

CONTENT = b"weights" * 1000
DIGEST = hashlib.sha256(CONTENT).hexdigest()


class Answers(BaseHTTPRequestHandler):
    """Gives CONTENT at /good, half of it at /cut, nothing elsewhere."""

    def do_GET(self) -> None:
        found = self.path in ("/good", "/cut")
        self.send_response(200 if found else 404)
        self.send_header("Content-Length", str(len(CONTENT) if found else 0))
        self.end_headers()
        if found and self.command == "GET":
            self.wfile.write(CONTENT if self.path == "/good" else CONTENT[:2000])

    do_HEAD = do_GET

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setenv("no_proxy", "*")
    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as answering:
        threading.Thread(target=answering.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{answering.server_port}"
        answering.shutdown()


def test_a_server_that_answers_is_in_reach_whatever_it_answers(server: str) -> None:
    assert out_of_reach(f"{server}/good") is None
    assert out_of_reach(f"{server}/nothing") is None


def test_a_server_that_is_not_there_or_says_nothing_is_out_of_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setenv("no_proxy", "*")
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/x"
        assert "refused" in str(out_of_reach(url))
        silent.listen()
        start = time.monotonic()
        assert out_of_reach(url, 0.3)
        assert time.monotonic() - start < 3


def test_a_look_up_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    free = threading.Event()
    monkeypatch.setattr(downloads.urllib.request, "urlopen", lambda *a, **k: free.wait(30))
    assert out_of_reach("https://example.org", 0.2) == "no answer within 0.2 s"
    free.set()


def test_the_environment_can_forbid_the_network(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert out_of_reach(f"{server}/good") == "HF_HUB_OFFLINE is set"
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    assert out_of_reach(f"{server}/good") is None


def test_a_file_comes_whole_or_not_at_all(server: str, tmp_path: Path) -> None:
    download(f"{server}/good", tmp_path / "new" / "a.pth", DIGEST[:8])
    assert (tmp_path / "new" / "a.pth").read_bytes() == CONTENT
    for path, digest in (("good", "0000"), ("cut", DIGEST[:8]), ("nothing", "")):
        with pytest.raises(OSError, match=r"checksum|404"):
            download(f"{server}/{path}", tmp_path / "b.pth", digest)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new"]
