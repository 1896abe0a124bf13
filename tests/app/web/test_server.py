"""``diffusionpose web``: what it refuses, what it leaves behind, and its server against strangers."""

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import zlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image

from diffusionpose.app.web import server
from diffusionpose.app.web.limits import Limits
from diffusionpose.app.web.server import PREFIX, remove_left_folders, sweep, swept
from diffusionpose.errors import InputError

gradio_client = pytest.importorskip("gradio_client")
FrontDoor = pytest.importorskip("diffusionpose.app.web.front_door").FrontDoor

pytestmark = pytest.mark.filterwarnings("ignore")  # of gradio's own making
MB = 1_000_000

# --- the command ---


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--port", "0"], "--port 0: ports go from 1 to 65535"),
        (["--max-megabytes", "0"], "--max-megabytes 0 must be 1 or more"),
        (["--max-megapixels", "-1"], "--max-megapixels -1 must be 1 or more"),
        (["--weights", "none.onnx"], "none.onnx: no such file"),
    ],
)
def test_what_cannot_be_is_said(run, words, complaint):
    if "--weights" in words:
        pytest.importorskip("gradio")
    status, out, err = run("web", *words)
    assert (status, out) == (1, "")
    assert complaint in err


def test_without_gradio_the_cure_is_named(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    status, _, err = run("web")
    assert status == 1
    assert "pip install 'diffusionpose[web]'" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_only_an_open_door_is_warned_of(run, monkeypatch, host):
    seen, before = [], dict(os.environ)

    def make_server(page, limits, folder, names, trusted):
        assert folder.is_dir()
        seen.append((folder, limits, page.analytics_enabled, names, trusted))
        return SimpleNamespace(run=lambda sockets: signal.raise_signal(signal.SIGTERM))

    monkeypatch.setattr(server, "make_server", make_server)
    words = ["--host", host, "--max-megabytes", 3, "--allow-host", "pose.example"]
    status, out, err = run("web", *words)
    assert status == 0
    place = "localhost" if host == "0.0.0.0" else host
    assert re.fullmatch(rf"http://{re.escape(place)}:7[89]\d\d/ \(Ctrl-C ends it\)\n", out)
    ((folder, *rest, names, trusted),) = seen
    assert rest == [Limits(3, 50, 2000), False]
    assert (names, trusted) == (None if host == "0.0.0.0" else server.LOOPBACK_NAMES, ("pose.example",))
    assert not folder.exists()
    assert {name: os.environ.get(name) for name in before} == before
    assert ("everybody who can reach this machine" in err) == (host == "0.0.0.0")


def test_it_serves_until_it_is_told_to_stop(tmp_path):
    """In a process of its own, as a user starts it."""
    command = [sys.executable, "-m", "diffusionpose.app.cli", "web", "--device", "cpu"]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        address = process.stdout.readline().split()[0]
        connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=60)
        connection.request("GET", "/")
        assert b"DiffusionPose" in connection.getresponse().read()
        assert len(list(tmp_path.glob(f"{PREFIX}*"))) == 1
        process.terminate()
        assert process.wait(60) == 0
    assert list(tmp_path.glob(f"{PREFIX}*")) == [], "files were left behind"


@pytest.mark.parametrize(
    ("host", "private"),
    [
        ("127.0.0.1", True),
        ("localhost", True),
        ("::1", True),
        ("0.0.0.0", False),
        ("10.1.2.3", False),
        ("a.b", False),
    ],
)
def test_which_addresses_are_private(host, private):
    assert server.is_loopback(host) == private


def test_a_port_in_use_is_one_message():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=rf"--host 127\.0\.0\.1 --port {port}: cannot be listened at"):
            server.listen("127.0.0.1", [port])
        with server.listen("127.0.0.1", [port, 0]) as other:
            assert other.getsockname()[1] != port
    with pytest.raises(InputError, match=r"--host 203\.0\.113\.1: cannot be listened at"):
        server.listen("203.0.113.1", range(7860, 7863))


# --- the folder of visitors' files ---


def test_only_what_is_old_is_swept_away(tmp_path):
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text("x")
        (tmp_path / f"{name}.txt").write_text("x")
    for name in ("old", "old.txt"):
        os.utime(tmp_path / name, (time.time() - 100, time.time() - 100))
    sweep(tmp_path, 50)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "new.txt"]
    sweep(tmp_path / "nowhere", 50)


def test_sweeping_goes_on_by_itself(tmp_path, monkeypatch):
    monkeypatch.setattr("diffusionpose.app.web.server.SWEPT_SECONDS", 0.01)
    monkeypatch.setattr("diffusionpose.app.web.server.KEPT_SECONDS", 0.0)
    (tmp_path / "file").write_text("x")
    with swept(tmp_path):
        until = time.monotonic() + 30
        while any(tmp_path.iterdir()) and time.monotonic() < until:
            time.sleep(0.01)
    assert not any(tmp_path.iterdir())


