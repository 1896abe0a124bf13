"""The front door: what every request passes before the page sees it.

gradio trusts what it is sent more than a page for strangers can. So this middleware knows the few routes that
the page uses and refuses, with a line that says why:

* other hosts' names and origins (DNS rebinding, uploads from foreign pages);
* other routes, and files that were not sent here: gradio would fetch addresses and open paths;
* bodies that are too large or of unknown length, and uploads beyond what may be kept in all or has room on
  the disk.
"""

import asyncio
import json
import os
import re
import shutil
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from starlette.exceptions import HTTPException
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from diffusionpose.app.web.limits import (
    BLOCK_BYTES,
    FORM_BYTES,
    FREE_BYTES,
    JSON_BYTES,
    JSON_SECONDS,
    UPLOAD_SECONDS,
    Limits,
)

UPLOAD = "/gradio_api/upload"
ROUTES = re.compile(
    r"/|/config/?|/theme\.css|/robots\.txt|/favicon\.ico|/manifest\.json|/(assets|static|svelte)/.+"
    r"|/gradio_api/(info/?|startup-events|app_id/?|upload|upload_progress|queue/(join|data)|cancel|reset/?"
    r"|heartbeat/[^/]+|call/[^/]+(/[^/]+)?|file=(?!\s*https?:).+)",
    re.IGNORECASE | re.DOTALL,
)


class FrontDoor(BaseHTTPMiddleware):
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
        app: ASGIApp,
        limits: Limits,
        folder: Path,
        names: Collection[str] | None = None,
        trusted: Collection[str] = (),
    ) -> None:
        super().__init__(app)
        self.limits, self.folder = limits, folder
        self.names = None if names is None else {*names, *trusted}
        self.trusted = set(trusted)
        self.arriving = 0  # bytes of uploads that are under way

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As of ASGI; who goes away in the middle of an upload leaves no traceback in the log.

        Nor does who asks for the answers of a session that is gone: the page says so in the answer.
        """
        try:
            await super().__call__(scope, receive, send)
        except ClientDisconnect:
            pass
        except RuntimeError as error:
            if not isinstance(error.__cause__, HTTPException):
                raise

    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        """Pass a request on, or refuse it; one whose body does not come in time is dropped."""
        upload = request.scope["path"] == UPLOAD
        try:
            self._check_request(request)
            length = 0 if request.method in ("GET", "HEAD", "OPTIONS") else _length(request)
            seconds = UPLOAD_SECONDS if upload else JSON_SECONDS
            async with asyncio.timeout(seconds if length else None):
                if upload:
                    return await self._upload(request, length, call_next)
                if length > JSON_BYTES:
                    raise HTTPException(413, "That is more than a page can want to send.")
                if length and not self._paths_are_ours(await request.body()):
                    raise HTTPException(400, "Only files that were sent here are used: send the file.")
                return await call_next(request)
        except TimeoutError:
            refused = HTTPException(408, "That took too long to come; please send it again.")
        except HTTPException as error:
            refused = error
        # with an answer to half a request: the other half is not waited for
        headers = {"connection": "close", **({"retry-after": "60"} if refused.status_code == 503 else {})}
        return PlainTextResponse(refused.detail, refused.status_code, headers)

    def _check_request(self, request: Request) -> None:
        """Refuse foreign hosts, foreign origins, and what the page does not use."""
        host, origin = (request.headers.get(name, "").lower() for name in ("host", "origin"))
        if self.names is not None and _name_of(host) not in self.names:
            name = ascii(_name_of(host)[:100])
            raise HTTPException(403, f"This page is not opened by the name {name}; see --allow-host.")
        place = origin.partition("://")[2]
        if origin and place != host and _name_of(place) not in self.trusted:
            raise HTTPException(403, "Requests from pages of other origins are refused; see --allow-host.")
        if not ROUTES.fullmatch(request.scope["path"]):
            raise HTTPException(404, "There is nothing here.")

    async def _upload(self, request: Request, length: int, call_next: RequestResponseEndpoint) -> Response:
        """A file: passed on as it comes, where there is room for all of it."""
        if length > self.limits.file_bytes + FORM_BYTES:
            most = self.limits.megabytes
            raise HTTPException(413, f"The file is larger than {most} MB; please send a smaller one.")
        try:
            self._check_room(length)
        except HTTPException:
            # a browser that is answered while it sends may report a lost connection in the answer's place
            with suppress(ClientDisconnect):
                async for _ in request.stream():
                    pass
            raise
        self.arriving += length
        try:
            return await call_next(request)
        finally:
            self.arriving -= length

    def _check_room(self, coming: int) -> None:
        """Refuse an upload of so many bytes for which is no room."""
        if self.kept() + self.arriving + coming > self.limits.total_bytes:
            raise HTTPException(503, "As many files are kept here as may be; please try again in an hour.")
        if shutil.disk_usage(self.folder).free < FREE_BYTES + coming:
            raise HTTPException(507, "There is no room left on the server's disk.")

    def kept(self) -> int:
        """Bytes of all files in the folder."""
        total = 0
        for parent, _, names in os.walk(self.folder):
            for name in names:
                with suppress(OSError):  # just removed
                    total += max(os.path.getsize(os.path.join(parent, name)), BLOCK_BYTES)
        return total

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


def _length(request: Request) -> int:
    """The length of the body, which must be announced; the server holds the client to it."""
    length = request.headers.get("content-length", "")
    if not length.isdigit():
        raise HTTPException(411, "The length of what is sent must be announced.")
    return int(length)


def _name_of(place: str) -> str:
    """The host name of a ``name:port``; empty for none."""
    with suppress(ValueError):
        return urlsplit(f"//{place}").hostname or ""
    return ""
