"""Addresses that are told of a run's end: what they are sent, what they cannot do to the run, and what stays secret."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from conftest import prompts

from sdbatch.driver.one_run import on_end as module
from sdbatch.driver.one_run.on_end import tell_end
from sdbatch.driver.one_run.records import RunResult
from sdbatch.driver.picking import Selection
from sdbatch.driver.run import run_job
from sdbatch.errors import JobError, UserError
from sdbatch.job import parse_job
from sdbatch.report.progress import Silent

SCRIPTED = "support.workers:ScriptedWorker"
SIGNALLED = "support.workers:SignalledWorker"
TOKEN = "T0AB12-hidden-path"
Posted = list[tuple[str, dict[str, Any]]]


class Listener:
    """An HTTP server on loopback that keeps what it is sent, and answers as the path says."""

    def __init__(self) -> None:
        posted: Posted = []
        answers_late = threading.Event()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                length = int(self.headers["Content-Length"])
                posted.append((self.path, json.loads(self.rfile.read(length))))
                if self.path == "/silent":
                    answers_late.wait(60)
                moved = self.path == "/moved"
                self.send_response(302 if moved else 500 if self.path == "/broken" else 204)
                if moved:
                    self.send_header("Location", "/elsewhere")
                self.end_headers()

            do_GET = do_POST

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self.posted = posted
        self.answers_late = answers_late
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.answers_late.set()
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def listener(monkeypatch: pytest.MonkeyPatch) -> Iterator[Listener]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    found = Listener()
    yield found
    found.close()


@pytest.fixture
def run(write_manifest: Callable[..., str], job_of: Callable[..., dict[str, Any]]) -> Callable[..., RunResult]:
    """Run some rows whose ids say what becomes of them, with addresses that are told."""

    def make(rows: list[dict[str, Any]], *addresses: str, worker: str = SCRIPTED, **changes: Any) -> RunResult:
        job = parse_job({**job_of(write_manifest(rows), **changes), "on_end": list(addresses)})
        return run_job(job, selection=Selection(), in_process=True, progress=Silent(), worker=worker)

    return make


def test_the_end_of_a_run_is_told_with_its_counts_and_no_secret_is_kept(
    listener: Listener, run: Callable[..., RunResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHAT_URL", f"{listener.url}/{TOKEN}")
    result = run(prompts(3), "env:CHAT_URL", f"{listener.url}/plain/{TOKEN}", f"{listener.url}/broken")

    told = dict(listener.posted)
    assert told.keys() == {f"/{TOKEN}", f"/plain/{TOKEN}", "/broken"}
    message = told[f"/{TOKEN}"]
    assert (message["run_id"], message["state"], message["exit_code"]) == (result.run_id, "done", 0)
    assert (message["counts"]["rows_ok"], message["campaign"]) == (3, {"rows": 3, "made": 3, "failed": 0, "open": 0})
    assert result.warnings == (f"on_end: {listener.url.removeprefix('http://')} was not told: it answered 500",)
    assert result.exit_code == 0
    written = [path.read_bytes() for path in Path(result.output).rglob("*") if path.is_file()]
    assert not any(TOKEN.encode() in data for data in written)
    record = json.loads(Path(result.output, "runs", result.run_id, "run.json").read_text())
    assert record["job"]["on_end"][:2] == ["env:CHAT_URL", f"{listener.url}/..."]


def test_a_signal_and_an_error_are_told_too(listener: Listener, run: Callable[..., RunResult]) -> None:
    stopped = run(prompts(9), f"{listener.url}/signal", worker=SIGNALLED)
    (_, message) = listener.posted.pop()
    assert (stopped.exit_code, message["exit_code"], message["state"]) == (130, 130, "interrupted")
    assert message["campaign"]["open"] > 0

    Path(stopped.output, "runs", stopped.run_id, "redo.parquet").write_bytes(b"torn")
    with pytest.raises(UserError):
        run(prompts(9), f"{listener.url}/error")
    (_, message) = listener.posted.pop()
    assert (message["exit_code"], message["state"]) == (2, "stopped")
    assert "redo.parquet" in message["message"]


def test_nobody_is_waited_for_nor_followed(listener: Listener, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(module, "ANSWER_S", 0.5)
        (silent,) = tell_end([f"{listener.url}/silent"], {"event": "run ended"})  # to this moment it has not answered
    addresses = [f"{listener.url}/moved", "http://127.0.0.1:9/hidden", f"{listener.url}/fine"]
    lines = tell_end(addresses, {"event": "run ended"})

    assert silent.partition(" was not told: ")[2]
    assert [line.partition(" was not told: ")[2].split(";")[0][:24] for line in lines] == [
        "it answered 302",
        "ConnectionRefusedError: ",
    ]
    assert "redirects are not followed" in lines[0]
    assert "hidden" not in "".join(lines)
    assert "/elsewhere" not in dict(listener.posted)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("ftp://host/x", "is no http:// or https:// address"),
        ("file:///etc/passwd", "is no http:// or https:// address"),
        ("https://", "is no http:// or https:// address"),
        ("https://host/a b", "has blanks"),
        ("env:NO SUCH", "env:NAME"),
        ("https://me:pass@host/", "looks like a secret"),
    ],
)
def test_an_entry_that_is_no_address_is_refused_without_being_repeated(entry: str, message: str) -> None:
    values = {"manifest": "m", "output": "o", "models": {"t": {"path": "builtin:tiny-sd"}}, "on_end": [entry]}
    with pytest.raises(JobError, match=message) as caught:
        parse_job(values)

    assert "pass@" not in str(caught.value)


def test_a_variable_that_is_not_set_is_named_before_anything_starts(
    run: Callable[..., RunResult], tmp_path: Path
) -> None:
    assert "NO_SUCH_VARIABLE" not in os.environ
    with pytest.raises(JobError, match="the environment has no NO_SUCH_VARIABLE"):
        run(prompts(1), "env:NO_SUCH_VARIABLE")
    assert not (tmp_path / "campaign").exists()