def test_folders_of_killed_servers_are_removed(tmp_path):
    from filelock import FileLock

    for name in ("dead", "alive", "new"):
        (tmp_path / f"{PREFIX}{name}" / "cache").mkdir(parents=True)
        os.utime(tmp_path / f"{PREFIX}{name}", None if name == "new" else (1e9, 1e9))
    (tmp_path / "elsewhere" / "cache").mkdir(parents=True)
    (tmp_path / f"{PREFIX}link").symlink_to(tmp_path / "elsewhere")
    with FileLock(tmp_path / f"{PREFIX}alive" / "lock"):
        os.utime(tmp_path / f"{PREFIX}alive", (1e9, 1e9))
        remove_left_folders(tmp_path)
    assert (tmp_path / "elsewhere" / "cache").is_dir()
    left = sorted(path.name.removeprefix(PREFIX) for path in tmp_path.iterdir())
    assert left == ["alive", "elsewhere", "link", "new"]


# --- the running server ---


class Visitor:
    """A session of its own, by gradio's client."""

    def __init__(self, served: Any, folder: Path) -> None:
        self.client = gradio_client.Client(
            served.url, verbose=False, analytics_enabled=False, download_files=folder
        )

    def load(self, path: Path) -> str:
        """What the page says of a picture once its poses are found."""
        return said(self.client.predict(gradio_client.handle_file(str(path)), 1, True, 0.2, api_name="/load"))

    def follow(self, path: Path) -> tuple[str, Path | None, list[dict[str, Any]]]:
        """What the page says of a clip at last, and the files it offers: the video, and the lines."""
        answer = self.client.predict(gradio_client.handle_file(str(path)), 0, False, True, api_name="/clip")
        files = [str(part.get("value", part) if isinstance(part, dict) else part) for part in answer]
        lines = [Path(file) for file in files if file.endswith(".jsonl")]
        rows = [json.loads(line) for file in lines for line in file.read_text().splitlines()]
        return said(answer), next((Path(file) for file in files if file.endswith(".mp4")), None), rows

    def run(self, steps: int = 1) -> tuple[str, list[dict[str, Any]]]:
        """What the page says, and the keypoints of the JSON that is offered."""
        answer = self.client.predict(steps, True, 0.2, api_name="/run")
        files = [str(part.get("value", part) if isinstance(part, dict) else part) for part in answer]
        (rows,) = [json.loads(Path(f).read_text()) for f in files if f.endswith("keypoints.json")] or [[]]
        return said(answer), rows


def said(answer: Any) -> str:
    """The notice among what comes back."""
    texts = [str(part.get("value") if isinstance(part, dict) else part) for part in answer]
    (notice,) = [text for text in texts if 'class="notice' in text]
    return notice


@pytest.fixture
def visitor(served, tmp_path):
    return Visitor(served, tmp_path)


def chunk(kind: bytes, data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")


def flat_png(width: int, height: int) -> bytes:
    """A whole black PNG of 24 bits a pixel, made without ever having its pixels."""
    packer, row = zlib.compressobj(1), bytes(1 + 3 * width)
    packed = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    head = width.to_bytes(4, "big") + height.to_bytes(4, "big") + b"\x08\x02\0\0\0"
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("notes.png", b"these are my notes", "notes.png: not a picture that can be read"),
        ("page.svg", b"<svg xmlns='http://www.w3.org/2000/svg'/>", "page.svg: not a picture"),
        ("huge.png", (20000, 10000), "huge.png: more than 30 million pixels"),
        ("large.png", (8000, 4000), "large.png: more than 30 million pixels"),
        ("cut.png", flat_png(3000, 900)[:5000], "cut.png: damaged or cut short"),
    ],
)
def test_bad_files_get_a_friendly_line(served, visitor, tmp_path, name, content, complaint):
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else flat_png(*content))
    assert (tmp_path / name).stat().st_size < 8 * MB
    served.forget_memory()
    before = served.most_memory
    notice = visitor.load(tmp_path / name)
    assert complaint in notice
    assert 'role="alert"' in notice
    assert str(served.folder) not in notice
    assert served.most_memory - before < 60 * MB, "3 bytes a pixel would be 96 and 600 MB"
    assert "There is no picture yet" in visitor.run()[0]


@pytest.mark.parametrize("announced", [True, False])
def test_half_a_gigabyte_is_refused_at_once(served, announced):
    address = urlsplit(served.url).netloc
    connection = http.client.HTTPConnection(address, timeout=60)
    head = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.jpg"\r\n\r\n'
    served.forget_memory()
    before, sent = served.most_memory, 0
    connection.putrequest("POST", "/gradio_api/upload")
    connection.putheader("Content-Type", "multipart/form-data; boundary=x")
    connection.putheader(
        *(("Content-Length", str(500 * MB)) if announced else ("Transfer-Encoding", "chunked"))
    )
    connection.endheaders()
    block = head + bytes(MB)
    try:
        while sent < (2 if announced else 500) * MB:
            connection.send(block if announced else b"%x\r\n%b\r\n" % (len(block), block))
            sent += len(block)
            block = bytes(MB)
    except (BrokenPipeError, ConnectionResetError):
        pass
    assert sent < 200 * MB, "the server hangs up"
    if announced:
        answer = connection.getresponse()
        assert answer.status == 413
        assert b"larger than 8 MB; please send a smaller one" in answer.read()
    connection.close()
    assert served.most_memory - before < 60 * MB
    assert sum(file.stat().st_size for file in served.folder.rglob("*") if file.is_file()) < 30 * MB


