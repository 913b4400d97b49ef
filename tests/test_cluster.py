"""The same job on a real cluster: a head of its own on loopback, with a token, reached through its job server."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from conftest import asset_digests, prompts
from support.relay import Relay
from support.servers import descendants, end, free_ports
from support.signals import hear_ctrl_c

import sdbatch

pytestmark = [pytest.mark.ray, pytest.mark.slow]
HEAD_READY_S = 90.0
TOKEN = "0123456789abcdef" * 4
_PORTS = ("port", "dashboard-port", "metrics-export-port", "dashboard-agent-listen-port", "ray-client-server-port")
BIN = str(Path(sys.executable).parent)


@dataclass(frozen=True, kw_only=True)
class Head:
    """A running head node."""

    pid: int
    address: str
    gcs: str
    metrics: str
    environment: dict[str, str]

    def sdbatch(self, *arguments: str, folder: Path, **changes: str) -> subprocess.CompletedProcess[str]:
        """Run our command as a person at another machine would."""
        command = [sys.executable, "-m", "sdbatch", *arguments]
        environment = {**self.environment, **changes}
        return subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment, timeout=240)

    def submit(self, job: Path, *more: str, **changes: str) -> subprocess.CompletedProcess[str]:
        """Submit a job that lies in its own folder."""
        folder = job.parent
        return self.sdbatch("submit", job.name, "--address", self.address, *more, folder=folder, **changes)


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    folder = Path(tempfile.mkdtemp(prefix="sdh", dir="/tmp"))  # short, for Ray's socket names
    ports = dict(zip(_PORTS, free_ports(len(_PORTS)), strict=True))
    environment = {
        **os.environ,
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": TOKEN,
        "HOME": str(folder),
    }
    command = [f"{BIN}/ray", "start", "--head", "--block", "--node-ip-address=127.0.0.1", "--dashboard-host=127.0.0.1"]
    command += [f"--{name}={port}" for name, port in ports.items()]
    command += [f"--temp-dir={folder}/r", "--num-cpus=3", "--disable-usage-stats"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)
    try:
        address = f"http://127.0.0.1:{ports['dashboard-port']}"
        _wait_for(address, folder / "log", process)
        yield Head(
            pid=process.pid,
            address=address,
            gcs=f"127.0.0.1:{ports['port']}",
            metrics=f"http://127.0.0.1:{ports['metrics-export-port']}/metrics",
            environment=environment,
        )
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            end(process)
        shutil.rmtree(folder, ignore_errors=True)


def _wait_for(address: str, log: Path, process: subprocess.Popen[bytes]) -> None:
    deadline_s = time.monotonic() + HEAD_READY_S
    request = urllib.request.Request(f"{address}/api/jobs/", headers={"Authorization": f"Bearer {TOKEN}"})
    while True:
        try:
            with urllib.request.urlopen(request, timeout=5):
                return
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline_s:
                raise RuntimeError(f"no head: {log.read_text()[-2000:]}") from None
            time.sleep(0.5)


@pytest.fixture
def job(
    tmp_path: Path, write_manifest: Callable[..., str], job_of: Callable[..., dict[str, Any]]
) -> Callable[..., Path]:
    def write(rows: list[dict[str, Any]], **changes: Any) -> Path:
        path = tmp_path / "job.yaml"
        values = {**job_of(write_manifest(rows)), "manifest": "manifest", "output": "campaign", **changes}
        path.write_text(json.dumps(values))
        return path

    return write


def _run_json(output: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(max(output.glob("runs/*/run.json")).read_text())
    return value


def test_a_submitted_job_is_done_and_its_exit_code_passed_through(
    head: Head, job: Callable[..., Path], tmp_path: Path
) -> None:
    absent = {"task": "image-to-image", "strength": 1.0, "images": str(tmp_path / "absent.png")}
    path = job([*prompts(12), {"id": "absent", "prompt": "p", **absent}], workers={"count": 1})
    first = head.submit(path, "--json")
    assert first.returncode == 3, first.stderr
    counts = _run_json(tmp_path / "campaign")["counts"]
    second = head.submit(path, "--json", "--accept-failed")
    again = _run_json(tmp_path / "campaign")["counts"]

    assert (first.returncode, second.returncode) == (3, 0), first.stderr + second.stderr
    assert counts["rows_ok"] == counts["rows_generated"] == 12
    assert (again["model_calls"], again["rows_reused"]) == (0, 12)
    names = [json.loads(done.stdout)["submission_id"] for done in (first, second)]
    assert re.fullmatch(r"sdbatch-campaign-[0-9a-f]{8}-1", names[0])
    assert names[1] == names[0][:-1] + "2"
    assert "13/13 assets" in first.stderr


def test_a_job_is_followed_over_a_connection_that_breaks_and_goes_on_when_nobody_follows(
    head: Head, job: Callable[..., Path], tmp_path: Path
) -> None:
    one_by_one = {"path": "builtin:tiny-random", "batch_size": 1}  # units of 32 rows: it tells of each of them
    path = job(prompts(300), output=str(tmp_path / "followed"), models={"tiny": one_by_one}, workers={"count": 1})
    with Relay(int(head.address.rpartition(":")[2])) as relay:
        command = [sys.executable, "-m", "sdbatch", "submit", path.name, "--address", f"http://127.0.0.1:{relay.port}"]
        process = subprocess.Popen(
            command,
            stderr=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
            env=head.environment,
            start_new_session=True,
            preexec_fn=hear_ctrl_c,  # noqa: PLW1509 -- it takes no lock
        )
        assert process.stderr is not None
        said = list(_until("starting workers", process.stderr))
        assert relay.cut() >= 1, "it was connected"
        said += _until("300 assets", process.stderr)
        process.send_signal(signal.SIGINT)
        said += process.stderr
        assert process.wait(60) == 130
    again = head.submit(path, "--json")

    assert sum("starting workers" in line for line in said) == 1, said
    assert "-1 goes on, and is not followed any more; the same command follows it" in said[-1]
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["is_new"] is False
    assert "what was changed since is not in it" in again.stderr
    assert "300/300 assets" in again.stderr


def _until(text: str, lines: Iterable[str]) -> Iterator[str]:
    """Yield lines up to the one that holds a text."""
    for line in lines:
        yield line
        if text in line:
            return
    raise AssertionError(f"no line has {text}")


@pytest.mark.long
def test_the_exit_codes_of_wrong_rows_and_of_a_budget_are_passed_through_too(
    head: Head, job: Callable[..., Path]
) -> None:
    assert head.submit(job([{"id": "a", "prompt": "p", "height": 3}], output="other")).returncode == 2
    beyond = head.submit(job(prompts(1), output="dear"), "--budget", "0.0000001gpu_hours")
    assert beyond.returncode == 6, beyond.stderr


def test_a_wrong_token_is_refused(head: Head, job: Callable[..., Path], tmp_path: Path) -> None:
    done = head.submit(job(prompts(1)), RAY_AUTH_TOKEN="f" * 64)

    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
    assert "Invalid authentication token" in done.stderr
    assert not (tmp_path / "campaign").exists()


@pytest.mark.fault("F38", "a wrong token on `run`", "the reason and the remedy at once, exit 2")
def test_what_a_cluster_refuses_is_said_at_once(head: Head, job: Callable[..., Path], tmp_path: Path) -> None:
    path = job(prompts(2), limits={"start_timeout_s": 18.0})
    own = {name: value for name, value in head.environment.items() if name != "RAY_AUTH_TOKEN"}
    own |= {"RAY_ADDRESS": head.gcs, "HOME": str(tmp_path)}

    for wrong, said in (
        ({"RAY_AUTH_TOKEN": "f" * 64}, "does not take our token; set RAY_AUTH_TOKEN"),
        ({}, "and no token in "),
    ):
        started_s = time.monotonic()
        command = [sys.executable, "-m", "sdbatch", "run", str(path)]
        done = subprocess.run(
            command, env={**own, **wrong}, cwd=path.parent, capture_output=True, text=True, timeout=240
        )
        assert done.returncode == 2
        assert [said in line for line in done.stderr.splitlines()].count(True) == 1, done.stderr
        assert "Traceback" not in done.stderr
        # Ray itself gives another reason, after 23 s on an idle machine; a busy one takes half a minute to say ours.
        assert time.monotonic() - started_s < 120


def test_a_secret_does_not_travel(head: Head, job: Callable[..., Path]) -> None:
    path = job(prompts(1))

    for secret in ("AWS_SECRET_ACCESS_KEY=abc", "NAME=AKIAABCDEFGHIJKLMNOP"):
        refused = head.submit(path, "--env", secret)
        assert refused.returncode == 2
        assert "looks like a secret" in refused.stderr


@pytest.mark.long
def test_workers_that_do_not_fit_wait_and_the_job_ends_without_them(
    head: Head, job: Callable[..., Path], tmp_path: Path
) -> None:
    done = head.submit(job(prompts(40), workers={"count": "auto", "max": 8}))
    facts = _run_json(tmp_path / "campaign")["workers"]

    assert done.returncode == 0, done.stderr
    assert 1 <= len(facts) <= 3  # the head has three cores, eight workers were asked for


@pytest.mark.long
def test_rays_own_submit_works_too(head: Head, job: Callable[..., Path], tmp_path: Path) -> None:
    path = job(prompts(3), output=str(tmp_path / "campaign"))
    command = [f"{BIN}/ray", "job", "submit", "--address", head.address, "--working-dir", str(tmp_path)]
    done = subprocess.run(
        [*command, "--", "sdbatch", "run", path.name], env=head.environment, capture_output=True, text=True, timeout=240
    )

    assert done.returncode == 0, done.stderr
    assert _run_json(tmp_path / "campaign")["counts"]["rows_ok"] == 3


@pytest.mark.long
def test_metrics_are_scraped_and_a_cancelled_campaign_goes_on_later(
    head: Head, job: Callable[..., Path], tmp_path: Path
) -> None:
    from sdbatch.dispatch.metrics import METRICS

    rows = prompts(700)
    path = job(rows, defaults={"task": "text-to-image", "num_inference_steps": 6})
    output = tmp_path / "campaign"
    assert head.submit(path, "--no-wait").returncode == 0
    deadline_s = time.monotonic() + 300
    while len(asset_digests(str(output))) < 8:
        assert time.monotonic() < deadline_s, "no assets came"
        time.sleep(0.5)
    seen: dict[str, float] = {}
    while not 0 < len(workers := _workers(head.pid)) <= seen.get("sdbatch_workers", 0):  # one that starts holds no unit
        assert time.monotonic() < deadline_s, f"{len(workers)} workers, and the metrics say {seen}"
        time.sleep(0.5)
        seen = _scraped(head.metrics)
    os.kill(workers[0], signal.SIGKILL)  # so that there is a death and a retry to see
    while missing := set(METRICS) - {name for name, value in seen.items() if value > 0}:
        assert time.monotonic() < deadline_s, f"no value for {missing}"
        time.sleep(1.0)
        seen = _scraped(head.metrics)
    followed = head.submit(path, "--no-wait", "--json")
    asked = head.sdbatch("cancel", str(output), folder=tmp_path)
    status: dict[str, Any] = {"state": "running"}
    while status["state"] == "running" and time.monotonic() < deadline_s:
        time.sleep(1.0)
        status = json.loads(head.sdbatch("status", str(output), "--json", folder=tmp_path).stdout)
    made = status["counts"]["rows_ok"]
    second = head.submit(path)

    assert not json.loads(followed.stdout)["is_new"]
    assert asked.returncode == 0
    assert status["state"] == "cancelled"
    assert 0 < made < len(rows)
    assert status["counts"]["worker_deaths"] == 1
    assert second.returncode == 0
    counts = _run_json(output)["counts"]
    assert (counts["rows_ok"], counts["rows_reused"]) == (len(rows) - made, made)
    assert len(asset_digests(str(output))) == len(rows)
    assert sdbatch.verify(str(output)).is_good
    assert head.sdbatch("cancel", str(output), folder=tmp_path).returncode == 2


def _workers(head: int) -> list[int]:
    """Return the process ids of our actors on a head."""
    return [pid for pid in descendants(head) if b"SdbatchWorker" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def _scraped(url: str) -> dict[str, float]:
    """Return the largest value of each of our metrics, without Ray's prefix."""
    with urllib.request.urlopen(url, timeout=10) as answer:
        text = answer.read().decode()
    values: dict[str, float] = {}
    for name, value in re.findall(r"^ray_(sdbatch_\w+)\{.*\} ([0-9.e+-]+)$", text, re.MULTILINE):
        values[name] = max(values.get(name, 0.0), float(value))
    return values
