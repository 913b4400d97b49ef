"""What a worker's process imports is out of the collector's sight; a model that it loads later is not."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest

from sdbatch.worker.collector import left_to_stay

START = """
import gc, json, sys
from sdbatch.types import WorkerSpec
from sdbatch.worker import prepare_process
model = {"path": "nowhere"}
job = {"manifest": "m.parquet", "output": sys.argv[1], "models": {"m": model}, "defaults": {"model": "m"}}
spec = WorkerSpec(job=job, output=sys.argv[1], run_id="r", lease_epoch=1, lease_token="", revisions={})
prepare_process(spec, "w0")
said = {"stay": gc.get_freeze_count(), "watched": len(gc.get_objects()), "enabled": gc.isenabled()}
print(json.dumps(said | {"torch": "torch" in sys.modules}))
"""


class Node:
    """May refer to itself."""


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    yield
    gc.unfreeze()


def test_a_cycle_made_after_the_block_is_still_found() -> None:
    stayed = gc.get_freeze_count()
    with left_to_stay():
        assert not gc.isenabled()
    node = Node()
    node.itself = node  # type: ignore[attr-defined]
    seen = weakref.ref(node)
    del node
    gc.collect()

    assert gc.isenabled()
    assert gc.get_freeze_count() > stayed
    assert seen() is None


def test_a_block_that_fails_leaves_the_collector_as_it_was() -> None:
    stayed = gc.get_freeze_count()
    with pytest.raises(ImportError), left_to_stay():
        raise ImportError("no torch")

    assert gc.isenabled()
    assert gc.get_freeze_count() == stayed


def test_the_libraries_of_a_worker_are_looked_at_no_more(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", START, str(tmp_path)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])

    assert said["torch"]
    assert said["stay"] > 200_000
    assert said["watched"] < 20_000
    assert said["enabled"]
