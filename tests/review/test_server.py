"""The server of `sdbatch review`, asked over a socket as a browser would, and as others would."""

from __future__ import annotations

import asyncio
import http.client
import json
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from support.decisions import LINE, made

from sdbatch.driver.review import refuse_future
from sdbatch.errors import StoreUnavailable
from sdbatch.review import server as server_module
from sdbatch.review.decision import Decision
from sdbatch.review.files import DecisionBook, read_decisions
from sdbatch.review.server import PLACEHOLDER, ReviewServer
from sdbatch.storage import open_store

PAGE = b"<!doctype html><head>" + PLACEHOLDER + b"</head>"
CLIP = bytes(range(256)) * 4


class Served:
    """A server in a thread of its own, and a way to ask it."""

    def __init__(self, folder: Path) -> None:
        self.store = open_store(str(folder), {})
        self.said: list[str] = []
        self.fault: Exception | None = None
        book = DecisionBook(self.store)

        def save(decisions: Sequence[Decision]) -> None:
            if self.fault:
                raise self.fault
            refuse_future(decisions, "decisions")
            book.add(decisions)

        self.server = ReviewServer(store=self.store, save=save, by="joe", say=self.said.append)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self.address: str = asyncio.run_coroutine_threadsafe(self.server.start(), self._loop).result(30)
        self.port = int(self.address.split(":")[2].split("/")[0])
        self.host = f"127.0.0.1:{self.port}"

    def close(self) -> None:
        asyncio.run_coroutine_threadsafe(self.server.stop(), self._loop).result(30)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(30)
        self._loop.close()

    def ask(
        self, method: str, path: str, headers: Mapping[str, str | None], body: bytes | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        """Ask; headers that are None are left out."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        given = {"Host": self.host, **headers}
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        for name, text in given.items():
            if text is not None:
                connection.putheader(name, text)
        if body is not None and "Content-Length" not in given:
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        reply = connection.getresponse()
        found = reply.status, dict(reply.headers), reply.read()
        connection.close()
        return found

    def get(self, path: str, **headers: str | None) -> tuple[int, dict[str, str], bytes]:
        return self.ask("GET", f"/{self.server.token}{path}", headers)

    def post(self, *lines: dict[str, Any], body: bytes | None = None, **headers: str | None) -> tuple[int, str]:
        """Send decisions as the page does; `_` in the name of a header stands for `-`."""
        data = "\n".join(map(json.dumps, lines)).encode() if body is None else body
        given: dict[str, str | None] = {
            "Origin": f"http://{self.host}",
            "Content-Type": "application/jsonl",
            "X-Sdbatch-Token": self.server.token,
            **{name.replace("_", "-"): text for name, text in headers.items()},
        }
        status, _, text = self.ask("POST", f"/{self.server.token}/decisions", given, data)
        return status, text.decode()


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    store = open_store(str(tmp_path), {})
    store.put("report/index.html", PAGE)
    store.put("report/data/0123456789abcdef.js", b"1")
    store.put("assets/a-01234567-0.mp4", CLIP)
    store.put("runs/secret.js", b"secret")
    server = Served(tmp_path)
    yield server
    server.close()


def test_the_page_is_told_where_decisions_go_and_its_files_are_served(served: Served) -> None:
    status, headers, _ = served.get("/")
    assert (status, headers["Location"]) == (302, f"/{served.server.token}/report/index.html")
    status, headers, page = served.get("/report/index.html")
    assert status == 200
    assert f'content="/{served.server.token}/decisions"'.encode() in page
    assert headers["Referrer-Policy"] == "no-referrer"
    assert "connect-src 'self'" in headers["Content-Security-Policy"]
    assert served.get("/report/data/0123456789abcdef.js")[2] == b"1"
    assert served.get("/assets/a-01234567-0.mp4")[2] == CLIP


def test_a_part_of_a_clip_is_served(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "CHUNK_BYTES", 100)
    status, headers, data = served.get("/assets/a-01234567-0.mp4", Range="bytes=10-509")

    assert (status, headers["Content-Range"], data) == (206, "bytes 10-509/1024", CLIP[10:510])
    assert served.get("/assets/a-01234567-0.mp4", Range="bytes=1000-")[2] == CLIP[1000:]
    assert served.get("/assets/a-01234567-0.mp4", Range="bytes=1024-")[0] == 416
    assert served.get("/assets/a-01234567-0.mp4")[2] == CLIP


@pytest.mark.parametrize(
    "path",
    ["/runs/secret.js", "/report/../runs/secret.js", "/report/%2e%2e/runs/secret.js", "/report//runs/secret.js",
     "/report/.hidden.js", "/assets/a", "/report/none.js", "/etc/passwd"],
)  # fmt: skip
def test_nothing_else_is_served(served: Served, path: str) -> None:
    assert served.get(path)[0] == 404


def test_a_saved_decision_lies_in_the_campaign_and_the_name_is_filled_in(served: Served) -> None:
    nameless = {name: value for name, value in LINE.items() if name != "by"}

    assert served.post(LINE, {**nameless, "n": 1}) == (200, '{"saved": 2}')
    assert set(read_decisions(served.store)[0]) == {made(), made(n=1, by="joe")}
    assert served.post(LINE) == (200, '{"saved": 1}')
    assert len(served.store.list("reviews")) == 1, "what is there already is saved, and not written again"


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1", "127.0.0.1:1", None, "localhost"])
def test_another_host_is_refused(served: Served, host: str | None) -> None:
    assert served.get("/report/index.html", Host=host)[0] in {400, 404}
    assert served.post(LINE, Host=host)[0] in {400, 404}
    assert not served.store.list("reviews")


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "https://127.0.0.1", None])
def test_another_origin_is_refused(served: Served, origin: str | None) -> None:
    assert served.post(LINE, Origin=origin)[0] == 403
    assert not served.store.list("reviews")
    if origin is not None:
        assert served.get("/report/index.html", Origin=origin)[0] == 403


@pytest.mark.parametrize("token", [None, "", "x" * 43])
def test_without_the_token_nothing_is_saved(served: Served, token: str | None) -> None:
    assert served.post(LINE, X_Sdbatch_Token=token)[0] == 403
    path = "/decisions" if token is None else f"/{token}/decisions"
    headers = {"Origin": f"http://{served.host}", "X-Sdbatch-Token": served.server.token}
    lines = {**headers, "Content-Type": "application/jsonl"}
    assert served.ask("POST", path, lines, json.dumps(LINE).encode())[0] == 404
    assert served.ask("GET", f"/{token}/report/index.html", {})[0] == 404
    assert not served.store.list("reviews")


def test_an_oversized_body_is_not_saved_and_says_so(served: Served) -> None:
    line = json.dumps(LINE).encode() + b"\n"
    status, text = served.post(body=line * (server_module.BODY_BYTES_MAX // len(line) + 1))

    assert (status, text) == (413, "NOT saved: more than 4194304 bytes at once")
    assert served.said == [text]
    assert not served.store.list("reviews")


def test_a_body_that_never_ends_is_given_up(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "BODY_TIMEOUT_S", 0.2)
    started_s = time.monotonic()
    status, text = served.post(body=b"", Content_Length="100")

    assert (status, text) == (408, "NOT saved: not sent within 0.2 s")
    assert time.monotonic() - started_s < 10


@pytest.mark.parametrize(
    ("changes", "headers", "status", "text"),
    [
        ({"verdict": "yes"}, {}, 400, 'line 1: verdict "yes"'),
        ({"format_version": 2}, {}, 400, "format_version 2; this sdbatch reads up to 1"),
        ({"at": "2999-01-01T00:00:00.000Z"}, {}, 400, "more than a day ahead of this machine's clock"),
        ({}, {"Content_Type": "text/plain"}, 415, "not text/plain"),
    ],
)
def test_what_is_wrong_is_not_saved(
    served: Served, changes: dict[str, Any], headers: dict[str, str], status: int, text: str
) -> None:
    found, said = served.post({**LINE, **changes}, body=None, **headers)

    assert found == status
    assert text in said
    assert not served.store.list("reviews")


def test_a_store_that_fails_is_told_as_not_saved(served: Served) -> None:
    served.fault = StoreUnavailable("the bucket does not answer")

    assert served.post(LINE) == (503, "NOT saved: the bucket does not answer")
    assert served.said == ["NOT saved: the bucket does not answer"]
    assert served.server.num_saved == 0
