"""The front door: what every request passes before the page sees it.

gradio trusts what it is sent more than a page for strangers can. So this ASGI middleware knows the few routes
that the page uses and refuses, with a line that says why:

* other hosts' names and origins (DNS rebinding, uploads from foreign pages);
* other routes, and files that were not sent here: gradio would fetch addresses and open paths;
* bodies that are too large, uploads beyond what may be kept in all or has room on the disk;
* requests beyond the number that are answered at the same time ("busy").
"""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

MILLION = 1_000_000
FORM_BYTES = MILLION  # what an upload may have besides the file it carries
JSON_BYTES = 200_000  # the largest other body; parsed JSON takes some fifty times its length in memory
FREE_BYTES = 200 * MILLION  # of the disk are left to others
BLOCK_BYTES = 64_000  # a kept file counts as this much at least, so that their number is bounded as well
COUNTED_EVERY = 1.0  # seconds between two looks at what is kept

KEPT_SECONDS = 3600  # files and pictures of visitors live so long
SWEPT_SECONDS = 600  # and are looked through so often

MOST_REQUESTS = 200  # answered at the same time; an open page holds one, and one more while it waits

LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
UPLOAD = "/gradio_api/upload"
ROUTES = re.compile(
    r"/|/config/?|/theme\.css|/robots\.txt|/favicon\.ico|/manifest\.json|/(assets|static|svelte)/.+"
    r"|/gradio_api/(info/?|startup-events|app_id/?|upload|upload_progress|queue/(join|data)|cancel|reset/?"
    r"|heartbeat/[^/]+|call/[^/]+(/[^/]+)?|file=(?!\s*https?:).+)",
    re.IGNORECASE | re.DOTALL,
)

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Message, Receive, Send], Awaitable[None]]


@dataclass(frozen=True)
class Limits:
    """How large a file, a picture and all files that are kept at a time may be, in millions."""

    megabytes: int = 64
    megapixels: float = 50
    total_megabytes: int = 2000

    @property
    def file_bytes(self) -> int:
        """The largest file, bytes."""
        return self.megabytes * MILLION


