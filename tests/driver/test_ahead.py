"""What a run with Ray does to the process it is in: Ray is started beside the reading of a long manifest where work is
expected, its workers beside the counting, and Python looks for cycles seldom while units are handed out; all of that
ends with the run in any case.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from conftest import prompts

from sdbatch.collector import SELDOM

pytestmark = pytest.mark.ray

RUNS = """
import gc, json, sys
import psutil
from sdbatch import Selection, SdbatchError
from sdbatch.dispatch import ray_cluster
from sdbatch.driver import run
from sdbatch.driver.one_run import session
from sdbatch.job import parse_job
from sdbatch.report.progress import Silent

run.AHEAD_FROM_ROWS = 1
begun, told = [], []
begin = run.RayAhead.begin
run.RayAhead.begin = lambda self: (begun.append(self), begin(self))
starts, asked = [], []
start_local = ray_cluster.start_local
ray_cluster.start_local = lambda *args, **options: (starts.append(args), start_local(*args, **options))[1]
start_worker, start_ahead = ray_cluster.RayExecutor.start, session.Fleet.start_ahead
ray_cluster.RayExecutor.start = lambda self, worker, shape: (asked.append(worker), start_worker(self, worker, shape))
session.Fleet.start_ahead = lambda self, shape: (asked.append("ahead"), start_ahead(self, shape))
before, seen = gc.get_threshold(), set()


class Watch(Silent):
    def show(self, snapshot):
        seen.add(gc.get_threshold())


for job, selection in json.loads(sys.argv[1]):
    begun.clear(), starts.clear(), asked.clear(), seen.clear()
    try:
        result = run.run_job(
            parse_job(job),
            selection=Selection(**{**selection, "only": frozenset(selection.get("only", ()))}),
            in_process=False,
            progress=Watch(),
            worker="support.paced:PacedWorker",
        )
        said = [result.exit_code, result.counts["rows_ok"]]
    except SdbatchError as error:
        said = str(error)
    # Ray's processes are told to end, and not all are gone when its shutdown returns.
    _, left = psutil.wait_procs(psutil.Process().children(recursive=True), timeout=60)
    left = [child.cmdline() for child in left]
    assert gc.get_threshold() == before
    told.append([said, len(begun), len(starts), ray_cluster.ray.is_initialized(), left, sorted(seen), asked[:]])
print(json.dumps(told))
"""


def test_ray_is_started_ahead_once_where_rows_are_open_and_ends_with_a_refused_manifest_too(
    tmp_path: Path, write_manifest: Callable[..., str], job_of: Callable[..., dict[str, Any]]
) -> None:
    settings = {"workers": {"count": 1}, "defaults": {"task": "text-to-image", "num_inference_steps": 1}}
    rows = prompts(12)
    job = job_of(write_manifest(rows), output=str(tmp_path / "campaign"), **settings)
    others = write_manifest([{**row, "id": f"other-{row['id']}"} for row in rows], name="others")
    bounded = {**job, "limits": {"gpu_hours": 1}}
    first_rows = {"only": [row["id"] for row in rows[:8]]}
    runs = [
        (job, {"limit": 8}),
        ({**job, "manifest": others}, {}),
        (job, first_rows),
        (bounded, {"limit": 1}),
        (job, {}),
        (job, {}),
    ]
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    done = subprocess.run(
        [sys.executable, "-c", RUNS, json.dumps(runs)],
        env={**environment, "PYTHONPATH": os.pathsep.join(sys.path)},
        check=False,
        capture_output=True,
        text=True,
        timeout=540,
    )
    assert done.returncode == 0, done.stderr
    first, refused, none_of_these, of_budget, rest, nothing = json.loads(done.stdout.splitlines()[-1])

    ahead = ["ahead", "w0"]
    assert first == [[0, 8], 1, 1, False, [], [list(SELDOM)], ahead]
    assert "leave" in refused[0]
    assert refused[1:] == [1, 1, False, [], [], []]
    assert none_of_these == [[0, 0], 1, 1, False, [], [], ahead]
    assert of_budget == [[0, 1], 1, 1, False, [], [list(SELDOM)], ["w0"]]
    assert rest == [[0, 3], 1, 1, False, [], [list(SELDOM)], ahead]
    assert nothing == [[0, 0], 0, 0, False, [], [], []]


STOPPED = """
import json, sys
from sdbatch import Selection
from sdbatch.dispatch import ray_cluster
from sdbatch.driver import run
from sdbatch.job import parse_job
from sdbatch.report.progress import Silent

