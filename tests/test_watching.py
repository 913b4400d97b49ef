"""What a person sees between and during runs: status, runs, failures, the summary; what a shell is offered."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.stores import CountingStore
from typer.testing import CliRunner, Result

import sdbatch
from sdbatch.campaign import layout
from sdbatch.cli import app
from sdbatch.cli.watching import news
from sdbatch.driver.one_run.records import RunResult
from sdbatch.driver.picking import Selection
from sdbatch.driver.watching import failures_of, watched
from sdbatch.errors import JobError

NUM_BAD = 12


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("watched")


@pytest.fixture(scope="module")
def job(folder: Path) -> str:
    """Three rows that can be made, twelve whose sources are not there."""
    bad: dict[str, Any] = {"prompt": "p", "task": "image-to-image", "strength": 1.0}
    rows: list[dict[str, Any]] = [{"id": f"good-{number}", "prompt": f"p {number}"} for number in range(3)]
    rows += [{"id": f"bad-{number:02d}", "images": [str(folder / "no.png")], **bad} for number in range(NUM_BAD)]
    names = ("id", "prompt", "task", "images", "strength")
    pq.write_table(pa.table({name: [row.get(name) for row in rows] for name in names}), folder / "rows.parquet")
    values = {
        "manifest": str(folder / "rows.parquet"),
        "output": str(folder / "campaign"),
        "models": {"tiny": {"path": "builtin:tiny-random", "batch_size": 4}},
        "defaults": {"task": "text-to-image", "num_inference_steps": 2, "guidance_scale": 3.0},
        "sources": {"allow": [str(folder)]},
    }
    path = folder / "job.yaml"
    path.write_text(json.dumps(values))
    return str(path)


@pytest.fixture(scope="module")
def results(job: str) -> tuple[RunResult, RunResult]:
    """A preview of two rows, then the rest."""
    return (
        sdbatch.run(job, Selection(only=frozenset({"good-[01]"})), in_process=True),
        sdbatch.run(job, in_process=True),
    )


def _call(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def test_status_speaks_of_the_campaign_and_of_the_run(results: tuple[RunResult, RunResult], job: str) -> None:
    preview, rest = results
    campaign, run = _call("status", job).stdout.splitlines()

    assert preview.campaign == {"rows": 15, "made": 2, "failed": 0, "open": 13}
    assert campaign == "campaign: 3 of 15 made, 12 failed, 0 open"
    assert run.startswith(f"{rest.run_id} failed: 1 row made, 2 kept, 12 failed (as of ")
    kept = sdbatch.run(job, Selection(only=frozenset({"good-0"})), in_process=True)
    assert kept.campaign == rest.campaign  # what a selection leaves out stands as it stood


def test_runs_are_listed_the_newest_first_and_a_killed_one_is_told(
    results: tuple[RunResult, RunResult], job: str, tmp_path: Path
) -> None:
    found = sdbatch.runs(job)
    assert [run["run_id"] for run in found][-2:] == [results[1].run_id, results[0].run_id]
    assert [run["state"] for run in found][-2:] == ["failed", "done"]
    assert len(sdbatch.runs(job, 1)) == 1
    said = _call("runs", job).stdout
    assert "r000002" in said
    assert "--all lists all of them" not in said
    assert "--all lists all of them" in _call("runs", job, "--limit", "1").stdout
    with pytest.raises(JobError, match="no run there"):
        sdbatch.runs(str(tmp_path / "nowhere"))


def test_failures_are_listed_and_only_the_commits_that_tell_of_them_are_read(
    results: tuple[RunResult, RunResult], job: str, folder: Path
) -> None:
    table = sdbatch.failures(job)
    assert table.num_rows == NUM_BAD
    assert set(table.column("error_type").to_pylist()) == {"SourceMissing"}
    listed = json.loads(_call("failures", job, "--json").stdout)
    assert (listed["total"], listed["by_class"]) == (NUM_BAD, {"SourceMissing": NUM_BAD})
    said = _call("failures", job, "--only", "bad-0*", "--limit", "2").stdout.splitlines()
    assert said[0].startswith("bad-00: SourceMissing: ")
    assert said[2:] == ["... and 8 more; --limit shows more of them, --json all", "10 failed: 10 SourceMissing"]
    assert _call("failures", job, "--class", "BlankOutput").stdout == "nothing failed\n"
    wrong = _call("failures", job, "--class", "SourceMising")
    assert wrong.exit_code == 2
    assert "--class SourceMising: no such class of failure; did you mean SourceMissing?" in wrong.stderr

    store = CountingStore(str(folder / "campaign"))
    failures_of(store)
    commits = [path for name, path in store.calls if name in {"read", "open"} and "/commits/" in path]
    every = list((folder / "campaign").glob("runs/*/commits/*"))
    assert 0 < len(commits) < len(every)


def test_a_run_ends_with_its_first_ten_failures(results: tuple[RunResult, RunResult], job: str) -> None:
    result = results[1]
    assert [failure["id"] for failure in result.first_failures] == [f"bad-{number:02d}" for number in range(10)]
    again = _call("run", job, "--in-process", "--retry-failed=SourceMissing")

    assert again.exit_code == 3
    lines = [line for line in again.stderr.splitlines() if ": SourceMissing: " in line]
    assert len(lines) == 10
    assert f"... and 2 more: sdbatch failures {result.output}" in again.stderr


def test_a_watch_reads_one_small_file_a_look_and_ends_with_the_run(tmp_path: Path) -> None:
    store = CountingStore(str(tmp_path))
    run = layout.run_id(1, "20260101T000000Z")
    status = {
        "run_id": run,
        "state": "running",
        "updated_at": "2026-01-01T00:00:00+00:00",
        "rows": 9,
        "rate_per_s": None,
        "eta_s": None,
        "counts": {"rows_ok": 0, "rows_failed": 0, "rows_reused": 0},
    }
    store.put_new(layout.lease(1), json.dumps({"epoch": 1, "host": "elsewhere", "pid": 1}).encode())
    calls: list[int] = []

    def write(num_made: int, state: str = "running") -> None:
        counts = {"rows_ok": num_made, "rows_failed": 0, "rows_reused": 0}
        store.put(layout.status_json(run), json.dumps({**status, "state": state, "counts": counts}).encode())

    def pass_time(_: float) -> None:
        write(len(calls), "done" if len(calls) == 10 else "running")
        calls.append(store.lists + store.gets + store.heads)

    write(0)
    seen = [latest["counts"]["rows_ok"] for latest in watched(store, pass_time)]

    assert seen == [0, *range(11)]
    assert {after - before for before, after in itertools.pairwise(calls)} == {1}


def test_a_watch_on_a_pipe_is_a_line_for_each_change_and_stops_with_the_run(
    results: tuple[RunResult, RunResult], job: str
) -> None:
    lines = _call("status", job, "--watch").stdout.splitlines()

    assert len(lines) == 1
    assert "3 of 15 made, 12 failed, 0 open" in lines[0]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["plan", "--json"], "Missing argument 'JOB'"),
        (["frob", "--json"], "No such command 'frob'"),
        (["plan", "x.yaml", "--limit", "many", "--json"], "--limit"),
        (["plan", "x.yaml", "--whre", "true", "--json"], "--whre"),
        (["manifest", "build", "x.csv", "--to", "y", "--rename", "a", "--json"], "not of the form A=B"),
    ],
)
def test_a_wrong_command_line_is_one_object_when_asked(arguments: list[str], said: str) -> None:
    done = _call(*arguments)
    told = json.loads(done.stdout)

    assert (done.exit_code, told["error"]) == (2, "UsageError")
    assert said in told["message"]
    assert done.stderr == ""
    assert _call(*[word for word in arguments if word != "--json"]).exit_code == 2


def test_the_version_is_told() -> None:
    assert _call("--version").stdout.startswith("sdbatch 0.")


def _offered(shell_words: str, cwd: Path) -> str:
    """Ask as bash does."""
    script = "import sys; sys.argv = ['sdbatch']; from sdbatch.cli import main; main()"
    environment = {**os.environ, "_SDBATCH_COMPLETE": "complete_bash", "COMP_WORDS": shell_words}
    environment["COMP_CWORD"] = str(len(shell_words.split(" ")) - 1)
    command = [sys.executable, "-c", script]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment, timeout=240).stdout


def test_a_shell_is_offered_ids_and_names(results: tuple[RunResult, RunResult], job: str, folder: Path) -> None:
    assert _offered(f"sdbatch plan {job} --only good-", folder).split() == ["good-0", "good-1", "good-2"]
    assert _offered(f"sdbatch reproduce {folder}/campaign bad-1", folder).split() == ["bad-10", "bad-11"]
    assert "models.tiny." in _offered(f"sdbatch run {job} --set mo", folder).split()
    assert "failures" in _offered("sdbatch fa", folder)
    assert _offered("sdbatch plan nowhere.yaml --only good-", folder).strip() == ""


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_of_a_shell_asks_sdbatch(shell: str) -> None:
    script = _call("completion", shell).stdout

    assert "_SDBATCH_COMPLETE=complete_" + shell in script
    if shell == "bash":
        assert subprocess.run(["bash", "-n"], input=script, text=True).returncode == 0


def test_a_log_has_a_line_for_each_news_and_none_for_the_time() -> None:
    first = {"run_id": "r1", "state": "running", "counts": {"rows_ok": 1}, "updated_at": "09:00", "eta_s": 9.0}
    looks = [
        first,
        {**first, "updated_at": "09:02", "eta_s": 8.0},
        {**first, "updated_at": "09:04", "workers": 2},
        {**first, "updated_at": "09:06", "workers": 2, "counts": {"rows_ok": 2}},
        {**first, "updated_at": "09:08", "workers": 2, "counts": {"rows_ok": 2}, "state": "done"},
    ]

    assert [look["updated_at"] for look in news(looks)] == ["09:00", "09:04", "09:06", "09:08"]
