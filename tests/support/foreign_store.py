"""A foreign S3 store for the tests: it speaks the protocol and refuses chosen requests as real stores do.

client --> ForeignStore (an answer per request, or the object) --> memory
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a store answers instead of doing what it is asked."""

    status: int
    code: str = ""
    message: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)


Rule = Callable[[str, str, Mapping[str, str]], Answer | None]
"""Answer to a request by method, path and headers (names in lower case); None to do what is asked."""


@dataclass(kw_only=True)
class ForeignStore:
    """The store.

    Attributes:
        endpoint: Its URL.
        rule: Its refusals.
        objects: What it holds, by `/bucket/key`.
        seen: Method, path and headers of every request, in order.
    """

    endpoint: str
    rule: Rule = lambda *_: None
    objects: dict[str, bytes] = field(default_factory=dict)
    seen: list[tuple[str, str, Mapping[str, str]]] = field(default_factory=list)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    store: ForeignStore

    def _serve(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        body = self.rfile.read(int(headers.get("content-length") or 0))
        self.store.seen.append((self.command, self.path, headers))
        answer = self.store.rule(self.command, self.path, headers)
        if answer is None:
            self._obey(headers, body)
            return
        text = f"<Error><Code>{answer.code}</Code><Message>{answer.message}</Message></Error>" if answer.code else ""
        self._reply(answer.status, text.encode(), {"Content-Type": "application/xml", **answer.headers})

    def _obey(self, headers: Mapping[str, str], body: bytes) -> None:
        url, objects = urlsplit(self.path), self.store.objects
        key, query = unquote(url.path), parse_qs(url.query)
        if self.command == "PUT" and "if-none-match" in headers and key in objects:
            self._refuse(412, "PreconditionFailed")
        elif self.command == "PUT":
            objects[key] = body
            self._reply(200, b"", {"ETag": _etag(body)})
        elif self.command == "DELETE":
            objects.pop(key, None)
            self._reply(204, b"", {})
        elif "list-type" in query:
            self._reply(200, _listing(self.store, key, query), {"Content-Type": "application/xml"})
        elif key not in objects:
            self._refuse(404, "NoSuchKey")
        else:
            self._object(objects[key], headers.get("range", ""))

    def _object(self, data: bytes, span: str) -> None:
        headers = {"ETag": _etag(data), "Last-Modified": "Thu, 01 Jan 2026 00:00:00 GMT"}
        if span:
            start, _, stop = span.removeprefix("bytes=").partition("-")
            data = data[int(start) : int(stop) + 1 if stop else None]
            headers["Content-Range"] = f"bytes {start}-{int(start) + len(data) - 1}/*"
        self._reply(206 if span else 200, data, headers)

    def _refuse(self, status: int, code: str) -> None:
        self._reply(status, f"<Error><Code>{code}</Code><Message>no</Message></Error>".encode(), {})

    def _reply(self, status: int, data: bytes, headers: Mapping[str, str]) -> None:
        self.send_response_only(status)
        for name, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD" and status not in {204, 304}:
            self.wfile.write(data)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _serve

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: Any) -> None:
        """Say nothing when a client went away."""


@contextmanager
def foreign_store() -> Iterator[ForeignStore]:
    """Run the store while the block runs."""
    store = ForeignStore(endpoint="")
    server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"store": store}))
    store.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield store
    finally:
        server.shutdown()
        server.server_close()
        thread.join(timeout=5)


def _etag(data: bytes) -> str:
    return f'"{hashlib.md5(data).hexdigest()}"'


def _listing(store: ForeignStore, bucket: str, query: Mapping[str, list[str]]) -> bytes:
    prefix, delimiter = query.get("prefix", [""])[0], query.get("delimiter", [""])[0]
    top = bucket.rstrip("/") + "/"
    keys = sorted(key.removeprefix(top) for key in store.objects if key.startswith(top + prefix))
    folders = sorted(
        {prefix + key.removeprefix(prefix).split("/")[0] + "/" for key in keys if "/" in key.removeprefix(prefix)}
    )
    shown = [key for key in keys if not delimiter or "/" not in key.removeprefix(prefix)]
    items = "".join(
        f"<Contents><Key>{key}</Key><Size>{len(store.objects[top + key])}</Size><ETag>x</ETag>"
        "<LastModified>2026-01-01T00:00:00.000Z</LastModified></Contents>"
        for key in shown
    )
    items += "".join(f"<CommonPrefixes><Prefix>{name}</Prefix></CommonPrefixes>" for name in folders if delimiter)
    return f"<ListBucketResult><IsTruncated>false</IsTruncated>{items}</ListBucketResult>".encode()
