"""The gallery on this machine alone, with a place that saves decisions.

    browser --> /TOKEN/report/..., /TOKEN/assets/... --> the campaign's files
    browser --> POST /TOKEN/decisions, lines of JSON --> save() --> {"saved": n}

It listens on 127.0.0.1. A page of another site cannot use it: it does not know the token, which stands in the path and,
where decisions are sent, in a header too; and the names of the host and of the page's origin have to be this server's,
so that a name that was made to point here (DNS rebinding) is refused.
"""

from __future__ import annotations

import asyncio
import json
import re
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from aiohttp import web

from sdbatch.errors import SdbatchError, UserError
from sdbatch.review.decision import Decision
from sdbatch.review.files import parse_lines
from sdbatch.storage import Store
from sdbatch.storage.store import READ_BYTES_MAX

HOST: Final = "127.0.0.1"
TOKEN_HEADER: Final = "X-Sdbatch-Token"  # noqa: S105 -- the name of a header
BODY_BYTES_MAX: Final = 4 << 20
"""Longest body of decisions."""
BODY_TIMEOUT_S: Final = 30.0
"""Longest wait for a body."""
CHUNK_BYTES: Final = 4 << 20
PLACEHOLDER: Final = b'<meta name="sdbatch-review" content="">'
"""Where the page is told of the place that saves decisions; the file in the campaign has it empty."""
_FILE = re.compile(r"(report|assets)(/[A-Za-z0-9_-][A-Za-z0-9._-]*)+")
_RANGE = re.compile(r"bytes=(\d{1,15})-(\d{0,15})")
_TYPES: Final[Mapping[str, str]] = {
    "html": "text/html",
    "js": "text/javascript",
    "json": "application/json",
    "css": "text/css",
    "png": "image/png",
    "jpg": "image/jpeg",
    "webp": "image/webp",
    "avif": "image/avif",
    "mp4": "video/mp4",
    "webm": "video/webm",
}
_LINES: Final = {"application/jsonl", "application/x-ndjson"}
_HEADERS: Final = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",  # the address holds the token
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
    # Beside the page's own policy: whoever wrote the page, it talks to this server alone.
    "Content-Security-Policy": "connect-src 'self'; img-src 'self' data: blob:; media-src 'self' blob:; object-src "
    "'none'; frame-src 'none'; frame-ancestors 'none'; form-action 'none'; base-uri 'none'",
}