class Refused(Exception):
    """A request that is not passed on: the status of HTTP, and a sentence for the visitor."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


BUSY = "The page is busy; please try again in a minute."


class FrontDoor:
    """ASGI middleware in front of the page.

    Args:
        app: the page's ASGI application.
        limits: on what is sent.
        folder: in which all files of visitors lie.
        names: host names that the page may be opened by; None for any, where the page is open to a network.
        trusted: further host names whose pages may send requests, as those of a proxy.
    """

    def __init__(
        self,
        app: Application,
        limits: Limits,
        folder: Path,
        names: Collection[str] | None = None,
        trusted: Collection[str] = (),
    ) -> None:
        self.app, self.limits, self.folder = app, limits, folder
        self.names = None if names is None else {*names, *trusted}
        self.trusted = set(trusted)
        self.requests = 0
        self.arriving = 0  # bytes of uploads that are under way
        self._kept = (0, float("-inf"))  # bytes, and when they were counted

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        if scope["type"] != "http":
            return  # the page uses no web sockets
        try:
            self._check_request(scope)
        except Refused as refused:
            await _answer(send, refused)
            return
        self.requests += 1
        try:
            answer = self._upload if scope["path"] == UPLOAD else self._pass_on
            await answer(scope, receive, send)
        finally:
            self.requests -= 1

    def _check_request(self, scope: Message) -> None:
        """Refuse foreign hosts, foreign origins, what the page does not use, and one request too many."""
        headers = dict(scope["headers"])
        host, origin = (headers.get(name, b"").decode("latin-1").lower() for name in (b"host", b"origin"))
        if self.names is not None and _name_of(host) not in self.names:
            name = ascii(_name_of(host)[:100])
            raise Refused(403, f"This page is not opened by the name {name}; see --allow-host.")
        place = origin.partition("://")[2]
        if origin and place != host and _name_of(place) not in self.trusted:
            raise Refused(403, "Requests from pages of other origins are refused; see --allow-host.")
        if not ROUTES.fullmatch(scope["path"]):
            raise Refused(404, "There is nothing here.")
        if self.requests >= MOST_REQUESTS:
            raise Refused(503, BUSY)

    async def _pass_on(self, scope: Message, receive: Receive, send: Send) -> None:
        """A request whose body, if it has one, is short: all of it is read before it is passed on."""
        body, more = b"", scope["method"] not in ("GET", "HEAD", "OPTIONS")
        length = _length(scope)
        while more:
            message = await receive()
            if message["type"] != "http.request":
                return
            body, more = body + message.get("body", b""), message.get("more_body", False)
            if max(len(body), length) > JSON_BYTES:
                await _answer(send, Refused(413, "That is more than a page can want to send."))
                return
        if body and not self._paths_are_ours(body):
            await _answer(send, Refused(400, "Only files that were sent here are used: send the file."))
            return
        read: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay() -> Message:
            return read.pop() if read else await receive()

        await self.app(scope, replay, send)

    async def _upload(self, scope: Message, receive: Receive, send: Send) -> None:
        """A file: passed on as it comes, until it is more than it may be."""
        length, read, whole, started, over = _length(scope), 0, False, False, False

        async def counted() -> Message:
            nonlocal read, whole, over
            message = await receive()
            size = len(message.get("body", b""))
            read += size
            self.arriving += size
            whole = not message.get("more_body", False)
            try:
                self._check_room(read, 0)
            except Refused as refused:
                if not started and not over:
                    await _answer(send, refused)
                over = True
            return {"type": "http.disconnect"} if over else message

        async def noted(message: Message) -> None:
            nonlocal started
            if over:
                return
            if message["type"] == "http.response.start" and not whole:  # refused by the page itself
                message = {**message, "headers": [*message["headers"], CLOSE]}
            started = True
            await send(message)

        try:
            self._check_room(length, length)
        except Refused as refused:
            if refused.status != 413:
                await self._discard(receive)
            await _answer(send, refused)
            return
        try:
            await self.app(scope, counted, noted)
        except Exception:  # the page's own, that nobody is there any more
            if not over:
                raise
        finally:
            self.arriving -= read

    async def _discard(self, receive: Receive) -> None:
        """Take a body of the allowed size before it is refused: a browser that is answered, and hung up on,
        in the middle of sending may report a lost connection in the place of the answer."""
        taken, more = 0, True
        while more and taken <= self.limits.file_bytes + FORM_BYTES:
            message = await receive()
            taken += len(message.get("body", b""))
            more = message["type"] == "http.request" and message.get("more_body", False)

    def _check_room(self, size: int, coming: int) -> None:
        """Refuse an upload of ``size`` bytes, ``coming`` of which are still to come, for which is no room."""
        if size > self.limits.file_bytes + FORM_BYTES:
            most = self.limits.megabytes
            raise Refused(413, f"The file is larger than {most} MB; please send a smaller one.")
        if self.kept() + self.arriving + coming > self.limits.total_megabytes * MILLION:
            raise Refused(503, "As many files are kept here as may be; please try again in an hour.")
        if shutil.disk_usage(self.folder).free < FREE_BYTES + coming:
            raise Refused(507, "There is no room left on the server's disk.")

    def _paths_are_ours(self, body: bytes) -> bool:
        """Whether all files that JSON names lie in the folder; gradio might fetch and open others."""
        paths: list[Any] = []  # of the objects at every depth
        try:
            json.loads(body, object_hook=lambda entry: paths.append(entry.get("path")))
        except RecursionError:
            return False
        except ValueError:  # no JSON: the page says so
            return True
        root = os.path.realpath(self.folder) + os.sep
        return all(os.path.realpath(path).startswith(root) for path in paths if isinstance(path, str))

    def kept(self) -> int:
        """Bytes of all files in the folder, counted at most once a second."""
        kept, when = self._kept
        if time.monotonic() - when > COUNTED_EVERY:
            kept = sum(
                max(_size(os.path.join(parent, name)), BLOCK_BYTES)
                for parent, _, names in os.walk(self.folder)
                for name in names
            )
            self._kept = kept, time.monotonic()
        return kept


CLOSE = (b"connection", b"close")  # with an answer to half a request: the other half is not waited for


async def _answer(send: Send, refused: Refused) -> None:
    text = str(refused).encode()
    headers = [(b"content-type", b"text/plain"), (b"content-length", str(len(text)).encode()), CLOSE]
    if refused.status == 503:
        headers.append((b"retry-after", b"60"))
    await send({"type": "http.response.start", "status": refused.status, "headers": headers})
    await send({"type": "http.response.body", "body": text})


def _length(scope: Message) -> int:
    """The length of the body, as announced; 0 where it is not."""
    length = dict(scope["headers"]).get(b"content-length", b"0")
    return int(length) if length.isdigit() else 0


def _name_of(place: str) -> str:
    """The host name of a ``name:port``; empty for none."""
    with suppress(ValueError):
        return urlsplit(f"//{place}").hostname or ""
    return ""


def _size(path: str) -> int:
    with suppress(OSError):  # just removed
        return os.path.getsize(path)
    return 0