run.AHEAD_FROM_ROWS = 1
job, when = json.loads(sys.argv[1])


def told(moment, call):
    def telling(*args, **options):
        if moment == when:
            print("now", flush=True)
        return call(*args, **options)
    return telling


run.RayAhead.begin = told("ray starts", run.RayAhead.begin)
ray_cluster.RayExecutor.capacity = told("workers start", ray_cluster.RayExecutor.capacity)
worker = "support.paced:PacedWorker"
try:
    result = run.run_job(
        parse_job(job), selection=Selection(), in_process=False, progress=Silent(), worker=worker
    )
except KeyboardInterrupt:  # it came before the dispatcher ran
    print("stopped")
else:
    print(result.message)
"""


@pytest.mark.parametrize("when", ["ray starts", "workers start"])
def test_a_second_signal_while_a_thread_starts_workers_ends_the_run_and_all_it_started(
    tmp_path: Path, write_manifest: Callable[..., str], job_of: Callable[..., dict[str, Any]], when: str
) -> None:
    job = job_of(write_manifest(prompts(12)), output=str(tmp_path / "campaign"), workers={"count": 2})
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    with subprocess.Popen(
        [sys.executable, "-c", STOPPED, json.dumps([job, when])],
        env={**environment, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as driver:
        assert driver.stdout is not None
        assert driver.stdout.readline() == "now\n"
        started: dict[int, psutil.Process] = {}
        for _ in range(2):
            driver.send_signal(signal.SIGINT)
            time.sleep(0.1)
            started |= {child.pid: child for child in psutil.Process(driver.pid).children(recursive=True)}
        out, errors = driver.communicate(timeout=50)

    assert (driver.returncode, out.startswith("stopped")) == (0, True), errors
    assert psutil.wait_procs(list(started.values()), timeout=60)[1] == []


INTERRUPTED = """
import json, os, signal, sys, time
import ray
from sdbatch import Selection
from sdbatch.driver import run
from sdbatch.job import parse_job
from sdbatch.report.progress import Silent

job, when, signum = json.loads(sys.argv[1])
ended = []


def interrupted(moment, call):
    def called(*args, **options):
        for _ in range(2 * (moment == when)):
            os.kill(os.getpid(), signum)
            time.sleep(0.2)
        call(*args, **options)
        ended.append(moment)
        return context
    return called


context = None
init = ray.init


def start(**options):
    global context
    context = init(**options)


ray.init, ray.shutdown = interrupted("start", start), interrupted("shutdown", ray.shutdown)
try:
    run.run_job(
        parse_job(job),
        selection=Selection(),
        in_process=False,
        progress=Silent(),
        worker="support.paced:PacedWorker",
    )
except KeyboardInterrupt:  # it came after the dispatcher had ended
    pass
print(json.dumps([ended, ray.is_initialized()]))
"""


@pytest.mark.parametrize(
    ("when", "signum"), [("start", signal.SIGTERM), ("start", signal.SIGINT), ("shutdown", signal.SIGINT)]
)
def test_no_signal_interrupts_ray_halfway_in_its_start_or_its_shutdown(
    tmp_path: Path,
    write_manifest: Callable[..., str],
    job_of: Callable[..., dict[str, Any]],
    when: str,
    signum: signal.Signals,
) -> None:
    job = job_of(write_manifest(prompts(2)), output=str(tmp_path / "campaign"), workers={"count": 1})
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, json.dumps([job, when, signum])],
        env={**environment, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [["start", "shutdown"], False]
