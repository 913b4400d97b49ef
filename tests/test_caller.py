"""A library function leaves its caller's process alone: environment, log and signal handlers, Arrow's memory pool."""

from __future__ import annotations

import json
import logging
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from conftest import prompts

import sdbatch
from sdbatch.campaign.lease import acquire
from sdbatch.errors import JobError, WorkersUnavailable
from sdbatch.report.progress import Silent
from sdbatch.storage import open_store

LOGGERS = (None, "sdbatch", "sdbatch.driver", "ray")
SIGNALS = (signal.SIGINT, signal.SIGTERM)
State = dict[str, object]


def _logger_state(name: str | None) -> tuple[object, ...]:
    logger = logging.getLogger(name)
    return tuple(logger.handlers), logger.level, logger.propagate, logger.disabled


def _state() -> State:
    return {
        "environment": dict(os.environ),
        "loggers": {name: _logger_state(name) for name in LOGGERS},
        "signals": {number: signal.getsignal(number) for number in SIGNALS},
        "memory pool": pa.default_memory_pool().backend_name,
    }


def _differences(before: State, after: State) -> dict[str, tuple[object, object]]:
    return {name: (value, after[name]) for name, value in before.items() if after[name] != value}


def _damage(campaign: Path) -> None:
    asset = min((campaign / "assets").iterdir())
    asset.write_bytes(asset.read_bytes()[:-1] + b"x")


def _verbs(job: dict[str, Any], campaign: Path, folder: Path) -> Iterator[tuple[str, Callable[[], object]]]:
    """Yield each verb with a call of it, in an order in which each has something to do."""
    table = folder / "table.jsonl"
    table.write_text(json.dumps({"id": "a", "prompt": "a beach"}) + "\n")
    output = str(campaign)
    yield "list_models", lambda: sdbatch.list_models(job)
    yield "build_manifest", lambda: sdbatch.build_manifest(table, folder / "built")
    yield "load_job", lambda: sdbatch.load_job(job)
    yield "check", lambda: sdbatch.check(job)
    yield "plan", lambda: sdbatch.plan(job)
    yield "run", lambda: sdbatch.run(job, in_process=True)
    yield "status", lambda: sdbatch.status(output)
    yield "metadata", lambda: sdbatch.metadata(output)
    yield "verify", lambda: sdbatch.verify(output)
    yield "report", lambda: sdbatch.report(output)
    yield "gc", lambda: sdbatch.gc(output, delete=True, older_than_s=0.0)
    yield "reproduce", lambda: sdbatch.reproduce(output, "row-0000")
    yield "redo", lambda: sdbatch.redo(job, in_process=True)
    yield "cancel", lambda: sdbatch.cancel(output)
    yield "submit", lambda: sdbatch.submit(folder / "job.yaml", "http://127.0.0.1:9", working_dir=folder)


def test_no_verb_changes_the_process_of_its_caller(
    write_manifest: Callable[..., str], job_of: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    import sdbatch.dispatch.submit
    import sdbatch.generate.batch  # noqa: F401 -- what torch, diffusers and Ray set when they are imported is their own

    job = job_of(write_manifest(prompts(2)))
    campaign = Path(job["output"])
    (tmp_path / "job.yaml").write_text(json.dumps(job))
    changes: dict[str, object] = {}
    results: dict[str, Any] = {}
    for name, call in _verbs(job, campaign, tmp_path):
        lease = acquire(open_store(str(campaign), {})) if name == "cancel" else None
        if name == "redo":
            _damage(campaign)
        before = _state()
        try:
            results[name] = call()
        except WorkersUnavailable:  # no job server listens there
            assert name == "submit"
        if difference := _differences(before, _state()):
            changes[name] = difference
        if lease is not None:
            lease.release()

    assert changes == {}
    assert results["run"].counts["rows_ok"] == 2
    assert results["redo"].counts["assets_put"] == 1
    assert results["reproduce"].is_equal


def test_a_run_shows_no_bars_of_the_libraries_and_leaves_theirs_to_the_caller(
    write_manifest: Callable[..., str],
    job_of: Callable[..., dict[str, Any]],
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    libraries = (diffusers_logging, transformers_logging)
    for library in libraries:
        monkeypatch.setattr(library, "_tqdm_active", True)

    sdbatch.run(job_of(write_manifest(prompts(1))), in_process=True)

    assert "it/s" not in capfd.readouterr().err
    assert all(library.is_progress_bar_enabled() for library in libraries)


def test_the_comparison_sees_a_change(monkeypatch: pytest.MonkeyPatch) -> None:
    before = _state()
    monkeypatch.setenv("SDBATCH_TEST_OF_CALLER", "1")

    assert _differences(before, _state()).keys() == {"environment"}


def test_a_process_makes_one_run_at_a_time(
    write_manifest: Callable[..., str], job_of: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    manifest = write_manifest(prompts(2))
    job, other = (job_of(manifest, str(tmp_path / name)) for name in ("campaign", "other"))
    refused: list[str] = []

    class RunsAnother(Silent):
        def say(self, text: str) -> None:
            for call in (
                lambda: sdbatch.run(other, in_process=True),
                lambda: sdbatch.run(other),
                lambda: sdbatch.reproduce(job["output"], "row-0000"),
            ):
                with pytest.raises(JobError, match="another run goes on in this process") as raised:
                    call()
                refused.append(str(raised.value))

    sdbatch.run(job, in_process=True)
    job["defaults"] = {**job["defaults"], "num_inference_steps": 3}
    assert sdbatch.run(job, in_process=True, progress=RunsAnother()).counts["rows_ok"] == 2

    assert refused
    assert not Path(other["output"]).exists()
    assert sdbatch.run(other, in_process=True).counts["rows_ok"] == 2
