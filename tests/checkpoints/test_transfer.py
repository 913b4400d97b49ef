"""Copies from a bucket: in ranges, taken up after a kill, compared with the disk's free space; others wait and see."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from support.proxy import FaultyProxy, faulty_proxy

from sdbatch.checkpoints import transfer
from sdbatch.checkpoints.transfer import FILES, LEDGER, RANGE_BYTES, copy_files
from sdbatch.checkpoints.turns import turn
from sdbatch.errors import LocalFault, ModelLoadFailed, StoreUnavailable
from sdbatch.storage import Entry, Store, open_store, retries
from sdbatch.storage.progress import Watch, moved, watched

pytestmark = pytest.mark.s3
SIZES = {"config.json": 200, "empty.txt": 0, "a.safetensors": 3 * RANGE_BYTES + 5, "b.safetensors": 2 * RANGE_BYTES}


@pytest.fixture(scope="module")
def bucket(s3_endpoint: str) -> Store:
    """Give a folder in a bucket with two files of several ranges."""
    store = open_store("s3://campaigns/transfer", {})
    for path, size in SIZES.items():
        store.put(path, random.Random(path).randbytes(size))
    return store


@pytest.fixture
def proxy(bucket: Store, s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyProxy]:
    """Put a proxy before the bucket, for stores that are opened from now on."""
    with faulty_proxy(s3_endpoint) as running:
        monkeypatch.setenv("AWS_ENDPOINT_URL", running.endpoint)
        yield running


def _sha256(store: Store, entries: list[Entry]) -> dict[str, str]:
    return {entry.path: f"sha256:{hashlib.sha256(store.read(entry.path)).hexdigest()}" for entry in entries}


def _gets(proxy: FaultyProxy, path: str) -> int:
    return sum(method == "GET" and seen.endswith(path) for method, seen, _ in proxy.seen)


def test_a_copy_is_what_lies_in_the_bucket_and_is_digested_on_the_way(bucket: Store, tmp_path: Path) -> None:
    told: list[int] = []
    with watched(Watch(told=lambda: told.append(1))):
        digests = copy_files(bucket, bucket.list(), tmp_path)

    assert digests == _sha256(bucket, bucket.list())
    assert {path: (tmp_path / FILES / path).read_bytes() for path in SIZES} == {
        path: bucket.read(path) for path in SIZES
    }
    assert len(told) >= 7  # one for every range


def test_what_is_whole_is_not_fetched_again_and_what_is_half_is_taken_up(
    bucket: Store, proxy: FaultyProxy, tmp_path: Path
) -> None:
    script = (
        "import sys; from pathlib import Path; from sdbatch.checkpoints.transfer import copy_files\n"
        "from sdbatch.storage import open_store\n"
        "store = open_store('s3://campaigns/transfer', {})\n"
        "copy_files(store, store.list(), Path(sys.argv[1]))"
    )
    opened = threading.Event()
    behind = tuple(f"bytes={number * RANGE_BYTES}-" for number in (2, 3))
    proxy.hold = lambda path, asked: path.endswith("a.safetensors") and asked.startswith(behind) and opened.wait(30)
    process = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)])
    half = tmp_path / FILES / "a.safetensors"
    _wait_until(
        lambda: half.exists() and half.stat().st_size == 2 * RANGE_BYTES and _is_whole(tmp_path, "b.safetensors")
    )
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    proxy.rule = lambda *_: "drop"  # what the dead process still asks for
    opened.set()
    _wait_until(lambda: _gets(proxy, "a.safetensors") == 4)
    proxy.rule = lambda *_: None
    proxy.seen.clear()
    proxy.sent.clear()

    store = open_store("s3://campaigns/transfer", {})
    assert copy_files(store, store.list(), tmp_path) == _sha256(bucket, bucket.list())
    assert _gets(proxy, "b.safetensors") == _gets(proxy, "config.json") == 0
    assert _gets(proxy, "a.safetensors") == 2  # of four ranges
    assert sum(sent for path, sent in proxy.sent.items() if path.endswith("a.safetensors")) == RANGE_BYTES + 5


def _is_whole(folder: Path, path: str) -> bool:
    lines = (folder / LEDGER).read_text().splitlines() if (folder / LEDGER).exists() else []
    return any(f'"{path}"' in line and "sha256" in line for line in lines)


def _wait_until(is_so: Callable[[], bool], most_s: float = 30.0) -> None:
    deadline_s = time.monotonic() + most_s
    while not is_so():
        assert time.monotonic() < deadline_s
        time.sleep(0.02)


def test_the_beginning_of_another_object_is_not_taken_up(bucket: Store, tmp_path: Path) -> None:
    copy_files(bucket, bucket.list(), tmp_path)
    ledger = tmp_path / LEDGER
    half = tmp_path / FILES / "b.safetensors"
    half.write_bytes(b"of another object")
    (tmp_path / FILES / "stray.safetensors").write_bytes(b"x")
    ledger.write_text(ledger.read_text().replace(f"{SIZES['b.safetensors']} ", "77 ") + '{"path": "torn')

    assert copy_files(bucket, bucket.list(), tmp_path) == _sha256(bucket, bucket.list())
    assert half.read_bytes() == bucket.read("b.safetensors")
    assert sorted(path.name for path in (tmp_path / FILES).iterdir()) == sorted(SIZES)


def test_a_whole_file_that_was_touched_since_is_digested_as_it_is(bucket: Store, tmp_path: Path) -> None:
    copy_files(bucket, bucket.list(), tmp_path)
    changed = tmp_path / FILES / "config.json"
    changed.write_bytes(b"x" * SIZES["config.json"])

    digests = copy_files(bucket, bucket.list(), tmp_path)
    assert digests["config.json"] == f"sha256:{hashlib.sha256(b'x' * SIZES['config.json']).hexdigest()}"


def test_ranges_are_asked_for_at_once_and_their_number_is_bounded(
    bucket: Store, proxy: FaultyProxy, tmp_path: Path
) -> None:
    now, most = [0], [0]
    lock = threading.Lock()
    are_there = threading.Event()

    def rule(method: str, path: str) -> None:
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
            if most[0] >= 4:
                are_there.set()
        are_there.wait(20)
        time.sleep(0.2)  # for more than may come
        with lock:
            now[0] -= 1

    store = open_store("s3://campaigns/transfer", {})
    entries = store.list()
    proxy.rule = rule
    copy_files(store, entries, tmp_path)

    assert 4 <= most[0] <= transfer.RANGES_AT_ONCE  # of a and b, with four and two ranges


def test_a_file_that_shrinks_while_it_is_copied_is_an_error(bucket: Store, tmp_path: Path) -> None:
    entries = [entry for entry in bucket.list() if entry.path == "config.json"]
    (entry,) = entries

    with pytest.raises(ModelLoadFailed, match=r"config\.json: changed while it was copied"):
        copy_files(bucket, [Entry(path=entry.path, size_bytes=500, etag=entry.etag, modified_s=0)], tmp_path)


def test_a_store_that_breaks_off_ends_the_copy_and_keeps_what_is_there(
    bucket: Store, proxy: FaultyProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retries, "ATTEMPTS_MAX", 2)
    monkeypatch.setattr(retries, "BACKOFF_FIRST_S", 0.01)
    store = open_store("s3://campaigns/transfer", {})
    entries = store.list()
    proxy.rule = lambda _, path: 503 if path.endswith("a.safetensors") else None

    with pytest.raises(StoreUnavailable, match=r"a\.safetensors"):
        copy_files(store, entries, tmp_path)
    proxy.rule = lambda *_: None
    assert copy_files(store, entries, tmp_path) == _sha256(bucket, bucket.list())


def test_a_disk_that_is_too_small_is_named_with_both_figures(
    bucket: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Usage(NamedTuple):
        total: int
        used: int
        free: int

    rooms: list[str] = []
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(1 << 40, 0, 11 << 20))
    with pytest.raises(LocalFault, match=r"transfer: the local copy needs 0\.04 GiB more, and .* has 0\.01 GiB free"):
        copy_files(bucket, bucket.list(), tmp_path, lambda: rooms.append("made"))
    assert rooms == ["made"]
    assert not list((tmp_path / FILES).iterdir())


# --- waiting for another process --------------------------------------------------------------------------------------

_EIGHT = """
import os, sys, time
from pathlib import Path
from sdbatch.checkpoints.transfer import copy_files
from sdbatch.checkpoints.turns import turn
from sdbatch.storage import open_store
from sdbatch.storage.progress import Watch, watched

