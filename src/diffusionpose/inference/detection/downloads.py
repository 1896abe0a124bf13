"""Getting weights over a network that may be slow, blocked, or not there, in bounded time."""

from __future__ import annotations

import hashlib
import os
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from diffusionpose.files import atomically

REACH_SECONDS = 4.0  # a server that takes longer for a first answer counts as out of reach
STALL_SECONDS = 15.0  # and a download that brings nothing for so long as broken
Tell = Callable[[str], None]  # takes words for the user
OFFLINE = "HF_HUB_OFFLINE"  # the hub's own switch; here it stands for every download


def out_of_reach(url: str, seconds: float = REACH_SECONDS) -> str | None:
    """Why a server cannot be asked now, or None where it answers, be it with an error.

    Takes ``seconds`` at most, also where looking up the name hangs, which no timeout of a socket ends.
    """
    if os.environ.get(OFFLINE, "").strip().upper() in {"1", "ON", "YES", "TRUE"}:
        return f"{OFFLINE} is set"
    answers: list[str | None] = []

    def ask() -> None:
        try:
            urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=seconds).close()
            answers.append(None)
        except urllib.error.HTTPError:
            answers.append(None)  # it is there
        except Exception as error:  # whatever sockets, TLS and proxies raise
            answers.append(str(getattr(error, "reason", error)) or type(error).__name__)

    thread = threading.Thread(target=ask, daemon=True)  # daemon: one that hangs shall not keep the program
    thread.start()
    thread.join(seconds)
    return answers[0] if answers else f"no answer within {seconds:g} s"


def download(url: str, path: Path, sha256: str = "") -> None:
    """Bring a file, whole or not at all.

    Args:
        url: of the file.
        path: where to; its folder is made.
        sha256: how the checksum of the file must begin, in hexadecimal digits.

    Raises:
        OSError: the network or the disk fails, or the checksum is another.
    """

    def fill(part: Path) -> None:
        digest = hashlib.sha256()
        with urllib.request.urlopen(url, timeout=STALL_SECONDS) as source, part.open("wb") as target:
            while chunk := source.read(1 << 20):
                digest.update(chunk)
                target.write(chunk)
        if not digest.hexdigest().startswith(sha256):
            raise OSError(f"{url} came with another checksum than {sha256}...; try again")

    path.parent.mkdir(parents=True, exist_ok=True)
    atomically(path, fill)
