"""`sdbatch run` and Ray: a local cluster is closed to strangers, and what another cluster refuses is said at once."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from conftest import RAY_FOLDER, prompts

from sdbatch.cli.process import LAST_LINE

pytestmark = pytest.mark.ray
Values = dict[str, Any]
AUTHENTICATION = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_ADDRESS")
HOLDER = """
import sys, time
import ray
from sdbatch.dispatch.ray_local import LocalRay

cluster = LocalRay(1, None, with_token={with_token})

@ray.remote(num_cpus={cpus})
class OtherJob:
    def hold(self):
        return True

held = OtherJob.remote()
ray.get(held.hold.remote())
token = cluster._scratch.folder / "token"
print(ray.get_runtime_context().gcs_address, token.read_text() if token.exists() else "none", flush=True)
sys.stdin.read()
cluster.close()
"""


def _environment(home: Path, **changes: str) -> dict[str, str]:
    own = {name: value for name, value in os.environ.items() if name not in AUTHENTICATION}
    return {**own, "HOME": str(home), "PYTHONUNBUFFERED": "1", **changes}


def _start(arguments: list[str], environment: dict[str, str], **options: Any) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "sdbatch", *arguments]
    return subprocess.Popen(
        command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options
    )


@pytest.fixture
def job(tmp_path: Path, write_manifest: Callable[..., str], job_of: Callable[..., Values]) -> Callable[..., str]:
    def write(rows: list[Values], **changes: Any) -> str:
        path = tmp_path / "job.yaml"
        path.write_text(json.dumps(job_of(write_manifest(rows), workers={"count": 1}, **changes)))
        return str(path)

    return write


def _listeners(root: psutil.Process) -> dict[str, set[str]]:
    """Return the addresses that the processes under one listen on, by the name of the process."""
    found: dict[str, set[str]] = {}
    for process in [root, *root.children(recursive=True)]:
        try:
            for connection in process.net_connections("inet"):
                if connection.status == psutil.CONN_LISTEN:
                    found.setdefault(process.name(), set()).add(str(connection.laddr.ip))
        except psutil.Error:
            continue  # it ended meanwhile
    return found


def _programs(root: psutil.Process) -> set[str]:
    """Return the Python files that the processes under one run."""
    programs = set()
    for process in root.children(recursive=True):
        with suppress(psutil.Error):  # it ended meanwhile
            programs |= {Path(argument).name for argument in process.cmdline() if argument.endswith(".py")}
    return programs


@pytest.mark.fault("S13", "what listens during `sdbatch run`", "127.0.0.1 alone")
@pytest.mark.fault(
    "S13", "token and session folder of a local run", "0600 and 0700, of this run alone, gone afterwards"
)
def test_a_local_run_is_closed_to_strangers(job: Callable[..., str], tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    path = job(prompts(20), defaults={"task": "text-to-image", "num_inference_steps": 8})
    before = set(Path(RAY_FOLDER).glob("sdb-ray-*"))
    process = _start(["run", path, "--json"], _environment(home))
    seen: dict[str, set[str]] = {}
    programs: set[str] = set()
    modes: dict[str, int] = {}
    while process.poll() is None:
        programs |= _programs(psutil.Process(process.pid))
        for name, addresses in _listeners(psutil.Process(process.pid)).items():
            seen.setdefault(name, set()).update(addresses)
        for folder in set(Path(RAY_FOLDER).glob("sdb-ray-*")) - before:
            for entry in [folder, *folder.glob("token"), *folder.glob("r/session_20*")]:
                with suppress(FileNotFoundError):  # the run ended meanwhile
                    modes[entry.name.split("_")[0].split("-")[0]] = stat.S_IMODE(entry.lstat().st_mode)
        time.sleep(0.1)
    output, errors = process.communicate()
    told = (f"{name} listens on {', '.join(sorted(addresses))}" for name, addresses in sorted(seen.items()))
    sys.stdout.write("".join(f"{line}\n" for line in told))

    assert process.returncode == 0, errors
    assert json.loads(output)["counts"]["rows_ok"] == 20
    assert {"gcs_server", "raylet"} <= seen.keys()
    assert any(name.startswith("ray::SdbatchWorker") for name in seen)
    assert "main.py" in programs  # of an agent that a node needs: programs are seen before they take another name
    assert not programs & {"monitor.py", "dashboard.py", "log_monitor.py"}  # Ray's own, of no use to this run
    assert set().union(*seen.values()) <= {"127.0.0.1", "::ffff:127.0.0.1", "::1"}
    assert modes == {"sdb": 0o700, "token": 0o600, "session": 0o700}
    assert set(Path(RAY_FOLDER).glob("sdb-ray-*")) == before
    assert list(home.iterdir()) == []  # no token under HOME


def test_a_worker_that_this_machine_can_never_hold_is_not_waited_for(job: Callable[..., str], tmp_path: Path) -> None:
    tiny = {"path": "builtin:tiny-random", "batch_size": 1}
    rows = [{**row, "model": "large" if number else "tiny"} for number, row in enumerate(prompts(2))]
    path = job(rows, models={"tiny": tiny, "large": {**tiny, "num_gpus": 64}}, output=str(tmp_path / "out"))
    process = _start(["run", path], _environment(tmp_path))
    output, errors = process.communicate(timeout=120)  # limits.start_timeout_s is 600

    assert process.returncode == 1
    assert "model large: no worker fits this machine; each asks for 64 GPU and 1 CPU; the cluster has " in errors
    assert "too few GPU for one worker; ask for less (num_gpus: 0 takes CPUs alone), or name a larger" in errors
    assert "1 of 2 made" in output


@pytest.mark.slow
def test_a_signal_to_all_of_the_group_leaves_the_cluster_to_what_is_in_flight(
    job: Callable[..., str], tmp_path: Path
) -> None:
    """As `timeout` sends it, a batch scheduler, or a CI runner that cancels."""
    one_by_one = {"tiny": {"path": "builtin:tiny-random", "batch_size": 1}}
    path = job(prompts(3000), models=one_by_one, output=str(tmp_path / "out"))
    process = _start(["run", path], _environment(tmp_path), start_new_session=True)
    assert process.stderr is not None
    while "/min" not in (line := process.stderr.readline()) and "/s," not in line:
        assert process.poll() is None
    daemons = [one for one in psutil.Process(process.pid).children(recursive=True) if one.is_running()]
    os.killpg(process.pid, signal.SIGTERM)
    output, errors = process.communicate(timeout=120)

    assert process.returncode == 130, errors
    assert "stopped by a signal; run again to go on" in output + errors
    assert 0 < len(list((tmp_path / "out/assets").iterdir())) < 3000
    assert psutil.wait_procs(daemons, 30)[1] == []


@pytest.mark.fault("S13", "RAY_AUTH_MODE=disabled", "refused by name, exit 2, unless --allow-open-ray")
def test_a_cluster_without_a_token_is_refused_unless_it_is_allowed(job: Callable[..., str], tmp_path: Path) -> None:
    environment = _environment(tmp_path, RAY_AUTH_MODE="disabled")
    path = job(prompts(1))
    refused = _start(["run", path], environment)
    _, errors = refused.communicate(timeout=240)

    assert refused.returncode == 2
    assert "RAY_AUTH_MODE=disabled: whoever reaches such a cluster runs code as you" in errors
    assert "--allow-open-ray" in errors


@pytest.mark.long
def test_a_cluster_without_a_token_is_joined_where_it_is_allowed(job: Callable[..., str], tmp_path: Path) -> None:
    environment = _environment(tmp_path, RAY_AUTH_MODE="disabled")
    allowed = _start(["run", job(prompts(1)), "--allow-open-ray"], environment)
    _, errors = allowed.communicate(timeout=240)
    assert allowed.returncode == 0, errors


@pytest.mark.long
def test_a_caller_keeps_its_environment_and_its_token(tmp_path: Path) -> None:
    script = """
