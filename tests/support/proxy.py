"""A TCP proxy before a store, for the tests: it drops, delays or answers chosen requests and passes on the rest.

client --> FaultyProxy (a rule per request) --> store
"""

from __future__ import annotations

import http.client
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal
from urllib.parse import urlsplit

Fault = Literal["drop", "lose reply", "half a body", "hang"] | int
"""`drop`: the request never arrives; `lose reply`: it does, its answer does not; `half a body`: that breaks off;
`hang`: nothing comes for `HANG_S`, or to the end of the block; a number: the proxy answers that status."""

Rule = Callable[[str, str], Fault | None]
HANG_S = 60.0
_CODES = {429: "TooManyRequests", 500: "InternalError", 501: "NotImplemented", 503: "SlowDown"}


@dataclass(kw_only=True)
class FaultyProxy:
    """What the proxy did.

    Attributes:
        endpoint: Its URL.
        rule: Fault of a request by method and path, None to pass it on.
        hold: Called before that with path and `Range` of a request, which goes on when it returns.
        seen: Method, path and fault of every request, in order.
        sent: Bytes of the store's answers, by path.
    """

    endpoint: str
    rule: Rule = lambda *_: None
    hold: Callable[[str, str], object] = lambda *_: None
    seen: list[tuple[str, str, Fault | None]] = field(default_factory=list)
    sent: Counter[str] = field(default_factory=Counter)

    def faults(self) -> list[Fault]:
        """Return the faults met so far."""
        return [fault for _, _, fault in self.seen if fault is not None]


def first(count: int, fault: Fault, method: str, part: str) -> Rule:
    """Return the rule by which the first `count` requests of a method whose path holds `part` meet a fault."""
    left = [count]
    lock = threading.Lock()

    def rule(asked: str, path: str) -> Fault | None:
        with lock:
            if asked != method or part not in path or not left[0]:
                return None
            left[0] -= 1
            return fault

    return rule


@contextmanager
def faulty_proxy(upstream: str) -> Iterator[FaultyProxy]:
    """Run a proxy before `upstream` (http://host:port) while the block runs."""
    target = urlsplit(upstream)
    is_over = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _pass_on(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            proxy.hold(self.path, self.headers.get("Range") or "")
            fault = proxy.rule(self.command, self.path)
            proxy.seen.append((self.command, self.path, fault))
            if fault == "drop":
                self.close_connection = True
            elif fault == "hang":
                is_over.wait(HANG_S)
                self.close_connection = True
            elif isinstance(fault, int):
                text = f"<Error><Code>{_CODES[fault]}</Code><Message>from the proxy</Message></Error>"
                self._reply(fault, {"Content-Type": "application/xml"}, text.encode())
            else:
                self._forward(body, fault)

        def _forward(self, body: bytes, fault: Fault | None) -> None:
            assert target.hostname
            connection = http.client.HTTPConnection(target.hostname, target.port or 80, timeout=30)
            headers = {name: value for name, value in self.headers.items() if name.lower() != "expect"}
            connection.request(self.command, self.path, body=body, headers=headers)
            answer = connection.getresponse()
            data = answer.read()
            connection.close()
            if fault == "lose reply":
                self.close_connection = True
                return
            kept = {name: value for name, value in answer.getheaders() if name.lower() != "transfer-encoding"}
            self._reply(answer.status, kept, data, cut=fault == "half a body")

        def _reply(self, status: int, headers: dict[str, str], data: bytes, *, cut: bool = False) -> None:
            length = headers.get("Content-Length", str(len(data))) if self.command == "HEAD" else str(len(data))
            self.send_response_only(status)
            for name, value in {**headers, "Content-Length": length}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data[: len(data) // 2] if cut else data)
            proxy.sent[self.path] += len(data)
            self.close_connection = self.close_connection or cut

        do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _pass_on

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: Any) -> None:
            """Say nothing when a client went away."""

    server = Server(("127.0.0.1", 0), Handler)
    proxy = FaultyProxy(endpoint=f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        is_over.set()
        server.shutdown()
        server.server_close()
        thread.join(timeout=5)