folder, still_max_s = Path(sys.argv[1]), float(sys.argv[2])
children = []
for number in range(8):
    if (pid := os.fork()) == 0:
        begun_s = told_s = time.monotonic()
        longest_s = 0.0

        def told():
            global told_s, longest_s
            now_s = time.monotonic()
            longest_s, told_s = max(longest_s, now_s - told_s), now_s

        with watched(Watch(told=told, still_max_s=still_max_s)), turn(folder / ".lock", "s3://campaigns/transfer"):
            if not (folder / "done").exists():
                store = open_store("s3://campaigns/transfer", {})
                copy_files(store, store.list(), folder / "partial")
                (folder / "done").touch()
        (folder / f"{number}.said").write_text(f"{time.monotonic() - begun_s} {longest_s}")
        os._exit(0)
    children.append(pid)
os._exit(max(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children))
"""


def test_eight_processes_wait_for_one_copy_that_takes_longer_than_they_may_stand_still(
    bucket: Store, proxy: FaultyProxy, tmp_path: Path
) -> None:
    still_max_s = 10.0  # six parts take 12 s, of which each is far shorter, on a loaded machine too
    turns = threading.Lock()

    def one_by_one(method: str, path: str) -> None:
        if method == "GET" and path.endswith(".safetensors"):
            with turns:
                time.sleep(2.0)

    proxy.rule = one_by_one
    done = subprocess.run([sys.executable, "-c", _EIGHT, str(tmp_path), str(still_max_s)], timeout=240)
    said = [tuple(map(float, file.read_text().split())) for file in tmp_path.glob("*.said")]

    assert done.returncode == 0
    assert len(said) == 8
    assert min(took_s for took_s, _ in said) > still_max_s
    assert max(longest_s for _, longest_s in said) < still_max_s
    assert (_gets(proxy, "a.safetensors"), _gets(proxy, "b.safetensors")) == (4, 2)  # one process copied


def test_who_holds_the_lock_and_stands_still_is_waited_for_with_a_bound(tmp_path: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path; from sdbatch.checkpoints.turns import turn\n"
        "with turn(Path(sys.argv[1]), 'm'): print('held', flush=True); time.sleep(60)"
    )
    lock = tmp_path / ".m.lock"
    with subprocess.Popen([sys.executable, "-c", script, str(lock)], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        begun_s = time.monotonic()
        try:
            with (
                watched(Watch(still_max_s=0.5)),
                pytest.raises(ModelLoadFailed, match=rf"s3://b/m: another process .* holds {lock} .* for 0\.5 s"),
                turn(lock, "s3://b/m"),
            ):
                pass
        finally:
            holder.kill()
        assert time.monotonic() - begun_s < 50  # the other one lets go after 60
    with turn(lock, "s3://b/m"):  # the system freed it
        moved()