import os
import ray  # sets a variable of its own when it is imported
os.environ.update(RAY_AUTH_TOKEN="f" * 64, RAY_TMPDIR={folder!r})
before = dict(os.environ)
from sdbatch.dispatch.ray_local import LocalRay
from ray._raylet import AuthenticationMode, get_authentication_mode
for _ in range(2):
    cluster = LocalRay(1, None)
    assert dict(os.environ) == before
    assert ray.get(ray.remote(lambda: 7).remote()) == 7
    cluster.close()
assert dict(os.environ) == before
assert get_authentication_mode() != AuthenticationMode.TOKEN
print("kept")
"""
    environment = _environment(tmp_path)
    script = script.format(folder=RAY_FOLDER)
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=240)

    assert done.stdout.strip().endswith("kept"), done.stderr[-3000:]


def test_the_folder_of_a_killed_run_is_removed_by_the_next() -> None:
    import fcntl

    from sdbatch.dispatch import ray_local
    from sdbatch.scratch import LOCK

    left, held, old, new = (Path(RAY_FOLDER) / f"{ray_local.PREFIX}{name}" for name in ("left", "held", "old", "new"))
    for folder in (left, held, old, new):
        folder.mkdir()
    for folder in (left, held):
        (folder / LOCK).touch()
    os.utime(old, (1, 1))
    with (held / LOCK).open("r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        fresh = ray_local.own_folder()
        there = [folder.exists() for folder in (left, held, old, new)]
        fresh.close()

    assert there == [False, True, False, True]
    assert not fresh.folder.exists()
    ray_local.own_folder().close()
    new.rmdir()


@dataclass(frozen=True, kw_only=True)
class Other:
    """A cluster of another job, which holds its one CPU."""

    process: subprocess.Popen[str]
    address: str
    token: str


@contextmanager
def _other_cluster(home: Path, **changes: str) -> Iterator[Other]:
    script = HOLDER.format(cpus=os.cpu_count() or 1, with_token=not changes)
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        env=_environment(home, **changes),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    address, token = process.stdout.readline().split()
    yield Other(process=process, address=address, token=token)
    if process.poll() is None:
        process.communicate("", timeout=240)


@pytest.fixture
def other(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Other]:
    with _other_cluster(tmp_path_factory.mktemp("other")) as cluster:
        yield cluster


@pytest.mark.fault("S13", "a cluster that asks for no token", "refused by its address, exit 2, unless it is allowed")
def test_a_cluster_that_asks_for_no_token_is_refused(job: Callable[..., str], tmp_path: Path) -> None:
    path = job(prompts(1))
    with _other_cluster(tmp_path, RAY_AUTH_MODE="disabled") as cluster:
        process = _start(["run", path], _environment(tmp_path, RAY_ADDRESS=cluster.address))
        _, errors = process.communicate(timeout=240)

    assert process.returncode == 2
    assert f"the Ray cluster at RAY_ADDRESS {cluster.address} asks for no token, and whoever reaches such" in errors
    assert "--allow-open-ray" in errors


@pytest.mark.long
def test_what_a_cluster_lacks_is_said(other: Other, job: Callable[..., str], tmp_path: Path) -> None:
    path = job(prompts(2), limits={"start_timeout_s": 18.0})
    own = {"RAY_AUTH_MODE": "token", "RAY_ADDRESS": other.address}
    waiting = _start(["run", path], _environment(tmp_path, **own, RAY_AUTH_TOKEN=other.token))
    _, errors = waiting.communicate(timeout=240)
    assert waiting.returncode == 1
    said = (
        f"the cluster has {os.cpu_count()} CPU (0 free): other jobs, or workers of this run that still start, hold CPU"
    )
    assert f"sdbatch: waiting for a worker: each asks for 0 GPU and 1 CPU; {said}" in errors
    assert f"no worker became ready within limits.start_timeout_s = 18; each asks for 0 GPU and 1 CPU; {said}" in errors

    killed = _start(
        ["run", path, "--set", "limits.start_timeout_s=600"], _environment(tmp_path, **own, RAY_AUTH_TOKEN=other.token)
    )
    assert killed.stderr is not None
    while "waiting for a worker" not in killed.stderr.readline():
        assert killed.poll() is None
    os.killpg(other.process.pid, signal.SIGKILL)
    _, errors = killed.communicate(timeout=180)
    last = errors.strip().splitlines()[-1]
    assert killed.returncode != 0
    assert last == LAST_LINE or "run again to go on" in last, errors[-2000:]