def test_pictures_of_all_kinds_are_taken(visitor, people, tmp_path):
    image, _ = people
    picture = Image.fromarray(image)
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.convert("RGBA").save(tmp_path / "alpha.png")
    Image.fromarray(image[:, :, 0].astype(np.uint16) * 256).save(tmp_path / "deep.png")
    picture.convert("L").save(tmp_path / "grey.jpg")
    picture.save(tmp_path / "turned.jpg", exif=exif)
    for name, size in (("alpha.png", 640), ("deep.png", 640), ("grey.jpg", 640), ("turned.jpg", 480)):
        assert "1 pose found. The whole picture counts as one person" in visitor.load(tmp_path / name)
        notice, (row,) = visitor.run(steps=0)
        assert "1 pose found" in notice
        assert row["box"][2] == size, "upright"
        assert row["file_name"] == name


def test_a_clip_is_followed_and_a_bad_one_refused(served, visitor, clip, tmp_path):
    av = pytest.importorskip("av")
    (tmp_path / "notes.mp4").write_text("no video")
    notice, video, rows = visitor.follow(tmp_path / "notes.mp4")
    assert 'role="alert"' in notice
    assert "notes.mp4: is no video that can be read" in notice
    assert str(served.folder) not in notice
    assert (video, rows) == (None, [])
    notice, video, rows = visitor.follow(clip(5))
    assert "5 frames, 1 person." in notice
    assert [row["frame"] for row in rows] == list(range(5))
    with av.open(str(video)) as container:
        assert sum(1 for _ in container.decode(video=0)) == 5


def test_visitors_do_not_see_each_other(served, visitor, people, tmp_path):
    image, _ = people
    other = Visitor(served, tmp_path / "other")
    Image.fromarray(image).save(tmp_path / "mine.png")
    Image.fromarray(image[:300, :200]).save(tmp_path / "yours.png")
    assert "counts as one" in visitor.load(tmp_path / "mine.png")
    assert "There is no picture yet" in other.run()[0], "the other has none"
    assert "counts as one" in other.load(tmp_path / "yours.png")
    (mine,), (yours,) = visitor.run()[1], other.run()[1]
    assert (mine["file_name"], mine["box"]) == ("mine.png", [0, 0, 640, 480])
    assert (yours["file_name"], yours["box"]) == ("yours.png", [0, 0, 200, 300])


def called(served, path: str) -> str:
    """What the server streams back for a picture that lies at a path of its own machine."""
    connection = http.client.HTTPConnection(urlsplit(served.url).netloc, timeout=120)
    body = json.dumps({"data": [{"path": path, "meta": {"_type": "gradio.FileData"}}, 0, False, 0.2]})
    connection.request("POST", "/gradio_api/call/load", body, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    if answer.status != 200:
        return answer.read().decode()
    event = json.loads(answer.read())["event_id"]
    connection.request("GET", f"/gradio_api/call/load/{event}")
    return connection.getresponse().read().decode()


def test_files_of_the_machine_are_out_of_reach(served, tmp_path, monkeypatch):
    secret = tmp_path / "secret.png"
    secret.write_bytes(flat_png(90, 90))
    address = urlsplit(served.url).netloc
    connection = http.client.HTTPConnection(address, timeout=60)
    body = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n%b\r\n--x--\r\n'
    kind = {"Content-Type": "multipart/form-data; boundary=x"}
    connection.request("POST", "/gradio_api/upload", body % secret.read_bytes(), kind)
    (uploaded,) = json.loads(connection.getresponse().read())
    assert "counts as one person" in called(served, uploaded), "what was uploaded can be used"
    for path in (str(secret), "http://127.0.0.1:1/a.png"):
        assert "Only files that were sent here" in called(served, path)
        with monkeypatch.context() as patch:  # nor does gradio itself open others
            patch.setattr(FrontDoor, "_paths_are_ours", lambda self, body: True)
            answer = called(served, path)
        assert "event: error" in answer
        assert "counts as one person" not in answer
    connection.request("GET", f"/gradio_api/file={secret}")
    assert connection.getresponse().status in (403, 404)


def test_a_full_disk_does_not_end_the_server(served, visitor, people, tmp_path, monkeypatch):
    Image.fromarray(people[0][:100, :100]).save(tmp_path / "small.png")

    def full(folder, *_):
        raise OSError(28, "No space left on device", str(folder))

    with monkeypatch.context() as patch:
        patch.setattr("diffusionpose.app.web.picture.write_results", full)
        notice = visitor.load(tmp_path / "small.png")
    assert "No space left on device" in notice
    assert str(served.folder) not in notice
    assert "1 pose found" in visitor.load(tmp_path / "small.png")
