"""Lease, status, records and commits that no run wrote: one line each, and nothing loops or hangs."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from conftest import prompts

import sdbatch
from sdbatch.campaign import layout, lease
from sdbatch.campaign.campaign import Campaign
from sdbatch.campaign.lease import acquire
from sdbatch.campaign.read import read_commit, read_json
from sdbatch.campaign.schema import to_parquet
from sdbatch.campaign.write import put_commit
from sdbatch.errors import CampaignHeld, Interrupted, StoreRefused, UserError
from sdbatch.storage import LocalStore, Store, open_campaign

RUN = "r000001-20260101T000000Z"
KEY = "0" * 64
STATUS = {
    "format_version": 1,
    "run_id": RUN,
    "state": "done",
    "updated_at": "2026-01-01T00:00:00+00:00",
    "rows": 1,
    "rate_per_s": 1.0,
    "eta_s": None,
    "counts": {"rows_ok": 1, "rows_failed": 0, "rows_reused": 0},
}
GARBAGE = {
    "nothing": b"",
    "no JSON": b"\x00\xff{",
    "a list": b"[]",
    "NaN": b"NaN",
    "brackets": b"[" * 100_000,
    "a long number": b'{"pid": 1' + b"0" * 5000 + b"}",
}


@pytest.fixture(autouse=True)
def _short_term(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "BEAT_EVERY_S", 0.1)
    monkeypatch.setattr(lease, "TERM_S", 1.0)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    found = open_campaign(str(tmp_path / "campaign"), {})
    found.put_new(
        layout.requests(RUN, 0), to_parquet(pa.table({"id": ["a"], "request_key": [KEY], "num_outputs": [1]}))
    )
    put_commit(found, RUN, "000000", [{"id": "a", "request_key": KEY, "n": 0, "status": "failed", "error_type": "X"}])
    return found


@pytest.mark.fault("S10", "lease/999999.json", "one line that names it; no loop")
def test_the_last_number_of_a_lease_ends_in_one_line(store: Store) -> None:
    store.put_new(layout.lease(999_999), b"{}")

    with pytest.raises(StoreRefused, match=r"lease/999999\.json: is the last number .* remove it"):
        acquire(store)


@pytest.mark.fault("S10", "a store in which another driver is always faster", "one line after a bound")
def test_taking_a_campaign_has_a_bound(tmp_path: Path) -> None:
    class Beaten(LocalStore):
        def put_new(self, path: str, data: bytes, content_type: str = "", *, syncs: bool = True) -> bool:
            if path.endswith(".json"):
                self.put(path, b"{}")
                self.put(path.replace(".json", ".beat"), b'{"state": "released"}')
            return super().put_new(path, data, content_type, syncs=syncs)

    with pytest.raises(CampaignHeld, match="16 times in turn another driver was faster"):
        acquire(Beaten(str(tmp_path / "c")))


@pytest.mark.fault("S10", "garbage in a lease", "one line that names it")
@pytest.mark.parametrize("data", GARBAGE.values(), ids=GARBAGE)
def test_garbage_in_a_lease_ends_in_one_line(store: Store, data: bytes) -> None:
    store.put_new(layout.lease(1), data)
    for call in (lambda: acquire(store), lambda: lease.ask_to_stop(store), lambda: lease.is_gone(store)):
        with pytest.raises(UserError, match=r"lease/000001\.json: is not the lease that sdbatch wrote") as caught:
            call()
        assert "\n" not in str(caught.value)


@pytest.mark.fault("S10", "a lease with a process id that is none", "one line that names it")
@pytest.mark.parametrize("pid", ["abc", -1, 0, 2**70, 1.5, [1], None, True])
def test_a_process_id_that_is_none_ends_in_one_line(store: Store, pid: Any) -> None:
    store.put_new(layout.lease(1), json.dumps({"host": lease._host(), "pid": pid}).encode())
    with pytest.raises(UserError, match="pid is"):
        acquire(store)


@pytest.mark.fault("S10", "garbage in a beat", "a holder that does not beat: taken over after a term")
@pytest.mark.parametrize("data", GARBAGE.values(), ids=GARBAGE)
def test_garbage_in_a_beat_is_no_sign_of_life(store: Store, data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "TERM_S", 0.3)
    store.put_new(layout.lease(1), json.dumps({"host": "elsewhere", "pid": 1}).encode())
    store.put_new(layout.beat(1), data)
    taken = acquire(store)
    taken.release()

    assert taken.holder.epoch == 2


@pytest.mark.fault("S10", "SIGTERM while a run waits for a lease", "heard within a second; exit 130")
def test_a_signal_is_heard_while_a_campaign_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write_manifest: Any, job_of: Any
) -> None:
    monkeypatch.setattr(lease, "TERM_S", 60.0)
    job = job_of(write_manifest(prompts(1)))
    found = open_campaign(job["output"], {})
    found.put_new(layout.lease(1), json.dumps({"host": "elsewhere", "pid": 1}).encode())
    begun_s: list[float] = []
    read_beat = lease._read_beat

    def read_and_signal(store: Store, epoch: int) -> dict[str, Any]:
        if not begun_s:  # from here on it is waited for
            begun_s.append(time.monotonic())
            threading.Timer(0.5, lambda: os.kill(os.getpid(), signal.SIGTERM)).start()
        return read_beat(store, epoch)

    monkeypatch.setattr(lease, "_read_beat", read_and_signal)
    with pytest.raises(Interrupted, match="before anything was started") as caught:
        sdbatch.run(job, in_process=True)
    assert time.monotonic() - begun_s[0] < 30
    assert caught.value.exit_code == 130


@pytest.mark.fault("S10", "garbage in status.json", "one line that names it")
@pytest.mark.parametrize("data", GARBAGE.values(), ids=GARBAGE)
def test_garbage_in_a_status_or_a_record_ends_in_one_line(store: Store, data: bytes) -> None:
    store.put(layout.status_json(RUN), data)
    store.put(layout.run_json(RUN), data)
    folder = Campaign(store)
    calls: dict[str, Callable[[], object]] = {"status.json": folder.status, "run.json": lambda: folder.record(RUN)}
    for name, call in calls.items():
        with pytest.raises(
            UserError, match=rf"{name}: is not the (status|record) that sdbatch wrote.*remove it"
        ) as caught:
            call()
        assert "\n" not in str(caught.value)


@pytest.mark.fault("S10", "values of status.json and run.json that no run writes", "one line that names the key")
@pytest.mark.parametrize(
    ("name", "values", "key"),
    [
        ("status", {"state": 7}, "state"),
        ("status", {"eta_s": "soon"}, "eta_s"),
        ("status", {"rate_per_s": -1}, "rate_per_s"),
        ("status", {"counts": []}, "counts"),
        ("status", {"counts": {"rows_ok": 1}}, "counts"),
        ("status", {"rows": 10**30}, "rows"),
        ("status", {"key_version": "2"}, "key_version"),
        ("status", {"made_with": {"exact": {"m": 3}}}, "made_with"),
        ("record", {"job": []}, "job"),
        ("record", {"rate_tflop_per_s": {"m": 0}}, "rate_tflop_per_s"),
        ("record", {"rate_tflop_per_s": {"m": "fast"}}, "rate_tflop_per_s"),
    ],
)
def test_a_value_that_no_run_writes_is_named(store: Store, name: str, values: dict[str, Any], key: str) -> None:
    path = layout.status_json(RUN) if name == "status" else layout.run_json(RUN)
    store.put(path, json.dumps({**STATUS, "job": {"models": {}}, **values}).encode())
    folder = Campaign(store)

    with pytest.raises(UserError, match=rf"is not the {name} that sdbatch wrote \({key} "):
        folder.status() if name == "status" else folder.record(RUN)
    store.put(path, json.dumps({**STATUS, "job": {"models": {}}}).encode())
    assert (folder.status() if name == "status" else folder.record(RUN)) is not None


@pytest.mark.fault("S10", "a status.json without a key that every run writes", "one line that names the key")
@pytest.mark.parametrize("key", ["run_id", "state", "rows", "rate_per_s", "eta_s", "counts"])
def test_a_key_that_is_missing_is_named(store: Store, key: str) -> None:
    values = {name: value for name, value in STATUS.items() if name != key}
    store.put(layout.status_json(RUN), json.dumps(values).encode())

    with pytest.raises(UserError, match=rf"is not the status that sdbatch wrote \({key} is missing\)"):
        Campaign(store).status()


@pytest.mark.fault(
    "S10", "garbage in a commit, an index, a snapshot, a list of void outputs, a part of a manifest", "one line each"
)
@pytest.mark.parametrize("seed", range(12))
def test_damaged_tables_end_in_one_line(store: Store, seed: int) -> None:
    import random

    chance = random.Random(seed)
    whole = bytearray(store.read(layout.commit(RUN, "000000")))
    for _ in range(chance.randint(1, 30)):
        whole[chance.randrange(len(whole))] = chance.randrange(256)
    data = bytes(whole[: chance.randint(0, len(whole))] if seed % 3 == 0 else whole)
    for path in (layout.commit(RUN, "000000"), layout.index(RUN, 0), layout.snapshot(RUN), layout.redo(RUN)):
        store.put(path, data)
    calls: list[Callable[[], object]] = [
        lambda: read_commit(store, layout.commit(RUN, "000000")),
        lambda: sdbatch.metadata(store.url),
        lambda: sdbatch.verify(store.url),
        lambda: sdbatch.gc(store.url),
    ]
    for call in calls:
        with suppress(UserError):  # one line; any other error fails the test
            call()


def test_a_row_of_a_commit_without_an_id_is_no_row(store: Store) -> None:
    rows = [{"id": None, "request_key": KEY, "n": 0, "status": "ok"}]
    put_commit(store, RUN, "000001", rows)

    with pytest.raises(UserError, match="a row without id"):
        read_commit(store, layout.commit(RUN, "000001"))


def test_brackets_within_brackets_are_no_object(store: Store) -> None:
    store.put("x.json", b"[" * 100_000)

    with pytest.raises(ValueError, match="brackets within brackets"):
        read_json(store, "x.json")
