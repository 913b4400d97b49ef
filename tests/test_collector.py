"""What a worker's process imports is out of the collector's sight, and a model that it loads later is not; blocks that
make many objects look for cycles seldom, and leave the thresholds as they were.
"""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sdbatch.collector import SELDOM, left_to_stay, seldom_collected

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
    thresholds = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*thresholds)


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


def test_thresholds_come_back_after_the_last_of_blocks_in_several_threads() -> None:
    gc.set_threshold(700, 10, 10)
    first, second = seldom_collected(), seldom_collected()
    first.__enter__()
    with ThreadPoolExecutor(1) as other:
        other.submit(second.__enter__).result()
        first.__exit__(None, None, None)
        assert gc.get_threshold() == SELDOM
        other.submit(second.__exit__, None, None, None).result()

    assert gc.get_threshold() == (700, 10, 10)


@pytest.mark.parametrize(
    ("before", "inside"),
    [((0, 10, 10), (0, 10, 10)), ((90_000, 10, 10), (90_000, *SELDOM[1:]))],
    ids=["collects nothing by itself", "collects more seldom already"],
)
def test_a_caller_who_collects_less_keeps_that(before: tuple[int, int, int], inside: tuple[int, int, int]) -> None:
    gc.set_threshold(*before)
    with seldom_collected():
        assert gc.get_threshold() == inside

    assert gc.get_threshold() == before


def test_a_block_that_fails_puts_the_thresholds_back() -> None:
    before = gc.get_threshold()
    with pytest.raises(OSError, match="amid"), seldom_collected():
        raise OSError("amid")

    assert gc.get_threshold() == before
