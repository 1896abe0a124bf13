"""``diffusionpose web``: what it refuses, what it warns of, and what it leaves behind."""

import os
import sys
from pathlib import Path

import pytest

from diffusionpose.app.web import server
from diffusionpose.app.web.files import Limits
from diffusionpose.errors import InputError


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--port", "0"], "--port 0: ports go from 1 to 65535"),
        (["--max-megabytes", "0"], "--max-megabytes 0 must be 1 or more"),
        (["--max-megapixels", "-1"], "--max-megapixels -1 must be 1 or more"),
        (["--weights", "none.safetensors"], "none.safetensors: no such file"),
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
def test_only_an_open_door_is_warned_of(run, tiny_weights, monkeypatch, host):
    pytest.importorskip("gradio")
    seen, before = [], dict(os.environ)

    def serve(page, host, port, limits, ready):
        folder = Path(os.environ["GRADIO_TEMP_DIR"]).parent
        assert folder.is_dir()
        seen.append((folder, host, port, limits, page.analytics_enabled, page.delete_cache))

    monkeypatch.setattr(server, "serve", serve)
    status, _, err = run("web", "--host", host, "--weights", tiny_weights, "--max-megabytes", 3)
    assert status == 0
    ((folder, *given),) = seen
    assert given == [host, None, Limits(3, 50), False, (600, 3600)]
    assert not folder.exists()
    assert {name: os.environ.get(name) for name in before} == before
    assert ("everybody who can reach this machine" in err) == (host == "0.0.0.0")


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
    assert server.is_private(host) == private


def test_a_port_in_use_is_one_message():
    pytest.importorskip("gradio")

    class Busy:
        def launch(self, **options):
            raise OSError("Cannot find empty port in range: 80-80")

    with pytest.raises(InputError, match=r"--host 127.0.0.1 --port 80: cannot be listened at"):
        server.serve(Busy(), "127.0.0.1", 80, Limits(), print)