@dataclass(slots=True, kw_only=True)
class ReviewServer:
    """Serves one campaign's gallery to this machine.

    Attributes:
        store: The campaign.
        save: Writes decisions; it is called by one thread at a time.
        by: Who decides, where a decision does not say.
        say: Told of what was not saved.
        token: What a caller has to know.
        num_saved: Decisions that were taken.
    """

    store: Store
    save: Callable[[Sequence[Decision]], object]
    by: str
    say: Callable[[str], None]
    token: str = field(default_factory=lambda: secrets.token_urlsafe(32))
    num_saved: int = 0
    _port: int = 0
    _runner: web.AppRunner | None = None
    _saving: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def start(self, port: int = 0) -> str:
        """Begin to listen; return the address of the page.

        Args:
            port: 0 for any that is free.

        Raises:
            UserError: When the port is taken.
        """
        app = web.Application(client_max_size=BODY_BYTES_MAX, middlewares=[self._guarded])
        app.router.add_get("/{token}/", self._index)
        app.router.add_post("/{token}/decisions", self._decisions)
        app.router.add_get("/{token}/{path:.+}", self._file)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=2.0)
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, HOST, port).start()
        except OSError as error:
            await self._runner.cleanup()
            raise UserError(f"--port {port}: {error.strerror or error}") from error
        self._port = self._runner.addresses[0][1]
        return f"http://{HOST}:{self._port}/{self.token}/"

    async def stop(self) -> None:
        """Stop to listen."""
        if self._runner is not None:
            await self._runner.cleanup()

    # --- who may ask ------------------------------------------------------------------------------------------------

    @web.middleware
    async def _guarded(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        hosts = {f"{HOST}:{self._port}", f"localhost:{self._port}"}
        if request.headers.getall("Host", []) not in [[host] for host in hosts]:
            return _said(404, "this is no name of this server")
        if not secrets.compare_digest(request.match_info.get("token", "").encode(), self.token.encode()):
            return _said(404, "not found")
        origin = request.headers.get("Origin")
        is_own = origin in {f"http://{host}" for host in hosts}
        if not is_own and (origin is not None or request.method == "POST"):
            return _said(403, "decisions are taken from this server's own page alone")
        try:
            return await handler(request)
        except web.HTTPException as error:
            return _said(error.status, error.reason)

    # --- what is asked ----------------------------------------------------------------------------------------------

    async def _index(self, request: web.Request) -> web.StreamResponse:
        return web.Response(status=302, headers={**_HEADERS, "Location": f"/{self.token}/report/index.html"})

    async def _file(self, request: web.Request) -> web.StreamResponse:
        path = request.match_info["path"]
        suffix = path.rpartition(".")[2]
        if not _FILE.fullmatch(path) or suffix not in _TYPES:
            return _said(404, "not found")
        try:
            if path == "report/index.html":
                return await self._page(path)
            return await self._content(request, path, _TYPES[suffix])
        except FileNotFoundError:
            return _said(404, f"{path} is not there")
        except SdbatchError as error:
            return _said(503, str(error))

    async def _page(self, path: str) -> web.Response:
        html = await asyncio.to_thread(self.store.read, path)
        told = PLACEHOLDER.replace(b'content=""', f'content="/{self.token}/decisions"'.encode())
        return web.Response(
            body=html.replace(PLACEHOLDER, told, 1), content_type="text/html", charset="utf-8", headers=_HEADERS
        )

    async def _content(self, request: web.Request, path: str, media_type: str) -> web.StreamResponse:
        size = (await asyncio.to_thread(self.store.stat, path)).size_bytes
        part = _asked_range(request.headers.get("Range"))
        start, stop = (0, size) if part is None else (part[0], min(part[1], size))
        if part is not None and start >= stop:
            return _said(416, f"{path} has {size} bytes")
        reply = web.StreamResponse(status=200 if part is None else 206, headers={**_HEADERS, "Accept-Ranges": "bytes"})
        reply.content_type, reply.content_length = media_type, stop - start
        if part is not None:
            reply.headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
        await reply.prepare(request)
        while start < stop:
            end = min(start + CHUNK_BYTES, stop)
            await reply.write(await asyncio.to_thread(self.store.read_range, path, start, end))
            start = end
        await reply.write_eof()
        return reply

    async def _decisions(self, request: web.Request) -> web.StreamResponse:
        given = request.headers.get(TOKEN_HEADER, "")
        if not secrets.compare_digest(given.encode(), self.token.encode()):
            return _said(403, f"the header {TOKEN_HEADER} does not hold the token")
        if request.content_type not in _LINES:
            return _said(415, f"decisions are {' or '.join(sorted(_LINES))}, not {request.content_type}")
        try:
            async with asyncio.timeout(BODY_TIMEOUT_S):
                data = await request.read()
            decisions = parse_lines(data, "decisions", self.by)
            if not decisions:
                return _said(400, "NOT saved: there is no decision")
            async with self._saving:
                await asyncio.to_thread(self.save, decisions)
        except web.HTTPRequestEntityTooLarge:
            return self._not_saved(413, f"more than {BODY_BYTES_MAX} bytes at once")
        except TimeoutError:
            return self._not_saved(408, f"not sent within {BODY_TIMEOUT_S:g} s")
        except UserError as error:
            return self._not_saved(400, str(error))
        except SdbatchError as error:
            return self._not_saved(503, str(error))
        self.num_saved += len(decisions)
        return web.json_response({"saved": len(decisions)}, headers=_HEADERS, dumps=json.dumps)

    def _not_saved(self, status: int, why: str) -> web.Response:
        self.say(f"NOT saved: {why}")
        return _said(status, f"NOT saved: {why}")


def _said(status: int, text: str) -> web.Response:
    return web.Response(status=status, text=text, headers=_HEADERS)


def _asked_range(header: str | None) -> tuple[int, int] | None:
    """Return the first byte and the one after the last; None for the whole file."""
    found = _RANGE.fullmatch(header or "")
    if found is None:
        return None
    return int(found[1]), int(found[2]) + 1 if found[2] else READ_BYTES_MAX
